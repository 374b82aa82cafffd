"""What the metrics between two sets share: checked feature matrices, and distances block by block."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ubf_augment.errors import NoDataError, ShapeError

_BLOCK = 1 << 23  # distances held at a time: 64 MiB in double precision


def rows(x: Tensor, name: str, least: int = 1) -> Tensor:
    """A matrix (N, D) in double precision, after checking that it can be used."""
    if x.ndim != 2:
        raise ShapeError(f"{name} must be (N, D), one row each, got shape {tuple(x.shape)}")
    if len(x) < least or x.shape[1] == 0:
        raise ShapeError(
            f"{name} of shape {tuple(x.shape)} are too few: at least {least} rows and one column are needed"
        )
    x = x.detach().double()
    if not bool(torch.isfinite(x).all()):
        bad = int((~torch.isfinite(x)).any(1).sum())
        raise NoDataError(f"{name} hold NaN or infinite values in {bad} of {len(x)} rows: drop these images")
    return x


def pair(real: Tensor, made: Tensor, least: int = 1, what: str = "features") -> tuple[Tensor, Tensor]:
    """Both sets as `rows`, of equal dimension and on the device of the first."""
    real, made = rows(real, f"the real {what}", least), rows(made, f"the made {what}", least)
    if real.shape[1] != made.shape[1]:
        raise ShapeError(
            f"real {what} of {real.shape[1]} columns cannot be compared with made {what} of {made.shape[1]}: use one "
            "network (or one sensor) for both"
        )
    return real, made.to(real.device)


def centred(real: Tensor, made: Tensor) -> tuple[Tensor, Tensor]:
    """Both sets about the mean of the first, so that distances keep their digits."""
    mean = real.mean(0)
    return real - mean, made - mean


def blocks(x: Tensor, y: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Euclidean distances of some rows of x to all rows of y at a time: (rows, (b, M))."""
    step = max(1, _BLOCK // len(y))
    for start in range(0, len(x), step):
        part = slice(start, min(start + step, len(x)))
        yield part, torch.cdist(x[part], y, compute_mode="use_mm_for_euclid_dist")


def set_self(distances: Tensor, part: slice, value: float) -> Tensor:
    """Set the distance of each row to itself (in place), for rows ``part`` of one set against that set."""
    row = torch.arange(len(distances), device=distances.device)
    distances[row, row + part.start] = value
    return distances
