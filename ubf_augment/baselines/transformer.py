"""Spectral-wise transformer: attention between channels, and the U-shaped network that is made of it."""

from __future__ import annotations

from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

LEVELS = 2
"""Times that a `SpectralTransformer` halves its maps: height and width must be multiples of 2^LEVELS."""
_EXPANSION = 4


class SpectralAttention(nn.Module):
    """Multi-head self-attention whose tokens are the channels, each described by its whole map.

    With queries, keys and values q, k, v (one map each per channel, 1×1 convolutions of the input), split into heads of d
    channels, and q̂, k̂ scaled to unit length over the H·W pixels,

        A_ij = softmax_j(σ ⟨q̂_i, k̂_j⟩),   out_i = Σ_j A_ij v_j,

    with one learned σ per head. The heads are joined by a 1×1 convolution, and two depthwise 3×3 convolutions of v, which
    see positions, are added. The cost grows as H·W·C²/heads: linear in the number of pixels. As A comes from the whole
    image, a pixel's result depends on the window that it is seen in.

    Source: Cai et al. 2022, CVPRW, arXiv:2204.07908.

    Raises:
        ValueError: if ``channels`` is no multiple of ``heads``.

    >>> SpectralAttention(channels=4, heads=2)(torch.rand(1, 4, 5, 3)).shape
    torch.Size([1, 4, 5, 3])
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        if heads < 1 or channels % heads:
            raise ValueError(f"{channels} channels cannot be split into {heads} heads: use a multiple")
        self.heads = heads
        self.qkv = nn.Conv2d(channels, 3 * channels, 1, bias=False)
        self.sigma = nn.Parameter(torch.ones(heads, 1, 1))
        self.join = nn.Conv2d(channels, channels, 1)
        self.positions = nn.Sequential(_depthwise(channels), nn.GELU(), _depthwise(channels))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Apply the attention."""
        b, c, h, w = x.shape
        q, k, v = self.qkv(x).chunk(3, 1)
        q, k, tokens = (t.reshape(b, self.heads, c // self.heads, h * w) for t in (q, k, v))
        scores = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-1, -2)
        mixed = torch.softmax(self.sigma * scores, -1) @ tokens
        return cast(Tensor, self.join(mixed.reshape(b, c, h, w)) + self.positions(v))


class _Block(nn.Module):
    """Spectral-wise attention block: x + attention(norm(x)), then x + feed-forward(norm(x))."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        inner = _EXPANSION * channels
        self.norm_attention, self.norm_forward = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.attention = SpectralAttention(channels, heads)
        self.feed_forward = nn.Sequential(
            nn.Conv2d(channels, inner, 1, bias=False), nn.GELU(), _depthwise(inner), nn.GELU(),
            nn.Conv2d(inner, channels, 1, bias=False),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(_per_pixel(self.norm_attention, x))
        return cast(Tensor, x + self.feed_forward(_per_pixel(self.norm_forward, x)))


class SpectralTransformer(nn.Module):
    """Single-stage spectral-wise transformer (SST): a U-Net of attention blocks, F channels in and out, plus its input.

    Encoder levels of F and 2F channels (each followed by a strided 4×4 convolution that halves the maps and doubles the
    channels), a bottleneck of 4F, and a decoder (2×2 transposed convolution, joined with the encoder's maps by a 1×1
    convolution); 3×3 convolutions at both ends. Heads have F channels: 1, 2 and 4 of them.

    Source: Cai et al. 2022, CVPRW, arXiv:2204.07908.

    >>> SpectralTransformer(channels=4, blocks=1)(torch.rand(1, 4, 8, 12)).shape
    torch.Size([1, 4, 8, 12])
    """

    def __init__(self, channels: int, blocks: int) -> None:
        """Build the network.

        Args:
            channels: F.
            blocks: attention blocks per level.
        """
        super().__init__()

        def level(i: int) -> nn.Sequential:
            return nn.Sequential(*(_Block(channels << i, 1 << i) for _ in range(blocks)))

        self.entry = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.encoder = nn.ModuleList(level(i) for i in range(LEVELS))
        self.down = nn.ModuleList(
            nn.Conv2d(channels << i, channels << (i + 1), 4, stride=2, padding=1, bias=False)
            for i in range(LEVELS)
        )
        self.bottleneck = level(LEVELS)
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(channels << (i + 1), channels << i, 2, stride=2) for i in range(LEVELS)
        )
        self.join = nn.ModuleList(
            nn.Conv2d(channels << (i + 1), channels << i, 1, bias=False) for i in range(LEVELS)
        )
        self.decoder = nn.ModuleList(level(i) for i in range(LEVELS))
        self.head = nn.Conv2d(channels, channels, 3, padding=1, bias=False)

    def forward(self, x: Float[Tensor, "b f h w"]) -> Float[Tensor, "b f h w"]:
        """Apply the network to maps whose sides are multiples of 2^LEVELS."""
        z, skips = self.entry(x), []
        for block, down in zip(self.encoder, self.down, strict=True):
            z = block(z)
            skips.append(z)
            z = down(z)
        z = self.bottleneck(z)
        for i in reversed(range(LEVELS)):
            z = self.decoder[i](self.join[i](torch.cat([self.up[i](z), skips[i]], 1)))
        return cast(Tensor, x + self.head(z))


def _depthwise(channels: int) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)


def _per_pixel(norm: nn.Module, x: Tensor) -> Tensor:
    return cast(Tensor, norm(x.movedim(1, -1)).movedim(-1, 1))
