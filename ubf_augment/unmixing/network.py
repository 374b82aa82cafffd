"""Encoders from images to abundances: spatial-spectral residual blocks with channel attention, softmax at the end."""

from __future__ import annotations

from typing import cast

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from ubf_augment import simplex
from ubf_augment.errors import BandCountError, LabelError, ShapeError
from ubf_augment.seeding import Generators, randn


class SpatialSpectralBlock(nn.Module):
    """Residual 3×3 convolutions (space), then residual 1×1 convolutions with channel attention (spectrum), each ×0.1.

    The attention weights are computed per pixel, not from the mean of the picture: what a pixel is made of must not depend on
    how large a window it is cut from. The receptive field of a block is 5 pixels.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.spatial = nn.Sequential(_conv3(width), nn.ReLU(), _conv3(width))
        self.spectral = nn.Sequential(nn.Conv2d(width, width, 1), nn.ReLU(), nn.Conv2d(width, width, 1))
        self.attention = nn.Sequential(
            nn.Conv2d(width, max(width // 8, 4), 1),
            nn.ReLU(),
            nn.Conv2d(max(width // 8, 4), width, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: Float[Tensor, "b f h w"]) -> Float[Tensor, "b f h w"]:
        """Apply the block."""
        x = x + 0.1 * self.spatial(x)
        z = self.spectral(x)
        return cast(Tensor, x + 0.1 * z * self.attention(z))


def _conv3(width: int) -> nn.Conv2d:
    return nn.Conv2d(width, width, 3, padding=1, padding_mode="replicate")


class AbundanceEncoder(nn.Module):
    """Reflectance (B, C, H, W) → abundances (B, P, H, W), for any H and W.

    The input is standardised per band, once for the sensor (never per image), beside its square root, which spreads dark
    pixels. With ``num_classes`` the scene class shifts and scales the features (FiLM, Perez et al. 2018, arXiv:1709.07871); class
    index K stands for "unknown". With ``probabilistic`` the network gives mean and deviation of a logistic-normal distribution
    (Aitchison and Shen 1980, doi:10.1093/biomet/67.2.261).

    Source: in the spirit of the unmixing network of Yu et al. 2024, CVPR, pp. 9297-9306 (squeeze-excitation: Hu et al. 2018,
    doi:10.1109/CVPR.2018.00745).

    >>> a = AbundanceEncoder(bands=3, num_endmembers=4, width=16, blocks=1)(torch.rand(1, 3, 5, 7))
    >>> a.shape, bool(torch.allclose(a.sum(1), torch.ones(1, 5, 7)))
    (torch.Size([1, 4, 5, 7]), True)
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, bands: int, num_endmembers: int, *, width: int = 64, blocks: int = 2, num_classes: int | None = None,
        probabilistic: bool = False,
    ) -> None:  # fmt: skip
        """Build the network.

        Args:
            bands: C.
            num_endmembers: P.
            width: feature channels.
            blocks: number of spatial–spectral blocks.
            num_classes: K, if the scene class is an input.
            probabilistic: predict a distribution instead of a point.
        """
        super().__init__()
        self.bands, self.num_endmembers, self.num_classes = bands, num_endmembers, num_classes
        self.probabilistic = probabilistic
        self.register_buffer("mean", torch.zeros(2 * bands))
        self.register_buffer("std", torch.ones(2 * bands))
        self.entry = nn.Conv2d(2 * bands, width, 1)
        self.lift = nn.Sequential(nn.ReLU(), nn.Conv2d(width, width, 1))
        self.blocks = nn.ModuleList(SpatialSpectralBlock(width) for _ in range(blocks))
        self.film = None if num_classes is None else nn.Embedding(num_classes + 1, 2 * width)
        if self.film is not None:
            nn.init.zeros_(self.film.weight)
        self.head = nn.Conv2d(width, num_endmembers * (2 if probabilistic else 1), 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(cast(Tensor, self.head.bias))

    @property
    def receptive_field(self) -> int:
        """Side of the window that one pixel's abundances depend on."""
        return 1 + 4 * len(self.blocks)

    @torch.no_grad()
    def set_statistics(self, pixels: Float[Tensor, "n c"]) -> None:
        """Take mean and deviation of the inputs from training pixels of the sensor."""
        z = _expand(pixels.T[None, :, :, None])[0, :, :, 0]
        self.mean.copy_(z.mean(1))
        self.std.copy_(z.std(1, correction=0).clamp_min(1e-6))

    def logits(
        self,
        x: Float[Tensor, "b c h w"],
        y: Int64[Tensor, "b"] | None = None,
        start: Float[Tensor, "b p h w"] | None = None,
    ) -> tuple[Float[Tensor, "b p h w"], Float[Tensor, "b p h w"] | None]:
        """Mean of the logits, and the logarithm of their deviation if the network is probabilistic."""
        if x.ndim != 4:
            raise ShapeError(
                f"images must be (B, C, H, W), got {tuple(x.shape)}: add a batch axis with x[None]"
            )
        if x.shape[1] != self.bands:
            raise BandCountError(f"the image has {x.shape[1]} bands, this encoder takes {self.bands}")
        z = (_expand(x) - self.mean.view(1, -1, 1, 1)) / self.std.view(1, -1, 1, 1)
        z = self.lift(self.entry(z))
        if self.film is not None:
            gain, shift = self.film(self._classes(y, x)).to(z.dtype)[:, :, None, None].chunk(2, 1)
            z = z * (1 + gain) + shift
        for block in self.blocks:
            z = block(z)
        mean, log_std = (self.head(z), None)
        if self.probabilistic:
            mean, log_std = mean.chunk(2, 1)
            log_std = log_std.clamp(-7, 3)
        return mean if start is None else mean + start.clamp_min(1e-3).log(), log_std

    def _classes(self, y: Tensor | None, x: Tensor) -> Tensor:
        assert self.num_classes is not None
        if y is None:
            return torch.full((len(x),), self.num_classes, device=x.device)
        if y.shape != (len(x),) or (len(y) and not 0 <= int(y.min()) <= int(y.max()) <= self.num_classes):
            raise LabelError(
                f"classes must be ({len(x)},) integers from 0 to {self.num_classes} ({self.num_classes}: unknown)"
            )
        return y.to(x.device)

    def forward(
        self,
        x: Float[Tensor, "b c h w"],
        y: Int64[Tensor, "b"] | None = None,
        generator: Generators = None,
        start: Float[Tensor, "b p h w"] | None = None,
    ) -> Float[Tensor, "b p h w"]:
        """Abundances of an image.

        Args:
            x: reflectance (B, C, H, W).
            y: scene classes (B,), K for unknown.
            generator: draw from the predicted distribution instead of taking its mean.
            start: first guess of the abundances; the network then predicts what to change in its logarithm, nothing
                before training.
        """
        mean, log_std = self.logits(x, y, start)
        if log_std is not None and generator is not None:
            mean = mean + log_std.exp() * randn(mean.shape, generator, mean.device, mean.dtype)
        return simplex.from_logits(mean.float()).to(x.dtype)


def _expand(x: Tensor) -> Tensor:
    return torch.cat([x, x.clamp_min(0).sqrt()], 1)
