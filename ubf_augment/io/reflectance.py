"""From stored values to reflectance: which bands, which scale, which pixels hold data."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ubf_augment.errors import BandCountError, NoDataError, RadiometryError, WavelengthError
from ubf_augment.io.stored import Array, BandCentres, Stored
from ubf_augment.spectra import Sensor, check_wavelengths


def choose_bands(
    stored: Stored,
    given: BandCentres | None,
    drop: Iterable[int] | Literal["bad"] | None,
    sort: bool,
    where: str,
) -> tuple[list[int], Tensor]:
    """Bands to keep, in the order wanted, and their wavelengths."""
    count = len(stored.values)
    if drop == "bad":
        if stored.bad_bands is None:
            raise BandCountError(f"{where} carries no bad band list: give drop_bands=[…] yourself")
        drop = stored.bad_bands
    dropped = {int(i) for i in drop or ()}
    if outside := sorted(i for i in dropped if not 0 <= i < count):
        raise BandCountError(f"drop_bands names bands {outside}, but {where} has bands 0 to {count - 1}")
    if given is not None:
        if len(given) != count:
            raise BandCountError(
                f"{len(given)} wavelengths for the {count} bands of {where}: give one for each band of the "
                "file, before drop_bands"
            )
        centres = torch.as_tensor(given, dtype=torch.float64).cpu()
    elif stored.wavelengths is not None:
        centres = torch.from_numpy(stored.wavelengths)
    else:
        raise stored.problem or WavelengthError(
            f"the wavelengths of {where} are missing: its metadata names none; pass wavelengths=[…], one "
            f"band centre in nm for each of its {count} bands"
        )
    bands = [i for i in range(count) if i not in dropped]
    if not bands:
        raise BandCountError(f"drop_bands leaves no band of {where}")
    if unknown := [i for i in bands if not math.isfinite(float(centres[i]))]:
        raise WavelengthError(
            f"bands {unknown} of {where} have no wavelength: pass wavelengths=[…], or leave them out with "
            "drop_bands"
        )
    if sort:
        bands.sort(key=lambda i: float(centres[i]))
    elif unsorted := [i for i, j in pairwise(bands) if float(centres[j]) < float(centres[i])]:
        raise WavelengthError(
            f"the bands of {where} are not in order of wavelength (after band {unsorted[0]}, "
            f"{float(centres[unsorted[0]]):g} nm): pass sort_bands=True to sort them"
        )
    try:
        return bands, check_wavelengths(centres[bands], len(bands), where)
    except WavelengthError as error:
        advice = "if the file is wrong, pass wavelengths=[…] in nm, or leave bands out with drop_bands=[…]"
        raise type(error)(f"{error}; {advice}") from error


def to_reflectance(
    stored: Stored, bands: list[int], gain: tuple[Array, Array], nodata: float | None
) -> tuple[Array, Array, list[int]]:
    """Image (C, H, W) float32, mask (H, W), and the bands of the file that hold no data at all.

    A pixel with missing data in any of ``bands`` is 0 in all, and False in the mask.
    """
    values = stored.values
    valid = np.ones(values.shape[1:], bool) if stored.valid is None else stored.valid.copy()
    empty: list[int] = []
    image = np.empty((len(bands), *values.shape[1:]), np.float32)
    for row, band in enumerate(bands):
        with np.errstate(invalid="ignore", over="ignore"):
            image[row] = values[band].astype(np.float64) * gain[0][band] + gain[1][band]
        missing = ~np.isfinite(image[row])
        for marker in (nodata, None if stored.nodata is None else stored.nodata[band]):
            if marker is not None and _fits(marker, values.dtype):
                missing |= values[band] == values.dtype.type(marker)
        if missing.all():
            empty.append(band)
        valid &= ~missing
    if not valid.all():
        image[:, ~valid] = 0
    return image, valid, empty


def _fits(marker: float, dtype: np.dtype[Any]) -> bool:
    """Whether stored values can equal the marker (NaN and ±∞ are found without one)."""
    if not np.isfinite(marker) or dtype.kind not in "iu":
        return bool(np.isfinite(marker))
    limits = np.iinfo(dtype)
    return float(marker).is_integer() and bool(limits.min <= marker <= limits.max)


def check_plausible(image: Array, valid: Array, scaled: bool, where: str) -> None:
    """Reflectance lies within 0…1, a few glints and a little noise aside; looked at in at most 4096 pixels.

    Args:
        image: (C, H, W).
        valid: (H, W).
        scaled: the user gave the scale, and with it the right to bright values.
        where: names the file.
    """
    pixels = image.reshape(len(image), -1)[:, np.flatnonzero(valid)]
    low, high = np.percentile(pixels[:, :: max(1, pixels.shape[1] // 4096)], (1, 99))
    if high > 2 and not scaled:
        raise RadiometryError(
            f"{where} does not look like reflectance: 1 % of its values exceed {high:.4g}; pass the factor "
            "that turns them into 0…1, such as scale=1/10000 (scale=1 keeps them as they are)"
        )
    if low < -0.5:
        raise RadiometryError(
            f"{where} does not look like reflectance: 1 % of its values lie below {low:.4g}; if they mark missing "
            "data, pass the stored value that does, such as nodata=-9999"
        )


def gain_of(stored: Stored, scale: float | None, where: str) -> tuple[Array, Array]:
    """Factor and offset of each band, the user's or the file's."""
    count, dtype = len(stored.values), stored.values.dtype
    if scale is not None:
        if not (np.isfinite(scale) and scale > 0):
            raise RadiometryError(
                f"scale must be a positive number, got {scale}: give the factor from the values of {where} to reflectance"
            )
        if scale > 1:
            raise RadiometryError(f"scale multiplies the stored values: for {where} write scale=1/{scale:g}")
        return np.full(count, float(scale)), np.zeros(count)
    if stored.gain is not None:
        offset = np.zeros(count) if stored.offset is None else stored.offset
        usable = np.isfinite(offset) & (stored.gain > 1e-12) & (stored.gain < 1e12)
        if not usable.all():
            band = int(np.flatnonzero(~usable)[0])
            raise RadiometryError(
                f"{where} names the scale {stored.gain[band]:g} and the offset {offset[band]:g} for band {band}, which "
                "gives no reflectance: pass the factor yourself, such as scale=1/10000"
            )
        return stored.gain, offset
    if dtype.kind in "iub":
        largest = f", up to {stored.values.max()}" if stored.values.size else ""
        raise RadiometryError(
            f"{where} holds integers ({dtype.name}{largest}) and names no scale: pass "
            "the factor to reflectance, such as scale=1/10000"
        )
    return np.ones(count), np.zeros(count)


def report_missing(valid: Array, empty: list[int], on_nodata: str, where: str) -> None:
    """Raise for missing pixels, unless they are to be masked and some pixel is left."""
    bad = int((~valid).sum())
    hint = (
        f"; every pixel is missing in bands {empty}: leave them out with drop_bands={empty}" if empty else ""
    )
    if not valid.any():
        raise NoDataError(f"no pixel of {where} is valid in every band{hint}")
    if on_nodata == "raise":
        row, column = (int(v[0]) for v in np.nonzero(~valid))
        raise NoDataError(
            f"{bad} of {valid.size} pixels of {where} hold NaN, infinite or nodata values, the first at row "
            f'{row}, column {column}: pass on_nodata="mask" to have them masked'
        )


def filled_in(stored: Stored, sensor: Sensor, where: str) -> Stored:
    """What the file says, and where it says nothing, what the sensor knows.

    Raises:
        BandCountError: if they differ in their number of bands.
    """
    count = len(stored.values)
    if len(sensor.wavelengths) != count:
        raise BandCountError(
            f"{where} has {count} bands, sensor {sensor.name!r} {len(sensor.wavelengths)}: if the file holds some of them, "
            "pass the sensor with .select([…]) or .between(low, high)"
        )
    scaled = stored.gain is None and sensor.scale is not None and stored.values.dtype.kind in "iu"
    return replace(
        stored,
        wavelengths=sensor.wavelengths.numpy() if stored.wavelengths is None else stored.wavelengths,
        fwhm=sensor.fwhm.numpy() if stored.fwhm is None and sensor.fwhm is not None else stored.fwhm,
        gain=np.full(count, sensor.scale) if scaled else stored.gain,
        offset=np.full(count, sensor.offset) if scaled else stored.offset,
        nodata=np.full(count, sensor.nodata)
        if stored.nodata is None and sensor.nodata is not None
        else stored.nodata,
        bad_bands=list(sensor.bad_bands) if stored.bad_bands is None else stored.bad_bands,
        meta=stored.meta | {"sensor": sensor.name},
    )
