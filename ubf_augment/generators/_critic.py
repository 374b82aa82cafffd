"""The critic of adversarial training: a residual projection network, and its adaptive augmentation."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from ubf_augment.generators._synthesis import EqualLinear
from ubf_augment.generators.maps import dihedral

_GAIN = math.sqrt(2.0)


class EqualConv(nn.Module):
    """Convolution with its scale at run time (see `EqualLinear`), zeros outside."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, bias: bool = True) -> None:
        """Draw the weights."""
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self.gain = 1 / math.sqrt(inputs * kernel**2)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve."""
        return F.conv2d(x, self.weight * self.gain, self.bias, padding=self.weight.shape[-1] // 2)


class Residual(nn.Module):
    """Two convolutions, the second at half the size, beside a 1×1 one; power kept."""

    def __init__(self, inputs: int, outputs: int) -> None:
        """Build the three convolutions."""
        super().__init__()
        self.first, self.second = EqualConv(inputs, inputs, 3), EqualConv(inputs, outputs, 3)
        self.beside = EqualConv(inputs, outputs, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Give (B,C',⌈H/2⌉,⌈W/2⌉)."""
        y = F.avg_pool2d(_active(self.first(x)), 2, ceil_mode=True)
        beside: Tensor = self.beside(F.avg_pool2d(x, 2, ceil_mode=True))
        return (_active(self.second(y)) + beside) / _GAIN


def _active(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.2) * _GAIN


