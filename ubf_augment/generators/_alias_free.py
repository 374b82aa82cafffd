"""Alias-free signal processing: windowed low-pass filters, the non-linearity between them, and the bands of layers."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

TAPS = 6  # taps per sample of the lower rate
OVERSAMPLING = 2  # rate of the non-linearity over the rate of the signal
_GAIN = math.sqrt(2.0)  # keeps the power of a centred signal through a leaky ReLU
_SLOPE = 0.2


def kaiser_beta(taps: int, width: float) -> float:
    """Shape of the Kaiser window whose transition band has the given width.

    Attenuation A = 2.285 (L − 1) π Δ + 7.95 dB for L taps and a transition of Δ (share of the Nyquist
    frequency); β = 0.1102 (A − 8.7) above 50 dB, 0.5842 (A − 21)^0.4 + 0.07886 (A − 21) down to 21 dB, else 0
    (Kaiser 1974; as used by Karras et al. 2021, arXiv:2106.12423, appendix C).

    >>> kaiser_beta(taps=12, width=0.1)
    0.0
    >>> round(kaiser_beta(taps=12, width=0.5), 3)
    4.249
    """
    attenuation = 2.285 * (taps - 1) * math.pi * width + 7.95
    if attenuation > 50:
        return 0.1102 * (attenuation - 8.7)
    if attenuation > 21:
        return 0.5842 * math.pow(attenuation - 21, 0.4) + 0.07886 * (attenuation - 21)
    return 0.0


def lowpass(taps: int, cutoff: float, half_width: float, rate: float, phases: int = 1) -> Float[Tensor, "l"]:
    """Design a linear-phase low-pass filter: an ideal sinc in a Kaiser window, unit gain at frequency 0.

    Args:
        taps: length L.
        cutoff: middle of the transition band, in the unit of ``rate``.
        half_width: half of the transition band.
        rate: samples per unit of length.
        phases: 1, or the up-sampling factor: then each of the phases that make the new samples keeps a
            constant exactly.

    >>> h = lowpass(12, cutoff=4.0, half_width=4.0, rate=32.0)
    >>> round(float(h.sum()), 6), bool(torch.equal(h, h.flip(0)))
    (1.0, True)
    """
    t = torch.arange(taps, dtype=torch.float64) - (taps - 1) / 2
    h = torch.sinc(2 * cutoff / rate * t) * _window(t.abs(), taps, half_width, rate)
    parts = h.view(-1, phases)
    return (parts / (phases * parts.sum(0))).flatten().float()


def radial_lowpass(taps: int, cutoff: float, half_width: float, rate: float) -> Float[Tensor, "l l"]:
    """Design a radially symmetric low-pass filter: J₁(2π f r) / r in a Kaiser window of r, unit gain at frequency 0.

    >>> h = radial_lowpass(12, cutoff=4.0, half_width=4.0, rate=32.0)
    >>> round(float(h.sum()), 6), bool(torch.equal(h, h.T))
    (1.0, True)
    """
    t = torch.arange(taps, dtype=torch.float64) - (taps - 1) / 2
    r = torch.sqrt(t[:, None].square() + t.square()).clamp_min(1e-9)
    h: Tensor = (
        torch.special.bessel_j1(2 * math.pi * cutoff / rate * r) / r * _window(r, taps, half_width, rate)
    )
    return (h / h.sum()).float()


def _window(r: Tensor, taps: int, half_width: float, rate: float) -> Tensor:
    """Kaiser window at distance ``r`` (in samples) from its middle; zero beyond its last tap."""
    beta = torch.tensor(kaiser_beta(taps, 2 * half_width / (rate / 2)), dtype=torch.float64)
    inside = 1 - (2 * r / (taps - 1)).square()
    value = torch.i0(beta * inside.clamp_min(0).sqrt()) / torch.i0(beta)
    return value * (inside >= 0)


def upsample(x: Float[Tensor, "b c n n"], h: Tensor, factor: int, size: int) -> Float[Tensor, "b c m m"]:
    """Up-sample by an even factor and keep the ``size`` middle samples; ``x`` is zero outside.

    Args:
        x: square maps.
        h: filter of `lowpass`, an even number of taps.
        factor: u.
        size: side of the result; parity as n·u.
    """
    skip = (len(h) - factor) // 2 - (size - x.shape[-1] * factor) // 2
    w = (factor * h).to(x.dtype).expand(x.shape[1], 1, -1)
    y = F.conv_transpose2d(
        x, w.unsqueeze(3), stride=(factor, 1), padding=(max(skip, 0), 0), groups=x.shape[1]
    )
    y = F.conv_transpose2d(
        y, w.unsqueeze(2), stride=(1, factor), padding=(0, max(skip, 0)), groups=x.shape[1]
    )
    return y if skip >= 0 else F.pad(y, [-skip] * 4)


def downsample(x: Float[Tensor, "b c m m"], h: Tensor, factor: int) -> Float[Tensor, "b c n n"]:
    """Filter with ``h`` (separable if it has one axis), keep the samples where it fits whole, every factor-th."""
    groups = x.shape[1]
    if h.ndim == 2:
        return F.conv2d(x, h.to(x.dtype).expand(groups, 1, -1, -1), stride=factor, groups=groups)
    w = h.to(x.dtype).expand(groups, 1, -1)
    y = F.conv2d(x, w.unsqueeze(3), stride=(factor, 1), groups=groups)
    return F.conv2d(y, w.unsqueeze(2), stride=(1, factor), groups=groups)


def filtered_leaky_relu(
    x: Float[Tensor, "b c n n"], up: Tensor, down: Tensor, factors: tuple[int, int], size: int
) -> Float[Tensor, "b c m m"]:
    """√2·LeakyReLU at a higher rate, between a low-pass filter that interpolates and one that removes new frequencies.

    The non-linearity is pointwise, so it commutes with translation of the *continuous* signal but makes
    frequencies that the samples cannot hold; filtering them away before sampling again leaves no aliasing
    (Karras et al. 2021, section 2.2).

    Args:
        x: square maps.
        up: filter of the up-sampling.
        down: filter of the down-sampling, separable or two-dimensional.
        factors: of up- and down-sampling, both even.
        size: side of the result, which shares the middle with ``x``.

    >>> up, down = lowpass(12, 4.0, 4.0, 32.0, phases=2), lowpass(12, 4.0, 4.0, 32.0)
    >>> y = filtered_leaky_relu(torch.full((1, 1, 16, 16), -1.0), up, down, (2, 2), 16)
    >>> round(float(y[0, 0, 8, 8]), 4)
    -0.2828
    """
    high = size * factors[1] + down.shape[-1] - factors[1]
    y = F.leaky_relu_(upsample(x, up, factors[0], high), _SLOPE)
    return downsample(y, down, factors[1]) * _GAIN


def plain_leaky_relu(x: Float[Tensor, "b c n n"], ratio: int, size: int) -> Float[Tensor, "b c m m"]:
    """√2·LeakyReLU sample by sample, then bilinear up-sampling by ``ratio``: what aliases."""
    y = F.leaky_relu(x, _SLOPE) * _GAIN
    if ratio > 1:
        y = F.interpolate(y, scale_factor=ratio, mode="bilinear", align_corners=False)
    skip = (y.shape[-1] - size) // 2
    return y[..., skip : skip + size, skip : skip + size]


@dataclass(frozen=True)
class Band:
    """What the signal after a layer may hold; lengths in image sides, so a rate is in samples per side.

    Attributes:
        cutoff: highest frequency that is kept.
        half_width: half of the transition band around it.
        rate: samples per image side.
        size: samples per side of the layer's maps, margins included.
        channels: number of maps.
    """

    cutoff: float
    half_width: float
    rate: int
    size: int
    channels: int


def bands(
    size: int, layers: int, channels: int, max_channels: int, margin: int, critical: int = 2
) -> list[Band]:
    """Lay out the bands of the input (entry 0) and of each layer.

    Cutoffs grow geometrically from 2 to size/2, where the last ``critical`` layers stay; stop bands from
    2^2.1 to 2^0.3·size/2; the rate is the smallest size/2^k that holds the stop band, and the size at most
    (Karras et al. 2021, section 3.2 and appendix D). Width grows as the band narrows, as 1/cutoff.

    Args:
        size: side of the image, at least 8.
        layers: number of layers, more than ``critical``.
        channels: width of a layer at full band.
        max_channels: its limit.
        margin: samples around the image on each side, cut away after the last layer.
        critical: layers at full band.

    >>> [(b.rate, round(b.cutoff, 1), b.channels) for b in bands(64, 6, 16, 64, margin=6)]
    [(16, 2.0, 64), (16, 3.5, 64), (32, 6.1, 64), (64, 10.6, 48), (64, 18.4, 24), (64, 32.0, 16), (64, 32.0, 16)]
    """
    full = size / 2
    start, stop_start, stop_end = 2.0, 2**2.1, full * 2**0.3
    out = []
    for i in range(layers + 1):
        x = min(i / (layers + 1 - critical), 1.0)
        cutoff, stop = start * (full / start) ** x, stop_start * (stop_end / stop_start) ** x
        rate = size
        while rate % 2 == 0 and rate // 2 >= 2 * stop:
            rate //= 2
        half_width = max(stop, rate / 2) - cutoff
        width = min(max_channels, 8 * max(1, round(channels * full / cutoff / 8)))
        out.append(Band(cutoff, half_width, rate, rate + 2 * margin * (i < layers), width))
    return out
