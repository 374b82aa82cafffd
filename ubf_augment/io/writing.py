"""`write_hsi`: GeoTIFF and ENVI with the wavelengths in the band metadata, written aside and renamed."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ubf_augment.errors import BandCountError, NoDataError, RadiometryError, ShapeError
from ubf_augment.files import replacing
from ubf_augment.io.image import PathLike
from ubf_augment.io.raster import ENVI_DATA, quiet_rasterio
from ubf_augment.io.stored import Array, BandCentres
from ubf_augment.spectra import check_wavelengths

NODATA = {"float": -9999.0, "int": -32768.0}
"""What is stored where there is no data."""


def write_hsi(
    path: PathLike,
    image: Float[Tensor, "c h w"],
    wavelengths: BandCentres | None,
    *,
    scale: float | None = None,
    crs: Any = None,
    transform: Sequence[float] | None = None,
    names: Sequence[str] | None = None,
    mask: Bool[Tensor, "h w"] | None = None,
    fwhm: BandCentres | None = None,
) -> Path:
    """Write reflectance to GeoTIFF or ENVI, with the wavelengths in the band metadata.

    The file is written aside and renamed, so an interrupted call leaves an older file whole (for the two
    files of ENVI: data without a header at worst). Float32 values, wavelengths, CRS and transform are read
    back exactly by `read_hsi`; only ENVI rounds the transform to 15 digits.

    Args:
        path: ``.tif`` or ``.tiff``; ``.hdr``, ``.img``, ``.dat`` … for ENVI. Missing folders are made.
        image: reflectance (C, H, W).
        wavelengths: (C,) nm, ascending.
        scale: None stores float32; a number such as ``1e-4`` stores integers (int16) image / scale, rounded,
            and the scale beside them: half the size, an error of at most scale / 2.
        crs: coordinate reference system, anything that rasterio understands (EPSG code, WKT).
        transform: the affine map from (column, row) to coordinates, at least six numbers a … f.
        names: one per band; by default its wavelength, such as ``"560 nm"``.
        mask: (H, W), False where there is no data.
        fwhm: (C,) full widths at half maximum in nm.

    Returns:
        The path written.

    Raises:
        ShapeError: if the image is not (C, H, W) or the mask does not fit.
        BandCountError, WavelengthError: see `ubf_augment.spectra.check_wavelengths`.
        NoDataError: if a pixel that is not masked is NaN or infinite.
        RadiometryError: if a value does not fit into the integers that ``scale`` asks for.
        ValueError: for an unknown file ending, or a rotated transform in ENVI, which has no place for it.
    """
    path = Path(path).expanduser()
    if path.suffix.lower() not in (".tif", ".tiff", ".hdr", *ENVI_DATA[:-1]):
        raise ValueError(f"cannot write {path.name}: use .tif for GeoTIFF, .hdr or .img for ENVI")
    if image.ndim != 3:
        raise ShapeError(f"an image must be (C, H, W), got {tuple(image.shape)}: write a batch one by one")
    given = None if wavelengths is None else torch.as_tensor(wavelengths, dtype=torch.float64)
    nm = check_wavelengths(given, image.shape[0], path.name)
    names = [f"{v:g} nm" for v in nm.tolist()] if names is None else list(names)
    if len(names) != len(nm):
        raise BandCountError(f"{len(names)} names for {len(nm)} bands of {path.name}")
    width = None if fwhm is None else torch.as_tensor(fwhm, dtype=torch.float64).expand(len(nm)).numpy()
    values = image.detach().to("cpu", torch.float32).numpy()
    missing = _missing(values, mask, path.name)
    stored = values if scale is None else quantise(values, scale, path.name, missing)
    fill: float | None = None
    if missing.any():
        fill = NODATA["float" if scale is None else "int"]
        stored = np.where(missing, np.asarray(fill, stored.dtype), stored)
    profile = _profile(path, stored, fill, crs, transform)
    path.parent.mkdir(parents=True, exist_ok=True)
    _write(path, stored, profile, transform, scale, names, (nm.numpy(), width))
    return path


def _missing(values: Array, mask: Tensor | None, where: str) -> Array:
    """(H, W) True where nothing is to be stored."""
    if mask is not None and mask.shape != values.shape[1:]:
        raise ShapeError(f"the mask is {tuple(mask.shape)}, the image {values.shape[1:]} pixels")
    missing: Array = np.zeros(values.shape[1:], bool) if mask is None else ~mask.cpu().numpy().astype(bool)
    if not np.isfinite(values[:, ~missing]).all():
        raise NoDataError(
            f"cannot write {where}: the image holds NaN or infinite values; mark them with mask=…"
        )
    return missing


def quantise(values: Array, scale: float, where: str, missing: Array | None = None) -> Array:
    """Reflectance (C, H, W) as int16, rounded to multiples of ``scale``; 0 where ``missing`` (H, W).

    Raises:
        RadiometryError: if a value does not fit, or the scale is none.
    """
    if not (np.isfinite(scale) and 0 < scale <= 1):
        raise RadiometryError(f"scale must lie in (0, 1], such as 1e-4, got {scale}")
    if missing is not None:
        values = np.where(missing, np.float32(0), values)
    steps = np.rint(values.astype(np.float64) / scale)
    if steps.size and not -32767 <= steps.min() <= steps.max() <= 32767:
        raise RadiometryError(
            f"cannot write {where} with scale={scale:g}: 16 bits reach ±{32767 * scale:.4g}, the image "
            f"{values.min():.4g} to {values.max():.4g}; use a larger scale or none"
        )
    quantised: Array = steps.astype(np.int16)
    return quantised


def _profile(
    path: Path, values: Array, nodata: float | None, crs: Any, transform: Sequence[float] | None
) -> dict[str, Any]:
    """Creation options for rasterio, without the transform."""
    count, height, width = values.shape
    profile: dict[str, Any] = {"count": count, "height": height, "width": width, "dtype": values.dtype.name}
    profile |= {"nodata": nodata, "crs": crs}
    if path.suffix.lower() in (".tif", ".tiff"):
        predictor = 3 if values.dtype.kind == "f" else 2
        profile |= {"driver": "GTiff", "interleave": "band", "bigtiff": "if_safer"}
        return profile | {"compress": "deflate", "predictor": predictor}
    if transform is not None and (transform[1] != 0 or transform[3] != 0):
        raise ValueError(f"ENVI cannot keep the rotated or sheared transform of {path.name}: write a .tif")
    order = path.suffix.lower()[1:]
    return profile | {"driver": "ENVI", "interleave": order if order in ("bil", "bip") else "bsq"}


def _write(
    path: Path,
    values: Array,
    profile: dict[str, Any],
    transform: Sequence[float] | None,
    scale: float | None,
    names: Sequence[str],
    metadata: tuple[Array, Array | None],
) -> None:
    """Write beside the target, then rename into place."""
    envi = profile["driver"] == "ENVI"

    def fill(dataset: Any) -> None:
        dataset.write(values)
        dataset.descriptions = tuple(names)
        if scale is not None:
            dataset.scales = (scale,) * len(values)
        _write_wavelengths(dataset, *metadata, envi)

    with quiet_rasterio() as rasterio:
        if transform is not None:
            profile["transform"] = rasterio.Affine(*tuple(transform)[:6])
        data = path.with_suffix(".img") if path.suffix.lower() == ".hdr" else path
        (_write_pair if envi else _write_tiff)(data, profile, fill, values.nbytes)


def _write_tiff(path: Path, profile: Mapping[str, Any], fill: Callable[[Any], None], size: int) -> None:
    """In memory first: on a full disk GDAL closes half a file without an error."""
    import rasterio

    with rasterio.MemoryFile() as memory:
        with memory.open(**profile) as dataset:
            fill(dataset)
        with replacing(path, sync=False) as aside:
            aside.write_bytes(memory.getbuffer())
    drop_sidecars(path)


def _write_pair(path: Path, profile: Mapping[str, Any], fill: Callable[[Any], None], size: int) -> None:
    """ENVI: data and header."""
    import rasterio

    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
        aside = Path(folder) / path.name
        with rasterio.open(aside, "w", **profile) as dataset:
            fill(dataset)
        if (written := aside.stat().st_size) < size:
            raise OSError(f"cannot write {path}: only {written} of {size} bytes fit on the disk")
        drop_sidecars(path)
        text = aside.with_suffix(".hdr").read_text()  # GDAL describes the image by the path it was written to
        text = re.sub(r"description = \{[^}]*\}", f"description = {{{path.name}}}", text, count=1)
        aside.with_suffix(".hdr").write_text(text)
        # A pair cannot be swapped at once: data without a header can at least not be misread.
        path.with_suffix(".hdr").unlink(missing_ok=True)
        os.replace(aside, path)
        os.replace(aside.with_suffix(".hdr"), path.with_suffix(".hdr"))


def drop_sidecars(path: Path) -> None:
    """Remove what GDAL keeps beside an older file of that name: statistics and tags, overviews, mask."""
    for ending in (".aux.xml", ".ovr", ".msk"):
        path.with_name(path.name + ending).unlink(missing_ok=True)


def _write_wavelengths(dataset: Any, wavelengths: Array, fwhm: Array | None, envi: bool) -> None:
    """Wavelengths as text that reads back to the same float64."""
    nm = [repr(float(v)) for v in wavelengths]
    widths = None if fwhm is None else [repr(float(v)) for v in fwhm]
    if envi:
        lists = {"wavelength": "{" + ", ".join(nm) + "}", "wavelength_units": "Nanometers"}
        if widths:
            lists["fwhm"] = "{" + ", ".join(widths) + "}"
        dataset.update_tags(ns="ENVI", **lists)
        return
    for i, value in enumerate(nm):
        tags = {"wavelength": value, "wavelength_units": "Nanometers"}
        if widths:
            tags["fwhm"] = widths[i]
        dataset.update_tags(i + 1, **tags)
        dataset.update_tags(i + 1, ns="IMAGERY", CENTRAL_WAVELENGTH_UM=repr(float(value) / 1000))
