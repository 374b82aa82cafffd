"""Can the endmembers reproduce a source at all? Brightness of the materials and gamut coverage."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from ubf_augment.errors import ShapeError
from ubf_augment.metrics import spectral_angles
from ubf_augment.mixing import mix
from ubf_augment.unmixing.solver import fcls, nnls


def scale_materials(
    spectra: Float[Tensor, "p c"],
    pixels: Float[Tensor, "n c"],
    rgb: Float[Tensor, "m 3"] | None = None,
    rgb_index: tuple[int, ...] | None = None,
    quantile: float = 0.99,
) -> Float[Tensor, "p c"]:
    """Make each material as bright as the sources need it, the last endmember being shade (zero).

    With shade the abundances of the materials carry brightness, so each spectrum may be scaled freely: x = Σ aₘEₘ with
    Σ aₘ ≤ 1. Material m is scaled by the given quantile of its non-negative coefficient over the pixels that hold it (so that a
    rare material stays as bright as it is), then all materials by one factor, so that the coefficients of that share of all
    pixels sum to at most one. A material that no pixel holds keeps its brightness.

    Args:
        spectra: (P, C), last row zero.
        pixels: reflectance of HSI pixels (N, C).
        rgb: reflectance of RGB pixels (M, 3).
        rgb_index: the bands of red, green, blue.
        quantile: share of pixels that must be reachable.

    Returns:
        Scaled spectra (P, C).

    Raises:
        ValueError: if the last endmember is not zero.

    >>> E = torch.tensor([[0.1, 0.2], [0.0, 0.0]])
    >>> scaled = scale_materials(E, torch.tensor([[0.2, 0.4], [0.1, 0.2]]), quantile=1.0)
    >>> [round(v, 3) for v in scaled.flatten().tolist()]
    [0.2, 0.4, 0.0, 0.0]
    """
    if bool(spectra[-1].any()):
        raise ValueError("the last endmember must be shade (zero reflectance): append it with with_shade")
    materials = spectra[:-1].double()
    parts = [_coefficients(materials, pixels)]
    if rgb is not None and rgb_index is not None:
        parts.append(_coefficients(materials[:, list(rgb_index)], rgb))
    factor = torch.stack([torch.stack([_bright(c, quantile) for c in p.T]) for p in parts]).amax(0)
    factor = torch.where(factor > 0, factor, torch.ones_like(factor))
    total = torch.stack([(p / factor).sum(1).quantile(quantile) for p in parts]).max().clamp_min(1.0)
    scaled = materials * (factor * total)[:, None]
    return torch.cat([scaled.to(spectra.dtype), spectra[-1:]])


def _bright(coefficients: Tensor, quantile: float) -> Tensor:
    present = coefficients[coefficients > 0.01]
    return present.quantile(quantile) if len(present) else coefficients.new_zeros(())


def _coefficients(materials: Tensor, pixels: Tensor) -> Tensor:
    x = pixels[:: max(1, len(pixels) // 50_000)].double()
    gram = materials @ materials.T
    ridge = 1e-4 * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    return nnls(gram + ridge, x @ materials.T)


def gamut_report(
    rgb: Float[Tensor, "n 3 h w"], endmembers_rgb: Float[Tensor, "p 3"], tolerance: float = 0.05
) -> dict[str, float]:
    """How well the best possible abundances reproduce RGB pictures.

    Args:
        rgb: reflectance (N, 3, H, W).
        endmembers_rgb: E at red, green, blue (P, 3).
        tolerance: relative error ‖r̂ − r‖ / ‖r‖ up to which a pixel counts as covered.

    Returns:
        ``coverage`` (share of pixels covered), ``relative_error`` (Σ‖r̂ − r‖ / Σ‖r‖), ``angle`` (mean spectral angle, degrees).

    >>> report = gamut_report(torch.full((1, 3, 2, 2), 0.2), torch.tensor([[0.4, 0.4, 0.4], [0.0, 0.0, 0.0]]))
    >>> round(report["coverage"], 3), report["relative_error"] < 1e-4
    (1.0, True)
    """
    made = mix(fcls(rgb, endmembers_rgb), endmembers_rgb)
    return reproduction(made, rgb, tolerance)


def reproduction(
    made: Float[Tensor, "n c h w"], true: Float[Tensor, "n c h w"], tolerance: float = 0.05
) -> dict[str, float]:
    """Relative error, spectral angle and share of pixels within ``tolerance`` of images against the true ones.

    A black pixel has neither a relative error nor an angle: below ‖x‖ = 0.01 the tolerance is that of ‖x‖ = 0.01, and pixels
    below 0.001 do not count for the angle.

    Raises:
        ShapeError: if the shapes differ or there is no pixel.

    >>> true = torch.tensor([[0.3, 0.3], [0.4, 0.0]]).view(1, 2, 1, 2)
    >>> made = torch.tensor([[0.3, 0.0], [0.4, 0.3]]).view(1, 2, 1, 2)
    >>> {k: round(v, 4) for k, v in reproduction(made, true).items()}
    {'coverage': 0.5, 'relative_error': 0.5303, 'angle': 45.0}
    """
    if made.shape != true.shape or true.numel() == 0:
        raise ShapeError(
            f"images of equal shape, not empty, expected: {tuple(made.shape)}, {tuple(true.shape)}"
        )
    error, norm = (made - true).norm(dim=1), true.norm(dim=1)
    lit = norm > 1e-3
    angle = spectral_angles(made, true)[lit].mean() if lit.any() else torch.zeros(())
    return {
        "coverage": float((error <= tolerance * norm.clamp_min(0.01)).float().mean()),
        "relative_error": float(error.sum() / norm.sum().clamp_min(1e-3 * norm.numel())),
        "angle": float(angle),
    }
