"""Training losses of the unmixing networks: reconstruction, spectral shape, smooth endmembers."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from ubf_augment.errors import ShapeError
from ubf_augment.spectra import Endmembers

_SMOOTH = (
    1e-4  # rad: below this, the angle is rounded off so that its slope at zero is zero instead of undefined
)


def charbonnier(x: Float[Tensor, "..."], y: Float[Tensor, "..."], eps: float = 1e-3) -> Float[Tensor, ""]:
    """Charbonnier loss, a smooth absolute error: mean of √((x − y)² + ε²).

    Source: Charbonnier et al. 1994, doi:10.1109/ICIP.1994.413553.

    Args:
        x: prediction, any shape.
        y: target of the same shape.
        eps: ε > 0; the loss is quadratic below it, and ε itself where x = y.

    Returns:
        A scalar ≥ ε, differentiable everywhere.

    Raises:
        ShapeError: if the shapes differ.
        ValueError: if ``eps`` is not positive.

    >>> charbonnier(torch.tensor([0.0]), torch.tensor([3e-3]), eps=4e-3)
    tensor(0.0050)
    """
    _check_same(x, y)
    if not eps > 0:
        raise ValueError(f"eps must be positive, got {eps}")
    return ((x - y).square() + eps**2).sqrt().mean()


def spectral_angle(
    x: Float[Tensor, "b c ..."], y: Float[Tensor, "b c ..."], eps: float = 1e-2
) -> Float[Tensor, ""]:
    """Mean spectral angle in radians, with finite gradients everywhere.

    θ = 2 atan2(‖u − v‖, ‖u + v‖) for unit spectra u, v (Kahan's form of the arc cosine). Two things make it
    a loss:

    - At θ = 0, where the angle has a kink, it is rounded off over 1e-4 rad; values stay within 1e-4 rad of θ.
    - The direction of a spectrum near zero is noise, and its gradient grows as 1 / ‖x‖. A pixel is weighted
      by min(1, ‖x‖ / ε) · min(1, ‖y‖ / ε), held constant under differentiation: pixels above ε are not
      touched, a zero spectrum counts 0, and the gradient of one pixel never exceeds 2 / ε.

    Args:
        x: prediction (B, C, H, W) or (N, C), reflectance.
        y: target of the same shape.
        eps: norm ‖·‖ over the bands below which a spectrum counts less.

    Returns:
        A scalar in [0, π]: the mean over all pixels.

    Raises:
        ShapeError: if the shapes differ or there is no band axis 1.
        ValueError: if ``eps`` is not positive.

    >>> spectral_angle(torch.tensor([[1.0, 0.0]]), torch.tensor([[2.0, 2.0]]))
    tensor(0.7853)
    >>> x = torch.zeros(1, 2, requires_grad=True)
    >>> spectral_angle(x, torch.ones(1, 2)).backward()
    >>> bool(torch.isfinite(x.grad).all())
    True
    """
    _check_same(x, y)
    if x.ndim < 2:
        raise ShapeError(f"spectra must be (N, C) or (B, C, H, W), got {tuple(x.shape)}")
    if not eps > 0:
        raise ValueError(f"eps must be positive, got {eps}")
    dtype = torch.promote_types(torch.promote_types(x.dtype, y.dtype), torch.float32)
    x, y = x.to(dtype), y.to(dtype)
    x_norm, y_norm = _norm(x), _norm(y)
    weight = ((x_norm / eps).clamp(max=1) * (y_norm / eps).clamp(max=1)).detach().squeeze(1)
    u, v = x / x_norm, y / y_norm
    opposite = ((u - v).square().sum(1) + _SMOOTH**2).sqrt() - _SMOOTH
    along = ((u + v).square().sum(1) + _SMOOTH**2).sqrt()
    return (weight * 2 * torch.atan2(opposite, along)).mean()


def endmember_tv(E: Endmembers | Float[Tensor, "p c"]) -> Float[Tensor, ""]:
    """Total variation of endmember spectra: Σₚ 1/(C − 1) Σ_c (E[p, c+1] − E[p, c])².

    The squared differences between neighbouring bands are averaged over the bands of one endmember, so the
    value does not grow with the number of bands, and summed over the P endmembers. Neighbours count alike
    however far apart their wavelengths are.

    Args:
        E: endmembers (P, C), C ≥ 2, reflectance.

    Returns:
        A scalar ≥ 0; zero for flat spectra.

    Raises:
        ShapeError: if ``E`` is not (P, C) with at least two bands.

    >>> endmember_tv(torch.tensor([[0.0, 0.1, 0.4], [0.5, 0.5, 0.5]]))
    tensor(0.0500)
    """
    spectra = E.spectra if isinstance(E, Endmembers) else E
    if spectra.ndim != 2 or spectra.shape[1] < 2:
        raise ShapeError(
            f"endmembers must be (P, C) with at least two bands, got shape {tuple(spectra.shape)}"
        )
    return spectra.diff(dim=1).square().mean(1).sum()


def _norm(x: Tensor) -> Tensor:
    """Norm over axis 1; the tiny offset only keeps its gradient at zero finite."""
    return (x.square().sum(1, keepdim=True) + 1e-24).sqrt()


def _check_same(x: Tensor, y: Tensor) -> None:
    if x.shape != y.shape:
        raise ShapeError(
            f"the prediction has shape {tuple(x.shape)}, the target {tuple(y.shape)}: they must be equal"
        )
    if x.numel() == 0:
        raise ShapeError(f"the loss of nothing is not defined: got shape {tuple(x.shape)}")