def spread(x: Float[Tensor, "b c h w"], group: int = 4) -> Float[Tensor, "b 1 h w"]:
    """Give each sample the mean standard deviation within its group, as one more map.

    A critic then sees that samples resemble each other too much (Karras et al. 2018, arXiv:1710.10196,
    section 3). Groups are of the largest size ≤ ``group`` that divides the batch.

    >>> spread(torch.tensor([0.0, 2.0, 5.0, 5.0]).view(4, 1, 1, 1), group=2).flatten().round(decimals=3)
    tensor([1., 1., 0., 0.])
    """
    b, _, h, w = x.shape
    size = max(g for g in range(1, group + 1) if b % g == 0)
    parts = x.reshape(b // size, size, -1)
    deviation = (parts.var(1, correction=0) + 1e-8).sqrt().mean(1)
    return deviation.repeat_interleave(size).view(b, 1, 1, 1).expand(b, 1, h, w)


class Critic(nn.Module):
    """Score of maps (B,P,H,W) given classes: ψ(φ(a)) + ⟨e_y, φ(a)⟩ / √d, φ a residual network of d features.

    Projection: Miyato & Koyama 2018 (arXiv:1802.05637); network: Karras et al. 2020 (arXiv:1912.04958).
    """

    def __init__(
        self, num_endmembers: int, size: tuple[int, int], num_classes: int | None, channels: int,
        max_channels: int, minibatch_std: bool,
    ) -> None:  # fmt: skip
        """Halve until at most 4 pixels are left on a side, doubling the width."""
        super().__init__()
        self.start = EqualConv(num_endmembers, channels, 1)
        blocks, side = [], max(size)
        while side > 4:
            wide = min(2 * channels, max_channels)
            blocks.append(Residual(channels, wide))
            channels, side = wide, -(-side // 2)
        self.blocks = nn.Sequential(*blocks)
        self.minibatch_std = minibatch_std
        self.mix = EqualConv(channels + minibatch_std, channels, 3)
        self.features = EqualLinear(channels * side**2, channels)
        self.score = EqualLinear(channels, 1)
        self.embedding = None if num_classes is None else nn.Embedding(num_classes, channels)
        self.to(memory_format=torch.channels_last)

    def forward(self, a: Tensor, y: Tensor | None) -> Tensor:
        """Give scores (B,), positive for maps held to be real."""
        x = (2 * a - 1).contiguous(memory_format=torch.channels_last)
        x = self.blocks(_active(self.start(x)))
        if self.minibatch_std:
            x = torch.cat([x, spread(x.float()).to(x.dtype)], 1)
        phi = _active(self.features(_active(self.mix(x)).flatten(1)))
        score: Tensor = self.score(phi).squeeze(1)
        if self.embedding is not None:
            score = score + (self.embedding(y) * phi).mean(1) * math.sqrt(phi.shape[1])
        return score.float()


def gradient_penalty(scores: Float[Tensor, "b"], maps: Float[Tensor, "b p h w"]) -> Float[Tensor, ""]:
    """Compute R₁ = ½ mean over samples of ‖∂D/∂a‖², differentiable (Mescheder et al. 2018, arXiv:1801.04406).

    >>> a = torch.ones(2, 1, 1, 1, requires_grad=True)
    >>> float(gradient_penalty((3 * a).flatten(), a).detach())
    4.5
    """
    (gradient,) = torch.autograd.grad(scores.sum(), maps, create_graph=True)
    return 0.5 * gradient.float().square().sum((1, 2, 3)).mean()


class AdaptiveAugment(nn.Module):
    """Random changes of real and generated maps before the critic, stronger as the critic overfits.

    Each change is made with probability p, per sample: one of the 8 symmetries (4 if not square), a whole-pixel
    shift by up to 1/8 with reflection, a mixing of up to half with the map's mean abundances (the "colour"
    of a map: endmembers drawn together), and a square of half the size set to 1/P. All keep the simplex, and
    at p < 1 none hides the original distribution. With r_t = mean sign D(real), p rises by
    (samples seen)/``images`` where r_t is above the target and falls where it is below, every 4 batches
    (Karras et al. 2020, arXiv:2006.06676, sections 2 and 3.1).
    """

    p: Tensor
    r: Tensor
    signs: Tensor

    EVERY = 4

    def __init__(self, target: float = 0.6, images: float = 100_000, highest: float = 0.8) -> None:
        """Start at p = 0.

        Args:
            target: r_t at which p rests.
            images: real maps for p to go from 0 to 1.
            highest: limit of p; near 1 the generator could learn the changes.
        """
        super().__init__()
        self.target, self.images, self.highest = target, images, highest
        self.register_buffer("p", torch.zeros(()))
        self.register_buffer("r", torch.zeros(()))  # the last r_t
        self.register_buffer("signs", torch.zeros(3))  # sum of signs, samples, batches since p changed

    @torch.no_grad()
    def update(self, scores: Float[Tensor, "b"]) -> None:
        """Take the critic's scores of real maps; after 4 batches move p."""
        seen = scores.new_tensor([0.0, len(scores), 1.0])
        seen[0] = scores.sign().sum()
        self.signs += seen
        total, count, batches = self.signs.tolist()
        if batches >= self.EVERY:
            self.r.fill_(total / count)
            step = math.copysign(count / self.images, total / count - self.target)
            self.p.fill_(min(max(float(self.p) + step, 0.0), self.highest))
            self.signs.zero_()

    def forward(self, a: Float[Tensor, "b p h w"], generator: torch.Generator) -> Float[Tensor, "b p h w"]:
        """Change maps; all random numbers come from ``generator`` (on the CPU)."""
        b, device, p = len(a), a.device, float(self.p)
        chosen = torch.rand(4, b, generator=generator) < p
        amount = torch.rand(b, generator=generator) / 2 * chosen[0]
        op = torch.randint(8 if a.shape[2] == a.shape[3] else 4, (b,), generator=generator) * chosen[1]
        move = (torch.rand(b, 2, generator=generator) * 2 - 1) / 8 * chosen[2][:, None]
        centre = torch.rand(b, 2, generator=generator)
        if chosen[0].any():
            a = torch.lerp(a, a.mean((2, 3), keepdim=True), amount.to(device).view(b, 1, 1, 1))
        if chosen[1].any():
            a = dihedral(a, op)
        if chosen[2].any():
            a = translate(a, (move * torch.tensor(a.shape[2:])).round().long())
        if chosen[3].any():
            a = torch.where(_square(a, centre, chosen[3]), 1 / a.shape[1], a)
        return a


def translate(a: Float[Tensor, "b c h w"], by: Int64[Tensor, "b 2"]) -> Float[Tensor, "b c h w"]:
    """Shift each map by its own whole pixels (down, right); what comes in is reflected.

    >>> x = torch.arange(4.0).view(1, 1, 1, 4)
    >>> translate(x, torch.tensor([[0, 1]])).flatten().tolist()
    [1.0, 0.0, 1.0, 2.0]
    """
    b, c, h, w = a.shape
    rows, columns = (
        _reflect(torch.arange(n) - by[:, i : i + 1], n).to(a.device) for i, n in enumerate((h, w))
    )
    a = a.gather(2, rows.view(b, 1, h, 1).expand(b, c, h, w))
    return a.gather(3, columns.view(b, 1, 1, w).expand(b, c, h, w))


def _reflect(i: Tensor, n: int) -> Tensor:
    i = i.abs()
    return torch.where(i > n - 1, 2 * (n - 1) - i, i)


def _square(a: Tensor, centre: Tensor, chosen: Tensor) -> Tensor:
    """Mask (B,1,H,W): within half a map's size around the centre, where chosen."""
    inside = [
        ((torch.arange(n) + 0.5) / n - centre[:, i : i + 1]).abs() < 0.25 for i, n in enumerate(a.shape[2:])
    ]
    mask = inside[0][:, :, None] & inside[1][:, None, :] & chosen[:, None, None]
    return mask.unsqueeze(1).to(a.device)
