"""Image and spectral quality metrics, defined as in hyperspectral imaging papers. Pure functions of tensors.

Images are (B, C, H, W) reflectance; every metric is computed per image and then averaged over the batch
(``reduction="none"`` gives the per-image values). Spectral angles are in degrees.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from ubf_augment.errors import BandCountError, ShapeError
from ubf_augment.spectra import Endmembers

Reduction = Literal["mean", "none"]


def rmse(
    x: Float[Tensor, "b c h w"], y: Float[Tensor, "b c h w"], *, reduction: Reduction = "mean"
) -> Float[Tensor, "*batch"]:
    """Root mean square error per image: √(mean over bands and pixels of (x − y)²), in the units of the input.

    Args:
        x: images (B, C, H, W).
        y: reference images (B, C, H, W).
        reduction: ``"mean"`` over the batch, or ``"none"`` for (B,).

    Returns:
        A scalar, or (B,); ≥ 0, 0 is best.

    Raises:
        ShapeError: if the shapes differ or are not (B, C, H, W).

    >>> x = torch.zeros(1, 2, 1, 1)
    >>> rmse(x, torch.tensor([0.3, 0.4]).view(1, 2, 1, 1))
    tensor(0.3536)
    """
    x, y = _images(x, y)
    return _reduce((x - y).square().mean((1, 2, 3)).sqrt(), reduction)


def psnr(
    x: Float[Tensor, "b c h w"],
    y: Float[Tensor, "b c h w"],
    peak: float = 1.0,
    *,
    over: Literal["bands", "cube"] = "bands",
    reduction: Reduction = "mean",
) -> Float[Tensor, "*batch"]:
    """Peak signal-to-noise ratio in dB: 10 log₁₀(peak² / MSE).

    Hyperspectral papers report the mean over bands of each band's PSNR (MPSNR), the default here.
    ``over="cube"`` takes one MSE over all bands: −20 log₁₀(RMSE / peak), never above the mean over bands.

    Args:
        x: images (B, C, H, W).
        y: reference images (B, C, H, W).
        peak: the largest possible value: 1 for reflectance.
        over: ``"bands"`` or ``"cube"``.
        reduction: ``"mean"`` over the batch, or ``"none"`` for (B,).

    Returns:
        A scalar, or (B,); higher is better, infinite where a band (or the cube) is reproduced exactly.

    Raises:
        ShapeError: if the shapes differ or are not (B, C, H, W).
        ValueError: if ``peak`` is not positive.

    >>> x, y = torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 4, 4)
    >>> y[:, 0], y[:, 1] = 0.1, 0.01  # 20 dB and 40 dB
    >>> psnr(x, y), psnr(x, y, over="cube")
    (tensor(30.), tensor(22.9671))
    """
    x, y = _images(x, y)
    if not peak > 0:
        raise ValueError(f"peak must be positive, got {peak}")
    if over not in ("bands", "cube"):
        raise ValueError(f'over must be "bands" or "cube", got {over!r}')
    error = (x - y).square().mean((2, 3) if over == "bands" else (1, 2, 3))
    decibel = 10 * torch.log10(peak**2 / error)
    return _reduce(decibel.mean(1) if over == "bands" else decibel, reduction)


def ssim(
    x: Float[Tensor, "b c h w"],
    y: Float[Tensor, "b c h w"],
    peak: float = 1.0,
    *,
    reduction: Reduction = "mean",
) -> Float[Tensor, "*batch"]:
    """Structural similarity, averaged over bands and positions.

    SSIM = (2 μₓμᵧ + c₁)(2 σₓᵧ + c₂) / ((μₓ² + μᵧ² + c₁)(σₓ² + σᵧ² + c₂)) with c₁ = (0.01 peak)²,
    c₂ = (0.03 peak)² and means and (population) covariances under a Gaussian window of 11 × 11 pixels,
    σ = 1.5; only windows that lie wholly inside the image count. The same as scikit-image's with
    ``gaussian_weights=True, use_sample_covariance=False``.

    Source: Wang et al. 2004, doi:10.1109/TIP.2003.819861.

    Args:
        x: images (B, C, H, W), at least 11 × 11 pixels.
        y: reference images (B, C, H, W).
        peak: the largest possible value: 1 for reflectance.
        reduction: ``"mean"`` over the batch, or ``"none"`` for (B,).

    Returns:
        A scalar, or (B,); in [−1, 1], 1 is best.

    Raises:
        ShapeError: if the shapes differ, are not (B, C, H, W), or the images are smaller than the window.
        ValueError: if ``peak`` is not positive.

    >>> x = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    >>> ssim(x, x)
    tensor(1.)
    >>> bool(ssim(x, 1 - x) < 0)
    True
    """
    x, y = _images(x, y)
    if not peak > 0:
        raise ValueError(f"peak must be positive, got {peak}")
    if min(x.shape[2:]) < 11:
        raise ShapeError(f"SSIM needs images of at least 11 × 11 pixels, got {x.shape[2]} × {x.shape[3]}")
    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    # Moments about a common offset: variances do not change, and float32 keeps their small digits.
    centre = 0.5 * (x.mean((2, 3), keepdim=True) + y.mean((2, 3), keepdim=True))
    u, v = x - centre, y - centre
    mu, mv, uu, vv, uv = _window(torch.stack([u, v, u * u, v * v, u * v]))
    structure = (2 * (uv - mu * mv) + c2) / (uu - mu.square() + vv - mv.square() + c2)
    mu, mv = mu + centre, mv + centre
    luminance = (2 * mu * mv + c1) / (mu.square() + mv.square() + c1)
    return _reduce((luminance * structure).mean((1, 2, 3)), reduction)


def spectral_angles(x: Float[Tensor, "b c ..."], y: Float[Tensor, "b c ..."]) -> Float[Tensor, "b ..."]:
    """Angle between two spectra, per pixel, in degrees: arccos(⟨x, y⟩ / (‖x‖ ‖y‖)).

    Computed as 2 atan2(‖u − v‖, ‖u + v‖) with unit vectors u, v (Kahan), which, unlike the arc cosine, is
    exact at small angles in single precision. The angle to a zero spectrum is not defined: two zero spectra
    count as 0°, one as 90°.

    Args:
        x: images (B, C, H, W) or spectra (N, C).
        y: reference of the same shape.

    Returns:
        (B, H, W) or (N,), in [0, 180]; independent of the brightness of either spectrum.

    Raises:
        ShapeError: if the shapes differ or are neither (B, C, H, W) nor (N, C).

    >>> spectral_angles(torch.tensor([[1.0, 0.0], [0.2, 0.2]]), torch.tensor([[1.0, 1.0], [0.5, 0.5]]))
    tensor([45.,  0.])
    """
    if x.ndim != 2:
        x, y = _images(x, y)
    x, y = _same(x, y)
    u, x_zero = _unit(x)
    v, y_zero = _unit(y)
    angle = torch.rad2deg(2 * torch.atan2((u - v).norm(dim=1), (u + v).norm(dim=1)))
    angle = torch.where(x_zero ^ y_zero, torch.full_like(angle, 90.0), angle)
    return torch.where(x_zero & y_zero, torch.zeros_like(angle), angle)


def sad(
    x: Float[Tensor, "b c ..."], y: Float[Tensor, "b c ..."], *, reduction: Reduction = "mean"
) -> Float[Tensor, "*batch"]:
    """Spectral angle distance in degrees: the mean over pixels of `spectral_angles`.

    Source: Kruse et al. 1993, doi:10.1016/0034-4257(93)90013-N (spectral angle mapper).

    Args:
        x: images (B, C, H, W) or spectra (N, C).
        y: reference of the same shape.
        reduction: ``"mean"`` over the batch, or ``"none"`` for (B,) or (N,).

    Returns:
        A scalar, or one value per image or spectrum; in [0, 180], 0 is best.

    Raises:
        ShapeError: if the shapes differ or are neither (B, C, H, W) nor (N, C).

    >>> x = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1)
    >>> sad(x, torch.tensor([0.5, 0.5]).view(1, 2, 1, 1))
    tensor(45.)
    """
    angles = spectral_angles(x, y)
    return _reduce(angles.flatten(1).mean(1) if angles.ndim > 1 else angles, reduction)


def endmember_angles(
    E: Endmembers | Float[Tensor, "p c"], E_ref: Endmembers | Float[Tensor, "q c"]
) -> tuple[Float[Tensor, " q"], Int64[Tensor, " q"]]:
    """Spectral angles between matched endmembers, in degrees.

    Endmembers have no order, so each reference is matched to one estimate such that the sum of angles is
    smallest (Hungarian method, Kuhn 1955, doi:10.1002/nav.3800020109). Estimates left over (a shade
    endmember, say) stay unmatched.

    Args:
        E: estimated endmembers (P, C).
        E_ref: reference endmembers (Q, C), Q ≤ P, on the same wavelengths.

    Returns:
        ``(angles, permutation)``, each (Q,): ``angles[i]`` lies between ``E_ref[i]`` and
        ``E[permutation[i]]``.

    Raises:
        BandCountError: if the numbers of bands differ.
        ShapeError: if either is not (P, C) or there are fewer estimates than references.
        ValueError: if both carry wavelengths and these differ by more than 1 nm.

    >>> reference = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 1.0]])
    >>> angles, permutation = endmember_angles(2 * reference.flip(0), reference)
    >>> angles.tolist(), permutation.tolist()
    ([0.0, 0.0], [1, 0])
    """
    from scipy.optimize import linear_sum_assignment

    estimate, reference = _spectra(E), _spectra(E_ref)
    if estimate.shape[1] != reference.shape[1]:
        raise BandCountError(
            f"endmembers of {estimate.shape[1]} bands cannot be compared with a reference of "
            f"{reference.shape[1]} bands: bring one to the other's wavelengths with Endmembers.resample"
        )
    if isinstance(E, Endmembers) and isinstance(E_ref, Endmembers):
        shift = float((E.wavelengths - E_ref.wavelengths).abs().max())
        if shift > 1.0:
            raise ValueError(f"the wavelengths differ by up to {shift:.4g} nm: use Endmembers.resample first")
    p, q = len(estimate), len(reference)
    if p < q:
        raise ShapeError(f"{p} endmembers cannot be matched to {q} references: P must be at least Q")
    reference = reference.to(estimate)
    angles = spectral_angles(estimate.repeat(q, 1), reference.repeat_interleave(p, 0)).view(q, p)
    rows, columns = linear_sum_assignment(angles.detach().double().cpu().numpy())
    permutation = torch.as_tensor(columns, dtype=torch.int64, device=angles.device)
    return angles[torch.as_tensor(rows, device=angles.device), permutation], permutation


def _spectra(E: Endmembers | Tensor) -> Tensor:
    spectra = E.spectra if isinstance(E, Endmembers) else E
    if spectra.ndim != 2:
        raise ShapeError(f"endmembers must be (P, C), got shape {tuple(spectra.shape)}")
    return spectra


def _same(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Equal shapes, at least single precision."""
    if x.shape != y.shape:
        raise ShapeError(f"cannot compare shapes {tuple(x.shape)} and {tuple(y.shape)}: they must be equal")
    dtype = torch.promote_types(torch.promote_types(x.dtype, y.dtype), torch.float32)
    return x.to(dtype), y.to(dtype)


