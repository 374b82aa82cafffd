"""Gaussian mixtures per class on the plane of compositions, reached from independent normal scores."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

_BISECTIONS = 32
_PAIRS, _ROUNDS = 1000, 8  # of the calibration of correlations


def plane_basis(num_endmembers: int) -> Float[Tensor, "p d"]:
    """Orthonormal vectors (P, P − 1) of the plane Σ a = 1: Helmert's, each orthogonal to (1, …, 1).

    >>> basis = plane_basis(4)
    >>> bool(torch.allclose(basis.T @ basis, torch.eye(3))), bool(basis.sum(0).abs().max() < 1e-6)
    (True, True)
    """
    basis = torch.zeros(num_endmembers, num_endmembers - 1)
    for d in range(num_endmembers - 1):
        basis[: d + 1, d] = 1.0
        basis[d + 1, d] = -(d + 1.0)
        basis[:, d] /= math.sqrt((d + 1.0) * (d + 2.0))
    return basis


class Mixture(nn.Module):
    """A mixture Σ_c w_c N(μ_c, L_c L_cᵀ) in D dimensions for each of K classes.

    Attributes:
        logits: (K,C), w = softmax.
        means: (K,C,D) μ.
        factors: (K,C,D,D) L; only the lower triangle is read, its diagonal up to sign.
    """

    def __init__(self, classes: int, components: int, dim: int) -> None:
        """Start with equal weights, random means and standard deviation 0.1."""
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(classes, components))
        self.means = nn.Parameter(0.2 * torch.randn(classes, components, dim))
        self.factors = nn.Parameter(0.1 * torch.eye(dim).repeat(classes, components, 1, 1))

    def log_prob(self, z: Float[Tensor, "b n d"], y: Int64[Tensor, "b"]) -> Float[Tensor, "b n"]:
        """Log density of the points of each row under the mixture of its class."""
        factors = self.factors[y].tril()[:, :, None]
        offset = z[:, None] - self.means[y][:, :, None]
        e = torch.linalg.solve_triangular(factors, offset[..., None], upper=False)[..., 0]
        log_volume = factors.diagonal(dim1=-2, dim2=-1).abs().log().sum(-1) + 0.5 * z.shape[-1] * math.log(
            2 * math.pi
        )
        weights = self.logits[y].log_softmax(-1)[:, :, None]
        return torch.logsumexp(weights - log_volume - 0.5 * e.square().sum(-1), 1)

    def draw(
        self, u: Float[Tensor, "b n"], e: Float[Tensor, "b n d"], y: Int64[Tensor, "b"]
    ) -> Float[Tensor, "b n d"]:
        """Draw points from uniform numbers (choice of the component) and standard normal ones."""
        bins = self.logits[y].softmax(-1).cumsum(-1)[:, :-1].contiguous()
        chosen = torch.searchsorted(bins, u.contiguous(), right=True)
        row = torch.arange(len(y), device=y.device)[:, None]
        factors, means = self.factors.tril(), self.means
        return means[y[row], chosen] + (factors[y[row], chosen] @ e[..., None])[..., 0]

    def from_scores(self, g: Float[Tensor, "n d"], k: int) -> Float[Tensor, "n d"]:
        """Turn independent standard normal scores into points of class k's mixture (Rosenblatt 1952).

        F(v_d | v_1 … v_{d−1}) = Φ(g_d), where v are the coordinates on the principal axes of the whole mixture,
        largest variance first, and F its conditional distributions (doi:10.1214/aoms/1177729394). A mixture's
        quantile lies between the smallest and the largest quantile of its components, which are m + s·g; it is
        found there by bisection, in float64 on the CPU.
        """
        g = g.detach().cpu().double()
        walk, out = _Walk(self, k, len(g)), []
        for d in range(g.shape[1]):
            p = torch.special.ndtr(g[:, d])
            ends = walk.centres(d) + walk.stds[:, d] * g[:, d, None]
            low, high = ends.amin(1), ends.amax(1)
            for _ in range(_BISECTIONS):
                middle = 0.5 * (low + high)
                below = walk.distribution(d, middle) < p
                low, high = torch.where(below, middle, low), torch.where(below, high, middle)
            out.append(0.5 * (low + high))
            walk.tell(d, out[-1])
        made: Tensor = torch.stack(out, 1) @ walk.axes.T
        return made

    def axes(self, k: int) -> Float[Tensor, "d d"]:
        """Principal axes of class k's mixture as columns, largest variance first, in float64 on the CPU."""
        axes: Tensor = _Walk(self, k, 1).axes
        return axes

    def score_correlations(self, wanted: Float[Tensor, "d m"], k: int, seed: int) -> Float[Tensor, "d m"]:
        """Find the correlations of scores that give pairs of points the ``wanted`` ones, axis by axis.

        `from_scores` roughens a field, so scores must be correlated more strongly than points. Pairs of points
        are drawn for each of the m cases, and 1 − ρ is scaled by (1 − wanted) / (1 − achieved), eight times over
        with the same random numbers. Normal-to-anything: Cario & Nelson 1997, Northwestern University
        technical report, "Modeling and generating random vectors with arbitrary marginal distributions and
        correlation matrix".
        """
        d, m = wanted.shape
        axes = self.axes(k)
        g, e = torch.randn(2, _PAIRS, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        first = _standardised(self.from_scores(g, k) @ axes)
        wanted = wanted.double().clamp(0.0, 1.0)
        rho = wanted.clone()
        for _ in range(_ROUNDS):
            r = rho.T[:, None]
            other = self.from_scores((r * g + (1 - r.square()).sqrt() * e).flatten(0, 1), k) @ axes
            achieved = (first * _standardised(other.view(m, _PAIRS, -1))).mean(1).T
            rho = (1 - (1 - rho) * (1 - wanted) / (1 - achieved).clamp_min(1e-6)).clamp(0.0, 1.0)
        return rho


def _standardised(v: Tensor) -> Tensor:
    """Zero mean and unit variance over the second axis from the end."""
    v = v - v.mean(-2, keepdim=True)
    return v / v.square().mean(-2, keepdim=True).sqrt()


class _Walk:
    """One mixture's conditional distributions, coordinate after coordinate, along its principal axes."""

    def __init__(self, mixture: Mixture, k: int, n: int) -> None:
        with torch.no_grad():
            logits, means = mixture.logits[k].cpu().double(), mixture.means[k].cpu().double()
            factors = mixture.factors[k].cpu().double().tril()
        weights = logits.softmax(0)
        offset = means - weights @ means
        covariances = factors @ factors.mT
        total = torch.einsum("c,cij->ij", weights, covariances + offset[:, :, None] * offset[:, None])
        axes = torch.linalg.eigh(total).eigenvectors.flip(1)
        self.axes = axes * axes.gather(0, axes.abs().argmax(0, keepdim=True)).sign()
        self.means = means @ self.axes
        self.factors = torch.linalg.cholesky(self.axes.T @ covariances @ self.axes)
        self.stds = self.factors.diagonal(dim1=-2, dim2=-1)
        self.log_weights = logits.log_softmax(0).expand(n, -1)
        self.told: list[Tensor] = []  # the standardised coordinates so far, (N,C) each
        self._centres: list[Tensor] = []

    def centres(self, d: int) -> Tensor:
        """Mean (N,C) of coordinate d in each component, given the ones before it."""
        if len(self._centres) == d:
            self._centres.append(
                self.means[:, d] + sum(self.factors[:, d, j] * e for j, e in enumerate(self.told))
            )
        return self._centres[d]

    def distribution(self, d: int, v: Tensor) -> Tensor:
        """Conditional distribution function (N,) of coordinate d at v."""
        inside = torch.special.ndtr((v[:, None] - self.centres(d)) / self.stds[:, d])
        below: Tensor = (self.log_weights.exp() * inside).sum(1)
        return below

    def tell(self, d: int, v: Tensor) -> None:
        """Condition everything that follows on coordinate d being v."""
        e = (v[:, None] - self.centres(d)) / self.stds[:, d]
        self.told.append(e)
        log_weights = self.log_weights - self.stds[:, d].log() - 0.5 * e.square()
        self.log_weights = log_weights.log_softmax(1)
