"""Stationary Gaussian random fields whose correlation is a sum of simple ones."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ubf_augment import seeding

_LAG0_WEIGHT = 1000.0


class CorrelatedFields(nn.Module):
    """Fields of unit variance on an H×W grid, with isotropic correlation ρ(h) = Σⱼ wⱼ ρⱼ(h), Σⱼ wⱼ = 1, wⱼ ≥ 0.

    The terms are white noise; for ℓ = 1, 2, 4, … pixels the spectral densities (1 + ℓ² ω²)^(−3/2) of rough fields,
    ρ = exp(−h / ℓ), and exp(−ℓ² ω² / 2) of smooth ones, ρ = exp(−h² / 2ℓ²), the ends of Matérn's family (Stein
    1999, doi:10.1007/978-1-4612-1494-6); and one constant over the whole map, by which maps differ from each other.
    Fields are white noise filtered on a torus of twice the size, so opposite edges of a map are not neighbours
    (circulant embedding; Dietrich & Newsam 1997, doi:10.1137/S1064827592240555); spectra are non-negative, so
    every choice of weights is a valid correlation.

    Attributes:
        weights: (K,D,J), one row per class and field.
        radii: lags at which `fit` looks, in pixels.
    """

    weights: Tensor

    def __init__(self, classes: int, fields: int, size: tuple[int, int]) -> None:
        """Start with rough fields of ℓ = 2."""
        super().__init__()
        self.size, self.torus = size, (2 * size[0], 2 * size[1])
        self.lengths = [2.0**i for i in range(int(math.log2(max(2, max(size) // 2))) + 1)]
        self.spectra = self._spectra()  # float64 and on the CPU, as everything here
        self.radii, self._rings = self._find_rings()
        weights = torch.zeros(classes, fields, len(self.spectra))
        weights[:, :, 1 + self.lengths.index(2.0)] = 1.0
        self.register_buffer("weights", weights)

    def _spectra(self) -> Tensor:
        """Spectral densities (J,2H,W+1) of mean one over the torus."""
        h, w = self.torus
        square = (2 * math.pi) ** 2 * (
            torch.fft.fftfreq(h, dtype=torch.float64)[:, None].square()
            + torch.fft.fftfreq(w, dtype=torch.float64)[None].square()
        )
        constant = torch.zeros_like(square)
        constant[0, 0] = 1.0
        rough = [(1 + v**2 * square) ** -1.5 for v in self.lengths]
        smooth = [(-0.5 * v**2 * square).exp() for v in self.lengths]
        terms = [torch.ones_like(square), *rough, *smooth, constant]
        return torch.stack([t / t.mean() for t in terms])[..., : w // 2 + 1]

    def _find_rings(self) -> tuple[list[int], list[Tensor]]:
        """Lags of about 1, 2, 3, 4, 6, 8, 12, … pixels, up to half the size in each direction."""
        h, w = self.size
        rows, columns = torch.meshgrid(
            torch.arange((h + 1) // 2), torch.arange(-((w - 1) // 2), (w + 1) // 2), indexing="ij"
        )
        lag = torch.hypot(rows.double(), columns.double()).round()
        index = (rows * self.torus[1] + columns % self.torus[1]).flatten()
        radii = sorted(
            {r for i in range(12) for r in (2**i, 3 * 2**i)} & set(map(int, lag.flatten().tolist()))
        )
        return radii, [index[(lag == r).flatten()] for r in radii]

    def ring_means(self, r: Float[Tensor, "d h2 w2"]) -> Float[Tensor, "d m"]:
        """Average autocorrelations, as `autocorrelation` gives them, over directions at each of the radii."""
        if not self.radii:
            return r.new_zeros(len(r), 0)
        return torch.stack([r.flatten(1)[:, ring].mean(1) for ring in self._rings], 1)

    def fit(self, k: int, rho: Float[Tensor, "d m"]) -> None:
        """Set the weights of class k by non-negative least squares on correlations at the radii.

        Radii count alike; as they are spaced, short lags matter most.
        """
        from scipy.optimize import nnls

        terms = self.ring_means(torch.fft.irfft2(self.spectra, s=self.torus))
        one = torch.full((len(terms), 1), _LAG0_WEIGHT, dtype=terms.dtype)
        system = torch.cat([one, terms], 1).T.numpy()
        for d, r in enumerate(rho.cpu().double().numpy()):
            found, _ = nnls(system, [_LAG0_WEIGHT, *r])
            self.weights[k, d] = torch.from_numpy(found / found.sum())

    def draw(self, classes: list[int], generator: list[torch.Generator]) -> Float[Tensor, "b d h w"]:
        """Draw the fields of each class given, from its own generator, in float64 on the CPU."""
        weights = self.weights.cpu().double()[classes]
        noise = seeding.randn((len(classes), weights.shape[1], *self.torus), generator)
        gain = torch.einsum("bdj,jhw->bdhw", weights, self.spectra).sqrt()
        fields: Tensor = torch.fft.irfft2(torch.fft.rfft2(noise.double()) * gain, s=self.torus)
        return fields[..., : self.size[0], : self.size[1]]


def autocorrelation(x: Float[Tensor, "n d h w"]) -> Float[Tensor, "d h2 w2"]:
    """Autocorrelation over all pairs of pixels at each lag, around the mean over maps and pixels.

    Args:
        x: maps.

    Returns:
        (D,2H,2W), lag (r, c) at index (r mod 2H, c mod 2W); one at lag zero. A field without variation
        counts as uncorrelated.

    >>> x = torch.tensor([1.0, -1.0, 1.0, -1.0]).view(1, 1, 1, 4)
    >>> [round(v, 6) for v in autocorrelation(x)[0, 0, :3].tolist()]
    [1.0, -1.0, 1.0]
    """
    _, _, h, w = x.shape
    shape = (2 * h, 2 * w)
    x = x.double()
    x = x - x.mean((0, 2, 3), keepdim=True)
    pairs = torch.fft.irfft2(
        torch.fft.rfft2(torch.ones(h, w, dtype=x.dtype), s=shape).abs().square(), s=shape
    )
    total = torch.fft.irfft2(torch.fft.rfft2(x, s=shape).abs().square().mean(0), s=shape)
    r = total / pairs.round().clamp_min(1)
    variance = r[:, :1, :1]
    white = torch.zeros_like(r)
    white[:, 0, 0] = 1.0
    return torch.where(variance > 0, r / variance.clamp_min(torch.finfo(x.dtype).tiny), white)
