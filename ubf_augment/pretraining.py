"""Pretraining without labels: a network learns to read abundances from images decoded anew at every step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Shaped, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from ubf_augment import simplex
from ubf_augment.classification import Classifier, Recipe
from ubf_augment.errors import NoDataError, ShapeError
from ubf_augment.mixing import decode, mix
from ubf_augment.radiometry import check_reflectance
from ubf_augment.seeding import derive_seed
from ubf_augment.strategies import SpectralVariation, draw_masks, fuse
from ubf_augment.synthesis import HSISynthesizer
from ubf_augment.synthesis.maps import quantise
from ubf_augment.training import digest, fit_loop, launch, make_fabric, warmup_cosine

if TYPE_CHECKING:
    from lightning.fabric import Fabric

Draw = Callable[[Tensor, torch.Generator], tuple[Tensor, Tensor]]
_WEIGHTS, _STATISTICS = 1, 2  # independent streams of random numbers of one seed
_CHUNK = 64
_SAMPLED = 512  # images from which bands and targets are standardised
_UNUSED = {"imbalance": "none", "synthetic_weight": 1.0, "split_batch_norm": False, "label_smoothing": 0.0}


def pretrain(
    synth: HSISynthesizer,
    images: Float[Tensor, "n c h w"],
    recipe: Recipe | None = None,
    *,
    endmember_std: float = 0.1,
    illumination_std: float = 0.2,
    brightness_std: float = 0.2,
    correlation_nm: float = 200.0,
    checkpoint: Path | str | None = None,
    seed: int = 0,
    fabric: Fabric | None = None,
    progress: bool = True,
) -> Classifier:
    """Train a network to read abundances: weights to start a classifier of few labelled images from.

    Images are unmixed once and need no labels. Every step joins maps of two of them under a smooth mask, moves them
    (`simplex.move`), and decodes them with varied endmembers, in another light and with a fresh residual (`Decoder`). The
    network tells, whatever the spectra have become, what the scene consists of: mean, standard deviation and mean gradient
    of each abundance (`describe`), by least squares. Then train it on the labelled images, ``train_classifier(…,
    start=pretrained.backbone())``, or your own network of the same kind after ``network.load_state_dict(
    pretrained.backbone(), strict=False)``.

    Args:
        synth: adapted to, or fitted on, your sensor.
        images: reflectance on its bands; all that you have, the unlabelled ones too, test images aside.
        recipe: network, steps, batch size, learning rate; ResNet-18 and 1,000 steps by default.
        endmember_std: deviation of the log-gain of an endmember, smooth along the wavelength.
        illumination_std: deviation of the log-gain of an image, smooth along the wavelength.
        brightness_std: deviation of the log-gain of an image, the same in all bands.
        correlation_nm: of the gains along the wavelength.
        checkpoint: file to resume from and to save to; it belongs to these images, this sensor and recipe.
        seed: of everything.
        fabric: devices and precision; one automatic device by default.
        progress: show a progress bar.

    Returns:
        The network in evaluation mode, on the device that it was trained on; its outputs are the standardised targets.

    Raises:
        ValueError: if a setting of the recipe has no meaning here (labels, synthetic images), or the checkpoint belongs
            to another run.
        ShapeError, NoDataError, BandCountError, RadiometryError: for images that do not fit.

    >>> from ubf_augment import Endmembers, get_generator
    >>> E = Endmembers(torch.tensor([[0.1, 0.2, 0.4], [0.0, 0.0, 0.0]]), [490, 560, 665], ("soil", "shade"))
    >>> g = get_generator("ddpm", num_endmembers=2, size=(8, 8), num_classes=2, widths=(16, 16))
    >>> synth = HSISynthesizer(E, g, classes=["field", "forest"])
    >>> recipe = Recipe("test_resnet", steps=2, batch_size=2)
    >>> network = pretrain(synth, 0.3 * torch.rand(4, 3, 8, 8), recipe, progress=False)
    >>> network(torch.rand(1, 3, 8, 8)).shape, "fc.weight" in network.backbone()
    (torch.Size([1, 6]), False)
    """
    recipe = recipe or Recipe(steps=1000)
    _check(recipe)
    if images.ndim != 4:
        raise ShapeError(f"images must be (N, C, H, W), got {tuple(images.shape)}")
    if not len(images):
        raise NoDataError("there are no images to learn from")
    check_reflectance(images, synth.num_bands, where="images")
    fabric = launch(make_fabric() if fabric is None else fabric)
    maps = unmixed(synth, images).to(fabric.device)
    variation = SpectralVariation(
        synth.wavelengths, endmember_std, illumination_std, brightness_std, correlation_nm
    )
    decode = Decoder(synth, variation, fabric.device)

    def draw(rows: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        a = join(maps, rows, rng)
        return decode(a, rng), describe(a)

    mark = {
        "data": digest(maps, synth.spectra().cpu()),
        "variation": [endmember_std, illumination_std, brightness_std, correlation_nm],
    }
    return learn(
        draw, len(maps), recipe, mark, checkpoint=checkpoint, seed=seed, fabric=fabric, progress=progress
    )


def learn(
    draw: Draw,
    count: int,
    recipe: Recipe,
    mark: Mapping[str, Any],
    *,
    checkpoint: Path | str | None = None,
    seed: int = 0,
    fabric: Fabric,
    progress: bool = True,
) -> Classifier:
    """Train a network by least squares to tell numbers of images, both drawn anew at every step.

    Args:
        draw: makes images (B, C, H, W) and targets (B, T) of rows and a CPU generator of all randomness, on the device.
        count: how many rows there are.
        recipe: network, steps, batch size, learning rate.
        mark: what a checkpoint must agree on beside the recipe.
        checkpoint: file to resume from and to save to.
        seed: of everything.
        fabric: devices and precision.
        progress: show a progress bar.

    Returns:
        The network in evaluation mode; its outputs are the standardised targets.

    Raises:
        ValueError: if a setting of the recipe has no meaning here, or the checkpoint belongs to another run.
    """
    _check(recipe)
    band, target = _statistics(draw, count, derive_seed(seed, _STATISTICS))
    model = Classifier.of(recipe, *band, len(target[0]), derive_seed(seed, _WEIGHTS))
    mean, spread = (t.to(fabric.device) for t in target)

    def loss(network: nn.Module, rows: Tensor, rng: torch.Generator) -> Tensor:
        with torch.no_grad():
            x, wanted = draw(rows, rng)
        return F.mse_loss(network(x), (wanted - mean) / spread)

    fit_loop(
        model,
        torch.optim.AdamW(model.parameters(), recipe.lr, weight_decay=recipe.weight_decay),
        loss,
        num_items=count,
        steps=recipe.steps,
        batch_size=recipe.batch_size,
        seed=seed,
        fabric=fabric,
        schedule=warmup_cosine(recipe.steps, int(recipe.warmup * recipe.steps)),
        grad_clip=None,
        checkpoint=checkpoint,
        identity={**mark, "recipe": {k: v for k, v in asdict(recipe).items() if k not in ("lr", "steps")}},
        progress=progress,
        description="pretraining",
    )
    return model


def _check(recipe: Recipe) -> None:
    if surplus := [k for k, v in _UNUSED.items() if getattr(recipe, k) != v]:
        raise ValueError(f"{surplus[0]} has no meaning in pretraining: leave it out of the recipe")


@torch.no_grad()
def _statistics(draw: Draw, count: int, seed: int) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Mean and standard deviation of each band and of each target, over random images, on the CPU."""
    rng = torch.Generator().manual_seed(seed)
    sums, targets = [], []
    for _ in range(0, _SAMPLED, _CHUNK):
        x, wanted = draw(torch.randint(count, (_CHUNK,), generator=rng), rng)
        x = x.movedim(1, 0).flatten(1).double()
        sums.append(torch.stack([x.mean(1), x.square().mean(1)]).cpu())
        targets.append(wanted.cpu())
    mean, square = torch.stack(sums).mean(0)
    spread, centre = torch.std_mean(torch.cat(targets), 0)
    return (mean, (square - mean.square()).clamp_min(0).sqrt()), (centre, spread.clamp_min(1e-3))


