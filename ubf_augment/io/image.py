"""`HSI` and `read_hsi`: reflectance, wavelengths and valid pixels, whatever the file format."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ubf_augment.errors import (
    BandCountError,
    HSIReadError,
    NoDataError,
    RadiometryError,
    ShapeError,
    WavelengthError,
)
from ubf_augment.io.arrays import SUFFIXES, read_arrays
from ubf_augment.io.raster import read_raster
from ubf_augment.io.stored import Array, BandCentres, Stored
from ubf_augment.spectra import Sensor, check_wavelengths
from ubf_augment.spectra import sensor as find_sensor

PathLike = str | os.PathLike[str]


@dataclass(frozen=True, eq=False)
class HSI:
    """A hyperspectral image.

    Attributes:
        image: (C, H, W) float32 reflectance, usually within [0, 1]; 0 in every band where ``mask`` is False.
        wavelengths: (C,) float64 band centres in nm, ascending.
        mask: (H, W) bool, True where the pixel is valid in every band.
        meta: plain facts of the file: ``path``, ``dtype``, ``bands`` (0-based indices in the file), and where
            known ``fwhm`` in nm, ``crs`` (WKT), ``transform`` (six numbers a … f of the affine map),
            ``names``.

    Raises:
        ShapeError: if image or mask have the wrong shape.
        BandCountError, WavelengthError: see `ubf_augment.spectra.check_wavelengths`.
        NoDataError: if the image holds NaN or infinite values.

    >>> hsi = HSI(torch.rand(2, 4, 5), torch.tensor([560.0, 665.0]), torch.ones(4, 5, dtype=torch.bool))
    >>> hsi.pixels.shape
    torch.Size([20, 2])
    """

    image: Float[Tensor, "c h w"]
    wavelengths: Float[Tensor, " c"]
    mask: Bool[Tensor, "h w"]
    meta: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the fields against each other."""
        if self.image.ndim != 3:
            raise ShapeError(f"an image must be (C, H, W), got {tuple(self.image.shape)}")
        if self.mask.shape != self.image.shape[1:]:
            raise ShapeError(
                f"the mask is {tuple(self.mask.shape)}, the image {tuple(self.image.shape[1:])} pixels"
            )
        object.__setattr__(self, "wavelengths", check_wavelengths(self.wavelengths, self.image.shape[0]))
        if not torch.isfinite(self.image).all():
            raise NoDataError("the image holds NaN or infinite values: set them to 0 and their mask to False")

    @property
    def pixels(self) -> Float[Tensor, "n c"]:
        """Spectra of the valid pixels (N, C)."""
        return self.image[:, self.mask].T


