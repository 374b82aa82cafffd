"""Predictions of a classifier, and what they are worth."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from ubf_augment.errors import NoDataError


@dataclass(frozen=True)
class Scores:
    """What a classifier reaches on a set of images.

    Attributes:
        accuracy: overall accuracy in percent.
        macro_recall: mean of the recalls in percent.
        recalls: of each class that occurs, in percent; None for the others.
        nll: mean negative log-likelihood of the true classes, in nats.
        n: number of images.
    """

    accuracy: float
    macro_recall: float
    recalls: tuple[float | None, ...]
    nll: float
    n: int


@torch.no_grad()
def predict(model: nn.Module, x: Float[Tensor, "n c h w"], batch_size: int = 256) -> Float[Tensor, "n k"]:
    """Logits of images, on the CPU, with the model in evaluation mode.

    Raises:
        NoDataError: if there are no images.
    """
    if not len(x):
        raise NoDataError("there are no images to classify")
    was, device = model.training, next((p.device for p in model.parameters()), torch.device("cpu"))
    model.eval()
    logits = torch.cat([model(part.to(device)).float().cpu() for part in torch.split(x, batch_size)])
    model.train(was)
    return logits


def score(logits: Float[Tensor, "n k"], y: Int64[Tensor, " n"]) -> Scores:
    """Score predictions.

    >>> s = score(torch.zeros(4, 2), torch.tensor([0, 0, 0, 1]))  # both logits are 0, so class 0 is said
    >>> s.accuracy, s.macro_recall, round(s.nll, 4)
    (75.0, 50.0, 0.6931)
    """
    right = logits.argmax(1) == y
    recalls = [
        100 * float(right[y == k].double().mean()) if bool((y == k).any()) else None
        for k in range(logits.shape[1])
    ]
    known = [r for r in recalls if r is not None]
    nll = float(F.cross_entropy(logits, y))
    return Scores(100 * float(right.double().mean()), sum(known) / len(known), tuple(recalls), nll, len(y))
