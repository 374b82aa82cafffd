"""Is a generated sample a copy of a training image?"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional as F

from ubf_augment.errors import ShapeError
from ubf_augment.metrics._sets import rows


@dataclass(frozen=True, eq=False)
class Memorisation:
    """How near samples come to training images, beside how near other real images come; see `memorisation`.

    Attributes:
        distances: (N,) from each sample to the nearest training image.
        nearest: (N,) index of that training image.
        symmetry: (N,) the symmetry of the sample that is nearest: bit 0 left-right, bit 1 up-down, bit 2 transpose after them.
        ratio: (N,) distance to the nearest over distance to the second nearest training image.
        held_out_distances: (H,) as ``distances``, of held-out real images.
        held_out_ratio: (H,) as ``ratio``, of held-out real images.
        training_distances: (T,) from training images to their nearest other training image.
        threshold: a sample whose distance is below it counts as a near copy.
        ratio_threshold: so does one whose ratio is below it.
        quantile: largest share of new real images expected below the thresholds.
    """

    distances: Float[Tensor, " n"]
    nearest: Int64[Tensor, " n"]
    symmetry: Int64[Tensor, " n"]
    ratio: Float[Tensor, " n"]
    held_out_distances: Float[Tensor, " h"]
    held_out_ratio: Float[Tensor, " h"]
    training_distances: Float[Tensor, " t"]
    threshold: float
    ratio_threshold: float
    quantile: float

    @cached_property
    def copies(self) -> Bool[Tensor, " n"]:
        """(N,) True for a near copy."""
        return (self.distances < self.threshold) | (self.ratio < self.ratio_threshold)

    @property
    def share(self) -> float:
        """Share of near copies among the samples, to compare with ``quantile``."""
        return float(self.copies.double().mean())


def memorisation(
    samples: Float[Tensor, "n ..."],
    training: Float[Tensor, "t ..."],
    *,
    held_out: Float[Tensor, "h ..."],
    features: Callable[[Tensor], Tensor] | None = None,
    symmetries: bool = True,
    quantile: float = 0.02,
    size: int = 16,
    training_queries: int = 500,
) -> Memorisation:
    """Nearest-neighbour check: is a sample a copy of a training image?

    For each sample: d₁ and d₂, its distances to the nearest and the second nearest training image. A copy has a small d₁, and
    above all a small d₁ / d₂ (Yoon et al. 2023); a bland scene has a small d₁ too, but many neighbours. How small is too small is
    read off *real* images that were not trained on: each threshold is the order statistic of the held-out values that a new
    real image undercuts with a probability of at most ``quantile`` / 2, so that at most a share ``quantile`` of new real images
    would count as copies. That holds if the held-out images are of the same kind as the training images and show other
    scenes: overlapping crops on both sides blind the check. ``training_distances`` should look like
    ``held_out_distances``.

    Distances are root mean square differences (abundance or reflectance) of images averaged to ``size`` × ``size``
    pixels, where noise and shifts by a pixel hide no copy; or Euclidean distances of ``features``. A training that
    flips and turns its images can reproduce them flipped and turned: each query is compared in its 8 symmetries (4 for
    rectangles), of which the nearest counts.

    Source: Yoon et al. 2023, "Diffusion probabilistic models generalize when they fail to memorize"; for the thresholds Vovk
    et al. 2005, doi:10.1007/b106715 (conformal prediction).

    Args:
        samples: generated images (N, C, H, W), or features (N, D) with ``symmetries=False``.
        training: all images that the generator was trained on (T, C, H, W) or (T, D).
        held_out: real images that it was not trained on (H, C, H, W) or (H, D), at least 2 / quantile − 1.
        features: images (B, C, H, W) → feature vectors (B, D); None for the images themselves.
        symmetries: compare flipped and turned copies too.
        quantile: share of new real images that may be taken for copies.
        size: pixels per side to which images are averaged where ``features`` is None.
        training_queries: how many training images, evenly spread, to compare with the others.

    Returns:
        `Memorisation`; everything on the CPU.

    Raises:
        ShapeError: if shapes differ, or there are too few images, or features are given with ``symmetries``.
        NoDataError: if images are not finite.
        ValueError: if an option is out of range, or a held-out image is itself a training image.

    >>> x = torch.rand(120, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    >>> found = memorisation(torch.stack([x[3].flip(-1), x[119]]), x[:10], held_out=x[10:115])
    >>> found.copies.tolist(), int(found.nearest[0]), int(found.symmetry[0])
    ([True, False], 3, 1)
    """
    order = _order(len(held_out), quantile)
    embed, ops = _embedding(samples, training, held_out, features, symmetries, size)
    reference = torch.cat([embed(part) for part in torch.split(training, 256)])
    if len(reference) < 3:
        raise ShapeError(f"{len(reference)} training images are too few: each needs two neighbours")
    own = torch.linspace(0, len(training) - 1, min(training_queries, len(training))).round().long()
    made, real, inside = (
        _nearest(queries, reference, embed, ops, itself)
        for queries, itself in ((samples, None), (held_out, None), (training[own.to(training.device)], own))
    )
    threshold = float(real.distances.kthvalue(order).values)
    if threshold <= 1e-6 * float(inside.distances.median()):
        raise ValueError(
            f"held-out image {int(real.distances.argmin())} is a copy of training image "
            f"{int(real.nearest[real.distances.argmin()])}: remove such images from held_out, or no copy can be recognised"
        )
    return Memorisation(
        made.distances, made.nearest, made.symmetry, made.ratio, real.distances, real.ratio, inside.distances,
        threshold, float(real.ratio.kthvalue(order).values), quantile,
    )  # fmt: skip


def _order(held_out: int, quantile: float) -> int:
    """Which of the sorted held-out values a new one undercuts with probability ≤ quantile / 2: rank / (H + 1)."""
    if not 0 < quantile < 1:
        raise ValueError(f"quantile must lie between 0 and 1, got {quantile}")
    rank = math.floor(quantile / 2 * (held_out + 1) + 1e-9)
    if rank < 1:
        raise ShapeError(
            f"{held_out} held-out images cannot show what happens once in {2 / quantile:.0f}: give at least "
            f"{math.ceil(2 / quantile - 1 - 1e-9)}, or a larger quantile"
        )
    return rank


def _embedding(
    samples: Tensor,
    training: Tensor,
    held_out: Tensor,
    features: Callable[[Tensor], Tensor] | None,
    symmetries: bool,
    size: int,
) -> tuple[Callable[[Tensor], Tensor], range]:
    """Images → checked vectors, and the symmetries to try."""
    shapes = {tuple(x.shape[1:]) for x in (samples, training, held_out)}
    if len(shapes) > 1 or samples.ndim not in (2, 4) or not len(samples):
        raise ShapeError(
            f"samples {tuple(samples.shape)}, training {tuple(training.shape)} and held_out {tuple(held_out.shape)} must all be "
            "images (N, C, H, W) or all features (N, D), of equal shape"
        )
    if samples.ndim == 2:
        if symmetries or features is not None:
            raise ShapeError(
                "feature vectors cannot be flipped: give images and features=…, or symmetries=False"
            )
        return lambda x: rows(x, "the features").cpu(), range(1)
    if size < 1:
        raise ValueError(f"size must be at least 1, got {size}")
    h, w = samples.shape[2:]
    ops = range((8 if h == w else 4) if symmetries else 1)
    if features is not None:
        return lambda x: rows(features(x), "the features").cpu(), ops
    small = (min(size, h), min(size, w))

    def pixels(x: Tensor) -> Tensor:
        flat = F.adaptive_avg_pool2d(x.detach().double(), small).flatten(1)
        vectors: Tensor = rows(flat, "the images").cpu() / flat.shape[1] ** 0.5
        return vectors

    return pixels, ops


@dataclass(frozen=True, eq=False)
class _Neighbours:
    distances: Tensor
    nearest: Tensor
    symmetry: Tensor
    ratio: Tensor


def _nearest(
    queries: Tensor,
    reference: Tensor,
    embed: Callable[[Tensor], Tensor],
    ops: range,
    itself: Tensor | None,
) -> _Neighbours:
    """The two nearest rows of the reference to each query in any symmetry; query i is not compared with row ``itself[i]``."""
    mean = reference.mean(0)
    reference = reference - mean
    found: list[tuple[Tensor, ...]] = []
    for start in range(0, len(queries), 128):
        part = queries[start : start + 128]
        best = torch.full((len(part), len(reference)), torch.inf, dtype=torch.float64)
        which = torch.zeros_like(best, dtype=torch.int64)
        for op in ops:
            d = torch.cdist(embed(_turned(part, op)) - mean, reference, compute_mode="use_mm_for_euclid_dist")
            which[d < best] = op
            best = torch.minimum(best, d)
        if itself is not None:
            best[torch.arange(len(part)), itself[start : start + 128]] = torch.inf
        two, index = best.topk(2, dim=1, largest=False)
        ratio = two[:, 0] / two[:, 1].clamp_min(torch.finfo(torch.float64).tiny)
        found.append((two[:, 0], index[:, 0], which.gather(1, index[:, :1])[:, 0], ratio))
    return _Neighbours(*(torch.cat(values) for values in zip(*found, strict=True)))


def _turned(x: Tensor, op: int) -> Tensor:
    """One of the 8 symmetries of the square: bit 0 left-right, bit 1 up-down, bit 2 transpose."""
    if op & 1:
        x = x.flip(-1)
    if op & 2:
        x = x.flip(-2)
    return x.transpose(-1, -2) if op & 4 else x
