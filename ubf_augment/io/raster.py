"""Read GeoTIFF and ENVI through rasterio (and any other raster format of GDAL)."""

from __future__ import annotations

import math
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
from ubf_augment.io.tiff import needed_bytes, unwritten_blocks

_INDIRECT = {
    "VRT",
    "WMS",
    "WMTS",
    "WCS",
    "HTTP",
    "GTI",
    "STACIT",
    "STACTA",
    "EEDAI",
    "PLMOSAIC",
    "OGCAPI",
    "DAAS",
}
"""Drivers of GDAL for text that sends it to other files or addresses."""
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
        shape = (dataset.count, dataset.height, dataset.width)
        check_size(shape, max(np.dtype(name).itemsize for name in dataset.dtypes), str(path))
        stored = describe(dataset, path)
        return fill(stored, dataset, None)


def describe(dataset: Any, path: Path) -> Stored:
    """What a raster file says about its values, which are left out: they have the shape (C, 0, 0).

    Raises:
        RadiometryError: for complex numbers.
        HSIReadError: for a broken transform.
    """
    types = {np.dtype(name) for name in dataset.dtypes}
    if any(kind.kind == "c" for kind in types):
        raise RadiometryError(f"{path} holds complex numbers, not reflectance: choose another product")
    wavelengths, fwhm, problem = headers.band_centres(dataset, str(path))
    gain, offset = headers.gains(dataset)
    place = Place.of(dataset, path)
    return Stored(
        values=np.empty((dataset.count, 0, 0), np.result_type(*types)),
        wavelengths=wavelengths,
        problem=problem,
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
    if dataset.driver in _INDIRECT and path.suffix.lower() not in (".vrt", ".xml"):
        raise HSIReadError(
            f"{path} holds no pixels, but says where others are ({dataset.driver}): name those files"
        )
    if dataset.driver == "GTiff":
        if (needed := needed_bytes(path)) > (found := path.stat().st_size):
            raise _truncated(path, f"its tags reach {needed} bytes, the file has {found}")
        missing, blocks = unwritten_blocks(path)
        if missing and all(value is None for value in dataset.nodatavals):
            raise HSIReadError(
                f"{missing} of {blocks} blocks of {path} were never written and would read as zeros: the program that "
                "wrote it was interrupted; write or download it again, or give it a nodata value"
            )
    if dataset.driver == "ENVI":
        _check_envi(dataset, path)


def _check_envi(dataset: Any, path: Path) -> None:
    """Header and data must be of one size: with a wrong one, pixels land in other rows and bands."""
    for file in (Path(f) for f in dataset.files if f.lower().endswith(".hdr")):
        text = file.read_text(encoding="utf-8", errors="replace")
        if text.count("{") > text.count("}"):
            raise _truncated(file, "a list that it opens with { has no end")
    header = headers.normalise(dataset.tags(ns="ENVI"))
    if header.get("file_compression", "0").strip() != "0" or any("frame_offset" in key for key in header):
        return
    skipped = header.get("header_offset", "0").strip()
    if not skipped.isdigit():
        raise HSIReadError(
            f"the header of {path} has the header offset {skipped!r}, which is no number of bytes: correct it"
        )
    shape = (dataset.count, dataset.height, dataset.width)
    needed = int(skipped) + math.prod(shape) * np.dtype(dataset.dtypes[0]).itemsize
    if (found := path.stat().st_size) < needed:
        raise _truncated(path, f"its header promises {needed} bytes, the file has {found}")
    if found > needed:
        size = "×".join(map(str, shape))
        raise HSIReadError(
            f"{path} has {found} bytes, its header describes {needed} ({size} values of {dataset.dtypes[0]}): bands, lines, "
            "samples, data type or header offset are wrong in the header; correct it"
        )


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
        f"{', '.join(s or '(none)' for s in ENVI_DATA)}; put it there, or name the data file"
    )
