"""Indian Pines as scene patches: a real hyperspectral data set that needs no download."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from ubf_augment.plotting import plot_sample
from ubf_augment.spectra import sort_bands

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CLASSES = (
    "Alfalfa",
    "Corn-notill",
    "Corn-mintill",
    "Corn",
    "Grass-pasture",
    "Grass-trees",
    "Grass-pasture-mowed",
    "Hay-windrowed",
    "Oats",
    "Soybean-notill",
    "Soybean-mintill",
    "Soybean-clean",
    "Wheat",
    "Woods",
    "Buildings-Grass-Trees-Drives",
    "Stone-Steel-Towers",
)
"""The 16 classes of the ground truth, whose value k + 1 means ``CLASSES[k]``; 0 is unlabelled."""

_SPLITS = ("train", "val", "test")
_SHARES = (0.5, 0.2, 0.3)
_BLOCK, _ORIGIN = 24, (-4, -16)  # from this corner of the grid every class reaches into four blocks or more
_CANDIDATES, _FINALISTS = 20_000, 500


class Scene(NamedTuple):
    """The whole image.

    Attributes:
        image: (200, 145, 145) float32 apparent reflectance.
        wavelengths: (200,) nm, ascending.
        truth: (145, 145) int64, 0 unlabelled, else class + 1.
    """

    image: Tensor
    wavelengths: Tensor
    truth: Tensor


def solar_irradiance(wavelengths: Float[Tensor, " c"]) -> Float[Tensor, " c"]:
    """Sunlight at 1 au in W m⁻² nm⁻¹, as of a black body: E = π B(λ, 5772 K) (R☉ / au)².

    The measured spectrum departs from this by up to about 20 % (lines in the violet, low opacity near 1600
    nm): good enough to give radiance the units of reflectance, not to correct an atmosphere. Solar
    temperature and radius are nominal (IAU 2015 resolution B3, Prša et al. 2016,
    doi:10.3847/0004-6256/152/2/41).

    Args:
        wavelengths: nm.

    >>> round(float(solar_irradiance(torch.tensor([550.0]))), 2)
    1.75
    """
    nm = wavelengths.double() * 1e-9
    h, c, k = 6.62607015e-34, 2.99792458e8, 1.380649e-23
    radiance = 2 * h * c**2 / nm**5 / torch.expm1(h * c / (nm * k * 5772.0))
    return torch.pi * radiance * (6.957e8 / 1.495978707e11) ** 2 * 1e-9


def load_scene() -> Scene:
    """Read Indian Pines from the ``tensorly`` package and convert it to apparent reflectance.

    The file holds 16-bit numbers N of AVIRIS at-sensor radiance, L = (N − 1000) / 500 in µW cm⁻² nm⁻¹ sr⁻¹
    (Purdue's documentation of the scene). Apparent reflectance is ρ = π L d² / (E cos θ), with E from
    `solar_irradiance`, d = 1.015 au (12 June) and cos θ = 0.9: an assumption, since the hour of the flight
    is not documented, but only a common factor, within about 10 %. ρ includes the atmosphere; values are
    not clipped, and the noise leaves a few below zero.

    Band centres are those shipped with the data (calibration of 1992). Bands 104–108, 150–163 and 220
    (water vapour) are removed there. Two centres are misprinted as 2260.22 and 2270.15 nm, between 2202.30
    and 2232.07: they are put right (−48 nm). The four spectrometers of AVIRIS overlap near 690 and 1275 nm,
    so the bands are sorted by wavelength.

    Raises:
        ModuleNotFoundError: if ``tensorly`` is not installed.

    Data: Baumgardner, Biehl and Landgrebe 2015, doi:10.4231/R7RX991C, CC BY 3.0.
    """
    if find_spec("tensorly") is None:
        raise ModuleNotFoundError(
            "Indian Pines ships inside the package tensorly, which is not installed: pip install tensorly"
        )
    return _load_scene()


@lru_cache(maxsize=1)
def _load_scene() -> Scene:
    from tensorly.datasets import load_indian_pines

    bunch = load_indian_pines()
    numbers = torch.from_numpy(np.asarray(bunch["tensor"], dtype=np.float32)).permute(2, 0, 1)
    nm = torch.tensor(bunch["ticks"][1], dtype=torch.float64)
    misprint = (nm - 2260.22).abs().minimum((nm - 2270.15).abs()) < 1e-6
    nm = torch.where(misprint, nm - 48.0, nm)
    radiance = (numbers - 1000) / 500 * 1e-2  # W m⁻² nm⁻¹ sr⁻¹
    factor = torch.pi * 1.015**2 / (solar_irradiance(nm) * 0.9)
    image, nm = sort_bands(radiance * factor.float()[:, None, None], nm)
    return Scene(image.contiguous(), nm, torch.from_numpy(np.asarray(bunch["ticks"][0], dtype=np.int64)))


class _Patches(NamedTuple):
    corner: NDArray[np.int64]  # (N, 2) row, column of the upper left pixel
    label: NDArray[np.int64]  # (N,) 0..K-1
    classes: tuple[str, ...]
    split: NDArray[np.int64]  # (N,) 0 train, 1 val, 2 test, -1 dropped
    blocks: NDArray[np.int64]  # (145, 145) split of the block of each pixel


@lru_cache(maxsize=16)
def _cut(fold: int, patch: int, stride: int, purity: float, min_patches: int) -> _Patches:
    """Find the patches and split them."""
    truth = load_scene().truth.numpy()
    rows, columns = (np.arange(0, n - patch + 1, stride) for n in truth.shape)
    corner = np.stack(np.meshgrid(rows, columns, indexing="ij"), -1).reshape(-1, 2)
    windows = np.lib.stride_tricks.sliding_window_view(truth, (patch, patch))[corner[:, 0], corner[:, 1]]
    counts = (windows.reshape(len(corner), -1, 1) == np.arange(1, 17)).sum(1)
    label, share = counts.argmax(1), counts.max(1) / patch**2
    pure = share >= purity
    corner, label = corner[pure], label[pure]
    kept = np.flatnonzero(np.bincount(label, minlength=16) >= min_patches)
    if not len(kept):
        raise ValueError(
            f"no class has {min_patches} patches of purity {purity}: lower min_patches or purity"
        )
    chosen = np.isin(label, kept)
    corner, label = corner[chosen], np.searchsorted(kept, label[chosen])
    split, blocks = _split(corner, label, len(kept), patch, fold, truth.shape)
    return _Patches(corner, label, tuple(CLASSES[k] for k in kept), split, blocks)


def _split(
    corner: NDArray[np.int64], label: NDArray[np.int64], k: int, patch: int, fold: int, shape: tuple[int, ...]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Give whole blocks to train, val and test; drop patches that overlap one of a later split."""
    grid = [(np.arange(n) - o) // _BLOCK for n, o in zip(shape, _ORIGIN, strict=True)]
    width = int(grid[1].max()) + 1
    block_of_pixel = grid[0][:, None] * width + grid[1][None]
    centre = corner + patch // 2
    block = block_of_pixel[centre[:, 0], centre[:, 1]]
    count = int(block_of_pixel.max()) + 1
    table = np.zeros((count, k))
    np.add.at(table, (block, label), 1)
    near = (np.abs(corner[:, None] - corner[None]) < patch).all(-1)
    draws = np.random.default_rng(fold).random((_CANDIDATES, count))
    roles = np.digitize(draws, np.cumsum(_SHARES)[:2])
    wanted = np.array(_SHARES)[:, None] * table.sum(0)
    found = np.stack([(roles == s).astype(float) @ table for s in range(3)], 1)  # (candidates, 3, K)
    best, chosen = np.inf, None
    for i in np.argsort(_shortage(found, wanted), kind="stable")[:_FINALISTS]:
        split = roles[i][block].astype(np.int64)
        for s in (1, 0):
            split[(split == s) & near[:, split > s].any(1)] = -1
        left = np.stack([np.bincount(label[split == s], minlength=k) for s in range(3)])
        if (score := float(_shortage(left, wanted))) < best:
            best, chosen = score, (split, roles[i][block_of_pixel].astype(np.int64))
    if chosen is not None:
        return chosen
    raise ValueError(
        f"no split of the blocks has every class on every side (fold {fold}): raise min_patches, which "
        "drops rare classes"
    )


def _shortage(found: NDArray[Any], wanted: NDArray[Any]) -> Any:
    """How far the patches of (…, split, class) stay below the wanted numbers: Σ max(wanted / found, 1)."""
    with np.errstate(divide="ignore"):
        return np.maximum(wanted / found, 1).sum((-2, -1))


class IndianPines(Dataset[dict[str, Any]]):
    """Patches of Indian Pines with one crop or land cover label each; a torchgeo-like ``NonGeoDataset``.

    A patch has the label that covers most of it, if that is at least ``purity`` of all its pixels; classes
    with fewer than ``min_patches`` patches are left out (by default: 430 patches, 8 classes). The scene is
    cut into blocks of 24×24 pixels, and whole blocks go to train, val or test (aiming at 50/20/30 %, chosen
    by ``fold`` among random assignments so that each class stands on every side, the scarcest as well as it
    can). A patch that overlaps one of a later split is dropped, so no pixel is on two sides: patches of
    different splits lie at least one patch apart, corner to corner.

    Samples are ``{"image": (200, P, P) float32 apparent reflectance, "label": int64 scalar}``. If you use
    this data, please cite Baumgardner, Biehl and Landgrebe 2015, doi:10.4231/R7RX991C (CC BY 3.0).

    Args:
        split: ``"train"``, ``"val"`` or ``"test"``.
        fold: number of the split; each gives other blocks.
        patch: height and width of a patch.
        stride: step between patches.
        purity: least share of the patch that its class covers.
        min_patches: least number of patches of a class, over all splits.
        transforms: applied to each sample.

    Attributes:
        classes: class names in label order.
        targets: the label of each patch.
        corners: (N, 2) row and column of each patch's upper left pixel.
        wavelengths: (200,) band centres in nm.

    Raises:
        ValueError: for an unknown split, or where no split has every class on every side.
        ModuleNotFoundError: if ``tensorly`` is not installed.

    >>> train = IndianPines("train", fold=0)
    >>> train[0]["image"].shape, len(train.classes)
    (torch.Size([200, 8, 8]), 8)
    """

    def __init__(
        self,
        split: Literal["train", "val", "test"] = "train",
        fold: int = 0,
        *,
        patch: int = 8,
        stride: int = 4,
        purity: float = 0.6,
        min_patches: int = 20,
        transforms: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
    ) -> None:
        if split not in _SPLITS:
            raise ValueError(f"split must be one of {', '.join(_SPLITS)}, got {split!r}")
        if patch < 1 or stride < 1 or not 0 < purity <= 1:
            raise ValueError("patch and stride must be ≥ 1, purity in (0, 1]")
        scene = load_scene()
        cut = _cut(fold, patch, stride, purity, min_patches)
        mine = np.flatnonzero(cut.split == _SPLITS.index(split))
        self.split, self.fold, self.patch, self.transforms = split, fold, patch, transforms
        self.classes = cut.classes
        self.targets: list[int] = cut.label[mine].tolist()
        self.corners = torch.from_numpy(cut.corner[mine])
        self.wavelengths = scene.wavelengths
        self._image, self._cut = scene.image, cut

    @property
    def area(self) -> Bool[Tensor, "h w"]:
        """Pixels (145, 145) of this split's blocks that lie in no patch of another split, labelled or not.

        Fit unmixing and statistics on ``load_scene().image[:, train.area]``.
        """
        number = _SPLITS.index(self.split)
        area = self._cut.blocks == number
        for (r, c), s in zip(self._cut.corner, self._cut.split, strict=True):
            if s not in (number, -1):
                area[r : r + self.patch, c : c + self.patch] = False
        return torch.from_numpy(area)

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, i: int) -> dict[str, Any]:
        """One patch and its label."""
        r, c = self.corners[i].tolist()
        image = self._image[:, r : r + self.patch, c : c + self.patch].clone()
        sample = {"image": image, "label": torch.tensor(self.targets[i])}
        return sample if self.transforms is None else self.transforms(sample)

    def plot(self, sample: dict[str, Any], show_titles: bool = True, suptitle: str | None = None) -> Figure:
        """Show a sample in pseudo-RGB and some of its spectra, see `report.plot_sample`.

        Args:
            sample: of this data set; a ``"prediction"`` in it is named too.
            show_titles: show class names.
            suptitle: title of the figure.
        """
        return plot_sample(sample, self.wavelengths, self.classes if show_titles else None, suptitle)
