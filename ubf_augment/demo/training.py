"""One training of the demo: ResNet-18 on Indian Pines patches, with any augmentation, for a number of steps."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ubf_augment.augment import UBFAugment
from ubf_augment.datasets import IndianPines
from ubf_augment.seeding import derive_seed, seeded
from ubf_augment.synthesis import HSISynthesizer
from ubf_augment.training.parts import warmup_cosine

_SAMPLING = {"steps": 8, "guidance": 1.0}
CANDIDATES: dict[str, dict[str, Any]] = {
    "vary, p = 0.5": {"strategy": "vary", "p": 0.5},
    "generate, p = 0.25": {"strategy": "generate", "p": 0.25, "sample_options": _SAMPLING},
    "fuse, p = 0.5": {"strategy": "fuse", "p": 0.5},
    "generate and fuse and vary, p = 0.5": {
        "strategy": {"generate": 1.0, "fuse": 1.0, "vary": 1.0}, "p": 0.5, "sample_options": _SAMPLING,
    },
}  # fmt: skip
"""Name → arguments of `UBFAugment`: what the validation side chooses from."""


@dataclass(frozen=True)
class DemoSettings:
    """Settings of the demo.

    Attributes:
        seeds: repetitions of every training.
        steps: optimiser steps of every training.
        batch_size: patches per step.
        lr: peak learning rate.
        size: patches are enlarged to this side for the network.
        fold: split of `IndianPines`; the bundle ``indian-pines`` is fitted on the training blocks of fold 0.
        candidates: names of `CANDIDATES`.
        minutes: where the trainings are expected to take longer, all get fewer steps.
        scenes: bundle whose samples are shown.
        scene_classes: how many of its classes.
        sampling_steps: evaluations per scene of its generator.
    """

    seeds: int = 3
    steps: int = 200
    batch_size: int = 32
    lr: float = 1e-3
    size: int = 16
    fold: int = 0
    candidates: tuple[str, ...] = tuple(CANDIDATES)
    minutes: float = 8.0
    scenes: str = "aid-chikusei"
    scene_classes: int = 10
    sampling_steps: int = 20

    @classmethod
    def of(cls, seeds: int = 3, steps: int | None = None, quick: bool = False) -> Self:
        """Settings of the command line; ``quick`` runs everything in little time and means nothing.

        Raises:
            ValueError: if a number is not positive.
        """
        if seeds < 1 or (steps is not None and steps < 1):
            raise ValueError(f"seeds and steps must be at least 1, got {seeds} and {steps}")
        if quick:
            names = ("vary, p = 0.5", "generate, p = 0.25")
            return cls(
                seeds, steps or 2, batch_size=8, size=8, candidates=names, scene_classes=2, sampling_steps=2
            )
        return cls(seeds) if steps is None else cls(seeds, steps)


@dataclass(frozen=True)
class Split:
    """All patches of a split: images (N, C, H, W) in reflectance and labels (N,)."""

    x: Tensor
    y: Tensor
    classes: tuple[str, ...]
    wavelengths: Tensor


@lru_cache(maxsize=6)
def load_split(name: str, fold: int) -> Split:
    """Read one split of `IndianPines` as tensors."""
    data = IndianPines(name, fold)  # type: ignore[arg-type]
    x = torch.stack([data[i]["image"] for i in range(len(data))])
    return Split(x, torch.tensor(data.targets), data.classes, data.wavelengths)


def affine() -> nn.Module:
    """Flips, quarter turns, and small rotations, shifts and scalings: the baseline that everything is measured by."""
    from kornia import augmentation as k

    return k.AugmentationSequential(
        k.RandomHorizontalFlip(p=0.5),
        k.RandomVerticalFlip(p=0.5),
        k.RandomRotation90((0, 3), p=0.75),
        k.RandomAffine(10.0, (0.1, 0.1), (0.9, 1.1), padding_mode="border", p=0.5),
        data_keys=None,
    )


def build_augmentation(name: str, synth: HSISynthesizer, classes: tuple[str, ...], seed: int) -> nn.Module:
    """``"none"``, ``"affine"``, or one of `CANDIDATES` followed by affine."""
    if name == "none":
        return nn.Identity()
    if name == "affine":
        return affine()
    return nn.Sequential(UBFAugment(synth, classes=classes, seed=seed, **CANDIDATES[name]), affine())


def train_once(
    name: str,
    seed: int,
    settings: DemoSettings,
    synth: HSISynthesizer,
    tick: Callable[[], object] = lambda: None,
) -> dict[str, Any]:
    """Train a ResNet-18 and measure it on the validation and the test blocks.

    Initial weights and the order of the real patches depend on ``seed`` alone, so that rows are paired.

    Args:
        name: of the augmentation, see `build_augmentation`.
        seed: of everything.
        settings: steps, batch, learning rate.
        synth: for `UBFAugment`.
        tick: called after every step.

    Returns:
        ``val`` and ``test``, each with ``accuracy`` and ``macro_recall`` in percent, ``loss`` of the last steps,
        ``seconds``.
    """
    import timm

    train, start = load_split("train", settings.fold), time.monotonic()
    order = torch.Generator().manual_seed(derive_seed(seed, 1))
    with seeded(derive_seed(seed, 2)):
        model = timm.create_model("resnet18", num_classes=len(train.classes), in_chans=train.x.shape[1])
        model = model.to(memory_format=torch.channels_last).train()
        augment = build_augmentation(name, synth, train.classes, derive_seed(seed, 3))
        prepare = _Prepare(train.x, settings.size)
        optimizer = torch.optim.AdamW(model.parameters(), lr=settings.lr, weight_decay=0.05, fused=True)
        factor, losses, left = (
            warmup_cosine(settings.steps, settings.steps // 10),
            [],
            torch.zeros(0, dtype=torch.int64),
        )
        for step in range(settings.steps):
            if len(left) < settings.batch_size:
                left = torch.cat([left, torch.randperm(len(train.x), generator=order)])
            chosen, left = left[: settings.batch_size], left[settings.batch_size :]
            batch = augment({"image": train.x[chosen], "label": train.y[chosen]})
            for group in optimizer.param_groups:
                group["lr"] = settings.lr * factor(step)
            loss = F.cross_entropy(model(prepare(batch["image"])), batch["label"])
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            losses.append(float(loss.detach()))
            tick()
    model.eval()
    found: dict[str, Any] = {
        s: _measure(model, prepare, load_split(s, settings.fold)) for s in ("val", "test")
    }
    recent = losses[-max(1, len(losses) // 10) :]
    return {**found, "loss": sum(recent) / len(recent), "seconds": time.monotonic() - start}


class _Prepare(nn.Module):
    """Standardise bands by the training patches, enlarge."""

    def __init__(self, x: Tensor, size: int) -> None:
        super().__init__()
        self.mean, self.std, self.size = x.mean((0, 2, 3), keepdim=True), x.std((0, 2, 3), keepdim=True), size

    def forward(self, x: Tensor) -> Tensor:
        z = (x - self.mean) / self.std
        if z.shape[-1] != self.size:
            z = F.interpolate(z, (self.size, self.size), mode="bilinear", align_corners=False)
        return z.contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def _measure(model: nn.Module, prepare: nn.Module, split: Split) -> dict[str, float]:
    """Overall accuracy and mean recall over the classes, in percent."""
    right = model(prepare(split.x)).argmax(1) == split.y
    recalls = [right[split.y == k].float().mean() for k in torch.unique(split.y)]
    return {
        "accuracy": 100 * float(right.float().mean()),
        "macro_recall": 100 * float(torch.stack(recalls).mean()),
    }


def validation_score(result: Mapping[str, Any]) -> float:
    """What the strategy is chosen by: mean of accuracy and macro recall on the validation blocks."""
    return float(result["val"]["accuracy"] + result["val"]["macro_recall"]) / 2
