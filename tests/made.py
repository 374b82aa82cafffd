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


def write_picture(path: Path, pixels: np.ndarray) -> Path:
    """A picture (H, W, 3) of 8 bits."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def made_aid(root: Path, per_class: int = 4, side: int = 12) -> Path:
    """AID: 30 folders of RGB jpg files, named by class and number."""
    from ubf_augment.datasets import AID

    rng = np.random.default_rng(0)
    for name in AID.CLASSES:
        for i in range(1, per_class + 1):
            pixels = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
            write_picture(root / "AID" / name / f"{name.lower()}_{i}.jpg", pixels)
    return root


def smooth_cube(rng: np.random.Generator, height: int, width: int, bands: int = 31) -> np.ndarray:
    """Mixtures (H, W, C) of three smooth spectra in patches, within 0.02–0.9."""
    x = np.linspace(0, 1, bands)
    spectra = np.stack([0.08 + 0.5 * x, 0.6 - 0.45 * x, 0.15 + 0.5 * np.exp(-(((x - 0.5) / 0.2) ** 2))])
    coarse = rng.dirichlet([0.6] * 3, (-(-height // 4), -(-width // 4)))
    weights = coarse.repeat(4, 0).repeat(4, 1)[:height, :width]
    cube: np.ndarray = (weights @ spectra) * rng.uniform(0.6, 1.0) + rng.normal(
        0, 0.003, (height, width, bands)
    )
    return cube.clip(0, 1)


def made_arad(
    root: Path, numbers: tuple[int, ...] = (1, 2, 900, 901, 950), side: tuple[int, int] = (24, 32)
) -> Path:
    """ARAD_1K: MATLAB v7.3, `cube` (H, W, 31) in single precision; files of the 16-band track beside them."""
    rng = np.random.default_rng(0)
    for n in numbers:
        folder = root / ("Train_Spec" if n <= 900 else "Valid_Spec")
        write_mat73(folder / f"ARAD_1K_{n:04}.mat", cube=smooth_cube(rng, *side).astype(np.float32))
    write_mat73(root / "Train_16" / "ARAD_1K_0001_16.mat", cube=np.zeros((*side, 16), np.float32))
    return root


def made_harvard(root: Path, side: tuple[int, int] = (24, 32)) -> Path:
    """Harvard: MATLAB before v7.3, `ref` (H, W, 31) and `lbl` (H, W), calib.txt beside them."""
    from scipy.io import savemat

    rng = np.random.default_rng(1)
    for folder, name in (("CZ_hsdb", "img1"), ("CZ_hsdb", "imga1"), ("CZ_hsdbi", "imgc4")):
        (root / folder).mkdir(parents=True, exist_ok=True)
        moved = (rng.random(side) > 0.1).astype(np.uint8)
        savemat(
            root / folder / f"{name}.mat",
            {"ref": smooth_cube(rng, *side) * 0.5, "lbl": moved},
            do_compression=True,
        )
    np.savetxt(root / "CZ_hsdb" / "calib.txt", np.linspace(0.2, 0.9, 31))
    return root


MATERIALS = ("soil", "tree", "water")


def made_materials() -> Any:
    """Spectra of three materials, roughly soil, tree and water, on a fine grid from 350 to 2600 nm."""
    import torch

    from ubf_augment.spectra import Endmembers

    nm = torch.arange(350.0, 2601.0, 2.0)
    edge = torch.sigmoid((nm - 715) / 12)
    soil = 0.08 + 0.35 * (1 - torch.exp(-(nm - 350) / 700))
    tree = (
        0.04
        + 0.06 * torch.exp(-(((nm - 550) / 40) ** 2))
        + 0.42 * edge * torch.exp(-((nm - 715).clamp_min(0) / 1100))
    )
    water = 0.07 * torch.exp(-(nm - 350) / 180) + 0.005
    return Endmembers(torch.stack([soil, tree, water]), nm, MATERIALS)


def made_mixtures(seed: int, main: int, side: int = 12) -> Any:
    """Abundances (3, H, W), mostly of one material."""
    import torch

    g = torch.Generator().manual_seed(seed)
    logits = 1.2 * torch.randn(3, side, side, generator=g)
    logits[main] += 2.5
    return logits.softmax(0)


def made_reflectance(sensor: Any, seed: int, main: int, side: int = 12) -> Any:
    """Reflectance (C, H, W) of the bands of a sensor in file order; bad bands hold zero."""
    import torch

    good = list(sensor.order)
    spectra = made_materials().resample(sensor).spectra
    image = torch.zeros(len(sensor.wavelengths), side, side)
    image[good] = torch.einsum("phw,pc->chw", made_mixtures(seed, main, side), spectra)
    return image


def made_sensor_folder(root: Path, sensor: Any, per_class: int = 3) -> Path:
    """Two classes of files as a sensor's products store them: (H, W, C), whole numbers where it has a scale."""
    for main, name in enumerate(MATERIALS[:2]):
        (root / name).mkdir(parents=True)
        for i in range(per_class):
            values = made_reflectance(sensor, 10 * main + i, main).numpy().transpose(1, 2, 0)
            if sensor.scale is not None and sensor.scale < 1:
                values = np.round((values - sensor.offset) / sensor.scale)
            if sensor.nodata is not None:
                values[..., list(sensor.bad_bands)] = sensor.nodata
            kind = np.int32 if sensor.scale is not None and sensor.scale < 1 else np.float32
            np.save(root / name / f"{i}.npy", values.astype(kind))
    return root


