"""What the linear model leaves over, ε: estimated from images, drawn for new ones."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from ubf_augment.errors import BandCountError, NoDataError, ShapeError
from ubf_augment.mixing.blending import blend
from ubf_augment.mixing.noise import Noise, run_length
from ubf_augment.seeding import Generators, rand


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
    def estimate(cls, residuals: Float[Tensor, "n c h w"] | Iterable[Tensor], rank: int = 8) -> ResidualModel:
        """Estimate the model from residuals x − mix(a, E) of training images.

        The mean and the top ``rank`` eigenvectors of the band covariance are kept, the variance left over becomes white
        noise, and ℓ follows from the lag-one autocorrelation ρ of the leading components, ρ = exp(−1 / (2 ℓ²)), ρ ≤ 0.995
        (ℓ ≤ 10 pixels).

        Args:
            residuals: (N, C, H, W), or a list of (C, H, W) of different sizes; or what gives them one by one whenever it is
                iterated over, which is twice, so that they need not be in memory together.
            rank: number of spatially correlated components, at most C.

        Raises:
            ShapeError: if there are fewer than two pixels.
            BandCountError: if the residuals differ in their number of bands.
            NoDataError: if a residual is NaN or infinite.

        >>> r = 0.01 * torch.randn(4, 5, 16, 16, generator=torch.Generator().manual_seed(0))
        >>> ResidualModel.estimate(r, rank=2).correlation_length < 0.5
        True
        """
        count, covariance, mean = 0, torch.zeros(0, 0), torch.zeros(0)
        for r in residuals:
            pixels = _pixels(r, len(mean))
            if not pixels.numel():
                continue
            if not count:
                shift, total = pixels.mean(1), pixels.new_zeros(len(pixels))
                square, mean = pixels.new_zeros(len(pixels), len(pixels)), shift
            pixels = pixels - shift[:, None]
            count, total, square = count + pixels.shape[1], total + pixels.sum(1), square + pixels @ pixels.T
        if count < 2:
            raise ShapeError("the residual model needs at least two pixels")
        mean = shift + total / count
        covariance = (square - total.outer(total) / count) / (count - 1)
        values, vectors = torch.linalg.eigh(covariance)
        order = values.argsort(descending=True)[: min(rank, len(values))]
        top, basis = values[order].clamp_min(0), vectors[:, order]
        factors = basis * top.sqrt()
        left = (torch.diagonal(covariance) - factors.square().sum(1)).clamp_min(0)
        scores = (
            torch.einsum("cr,chw->rhw", basis, r.detach().double() - mean[:, None, None]) for r in residuals
        )
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

        Noise is read from fixed normal fields at random places, many times faster than to draw and filter new numbers: every
        z is a window of a smooth field, and n is a piece of a white one, the sign of each band random.

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
        spectra, noise = self.draw(n, height, width, generator, device)
        return blend(spectra.new_empty(n, 0, height, width), spectra, noise)

    def draw(
        self,
        n: int,
        height: int,
        width: int,
        generator: Generators = None,
        device: torch.device | str | None = None,
    ) -> tuple[Float[Tensor, "r c"], Noise]:
        """Draw what ε is made of: the spectra [Lᵀ; μᵀ] (R + 1, C) of its maps [z; 1], and the places of z and n.

        Args as for `sample`.
        """
        device = self.mean.device if device is None else device
        (bands, rank), (step, _) = self.factors.shape, run_length(len(self.mean), height * width)
        runs = -(-bands // step)
        u = rand((n, 2 * rank + runs + bands), generator, dtype=torch.float64)
        places, starts, signs = torch.split(u, [2 * rank, runs, bands], 1)
        scale = torch.where(signs < 0.5, -1.0, 1.0).to(device, torch.float32) * self.noise_std.to(device)
        noise = Noise(places.view(n, rank, 2), self.correlation_length, starts, scale)
        return torch.cat([self.factors.T, self.mean[None]]).to(device), noise

    def to(self, device: torch.device | str) -> ResidualModel:
        """The same model on ``device``."""
        return replace(
            self,
            mean=self.mean.to(device),
            factors=self.factors.to(device),
            noise_std=self.noise_std.to(device),
        )


def _pixels(residual: Tensor, bands: int) -> Tensor:
    """A residual image as (C, H·W) in float64; ``bands`` is 0 for the first."""
    if bands and len(residual) != bands:
        raise BandCountError(
            f"residuals of {sorted((bands, len(residual)))} bands cannot share one model: fit one for each sensor"
        )
    if not torch.isfinite(residual).all():
        raise NoDataError("residuals hold NaN or infinite values: crop or fill nodata pixels before the fit")
    return residual.detach().double().flatten(1)


def _correlation_length(scores: Iterable[Tensor], weight: Tensor) -> float:
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
