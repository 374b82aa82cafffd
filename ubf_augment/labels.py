"""Class labels: the user's classes matched by name with a synthesizer's, checks, and which class to draw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor

from ubf_augment.errors import LabelError, ShapeError, UnknownClassError


@dataclass(frozen=True)
class ClassIndex:
    """The user's classes in label order, and where each stands in the synthesizer.

    Attributes:
        names: class names in label order; label k means ``names[k]``.
        source: (K,) int64, index of each class in the synthesizer, or -1 where the synthesizer does not know
            it.

    >>> index = ClassIndex.match(("Farmland", "Forest"), ["Forest", "Crop", "Sea"], {"Crop": "Farmland"})
    >>> index.source.tolist(), index.unknown
    ([1, 0, -1], ('Sea',))
    """

    names: tuple[str, ...]
    source: Tensor

    @classmethod
    def match(
        cls,
        known: Sequence[str],
        classes: Sequence[str] | None = None,
        class_map: Mapping[str, str] | None = None,
        strict: bool = False,
    ) -> ClassIndex:
        """Match the user's classes with the synthesizer's by exact name, or through ``class_map``.

        Args:
            known: the synthesizer's class names.
            classes: the user's class names in label order; if None, labels are the synthesizer's own indices.
            class_map: user's name → synthesizer's name, for those that differ.
            strict: raise if a class stays unmatched.

        Raises:
            UnknownClassError: if ``class_map`` names a class that does not exist, or (strict) one stays
                unmatched.
            ValueError: if ``class_map`` comes without ``classes``, or a name stands twice.
        """
        known = tuple(known)
        if classes is None:
            if class_map:
                raise ValueError(
                    "class_map needs classes=[…], the names of your classes in label order: without them a "
                    "label is only a number"
                )
            return cls(known, torch.arange(len(known)))
        names, mapping = tuple(str(c) for c in classes), dict(class_map or {})
        if len(set(names)) != len(names):
            twice = sorted({n for n in names if names.count(n) > 1})
            raise ValueError(f"these names stand twice in classes: {', '.join(twice)}")
        for mine, theirs in mapping.items():
            if mine not in names:
                raise UnknownClassError(
                    f"class_map has {mine!r}, which is not in classes{_hint(mine, names)}"
                )
            if theirs not in known:
                raise UnknownClassError(
                    f"class_map sends {mine!r} to {theirs!r}, not known here{_hint(theirs, known)}"
                )
        position = {name: i for i, name in enumerate(known)}
        index = cls(
            names, torch.tensor([position.get(mapping.get(n, n), -1) for n in names], dtype=torch.int64)
        )
        if strict and index.unknown:
            raise UnknownClassError(
                f"the synthesizer does not know {', '.join(index.unknown)}{_hint(index.unknown[0], known)}. "
                "Give class_map={'your class': 'its class'}, or strict=False to leave these classes real"
            )
        return index

    @property
    def num_classes(self) -> int:
        """K, the number of the user's classes."""
        return len(self.names)

    @property
    def unknown(self) -> tuple[str, ...]:
        """The user's classes that the synthesizer does not know."""
        return tuple(n for n, s in zip(self.names, self.source.tolist(), strict=True) if s < 0)


def _hint(name: str, known: Sequence[str]) -> str:
    close = get_close_matches(name, known, n=1)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; it has {', '.join(known)}" if known else "; it has no classes"


