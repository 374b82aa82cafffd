"""Distances between a set of real and a set of generated images, on feature matrices (one row per image).

All are functions of two matrices (N, D) and (M, D) from the *same* feature network (`FeatureNetwork`), computed in double
precision on the device of the real ones. Their values depend on the network and on N and M: compare numbers only at equal
counts, and look at real against real first, which tells what "no difference" looks like.
"""

from __future__ import annotations

import warnings

import torch
from jaxtyping import Float
from torch import Tensor

from ubf_augment.metrics._sets import blocks, centred, pair, rows, set_self

_TOUCH = 1e-7  # relative to the extent of the real set: a point this near to a sphere lies on it, whatever the rounding


def rank_deficient(real: Float[Tensor, "n d"], made: Float[Tensor, "m d"]) -> bool:
    """Tell whether a covariance of these features cannot have full rank: N ≤ D or M ≤ D.

    >>> rank_deficient(torch.zeros(100, 8), torch.zeros(8, 8))
    True
    """
    return min(len(real), len(made)) <= real.shape[1]


def frechet_distance(real: Float[Tensor, "n d"], made: Float[Tensor, "m d"]) -> Float[Tensor, ""]:
    """Fréchet distance between Gaussians of the means and covariances of two feature sets.

    d² = ‖μ − μ′‖² + tr Σ + tr Σ′ − 2 tr (ΣΣ′)^½, with the unbiased covariances (divisor N − 1). The last trace is the sum
    of the singular values of X X′ᵀ / √((N−1)(M−1)), X and X′ being the centred features (or their QR factors): these are
    the square roots of the eigenvalues of Σ^½ Σ′ Σ^½, but real, non-negative, and found without squaring anything.

    It is called FID only on Inception features. Finite sets overestimate it, the more the smaller they are (Chong and
    Forsyth 2020, arXiv:1911.07023); with N ≤ D the covariances are singular and a ``UserWarning`` says so.

    Source: Dowson and Landau 1982, doi:10.1016/0047-259X(82)90077-X; Heusel et al. 2017, arXiv:1706.08500.

    Args:
        real: features of real images (N, D), N ≥ 2.
        made: features of generated images (M, D), M ≥ 2.

    Returns:
        d² ≥ 0, a float64 scalar in squared units of the features; 0 is best (rounding below 0 counts as 0).

    Raises:
        ShapeError: if a set has fewer than two rows, or the dimensions differ.
        NoDataError: if features are not finite.

    >>> x = torch.randn(100, 2, generator=torch.Generator().manual_seed(0))
    >>> round(float(frechet_distance(x, x + torch.tensor([3.0, 4.0]))), 4)
    25.0
    """
    if rank_deficient(*pair(real, made, 2)):
        warnings.warn(
            f"{len(real)} real and {len(made)} made images for {real.shape[1]} features: the covariances are rank deficient "
            "and the Fréchet distance is far too large. Use more images than features, or compare only with values at "
            "these counts; kernel_distance has no such bias",
            UserWarning,
            stacklevel=2,
        )
    return _frechet(real, made)


def _frechet(real: Tensor, made: Tensor) -> Tensor:
    real, made = pair(real, made, 2)
    (mean, a), (mean_made, b) = _moments(real), _moments(made)
    cross = torch.linalg.svdvals(a @ b.T).sum()
    squared = (mean - mean_made).square().sum() + a.square().sum() + b.square().sum() - 2 * cross
    return torch.clamp_min(squared, 0)


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """The mean, and a factor A of the covariance AᵀA with at most D rows."""
    mean = x.mean(0)
    factor = (x - mean) / (len(x) - 1) ** 0.5
    return mean, torch.linalg.qr(factor, mode="r").R if len(x) > x.shape[1] else factor


