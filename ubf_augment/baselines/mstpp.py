"""MST++: hyperspectral images from RGB pictures by a spectral-wise transformer, without unmixing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.nn import functional as F

from ubf_augment.baselines.transformer import LEVELS, SpectralTransformer
from ubf_augment.errors import BandCountError, RadiometryError, ShapeError
from ubf_augment.generators.stored import read_network, write_network
from ubf_augment.losses import charbonnier
from ubf_augment.radiometry import check_reflectance, to_reflectance
from ubf_augment.seeding import seeded
from ubf_augment.spectra import Wavelengths, check_wavelengths, rgb_bands
from ubf_augment.training import EMA, History, digest, fit_loop, warmup_cosine
from ubf_augment.unmixing.fitting import BRIGHTNESS, scaled_crops

if TYPE_CHECKING:
    from lightning.fabric import Fabric

Loss = Literal["mrae", "charbonnier"]
_KNEE = 0.1


def mrae(made: Float[Tensor, "..."], true: Float[Tensor, "..."], floor: float = 0.01) -> Float[Tensor, ""]:
    """Mean relative absolute error: mean of abs(made − true) / max(true, floor).

    Without the floor a single dark pixel, whose reflectance is mostly noise, would outweigh thousands of others.

    Args:
        made: reconstruction, any shape.
        true: reflectance of the same shape.
        floor: reflectance > 0 below which the error counts as if the reflectance were ``floor``.

    Raises:
        ShapeError: if the shapes differ or there are no values.
        ValueError: if ``floor`` is not positive.

    Source: the loss of Cai et al. 2022, arXiv:2204.07908, there without a floor.

    >>> mrae(torch.tensor([0.3, 0.004]), torch.tensor([0.2, 0.0]), floor=0.01)
    tensor(0.4500)
    """
    if made.shape != true.shape or not true.numel():
        raise ShapeError(
            f"images of equal shape, not empty, expected: {tuple(made.shape)}, {tuple(true.shape)}"
        )
    if not floor > 0:
        raise ValueError(f"floor must be a reflectance > 0, got {floor}")
    return ((made - true).abs() / true.clamp_min(floor)).mean()


class MSTPlusPlus(nn.Module):
    """Reconstruct hyperspectral images (B, C, H, W) from reflectance at red, green and blue (B, 3, H, W).

    A 3×3 convolution lifts the picture to F maps, ``stages`` networks `SpectralTransformer` follow one another, a long skip
    adds the lifted picture, and a 3×3 convolution gives one map z per band. With mean μ and deviation s of each band over
    the training pixels (once for the sensor, never per image; red, green and blue are standardised likewise),

        x̂ = κ softplus((μ + s z) / κ) ≥ 0,   κ = μ / 10,

    which is μ + s z but for values near zero: reflectance cannot become negative, and no clamp stops a gradient or hides an
    error. The original ends linearly and adds the skip after its last convolution, which wants F = C; with F = C its
    size is the original's (31 bands, ``stages=3``, ``width=31``: 1.62 million parameters).

    It creates no new scenes: as an augmentation it turns labelled RGB pictures into images, see `UBFAugment`.

    Source: Cai et al. 2022, "MST++: Multi-stage Spectral-wise Transformer for Efficient Spectral Reconstruction", CVPRW,
    doi:10.1109/CVPRW56347.2022.00090, arXiv:2204.07908. Written from the paper.

    Attributes:
        wavelengths: (C,) band centres in nm.
        rgb_index: the bands of red, green and blue.
        rgb_scale: reflectance of white in displayed pictures, None if unknown.
        rgb_gamma: exponent of their display curve, see `radiometry.to_reflectance`.

    >>> model = MSTPlusPlus([490, 560, 665, 842], width=8, stages=1)
    >>> model(torch.rand(2, 3, 13, 17)).shape
    torch.Size([2, 4, 13, 17])

    As the source of an augmentation, in place of unmixing (one training step stands for thousands here):

    >>> from ubf_augment import Endmembers, HSISynthesizer, UBFAugment, get_generator
    >>> history = model.fit(torch.rand(2, 4, 16, 16), steps=1, crop=8, progress=False)
    >>> E = Endmembers(torch.tensor([[0.1, 0.2, 0.4, 0.5], [0.0, 0.0, 0.0, 0.0]]), model.wavelengths)
    >>> g = get_generator("ddpm", num_endmembers=2, size=(8, 8), num_classes=2, widths=(16, 16))
    >>> synth = HSISynthesizer(E, g, classes=["field", "forest"])
    >>> pictures = torch.randint(0, 256, (5, 3, 8, 8), dtype=torch.uint8)
    >>> augment = UBFAugment(synth, 1.0, strategy="bank", bank={"forest": pictures}, reconstructor=model)
    >>> augment({"image": torch.rand(2, 4, 8, 8), "label": torch.tensor([0, 1])})["is_synthetic"].tolist()
    [False, True]
    """

    mean: Tensor
    std: Tensor
    ready: Tensor

    def __init__(
        self, wavelengths: Wavelengths, *, stages: int = 2, width: int = 32, blocks: int = 1,
        rgb_index: Sequence[int] | None = None, rgb_scale: float | None = None, rgb_gamma: float = 1.0, init_seed: int = 0,
    ) -> None:  # fmt: skip
        """Build the network.

        Args:
            wavelengths: band centres of the images in nm.
            stages: number of transformers in a row.
            width: F, channels of the topmost level (the paper: C).
            blocks: attention blocks per level of a transformer.
            rgb_index: band indices of red, green, blue; by wavelength if not given.
            rgb_scale: reflectance of white in displayed pictures; needed only for `reconstruct` of uint8.
            rgb_gamma: exponent of their display curve.
            init_seed: of the initial weights.

        Raises:
            WavelengthError: for unusable wavelengths, or if no band is near red, green or blue.
            BandCountError: if ``rgb_index`` does not name three bands.
            ValueError: if a size, scale or gamma is not positive.
        """
        super().__init__()
        if min(stages, width, blocks) < 1:
            raise ValueError(f"stages, width and blocks must be positive, got {stages}, {width} and {blocks}")
        if not rgb_gamma > 0 or (rgb_scale is not None and not rgb_scale > 0):
            raise ValueError(f"rgb_scale and rgb_gamma must be positive, got {rgb_scale} and {rgb_gamma}")
        self.wavelengths = check_wavelengths(wavelengths)
        bands = len(self.wavelengths)
        self.rgb_index = (
            rgb_bands(self.wavelengths) if rgb_index is None else tuple(int(i) for i in rgb_index)
        )
        if len(self.rgb_index) != 3 or not all(0 <= i < bands for i in self.rgb_index):
            raise BandCountError(f"rgb_index must be three of the {bands} bands, got {self.rgb_index}")
        self.rgb_scale, self.rgb_gamma = rgb_scale, rgb_gamma
        self._sizes = {"stages": stages, "width": width, "blocks": blocks, "init_seed": init_seed}
        with seeded(init_seed):
            self.entry = nn.Conv2d(3, width, 3, padding=1, bias=False)
            self.body = nn.Sequential(*(SpectralTransformer(width, blocks) for _ in range(stages)))
            self.head = nn.Conv2d(width, bands, 3, padding=1, bias=False)
        self.register_buffer("mean", torch.full((bands,), 0.1))
        self.register_buffer("std", torch.full((bands,), 0.1))
        self.register_buffer("ready", torch.zeros((), dtype=torch.bool))

    @property
    def num_bands(self) -> int:
        """C."""
        return len(self.wavelengths)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.mean.device

    @property
    def config(self) -> dict[str, Any]:
        """The constructor's arguments, as JSON-able values."""
        return {
            "wavelengths": self.wavelengths.tolist(),
            "rgb_index": list(self.rgb_index),
            "rgb_scale": self.rgb_scale,
            "rgb_gamma": self.rgb_gamma,
            **self._sizes,
        }

    @torch.no_grad()
    def set_statistics(self, pixels: Float[Tensor, "n c"]) -> None:
        """Take mean and deviation of each band from training pixels of the sensor."""
        self.mean.copy_(pixels.mean(0).clamp_min(1e-6))
        self.std.copy_(pixels.std(0, correction=0).clamp_min(1e-6))
        self.ready.fill_(True)

    def rgb(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 3 h w"]:
        """Red, green and blue of images: the bands that the RGB encoder of `UnmixingModel` is taught with, too."""
        return x[:, list(self.rgb_index)]

    def forward(self, rgb: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c h w"]:
        """Reconstruct images from reflectance at red, green and blue; H and W may be anything."""
        h, w = rgb.shape[-2:]
        x = (rgb - self.rgb(_column(self.mean))) / self.rgb(_column(self.std))
        features = self.entry(pad_to_multiple(x, 1 << LEVELS))
        return self.from_standard(self.head(features + self.body(features))[..., :h, :w].float())

    def from_standard(self, z: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Reflectance x̂ ≥ 0 of standardised values: z = 0 is the mean of a band, one unit its deviation."""
        mean = _column(self.mean)
        return _KNEE * mean * F.softplus((mean + _column(self.std) * z) / (_KNEE * mean))

    @torch.no_grad()
    def reconstruct(
        self, pictures: Shaped[Tensor, "b 3 h w"], *, batch_size: int = 32
    ) -> Float[Tensor, "b c h w"]:
        """Reconstruct images from RGB pictures, channels red, green, blue.

        Args:
            pictures: reflectance at the RGB bands as float, or displayed values as uint8: these become reflectance
                rgb_scale · v^rgb_gamma first.
            batch_size: pictures per pass (memory, not meaning).

        Returns:
            Reflectance ≥ 0 (B, C, H, W), float32, on the model's device.

        Raises:
            ShapeError, BandCountError: if pictures are not (B, 3, H, W).
            RadiometryError: for uint8 where ``rgb_scale`` is unknown, other integers, or unscaled floats.
            NoDataError: for NaN or infinite pixels.
        """
        if pictures.ndim != 4:
            raise ShapeError(
                f"pictures must be (B, 3, H, W), got {tuple(pictures.shape)}: add a batch axis with pictures[None]"
            )
        if pictures.dtype == torch.uint8:
            if self.rgb_scale is None:
                raise RadiometryError(
                    "uint8 pictures have no known reflectance: build the model with rgb_scale (and rgb_gamma), or give "
                    "reflectance, radiometry.to_reflectance(pictures, scale, gamma)"
                )
            pictures = to_reflectance(pictures, self.rgb_scale, self.rgb_gamma)
        check_reflectance(pictures, 3, where="batch of pictures", expected=" (red, green, blue)")
        out = torch.empty(len(pictures), self.num_bands, *pictures.shape[2:], device=self.device)
        for start in range(0, len(pictures), batch_size):
            part = slice(start, start + batch_size)
            out[part] = self(pictures[part].to(self.device, torch.float32))
        return out

    def fit(
        self, images: Float[Tensor, "n c h w"] | Sequence[Float[Tensor, "c _ _"]], *, steps: int, batch_size: int = 8,
        crop: int = 32, lr: float = 2e-3, loss: Loss = "mrae", floor: float = 0.01, brightness: float = BRIGHTNESS,
        ema_decay: float | None = None, seed: int = 0, fabric: Fabric | None = None, checkpoint: Path | str | None = None,
        progress: bool = True, save_every_s: float = 60.0,
    ) -> History:  # fmt: skip
        """Train on pairs made of hyperspectral images: their bands of red, green, blue, and themselves.

        Crops, symmetries and brightness are those of the RGB encoder of `UnmixingModel` with a shade endmember, so that
        both learn from the same pairs. Adam with a short warm-up and a cosine to zero. The first fit sets the statistics of
        the bands; later ones keep them.

        Args:
            images: training images in reflectance, (N, C, H, W) or a list of (C, H, W).
            steps: optimiser steps in total; with ``checkpoint`` those before an interruption count.
            batch_size: crops per step.
            crop: side of the crops in pixels.
            lr: peak learning rate.
            loss: "mrae" (`mrae`, the paper's) or "charbonnier" (`losses.charbonnier` in units of the mean reflectance).
            floor: of `mrae`, reflectance.
            brightness: half of the crops are scaled by exp(u), u uniform in ± this.
            ema_decay: keep an exponential average of the weights and end with it; None for the weights themselves.
            seed: of crops and order.
            fabric: devices and precision.
            checkpoint: file to resume from and save to.
            progress: show a progress bar.
            save_every_s: seconds between checkpoints.

        Raises:
            ShapeError, BandCountError, NoDataError, RadiometryError: for images that do not fit.
            ValueError: for an unknown loss, a floor that is not positive, or a checkpoint of other settings.
        """
        self._check(images)
        if loss not in ("mrae", "charbonnier"):
            raise ValueError(f"unknown loss {loss!r}: choose 'mrae' or 'charbonnier'")
        if not floor > 0:
            raise ValueError(f"floor must be a reflectance > 0, got {floor}")
        if not bool(self.ready):
            pixels = torch.cat([x.flatten(1) for x in images], 1).T.float()
            self.set_statistics(pixels[:: max(1, len(pixels) // 200_000)])
        scale = float(self.mean.mean())

        def loss_fn(module: nn.Module, indices: Tensor, generator: torch.Generator) -> Tensor:
            x, _ = scaled_crops(images, None, len(indices), crop, generator, brightness)
            x = x.to(self.device)
            made = module(self.rgb(x)).float()
            return mrae(made, x, floor) if loss == "mrae" else charbonnier(made / scale, x / scale)

        ema = None if ema_decay is None else EMA(self, ema_decay)
        history = fit_loop(
            self, torch.optim.Adam(self.parameters(), lr=lr), loss_fn, num_items=max(steps, batch_size), steps=steps,
            batch_size=batch_size, seed=seed, fabric=fabric, ema=ema, schedule=warmup_cosine(steps, min(50, steps // 10)),
            checkpoint=checkpoint, save_every_s=save_every_s, progress=progress, description="MST++",
            identity={"config": self.config, "loss": loss, "data": digest(*images)},
        )  # fmt: skip
        if ema is not None:
            ema.copy_to(self)
        return history

    def _check(self, images: Tensor | Sequence[Tensor]) -> None:
        if not len(images):
            raise ShapeError("MST++ needs at least one hyperspectral image to learn from")
        for i, x in enumerate(images):
            if x.ndim != 3:
                raise ShapeError(f"hyperspectral image {i} must be (C, H, W), got {tuple(x.shape)}")
            check_reflectance(
                x, self.num_bands, where=f"hyperspectral image {i}", expected=", one per wavelength"
            )

    def save(self, directory: Path | str) -> Path:
        """Write ``config.json`` and ``model.safetensors``; `load` reads them back."""
        return write_network(directory, self, "mst++", self.config)

    @classmethod
    def load(cls, directory: Path | str) -> MSTPlusPlus:
        """Read what `save` wrote (safetensors and JSON: no code is run).

        Raises:
            BundleError: if a file is missing or does not fit.
        """

        def build(name: str, config: dict[str, Any]) -> MSTPlusPlus:
            if name != "mst++":
                raise ValueError(f"config.json describes {name!r}")
            return cls(**config)

        return read_network(directory, build, "an MST++").eval()


def _column(v: Tensor) -> Tensor:
    return v.view(1, -1, 1, 1)


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Continue maps to the right and below by reflection, as often as it takes, up to multiples of ``multiple``."""
    for dim in (-2, -1):
        size = x.shape[dim]
        if left := -size % multiple:
            period = max(1, 2 * (size - 1))
            at = torch.arange(size + left, device=x.device) % period
            x = x.index_select(dim, torch.minimum(at, period - at) if size > 1 else at)
    return x
