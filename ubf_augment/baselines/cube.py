"""Generation without unmixing: the same diffusion on hyperspectral cubes, or on a free latent of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ubf_augment.errors import BandCountError, NoDataError, ShapeError
from ubf_augment.generators.codec import StandardCodec
from ubf_augment.generators.diffusion import DiffusionGenerator, Prediction, Schedule
from ubf_augment.generators.maps import dihedral, num_symmetries
from ubf_augment.losses import charbonnier, spectral_angle
from ubf_augment.seeding import seeded
from ubf_augment.training import EMA, History, digest, fit_loop, warmup_cosine

if TYPE_CHECKING:
    from lightning.fabric import Fabric


class CubeDiffusion(DiffusionGenerator):
    """The diffusion of `generators.DDPM` on images of any channels, without simplex: "without unmixing".

    On reflectance cubes it is the paper's ablation "HSI cube"; on the maps of a `SpectralAutoencoder` that of
    an unconstrained latent. Network, schedule, guidance and samplers are those of `generators.DDPM` with
    its "unshuffle" codec; only the projection onto the simplex is missing. Nothing keeps reflectance
    non-negative: that is a result, not repaired here.

    Source: Yu et al. 2024 (Unmixing Before Fusion, CVPR, pp. 9297-9306, ablation of the generation space).

    >>> cube = CubeDiffusion(5, (8, 8), num_classes=2, factor=2, widths=(16, 16))
    >>> cube.sample([0, 1], generator=torch.Generator().manual_seed(0), steps=2).shape
    torch.Size([2, 5, 8, 8])
    """

    _counts = "band count"

    def __init__(
        self, channels: int, size: Sequence[int] = (64, 64), num_classes: int | None = None, *,
        factor: int = 4, widths: Sequence[int] = (64, 128, 192), layers: int = 1, attention: Sequence[int] = (),
        head_dim: int = 64, dropout: float = 0.0, prediction: Prediction = "v_prediction",
        schedule: Schedule = "cosine", shift: float = 2.0, train_timesteps: int = 1000,
        label_dropout: float = 0.1, min_snr_gamma: float | None = None, init_seed: int = 0,
    ) -> None:  # fmt: skip
        """Build it; the arguments are those of `generators.DDPM`.

        Raises:
            ValueError: if sizes are not divisible, or a name is unknown.
        """
        super().__init__(channels, size, num_classes)
        self._keep(locals())
        self._diffuse(prediction, schedule, shift, train_timesteps, min_snr_gamma)
        with seeded(init_seed):
            codec = StandardCodec(channels, factor)
            self._build(codec, widths, layers, attention, head_dim, dropout, label_dropout)

    def _read(self, maps: Tensor, check: bool = False) -> Tensor:
        if not maps.is_floating_point():
            raise ShapeError(f"cubes are {maps.dtype}: give reflectance as floating point")
        if check and not torch.isfinite(maps).all():
            raise NoDataError("cubes hold NaN or infinite values: fill or drop these pixels first")
        return maps.float()

    def _close(self, maps: Tensor) -> Tensor:
        return self._read(maps, check=True)


class SpectralAutoencoder(nn.Module):
    """Pixel-wise autoencoder of spectra without any constraint: C bands → D free numbers → C bands.

    z = W₂ silu(W₁ x̃), x̂ = μ + σ · V₂ silu(V₁ z), with x̃ the standardised spectrum. It has the
    dimension of an abundance map, but no endmembers, no non-negativity and no sum to one: what remains of
    Unmixing Before Fusion when the unmixing is taken out. Trained with the loss of the unmixing network
    that applies, mean Charbonnier + 0.1 spectral angle.

    Source: Yu et al. 2024 (Unmixing Before Fusion, CVPR, pp. 9297-9306, ablation "without unmixing").

    >>> ae = SpectralAutoencoder(7, 3)
    >>> ae.decode(ae.encode(torch.rand(2, 7, 4, 4))).shape
    torch.Size([2, 7, 4, 4])
    """

    mean: Tensor
    std: Tensor

    def __init__(self, bands: int, dimension: int, width: int = 64, init_seed: int = 0) -> None:
        """Build for C bands and D latent channels.

        Raises:
            ValueError: if a size is not positive.
        """
        super().__init__()
        if min(bands, dimension, width) < 1:
            raise ValueError(
                f"bands, dimension and width must be positive, got {bands}, {dimension}, {width}"
            )
        self.bands, self.dimension = bands, dimension
        with seeded(init_seed):
            self.encoder = nn.Sequential(
                nn.Conv2d(bands, width, 1), nn.SiLU(), nn.Conv2d(width, dimension, 1)
            )
            self.decoder = nn.Sequential(
                nn.Conv2d(dimension, width, 1), nn.SiLU(), nn.Conv2d(width, bands, 1)
            )
        self.register_buffer("mean", torch.zeros(bands))
        self.register_buffer("std", torch.ones(bands))

    def encode(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        """Give the latent of reflectance.

        Raises:
            BandCountError: if the bands are not the autoencoder's.
        """
        if x.ndim != 4 or x.shape[1] != self.bands:
            raise BandCountError(f"images must be (B, {self.bands}, H, W), got {tuple(x.shape)}")
        return cast(Tensor, self.encoder((x - self.mean.view(1, -1, 1, 1)) / self.std.view(1, -1, 1, 1)))

    def decode(self, z: Float[Tensor, "b d h w"]) -> Float[Tensor, "b c h w"]:
        """Give reflectance of a latent."""
        return cast(Tensor, self.decoder(z)) * self.std.view(1, -1, 1, 1) + self.mean.view(1, -1, 1, 1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Reconstruct."""
        return self.decode(self.encode(x))

    def fit(
        self, images: Float[Tensor, "n c h w"], *, steps: int, batch_size: int = 16, lr: float = 2e-3,
        seed: int = 0, fabric: Fabric | None = None, checkpoint: Path | str | None = None, progress: bool = True,
    ) -> History:  # fmt: skip
        """Train on images.

        Args:
            images: (N, C, H, W) reflectance.
            steps: optimiser steps in total.
            batch_size: images per step.
            lr: peak learning rate.
            seed: of data order and symmetries.
            fabric: devices and precision.
            checkpoint: file to resume from and save to.
            progress: show progress.

        Raises:
            BandCountError: if the bands are not the autoencoder's.
            NoDataError: if values are not finite.
        """
        if images.ndim != 4 or images.shape[1] != self.bands:
            raise BandCountError(f"images must be (N, {self.bands}, H, W), got {tuple(images.shape)}")
        if not torch.isfinite(images).all():
            raise NoDataError("images hold NaN or infinite values: fill or drop these pixels first")
        self.mean.copy_(images.mean((0, 2, 3)))
        self.std.copy_(images.std((0, 2, 3)).clamp_min(1e-6))
        ops = num_symmetries((images.shape[2], images.shape[3]))

        def loss_fn(model: nn.Module, indices: Tensor, generator: torch.Generator) -> Tensor:
            op = torch.randint(ops, (len(indices),), generator=generator)
            x = dihedral(images[indices], op).to(self.mean.device)
            y = model(x)
            return charbonnier(y, x) + 0.1 * spectral_angle(y, x)

        ema = EMA(self, 0.998)
        history = fit_loop(
            self, torch.optim.AdamW(self.parameters(), lr=lr, weight_decay=0.0), loss_fn,
            num_items=len(images), steps=steps, batch_size=batch_size, seed=seed, fabric=fabric, ema=ema,
            schedule=warmup_cosine(steps, min(50, steps // 10)), checkpoint=checkpoint, progress=progress,
            description="autoencoder", identity={"data": digest(images)},
        )  # fmt: skip
        ema.copy_to(self)
        return history
