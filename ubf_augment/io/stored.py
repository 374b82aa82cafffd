"""What a file holds, before any interpretation: the bridge between the file formats and `read_hsi`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ubf_augment.errors import WavelengthError
from ubf_augment.spectra import Wavelengths

Array = npt.NDArray[Any]
BandCentres = Wavelengths | Array


@dataclass
class Stored:
    """Stored values of an image and everything the file says about them.

    Attributes:
        values: (C, H, W) in the type of the file; (C, 0, 0) where they are not read yet.
        wavelengths: (C,) float64 nm in file order, NaN where a band has none; None if no band has one.
        problem: what is wrong with the wavelengths that the file names, if they are None.
        fwhm: (C,) float64 nm, or None.
        gain: (C,) factors to reflectance, or None where the file names none.
        offset: (C,) added after the gain, or None.
        nodata: (C,) values that mean "no data", NaN where a band has none.
        valid: (H, W) False where the file's own mask says so, or None.
        bad_bands: 0-based bands that the file's bad band list excludes, or None where there is no such list.
        meta: plain facts (driver, crs, transform, names …) handed to the user.
    """

    values: Array
    wavelengths: Array | None = None
    problem: WavelengthError | None = None
    fwhm: Array | None = None
    gain: Array | None = None
    offset: Array | None = None
    nodata: Array | None = None
    valid: Array | None = None
    bad_bands: list[int] | None = None
    meta: dict[str, Any] = field(default_factory=dict)

    def metadata(self, path: Path, bands: list[int]) -> dict[str, Any]:
        """The facts about the bands kept that `HSI.meta` holds."""
        meta = self.meta | {"path": str(path), "dtype": self.values.dtype.name, "bands": tuple(bands)}
        if self.fwhm is not None:
            meta["fwhm"] = tuple(float(v) for v in self.fwhm[bands])
        if "names" in meta:
            meta["names"] = tuple(meta["names"][i] for i in bands)
        return meta


def some(values: list[float] | Array | None) -> Array | None:
    """The values as float64, or None if all are missing."""
    if values is None:
        return None
    array = np.asarray(values, dtype=np.float64)
    return None if array.size == 0 or np.isnan(array).all() else array
