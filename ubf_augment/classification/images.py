"""Labelled images as tensors, and splits of a training side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from ubf_augment.errors import LabelError, NoDataError, ShapeError
from ubf_augment.spectra import Wavelengths, check_wavelengths

_ORDERS = 32


@dataclass(frozen=True)
class LabelledImages:
    """Images of one size with one class each.

    Attributes:
        x: reflectance (N, C, H, W).
        y: labels (N,), int64, indices into ``classes``.
        classes: K names.
        wavelengths: band centres (C,) in nm.

    Raises:
        ShapeError: if images, labels and wavelengths do not fit each other.
        LabelError: if a label has no class.
    """

    x: Float[Tensor, "n c h w"]
    y: Int64[Tensor, " n"]
    classes: tuple[str, ...]
    wavelengths: Float[Tensor, " c"]

    def __post_init__(self) -> None:
        if self.x.ndim != 4 or len(self.x) != len(self.y) or len(self.wavelengths) != self.x.shape[1]:
            raise ShapeError(
                f"images (N, C, H, W), N labels and C wavelengths expected, got {tuple(self.x.shape)}, "
                f"{tuple(self.y.shape)}, {len(self.wavelengths)}"
            )
        if len(self.y) and not 0 <= int(self.y.min()) <= int(self.y.max()) < len(self.classes):
            raise LabelError(
                f"labels run from {int(self.y.min())} to {int(self.y.max())}, but there are {len(self.classes)} classes"
            )

    def __len__(self) -> int:
        return len(self.y)

    def subset(self, rows: Int64[Tensor, " m"] | Bool[Tensor, " n"]) -> LabelledImages:
        """Some of the images, with all classes."""
        return LabelledImages(self.x[rows], self.y[rows], self.classes, self.wavelengths)


def read_images(data: Any, wavelengths: Wavelengths, classes: Sequence[str] | None = None) -> LabelledImages:
    """Read a whole data set into memory.

    Args:
        data: items ``{"image": (C, H, W) reflectance, "label": int}`` of one size, with ``len``; or pairs (image, label).
        wavelengths: band centres in nm.
        classes: names in label order; the data set's ``classes`` by default.

    Raises:
        NoDataError: if it is empty.
        LabelError: if there are no class names, or a label has none.
        ShapeError: if images differ in size.
    """
    items = [data[i] for i in range(len(data))]
    if not items:
        raise NoDataError("the data set is empty")
    names = classes if classes is not None else getattr(data, "classes", None)
    if names is None:
        raise LabelError("the data set has no classes: give classes=… in label order")
    pairs = [(v["image"], v["label"]) if isinstance(v, dict) else (v[0], v[1]) for v in items]
    sizes = {tuple(image.shape) for image, _ in pairs}
    if len(sizes) > 1:
        raise ShapeError(f"images of one size are needed, got {', '.join(map(str, sorted(sizes)[:3]))}")
    x = torch.stack([torch.as_tensor(image, dtype=torch.float32) for image, _ in pairs])
    y = torch.tensor([int(label) for _, label in pairs])
    return LabelledImages(x, y, tuple(names), check_wavelengths(wavelengths, x.shape[1], "the images"))


def inner_split(
    labels: Int64[Tensor, " n"], groups: Int64[Tensor, " n"], seed: int, share: float = 0.25
) -> tuple[Int64[Tensor, " f"], Int64[Tensor, " v"]]:
    """Split a training side into rows to fit on and rows to choose on.

    Whole groups are drawn for the validation side until it has about ``share`` of every class, and at least one image of
    each class that has two; every class stays on the fit side. Where there are fewer than 1 / ``share`` groups, one that can be
    spared and holds at most half of the images, drawn by the seed, is the validation side (the smallest, if all hold more).

    Args:
        labels: (N,) int64.
        groups: (N,) int64, images of one group share pixels or a place; rows of group −1 are on neither side.
        seed: of the draw.
        share: of the images.

    Returns:
        Rows to fit on and rows of the validation side, ascending.

    Raises:
        ValueError: if ``share`` is not within (0, 1), or no group can be left out without losing a class.
        ShapeError: if there is not one group per label.

    >>> fit, validation = inner_split(torch.tensor([0, 0, 0, 0, 1, 1, 1, 1]), torch.arange(8), seed=0)
    >>> len(fit), len(validation)
    (6, 2)
    """
    if not 0 < share < 1:
        raise ValueError(f"share must be within (0, 1), got {share}")
    if labels.shape != groups.shape:
        raise ShapeError(f"{tuple(labels.shape)} labels and {tuple(groups.shape)} groups")
    y, g = labels.cpu().numpy(), groups.cpu().numpy()
    classes = np.unique(y, return_inverse=True)[1]
    ids, index = np.unique(g[g >= 0], return_inverse=True)
    table = np.zeros(
        (len(ids), int(classes.max(initial=-1)) + 1), np.int64
    )  # images of each class in each group
    np.add.at(table, (index, classes[g >= 0]), 1)
    total = table.sum(0)
    spare = [i for i in range(len(ids)) if bool((total - table[i] >= 1).all())]
    if not spare:
        raise ValueError(
            f"no inner split of {len(y)} images in {len(ids)} groups: each group holds all images of some class, so none can "
            "be left out. More images per class or smaller groups are needed"
        )
    wanted = np.where(total > 1, np.maximum(np.rint(share * total), 1), 0).astype(np.int64)
    if len(ids) < 1 / share:
        small = [i for i in spare if 2 * table[i].sum() <= table.sum()]
        chosen = [small[seed % len(small)] if small else min(spare, key=lambda i: int(table[i].sum()))]
    else:
        rng = np.random.default_rng(seed)
        chosen = _draw_groups(table, wanted, rng) or [min(spare, key=lambda i: _miss(table[i], wanted))]
    held = np.isin(g, ids[chosen])
    return torch.from_numpy(np.flatnonzero(~held & (g >= 0))), torch.from_numpy(np.flatnonzero(held))


def _draw_groups(table: Any, wanted: Any, rng: np.random.Generator) -> list[int]:
    """Groups that come near the wanted numbers of each class and leave every class elsewhere; best of some orders."""
    best: list[int] = []
    for _ in range(_ORDERS):
        chosen, found, left = [], np.zeros_like(wanted), table.sum(0)
        for i in rng.permutation(len(table)).tolist():
            helps = _miss(found + table[i], wanted) < _miss(found, wanted)
            if helps and bool((left - table[i] >= 1).all()):
                chosen.append(i)
                found, left = found + table[i], left - table[i]
        if not best or _miss(found, wanted) < _miss(table[best].sum(0), wanted):
            best = chosen
        if best and _miss(table[best].sum(0), wanted) == 0:
            break
    return best


def _miss(found: Any, wanted: Any) -> int:
    return int(np.abs(found - wanted).sum())
