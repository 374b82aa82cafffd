"""Seeded files of exactly the layout in which public data sets are published: names, keys, types, scales, axes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from affine import Affine

PLACED = {"driver": "GTiff", "transform": Affine(1, 0, 5, 0, -1, 5)}


def write_raster(path: Path, values: np.ndarray, **profile: Any) -> Path:
    """A GeoTIFF, or another raster, of values (C, H, W)."""
    import rasterio

    path.parent.mkdir(parents=True, exist_ok=True)
    count, height, width = values.shape
    options = (
        {"count": count, "height": height, "width": width, "dtype": values.dtype.name} | PLACED | profile
    )
    with rasterio.open(path, "w", **options) as f:
        f.write(values)
    return path


def made_hsrs(root: Path, counts: tuple[int, ...] = (4, 4, 4, 4, 8), bands: int = 48, side: int = 16) -> Path:
    """HSRS-SC: five folders of GeoTIFFs, whole numbers, 4000 for a reflectance of one."""
    rng = np.random.default_rng(0)
    for k, count in enumerate(counts):
        for i in range(count):
            values = rng.integers(100, 2000, (bands, side, side), dtype=np.uint16)
            write_raster(root / f"class {k}" / f"{i}.tif", values)
    return root


def made_eurosat(root: Path) -> Path:
    """The layout that torchgeo reads; every band holds its wavelength, and the number of the scene."""
    nm = [443, 490, 560, 665, 705, 740, 783, 842, 945, 1375, 1610, 2190, 865]
    tif = root / "ds" / "images" / "remote_sensing" / "otherDatasets" / "sentinel_2" / "tif"
    lists: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for k, name in enumerate(("Forest", "River")):
        for i in range(8):
            values = np.tile(np.array(nm, np.uint16)[:, None, None], (1, 4, 4))
            values[:, 0, 0] += 10 * k + i + 1
            write_raster(tif / name / f"{name}_{i}.tif", values)
            lists["train" if i < 5 else "val" if i < 6 else "test"].append(f"{name}_{i}.jpg")
    for side, names in lists.items():
        (root / f"eurosat-{side}.txt").write_text("\n".join(names) + "\n")
    return root
