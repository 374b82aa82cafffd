"""What classifiers say of generated data: can it be told from real data, and does it show its class?"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ubf_augment.errors import LabelError, ShapeError
from ubf_augment.metrics._sets import pair


@dataclass(frozen=True)
class Folds:
    """A number measured on each fold of a cross-validation.

    >>> accuracy = Folds((0.5, 0.75))
    >>> accuracy.mean, round(accuracy.std, 4)
    (0.625, 0.1768)
    """

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean over the folds."""
        return sum(self.values) / len(self.values)

    @property
    def std(self) -> float:
        """Standard deviation over the folds (divisor n − 1); the folds share training data, so it is no standard error."""
        mean = self.mean
        return math.sqrt(sum((v - mean) ** 2 for v in self.values) / max(len(self.values) - 1, 1))


def discriminator_accuracy(
    real: Float[Tensor, "n d"], made: Float[Tensor, "m d"], *, folds: int = 5, seed: int = 0
) -> Folds:
    """Balanced accuracy with which a linear classifier tells generated from real features: 0.5 if it cannot, 1 if always.

    Logistic regression (L2, C = 1, classes weighted equally) on features standardised on the training side; stratified
    cross-validation. A classifier-based two-sample test: above 0.5 the sets differ, and 0.5 says that *this* classifier
    sees no difference in *these* features.

    Source: Lopez-Paz and Oquab 2017, arXiv:1610.06545.

    Args:
        real: features of real images (N, D), N ≥ folds.
        made: features of generated images (M, D), M ≥ folds.
        folds: parts of the cross-validation.
        seed: shuffles the images into the folds.

    Returns:
        `Folds` of values in [0, 1].

    Raises:
        ShapeError: if a set has fewer rows than folds, or the dimensions differ.
        NoDataError: if features are not finite.
        ValueError: if there are fewer than two folds.

    >>> x = torch.randn(2, 40, 3, generator=torch.Generator().manual_seed(0))
    >>> discriminator_accuracy(x[0], x[1] + 10).mean
    1.0
    """
    from sklearn.metrics import balanced_accuracy_score

    real, made = pair(real, made, _at_least_two(folds))
    x = torch.cat([real, made]).cpu().numpy()
    y = torch.cat([torch.zeros(len(real)), torch.ones(len(made))]).long().numpy()
    values = []
    for train, test in _split(y, folds, seed):
        model = _classifier(balanced=True).fit(x[train], y[train])
        values.append(float(balanced_accuracy_score(y[test], model.predict(x[test]))))
    return Folds(tuple(values))


@dataclass(frozen=True)
class ClassFidelity:
    """How a classifier of real images does on generated ones, beside held-out real ones; see `class_fidelity`.

    Attributes:
        accuracy: on generated images, one value per fold.
        real_accuracy: on held-out real images, one value per fold.
        recall: class → share of generated images of this class that are recognised, mean over the folds.
        real_recall: class → the same of held-out real images.
    """

    accuracy: Folds
    real_accuracy: Folds
    recall: dict[int, float]
    real_recall: dict[int, float]


def class_fidelity(
    real: Float[Tensor, "n d"],
    real_labels: Int64[Tensor, " n"],
    made: Float[Tensor, "m d"],
    made_labels: Int64[Tensor, " m"],
    *,
    folds: int = 5,
    seed: int = 0,
) -> ClassFidelity:
    """Does a classifier trained on real features recognise the class that a generated image was asked to show?

    In each fold a logistic regression is trained on the other real images and applied both to the real images of the fold
    and to all generated ones, so that both numbers come from the same classifiers. Fidelity near the real accuracy is
    as good as it gets; well above it, samples are easier than reality (typical scenes only).

    Source: Ravuri and Vinyals 2019, arXiv:1905.10887 (classification accuracy score, of which this is the converse).

    Args:
        real: features of real images (N, D).
        real_labels: their classes (N,), each with at least ``folds`` images.
        made: features of generated images (M, D).
        made_labels: the classes asked for (M,).
        folds: parts of the cross-validation.
        seed: shuffles the images into the folds.

    Raises:
        ShapeError: if sets are empty, dimensions differ, or there is not one label per row.
        LabelError: if there is one class only, a class has too few real images, or a generated one has no real image.
        NoDataError: if features are not finite.
        ValueError: if there are fewer than two folds.

    >>> g = torch.Generator().manual_seed(0)
    >>> y = torch.arange(40) % 2
    >>> x = torch.randn(40, 2, generator=g) + 20 * y[:, None]
    >>> found = class_fidelity(x, y, x, 1 - y)  # every label wrong
    >>> found.real_accuracy.mean, found.accuracy.mean
    (1.0, 0.0)
    """
    _at_least_two(folds)
    real, made = pair(real, made)
    _check_labels(real, real_labels, made, made_labels, folds)
    x, x_made = real.cpu().numpy(), made.cpu().numpy()
    y, y_made = real_labels.cpu().numpy(), made_labels.cpu().numpy()
    hits, hits_made = torch.zeros(len(y), dtype=torch.float64), torch.zeros(len(y_made), dtype=torch.float64)
    accuracy, real_accuracy = [], []
    for train, test in _split(y, folds, seed):
        model = _classifier().fit(x[train], y[train])
        right, right_made = model.predict(x[test]) == y[test], model.predict(x_made) == y_made
        real_accuracy.append(float(right.mean()))
        accuracy.append(float(right_made.mean()))
        hits[torch.from_numpy(test)] = torch.from_numpy(right).double()
        hits_made += torch.from_numpy(right_made).double() / folds
    return ClassFidelity(
        Folds(tuple(accuracy)),
        Folds(tuple(real_accuracy)),
        _by_class(hits_made, made_labels.cpu()),
        _by_class(hits, real_labels.cpu()),
    )


def _by_class(hits: Tensor, labels: Tensor) -> dict[int, float]:
    return {int(c): float(hits[labels == c].mean()) for c in torch.unique(labels)}


def _check_labels(real: Tensor, real_labels: Tensor, made: Tensor, made_labels: Tensor, folds: int) -> None:
    for x, labels, name in ((real, real_labels, "real"), (made, made_labels, "made")):
        if labels.shape != (len(x),):
            raise ShapeError(f"{tuple(labels.shape)} labels for {len(x)} {name} images: give one each")
    classes, counts = torch.unique(real_labels, return_counts=True)
    if len(classes) < 2:
        raise LabelError("one class only among the real images: there is nothing to tell apart")
    if int(counts.min()) < folds:
        scarce = int(classes[counts.argmin()])
        raise LabelError(
            f"class {scarce} has {int(counts.min())} real images, fewer than {folds} folds: give fewer folds"
        )
    if unknown := set(made_labels.tolist()) - set(classes.tolist()):
        raise LabelError(f"generated class {min(unknown)} has no real image: a classifier cannot know it")


def _at_least_two(folds: int) -> int:
    if folds < 2:
        raise ValueError(f"at least 2 folds are needed, got {folds}")
    return folds


def _split(y: Any, folds: int, seed: int) -> Iterator[tuple[Any, Any]]:
    from sklearn.model_selection import StratifiedKFold

    yield from StratifiedKFold(folds, shuffle=True, random_state=seed).split(y, y)


def _classifier(balanced: bool = False) -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    weight = "balanced" if balanced else None
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000, class_weight=weight))
