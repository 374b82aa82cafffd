"""A discrete distribution on the grid points of the simplex: counts per pixel that sum to ``levels``."""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from ubf_augment import simplex

LEVELS = 255
_SMALLEST_SCALE = 0.004  # of the log odds: a cell is at least 0.016 wide


def to_counts(a: Float[Tensor, "b p h w"], levels: int = LEVELS) -> Float[Tensor, "b p h w"]:
    """Round abundances to whole counts that sum to ``levels`` in each pixel, by the largest remainder.

    Every count is within one of levels·aₚ, and maps that were stored as counts come back unchanged. What the
    tolerance of `as_abundances` lets pass (negative abundances, sums that are not one) is closed first.
    Method of Hamilton: Balinski & Young 1982, Fair Representation, chapter 3.

    Args:
        a: abundances.
        levels: N.

    Returns:
        Whole numbers, as floats.

    >>> to_counts(torch.tensor([0.5, 0.3, 0.2]).view(1, 3, 1, 1), levels=4).flatten().tolist()
    [2.0, 1.0, 1.0]
    """
    x = levels * simplex.closure(a.clamp_min(0))
    base = x.floor()
    missing = levels - base.sum(1, keepdim=True)
    rank = (x - base).argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    return base + (rank < missing)


class CountChain:
    """Counts n₁ … n_P ≥ 0 with Σ n = N, drawn one after the other from what is left (stick breaking).

    With M_k = N − n₁ − … − n_{k−1} left, endmember k < P gets n_k = ⌊(M_k + 1) x⌋, where the odds of x ∈ (0, 1)
    follow a mixture of J log-logistic distributions; the last endmember gets the rest. So

        P(n_k | M_k) = Σⱼ wⱼ [σ((b(n_k + 1) − μⱼ) / sⱼ) − σ((b(n_k) − μⱼ) / sⱼ)],   b(i) = log(i / (M_k + 1 − i)),

    with b(0) = −∞ and b(M + 1) = ∞. The differences telescope, so the probabilities of all grid points of the
    simplex sum to one exactly, without a normaliser, and exact zeros have a probability of their own.
    A Dirichlet-multinomial is never sharper than a multinomial with N draws, a deviation of up to 8 of 255
    counts per endmember; this chain can be as sharp as one count.

    Interval likelihood of a logistic mixture: Salimans et al. 2017, arXiv:1701.05517; compositions as chains of
    independent shares: Connor & Mosimann 1969, doi:10.1080/01621459.1969.10500963.

    Args:
        num_endmembers: P.
        mixtures: J.
        levels: N.
    """

    def __init__(self, num_endmembers: int, mixtures: int, levels: int = LEVELS) -> None:
        self.free, self.mixtures, self.levels = num_endmembers - 1, mixtures, levels
        nodes, weights = np.polynomial.legendre.leggauss(16)
        self._logits = [math.log((1 + u) / (1 - u)) for u in nodes]
        self._weights = [w / 2 for w in weights]

    @property
    def channels(self) -> int:
        """Parameters per pixel: 3 J (P − 1)."""
        return 3 * self.mixtures * self.free

    def _parts(self, raw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Locations, scales and log weights (B,J,P−1,H,W); zeros mean an even composition."""
        b, _, h, w = raw.shape
        location, scale, weight = raw.float().view(b, 3, self.mixtures, self.free, h, w).unbind(1)
        left = torch.arange(self.free, 0, -1, device=raw.device, dtype=torch.float32)
        spread = torch.linspace(-1, 1, self.mixtures + 2, device=raw.device)[1:-1]
        location = location - left.log().view(1, 1, -1, 1, 1) + spread.view(1, -1, 1, 1, 1)
        return location, F.softplus(scale) + _SMALLEST_SCALE, F.log_softmax(weight, 1)

    def log_prob(self, raw: Float[Tensor, "b c h w"], n: Float[Tensor, "b p h w"]) -> Float[Tensor, "b h w"]:
        """Natural logarithm of each pixel's probability.

        Args:
            raw: the network's output.
            n: counts, see `to_counts`.
        """
        location, scale, weight = self._parts(raw)
        n = n[:, None]
        left = self.levels - n.cumsum(2)[:, :, :-1] + n[:, :, :-1]
        n = n[:, :, :-1]
        above, below = left - n, left - n + 1  # counts not taken: M − n for the upper edge, one more below
        first, last = n == 0, above == 0
        high = ((n + 1) / above.clamp_min(1)).log()
        low = (n.clamp_min(1) / below).log()
        # σ(b) − σ(a) = σ(b) σ(−a) (1 − exp(a − b)), in logarithms; an open end leaves its factor out
        upper = F.logsigmoid((high - location) / scale).masked_fill(last, 0.0)
        lower = F.logsigmoid((location - low) / scale).masked_fill(first, 0.0)
        width = torch.where(first | last, torch.ones_like(high), high - low)
        inside = (-torch.expm1(-width / scale)).log().masked_fill(first | last, 0.0)
        return torch.logsumexp(weight + upper + lower + inside, 1).sum(1)

    def mean(self, raw: Float[Tensor, "b c h w"]) -> Float[Tensor, "b p h w"]:
        """Give the expected abundances, to within about half a count.

        E[n_k | M_k] by Gauss-Legendre quadrature over quantiles, of max(0, min(M, (M + 1) x − ½)), with the
        expected remainder for M_k: smooth in the parameters, and on the simplex without rounding.
        """
        location, scale, weight = self._parts(raw)
        left = torch.full_like(location[:, 0, 0], float(self.levels))
        out = []
        for k in range(self.free):
            mean = torch.zeros_like(left)
            for logit, share in zip(self._logits, self._weights, strict=True):
                x = torch.sigmoid(location[:, :, k] + scale[:, :, k] * logit)
                taken = torch.minimum(((left + 1)[:, None] * x - 0.5).clamp_min(0), left[:, None])
                mean = mean + share * (weight[:, :, k].exp() * taken).sum(1)
            out.append(mean)
            left = (left - mean).clamp_min(0)
        return torch.stack([*out, left], 1) / self.levels

    def draw(self, raw: Float[Tensor, "b c h w"], u: Float[Tensor, "b 2 f h w"]) -> Float[Tensor, "b p h w"]:
        """Draw abundances, whole counts over N, from uniform numbers (mixture choice, quantile)."""
        location, scale, weight = self._parts(raw)
        left = torch.full_like(location[:, 0, 0], float(self.levels))
        out = []
        for k in range(self.free):
            steps = weight[:, :-1, k].exp().cumsum(1)
            chosen = (u[:, :1, k] >= steps).sum(1, keepdim=True)
            x = torch.sigmoid(
                location[:, :, k].gather(1, chosen) + scale[:, :, k].gather(1, chosen) * u[:, 1:, k].logit()
            )[:, 0]
            taken = torch.minimum(((left + 1) * x).floor(), left)
            out.append(taken)
            left = left - taken
        return torch.stack([*out, left], 1) / self.levels