def check_labels(y: Shaped[Tensor, "..."], batch: int, num_classes: int) -> Shaped[Tensor, "b *k"]:
    """Check labels of a batch and return them on the CPU: int64 (B,), or soft labels float64 (B, K).

    Args:
        y: class indices (B,), or class probabilities (B, K) that sum to one.
        batch: B.
        num_classes: K.

    Raises:
        ShapeError: if there is not one label per image.
        LabelError: if a label is out of range, or a soft label is no probability distribution over K classes.

    >>> check_labels(torch.tensor([0, 2]), 2, 3).tolist()
    [0, 2]
    >>> check_labels(torch.tensor([0, 3]), 2, 3)
    Traceback (most recent call last):
    ...
    ubf_augment.errors.LabelError: label 3 at position 1 is outside 0..2: give classes=[…] if your data set \
has other classes than the synthesizer
    """
    if y.ndim not in (1, 2) or len(y) != batch:
        raise ShapeError(
            f"labels of shape {tuple(y.shape)} for {batch} images: give ({batch},) or ({batch}, classes)"
        )
    if y.ndim == 2:
        return _check_soft(y, num_classes)
    if y.is_floating_point() or y.dtype == torch.bool or y.is_complex():
        raise LabelError(f"labels of shape {tuple(y.shape)} must be integers, got {y.dtype}: use y.long()")
    hard = y.detach().to("cpu", torch.int64)
    bad = (hard < 0) | (hard >= num_classes)
    if bad.any():
        i = int(bad.nonzero()[0])
        raise LabelError(
            f"label {int(hard[i])} at position {i} is outside 0..{num_classes - 1}: give classes=[…] if your "
            "data set has other classes than the synthesizer"
        )
    return hard


def read_labels(y: object, batch: int, num_classes: int) -> Shaped[Tensor, "b *k"]:
    """`check_labels` of whatever was given; without classes (K = 0) labels only say what belongs together.

    Raises:
        TypeError: if it is no tensor.
    """
    if not isinstance(y, Tensor):
        raise TypeError(f"labels must be a tensor, got {type(y).__name__}")
    if not num_classes and y.numel():
        num_classes = y.shape[1] if y.ndim == 2 else int(y.max()) + 1
    return check_labels(y, batch, num_classes)


def _check_soft(y: Tensor, num_classes: int) -> Tensor:
    if not y.is_floating_point():
        raise LabelError(
            f"labels of shape {tuple(y.shape)} and type {y.dtype} look like multi-label targets: give class "
            "indices (B,), or class probabilities (B, K) as floats"
        )
    if y.shape[1] != num_classes:
        raise LabelError(f"soft labels over {y.shape[1]} classes, but there are {num_classes}")
    tolerance = 1e-4 if y.dtype in (torch.float32, torch.float64) else 2e-2
    soft = y.detach().to("cpu", torch.float64)
    bad = ~torch.isfinite(soft).all(1) | (soft < 0).any(1) | ((soft.sum(1) - 1).abs() > tolerance)
    if bad.any():
        i = int(bad.nonzero()[0])
        raise LabelError(f"the soft label at position {i} is no probability distribution: {soft[i].tolist()}")
    return soft


def draw_labels(y: Shaped[Tensor, "b *k"], generator: torch.Generator) -> Int64[Tensor, " b"]:
    """One class per image: hard labels as they are, soft labels drawn, P(class = k) = y[k].

    A soft label is read as the probability that the image is of each class, so drawing keeps it calibrated.

    Args:
        y: what `check_labels` returned.
        generator: on the CPU.
    """
    if y.ndim == 1:
        return y
    return torch.multinomial(y, 1, generator=generator)[:, 0] if len(y) else torch.zeros(0, dtype=torch.int64)


def same_label(y: Shaped[Tensor, "b *k"]) -> Shaped[Tensor, "b b"]:
    """(B, B) bool: which pairs have the same label (equal index, or equal soft label); False on the diagonal.

    >>> same_label(torch.tensor([1, 1, 2])).nonzero().tolist()
    [[0, 1], [1, 0]]
    """
    if y.ndim == 2:
        y = torch.unique(y, dim=0, return_inverse=True)[1] if len(y) else y.sum(1)
    return (y[:, None] == y[None]) & ~torch.eye(len(y), dtype=torch.bool)


def fill_up(
    counts: Float[Tensor, " k"], n: int, allowed: Shaped[Tensor, " k"], generator: torch.Generator
) -> list[int]:
    """Draw ``n`` classes so that the counts even out: each goes to the rarest allowed class, ties at random.

    Args:
        counts: (K,) what is there already; increased in place.
        n: number of classes to draw.
        allowed: (K,) bool, classes that may be drawn.
        generator: on the CPU.

    >>> counts = torch.tensor([3.0, 0.0, 1.0])
    >>> sorted(fill_up(counts, 5, torch.ones(3, dtype=torch.bool), torch.Generator()))
    [1, 1, 1, 2, 2]
    >>> counts.tolist()
    [3.0, 3.0, 3.0]
    """
    candidates = allowed.nonzero()[:, 0]
    drawn = []
    for _ in range(n):
        order = candidates[torch.randperm(len(candidates), generator=generator)]
        k = int(order[counts[order].argmin()])
        counts[k] += 1
        drawn.append(k)
    return drawn


