"""What `UBFAugment` does to images: each strategy draws its parameters apart from applying them."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from ubf_augment import simplex
from ubf_augment.mixing import mix
from ubf_augment.seeding import Generators, randn
from ubf_augment.spectra import Wavelengths, check_wavelengths

STRATEGIES = ("generate", "bank", "edit", "fuse", "vary")
"""Names of the strategies that one image can undergo."""
CLASS_STRATEGIES = ("generate", "bank")
"""Those that draw a whole scene from a class; the others keep the image's label by construction."""
_AUTO = {"vary": 2.0, "generate": 1.0, "edit": 1.0, "fuse": 1.0, "bank": 1.0}


def read_weights(strategy: str | Mapping[str, float], impossible: Mapping[str, str]) -> dict[str, float]:
    """Relative weight of each strategy that is used.

    Args:
        strategy: a name, a mapping of weights, or ``"auto"`` for all that can work.
        impossible: strategies that cannot work, and why.

    Raises:
        ValueError: for an unknown or impossible strategy, a negative weight, or none above zero.

    >>> read_weights("auto", {"bank": "it needs pictures", "edit": "", "generate": ""})
    {'vary': 2.0, 'fuse': 1.0}
    """
    if strategy == "auto":
        return {s: w for s, w in _AUTO.items() if s not in impossible}
    weights = {strategy: 1.0} if isinstance(strategy, str) else {s: float(w) for s, w in strategy.items()}
    for s, w in weights.items():
        if s not in STRATEGIES:
            raise ValueError(f"no strategy {s!r}; there are {', '.join(STRATEGIES)} and auto")
        if not 0 <= w < float("inf"):
            raise ValueError(f"the weight of strategy {s!r} must be ≥ 0, got {w}")
        if s in impossible:
            raise ValueError(f"strategy {s!r} cannot work here: {impossible[s]}")
    weights = {s: w for s, w in weights.items() if w > 0}
    if not weights:
        raise ValueError("give at least one strategy a weight > 0")
    return weights


class SpectralVariation:
    """Smooth random gains of materials, exp(g), and of light, exp(h + s).

    g[p, λ] and h[λ] are Gaussian processes along the wavelength with covariance σ² exp(−(λ − λ')² / (2 ℓ²)): g is an
    endmember's own (its material varies), h is common to an image (illumination, atmosphere or calibration vary), and
    s ~ N(0, τ²) is one brightness per image. Endmember variability as smooth spectral gains follows the extended
    and generalised linear mixing models (Drumetz et al. 2016, doi:10.1109/TIP.2016.2579259; Imbiriba et al. 2018,
    doi:10.1109/TGRS.2018.2852560).

    Args:
        wavelengths: band centres in nm.
        endmember_std: σ of g, standard deviation of the log-gain of an endmember.
        illumination_std: σ of h, standard deviation of the log-gain of an image.
        brightness_std: τ, standard deviation of the log-gain of an image that is the same in all bands.
        correlation_nm: ℓ in nm.

    Raises:
        ValueError: if a deviation is negative or ℓ is not positive.

    >>> gains, light = SpectralVariation([500, 510, 900]).draw(1, 2, torch.Generator().manual_seed(0))
    >>> gains.shape, light.shape, bool((gains[..., 0] / gains[..., 1] - 1).abs().max() < 0.1)
    (torch.Size([1, 2, 3]), torch.Size([1, 3]), True)
    """

    def __init__(
        self,
        wavelengths: Wavelengths,
        endmember_std: float = 0.1,
        illumination_std: float = 0.2,
        brightness_std: float = 0.2,
        correlation_nm: float = 200.0,
    ) -> None:
        if min(endmember_std, illumination_std, brightness_std) < 0 or not correlation_nm > 0:
            raise ValueError("the standard deviations must be ≥ 0 and the correlation length in nm > 0")
        nm = check_wavelengths(wavelengths)
        distance = (nm[:, None] - nm[None]) / correlation_nm
        values, vectors = torch.linalg.eigh(torch.exp(-0.5 * distance.square()))
        self._root = (vectors * values.clamp_min(0).sqrt()).float()
        self._std = endmember_std, illumination_std, brightness_std

    def draw(
        self, n: int, endmembers: int, generator: Generators = None
    ) -> tuple[Float[Tensor, "n p c"], Float[Tensor, "n c"]]:
        """Draw gains of endmembers, exp(g), and of light, exp(h + s), for ``n`` images, on the CPU."""
        bands, (own, shared, flat) = len(self._root), self._std
        z = randn((n, (endmembers + 1) * bands + 1), generator)
        smooth = z[:, :-1].view(n, endmembers + 1, bands) @ self._root.T
        return (own * smooth[:, 1:]).exp(), (shared * smooth[:, 0] + flat * z[:, -1:]).exp()


def vary(
    x: Float[Tensor, "b c h w"],
    a: Float[Tensor, "b p h w"],
    spectra: Float[Tensor, "*b p c"],
    gains: Float[Tensor, "b p c"],
    light: Float[Tensor, "b c"],
) -> Float[Tensor, "b c h w"]:
    """Give an image varied endmembers in another light: x' = l ∘ (x + (E' − E)ᵀ a) with E' = E ∘ gains.

    Where the linear model does not explain a pixel, the pixel keeps what it has, in the new light; a zero (shade)
    endmember stays zero. Gains of one leave x times the light of each band, whatever the endmembers.

    Args:
        x: reflectance.
        a: abundances of x.
        spectra: E, (P, C) or one set per image (B, P, C).
        gains: > 0, from `SpectralVariation`.
        light: l > 0, likewise.

    >>> x, a = torch.full((1, 2, 1, 1), 0.3), torch.full((1, 1, 1, 1), 1.0)
    >>> vary(x, a, torch.tensor([[0.2, 0.0]]), torch.full((1, 1, 2), 1.5), torch.tensor([[1.0, 2.0]])).flatten().tolist()
    [0.4000000059604645, 0.6000000238418579]
    """
    return mix(a, spectra * (gains - 1)).add_(x).mul_(light[:, :, None, None])


