"""Endmember initialisation: vertex component analysis, then non-negative refinement by alternating least squares."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from ubf_augment.errors import NoDataError, ShapeError
from ubf_augment.unmixing.solver import nnls, solve_qp


def vca(pixels: Float[Tensor, "n c"], count: int, *, seed: int = 0) -> Float[Tensor, "p c"]:
    """Vertex component analysis: the pixels that span the largest simplex, found by orthogonal projections.

    Args:
        pixels: reflectance (N, C), N ≥ ``count``.
        count: number of endmembers P ≥ 1.
        seed: seeds the random projection directions.

    Returns:
        (P, C) spectra, each one a pixel of the (denoised) data, clamped at zero.

    Raises:
        ShapeError: if there are fewer pixels or bands than endmembers.
        NoDataError: if a pixel is NaN or infinite.

    Source: Nascimento and Bioucas-Dias 2005, doi:10.1109/TGRS.2005.844293.

    >>> E = torch.eye(3)
    >>> a = torch.distributions.Dirichlet(torch.ones(3)).sample((200,))
    >>> found = vca(torch.cat([a @ E, E]), 3)
    >>> bool(torch.allclose(found.sum(0), torch.ones(3), atol=1e-4))
    True
    """
    if pixels.ndim != 2 or len(pixels) < count or count < 1:
        raise ShapeError(f"VCA needs pixels (N, C) with N ≥ {count}, got {tuple(pixels.shape)}")
    if count > pixels.shape[1]:
        raise ShapeError(
            f"VCA finds at most one endmember per band: {count} asked for {pixels.shape[1]} bands"
        )
    _check_finite(pixels)
    y = pixels.double()
    mean = y.mean(0)
    _, _, basis = torch.linalg.svd(torch.cov((y - mean).T))
    basis = basis[:count]
    denoised = (y - mean) @ basis.T @ basis + mean
    # Projective projection: divide by the mean direction so that brightness variation does not hide vertices.
    _, _, direct = torch.linalg.svd(y.T @ y / len(y))
    z = y @ direct[:count].T
    along = (z @ z.mean(0) / z.mean(0).square().sum().clamp_min(1e-12))[:, None]
    # Pixels under 1% of the mean brightness are noise once they are divided by it: they cannot be vertices.
    z = torch.where(along > 0.01, z / along.clamp_min(0.01), 0.0)
    generator = torch.Generator().manual_seed(seed)
    chosen: list[int] = []
    vertices = torch.zeros(z.shape[1], count, dtype=torch.float64)
    vertices[-1, 0] = 1
    for i in range(count):
        w = torch.randn(z.shape[1], 1, generator=generator, dtype=torch.float64)
        f = w - vertices @ (torch.linalg.pinv(vertices) @ w)
        chosen.append(int((z @ (f / f.norm().clamp_min(1e-12))).abs().argmax()))
        vertices[:, i] = z[chosen[-1]]
    found: Tensor = denoised[chosen].clamp_min(0).to(pixels.dtype)
    return found


def refine(
    pixels: Float[Tensor, "n c"],
    spectra: Float[Tensor, "p c"],
    *,
    shade: bool = False,
    iterations: int = 50,
    pull: float = 0.0,
) -> Float[Tensor, "p c"]:
    """Refine endmembers by alternating exact least squares: abundances on the simplex, spectra non-negative.

    minimises Σₙ ‖xₙ − Eᵀaₙ‖² + pull · N/P · Σₚ ‖Eₚ − x̄‖², the second term keeping the simplex small
    (Berman et al. 2004, doi:10.1109/TGRS.2004.835299). Each alternation starts from spectra extrapolated along the last change
    and falls back to the plain ones where that did not lower the objective, which never ends above its start (Ang and Gillis
    2019, doi:10.1162/neco_a_01157); 50 such alternations do more than 600 plain ones.

    Args:
        pixels: reflectance (N, C).
        spectra: start (P, C); with ``shade`` the last row is zero and stays zero.
        shade: keep the last endmember at zero reflectance.
        iterations: number of alternations.
        pull: weight of the volume term, 0 for none.

    Returns:
        Refined spectra (P, C).

    Raises:
        ShapeError: if pixels and spectra do not have the same bands.
        NoDataError: if a pixel is NaN or infinite.
        ValueError: if ``shade`` is asked for and the last spectrum is not zero.

    >>> E = torch.tensor([[0.5, 0.1, 0.2], [0.1, 0.4, 0.3]])
    >>> a = torch.rand(300, 1, generator=torch.Generator().manual_seed(0))
    >>> x = torch.cat([a, 1 - a], 1) @ E
    >>> out = refine(x, E + 0.05)
    >>> a2 = solve_qp((out @ out.T).double(), (x @ out.T).double(), sum_to_one=True).float()
    >>> bool((a2 @ out - x).abs().max() < 2e-3)
    True
    """
    if pixels.ndim != 2 or spectra.ndim != 2 or pixels.shape[1] != spectra.shape[1]:
        raise ShapeError(
            f"pixels (N, C) and spectra (P, C) expected, got {tuple(pixels.shape)}, {tuple(spectra.shape)}"
        )
    if shade and bool(spectra[-1].any()):
        raise ValueError("with shade=True the last spectrum must be zero: append it with with_shade")
    _check_finite(pixels)
    x, e = pixels.double(), spectra.double().clone()
    free = len(e) - 1 if shade else len(e)
    weight, beta, last, tried = pull * len(x) / free, 0.5, torch.inf, e

    def objective(a: Tensor, spectra: Tensor) -> float:
        volume = (spectra[:free] - x.mean(0)).square().sum()
        return float((x - a @ spectra).square().sum() + weight * volume)

    for _ in range(iterations):
        a = _abundances(x, tried)
        if objective(a, tried) > last:
            beta, tried = beta / 2, e
            a = _abundances(x, e)
        else:
            beta = min(1.1 * beta, 0.97)
        # The last term is proximal: an endmember that no pixel holds stays where it is.
        gram = a[:, :free].T @ a[:, :free] + (weight + 1e-6 * len(x)) * torch.eye(
            free, dtype=x.dtype, device=x.device
        )
        rhs = x.T @ a[:, :free] + weight * x.mean(0)[:, None] + 1e-6 * len(x) * tried[:free].T
        new = torch.cat([nnls(gram, rhs).T, e[free:]])
        last = objective(a, new)
        tried, e = (new + beta * (new - e)).clamp_min(0), new
    return e.to(pixels.dtype)


def _abundances(x: Tensor, e: Tensor) -> Tensor:
    """Best abundances of pixels (N, C) under spectra (P, C)."""
    ridge = 1e-9 * e.square().sum(1).mean().clamp_min(1e-12)
    gram = e @ e.T + ridge * torch.eye(len(e), dtype=x.dtype, device=x.device)
    return solve_qp(gram, x @ e.T + ridge / len(e), sum_to_one=True)


def _check_finite(pixels: Tensor) -> None:
    if not torch.isfinite(pixels).all():
        bad = int((~torch.isfinite(pixels)).any(1).sum())
        raise NoDataError(f"{bad} pixels hold NaN or infinite values: leave them out")


def with_shade(spectra: Float[Tensor, "p c"]) -> Float[Tensor, "p+1 c"]:
    """Append the shade endmember, zero reflectance: the abundances of the materials then carry brightness.

    >>> with_shade(torch.ones(2, 3)).tolist()[-1]
    [0.0, 0.0, 0.0]
    """
    return torch.cat([spectra, torch.zeros_like(spectra[:1])])
