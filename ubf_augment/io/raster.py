"""Read GeoTIFF and ENVI through rasterio (and any other raster format of GDAL)."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ubf_augment.errors import HSIReadError, RadiometryError
from ubf_augment.io import headers
from ubf_augment.io.limits import check_size
from ubf_augment.io.stored import Stored, some
from ubf_augment.io.tiff import needed_bytes

ENVI_DATA = (".img", ".dat", ".bsq", ".bil", ".bip", ".raw", ".bin", "")
"""Suffixes of ENVI data files beside their ``.hdr``."""


@contextmanager
def quiet_rasterio() -> Iterator[Any]:
    """Rasterio without its warning about images that have no place on Earth."""
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield rasterio


@dataclass(frozen=True)
class Place:
    """Where an image lies on Earth, in rasterio's own types.

    Attributes:
        crs: coordinate reference system, of the transform or of the ground control points; None if unknown.
        transform: affine map from (column, row) to coordinates; None if there is none.
        gcps: ground control points.
        rpcs: rational polynomial coefficients, or None.
    """

    crs: Any = None
    transform: Any = None
    gcps: Sequence[Any] = ()
    rpcs: Any = None

    @classmethod
    def of(cls, dataset: Any, path: Path) -> Place:
        """Read it from a dataset.

        Raises:
            HSIReadError: if the transform is not finite, or pixels have no area.
        """
        gcps, gcps_crs = dataset.gcps
        transform = None if dataset.transform.is_identity else dataset.transform
        if transform is not None:
            area = abs(transform.determinant)
            if not (np.isfinite(transform[:6]).all() and 0 < area < np.inf):
                raise HSIReadError(
                    f"the georeferencing of {path} is broken, its transform is {tuple(transform[:6])}: correct it, or "
                    "remove it with gdal_edit.py -unsetgt"
                )
        return cls(dataset.crs or (gcps_crs if gcps else None), transform, gcps, dataset.rpcs)

    def put(self, dataset: Any) -> None:
        """Write it into a new dataset."""
        if self.gcps:
            dataset.gcps = (self.gcps, self.crs)
        else:
            if self.crs:
                dataset.crs = self.crs
            if self.transform is not None:
                dataset.transform = self.transform
        if self.rpcs is not None:
            dataset.rpcs = self.rpcs


def data_of(path: Path) -> Path:
    """The file that holds the pixels: for an ENVI header, the one beside it.

    Raises:
        HSIReadError: if there is none.
    """
    return _envi_data(path) if path.suffix.lower() == ".hdr" else path


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Say of an error of GDAL which file it is about, and what to do.

    Raises:
        HSIReadError: in place of it.
    """
    from rasterio.errors import RasterioError

    try:
        yield
    except RasterioError as error:
        reason: BaseException = error
        while reason.__cause__ is not None:  # "see previous exception" says nothing to the user
            reason = reason.__cause__
        raise HSIReadError(
            f"cannot read {path} as an image ({reason}): the file is truncated, damaged, or not a "
            "raster; copy or download it again"
        ) from error


@contextmanager
def open_raster(path: Path) -> Iterator[Any]:
    """Open a raster file with rasterio; for ENVI either the header or the data file may be named.

    Raises:
        HSIReadError: if the file is no raster, is truncated, or holds no bands; also while it is read.
    """
    source = data_of(path)
    with (
        quiet_rasterio() as rasterio,
        reading(source),
        rasterio.open(source, driver=_driver(source)) as dataset,
    ):
        _check_complete(dataset, source)
        yield dataset


def read_raster(path: Path) -> Stored:
    """Read a raster file whole.

    Raises:
        HSIReadError: as `open_raster`, or if it does not fit into memory.
    """
    with open_raster(path) as dataset:
        stored = describe(dataset, path)
        shape = (dataset.count, dataset.height, dataset.width)
        check_size(shape, stored.values.itemsize, str(path))
        return fill(stored, dataset, None)