def draw_masks(
    n: int,
    size: tuple[int, int],
    generator: Generators = None,
    device: torch.device | str = "cpu",
    cells: int = 3,
    sharpness: float = 4.0,
) -> Float[Tensor, "n 1 h w"]:
    """Draw smooth random masks in [0, 1]: the sigmoid of coarse Gaussian noise, enlarged bilinearly.

    Args:
        n: number of masks.
        size: (H, W).
        generator: one, or one per mask.
        device: of the result.
        cells: the noise has ``cells + 1`` nodes per axis.
        sharpness: how fast a mask goes from one image to the other.

    >>> draw_masks(2, (8, 8), torch.Generator().manual_seed(0)).shape
    torch.Size([2, 1, 8, 8])
    """
    z = randn((n, 1, cells + 1, cells + 1), generator, device)
    return torch.sigmoid(sharpness * F.interpolate(z, size, mode="bilinear", align_corners=True))


def draw_partners(candidates: Tensor, generator: torch.Generator) -> Int64[Tensor, " n"]:
    """One partner per row of a bool matrix (N, B), uniformly among the True entries; each row needs one."""
    return torch.multinomial(candidates.double(), 1, generator=generator)[:, 0]


def fuse(
    x: Float[Tensor, "b c h w"], partner: Float[Tensor, "b c h w"], mask: Float[Tensor, "b 1 h w"]
) -> Float[Tensor, "b c h w"]:
    """Combine two images of one class under a mask m: abundances a' = m a₁ + (1 − m) a₂, residuals likewise.

    a' stays on the simplex because it is a convex combination. Both images share the endmembers of their
    class, and decoding is linear: x' = Eᵀ a' + m ε₁ + (1 − m) ε₂ = m x₁ + (1 − m) x₂. So the result is
    computed from the pixels, and no unmixing is needed; by itself this strategy adds nothing that pixel
    mixing within a class does not.

    >>> fuse(torch.ones(1, 1, 1, 1), torch.zeros(1, 1, 1, 1), torch.full((1, 1, 1, 1), 0.25)).item()
    0.25
    """
    return partner + mask * (x - partner)


def edit(
    x: Float[Tensor, "b c h w"],
    a: Float[Tensor, "b p h w"],
    before: Float[Tensor, "b p i j"],
    after: Float[Tensor, "b p i j"],
    spectra: Float[Tensor, "*b p c"],
) -> Float[Tensor, "b c h w"]:
    """Decode edited abundances and keep the residual: x' = x + Eᵀ(a' − a).

    The edit happens at the generator's size: a' = Π(a + resize(after − before)), Π the projection on the
    simplex, so detail finer than the generator's pixels stays. At equal sizes a' is ``after`` itself.

    Args:
        x: reflectance.
        a: abundances of x.
        before: a at the generator's size.
        after: the edited maps.
        spectra: E, (P, C) or (B, P, C).
    """
    size = (x.shape[-2], x.shape[-1])
    if tuple(before.shape[-2:]) == size:
        edited = after
    else:
        edited = simplex.project(a + simplex.resize(after, size) - simplex.resize(before, size))
    return mix(edited - a, spectra).add_(x)


def append_rows(value: Any, rows: Tensor, batch: int) -> Any:
    """Repeat ``rows`` at the end of a value with one entry per image (tensor, array, list, tuple); else leave it.

    >>> append_rows(["a", "b"], torch.tensor([1]), 2), append_rows("ab", torch.tensor([1]), 2)
    (['a', 'b', 'b'], 'ab')
    """
    if isinstance(value, Tensor) and value.ndim and len(value) == batch:
        return torch.cat([value, value[rows.to(value.device)]])
    if isinstance(value, np.ndarray) and value.ndim and len(value) == batch:
        return np.concatenate([value, value[rows.cpu().numpy()]])
    if type(value) in (list, tuple) and len(value) == batch:
        return value + type(value)(value[i] for i in rows.tolist())
    return value


def warn_of_places(sample: Mapping[Any, Any], image_key: str, strategies: Iterable[str]) -> None:
    """Warn if a sample has masks or boxes (by name, or by size): a synthetic scene has none.

    Args:
        sample: with (B, C, H, W) images.
        image_key: their key.
        strategies: those in use; ``vary`` keeps every place.
    """
    size = sample[image_key].shape[-2:]
    keys = [
        str(k)
        for k, v in sample.items()
        if k != image_key
        and (
            "mask" in str(k)
            or "box" in str(k)
            or (isinstance(v, Tensor) and v.ndim > 2 and v.shape[-2:] == size)
        )
    ]
    if keys:
        warnings.warn(
            f"{', '.join(keys)} of the sample stay those of the real images, whose places "
            f"{', '.join(s for s in strategies if s != 'vary')} does not keep: do not use them where "
            "is_synthetic is True, or set strategy='vary'",
            stacklevel=4,
        )