def relabel(
    y: Shaped[Tensor, "b *k"], classes: Int64[Tensor, " b"], changed: Shaped[Tensor, " b"]
) -> Shaped[Tensor, "b *k"]:
    """Set the labels of the ``changed`` rows to ``classes``, as indices or as one-hot rows like y itself.

    >>> y = torch.tensor([[0.5, 0.5], [1, 0]])
    >>> relabel(y, torch.tensor([1, 1]), torch.tensor([False, True])).tolist()
    [[0.5, 0.5], [0.0, 1.0]]
    """
    classes, changed = classes.to(y.device), changed.to(y.device)
    if y.ndim == 1:
        return torch.where(changed, classes.to(y.dtype), y)
    one_hot = torch.zeros_like(y).scatter_(1, classes[:, None], 1)
    return torch.where(changed[:, None], one_hot, y)


class LabelPolicy:
    """Which class a synthetic scene is drawn from.

    Args:
        labels: ``"keep"`` the label of the image it stands for, ``"balance"`` the class counts, or (K,) class
            probabilities.
        index: the user's classes.
        can: for each strategy that draws scenes from a class, (K,) bool: the classes it knows.

    Attributes:
        mode: ``"keep"``, ``"balance"`` or ``"draw"``.
        counts: (K,) labels seen so far, for ``"balance"``.

    Raises:
        ValueError: if ``labels`` is none of these, or no strategy draws scenes from a class.
        UnknownClassError: if a class with a probability cannot be drawn.
    """

    def __init__(
        self, labels: str | Tensor | Sequence[float], index: ClassIndex, can: Mapping[str, Tensor]
    ) -> None:
        self.mode = labels if isinstance(labels, str) else "draw"
        self.counts = torch.zeros(index.num_classes, dtype=torch.float64)
        self.probabilities: Tensor | None = None
        if isinstance(labels, str) and labels not in ("keep", "balance"):
            raise ValueError(f"labels must be 'keep', 'balance' or class probabilities, got {labels!r}")
        if self.mode != "keep" and not can:
            raise ValueError(
                f"labels={labels!r} needs strategy 'generate' or 'bank': the others keep an image's own label"
            )
        if isinstance(labels, str):
            return
        self.probabilities = p = torch.as_tensor(labels, dtype=torch.float64).cpu()
        if p.shape != self.counts.shape:
            raise ValueError(
                f"labels has shape {tuple(p.shape)}: give {len(self.counts)} class probabilities"
            )
        if not (p >= 0).all() or not 0 < float(p.sum()) < float("inf"):
            raise ValueError("class probabilities must be finite, ≥ 0 and not all zero")
        for strategy, known in can.items():
            if bad := ((p > 0) & ~known).nonzero()[:, 0].tolist():
                names = ", ".join(index.names[k] for k in bad)
                raise UnknownClassError(
                    f"labels gives a probability to {names}, which {strategy!r} cannot make"
                )

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Own what is written to, as `sources.Pool`."""
        self.__dict__.update(state)
        self.counts = self.counts.clone()

    def count(self, classes: Int64[Tensor, " n"]) -> None:
        """Take note of images that keep their label."""
        self.counts += torch.bincount(classes, minlength=len(self.counts))

    def draw(self, n: int, can: Shaped[Tensor, " k"], generator: torch.Generator) -> Int64[Tensor, " n"]:
        """Classes of ``n`` scenes."""
        if not n:
            return torch.zeros(0, dtype=torch.int64)
        if self.probabilities is None:
            return torch.tensor(fill_up(self.counts, n, can, generator), dtype=torch.int64)
        return torch.multinomial(self.probabilities, n, replacement=True, generator=generator)