def kernel_distance(
    real: Float[Tensor, "n d"],
    made: Float[Tensor, "m d"],
    *,
    subsets: int | None = None,
    subset_size: int = 1000,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "*subsets"]:
    """Kernel distance: the unbiased estimate of the squared maximum mean discrepancy, kernel k(x, y) = (⟨x, y⟩ / D + 1)³.

    mean over i ≠ j of k(xᵢ, xⱼ) + mean over i ≠ j of k(x′ᵢ, x′ⱼ) − 2 · mean of k(xᵢ, x′ⱼ). Unbiased for every N and M, so 0
    is expected for two sets of one distribution, and small negative values occur. It is called KID only on Inception
    features.

    Source: Bińkowski et al. 2018, arXiv:1801.01401.

    Args:
        real: features of real images (N, D), N ≥ 2.
        made: features of generated images (M, D), M ≥ 2.
        subsets: None for all images at once; a number for that many estimates from random subsets, as in the paper,
            whose mean and deviation can be reported.
        subset_size: images of each set in a subset, drawn without replacement.
        generator: draws the subsets; a fixed seed by default.

    Returns:
        A float64 scalar, or (subsets,).

    Raises:
        ShapeError: if a set has fewer than two rows or fewer than ``subset_size``, or the dimensions differ.
        NoDataError: if features are not finite.
        ValueError: if ``subsets`` or ``subset_size`` is too small.

    >>> x = torch.tensor([[1.0], [-1.0]])
    >>> float(kernel_distance(x, x))  # k(1, 1) = 8, k(1, −1) = 0
    -8.0
    """
    if subsets is None:
        return _mmd(*pair(real, made, 2))
    if subsets < 1 or subset_size < 2:
        raise ValueError(
            f"at least 1 subset of at least 2 images is needed, got {subsets} of {subset_size} images"
        )
    real, made = pair(real, made, subset_size)
    g = generator or torch.Generator().manual_seed(0)
    return torch.stack(
        [_mmd(_subset(real, subset_size, g), _subset(made, subset_size, g)) for _ in range(subsets)]
    )


def _subset(x: Tensor, count: int, generator: torch.Generator) -> Tensor:
    chosen = torch.randperm(len(x), generator=generator, device=generator.device)[:count]
    return x[chosen.to(x.device)]


def _mmd(x: Tensor, y: Tensor) -> Tensor:
    n, m = len(x), len(y)
    within_x = (_kernel_sum(x, x) - _kernel(x.square().sum(1), x.shape[1]).sum()) / (n * (n - 1))
    within_y = (_kernel_sum(y, y) - _kernel(y.square().sum(1), y.shape[1]).sum()) / (m * (m - 1))
    return within_x + within_y - 2 * _kernel_sum(x, y) / (n * m)


def _kernel(products: Tensor, dimension: int) -> Tensor:
    return (products / dimension + 1) ** 3


def _kernel_sum(x: Tensor, y: Tensor, rows_at_once: int = 1024) -> Tensor:
    return torch.stack([_kernel(part @ y.T, x.shape[1]).sum() for part in torch.split(x, rows_at_once)]).sum()


