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


def write_mat73(path: Path, **arrays: np.ndarray) -> Path:
    """A MATLAB v7.3 file: HDF5 behind a MATLAB header, axes reversed; arrays are given in MATLAB's order."""
    import h5py

    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w", userblock_size=512) as f:
        for name, values in arrays.items():
            f.create_dataset(name, data=values.T, chunks=True, compression="gzip")
    with path.open("r+b") as f:
        f.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(116) + b" " * 8 + b"\x00\x02IM")
    return path


def chikusei_scene(height: int = 40, width: int = 50) -> np.ndarray:
    """Whole numbers (H, W, 128) up to 15133, each telling its row, column and band."""
    row, column, band = np.ogrid[:height, :width, :128]
    scene: np.ndarray = (100 + 97 * row + 41 * column + 3 * band).astype(np.uint16)
    return scene


CHIKUSEI = "HyperspecVNIR_Chikusei_20140729"


def made_chikusei_mat(root: Path, scene: np.ndarray | None = None) -> Path:
    """Chikusei as MATLAB v7.3: `chikusei` (H, W, 128)."""
    scene = chikusei_scene() if scene is None else scene
    write_mat73(root / "Chikusei_MATLAB" / f"{CHIKUSEI}.mat", chikusei=scene)
    return root


def made_chikusei_envi(root: Path, scene: np.ndarray | None = None) -> Path:
    """Chikusei as ENVI: band interleaved by line, wavelengths in micrometres in the header."""
    from ubf_augment.spectra import sensor

    scene = chikusei_scene() if scene is None else scene
    folder = root / "Chikusei_ENVI"
    folder.mkdir(parents=True)
    scene.astype("<i2").transpose(0, 2, 1).tofile(folder / CHIKUSEI)
    nm = sensor("chikusei").wavelengths.tolist()
    header = {
        "samples": scene.shape[1], "lines": scene.shape[0], "bands": 128, "header offset": 0,
        "file type": "ENVI Standard", "data type": 2, "interleave": "bil", "byte order": 0,
        "wavelength units": "Micrometers", "wavelength": "{" + ", ".join(f"{v / 1000:.5f}" for v in nm) + "}",
    }  # fmt: skip
    text = "ENVI\n" + "".join(f"{k} = {v}\n" for k, v in header.items())
    (folder / f"{CHIKUSEI}.hdr").write_text(text)
    return root