def join(images: Shaped[Tensor, "n c h w"], rows: Tensor, rng: torch.Generator) -> Float[Tensor, "b c h w"]:
    """Images of ``rows``, each joined to another of all under a smooth mask and moved; uint8 is divided by 255."""
    others = torch.randint(len(images), (len(rows),), generator=rng)
    one, other = (images[r.to(images.device)] for r in (rows, others))
    if not one.is_floating_point():
        one, other = one / 255, other / 255
    joined = fuse(one, other, draw_masks(len(one), (one.shape[2], one.shape[3]), rng, one.device))
    return simplex.move(joined, simplex.draw_motions(len(one), rng))


def describe(a: Float[Tensor, "b p h w"]) -> Float[Tensor, "b 3*p"]:
    """What a scene consists of: mean, standard deviation and mean absolute gradient of each channel, one after the other.

    The gradient is the absolute difference of neighbours, averaged over pixels and over both directions.

    >>> half = torch.tensor([[0.0, 1.0], [0.0, 1.0]])
    >>> describe(torch.stack([half, 1 - half])[None])
    tensor([[0.5000, 0.5000, 0.5000, 0.5000, 0.5000, 0.5000]])
    """
    across = (a[..., 1:] - a[..., :-1]).abs().sum((2, 3)) / max(1, a[0, 0, :, 1:].numel())
    down = (a[..., 1:, :] - a[..., :-1, :]).abs().sum((2, 3)) / max(1, a[0, 0, 1:].numel())
    return torch.cat([a.mean((2, 3)), a.std((2, 3), correction=0), (across + down) / 2], 1)


class Decoder:
    """Decodes stored abundances with varied endmembers in another light: x = l ∘ (E ∘ exp(g))ᵀ a + ε, ε drawn anew.

    Args:
        synth: endmembers and residual model.
        variation: of endmembers and light.
        device: of the images.
    """

    def __init__(self, synth: HSISynthesizer, variation: SpectralVariation, device: torch.device) -> None:
        self._spectra, self._variation, self.device = synth.spectra().to(device), variation, device
        self._residual = None if synth.residual is None else synth.residual.to(device)

    @torch.no_grad()
    def __call__(self, a: Float[Tensor, "b p h w"], generator: torch.Generator) -> Float[Tensor, "b c h w"]:
        """Reflectance of abundances, on the device."""
        gains, light = (g.to(self.device) for g in self._variation.draw(len(a), a.shape[1], generator))
        a, spectra = a.to(self.device), self._spectra * gains * light[:, None]
        return mix(a, spectra) if self._residual is None else decode(a, spectra, self._residual, generator)


@torch.no_grad()
def unmixed(synth: HSISynthesizer, images: Float[Tensor, "n c h w"]) -> UInt8[Tensor, "n p h w"]:
    """Abundances of images, stored in eight bits on the CPU."""
    parts = torch.split(images, _CHUNK)
    return torch.cat([quantise(synth.unmix(part.float().to(synth.device))).cpu() for part in parts])
