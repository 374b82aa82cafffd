"""What the protocols read, images with labels before any split, kept once read; and how rows of a class are drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from scenes import SENTINEL2_NM, aid_files, eurosat, eurosat_files, read_jpegs, truth
from torch import Tensor
from torch.nn import functional as F

from ubf_augment.classification import LabelledImages
from ubf_augment.datasets import AID, HSIFolder
from ubf_augment.errors import LabelError, ShapeError
from ubf_augment.spectra import resample

PerClass = int | Sequence[int] | None
EUROSAT_OVERLAP = ("Industrial_20", "Residential_3")  # almost the same place

SCENES = ("Jasper", "Samson", "MUUFL")
COVERS = {
    "water": ("water",), "vegetation": ("tree", "grass"), "soil": ("soil", "dirt"),
    "built": ("road", "roof", "asphalt", "concrete"),
}  # fmt: skip
COMMON_NM = torch.linspace(430, 860, 48, dtype=torch.float64)
PATCH, STRIDE, PURITY, BLOCK = 8, 4, 0.6, 24


@lru_cache(maxsize=2)
def aid_pictures(root: Path, size: int = 64) -> Mapping[str, Tensor]:
    """All AID pictures but the known copy: class → uint8 (N, 3, size, size), in the order of the file names."""
    return MappingProxyType(
        {
            name: read_jpegs([f for f in files if f.name not in AID.COPIES], (size, size))
            for name, files in aid_files(root).items()
        }
    )


@lru_cache(maxsize=2)
def eurosat_scenes(root: Path) -> tuple[LabelledImages, tuple[int, int]]:
    """The 120 EuroSAT scenes, and the rows of the two that overlap."""
    x, y, nm, classes = eurosat(root)
    names = [f.stem for files in eurosat_files(root).values() for f in files]
    first, second = (names.index(n) for n in EUROSAT_OVERLAP)
    return LabelledImages(x, y, classes, nm), (first, second)


@dataclass(frozen=True)
class Patches:
    """Overlapping patches of one scene."""

    images: LabelledImages  # (N, 48, 8, 8)
    corners: Tensor  # (N, 2) row and column of the upper left pixel

    def blocks(self) -> Tensor:
        """Number of the block of 24×24 pixels that a patch lies in; −1 where it lies in several."""
        first, last = self.corners // BLOCK, (self.corners + PATCH - 1) // BLOCK
        inside = (first == last).all(1)
        return torch.where(inside, first[:, 0] * 100 + first[:, 1], -1)


@lru_cache(maxsize=4)
def scene_patches(root: Path) -> tuple[Patches, ...]:
    """Patches of the three scenes on common bands, each of the cover that makes up 0.6 of it or more."""
    found = []
    for name in SCENES:
        scene = truth(name, root)
        cover = torch.stack(
            [
                sum((scene.abundances[scene.materials.index(m)] for m in members if m in scene.materials),
                    torch.zeros(scene.image.shape[1:]))
                for members in COVERS.values()
            ]
        )  # fmt: skip
        share, y = F.avg_pool2d(cover[None], PATCH, STRIDE)[0].max(0)
        pure = share >= PURITY
        cube = resample(scene.image, scene.wavelengths, COMMON_NM)
        windows = cube.unfold(1, PATCH, STRIDE).unfold(2, PATCH, STRIDE).movedim(0, 2)  # (R, S, C, 8, 8)
        images = LabelledImages(windows[pure].contiguous(), y[pure], tuple(COVERS), COMMON_NM)
        found.append(Patches(images, pure.nonzero() * STRIDE))
    return tuple(found)


def scene_groups(scenes: Sequence[Patches]) -> Tensor:
    """Groups of the patches of the training scenes, for an inner split.

    What is chosen should carry over to another scene, so that one is left out where another has all covers: that one is
    group 0, the others 1. Otherwise every block of 24×24 pixels is a group, and patches that reach into several are −1.
    (Samson and MUUFL repeat some pixels next to themselves, so blocks that touch may still hold equal spectra.)
    """
    covers = [set(s.images.y.tolist()) for s in scenes]
    complete = [i for i, found in enumerate(covers) if found == set().union(*covers)]
    if complete:
        return torch.cat([torch.full_like(s.images.y, int(i != complete[0])) for i, s in enumerate(scenes)])
    numbers = [s.blocks() for s in scenes]
    return torch.cat([torch.where(n < 0, n, n + 10_000 * i) for i, n in enumerate(numbers)])


def read_all(data: HSIFolder, size: int) -> LabelledImages:
    """All images of a data set; those larger than ``size`` are shrunk to it by averaging.

    Raises:
        ShapeError: if they are not of one size then.
        Whatever reading raises.
    """
    x = [shrink(data[i]["image"], size) for i in range(len(data))]
    for (path, _), image in zip(data.files, x, strict=True):
        if image.shape != x[0].shape:
            raise ShapeError(
                f"{path} has {image.shape[1]}×{image.shape[2]} pixels, {data.files[0][0]} has "
                f"{x[0].shape[1]}×{x[0].shape[2]}: crop the files to one size, or choose a size that all exceed"
            )
    return LabelledImages(torch.stack(x), torch.tensor(data.targets), data.classes, data.wavelengths)


def shrink(image: Tensor, size: int) -> Tensor:
    """Average (C, H, W) over areas, so that no side is longer than ``size``."""
    height, width = image.shape[1:]
    if max(height, width) <= size:
        return image
    return F.adaptive_avg_pool2d(image, (min(height, size), min(width, size)))


class WholeEuroSAT:
    """The 27,000 EuroSAT scenes of torchgeo with their official lists; bands ascending, as reflectance.

    Args:
        root: folder of torchgeo's copy.
        download: fetch it if it is not there.

    Raises:
        torchgeo.datasets.DatasetNotFoundError: if it is not there.
    """

    def __init__(self, root: Path, download: bool = False) -> None:
        from torchgeo.datasets import EuroSAT

        bands = sorted(SENTINEL2_NM, key=SENTINEL2_NM.__getitem__)
        self.wavelengths = torch.tensor([SENTINEL2_NM[b] for b in bands], dtype=torch.float64)
        names = [b if len(b) == 3 else f"B0{b[1:]}" for b in bands]
        self._sides: dict[str, Any] = {
            side: EuroSAT(root, side, names, download=download) for side in ("train", "test")
        }
        self.classes = tuple(self._sides["train"].classes)

    def labels(self, side: str) -> Tensor:
        """Labels of the ``"train"`` or ``"test"`` list, without reading images."""
        return torch.tensor(self._sides[side].targets)

    def read(self, side: str, rows: Tensor) -> LabelledImages:
        """Some of its images."""
        x = torch.stack([self._sides[side][i]["image"] for i in rows.tolist()]).div_(10000)
        return LabelledImages(x, self.labels(side)[rows], self.classes, self.wavelengths)


def first(rows: Sequence[Tensor], per_class: PerClass, classes: Sequence[str]) -> Tensor:
    """The first rows of each class: all, one number of each, or several numbers in turn."""
    if per_class is None:
        return torch.cat(list(rows))
    counts = (per_class,) if isinstance(per_class, int) else tuple(per_class)
    if not counts or min(counts) < 1:
        raise ValueError(f"per_class must be one or several positive numbers, got {per_class}")
    taken = []
    for k, r in enumerate(rows):
        if len(r) < (count := counts[k % len(counts)]):
            raise LabelError(f"class {classes[k]} has {len(r)} training images, per_class asks for {count}")
        taken.append(r[:count])
    return torch.cat(taken)
