"""Gaussian spectral responses, and resampling to other bands with them."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from ubf_augment.errors import BandCountError, WavelengthError
from ubf_augment.precision import full_precision
from ubf_augment.spectra.bands import Wavelengths, check_wavelengths


def spectral_response(
    source: Wavelengths, target: Wavelengths, fwhm: Wavelengths | float | None = None
) -> Tensor:
    """Response matrix R (C_target, C_source) that turns source spectra into target bands: x_target = R x_source.

    The source spectrum is taken as piecewise linear between its band centres and averaged under a Gaussian of the
    given full width at half maximum, σ = FWHM / (2 √(2 ln 2)), in closed form; beyond the outermost centres it is taken as
    constant. Every row is ≥ 0 and sums to one.

    Args:
        source: band centres of the source in nm.
        target: band centres wanted in nm.
        fwhm: widths of the target bands in nm; by default the spacing of the target bands.

    Raises:
        WavelengthError: if a target centre lies outside the source range by more than half a source step, or a width is
            not positive.
        BandCountError: if the number of widths is not that of the target bands.

    >>> spectral_response([400, 500, 600], [450], fwhm=1e-3).tolist()
    [[0.5, 0.5, 0.0]]
    """
    src = check_wavelengths(source, where="the source")
    dst = check_wavelengths(target, where="the target")
    _check_range(src, dst)
    if fwhm is None:
        width = torch.gradient(dst)[0] if dst.numel() > 1 else torch.full_like(dst, 10.0)
    else:
        width = check_widths(fwhm, dst.numel())
    if src.numel() == 1:
        return torch.ones(dst.numel(), 1)
    sigma = width[:, None] / 2.3548200450309493
    u = (src[None] - dst[:, None]) / sigma
    below = 0.5 * (1 + torch.erf(u / 2**0.5))
    density = torch.exp(-0.5 * u.square()) / (2 * torch.pi) ** 0.5
    # Between two centres the spectrum is a line: the mass there, and how much of it falls to the right-hand centre.
    mass = below.diff(dim=1)
    right = (-u[:, :-1] * mass - density.diff(dim=1)) * sigma / src.diff()
    right = torch.minimum(right.clamp_min(0), mass)
    response = torch.zeros(dst.numel(), src.numel(), dtype=torch.float64)
    response[:, 1:] += right
    response[:, :-1] += mass - right
    response[:, 0] += below[:, 0]
    response[:, -1] += 1 - below[:, -1]
    return response.float()


def check_widths(fwhm: Wavelengths | float, bands: int) -> Tensor:
    """Widths (C,) in nm of one number, or of one per band, after checking that they are positive."""
    width = torch.as_tensor(fwhm, dtype=torch.float64).detach().cpu()
    if width.ndim > 1 or (width.ndim == 1 and len(width) != bands):
        raise BandCountError(
            f"FWHM of shape {tuple(width.shape)} for {bands} bands: give one number, or one for each band"
        )
    if not bool((torch.isfinite(width) & (width > 0)).all()):
        raise WavelengthError("the FWHM of a band must be a positive number of nm")
    return width.expand(bands)


def _check_range(src: Tensor, dst: Tensor) -> None:
    steps = src.diff()
    low = float(src[0] - (steps[0] / 2 if steps.numel() else 5))
    high = float(src[-1] + (steps[-1] / 2 if steps.numel() else 5))
    outside = dst[(dst < low) | (dst > high)]
    if outside.numel():
        raise WavelengthError(
            f"{outside.numel()} of {dst.numel()} target bands ({float(outside.min()):g}–{float(outside.max()):g} nm) lie "
            f"outside the source range {float(src[0]):g}–{float(src[-1]):g} nm: drop them, or use "
            "HSISynthesizer.adapt, which estimates the spectra of a new sensor from its images"
        )


def resample(
    cube: Float[Tensor, "..."],
    source: Wavelengths,
    target: Wavelengths,
    fwhm: Wavelengths | float | None = None,
    dim: int = -3,
) -> Float[Tensor, "..."]:
    """Resample a cube (…, C, H, W) to other bands with `spectral_response`.

    Raises:
        BandCountError: if axis ``dim`` does not have one entry per source wavelength.
        WavelengthError: as `spectral_response`.

    >>> resample(torch.ones(3, 2, 2), [400, 500, 600], [450, 550]).shape
    torch.Size([2, 2, 2])
    """
    response = spectral_response(source, target, fwhm).to(cube.device, cube.dtype)
    if cube.shape[dim] != response.shape[1]:
        raise BandCountError(
            f"the cube has {cube.shape[dim]} bands, {response.shape[1]} wavelengths were given"
        )
    with full_precision(cube):
        resampled: Tensor = torch.tensordot(response, cube.movedim(dim, 0), dims=1)
    return resampled.movedim(0, dim)
