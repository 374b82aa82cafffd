"""`write_maps`: a tiled GeoTIFF from windows, for maps larger than memory."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from ubf_augment.io.raster import Place, quiet_rasterio
from ubf_augment.io.scene import CACHE_BYTES, Window
from ubf_augment.io.stored import Array
from ubf_augment.io.writing import NODATA, drop_sidecars, quantise

TILE = 256
_SMALLEST_OVERVIEW = 256


def write_maps(
    path: Path,
    parts: Iterable[tuple[Window, Float[np.ndarray, "p h w"]]],
    size: tuple[int, int],
    names: Sequence[str],
    *,
    place: Place | None = None,
    scale: float | None = None,
    tags: Mapping[str, str] | None = None,
) -> None:
    """Write maps (P, H, W) window by window into a GeoTIFF, one named band each.

    Tiles of 256 pixels, deflate, and overviews (means over 2×2, 4×4 … pixels with data) inside the file. It is written
    aside and renamed.

    Args:
        path: ``.tif``; a file that is there is replaced.
        parts: windows that cover the image, with their values, NaN in every band where there is no data.
        size: (H, W).
        names: of the bands.
        place: where the image lies on Earth.
        scale: None stores float32, -9999 for no data; a number such as ``1e-4`` stores int16 values / scale, -32768
            for no data, and the scale beside them.
        tags: facts to write into the file.

    Raises:
        RadiometryError: if a value does not fit into the integers that ``scale`` asks for.
    """
    kind = "float" if scale is None else "int"
    profile: dict[str, Any] = {
        "driver": "GTiff", "count": len(names), "height": size[0], "width": size[1], "tiled": True,
        "blockxsize": TILE, "blockysize": TILE, "compress": "deflate", "predictor": 3 if scale is None else 2,
        "interleave": "band", "bigtiff": "if_safer", "nodata": NODATA[kind],
        "dtype": "float32" if scale is None else "int16",
    }  # fmt: skip
    with (
        tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder,
        quiet_rasterio() as rasterio,
        rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES),
    ):
        aside = Path(folder) / path.name
        with rasterio.open(aside, "w", **profile) as dataset:
            dataset.descriptions = tuple(names)
            if scale is not None:
                dataset.scales = (scale,) * len(names)
            if place is not None:
                place.put(dataset)
            dataset.update_tags(**tags or {})
            for window, values in parts:
                _put(dataset, window, values, scale, path.name)
        if factors := _factors(size):
            with rasterio.open(aside, "r+") as dataset:
                dataset.build_overviews(factors, rasterio.enums.Resampling.average)
        drop_sidecars(path)
        os.replace(aside, path)


def _put(dataset: Any, window: Window, values: Array, scale: float | None, where: str) -> None:
    from rasterio.windows import Window as Part

    missing = np.isnan(values[0])
    stored = values if scale is None else quantise(values, scale, where, missing)
    stored = np.where(missing, np.asarray(dataset.nodata, stored.dtype), stored)
    dataset.write(stored, window=Part(window.column, window.row, window.width, window.height))


def _factors(size: tuple[int, int]) -> list[int]:
    """Factors of the overviews, down to one of some hundred pixels.

    >>> _factors((1000, 3000))
    [2, 4, 8]
    """
    factors, n = [], 2
    while max(size) > n * _SMALLEST_OVERVIEW:
        factors.append(n)
        n *= 2
    return factors
