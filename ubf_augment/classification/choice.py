"""Choose an augmentation on the training side, and fall back to the baseline where nothing helps."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Int64
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
    scores: Mapping[str, Sequence[float]], baseline: str, *, alpha: float = 0.2, share: float = 0.25
) -> Choice:
    """Choose by the scores of inner splits: the best candidate whose mean paired gain is significant.

    The gain d̄ over n splits has the standard error s √(1/n + q / (1 − q)) for a validation side of a share q: splits of one
    training side share images, so the plain s/√n is too small (Nadeau and Bengio 2003, doi:10.1023/A:1024068626366). A
    candidate counts as better if d̄ exceeds the error times the one-sided t quantile at 1 − α/k with n − 1 degrees of freedom,
    k being the number of candidates: where none is better, one is taken in at most about a share α of all cases. With a single
    split the error is unknown, and any gain will do.

    Args:
        scores: candidate → figure of each inner split, in the same order; the baseline among them.
        baseline: what is kept if nothing is better.
        alpha: accepted share of wrong choices.
        share: q, of the images that validated.

    >>> decide({"affine": [50, 52, 51], "vary": [55, 57.5, 56], "generate": [40, 60, 50]}, "affine").name
    'vary'
    >>> decide({"affine": [50, 52, 51], "vary": [49, 56, 53]}, "affine").name
    'affine'
    """
    from scipy.stats import t

    base, gains, errors = scores[baseline], {}, {}
    for name, values in scores.items():
        if name == baseline:
            continue
        d = [a - b for a, b in zip(values, base, strict=True)]
        gains[name] = statistics.fmean(d)
        spread = math.sqrt(1 / len(d) + share / (1 - share))
        errors[name] = statistics.stdev(d) * spread if len(d) > 1 else 0.0
    factor = float(t.ppf(1 - alpha / max(1, len(gains)), len(base) - 1)) if len(base) > 1 else 0.0
    able = [name for name in gains if gains[name] > factor * errors[name]]
    best = max(able, key=lambda name: gains[name], default=baseline)
    return Choice(best, baseline, {k: list(v) for k, v in scores.items()}, gains, errors)


def choose(
    data: LabelledImages,
    candidates: Mapping[str, Factory],
    baseline: str,
    recipe: Recipe,
    *,
    groups: Int64[Tensor, " n"] | None = None,
    repeats: int = 5,
    share: float = 0.25,
    alpha: float = 0.2,
    start: Mapping[str, Tensor] | None = None,
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
        alpha: see `decide`.
        start: weights to start from, see `train_classifier`.
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
    held_out = share
    for i in range(repeats):
        fit, held = (data.subset(rows) for rows in inner_split(data.y, places, derive_seed(seed, i), share))
        held_out = len(held) / (len(held) + len(fit))
        for name, augment in candidates.items():
            done = train_classifier(
                fit, recipe, augment, seed=derive_seed(seed, i), start=start, fabric=fabric
            )
            s = score(predict(done.model, held.x), held.y)
            found[name].append((s.accuracy + s.macro_recall) / 2)
            tick()
    return decide(found, baseline, alpha=alpha, share=held_out)
