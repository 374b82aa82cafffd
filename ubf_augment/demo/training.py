"""One training of the demo: ResNet-18 on Indian Pines patches, with any augmentation, for a number of steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Self

import torch
from torch import nn

from ubf_augment.augment import UBFAugment
from ubf_augment.classification import LabelledImages, Recipe, affine, predict, score, train_classifier
from ubf_augment.datasets import IndianPines
from ubf_augment.synthesis import HSISynthesizer

CANDIDATES: dict[str, dict[str, Any]] = {
    "vary, p = 0.5": {"strategy": "vary", "p": 0.5},
    "generate, p = 0.25": {"strategy": "generate", "p": 0.25},
    "fuse, p = 0.5": {"strategy": "fuse", "p": 0.5},
    "generate and fuse and vary, p = 0.5": {
        "strategy": {"generate": 1.0, "fuse": 1.0, "vary": 1.0}, "p": 0.5,
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


@lru_cache(maxsize=6)
def load_split(name: str, fold: int) -> LabelledImages:
    """Read one split of `IndianPines`."""
    data = IndianPines(name, fold)  # type: ignore[arg-type]
    x = torch.stack([data[i]["image"] for i in range(len(data))])
    return LabelledImages(x, torch.tensor(data.targets), data.classes, data.wavelengths)


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
        name: of the augmentation, see ``build_augmentation``.
        seed: of everything.
        settings: steps, batch, learning rate.
        synth: for `UBFAugment`.
        tick: called after every step.

    Returns:
        ``val`` and ``test``, each with ``accuracy`` and ``macro_recall`` in percent, ``loss`` of the last steps,
        ``seconds``.
    """
    train = load_split("train", settings.fold)
    recipe = Recipe("resnet18", settings.steps, settings.batch_size, settings.lr, size=settings.size)
    done = train_classifier(
        train, recipe, lambda s: build_augmentation(name, synth, train.classes, s), seed=seed, tick=tick
    )
    found: dict[str, Any] = {}
    for side in ("val", "test"):
        data = load_split(side, settings.fold)
        scores = score(predict(done.model, data.x), data.y)
        found[side] = {"accuracy": scores.accuracy, "macro_recall": scores.macro_recall}
    return {**found, "loss": done.loss, "seconds": done.seconds}


def validation_score(result: Mapping[str, Any]) -> float:
    """What the strategy is chosen by: mean of accuracy and macro recall on the validation blocks."""
    return float(result["val"]["accuracy"] + result["val"]["macro_recall"]) / 2