def describe(dataset: Any, path: Path) -> Stored:
    """What a raster file says about its values, which are left out: they have the shape (C, 0, 0).

    Raises:
        RadiometryError: for complex numbers.
        WavelengthError, HSIReadError: for metadata that cannot be understood.
    """
    types = {np.dtype(name) for name in dataset.dtypes}
    if any(kind.kind == "c" for kind in types):
        raise RadiometryError(f"{path} holds complex numbers, not reflectance")
    wavelengths, fwhm = headers.band_centres(dataset, str(path))
    gain, offset = headers.gains(dataset)
    place = Place.of(dataset, path)
    return Stored(
        values=np.empty((dataset.count, 0, 0), np.result_type(*types)),
        wavelengths=wavelengths,
        fwhm=fwhm,
        gain=gain,
        offset=offset,
        nodata=some([np.nan if v is None else v for v in dataset.nodatavals]),
        bad_bands=headers.bad_bands(dataset),
        meta={
            "driver": dataset.driver,
            "crs": dataset.crs.to_wkt() if dataset.crs else None,
            "transform": None
            if place.transform is None
            else tuple(float(v) + 0.0 for v in place.transform[:6]),
            "names": headers.band_names(dataset),
            "tags": dict(dataset.tags()),
        },
    )


def fill(described: Stored, dataset: Any, window: Any) -> Stored:
    """The values of a window (the whole image if None), with what is known about them."""
    from rasterio.enums import MaskFlags

    masked = MaskFlags.per_dataset in dataset.mask_flag_enums[0]
    valid = dataset.dataset_mask(window=window) > 0 if masked else None
    values = dataset.read(window=window, out_dtype=described.values.dtype)
    return replace(described, values=values, valid=valid)


def _driver(path: Path) -> str | None:
    """What may read a file: nothing but TIFF by that name, so that text in a .tif cannot send GDAL elsewhere (VRT)."""
    return "GTiff" if path.suffix.lower() in (".tif", ".tiff") else None


def _check_complete(dataset: Any, path: Path) -> None:
    """GDAL fills a cut raw file with zeros, and reads a TIFF without the metadata cut off: say so instead."""
    if dataset.count == 0:
        inside = f", only the subdatasets {', '.join(dataset.subdatasets)}" if dataset.subdatasets else ""
        raise HSIReadError(f"{path} holds no image{inside}: name one of them, or convert it to GeoTIFF")
    if dataset.driver == "GTiff":
        if (needed := needed_bytes(path)) > (found := path.stat().st_size):
            raise _truncated(path, f"its tags reach {needed} bytes, the file has {found}")
        return
    if dataset.driver != "ENVI":
        return
    for file in (Path(f) for f in dataset.files if f.lower().endswith(".hdr")):
        text = file.read_text(encoding="utf-8", errors="replace")
        if text.count("{") > text.count("}"):
            raise _truncated(file, "a list that it opens with { has no end")
    header = headers.normalise(dataset.tags(ns="ENVI"))
    if header.get("file_compression", "0") != "0":
        return
    item = np.dtype(dataset.dtypes[0]).itemsize
    needed = int(header.get("header_offset", 0)) + dataset.count * dataset.height * dataset.width * item
    if (found := path.stat().st_size) < needed:
        raise _truncated(path, f"its header promises {needed} bytes, the file has {found}")


def _truncated(path: Path, why: str) -> HSIReadError:
    return HSIReadError(f"{path} is truncated: {why}; copy or download it again")


def _envi_data(header: Path) -> Path:
    """The data file of an ENVI header: ``a.hdr`` describes ``a``, ``a.img`` …; ``a.img.hdr`` ``a.img``."""
    beside = {file.name.lower(): file for file in header.parent.iterdir() if file.is_file()}
    for suffix in ENVI_DATA:
        if found := beside.get((header.stem + suffix).lower()):
            return found
    raise HSIReadError(
        f"no data file beside {header}: looked for {header.stem} with the endings "
        f"{', '.join(s or '(none)' for s in ENVI_DATA)}"
    )
