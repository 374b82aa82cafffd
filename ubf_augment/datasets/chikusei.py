"""Chikusei: patches of one large airborne scene, read window by window."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.utils.data import Dataset

from ubf_augment.datasets.missing import check_choice, not_found
from ubf_augment.errors import BandCountError, NoDataError, RadiometryError
from ubf_augment.io.windows import WindowedScene, open_windowed
from ubf_augment.plotting import plot_sample
from ubf_augment.seeding import derive_seed
from ubf_augment.spectra import sensor

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_NAME = "HyperspecVNIR_Chikusei_20140729"
_SPLITS = ("train", "val", "test")
_SHARES = (0.7, 0.1)  # of train and val, the rest tests


class Chikusei(Dataset[dict[str, Any]]):
    """Patches of Chikusei, 2517×2335 pixels of 2.5 m, 128 bands from 363 to 1018 nm; they have no labels.

    The scene is published as ENVI and as MATLAB v7.3::

        root/**/HyperspecVNIR_Chikusei_20140729.hdr   with its data file; the wavelengths stand in it
        root/**/HyperspecVNIR_Chikusei_20140729.mat   variable `chikusei`, (2517, 2335, 128)

    It is cut into blocks, and whole blocks go to train (70 %), val (10 %) or test, chosen by ``fold``. Patches lie within one
    block, ``gap`` pixels away from those of the next, so that no pixel stands on two sides. Only the windows asked for are
    read. There is no open address to download from: naotoyokoya.com/Download.html tells how to get the data.

    Samples are ``{"image": (C, P, P) float32 reflectance}``. If you use this data, please cite Yokoya and Iwasaki 2016,
    Airborne hyperspectral data over Chikusei, Space Application Laboratory, University of Tokyo, SAL-2016-05-27 (CC BY 3.0).

    Args:
        root: a folder that holds the scene, or the ``.hdr`` or ``.mat`` file itself.
        split: ``"train"``, ``"val"``, ``"test"``, or ``"all"``.
        nm: take the bands with centres from the first to the second number; ``Chikusei.VISIBLE`` are the 59 bands of Yu et
            al., CVPR 2024. All by default.
        fold: number of the split; each gives other blocks.
        patch: height and width of a patch.
        stride: step between patches; a patch by default.
        block: height and width of a block.
        gap: least distance of patches of two blocks; a patch by default.
        area: (top, bottom, left, right) of the part to use; by default the whole of a made scene, and of the published one rows
            106–2409 and columns 143–2190, which hold no pixels without data.
        scale: factor from stored numbers to reflectance. The files hold whole numbers up to 15133; that these are
            reflectance × 10000 is an assumption.
        key: variable of the MATLAB file.
        transforms: applied to each sample.

    Attributes:
        wavelengths: (C,) band centres in nm.
        corners: (N, 2) row and column in the scene of each patch's upper left pixel.

    Raises:
        DatasetNotFoundError: (torchgeo's) if there is no scene.
        HSIReadError: if its file cannot be read.
        BandCountError: if it has other than 128 bands and names no wavelengths, or no band lies in ``nm``.
        RadiometryError: if the stored numbers times ``scale`` are no reflectance.
        NoDataError: if there is no room for a patch on each side.
        ValueError: for an unknown split, or sizes below one.
    """

    VISIBLE: ClassVar[tuple[float, float]] = (398.0, 699.0)

    def __init__(
        self,
        root: str | os.PathLike[str] = "data",
        split: Literal["train", "val", "test", "all"] = "train",
        *,
        nm: tuple[float, float] | None = None,
        fold: int = 0,
        patch: int = 64,
        stride: int | None = None,
        block: int = 256,
        gap: int | None = None,
        area: tuple[int, int, int, int] | None = None,
        scale: float = 1e-4,
        key: str = "chikusei",
        transforms: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
    ) -> None:
        check_choice(split, (*_SPLITS, "all"))
        if min(patch, stride or 1, block) < 1 or (gap or 0) < 0:
            raise ValueError("patch, stride and block must be at least 1, gap at least 0")
        self.root, self.split, self.patch, self.scale, self.transforms = root, split, patch, scale, transforms
        self.scene = open_windowed(self._find(Path(root).expanduser()), key)
        self.bands, self.wavelengths = _choose_bands(self.scene, nm)
        step = patch if stride is None else stride
        blocks = _blocks(_area(self.scene, area), block, patch if gap is None else gap, patch)
        corners = [
            (r, c)
            for top, bottom, left, right in _of_split(blocks, split, fold)
            for r in range(top, bottom - patch + 1, step)
            for c in range(left, right - patch + 1, step)
        ]
        self.corners = torch.tensor(corners)
        self._check_radiometry()

    def _find(self, root: Path) -> Path:
        if root.is_file():
            return root
        for suffix in (".hdr", ".mat"):
            if found := sorted(root.rglob(_NAME + suffix)):
                return found[0]
        raise not_found(
            self, f"Expected {_NAME}.hdr (with its data file) or {_NAME}.mat there, or in a folder of it."
        )

    def _check_radiometry(self) -> None:
        values = self._read(0).flatten()
        high = float(values[:: max(1, len(values) // 1_000_000)].quantile(0.99))
        if not 1e-3 < high < 2:
            raise RadiometryError(
                f"1 % of the first patch of {self.scene.path} exceed {high:.3g} after scale={self.scale:g}, which is no "
                "reflectance: give the factor that turns the stored numbers into 0…1"
            )

    def _read(self, i: int) -> Tensor:
        top, left = self.corners[i].tolist()
        return self.scene.read(self.bands, top, left, self.patch, self.patch).float() * self.scale

    def __len__(self) -> int:
        return len(self.corners)

    def __getitem__(self, i: int) -> dict[str, Any]:
        """Read one patch."""
        sample = {"image": self._read(i)}
        return sample if self.transforms is None else self.transforms(sample)

    def plot(self, sample: dict[str, Any], show_titles: bool = True, suptitle: str | None = None) -> Figure:
        """Show a sample in pseudo-RGB and some of its spectra.

        Args:
            sample: of this data set.
            show_titles: has no effect, there are no classes.
            suptitle: title of the figure.
        """
        return plot_sample(sample, self.wavelengths, None, suptitle)


def _choose_bands(scene: WindowedScene, nm: tuple[float, float] | None) -> tuple[list[int], Tensor]:
    """0-based bands and their centres, those of the file or of the sensor."""
    known = sensor("chikusei").wavelengths
    if scene.wavelengths is None and scene.shape[0] != len(known):
        raise BandCountError(
            f"{scene.path} has {scene.shape[0]} bands and names no wavelengths, Chikusei has {len(known)} bands"
        )
    centres = known if scene.wavelengths is None else scene.wavelengths
    low, high = (0.0, float("inf")) if nm is None else nm
    bands = [i for i, centre in enumerate(centres.tolist()) if low <= centre <= high]
    if not bands:
        raise BandCountError(f"no band of {scene.path.name} lies within {low:g}–{high:g} nm")
    return bands, centres[bands]


def _area(scene: WindowedScene, area: tuple[int, int, int, int] | None) -> tuple[int, int, int, int]:
    _, height, width = scene.shape
    if area is None:
        return (106, 2410, 143, 2191) if (height, width) == (2517, 2335) else (0, height, 0, width)
    top, bottom, left, right = area
    if not (0 <= top < bottom <= height and 0 <= left < right <= width):
        raise ValueError(
            f"area {area} (top, bottom, left, right) lies outside the scene of {height}×{width} pixels"
        )
    return area


def _blocks(
    area: tuple[int, int, int, int], block: int, gap: int, patch: int
) -> list[tuple[int, int, int, int]]:
    """(top, bottom, left, right) of blocks that are ``gap`` pixels apart and can hold a patch."""
    top, bottom, left, right = area
    found = [
        (r, min(r + block, bottom), c, min(c + block, right))
        for r in range(top, bottom, block + gap)
        for c in range(left, right, block + gap)
    ]
    return [b for b in found if b[1] - b[0] >= patch and b[3] - b[2] >= patch]


def _of_split(
    blocks: Sequence[tuple[int, int, int, int]], split: str, fold: int
) -> list[tuple[int, int, int, int]]:
    """The blocks of a side, in the order of the scene; at least one on each."""
    if split == "all" and blocks:
        return list(blocks)
    if len(blocks) < 3:
        raise NoDataError(
            f"the scene has room for {len(blocks)} blocks, three are needed: choose a smaller patch, block or gap"
        )
    generator = torch.Generator().manual_seed(derive_seed(fold, 31))
    order = torch.randperm(len(blocks), generator=generator).tolist()
    val = max(1, round(_SHARES[1] * len(blocks)))
    test = max(1, round((1 - sum(_SHARES)) * len(blocks)))
    sides = {"test": order[:test], "val": order[test : test + val], "train": order[test + val :]}
    return [blocks[i] for i in sorted(sides[split])]
