"""The networks of StyleGAN3's generator: mapping, Fourier input, modulated convolutions, synthesis."""

from __future__ import annotations

import math
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ubf_augment.generators._alias_free import (
    OVERSAMPLING,
    TAPS,
    Band,
    bands,
    filtered_leaky_relu,
    lowpass,
    plain_leaky_relu,
    radial_lowpass,
)

_EPS = 1e-8


class EqualLinear(nn.Module):
    """Linear layer with its scale at run time: weights start at N(0, 1), so Adam moves all layers alike.

    Karras et al. 2018 (arXiv:1710.10196, section 4.1). ``speed`` slows learning down without changing the start.
    """

    def __init__(
        self, inputs: int, outputs: int, *, speed: float = 1.0, scale: float = 1.0, bias: float = 0.0
    ) -> None:
        """Draw the weights times ``scale``."""
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) * (scale / speed))
        self.bias = nn.Parameter(torch.full((outputs,), bias / speed))
        self.gain, self.speed = speed / math.sqrt(inputs), speed

    def forward(self, x: Tensor) -> Tensor:
        """Give x Wᵀ + b."""
        return F.linear(x, self.weight * self.gain, self.bias * self.speed)


def unit_power(x: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
    """Scale rows to mean square one."""
    return x * (x.square().mean(1, keepdim=True) + _EPS).rsqrt()


class Mapping(nn.Module):
    """z and class embedding to style w: both scaled to unit power, then two slow layers with leaky ReLU."""

    def __init__(self, z_dim: int, w_dim: int, num_classes: int | None, speed: float) -> None:
        """Build the layers."""
        super().__init__()
        self.embedding = None if num_classes is None else nn.Embedding(num_classes, w_dim)
        widths = (z_dim + (0 if num_classes is None else w_dim), w_dim, w_dim)
        self.layers = nn.ModuleList(EqualLinear(widths[i], widths[i + 1], speed=speed) for i in range(2))

    def forward(self, z: Tensor, y: Tensor | None) -> Tensor:
        """Give w (B,w_dim) for z (B,z_dim) and y (B,)."""
        x = unit_power(z)
        if self.embedding is not None:
            x = torch.cat([x, unit_power(self.embedding(y))], 1)
        for layer in self.layers:
            x = F.leaky_relu(layer(x), 0.2) * math.sqrt(2.0)
        return x


class FourierInput(nn.Module):
    """Waves of fixed random frequency and phase on a plane that the style, and the caller, may turn and shift.

    Feature c at point u (image sides, 0 in the middle) is sin(2π (f_c · v + φ_c)), f_c uniform in the disc
    of the first cutoff, v = R_w R(−θ)(u − t) − t_w; the style's rotation R_w and shift t_w start at none. A
    learned matrix mixes the features.
    """

    frequencies: Tensor
    phases: Tensor

    def __init__(self, band: Band, w_dim: int) -> None:
        """Draw the waves."""
        super().__init__()
        self.band = band
        radius = band.cutoff * torch.rand(band.channels).sqrt()
        direction = 2 * math.pi * torch.rand(band.channels)
        waves = torch.stack([radius * direction.sin(), radius * direction.cos()], 1)
        self.register_buffer("frequencies", waves)
        self.register_buffer("phases", torch.rand(band.channels))
        self.affine = EqualLinear(w_dim, 4, scale=0.0)
        with torch.no_grad():
            self.affine.bias.copy_(torch.tensor([1.0, 0.0, 0.0, 0.0]))
        self.weight = nn.Parameter(torch.randn(band.channels, band.channels))

    def forward(self, w: Tensor, shift: Tensor, angle: Tensor) -> Tensor:
        """Give (B,C,n,n) for styles w, shifts (B,2) in image sides and angles (B,) in radians."""
        cos, sin, *moved = self.affine(w).unbind(1)
        length = (cos.square() + sin.square() + _EPS).rsqrt()
        waves = self.frequencies @ rotation(
            cos * length, sin * length
        )  # (B,C,2): (f R_w) · v' = f · (R_w v')
        phases = self.phases - torch.stack(moved, 1) @ self.frequencies.T
        waves = waves @ rotation(angle.cos(), -angle.sin())
        phases = phases - (waves @ shift.unsqueeze(2)).squeeze(2)
        n = self.band.size
        at = (torch.arange(n, device=w.device) + 0.5 - n / 2) / self.band.rate
        rows, columns = waves[..., :1] * at + phases.unsqueeze(2), waves[..., 1:] * at
        x = torch.sin(2 * math.pi * (rows.unsqueeze(3) + columns.unsqueeze(2)))
        x = x.contiguous(memory_format=torch.channels_last)
        return F.conv2d(x, (self.weight / math.sqrt(len(self.weight)))[..., None, None])


def rotation(cos: Float[Tensor, "b"], sin: Float[Tensor, "b"]) -> Float[Tensor, "b 2 2"]:
    """Matrices that turn (row, column) vectors: a positive angle takes +column to −row, anticlockwise on a screen.

    >>> rotation(torch.zeros(1), torch.ones(1))[0] @ torch.tensor([0.0, 1.0])
    tensor([-1.,  0.])
    """
    return torch.stack([torch.stack([cos, -sin], 1), torch.stack([sin, cos], 1)], 1)


class ModulatedConv(nn.Module):
    """Convolution whose input channels are scaled per sample by a style s(w), its power set back to one.

    Sample b uses weights W_oik s_bi, divided by √Σ_ik (W_oik s_bi)² where ``demodulate`` (Karras et al. 2020,
    arXiv:1912.04958, section 2.2), computed by scaling channels before and after one shared convolution. The
    input is divided by the moving root mean square of its values over the training, a buffer.
    """

    magnitude: Tensor
    updates: Tensor

    def __init__(
        self, inputs: int, outputs: int, kernel: int, w_dim: int, *, demodulate: bool = True, decay: float
    ) -> None:
        """Draw the weights."""
        super().__init__()
        self.affine = EqualLinear(w_dim, inputs, bias=1.0)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.demodulate, self.decay = demodulate, decay
        self.register_buffer("magnitude", torch.ones(()))
        self.register_buffer("updates", torch.zeros(()))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """Convolve x (B,C,n,n) with the styles w (B,w_dim); same size, zeros outside."""
        if self.training:
            with torch.no_grad():
                self.updates += 1  # a plain mean at first: the start does not linger
                share = (1 / self.updates).clamp_min(1 - self.decay)
                self.magnitude.lerp_(x.float().square().mean(), share)
        return self.convolve(x * self.magnitude.clamp_min(_EPS).rsqrt(), self.affine(w))

    def convolve(self, x: Float[Tensor, "b i n n"], styles: Float[Tensor, "b i"]) -> Float[Tensor, "b o n n"]:
        """Modulate, convolve, demodulate, add the bias."""
        weight = self.weight / math.sqrt(self.weight[0].numel())
        y = F.conv2d(x * styles[..., None, None], weight, padding=weight.shape[-1] // 2)
        if not self.demodulate:
            return y + self.bias.view(-1, 1, 1)
        power = styles.square() @ weight.square().sum((2, 3)).T
        scale = (power + _EPS).rsqrt()[..., None, None]
        return torch.addcmul(self.bias.view(-1, 1, 1), y, scale.to(y.dtype))


class Layer(nn.Module):
    """Modulated convolution at the rate of the band before, then the non-linearity into the band after."""

    up: Tensor
    down: Tensor

    def __init__(
        self, before: Band, after: Band, w_dim: int, *, radial: bool, filtered: bool, decay: float
    ) -> None:
        """Design the filters; ``radial`` means 1×1 convolutions and radial filters below the full band."""
        super().__init__()
        self.conv = ModulatedConv(before.channels, after.channels, 1 if radial else 3, w_dim, decay=decay)
        high = OVERSAMPLING * max(before.rate, after.rate)
        self.factors = high // before.rate, high // after.rate
        self.filtered, self.before, self.after = filtered, before, after
        up = lowpass(TAPS * self.factors[0], before.cutoff, before.half_width, high, self.factors[0])
        design = radial_lowpass if radial and after.cutoff < after.rate / 2 else lowpass
        down = design(TAPS * self.factors[1], after.cutoff, after.half_width, high)
        self.register_buffer("up", up, persistent=False)
        self.register_buffer("down", down, persistent=False)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """Give (B,C',m,m) for x (B,C,n,n) and styles w."""
        x = self.conv(x, w)
        if self.filtered:
            return filtered_leaky_relu(x, self.up, self.down, self.factors, self.after.size)
        return plain_leaky_relu(x, self.after.rate // self.before.rate, self.after.size)


class Synthesis(nn.Module):
    """Style to logits (B,P,H,H): Fourier input, layers of growing band, one modulated 1×1 convolution."""

    def __init__(
        self, outputs: int, size: int, w_dim: int, layers: int, channels: int, max_channels: int,
        margin: int, radial: bool, filtered: bool, decay: float,
    ) -> None:  # fmt: skip
        """Build the layers of `bands`."""
        super().__init__()
        self.bands = bands(size, layers, channels, max_channels, margin)
        self.input = FourierInput(self.bands[0], w_dim)
        self.layers = nn.ModuleList(
            Layer(before, after, w_dim, radial=radial, filtered=filtered, decay=decay)
            for before, after in zip(self.bands[:-1], self.bands[1:], strict=True)
        )
        self.output = ModulatedConv(self.bands[-1].channels, outputs, 1, w_dim, demodulate=False, decay=decay)
        self.to(memory_format=torch.channels_last)

    def forward(self, w: Tensor, shift: Tensor, angle: Tensor) -> Tensor:
        """Give logits for styles w (B,w_dim), shifts (B,2) in image sides, angles (B,) in radians."""
        x = self.input(w, shift, angle)
        for layer in self.layers:
            x = layer(x, w)
        return cast(Tensor, self.output(x, w)).float()