def precision_recall(
    real: Float[Tensor, "n d"], made: Float[Tensor, "m d"], k: int = 3
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Improved precision and recall: is what is made realistic, and is all that is real also made?

    Around every point of a set lies a ball that reaches to its k-th nearest neighbour in that set; the balls together are the
    set's manifold. Precision: the share of made points inside the manifold of the real ones. Recall: the share of real points
    inside the manifold of the made ones. A point on a sphere is inside.

    Source: Kynkäänniemi et al. 2019, arXiv:1904.06991.

    Args:
        real: features of real images (N, D), N > k.
        made: features of generated images (M, D), M > k.
        k: which neighbour; 3 in the paper.

    Returns:
        ``(precision, recall)``, float64 scalars in [0, 1], 1 is best.

    Raises:
        ShapeError: if a set has no more than k rows, or the dimensions differ.
        NoDataError: if features are not finite.
        ValueError: if k is below 1.

    >>> real, made = torch.tensor([[0.0], [1.0], [2.0], [3.0]]), torch.tensor([[0.5], [0.6], [9.0], [9.1]])
    >>> [float(v) for v in precision_recall(real, made, k=1)]
    [0.5, 0.0]
    """
    real, made, touch = _prepared(real, made, k, k + 1)
    precision = _balls(made, real, _radii(real, k) + touch) > 0
    recall = _balls(real, made, _radii(made, k) + touch) > 0
    return precision.double().mean(), recall.double().mean()


def density_coverage(
    real: Float[Tensor, "n d"], made: Float[Tensor, "m d"], k: int = 5
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Density and coverage: precision and recall that single outliers cannot spoil.

    With balls around the *real* points only, reaching to their k-th nearest real neighbour. Density: the number of balls
    that a made point lies in, on average, divided by k (about 1 if both sets have one distribution; it can exceed 1 where made
    points crowd). Coverage: the share of real points with a made point inside their ball.

    Source: Naeem et al. 2020, arXiv:2002.09797.

    Args:
        real: features of real images (N, D), N > k.
        made: features of generated images (M, D).
        k: which neighbour; 5 in the paper.

    Returns:
        ``(density, coverage)``, float64 scalars ≥ 0; coverage is at most 1.

    Raises:
        ShapeError: if there are no more than k real rows or no made ones, or the dimensions differ.
        NoDataError: if features are not finite.
        ValueError: if k is below 1.

    >>> real, made = torch.tensor([[0.0], [1.0], [2.0], [3.0]]), torch.tensor([[0.5], [0.6]])
    >>> [float(v) for v in density_coverage(real, made, k=1)]  # each in the balls of 0 and 1
    [2.0, 0.5]
    """
    real, made, touch = _prepared(real, made, k, 1)
    radii = _radii(real, k) + touch
    density = _balls(made, real, radii).double().mean() / k
    nearest = torch.cat([d.amin(1) for _, d in blocks(real, made)])
    return density, (nearest <= radii).double().mean()


def _prepared(real: Tensor, made: Tensor, k: int, least: int) -> tuple[Tensor, Tensor, Tensor]:
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    real, made = pair(rows(real, "the real features", k + 1), rows(made, "the made features", least))
    real, made = centred(real, made)
    return real, made, _TOUCH * real.norm(dim=1).amax()


def _radii(x: Tensor, k: int) -> Tensor:
    """Distance of each point to its k-th nearest other point of the set."""
    return torch.cat([set_self(d, part, torch.inf).kthvalue(k, dim=1).values for part, d in blocks(x, x)])


def _balls(points: Tensor, centres: Tensor, radii: Tensor) -> Tensor:
    """In how many balls each point lies."""
    return torch.cat([(d <= radii).sum(1) for _, d in blocks(points, centres)])


def mean_pairwise_distance(x: Float[Tensor, "n d"]) -> Float[Tensor, ""]:
    """Diversity of a set: the mean Euclidean distance between two different rows, in units of the features.

    A generator that repeats itself stays below the value of real images; noise exceeds it.

    Args:
        x: features (N, D), N ≥ 2.

    Returns:
        A float64 scalar ≥ 0.

    Raises:
        ShapeError: if there are fewer than two rows.
        NoDataError: if features are not finite.

    >>> float(mean_pairwise_distance(torch.tensor([[0.0, 0.0], [3.0, 4.0]])))
    5.0
    """
    x = rows(x, "the features", 2)
    x = x - x.mean(0)
    total = torch.stack([set_self(d, part, 0.0).sum() for part, d in blocks(x, x)]).sum()
    return total / (len(x) * (len(x) - 1))


def generation_report(
    real: Float[Tensor, "n d"], made: Float[Tensor, "m d"], *, features: str
) -> dict[str, str | int | float | bool]:
    """All the metrics of this module at their defaults, as plain numbers that can be written as JSON.

    Args:
        real: features of real images (N, D), N > 5.
        made: features of generated images (M, D), M > 3.
        features: name of the feature network (the ``name`` of a `FeatureNetwork`), kept with the numbers.

    Returns:
        ``features``, ``dimension``, ``real_count``, ``made_count``, ``rank_deficient`` (see `rank_deficient`: no warning
        here), ``frechet_distance``, ``kernel_distance``, ``precision``, ``recall``, ``density``, ``coverage``,
        ``real_pairwise_distance``, ``made_pairwise_distance``.

    Raises:
        ShapeError, NoDataError: as the metrics.

    >>> x = torch.randn(2, 50, 4, generator=torch.Generator().manual_seed(0))
    >>> report = generation_report(x[0], x[1], features="noise")
    >>> report["features"], report["rank_deficient"], report["precision"] > 0.8
    ('noise', False, True)
    """
    precision, recall = precision_recall(real, made)
    density, coverage = density_coverage(real, made)
    return {
        "features": features,
        "dimension": real.shape[1],
        "real_count": len(real),
        "made_count": len(made),
        "rank_deficient": rank_deficient(real, made),
        "frechet_distance": float(_frechet(real, made)),
        "kernel_distance": float(kernel_distance(real, made)),
        "precision": float(precision),
        "recall": float(recall),
        "density": float(density),
        "coverage": float(coverage),
        "real_pairwise_distance": float(mean_pairwise_distance(real)),
        "made_pairwise_distance": float(mean_pairwise_distance(made)),
    }
