"""Real scenes as (C, H, W) reflectance with ascending wavelengths."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ubf_augment import read_hsi
from ubf_augment.spectra import sort_bands


@dataclass(frozen=True)
class Scene:
    """An image with the abundances and endmembers that ship with it."""

    image: Tensor  # (C, H, W) reflectance
    wavelengths: Tensor  # (C,) nm
    abundances: Tensor  # (P, H, W)
    endmembers: Tensor  # (P, C); only their directions are used
    materials: tuple[str, ...]

    @property
    def pixels(self) -> Tensor:
        """Spectra (N, C)."""
        return self.image.flatten(1).T


def truth(name: str, data: Path) -> Scene:
    """Jasper Ridge (AVIRIS), Samson, or MUUFL Gulfport (CASI) with shipped truth."""
    from scipy.io import loadmat

    if name == "Jasper":
        path, options = "jasper_ridge.mat", {"layout": "c(wh)", "size": (100, 100), "scale": 1 / 5000}
        selected = loadmat(data / "hsi" / path)["SlectBands"][:, 0].astype(int) - 1
        nm = loadmat(data / "hsi" / "aviris_wavelengths.mat")["AVIRIS_wavlen"][selected, 0]
        materials = ("tree", "water", "dirt", "road")
    elif name == "Samson":
        path, options = "samson.mat", {"layout": "c(wh)", "size": (95, 95)}
        nm = np.linspace(401, 889, 156)
        materials = ("soil", "tree", "water")
    elif name == "MUUFL":
        path, options = "muufl.mat", {}
        nm = np.linspace(368, 1043, 64)
        materials = ("roof", "grass", "tree", "asphalt", "concrete")
    else:
        raise ValueError(f"unknown scene {name!r}")
    # The two spectrometers of AVIRIS overlap, hence sort_bands.
    hsi = read_hsi(data / "hsi" / path, key="Y", wavelengths=nm, sort_bands=True, **options)
    stored = loadmat(data / "hsi" / path)
    a = torch.from_numpy(stored["label" if name == "MUUFL" else "A"].astype(np.float32))
    height, width = hsi.image.shape[1:]
    a = a.movedim(-1, 0) if name == "MUUFL" else a.view(len(a), width, height).transpose(1, 2)  # column-major
    spectra, _ = sort_bands(torch.from_numpy(stored["M"].T.astype(np.float32)), nm.tolist(), dim=1)
    return Scene(hsi.image, hsi.wavelengths, a.contiguous(), spectra, materials)


def chikusei(data: Path) -> tuple[Tensor, Tensor]:
    """Chikusei block 282: (59, 128, 128) reflectance, and wavelengths in nm."""
    nm = np.linspace(398.71, 698.04, 59)
    hsi = read_hsi(data / "hsi" / "chikusei_282.mat", key="Y", wavelengths=nm)
    return hsi.image, hsi.wavelengths


def aid_files(data: Path) -> dict[str, list[Path]]:
    """The AID pictures of each class, sorted."""
    folders = sorted(p for p in (data / "rgb" / "aid150").iterdir() if p.is_dir())
    return {folder.name: sorted(folder.glob("*.jpg")) for folder in folders}


def read_jpegs(files: Sequence[Path], size: tuple[int, int]) -> Tensor:
    """Pictures of one size as uint8 (N, 3, H, W), shrunk with antialiasing."""
    from PIL import Image

    pictures = torch.stack([torch.from_numpy(np.array(Image.open(f).convert("RGB"))) for f in files])
    small = F.interpolate(
        pictures.movedim(-1, 1).float(), size, mode="bilinear", antialias=True, align_corners=False
    )
    return small.round().clamp(0, 255).to(torch.uint8)


def aid(data: Path, size: tuple[int, int], per_class: int) -> Iterator[tuple[str, Tensor]]:
    """Class by class: name and evenly chosen AID pictures, uint8 (N, 3, H, W), shrunk with antialiasing."""
    for name, files in aid_files(data).items():
        yield name, read_jpegs(files[:: max(1, len(files) // per_class)][:per_class], size)


SENTINEL2_NM = {
    "B1": 443, "B2": 490, "B3": 560, "B4": 665, "B5": 705, "B6": 740, "B7": 783, "B8": 842, "B8A": 865, "B9": 945,
    "B10": 1375, "B11": 1610, "B12": 2190,
}  # fmt: skip
EUROSAT_ORDER = ("B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "B9", "B10", "B11", "B12", "B8A")


def eurosat_files(data: Path) -> dict[str, list[Path]]:
    """The EuroSAT scenes of each class, sorted by name: the order of `eurosat`."""
    folders = sorted(p for p in (data / "msi" / "eurosat_ms").iterdir() if p.is_dir())
    return {folder.name: sorted(folder.glob("*.tif")) for folder in folders}


def eurosat(data: Path) -> tuple[Tensor, Tensor, Tensor, tuple[str, ...]]:
    """EuroSAT: images (120, 13, 64, 64) with ascending bands, labels, wavelengths, class names."""
    import rasterio

    images, labels, files = [], [], eurosat_files(data)
    for k, paths in enumerate(files.values()):
        for path in paths:
            with rasterio.open(path) as f:
                images.append(torch.from_numpy(f.read().astype(np.float32) / 10000))
            labels.append(k)
    cube, nm = sort_bands(torch.stack(images), [float(SENTINEL2_NM[b]) for b in EUROSAT_ORDER])
    return cube, torch.tensor(labels), nm, tuple(files)


def enmap(data: Path) -> tuple[Tensor, Tensor]:
    """EnMAP, Potsdam: tiles (14, 218, 32, 32) without the six bands that hold no data, and wavelengths."""
    paths = sorted((data / "hsi" / "enmap_potsdam" / "images").glob("*.tif"))
    cubes = [read_hsi(path, drop_bands=range(129, 135), sort_bands=True) for path in paths]
    return torch.stack([c.image for c in cubes]), cubes[0].wavelengths
