"""Pretraining: a classifier learns labelled RGB pictures of any classes as images of the user's sensor.

A row of the augmentation table, and no part of the package: it has not been shown to be worth more than as many steps on the
real images.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from ubf_augment.classification import Classifier, Recipe
from ubf_augment.mixing import mix
from ubf_augment.seeding import derive_seed
from ubf_augment.strategies import SpectralVariation
from ubf_augment.synthesis import HSISynthesizer
from ubf_augment.synthesis.pictures import Pictures, read_pictures
from ubf_augment.synthesis.pipeline import quantise
from ubf_augment.training import digest, fit_loop, launch, make_fabric, warmup_cosine

if TYPE_CHECKING:
    from lightning.fabric import Fabric

_WEIGHTS, _STATISTICS = 1, 2  # independent streams of random numbers of one seed
_CHUNK = 64
_SAMPLED = 256  # images from which bands are standardised
_UNUSED = {"imbalance": "none", "synthetic_weight": 1.0, "split_batch_norm": False}


def pretrain(
    synth: HSISynthesizer,
    pictures: Pictures,
    recipe: Recipe | None = None,
    *,
    size: int = 64,
    endmember_std: float = 0.2,
    brightness_std: float = 0.2,
    correlation_nm: float = 200.0,
    after: Callable[[], nn.Module] | None = None,
    checkpoint: Path | str | None = None,
    seed: int = 0,
    fabric: Fabric | None = None,
    progress: bool = True,
) -> Classifier:
    """Train a classifier of RGB pictures as the sensor of a synthesizer would see them.

    Pictures are unmixed once; every step decodes a batch of their abundances anew, x = (E ∘ exp(g + s))ᵀ a + ε, with
    varied endmembers (`strategies.SpectralVariation`) and a fresh residual, so that the network never sees an image twice.
    The classes are those of the pictures and need not be yours: what counts is what the network learns on the way. Then
    train it on your few real images: ``train_classifier(…, start=pretrained.backbone())``, or
    ``network.load_state_dict(pretrained.backbone(), strict=False)`` with your own network of the same kind.

    Args:
        synth: adapted to, or fitted on, your sensor.
        pictures: class → uint8 (N, 3, H, W), or a labelled data set with ``classes``.
        recipe: network, steps, batch size, learning rate; ResNet-18 and 6,000 steps by default.
        size: pictures are brought to this side before they are unmixed.
        endmember_std: deviation of the log-gain of an endmember.
        brightness_std: deviation of the log-gain of an image.
        correlation_nm: of the gains along the wavelength.
        after: makes an augmentation of ``{"image", "label"}`` that follows, such as flips and rotations.
        checkpoint: file to resume from and to save to; it belongs to these pictures, this sensor and recipe.
        seed: of everything.
        fabric: devices and precision; one automatic device by default.
        progress: show a progress bar.

    Returns:
        The classifier in evaluation mode, on the device that it was trained on.

    Raises:
        ValueError: if a setting of the recipe has no meaning here (imbalance, synthetic images), or the checkpoint belongs
            to another run.
        ShapeError, RadiometryError, MissingLabelError: for pictures that are none, or have no class.
    """
    recipe = recipe or Recipe(steps=6000)
    if surplus := [k for k, v in _UNUSED.items() if getattr(recipe, k) != v]:
        raise ValueError(f"{surplus[0]} has no meaning in pretraining: leave it out of the recipe")
    fabric = launch(make_fabric() if fabric is None else fabric)
    found = read_pictures(pictures, (size, size))
    a = unmixed(synth, found.images)
    variation = SpectralVariation(synth.wavelengths, endmember_std, brightness_std, correlation_nm)
    decode = Decoder(synth, variation, fabric.device)
    mean, spread = statistics(decode, a, derive_seed(seed, _STATISTICS))
    model = Classifier.of(recipe, mean, spread, len(found.classes), derive_seed(seed, _WEIGHTS))
    transform = nn.Identity() if after is None else after()

    def loss(network: nn.Module, rows: Tensor, rng: torch.Generator) -> Tensor:
        y = found.labels[rows].to(decode.device)
        batch = transform({"image": decode(a[rows], rng), "label": y})
        return F.cross_entropy(
            network(batch["image"]), batch["label"], label_smoothing=recipe.label_smoothing
        )

    fit_loop(
        model,
        torch.optim.AdamW(model.parameters(), recipe.lr, weight_decay=recipe.weight_decay),
        loss,
        num_items=len(a),
        steps=recipe.steps,
        batch_size=recipe.batch_size,
        seed=seed,
        fabric=fabric,
        schedule=warmup_cosine(recipe.steps, int(recipe.warmup * recipe.steps)),
        grad_clip=None,
        checkpoint=checkpoint,
        identity={
            "data": digest(a, found.labels, synth.spectra().cpu()),
            "recipe": {k: v for k, v in asdict(recipe).items() if k not in ("lr", "steps")},
            "variation": [endmember_std, brightness_std, correlation_nm],
        },
        progress=progress,
        description="pretraining",
    )
    return model


class Decoder:
    """Decodes stored abundances with varied endmembers and a fresh residual.

    Args:
        synth: endmembers and residual model.
        variation: of the endmembers.
        device: of the images.
    """

    def __init__(self, synth: HSISynthesizer, variation: SpectralVariation, device: torch.device) -> None:
        self._spectra, self._variation, self.device = synth.spectra().to(device), variation, device
        self._residual = None if synth.residual is None else synth.residual.to(device)

    @torch.no_grad()
    def __call__(self, a: UInt8[Tensor, "b p h w"], generator: torch.Generator) -> Float[Tensor, "b c h w"]:
        """Images of abundances that sum to 255."""
        gains = self._variation.draw(len(a), a.shape[1], generator).to(self.device)
        x = mix(a.to(self.device) / 255, self._spectra * gains)
        if self._residual is None:
            return x
        return x + self._residual.sample(len(x), x.shape[2], x.shape[3], generator).to(x)


@torch.no_grad()
def unmixed(synth: HSISynthesizer, pictures: UInt8[Tensor, "n 3 h w"]) -> UInt8[Tensor, "n p h w"]:
    """Abundances of RGB pictures, stored in eight bits on the CPU."""
    parts = torch.split(pictures, _CHUNK)
    return torch.cat([quantise(synth.unmix_rgb(p.to(synth.device), fast=True)).cpu() for p in parts])


def statistics(decode: Decoder, a: UInt8[Tensor, "n p h w"], seed: int) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each band (C,) over images decoded from random rows of ``a``, on the CPU."""
    rng = torch.Generator().manual_seed(seed)
    total, squares, count = torch.zeros(()), torch.zeros(()), 0
    for _ in range(0, _SAMPLED, _CHUNK):
        x = decode(a[torch.randint(len(a), (_CHUNK,), generator=rng)], rng).double()
        total, squares = total + x.sum((0, 2, 3)).cpu(), squares + x.square().sum((0, 2, 3)).cpu()
        count += x.numel() // x.shape[1]
    mean: Tensor = total / count
    return mean, (squares / count - mean.square()).clamp_min(0).sqrt()
