"""Rows of the augmentation table: what is done to the training images, in several strengths each.

Every row has the same number of plans, and one of them is chosen on inner splits of the training side. All rows but ``none``
end with the same geometric augmentation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ubf_augment import HSISynthesizer, UBFAugment
from ubf_augment.classification import Classifier, Recipe, affine
from ubf_augment.pretraining import describe, join, learn
from ubf_augment.strategies import SpectralVariation, draw_masks, fuse
from ubf_augment.training import digest


@dataclass(frozen=True)
class Plan:
    """One way to train.

    Attributes:
        affine: strength of the geometric augmentation, 0 for none, 1 for the demo's.
        gain: deviation of a smooth log-gain along the wavelength and of brightness, on whole images: no unmixing.
        gain_p: share of images that undergo it.
        mixing: share of images that are joined to any other image under a smooth mask, labels mixed likewise.
        ubf: arguments of `UBFAugment`; None without.
        recipe: changes of the recipe.
        pretrain: what the network learns first, without labels, on the training images, all of them moved and joined in pairs:
            ``"abundances"``: what a scene consists of, decoded anew (`ubf_augment.pretraining.pretrain`); ``"bands"``: the
            same of its bands, under a spectral gain (`pretrain_bands`), the control without unmixing; ``"longer"``: nothing,
            but it trains as many steps more with labels.
        fade: the share of synthetic images falls to zero over the training.
        kept: of the pictures, only those whose class a network trained on the real images alone recognises.
    """

    affine: float = 1.0
    gain: tuple[float, float] | None = None
    gain_p: float = 0.8
    mixing: float = 0.0
    ubf: Mapping[str, Any] | None = None
    recipe: Mapping[str, Any] = field(default_factory=dict)
    pretrain: Literal["", "abundances", "bands", "longer"] = ""
    fade: bool = False
    kept: bool = False


def _vary(std: float, p: float = 0.8) -> dict[str, Any]:
    return {"strategy": "vary", "p": p, **_variation(std)}


def _variation(std: float) -> dict[str, float]:
    return {"endmember_std": std / 2, "illumination_std": std, "brightness_std": std}


def _bank(p: float) -> dict[str, Any]:
    return {"strategy": "bank", "p": p}


_STRENGTHS = ((0.2, 0.8), (0.1, 0.8), (0.2, 0.4), (0.4, 0.8))  # deviation of the log-gains, share of images
_SHARES = (0.25, 0.1, 0.5, 0.75)
_LR = ({"lr": 1e-3}, {"lr": 5e-4}, {"lr": 2e-3})
ROWS: dict[str, tuple[Plan, ...]] = {
    "none": (*(Plan(affine=0, recipe=r) for r in _LR), Plan(affine=0, recipe={"weight_decay": 0.3})),
    "affine": (*(Plan(recipe=r) for r in _LR), Plan(affine=2)),
    "spectral-gain": tuple(Plan(gain=(s, s), gain_p=p) for s, p in _STRENGTHS),
    "mask-mix": tuple(Plan(mixing=p) for p in (0.5, 0.25, 0.75, 1.0)),
    "vary": tuple(Plan(ubf=_vary(s, p)) for s, p in _STRENGTHS),
    "fuse": tuple(Plan(ubf={"strategy": "fuse", "p": p}) for p in (0.5, 0.25, 0.75, 1.0)),
    "edit": tuple(
        Plan(ubf={"strategy": "edit", "p": p, "strength": s}) for s, p in ((0.4, 0.5), (0.2, 0.5), (0.6, 0.5), (0.4, 0.25))
    ),
    "generate": tuple(Plan(ubf={"strategy": "generate", "p": p}) for p in _SHARES),
    "bank": tuple(Plan(ubf=_bank(p)) for p in _SHARES),
    "bank-light": tuple(Plan(ubf=_bank(p), recipe={"synthetic_weight": 0.3}) for p in _SHARES),
    "bank-split": tuple(
        Plan(ubf=_bank(1.0) | {"placement": "append"}, recipe={"split_batch_norm": True, "synthetic_weight": w})
        for w in (0.3, 0.1, 0.6, 1.0)
    ),
    "bank-fade": tuple(Plan(ubf=_bank(2 * p), fade=True) for p in (0.25, 0.1, 0.4, 0.5)),
    "bank-kept": tuple(Plan(ubf=_bank(p), kept=True) for p in _SHARES),
    "ubf": (
        Plan(),
        Plan(ubf=_vary(0.2), pretrain="abundances"),
        Plan(pretrain="abundances"),
        Plan(ubf={"strategy": {"vary": 1.0, "fuse": 1.0}, "p": 0.5, **_variation(0.1)}),
    ),
    "affine-long": tuple(Plan(recipe=r, pretrain="longer") for r in (*_LR, {"weight_decay": 0.3})),
    "pretrain-bands": tuple(Plan(recipe=r, pretrain="bands") for r in (*_LR, {"lr": 3e-4})),
    "pretrain": tuple(Plan(recipe=r, pretrain="abundances") for r in (*_LR, {"lr": 3e-4})),
    "pretrain-vary": tuple(Plan(recipe=r, pretrain="abundances", ubf=_vary(0.2)) for r in (*_LR, {"lr": 3e-4})),
    "class-weights": tuple(Plan(recipe={"imbalance": "weights", **r}) for r in (*_LR, {"weight_decay": 0.3})),
    "oversample": tuple(Plan(recipe={"imbalance": "oversample", **r}) for r in (*_LR, {"weight_decay": 0.3})),
    "oversample-vary": tuple(Plan(recipe={"imbalance": "oversample", **r}, ubf=_vary(0.2)) for r in (*_LR, {"lr": 3e-4})),
    "oversample-pretrain": tuple(
        Plan(recipe={"imbalance": "oversample", **r}, pretrain="abundances") for r in (*_LR, {"lr": 3e-4})
    ),
    "oversample-pretrain-vary": tuple(
        Plan(recipe={"imbalance": "oversample", **r}, pretrain="abundances", ubf=_vary(0.2)) for r in (*_LR, {"lr": 3e-4})
    ),
    "oversample-gain": tuple(
        Plan(recipe={"imbalance": "oversample", **r}, gain=(0.2, 0.2)) for r in (*_LR, {"lr": 3e-4})
    ),
    "balance": tuple(Plan(ubf={"strategy": "generate", "labels": "balance", "p": p}) for p in _SHARES),
}  # fmt: skip
"""Row → plans, the first of which is taken where nothing is tuned. ``ubf`` is the automatic default: its first plan is
``affine``, all are built on what ``affine`` was tuned to, and another is taken only where its gain is significant."""

BASELINE = "affine"
USUAL = ("affine", "class-weights", "oversample")
"""What is done about imbalance without synthesis: what else is done about it is compared with the best of them."""
LEARNED = ("abundances", "bands")  # of Plan.pretrain, those that need a training of their own
AUTOMATIC = ("ubf",)
NEEDS_GENERATOR = ("generate", "edit", "balance")
BANKS = ("bank", "bank-light", "bank-split", "bank-fade", "bank-kept")


class SpectralGain(nn.Module):
    """Multiply whole images by a smooth gain along the wavelength and a brightness: the control without unmixing."""

    def __init__(self, wavelengths: Tensor, std: tuple[float, float], p: float) -> None:
        super().__init__()
        self.variation, self.p = SpectralVariation(wavelengths, 0.0, *std), p

    def forward(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Change a share of the batch."""
        x = batch["image"]
        gains = self.variation.draw(len(x), 0)[1].to(x.device)[:, :, None, None]
        chosen = (torch.rand(len(x), device=x.device) < self.p)[:, None, None, None]
        return {**batch, "image": torch.where(chosen, x * gains, x)}


