"""Sets of pixel spectra, real and generated: what three bands of a pseudo-RGB picture cannot show."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from ubf_augment.errors import ShapeError
from ubf_augment.metrics._sets import pair
from ubf_augment.metrics.reconstruction import spectral_angles
from ubf_augment.seeding import randn

_BLOCK = 1 << 23  # numbers held at a time: 64 MiB in double precision


def draw_pixels(
    images: Float[Tensor, "b c h w"], count: int, generator: torch.Generator | None = None
) -> Float[Tensor, "count c"]:
    """Draw spectra at random from all pixels of all images, without replacement.

    Args:
        images: (B, C, H, W).
        count: how many, at most B·H·W.
        generator: draws them; a fixed seed by default.

    Returns:
        (count, C).

    Raises:
        ShapeError: if ``images`` is not (B, C, H, W), or has fewer pixels.

    >>> x = torch.arange(8.0).view(1, 2, 2, 2)
    >>> draw_pixels(x, 4).sort(0).values.tolist()
    [[0.0, 4.0], [1.0, 5.0], [2.0, 6.0], [3.0, 7.0]]
    """
    if images.ndim != 4:
        raise ShapeError(
            f"images must be (B, C, H, W), got {tuple(images.shape)}: add a batch axis with x[None]"
        )
    b, _, h, w = images.shape
    if not 1 <= count <= b * h * w:
        raise ShapeError(f"{count} pixels cannot be drawn from {b} images of {h} × {w}")
    g = generator or torch.Generator().manual_seed(0)
    chosen = torch.randperm(b * h * w, generator=g, device=g.device)[:count].to(images.device)
    image, pixel = chosen // (h * w), chosen % (h * w)
    return images[image, :, pixel // w, pixel % w]


def sliced_wasserstein(
    real: Float[Tensor, "n c"],
    made: Float[Tensor, "m c"],
    *,
    projections: int = 512,
    generator: torch.Generator | None = None,
) -> Float[Tensor, ""]:
    """Sliced Wasserstein-1 distance between two sets of spectra, in units of reflectance.

    The mean over random unit directions θ of the area between the quantile functions of ⟨x, θ⟩ and ⟨x′, θ⟩,
    ``∫₀¹ |F⁻¹(q) − F′⁻¹(q)| dq``, exact for equal and for different counts. A shift of all spectra by s in one band gives
    ``|s|``, and a shift by s in each of many bands close to ``0.8 |s|``.

    Source: Rabin et al. 2012, doi:10.1007/978-3-642-24785-9_37; Bonneel et al. 2015, doi:10.1007/s10851-014-0506-3.

    Args:
        real: real spectra (N, C), see `draw_pixels`.
        made: generated spectra (M, C).
        projections: how many directions; the error falls with its square root.
        generator: draws the directions; a fixed seed by default, so that equal sets get equal numbers.

    Returns:
        A float64 scalar ≥ 0; 0 if and (for many directions) only if the sets are equal.

    Raises:
        ShapeError: if a set is empty or the bands differ.
        NoDataError: if spectra are not finite.
        ValueError: if ``projections`` is below 1.

    >>> float(sliced_wasserstein(torch.tensor([[0.0], [1.0]]), torch.tensor([[0.0], [0.5], [1.0]])))  # 2 · 1/6 · 1/2
    0.1666...
    """
    if projections < 1:
        raise ValueError(f"projections must be at least 1, got {projections}")
    real, made = pair(real, made, what="spectra")
    g = generator or torch.Generator().manual_seed(0)
    directions = randn((projections, real.shape[1]), g, real.device, torch.float64)
    directions = F.normalize(directions, dim=1)
    i, j, width = _common_quantiles(len(real), len(made), real.device)
    total = real.new_zeros(())
    for theta in torch.split(directions, max(1, _BLOCK // len(i))):
        a, b = ((x @ theta.T).sort(0).values for x in (real, made))
        total += ((a[i] - b[j]).abs() * width[:, None]).sum()
    return total / projections


def _common_quantiles(n: int, m: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Pieces of [0, 1] on which the quantile functions of n and of m points are both constant: their indices and widths."""
    steps = torch.cat([torch.arange(1, n + 1, device=device) * m, torch.arange(1, m + 1, device=device) * n])
    ends = torch.unique(steps)  # sorted, in units of 1/(n·m)
    starts = torch.cat([ends.new_zeros(1), ends[:-1]])
    return starts // m, starts // n, (ends - starts).double() / (n * m)


def nearest_spectral_angle(made: Float[Tensor, "m c"], real: Float[Tensor, "n c"]) -> Float[Tensor, " m"]:
    """Spectral angle from each generated spectrum to the nearest real one, in degrees.

    Large angles are spectra that no real pixel has, however the picture looks. Take the mean, or the 95% quantile, and
    compare it with that of other real pixels: the angle falls with the number of real spectra.

    Args:
        made: generated spectra (M, C), see `draw_pixels`.
        real: real spectra (N, C).

    Returns:
        (M,) float64 in [0, 180]; zero spectra count as in `spectral_angles`.

    Raises:
        ShapeError: if a set is empty or the bands differ.
        NoDataError: if spectra are not finite.

    >>> real = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    >>> nearest_spectral_angle(torch.tensor([[0.2, 0.2], [0.0, 3.0]]), real).tolist()
    [0.0, 45.0]
    """
    real, made = pair(real, made, what="spectra")
    directions = F.normalize(real, dim=1, eps=1e-300)
    nearest = []
    for part in torch.split(made, max(1, _BLOCK // len(real))):
        cosine = F.normalize(part, dim=1, eps=1e-300) @ directions.T
        nearest.append(spectral_angles(part, real[cosine.argmax(1)]))
    angles = torch.cat(nearest)
    black = (made == 0).all(1)  # no direction to search by
    return torch.where(black, 0.0 if bool((real == 0).all(1).any()) else 90.0, angles)
