"""`Sensor`: bands of an instrument as its files store them; presets, and a user's own from a CSV table."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from ubf_augment.errors import BandCountError, NoDataError, RadiometryError, WavelengthError
from ubf_augment.radiometry import check_scale
from ubf_augment.spectra.bands import Wavelengths, check_wavelengths
from ubf_augment.spectra.response import check_widths
from ubf_augment.spectra.tables import read_table


@dataclass(frozen=True, eq=False)
class Sensor:
    """Bands of an instrument in the order of its files, which need not be that of wavelength.

    Call it on a sample of a torchgeo data set, as one of its ``transforms``, to turn stored numbers into reflectance
    (see `reflectance`).

    Attributes:
        name: short name.
        wavelengths: (C,) float64 band centres in nm, in file order.
        fwhm: (C,) full widths at half maximum in nm, or None where they are not known.
        bands: names of the bands.
        bad_bands: 0-based bands to leave out.
        scale: factor from stored whole numbers to reflectance, or None where products differ or hold radiance.
        offset: added after the scale.
        nodata: stored number that marks missing data, or None.
        title: the instrument and product in words.
        source: where the numbers come from.
        note: what to know before trusting them.
        nominal: whether centres are nominal or interpolated, not a calibration.

    Raises:
        WavelengthError: if centres or widths are no positive numbers of nm, or two good bands share a centre.
        BandCountError: if there is not one width and one name per band, or a bad band that does not exist.
        RadiometryError: if the scale is not positive.

    >>> s = Sensor("mine", torch.tensor([665.0, 490.0, 560.0, 2500.0]), bad_bands=(3,), scale=1e-4)
    >>> s.centres.tolist(), s.order
    ([490.0, 560.0, 665.0], (1, 2, 0))
    """

    name: str
    wavelengths: Tensor
    fwhm: Tensor | None = None
    bands: tuple[str, ...] = ()
    bad_bands: tuple[int, ...] = ()
    scale: float | None = None
    offset: float = 0.0
    nodata: float | None = None
    title: str = ""
    source: str = ""
    note: str = ""
    nominal: bool = False

    def __post_init__(self) -> None:
        """Check the fields against each other."""
        nm = torch.as_tensor(self.wavelengths, dtype=torch.float64).cpu()
        where = f"sensor {self.name!r}"
        if nm.ndim != 1 or not nm.numel():
            raise WavelengthError(f"{where} needs a list of band centres, got shape {tuple(nm.shape)}")
        object.__setattr__(self, "wavelengths", nm)
        names = self.bands or tuple(str(i + 1) for i in range(len(nm)))
        if len(names) != len(nm):
            raise BandCountError(f"{where} has {len(names)} band names for {len(nm)} centres")
        object.__setattr__(self, "bands", tuple(names))
        if self.fwhm is not None:
            object.__setattr__(self, "fwhm", check_widths(self.fwhm, len(nm)))
        if outside := [i for i in self.bad_bands if not 0 <= i < len(nm)]:
            raise BandCountError(f"{where} has bands 0 to {len(nm) - 1}, bad_bands names {outside}")
        if self.scale is not None and not self.scale > 0:
            raise RadiometryError(f"the scale of {where} must be a positive number, got {self.scale}")
        check_wavelengths(nm[list(self.order)], where=where)

    @property
    def order(self) -> tuple[int, ...]:
        """0-based bands of the file that are good, in order of wavelength."""
        good = (i for i in range(len(self.wavelengths)) if i not in self.bad_bands)
        return tuple(sorted(good, key=lambda i: float(self.wavelengths[i])))

    @property
    def centres(self) -> Float[Tensor, " g"]:
        """Centres of the good bands in nm, ascending."""
        return self.wavelengths[list(self.order)]

    @property
    def widths(self) -> Float[Tensor, " g"] | None:
        """Widths of the good bands in nm, in the order of `centres`; None where they are not known."""
        return None if self.fwhm is None else self.fwhm[list(self.order)]

    def select(self, bands: Iterable[str | int]) -> Sensor:
        """The sensor of files that hold some of the bands, in this order.

        Args:
            bands: names (a leading zero is no difference: ``B02`` is ``B2``), or 0-based numbers.

        Raises:
            BandCountError: if there is no such band, or none is left.

        >>> sensor("sentinel-2").select(["B04", "B03", "B02"]).wavelengths.tolist()
        [664.6, 559.8, 492.7]
        """
        index = {_plain(name): i for i, name in enumerate(self.bands)}
        chosen = []
        for band in bands:
            i = index.get(_plain(band)) if isinstance(band, str) else int(band)
            if i is None or not 0 <= i < len(self.bands):
                raise BandCountError(
                    f"sensor {self.name!r} has no band {band!r}: its bands are {self.bands[0]} to {self.bands[-1]}, or by "
                    f"number 0 to {len(self.bands) - 1}"
                )
            chosen.append(i)
        if not chosen:
            raise BandCountError(f"no band of sensor {self.name!r} is left")
        return replace(
            self,
            wavelengths=self.wavelengths[chosen],
            fwhm=None if self.fwhm is None else self.fwhm[chosen],
            bands=tuple(self.bands[i] for i in chosen),
            bad_bands=tuple(k for k, i in enumerate(chosen) if i in self.bad_bands),
        )

    def between(self, low: float, high: float) -> Sensor:
        """The sensor of files that hold the bands with centres from ``low`` to ``high`` nm.

        Raises:
            BandCountError: if none is left.

        >>> sensor("chikusei").between(398, 699).wavelengths.numel()
        59
        """
        return self.select(i for i, nm in enumerate(self.wavelengths.tolist()) if low <= nm <= high)

    def reflectance(self, stored: Shaped[Tensor, "*n c h w"]) -> Float[Tensor, "*n g h w"]:
        """Stored numbers (…, C, H, W) as float32 reflectance (…, G, H, W): good bands, ascending, r = scale · v + offset.

        Without a scale, floating-point numbers are taken as reflectance.

        Raises:
            BandCountError: for another number of bands.
            RadiometryError: for whole numbers where the sensor has no scale, or a result that is no reflectance.
            NoDataError: if good bands hold NaN, infinite or ``nodata`` values.

        >>> stored = torch.tensor([300, 200, 100, 0], dtype=torch.int16).view(4, 1, 1)
        >>> Sensor("s", torch.tensor([660.0, 560.0, 490.0, 2500.0]), bad_bands=(3,), scale=1e-2).reflectance(stored).flatten()
        tensor([1., 2., 3.])
        """
        if stored.shape[-3] != len(self.wavelengths):
            raise BandCountError(
                f"the image has {stored.shape[-3]} bands, sensor {self.name!r} {len(self.wavelengths)}: name those that the "
                "image holds with .select([…]) or .between(low, high)"
            )
        if self.scale is None and not stored.is_floating_point():
            raise RadiometryError(
                f"the image is {stored.dtype}, and sensor {self.name!r} has no scale: multiply by the factor of the product"
            )
        chosen = stored.index_select(-3, torch.tensor(self.order, device=stored.device)).float()
        missing = ~torch.isfinite(chosen)
        if self.nodata is not None:
            missing |= chosen == self.nodata
        if bad := int(missing.any(-3).sum()):
            raise NoDataError(
                f"{bad} pixels hold no data in bands of sensor {self.name!r}: crop to where the image is complete, or leave "
                "out the bands at fault with .select([…])"
            )
        out = chosen if self.scale is None else chosen * self.scale + self.offset
        check_scale(out, f"image of sensor {self.name!r}")
        return out

    def __call__(self, sample: Mapping[str, Any]) -> dict[str, Any]:
        """A sample with its ``"image"`` turned into reflectance, the rest as it is."""
        return {**sample, "image": self.reflectance(sample["image"])}

    @classmethod
    def from_csv(cls, path: str | os.PathLike[str]) -> Sensor:
        r"""Read a table of bands: a column ``wavelength`` in nm, and if known ``fwhm``, ``band`` (names) and ``bad`` (0 or 1).

        Lines that start with ``#`` may say more: ``# scale: 1/10000``, and likewise offset, nodata, title, source, note,
        nominal. The presets of this package are such files.

        Raises:
            FileNotFoundError: if there is no such file.
            HSIReadError: if it is not a table of text.
            WavelengthError: if a column is missing, or a cell is no number; the message names the line.

        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder) / "camera.csv"
        ...     written = file.write_text("# scale: 1/10000\nwavelength,fwhm\n490,65\n560,35\n665,30\n")
        ...     mine = Sensor.from_csv(file)
        >>> mine.name, mine.scale, mine.widths.tolist()
        ('camera', 0.0001, [65.0, 35.0, 30.0])
        """
        return cls(**read_table(Path(path).expanduser()).arguments())


def _plain(band: str) -> str:
    """B02 and b2 are one band."""
    head = band.rstrip("0123456789")
    return (
        head.upper() + band[len(head) :].lstrip("0")
        if band[-1:].isdigit()
        else band.upper().replace("B0", "B")
    )


@lru_cache(maxsize=1)
def _presets() -> dict[str, tuple[Sensor, tuple[str, ...]]]:
    """Name → sensor and its other names."""
    found = {}
    for entry in sorted((resources.files("ubf_augment.spectra") / "presets").iterdir(), key=lambda e: e.name):
        if entry.name.endswith(".csv"):
            with resources.as_file(entry) as path:
                table = read_table(path)
            found[table.name] = (Sensor(**table.arguments()), table.also)
    return found


def list_sensors() -> list[str]:
    """Names of the packaged sensors.

    >>> "enmap" in list_sensors()
    True
    """
    return list(_presets())


def sensor(name: Sensor | str | os.PathLike[str]) -> Sensor:
    """A packaged sensor by name, or a user's own from a CSV file (see `Sensor.from_csv`).

    What is known of each, and from where, stands in its ``source`` and ``note``; ``nominal`` ones are no calibration.

    Raises:
        ValueError: for an unknown name.
        FileNotFoundError, HSIReadError, WavelengthError: for a file that is no table of bands, see `Sensor.from_csv`.

    >>> s = sensor("enmap")
    >>> len(s.wavelengths), len(s.centres), s.scale
    (224, 202, 0.0001)
    """
    if isinstance(name, Sensor):
        return name
    if not isinstance(name, str) or name.lower().endswith((".csv", ".txt")):
        return Sensor.from_csv(name)
    wanted = name.strip().lower().replace("_", "-").replace(" ", "-")
    for own, (found, also) in _presets().items():
        if wanted == own or wanted in also:
            return found
    raise ValueError(
        f"no sensor {name!r}: there are {', '.join(list_sensors())}; for another, give a CSV file of its bands"
    )


def target_bands(
    target: Wavelengths | Sensor | str, fwhm: Wavelengths | float | None
) -> tuple[Wavelengths, Wavelengths | float | None]:
    """Centres and widths to resample to: those given, or the good bands of a sensor."""
    if not isinstance(target, Sensor | str):
        return target, fwhm
    if fwhm is not None:
        raise ValueError("a sensor has widths of its own: give fwhm only with a list of wavelengths")
    found = sensor(target)
    return found.centres, found.widths
