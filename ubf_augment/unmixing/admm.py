"""Fast approximate fully constrained least squares, for use inside a training step."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from ubf_augment import simplex
from ubf_augment.precision import full_precision
from ubf_augment.spectra import Endmembers
from ubf_augment.unmixing.consensus import Consensus
from ubf_augment.unmixing.solver import check_image, unit_endmembers

_PENALTY, _PENALTY_PRIOR = 0.02, 0.1


@torch.no_grad()
def sunsal(
    x: Float[Tensor, "b c h w"],
    E: Endmembers | Float[Tensor, "p c"],
    *,
    prior_weight: float = 0.0,
    iterations: int = 30,
) -> Float[Tensor, "b p h w"]:
    """Approximate the abundances of `fcls` by a fixed number of ADMM iterations in single precision.

    Minimises ‖x − Eᵀa‖² with Σₚ aₚ = 1 in a and a ≥ 0 in a copy of a, which are drawn together; over-relaxed by 1.6. The result
    is projected on the simplex, so ANC and ASC hold after any number of iterations. How near it comes depends on how different
    the endmembers are: 30 iterations leave a mean error in abundance of 3·10⁻⁵ on EuroSAT (P = 8, bright materials), 3·10⁻⁴
    and 2·10⁻³ on mixtures of the packaged bundles' endmembers, and 0.015 on EuroSAT with the dark extremes that VCA finds;
    some 5 to 20 times faster than `fcls`. Meant for what keeps the image's residual, which holds what is left over.

    Args:
        x: reflectance (B, C, H, W).
        E: endmembers (P, C) on the same bands.
        prior_weight: λ of `fcls`, the pull towards equal abundances.
        iterations: ≥ 1.

    Returns:
        Abundances (B, P, H, W), a ≥ 0 and Σₚ aₚ = 1.

    Raises:
        ShapeError, BandCountError, NoDataError: as `fcls`.
        ValueError: if there is no iteration, or ``prior_weight`` is negative.

    Source: Bioucas-Dias and Figueiredo 2010, doi:10.1109/WHISPERS.2010.5594963.

    >>> E = torch.tensor([[0.4, 0.1, 0.1], [0.1, 0.1, 0.5]])
    >>> x = (0.3 * E[0] + 0.7 * E[1]).view(1, 3, 1, 1)
    >>> [round(v, 4) for v in sunsal(x, E).flatten().tolist()]
    [0.3, 0.7]
    """
    if iterations < 1 or not prior_weight >= 0:
        raise ValueError(f"iterations ≥ 1 and prior_weight ≥ 0 expected, got {iterations} and {prior_weight}")
    e, readout = unit_endmembers(E, x.device)
    check_image(x, e.shape[1])
    b, c, h, w = x.shape
    # Under the sum constraint a pull towards equal abundances is a pull towards zero.
    gram = e @ e.T + max(prior_weight, 1e-6) * torch.eye(len(e), dtype=e.dtype, device=e.device)
    admm = Consensus(gram, _PENALTY_PRIOR if prior_weight else _PENALTY)
    with full_precision(x):
        base = torch.matmul((admm.keep_sum @ readout).float(), x.reshape(b, c, h * w).float())
        copy = admm.run(base, iterations)
    return simplex.project(copy.view(b, len(e), h, w)).to(x.dtype)
