"""Alternating directions for least squares on the simplex: the iterations of `sunsal`, and the start of `fcls`."""

from __future__ import annotations

import torch
from torch import Tensor

_RELAXATION = 1.6


class Consensus:
    """ADMM for argmin ½ aᵀGa − rᵀa with Σₚ aₚ = 1 in a and a ≥ 0 in a copy of a, which are drawn together.

    Args:
        gram: G (P, P) in double precision, positive definite.
        penalty: weight of the distance between a and its copy, in units of the mean of G's diagonal.

    Source: Bioucas-Dias and Figueiredo 2010, doi:10.1109/WHISPERS.2010.5594963.
    """

    def __init__(self, gram: Tensor, penalty: float) -> None:
        weight = penalty * gram.diagonal().mean().clamp_min(1e-12)
        inverse = torch.linalg.inv(gram + weight * torch.eye(len(gram), dtype=gram.dtype, device=gram.device))
        ones = inverse.sum(1)
        self.keep_sum = inverse - ones[:, None] * ones / ones.sum()
        """(P, P): what a linear term changes in a, Σₚ aₚ staying as it is."""
        self._centre = (ones / ones.sum()).float()[:, None]
        self._pull = (self.keep_sum * weight).float()

    def run(self, base: Tensor, iterations: int) -> Tensor:
        """Iterate in single precision.

        Args:
            base: ``keep_sum`` · r (…, P, N); it is written into.
            iterations: their number.

        Returns:
            The copy of a (…, P, N), ≥ 0; near the simplex, not on it.
        """
        base = base.add_(self._centre)
        copy = base.clamp_min(0)
        dual = base - copy
        for _ in range(iterations):
            a = torch.matmul(self._pull, copy - dual).add_(base)
            dual.add_(a, alpha=_RELAXATION).add_(copy, alpha=1 - _RELAXATION)
            copy = dual.clamp_min(0)
            dual.sub_(copy)
        return copy
