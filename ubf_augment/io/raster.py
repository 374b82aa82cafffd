"""Read GeoTIFF and ENVI through rasterio (and any other raster format of GDAL)."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ubf_augment.errors import HSIReadError, RadiometryError
from ubf_augment.io import headers
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


@contextmanager
def open_raster(path: Path) -> Iterator[Any]:
    """Open a raster file as a rasterio dataset, of ENVI by its header or its data file.

    Raises:
        HSIReadError: if the file is no raster, is truncated, or holds no bands; also for errors while it is read.
    """
    source = _envi_data(path) if path.suffix.lower() == ".hdr" else path
    with quiet_rasterio() as rasterio:
        try:
            with rasterio.open(source) as dataset:
                _check_complete(dataset, source)
                yield dataset
        except rasterio.errors.RasterioError as error:
            raise HSIReadError(
                f"cannot read {source} as an image ({error}): the file is truncated, damaged, or not a "
                "raster; copy or download it again"
            ) from error


def read_raster(path: Path) -> Stored:
    """Read a raster file; for ENVI either the header or the data file may be named.

    Raises:
        HSIReadError: as `open_raster`.
    """
    with open_raster(path) as dataset:
        return _read(dataset, Path(dataset.name))


def _read(dataset: Any, path: Path) -> Stored:
    from rasterio.enums import MaskFlags

    values = dataset.read()
    if values.dtype.kind == "c":
        raise RadiometryError(f"{path} holds complex numbers, not reflectance")
    wavelengths, fwhm = headers.band_centres(dataset, str(path))
    gain, offset = headers.gains(dataset)
    masked = MaskFlags.per_dataset in dataset.mask_flag_enums[0]
    transform = (
        None if dataset.transform.is_identity else tuple(float(v) + 0.0 for v in dataset.transform[:6])
    )
    return Stored(
        values=values,
        wavelengths=wavelengths,
        fwhm=fwhm,
        gain=gain,
        offset=offset,
        nodata=some([np.nan if v is None else v for v in dataset.nodatavals]),
        valid=dataset.dataset_mask() > 0 if masked else None,
        bad_bands=headers.bad_bands(dataset),
        meta={
            "driver": dataset.driver,
            "crs": dataset.crs.to_wkt() if dataset.crs else None,
            "transform": transform,
            "names": headers.band_names(dataset),
            "tags": dict(dataset.tags()),
        },
    )


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