def _images(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    if x.ndim != 4:
        raise ShapeError(f"images must be (B, C, H, W), got {tuple(x.shape)}: add a batch axis with x[None]")
    if x.numel() == 0:
        raise ShapeError(f"nothing to compare: the images have shape {tuple(x.shape)}")
    return _same(x, y)


def _unit(x: Tensor) -> tuple[Tensor, Tensor]:
    """Unit vectors over axis 1, and where the vector is zero; scaled first, so that no square underflows."""
    largest = x.abs().amax(1, keepdim=True)
    zero = largest == 0
    scaled = x / torch.where(zero, torch.ones_like(largest), largest)
    length = scaled.norm(dim=1, keepdim=True)
    return scaled / torch.where(zero, torch.ones_like(length), length), zero.squeeze(1)


def _window(x: Tensor) -> Tensor:
    """Means under the 11 × 11 Gaussian window of σ = 1.5, over the last two axes, without padding."""
    offset = torch.arange(-5, 6, dtype=x.dtype, device=x.device)
    kernel = torch.exp(-0.5 * (offset / 1.5).square())
    kernel = kernel / kernel.sum()
    h, w = x.shape[-2:]
    flat = x.reshape(-1, 1, h, w)
    flat = F.conv2d(F.conv2d(flat, kernel.view(1, 1, -1, 1)), kernel.view(1, 1, 1, -1))
    return flat.view(*x.shape[:-2], h - 10, w - 10)


def _reduce(values: Tensor, reduction: str) -> Tensor:
    if reduction not in ("mean", "none"):
        raise ValueError(f'reduction must be "mean" or "none", got {reduction!r}')
    return values.mean() if reduction == "mean" else values
