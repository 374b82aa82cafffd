"""Choose an augmentation on the training side, and fall back to the baseline where nothing helps."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ubf_augment.classification.images import LabelledImages, inner_split
from ubf_augment.classification.scores import predict, score
from ubf_augment.classification.training import Recipe, train_classifier
from ubf_augment.seeding import derive_seed

if TYPE_CHECKING:
    from lightning.fabric import Fabric

Factory = Callable[[int], nn.Module]
"""Makes an augmentation of a seed, see `train_classifier`."""


@dataclass(frozen=True)
class Choice:
    """What was chosen, and why.

    Attributes:
        name: the chosen candidate, or the baseline.
        baseline: its name.
        scores: candidate → mean of accuracy and macro recall in percent on each inner split.
        gains: candidate → mean gain over the baseline, paired over the inner splits.
        errors: candidate → standard error of the gain.
    """

    name: str
    baseline: str
    scores: dict[str, list[float]]
    gains: dict[str, float]
    errors: dict[str, float]

    def record(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)

    def table(self) -> str:
        """What to print: one line per candidate."""
        lines = []
        for name, values in self.scores.items():
            gain = "" if name == self.baseline else f"{self.gains[name]:+6.1f} ± {self.errors[name]:.1f}"
            mark = "  ← chosen" if name == self.name else ""
            lines.append(f"{name:<28}{statistics.fmean(values):6.1f} %  {gain}{mark}".rstrip())
        return "\n".join(lines)


def decide(
    scores: Mapping[str, list[float]], baseline: str, confidence: float = 1.0, share: float = 0.25
) -> Choice:
    """Choose by the scores of inner splits: the best candidate whose mean paired gain exceeds its standard error.

    The error of a gain over n splits is s √(1/n + q / (1 − q)) for a validation side of a share q: splits of one training
    side share images, so the plain standard error is too small; the factor is that of Nadeau and Bengio (2003,
    doi:10.1023/A:1024068626366).

    Args:
        scores: candidate → figure of each inner split, in the same order; the baseline among them.
        baseline: what is kept if nothing is better.
        confidence: how many standard errors a gain must exceed. With a single split the error is unknown: any gain will do.
        share: q, of the images that validated.

    >>> decide({"affine": [50.0, 52.0], "vary": [55.0, 57.5], "generate": [40.0, 60.0]}, "affine").name
    'vary'
    >>> decide({"affine": [50.0, 52.0], "vary": [49.0, 56.0]}, "affine").name
    'affine'
    """
    base, gains, errors = scores[baseline], {}, {}
    for name, values in scores.items():
        if name == baseline:
            continue
        d = [a - b for a, b in zip(values, base, strict=True)]
        gains[name] = statistics.fmean(d)
        errors[name] = (
            statistics.stdev(d) * math.sqrt(1 / len(d) + share / (1 - share)) if len(d) > 1 else 0.0
        )
    able = [name for name in gains if gains[name] > confidence * errors[name]]
    best = max(able, key=lambda name: gains[name], default=baseline)
    return Choice(best, baseline, {k: list(v) for k, v in scores.items()}, gains, errors)


def choose(
    data: LabelledImages,
    candidates: Mapping[str, Factory],
    baseline: str,
    recipe: Recipe,
    *,
    groups: Tensor | None = None,
    repeats: int = 3,
    share: float = 0.25,
    confidence: float = 1.0,
    seed: int = 0,
    fabric: Fabric | None = None,
    tick: Callable[[], object] = lambda: None,
) -> Choice:
    """Train with every candidate on inner splits of the training side, and decide.

    Args:
        data: the training side; nothing else is looked at.
        candidates: name → augmentation; the baseline among them.
        baseline: its name.
        recipe: of every training.
        groups: (N,) int64, see `inner_split`; by default all images are independent.
        repeats: inner splits.
        share: of the images that validate.
        confidence: see `decide`.
        seed: of the splits and trainings.
        fabric: device and precision.
        tick: called after every training.

    Raises:
        ValueError: if the baseline is no candidate, or no inner split exists.
    """
    if baseline not in candidates:
        raise ValueError(f"the baseline {baseline!r} must be one of the candidates {', '.join(candidates)}")
    places = torch.arange(len(data)) if groups is None else groups
    found: dict[str, list[float]] = {name: [] for name in candidates}
    for i in range(repeats):
        fit, held = (data.subset(rows) for rows in inner_split(data.y, places, derive_seed(seed, i), share))
        for name, augment in candidates.items():
            done = train_classifier(fit, recipe, augment, seed=derive_seed(seed, i), fabric=fabric)
            s = score(predict(done.model, held.x), held.y)
            found[name].append((s.accuracy + s.macro_recall) / 2)
            tick()
    return decide(found, baseline, confidence, share)
