"""Stratified, seeded splits: the same rows on every machine."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Int64
from torch import Tensor

from ubf_augment.errors import LabelError
from ubf_augment.seeding import derive_seed


def shuffled(y: Int64[Tensor, " n"], classes: int, seed: int) -> list[Tensor]:
    """The rows of each class in random order.

    >>> [sorted(rows.tolist()) for rows in shuffled(torch.tensor([0, 1, 0]), 2, seed=0)]
    [[0, 2], [1]]
    """
    rows = [(y == k).nonzero()[:, 0] for k in range(classes)]
    return [
        r[torch.randperm(len(r), generator=torch.Generator().manual_seed(derive_seed(seed, k)))]
        for k, r in enumerate(rows)
    ]


def portions(counts: Int64[Tensor, " k"], total: int) -> list[int]:
    """``total`` shared out in proportion to ``counts``, by largest remainders; 1 to n − 1 of each class.

    Raises:
        LabelError: if a class has fewer than two images.
        ValueError: if ``total`` is less than one or more than n − 1 of each class.

    >>> portions(torch.tensor([10, 30]), 20)
    [5, 15]
    """
    if int(counts.min()) < 2:
        raise LabelError(f"every class needs two images or more, one has {int(counts.min())}")
    if not len(counts) <= total <= int(counts.sum()) - len(counts):
        raise ValueError(
            f"{total} of {int(counts.sum())} images leave too few: each of {len(counts)} classes must stand on both sides"
        )
    exact = total * counts.double() / counts.sum()
    found = exact.floor().clamp_min(1).minimum(counts - 1.0)
    while (step := total - int(found.sum())) != 0:
        room = found < counts - 1 if step > 0 else found > 1
        gap = (exact - found) * (1 if step > 0 else -1)
        found[gap.where(room, -torch.inf).argmax()] += 1 if step > 0 else -1
    return [int(n) for n in found]


def stratified(targets: Sequence[int], size: int, seed: int) -> tuple[list[int], list[int]]:
    """``size`` rows chosen at random, of each class its share, and the others; both ascending.

    Raises:
        LabelError, ValueError: as `portions`.

    >>> chosen, rest = stratified([0, 0, 0, 0, 1, 1, 1, 1], 4, seed=0)
    >>> [sum(i < 4 for i in chosen), sorted(chosen + rest) == list(range(8))]
    [2, True]
    """
    y = torch.tensor(targets)
    counts = torch.bincount(y)
    pairs = zip(shuffled(y, len(counts), seed), portions(counts, size), strict=True)
    chosen = sorted(int(i) for rows, n in pairs for i in rows[:n])
    inside = set(chosen)
    return chosen, [i for i in range(len(targets)) if i not in inside]