def pretrain_bands(
    images: Tensor, wavelengths: Tensor, recipe: Recipe, *, checkpoint: Path, seed: int, fabric: Any
) -> Classifier:
    """`ubf_augment.pretraining.pretrain` without unmixing: tell what the bands were before a spectral gain."""
    x, variation = images.to(fabric.device), SpectralVariation(wavelengths, endmember_std=0.0)

    def draw(rows: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        joined = join(x, rows, rng)
        _, light = variation.draw(len(rows), 0, rng)
        return joined * light.to(joined.device)[:, :, None, None], describe(joined)

    mark = {"data": digest(images)}
    return learn(draw, len(x), recipe, mark, checkpoint=checkpoint, seed=seed, fabric=fabric, progress=False)


class Fade(nn.Module):
    """Lower the share of synthetic images linearly, from what it is to zero over so many batches."""

    def __init__(self, augment: UBFAugment, steps: int) -> None:
        super().__init__()
        self.augment, self.first, self.steps, self.seen = augment, augment.p, steps, 0

    def forward(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Change a share of the batch."""
        self.augment.p = self.first * max(0.0, 1 - self.seen / self.steps)
        self.seen += 1
        changed: dict[str, Any] = self.augment(batch)
        return changed


class MaskMix(nn.Module):
    """Join images of any classes under smooth masks; labels become the shares of the masks."""

    def __init__(self, num_classes: int, p: float) -> None:
        super().__init__()
        self.num_classes, self.p = num_classes, p

    def forward(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Mix a share of the batch."""
        x, y = batch["image"], F.one_hot(batch["label"], self.num_classes).float()
        other = torch.randperm(len(x), device=x.device)
        mask = draw_masks(len(x), (x.shape[2], x.shape[3]), device=x.device)
        mask = torch.where((torch.rand(len(x), device=x.device) < self.p)[:, None, None, None], mask, 1.0)
        share = mask.mean((1, 2, 3))[:, None]
        return {**batch, "image": fuse(x, x[other], mask), "label": share * y + (1 - share) * y[other]}


def augmentation(
    plan: Plan,
    wavelengths: Tensor,
    classes: tuple[str, ...],
    synth: HSISynthesizer | None,
    bank: Mapping[str, Tensor] | None,
    steps: int,
) -> Callable[[int], nn.Module]:
    """What `train_classifier` takes: makes the augmentation of a seed, for a training of so many steps."""

    def make(seed: int) -> nn.Module:
        parts: list[nn.Module] = []
        if plan.ubf is not None:
            assert synth is not None
            pictures = bank if plan.ubf["strategy"] == "bank" else None
            made = UBFAugment(synth, classes=classes or None, seed=seed, bank=pictures, **plan.ubf)
            parts.append(Fade(made, steps) if plan.fade else made)
        if plan.gain is not None:
            parts.append(SpectralGain(wavelengths, plan.gain, plan.gain_p))
        if plan.affine:
            parts.append(affine(plan.affine))
        if plan.mixing:
            parts.append(MaskMix(len(classes), plan.mixing))
        return nn.Sequential(*parts)

    return make
