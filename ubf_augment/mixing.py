"""The linear mixing model x = Σₚ aₚ Eₚ + ε: THE place where abundances become hyperspectral images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from ubf_augment.errors import BandCountError, NoDataError, ShapeError
from ubf_augment.seeding import Generators, randn
from ubf_augment.spectra import Endmembers


def mix(a: Float[Tensor, "b p h w"], E: Endmembers | Float[Tensor, "*batch p c"]) -> Float[Tensor, "b c h w"]:
    """Mix endmembers by their abundances: x[b, c, h, w] = Σₚ a[b, p, h, w] · E[p, c].

    Args:
        a: abundances (B, P, H, W).
        E: `Endmembers`, spectra (P, C), or one set of spectra per image (B, P, C); reflectance.

    Returns:
        Reflectance (B, C, H, W), differentiable in both arguments.

    Raises:
        ShapeError: if ``a`` is not (B, P, H, W) or the endmember counts differ.

    Source: Keshava and Mustard 2002, doi:10.1109/79.974727.

    >>> a = torch.tensor([0.25, 0.75]).view(1, 2, 1, 1)
    >>> mix(a, torch.tensor([[0.4, 0.0], [0.0, 0.4]])).flatten().tolist()
    [0.10000000149011612, 0.30000001192092896]
    """
    spectra = (E.spectra if isinstance(E, Endmembers) else E).to(a.device, a.dtype)
    if a.ndim != 4:
        raise ShapeError(
            f"abundances must be (B, P, H, W), got {tuple(a.shape)}: add a batch axis with a[None]"
        )
    if spectra.ndim not in (2, 3) or spectra.shape[-2] != a.shape[1]:
        raise ShapeError(f"{a.shape[1]} abundance maps for endmember spectra of shape {tuple(spectra.shape)}")
    if spectra.ndim == 3 and spectra.shape[0] != a.shape[0]:
        raise ShapeError(f"{spectra.shape[0]} sets of endmembers for a batch of {a.shape[0]}")
    b, p, h, w = a.shape
    if spectra.ndim == 2:
        return F.conv2d(a, spectra.T[:, :, None, None])
    return torch.bmm(spectra.transpose(1, 2), a.reshape(b, p, h * w)).view(b, spectra.shape[2], h, w)


@dataclass(frozen=True, eq=False)
class ResidualModel:
    """What the linear model leaves over: ε = μ + L z + d n, z smooth in space, n white.

    z has R independent unit-variance Gaussian fields of autocorrelation exp(−r² / (2 ℓ²)); n is white per pixel and band.

    Attributes:
        mean: μ (C,), reflectance.
        factors: L (C, R), reflectance; covariance of ε is L Lᵀ + diag(d²).
        noise_std: d (C,), reflectance.
        correlation_length: ℓ in pixels; 0 means white.
    """

    mean: Tensor
    factors: Tensor
    noise_std: Tensor
    correlation_length: float

    @classmethod
    def estimate(cls, residuals: Float[Tensor, "n c h w"] | Sequence[Tensor], rank: int = 8) -> ResidualModel:
        """Estimate the model from residuals x − mix(a, E) of training images.

        The mean and the top ``rank`` eigenvectors of the band covariance are kept, the variance left over becomes white
        noise, and ℓ follows from the lag-one autocorrelation ρ of the leading components, ρ = exp(−1 / (2 ℓ²)), ρ ≤ 0.995
        (ℓ ≤ 10 pixels).

        Args:
            residuals: (N, C, H, W), or a list of (C, H, W) of different sizes.
            rank: number of spatially correlated components, at most C.

        Raises:
            ShapeError: if there are fewer than two pixels.
            BandCountError: if the residuals differ in their number of bands.
            NoDataError: if a residual is NaN or infinite.

        >>> r = 0.01 * torch.randn(4, 5, 16, 16, generator=torch.Generator().manual_seed(0))
        >>> ResidualModel.estimate(r, rank=2).correlation_length < 0.5
        True
        """
        cubes = [r.detach().double() for r in residuals]
        if len(counts := sorted({len(c) for c in cubes})) > 1:
            raise BandCountError(
                f"residuals of {counts} bands cannot share one model: fit one for each sensor"
            )
        if not all(torch.isfinite(c).all() for c in cubes):
            raise NoDataError(
                "residuals hold NaN or infinite values: crop or fill nodata pixels before the fit"
            )
        pixels = torch.cat([c.flatten(1) for c in cubes], 1) if cubes else torch.zeros(1, 0)
        if pixels.shape[1] < 2:
            raise ShapeError("the residual model needs at least two pixels")
        mean = pixels.mean(1)
        covariance = torch.cov(pixels).reshape(len(pixels), len(pixels))
        values, vectors = torch.linalg.eigh(covariance)
        order = values.argsort(descending=True)[: min(rank, len(values))]
        top, basis = values[order].clamp_min(0), vectors[:, order]
        factors = basis * top.sqrt()
        left = (torch.diagonal(covariance) - factors.square().sum(1)).clamp_min(0)
        scores = [torch.einsum("cr,chw->rhw", basis, c - mean[:, None, None]) for c in cubes]
        return cls(mean.float(), factors.float(), left.sqrt().float(), _correlation_length(scores, top))

    def covariance(self) -> Float[Tensor, "c c"]:
        """Band covariance L Lᵀ + diag(d²) (C, C)."""
        return self.factors @ self.factors.T + torch.diag(self.noise_std.square())

    def sample(
        self,
        n: int,
        height: int,
        width: int,
        generator: Generators = None,
        device: torch.device | str | None = None,
    ) -> Float[Tensor, "n c h w"]:
        """Draw residual images (N, C, H, W) in reflectance.

        Args:
            n: number of images.
            height: rows.
            width: columns.
            generator: one, or one per image.
            device: by default the device of the model.

        >>> m = ResidualModel(torch.zeros(3), torch.eye(3)[:, :1] * 0.1, torch.zeros(3), 2.0)
        >>> m.sample(2, 8, 8, torch.Generator().manual_seed(0)).shape
        torch.Size([2, 3, 8, 8])
        """
        device = self.mean.device if device is None else device
        c, r = self.factors.shape
        margin = _radius(self.correlation_length)
        drawn = randn(
            (n, r * (height + 2 * margin) * (width + 2 * margin) + c * height * width), generator, device
        )
        split = drawn.shape[1] - c * height * width
        field = drawn[:, :split].view(n, r, height + 2 * margin, width + 2 * margin)
        smooth = _smooth(field, self.correlation_length, margin)
        white = drawn[:, split:].view(n, c, height, width)
        eps = torch.einsum("cr,nrhw->nchw", self.factors.to(device), smooth)
        return eps + white * self.noise_std.to(device)[:, None, None] + self.mean.to(device)[:, None, None]

    def to(self, device: torch.device | str) -> ResidualModel:
        """The same model on ``device``."""
        return replace(
            self,
            mean=self.mean.to(device),
            factors=self.factors.to(device),
            noise_std=self.noise_std.to(device),
        )


def _correlation_length(scores: list[Tensor], weight: Tensor) -> float:
    """ℓ from the lag-one autocorrelation, averaged over components by their variance."""
    rho, total = 0.0, 0.0
    for z in scores:
        for a, b in ((z[:, 1:], z[:, :-1]), (z[:, :, 1:], z[:, :, :-1])):
            if a.numel():
                power = (a.square() + b.square()).sum((1, 2)).clamp_min(1e-30) / 2
                rho += float(((a * b).sum((1, 2)) / power * weight).sum())
                total += float(weight.sum())
    rho = rho / total if total > 0 else 0.0
    if rho <= 0.01:
        return 0.0
    return float((-2 * torch.log(torch.tensor(min(rho, 0.995)))) ** -0.5)


def _radius(length: float) -> int:
    return 1 + math.ceil(3 * length / 2**0.5) if length > 0 else 0


def _kernel(length: float, margin: int) -> Tensor:
    """The symmetric filter k with k ⋆ k = exp(−r²/(2ℓ²)) on the pixel grid, cut at ``margin``, of unit energy.

    For long ℓ it is a Gaussian of σ = ℓ/√2; for ℓ near a pixel a sampled Gaussian would fall short of the correlation.
    """
    x = torch.arange(-8 * margin, 8 * margin, dtype=torch.float64)
    spectrum = torch.fft.fft(torch.fft.ifftshift(torch.exp(-x.square() / (2 * length**2)))).real
    kernel = torch.fft.fftshift(torch.fft.ifft(spectrum.clamp_min(0).sqrt()).real)
    kernel = kernel[7 * margin : 9 * margin + 1]
    unit: Tensor = kernel / kernel.square().sum().sqrt()
    return unit


def _smooth(field: Tensor, length: float, margin: int) -> Tensor:
    """Filter white noise to autocorrelation exp(−r²/(2ℓ²)), unit variance; the margin is consumed."""
    if margin == 0:
        return field
    kernel = _kernel(length, margin).to(field.device, field.dtype)
    n, r, h, w = field.shape
    flat = field.reshape(n * r, 1, h, w)
    flat = F.conv2d(F.conv2d(flat, kernel.view(1, 1, -1, 1)), kernel.view(1, 1, 1, -1))
    return flat.view(n, r, h - 2 * margin, w - 2 * margin)
