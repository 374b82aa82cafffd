"""The network of `VDVAE`: a bottom-up encoder and a top-down decoder with a latent in every layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from ubf_augment.generators._count_likelihood import CountChain

_LOG_STD_BOUND = 5.0


class Block(nn.Module):
    """Bottleneck of four convolutions (1×1, 3×3, 3×3, 1×1), each after a GELU, as in Child 2021, figure 3.

    On maps of two pixels and less the middle ones are 1×1.
    """

    def __init__(self, width: int, middle: int, out: int, wide: bool, scale: float = 1.0) -> None:
        """Build the block with He's initial weights, the last ones times ``scale`` (arXiv:1502.01852).

        Torch's own would let a signal lose nine tenths in each block.
        """
        super().__init__()
        kernel, padding = (3, 1) if wide else (1, 0)
        self.convs = nn.ModuleList(
            [
                nn.Conv2d(width, middle, 1),
                nn.Conv2d(middle, middle, kernel, padding=padding),
                nn.Conv2d(middle, middle, kernel, padding=padding),
                nn.Conv2d(middle, out, 1),
            ]
        )
        for i, conv in enumerate(self.convs):
            set_weights(conv, scale if i == 3 else math.sqrt(2))

    def forward(self, x: Tensor) -> Tensor:
        for conv in self.convs:
            x = conv(F.gelu(x))
        return x


class StochasticLayer(nn.Module):
    """One layer of the decoder: p(z | x), q(z | x, e), and how z enters the features x."""

    def __init__(
        self, width: int, middle: int, latent: int, wide: bool, num_classes: int | None, scale: float
    ) -> None:
        super().__init__()
        self.latent = latent
        self.label = None if num_classes is None else nn.Embedding(num_classes, width)
        if self.label is not None:
            nn.init.normal_(self.label.weight, std=0.5)
        self.prior = Block(width, middle, 2 * latent + width, wide, 0.5)
        self.posterior = Block(2 * width, middle, 2 * latent, wide)
        self.project = nn.Conv2d(latent, width, 1)
        set_weights(self.project, scale)
        self.residual = Block(width, middle, width, wide, scale)

    def add_label(self, x: Tensor, y: Tensor | None) -> Tensor:
        """Add the class's own vector to every pixel."""
        return x if self.label is None else x + self.label(y)[:, :, None, None]

    def prior_of(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean and log standard deviation of p(z | x), and what the prior's block adds to x."""
        mean, log_std, features = self.prior(x).split([self.latent, self.latent, x.shape[1]], 1)
        return mean.float(), _bounded(log_std), features

    def posterior_of(self, x: Tensor, e: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation of q(z | x, e)."""
        mean, log_std = self.posterior(torch.cat([x, e], 1)).chunk(2, 1)
        return mean.float(), _bounded(log_std)

    def absorb(self, x: Tensor, z: Tensor) -> Tensor:
        """Add z to the features."""
        x = x + self.project(z.to(x.dtype))
        return cast(Tensor, x + self.residual(x))


class Encoder(nn.Module):
    """Residual blocks at falling resolution; gives the features of each level."""

    def __init__(
        self, num_endmembers: int, widths: list[int], middles: list[int], blocks: list[int], sides: list[int]
    ) -> None:
        super().__init__()
        self.num_endmembers = num_endmembers
        self.stem = nn.Conv2d(num_endmembers, widths[0], 3, padding=1)
        scale = math.sqrt(1 / max(1, sum(blocks)))
        self.levels = nn.ModuleList()
        self.enter = nn.ModuleList()
        for i, width in enumerate(widths):
            before = widths[max(0, i - 1)]
            self.enter.append(nn.Identity() if before == width else nn.Conv2d(before, width, 1))
            self.levels.append(
                nn.ModuleList(Block(width, middles[i], width, sides[i] > 2, scale) for _ in range(blocks[i]))
            )

    def forward(self, a: Tensor) -> list[Tensor]:
        x = self.stem(4 * (a - 1 / self.num_endmembers))
        features = []
        for i, level in enumerate(self.levels):
            if i:
                x = F.avg_pool2d(self.enter[i](x), 2)
            for block in cast(nn.ModuleList, level):
                x = x + block(x)
            features.append(x)
        return features


class Network(nn.Module):
    """Encoder, decoder and likelihood; its forward gives the two parts of the bound.

    Attributes:
        latent_shapes: (z, h, w) of each latent, from coarse to fine.
    """

    def __init__(
        self, num_endmembers: int, size: tuple[int, int], num_classes: int | None, widths: list[int],
        middles: list[int], encoder_blocks: list[int], decoder_blocks: list[int], latent: int, mixtures: int,
    ) -> None:  # fmt: skip
        super().__init__()
        self.chain = CountChain(num_endmembers, mixtures)
        sizes = [(size[0] >> i, size[1] >> i) for i in range(len(widths))]
        sides = [min(s) for s in sizes]
        self.encoder = Encoder(num_endmembers, widths, middles, encoder_blocks, sides)
        scale = math.sqrt(1 / sum(decoder_blocks))
        self.levels, self.enter, self.bias = nn.ModuleList(), nn.ModuleList(), nn.ParameterList()
        self.latent_shapes: list[tuple[int, int, int]] = []
        for i in reversed(range(len(widths))):
            width, coarser = widths[i], widths[min(i + 1, len(widths) - 1)]
            self.enter.append(nn.Identity() if coarser == width else nn.Conv2d(coarser, width, 1))
            self.bias.append(nn.Parameter(0.1 * torch.randn(width, *sizes[i])))
            self.levels.append(
                nn.ModuleList(
                    StochasticLayer(width, middles[i], latent, sides[i] > 2, num_classes, scale)
                    for _ in range(decoder_blocks[i])
                )
            )
            self.latent_shapes += [(latent, *sizes[i])] * decoder_blocks[i]
        self.head = nn.Conv2d(widths[0], self.chain.channels, 1)
        set_weights(self.head, 0.1)
        self.to(memory_format=torch.channels_last)

    def top_down(
        self,
        y: Tensor | None,
        noise: Sequence[Tensor | None],
        features: list[Tensor] | None = None,
        keep: int = 0,
        temperature: float = 1.0,
        count: int = 1,
    ) -> tuple[Tensor, Tensor]:
        """Go through the decoder: the first ``keep`` latents from the posterior, the others from the prior.

        Args:
            y: classes (B,).
            noise: standard normal numbers of each latent; None takes the distribution's mean.
            features: of the encoder; needed if ``keep``.
            keep: number of latents from the posterior, counted from the coarsest.
            temperature: factor on the prior's standard deviations.
            count: B.

        Returns:
            The likelihood's raw parameters (B,c,H,W) and the sum of Kullback-Leibler divergences in nats (B,).
        """
        kl = torch.zeros(count, device=self.head.weight.device)
        x = torch.zeros(())
        number = 0
        for i, level in enumerate(self.levels):
            x = self._enter(i, x, count)
            for layer in cast(list[StochasticLayer], level):
                x = layer.add_label(x, y)
                mean, log_std, added = layer.prior_of(x)
                if number < keep:
                    assert features is not None
                    q_mean, q_log_std = layer.posterior_of(x, features[len(self.levels) - 1 - i])
                    kl = kl + _gaussian_kl(q_mean, q_log_std, mean, log_std).sum((1, 2, 3))
                    mean, std = q_mean, q_log_std.exp()
                else:
                    std = temperature * log_std.exp()
                given = noise[number]
                x = layer.absorb(x + added, mean if given is None else mean + std * given)
                number += 1
        return self.head(x), kl

    def _enter(self, i: int, x: Tensor, count: int) -> Tensor:
        """Start level i: nearest upsampling of the level above plus the level's own learned bias."""
        if not i:
            return cast(Tensor, self.bias[0]).repeat(count, 1, 1, 1)
        return cast(Tensor, F.interpolate(self.enter[i](x), scale_factor=2.0, mode="nearest") + self.bias[i])

    def forward(
        self,
        counts: Float[Tensor, "b p h w"],
        y: Tensor | None,
        noise: Sequence[Tensor | None],
    ) -> Float[Tensor, "b 2"]:
        """Give −log p(n | z) and the divergence of each map, in bits per free count: H·W·(P − 1) of them."""
        a = (counts / self.chain.levels).contiguous(memory_format=torch.channels_last)
        raw, kl = self.top_down(y, noise, self.encoder(a), len(noise), count=len(a))
        with torch.autocast(a.device.type, enabled=False):
            nats = -self.chain.log_prob(raw, counts).sum((1, 2))
        unit = math.log(2) * a[0, 1:].numel()
        return torch.stack([nats, kl.float()], 1) / unit


def _bounded(log_std: Tensor) -> Tensor:
    """Log standard deviations within ±5, smoothly, so that no divergence can blow up."""
    return _LOG_STD_BOUND * torch.tanh(log_std.float() / _LOG_STD_BOUND)


def _gaussian_kl(m: Tensor, log_s: Tensor, prior_m: Tensor, prior_log_s: Tensor) -> Tensor:
    """KL(N(m, s²) ‖ N(m', s'²)) = log s' − log s + (s² + (m − m')²) / (2 s'²) − ½, in nats."""
    spread = (2 * log_s).exp() + (m - prior_m).square()
    return prior_log_s - log_s + 0.5 * spread * (-2 * prior_log_s).exp() - 0.5


def set_weights(conv: nn.Module, gain: float) -> None:
    """Draw weights of deviation gain / √(inputs), and set the bias to zero."""
    assert isinstance(conv, nn.Conv2d)
    nn.init.normal_(conv.weight, std=gain / math.sqrt(conv.weight[0].numel()))
    nn.init.zeros_(cast(Tensor, conv.bias))
