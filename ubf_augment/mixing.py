"""The linear mixing model x = Σₚ aₚ Eₚ + ε: THE place where abundances become hyperspectral images."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from ubf_augment.errors import BandCountError, NoDataError, ShapeError
from ubf_augment.seeding import Generators, rand
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
    spectra = _spectra(a, E)
    b, _, h, w = a.shape
    return torch.matmul(spectra.transpose(-2, -1), a.flatten(2)).view(b, spectra.shape[-1], h, w)


def _spectra(a: Tensor, E: Endmembers | Tensor) -> Tensor:
    """Endmember spectra (P, C) or (B, P, C) that fit the abundances."""
    spectra = (E.spectra if isinstance(E, Endmembers) else E).to(a.device, a.dtype)
    if a.ndim != 4:
        raise ShapeError(
            f"abundances must be (B, P, H, W), got {tuple(a.shape)}: add a batch axis with a[None]"
        )
    if spectra.ndim not in (2, 3) or spectra.shape[-2] != a.shape[1]:
        raise ShapeError(f"{a.shape[1]} abundance maps for endmember spectra of shape {tuple(spectra.shape)}")
    if spectra.ndim == 3 and spectra.shape[0] != a.shape[0]:
        raise ShapeError(f"{spectra.shape[0]} sets of endmembers for a batch of {a.shape[0]}")
    return spectra


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

        Every field z and the white noise of every band is a window, at a random place, of a fixed normal field at least twice
        as large: many times faster than to draw and filter new numbers.

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
        x, fields = self._draw(n, height, width, generator, self.mean.device if device is None else device)
        return _add(x, fields, self.factors.T)

    def _draw(
        self, n: int, height: int, width: int, generator: Generators, device: torch.device | str
    ) -> tuple[Tensor, Tensor]:
        """μ + d n as (N, C, H, W), and z as (N, R, H, W)."""
        c, r = self.factors.shape
        places = rand((n, r + c, 2), generator, dtype=torch.float64)
        smooth = _windows(
            places[:, :r], height, width, _bank(_side(height, width), self.correlation_length, str(device))
        )
        white = _windows(places[:, r:], height, width, _bank(_side(height, width), 0.0, str(device)))
        d, mean = (v.to(device)[:, None, None] for v in (self.noise_std, self.mean))
        return white.mul_(d).add_(mean), smooth

    def to(self, device: torch.device | str) -> ResidualModel:
        """The same model on ``device``."""
        return replace(
            self,
            mean=self.mean.to(device),
            factors=self.factors.to(device),
            noise_std=self.noise_std.to(device),
        )


def decode(
    a: Float[Tensor, "b p h w"],
    E: Endmembers | Float[Tensor, "*batch p c"],
    residual: ResidualModel,
    generator: Generators = None,
) -> Float[Tensor, "b c h w"]:
    """Mix endmembers by their abundances and add a residual, x = Eᵀa + ε, in one pass: `mix` plus `ResidualModel.sample`.

    Args:
        a: abundances (B, P, H, W).
        E: as for `mix`.
        residual: model of ε, on any device.
        generator: of ε; one, or one per image.

    Returns:
        Reflectance (B, C, H, W), differentiable in a; values are not clipped.

    Raises:
        ShapeError: as `mix`.

    >>> model = ResidualModel(torch.full((3,), 0.01), torch.zeros(3, 1), torch.zeros(3), 0.0)
    >>> decode(torch.ones(1, 1, 2, 2), torch.tensor([[0.1, 0.2, 0.3]]), model)[0, :, 0, 0]
    tensor([0.1100, 0.2100, 0.3100])
    """
    spectra = _spectra(a, E)
    x, fields = residual._draw(len(a), a.shape[2], a.shape[3], generator, a.device)
    factors = residual.factors.T.to(spectra)
    if spectra.ndim == 3:
        factors = factors.expand(len(a), -1, -1)
    return _add(x.to(a.dtype), torch.cat([a, fields.to(a.dtype)], 1), torch.cat([spectra, factors], -2))


def _add(x: Tensor, maps: Tensor, spectra: Tensor) -> Tensor:
    """Add Σₖ mapsₖ spectraₖ to x, in place."""
    n, c, h, w = x.shape
    if not n:
        return x
    return (
        x.flatten(2)
        .baddbmm_(spectra.transpose(-2, -1).expand(n, c, -1).to(x), maps.flatten(2))
        .view(n, c, h, w)
    )


def _windows(places: Tensor, height: int, width: int, bank: Tensor) -> Float[Tensor, "n k h w"]:
    """Windows of a square bank at places (N, K, 2) in 0 … 1."""
    side = len(bank)
    every = bank.as_strided(((side - height) * side + side - width + 1, height, width), (1, side, 1))
    top, left = ((places[..., i] * (side - length + 1)).long() for i, length in enumerate((height, width)))
    return every.index_select(0, (top * side + left).flatten().to(bank.device)).view(
        *top.shape, height, width
    )


def _side(height: int, width: int) -> int:
    """Of a bank that has room for many windows."""
    return max(1024, 1 << (2 * max(height, width) - 1).bit_length())


@lru_cache(maxsize=4)
def _bank(side: int, length: float, device: str) -> Float[Tensor, "s s"]:
    """A normal field of autocorrelation exp(−r² / (2 ℓ²)), mean 0 and deviation 1, the same in every process.

    White noise is filtered by the root of the field's spectrum, on a torus.
    """
    rng = torch.Generator().manual_seed(0 if length == 0 else 1)
    x = torch.randn(side, side, generator=rng, dtype=torch.float64)
    if length > 0:
        r = torch.arange(side, dtype=torch.float64)
        r = torch.minimum(r, side - r)
        root = torch.fft.fft(torch.exp(-r.square() / (2 * length**2))).real.clamp_min(0).sqrt()
        x = torch.fft.ifft2(torch.fft.fft2(x) * root[:, None] * root).real
    return ((x - x.mean()) / x.std()).float().to(device)


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