def read_hsi(
    path: PathLike,
    *,
    scale: float | None = None,
    wavelengths: BandCentres | str | None = None,
    key: str | None = None,
    layout: str = "hwc",
    size: tuple[int, int] | None = None,
    nodata: float | None = None,
    drop_bands: Iterable[int] | Literal["bad"] | None = None,
    sort_bands: bool = False,
    on_nodata: Literal["raise", "mask"] = "raise",
    sensor: Sensor | PathLike | None = None,
) -> HSI:
    """Read a hyperspectral image as float32 reflectance (C, H, W).

    GeoTIFF and ENVI (header or data file; any raster format of GDAL) carry wavelengths, scale and nodata
    themselves, in one of several dialects: ENVI header, band tags, GDAL's IMAGERY domain, band descriptions.
    MATLAB and NumPy files hold bare arrays, described by ``key``, ``layout``, ``wavelengths`` and ``scale``.

    Args:
        path: ``.tif``, ``.hdr`` or its data file, ``.mat`` (v5 and v7.3), ``.npy``, ``.npz``.
        scale: factor from stored values to reflectance, such as ``1 / 10000``; by default the scale and
            offset that the file names. Integers without either are refused.
        wavelengths: one band centre in nm for each band of the file, or the name of a variable of the file.
        key: the variable to read from ``.mat`` or ``.npz``; needed if several could be the image.
        layout: axes of a stored array, in MATLAB's own order for ``.mat``: ``"hwc"``, ``"chw"`` …, or with
            flattened pixels ``"c(wh)"`` (bands × pixels, column-major as MATLAB stores them: h varies
            fastest) or ``"c(hw)"`` (row-major).
        size: (H, W) of a flattened layout.
        nodata: stored value that marks missing data, besides what the file says; NaN and ±∞ always do.
        drop_bands: 0-based bands of the file to leave out; ``"bad"`` for those of its bad band list.
        sort_bands: order the bands by wavelength; otherwise unsorted bands are refused.
        on_nodata: ``"raise"``, or ``"mask"``: a pixel with missing data in any band is 0 in all and False in
            the mask.
        sensor: fills in what neither the call nor the file says: a `spectra.Sensor`, the name of a packaged one, or a CSV
            file. Its bad bands are left out, its scale is for whole numbers, and bands are sorted.

    Returns:
        The image; ``meta["bands"]`` says which band of the file each band is.

    Raises:
        FileNotFoundError: if there is no such file.
        HSIReadError: if the file is unreadable or truncated, or has no such variable (the message lists
            them).
        RadiometryError: for integers without a scale, a scale that multiplies the wrong way, or values that
            are no reflectance.
        WavelengthError: if wavelengths are missing, unsorted or implausible; BandCountError for a wrong
            number.
        NoDataError: for missing data, see ``on_nodata``; always if no valid pixel is left.
        ShapeError: if an array does not fit ``layout`` and ``size``.

    >>> import tempfile
    >>> from ubf_augment.io import write_hsi
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = write_hsi(f"{folder}/a.tif", torch.full((2, 4, 5), 0.25), [560, 665])
    ...     hsi = read_hsi(file)
    >>> hsi.image.shape, hsi.wavelengths.tolist(), float(hsi.image.max())
    (torch.Size([2, 4, 5]), [560.0, 665.0], 0.25)
    """
    path = _existing(path)
    if on_nodata not in ("raise", "mask"):
        raise ValueError(f'on_nodata must be "raise" or "mask", got {on_nodata!r}')
    named = wavelengths if isinstance(wavelengths, str) else None
    given = None if isinstance(wavelengths, str) else wavelengths
    if path.suffix.lower() in SUFFIXES:
        stored = read_arrays(path, key, layout, size, named)
    elif key is not None or named is not None:
        raise ValueError(
            f"{path.name} has no named variables: key and named wavelengths are for .mat and .npz"
        )
    else:
        stored = read_raster(path)
    if stored.values.size == 0:
        raise HSIReadError(f"{path} holds an empty image of shape {stored.values.shape}")
    if sensor is not None:
        stored = _filled_in(stored, find_sensor(sensor), path.name)
        drop_bands, sort_bands = "bad" if drop_bands is None else drop_bands, True
    bands, nm = _bands(stored, given, drop_bands, sort_bands, path.name)
    image, mask = _reflectance(stored, bands, scale, nodata, on_nodata, path.name)
    meta = stored.meta | {"path": str(path), "dtype": stored.values.dtype.name, "bands": tuple(bands)}
    if stored.fwhm is not None:
        meta["fwhm"] = tuple(float(v) for v in stored.fwhm[bands])
    if "names" in meta:
        meta["names"] = tuple(meta["names"][i] for i in bands)
    return HSI(torch.from_numpy(image), nm, torch.from_numpy(mask), meta)