def made_hsrs_scenes(root: Path, side: int = 12) -> Path:
    """HSRS-SC: five folders of three GeoTIFFs, mixtures of materials."""
    from ubf_augment.spectra import sensor

    for k in range(5):
        for i in range(3):
            stored = made_reflectance(sensor("hsrs-sc"), 10 * k + i, k % 3, side) * 4000
            write_raster(root / f"class {k}" / f"{i}.tif", stored.round().numpy().astype(np.uint16))
    return root


def made_chikusei_blocks(root: Path) -> Path:
    """Chikusei as MATLAB v7.3: 3×3 blocks of 16 pixels, each mostly of one material."""
    import torch

    from ubf_augment.spectra import sensor

    blocks = [
        [made_reflectance(sensor("chikusei"), 10 * r + c, (r + c) % 3, 16) for c in range(3)]
        for r in range(3)
    ]
    scene = torch.cat([torch.cat(row, 2) for row in blocks], 1) * 10_000
    return made_chikusei_mat(root, scene.round().numpy().transpose(1, 2, 0).astype(np.uint16))


def made_resisc45(root: Path) -> Path:
    """NWPU-RESISC45 as torchgeo keeps it: class folders, and lists of file names."""
    rng = np.random.default_rng(0)
    names = {"train": [], "val": [], "test": []}  # type: dict[str, list[str]]
    for kind in ("forest", "river"):
        for i in range(1, 6):
            file = f"{kind}_{i:03}.jpg"
            write_picture(
                root / "NWPU-RESISC45" / kind / file, rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)
            )
            names["train" if i < 4 else "val" if i < 5 else "test"].append(file)
    for side, files in names.items():
        (root / f"resisc45-{side}.txt").write_text("\n".join(files))
    return root


def made_places(root: Path) -> Path:
    """Places365, small pictures of the training side, as torchvision keeps them: folders, categories, a list of files."""
    rng = np.random.default_rng(0)
    lines = []
    for k, name in enumerate(("/a/airfield", "/k/kitchen")):
        for i in range(3):
            file = f"{name}/{i:08}.jpg"
            write_picture(
                root / "data_256_standard" / file[1:], rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)
            )
            lines.append(f"{file} {k}")
    (root / "categories_places365.txt").write_text("/a/airfield 0\n/k/kitchen 1\n")
    (root / "places365_train_standard.txt").write_text("\n".join(lines) + "\n")
    return root


def made_enmap(root: Path) -> Path:
    """An EnMAP Level 2A tile as torchgeo finds it: int16, reflectance × 10000, bad bands without data."""
    from rasterio.crs import CRS

    from ubf_augment.spectra import sensor

    s = sensor("enmap")
    values = (made_reflectance(s, 0, 1, 24) * 10_000).round().numpy().astype(np.int16)
    values[list(s.bad_bands)] = -32768
    name = "ENMAP01-____L2A-DT0000001053_20220611T072305Z_002_V010400_20231124T151718Z-SPECTRAL_IMAGE.TIF"
    utm = {"crs": CRS.from_epsg(32633), "transform": Affine(30, 0, 366015, 0, -30, 5809965), "nodata": -32768}
    write_raster(root / name, values, **utm)
    return root


def made_prisma_he5(path: Path, seed: int = 1, side: int = 24) -> Any:
    """A PRISMA Level 2D product as distributed; returns its reflectance (C, H, W) in the order of the sensor.

    The cubes are (rows, bands, columns) from long to short wavelengths, with places for bands that are not used; numbers are
    scaled per cube. One pixel lies outside the image.
    """
    import h5py

    from ubf_augment.spectra import sensor

    s = sensor("prisma")
    image = made_reflectance(s, seed, 0, side).numpy()
    with h5py.File(path, "w") as file:
        for name, bands, unused, first in (
            ("Vnir", slice(0, 63), 3, True),
            ("Swir", slice(63, 234), 2, False),
        ):
            values, empty = image[bands][::-1], np.zeros(unused)
            low, high = -0.01, 1.5
            stored = np.rint((values - low) / (high - low) * 65535).astype(np.uint16).transpose(1, 0, 2)
            nothing = np.zeros((side, unused, side), np.uint16)
            stored = np.concatenate([nothing, stored] if first else [stored, nothing], 1)
            stored[0, :, 0] = 0
            file[f"HDFEOS/SWATHS/PRS_L2D_HCO/Data Fields/{name.upper()}_Cube"] = stored
            for key, numbers in (("Cw", s.wavelengths), ("Fwhm", s.fwhm)):
                kept = numbers[bands].numpy()[::-1]
                whole = np.concatenate([empty, kept] if first else [kept, empty])
                file.attrs[f"List_{key}_{name}"] = whole.astype(np.float32)
            file.attrs[f"L2Scale{name}Min"], file.attrs[f"L2Scale{name}Max"] = (
                np.float32(low),
                np.float32(high),
            )
    return image


def made_prisma(root: Path) -> Path:
    """A PRISMA Level 2D scene, converted to GeoTIFF as torchgeo asks for: reflectance in single precision."""
    from rasterio.crs import CRS

    from ubf_augment.spectra import sensor

    values = made_reflectance(sensor("prisma"), 1, 0, 24).numpy()
    utm = {"crs": CRS.from_epsg(32633), "transform": Affine(30, 0, 366015, 0, -30, 5809965)}
    write_raster(root / "PRS_L2D_STD_20210307145414_20210307145418_0001.tif", values, **utm)
    return root