def list_hsi(folder: PathLike, *, recursive: bool = False) -> list[Path]:
    """List the images of a folder that `read_hsi` can read (ENVI by header), sorted.

    Raises:
        FileNotFoundError: if there is no such folder.
        HSIReadError: if it holds no image.

    >>> import tempfile
    >>> from ubf_augment.io import write_hsi
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = write_hsi(f"{folder}/a.img", torch.zeros(1, 2, 2), [560])
    ...     [f.name for f in list_hsi(folder)]
    ['a.hdr']
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder}" + (": it is a file" if folder.exists() else ""))
    suffixes = (".tif", ".tiff", ".hdr", *SUFFIXES)
    found = folder.rglob("*") if recursive else folder.iterdir()
    files = sorted(
        f for f in found if f.suffix.lower() in suffixes and f.is_file() and not f.name.startswith(".")
    )
    if not files:
        within = " or its subfolders" if recursive else ""
        raise HSIReadError(f"no hyperspectral image in {folder}{within}: looked for {', '.join(suffixes)}")
    return files


def _existing(path: PathLike) -> Path:
    path = Path(path).expanduser()
    if path.is_dir():
        raise HSIReadError(f"{path} is a folder: read one file of it, list_hsi({str(path)!r}) names them")
    if not path.is_file():
        near = (
            f"; the folder {path.parent} exists"
            if path.parent.is_dir()
            else f", nor its folder {path.parent}"
        )
        raise FileNotFoundError(f"no file {path}{near}")
    return path


def _filled_in(stored: Stored, sensor: Sensor, where: str) -> Stored:
    """What the file says, and where it says nothing, what the sensor knows."""
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


def _bands(
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
        raise WavelengthError(
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
    return bands, check_wavelengths(centres[bands], len(bands), where)


def _reflectance(
    stored: Stored, bands: list[int], scale: float | None, nodata: float | None, on_nodata: str, where: str
) -> tuple[Array, Array]:
    """Image (C, H, W) float32 and mask (H, W)."""
    values = stored.values
    gain, offset = _gain(stored, scale, where)
    valid = np.ones(values.shape[1:], bool) if stored.valid is None else stored.valid.copy()
    empty: list[int] = []
    image = np.empty((len(bands), *values.shape[1:]), np.float32)
    for row, band in enumerate(bands):
        missing = ~np.isfinite(values[band])
        for marker in (nodata, None if stored.nodata is None else stored.nodata[band]):
            if marker is not None and _fits(marker, values.dtype):
                missing |= values[band] == values.dtype.type(marker)
        if missing.all():
            empty.append(band)
        valid &= ~missing
        with np.errstate(invalid="ignore", over="ignore"):
            image[row] = values[band].astype(np.float64) * gain[band] + offset[band]
    if not valid.all():
        _report(valid, empty, on_nodata, where)
        image[:, ~valid] = 0
    if scale is None:
        _check_plausible(image, valid, where)
    return image, valid


def _fits(marker: float, dtype: np.dtype[Any]) -> bool:
    """Whether stored values can equal the marker (NaN and ±∞ are found without one)."""
    if not np.isfinite(marker) or dtype.kind not in "iu":
        return bool(np.isfinite(marker))
    limits = np.iinfo(dtype)
    return float(marker).is_integer() and bool(limits.min <= marker <= limits.max)


def _check_plausible(image: Array, valid: Array, where: str) -> None:
    """Reflectance lies within 0…1, a few glints aside; looked at in at most 4096 pixels."""
    pixels = image.reshape(len(image), -1)[:, np.flatnonzero(valid)]
    high = float(np.percentile(pixels[:, :: max(1, pixels.shape[1] // 4096)], 99))
    if high > 2:
        raise RadiometryError(
            f"{where} does not look like reflectance: 1 % of its values exceed {high:.4g}; pass the factor "
            "that turns them into 0…1, such as scale=1/10000 (scale=1 keeps them as they are)"
        )


def _gain(stored: Stored, scale: float | None, where: str) -> tuple[Array, Array]:
    count, dtype = len(stored.values), stored.values.dtype
    if scale is not None:
        if not (np.isfinite(scale) and scale > 0):
            raise RadiometryError(f"scale must be a positive number, got {scale}")
        if scale > 1:
            raise RadiometryError(f"scale multiplies the stored values: for {where} write scale=1/{scale:g}")
        return np.full(count, float(scale)), np.zeros(count)
    if stored.gain is not None:
        return stored.gain, np.zeros(count) if stored.offset is None else stored.offset
    if dtype.kind in "iub":
        raise RadiometryError(
            f"{where} holds integers ({dtype.name}, up to {stored.values.max()}) and names no scale: pass "
            "the factor to reflectance, such as scale=1/10000"
        )
    return np.ones(count), np.zeros(count)


def _report(valid: Array, empty: list[int], on_nodata: str, where: str) -> None:
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
