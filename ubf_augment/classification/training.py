"""Scene classification: train a network on labelled images, with any augmentation, and score it.

The plain loop behind the demo, the benchmarks and the choice of an augmentation: trainings that differ in their
augmentation alone have the same initial weights, the same order of images and the same number of optimiser steps.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Self

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from ubf_augment.classification.images import LabelledImages
from ubf_augment.errors import NoDataError
from ubf_augment.seeding import derive_seed, seeded
from ubf_augment.training.parts import warmup_cosine

if TYPE_CHECKING:
    from lightning.fabric import Fabric

_ORDER, _WEIGHTS, _AUGMENT = 1, 2, 3  # independent streams of random numbers of one seed


@dataclass(frozen=True)
class Recipe:
    """How a classifier is trained: AdamW, linear warm-up and cosine decay, for a fixed number of steps.

    Attributes:
        model: a timm name; ``alexnet`` is registered by `ubf_augment.models`.
        steps: optimiser steps.
        batch_size: real images per step.
        lr: peak learning rate.
        weight_decay: of AdamW.
        warmup: share of the steps.
        size: images are resized to this side for the network; None leaves them.
        label_smoothing: of the cross-entropy.
        imbalance: ``"weights"`` weighs the loss by the inverse frequency of the class, ``"oversample"`` draws every
            class equally often.
        synthetic_weight: weight of synthetic images in the loss.
        split_batch_norm: separate batch norm statistics for synthetic images; needs an augmentation that appends one
            to every image.
        model_options: of ``timm.create_model``.
    """

    model: str = "resnet18"
    steps: int = 300
    batch_size: int = 32
    lr: float = 1e-3
    weight_decay: float = 0.05
    warmup: float = 0.1
    size: int | None = None
    label_smoothing: float = 0.0
    imbalance: Literal["none", "weights", "oversample"] = "none"
    synthetic_weight: float = 1.0
    split_batch_norm: bool = False
    model_options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch_size < 2 or not self.lr > 0:
            raise ValueError(
                f"steps ≥ 1, batch_size ≥ 2 and lr > 0 expected, got {self.steps}, {self.batch_size}, {self.lr}"
            )
        if self.imbalance not in ("none", "weights", "oversample"):
            raise ValueError(f"imbalance must be none, weights or oversample, got {self.imbalance!r}")


class Classifier(nn.Module):
    """A network for images in reflectance: standardises each band by the training images, resizes, classifies.

    Args:
        network: logits (B, K) of images (B, C, H, W).
        mean: of each band (C,).
        std: of each band (C,).
        size: side that the network sees; None leaves images as they are.

    >>> net = Classifier(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), torch.tensor([0.5]), torch.tensor([0.1]))
    >>> net(torch.full((1, 1, 4, 4), 0.7)).item()
    1.9999998807907104
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: Tensor, std: Tensor, size: int | None = None) -> None:
        super().__init__()
        self.network, self.size = network, size
        self.register_buffer("mean", mean[:, None, None].float())
        self.register_buffer("std", std[:, None, None].float().clamp_min(1e-6))

    @classmethod
    def build(cls, recipe: Recipe, data: LabelledImages, seed: int) -> Self:
        """A new network for ``data`` by the recipe; its weights depend on the seed alone."""
        spread, mean = torch.std_mean(data.x.double(), (0, 2, 3))
        return cls.of(recipe, mean, spread, len(data.classes), seed)

    @classmethod
    def of(
        cls,
        recipe: Recipe,
        mean: Float[Tensor, " c"],
        std: Float[Tensor, " c"],
        num_classes: int,
        seed: int,
    ) -> Self:
        """A new network for images of these statistics by the recipe; its weights depend on the seed alone."""
        import timm

        import ubf_augment.models  # noqa: F401  (registers AlexNet)

        options = {"num_classes": num_classes, "in_chans": len(mean), **recipe.model_options}
        with seeded(seed):
            network = timm.create_model(recipe.model, **options)
        if recipe.split_batch_norm:
            from timm import layers

            network = layers.convert_splitbn_model(network, 2)  # type: ignore[attr-defined, no-untyped-call]
        return cls(network.to(memory_format=torch.channels_last), mean, std, recipe.size)

    def backbone(self) -> dict[str, Tensor]:
        """The network's weights without its last layer, on the CPU: for ``load_state_dict(…, strict=False)``, or ``start``."""
        network: Any = self.network
        last = network.get_classifier() if hasattr(network, "get_classifier") else None
        [head] = [name for name, m in network.named_modules() if m is last] or [None]
        return {
            k: v.detach().cpu().contiguous()
            for k, v in network.state_dict().items()
            if head is None or not k.startswith(f"{head}.")
        }

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k"]:
        """Logits."""
        z = (x - self.mean) / self.std
        if self.size is not None and tuple(z.shape[-2:]) != (self.size, self.size):
            z = F.interpolate(z, (self.size, self.size), mode="bilinear", align_corners=False)
        out: Tensor = self.network(z.contiguous(memory_format=torch.channels_last))
        return out


@dataclass(frozen=True)
class Training:
    """A finished training.

    Attributes:
        model: the classifier, in evaluation mode.
        loss: mean over the last tenth of the steps.
        seconds: of the loop.
        synthetic: share of synthetic images among those seen.
    """

    model: Classifier
    loss: float
    seconds: float
    synthetic: float


class BatchOrder:
    """Rows of every batch: all images in random order again and again, or all classes equally often.

    Args:
        y: labels (N,).
        batch_size: rows per batch.
        seed: of the order.
        oversample: draw every class equally often.

    >>> order = BatchOrder(torch.tensor([0, 0, 0, 1]), 4, seed=0)
    >>> order.next().sort().values.tolist()
    [0, 1, 2, 3]
    """

    def __init__(self, y: Tensor, batch_size: int, seed: int, oversample: bool = False) -> None:
        self._batch_size, self._rng = batch_size, torch.Generator().manual_seed(seed)
        self._rows = [(y == k).nonzero()[:, 0].cpu() for k in torch.unique(y)] if oversample else []
        self._n, self._left = len(y), torch.zeros(0, dtype=torch.int64)

    def next(self) -> Int64[Tensor, " b"]:
        """The next batch."""
        while len(self._left) < self._batch_size:
            self._left = torch.cat([self._left, self._epoch()])
        rows, self._left = self._left[: self._batch_size], self._left[self._batch_size :]
        return rows

    def _epoch(self) -> Tensor:
        if not self._rows:
            return torch.randperm(self._n, generator=self._rng)
        most = max(map(len, self._rows))
        filled = [
            torch.cat([self._shuffled(r) for _ in range(-(-most // len(r)))])[:most] for r in self._rows
        ]
        return self._shuffled(torch.cat(filled))

    def _shuffled(self, rows: Tensor) -> Tensor:
        return rows[torch.randperm(len(rows), generator=self._rng)]


def imagenet_weights(model: str, bands: int) -> dict[str, Tensor]:
    """ImageNet weights to start a classifier of any number of bands from (``start`` of `train_classifier`).

    The first layer's filters for red, green and blue are repeated over the bands and scaled by 3 / bands, as timm does, so that
    an image that is alike in all bands gives what it would in three. Without a download there is one network.

    Args:
        model: ``"tf_efficientnet_lite0"``.
        bands: C.

    Raises:
        ValueError: for another network.
        ModuleNotFoundError: if the package with the weights is not installed.
    """
    if model != "tf_efficientnet_lite0":
        raise ValueError(f"no ImageNet weights of {model} at hand: there are those of tf_efficientnet_lite0")
    from timm.models import adapt_input_conv

    from ubf_augment.metrics.features import efficientnet_lite0_weights

    weights = efficientnet_lite0_weights()
    first = "conv_stem.weight"
    return weights | {first: adapt_input_conv(bands, weights[first])}


def train_classifier(
    data: LabelledImages,
    recipe: Recipe,
    augment: Callable[[int], nn.Module] | None = None,
    *,
    seed: int = 0,
    start: Mapping[str, Tensor] | None = None,
    fabric: Fabric | None = None,
    tick: Callable[[], object] = lambda: None,
) -> Training:
    """Train a classifier on labelled images.

    Initial weights and the order of the real images depend on ``seed`` alone, so that trainings with different
    augmentations are paired.

    Args:
        data: training images; they stay as they are.
        recipe: network, steps, learning rate.
        augment: makes a module of a seed that takes and gives ``{"image", "label"}`` (and may add ``"is_synthetic"``),
            such as `UBFAugment` before kornia's `AugmentationSequential`. Called once; the global random state is
            seeded for the whole training and put back after it.
        seed: of everything.
        start: weights of a network of the same kind to start from (``model.network.state_dict()``); those of another
            shape, such as the last layer, are left out.
        fabric: device and precision; the CPU in full precision by default.
        tick: called after every step.

    Raises:
        NoDataError: if there are no images.
        ValueError: if no weight of ``start`` fits.
        FloatingPointError: if the loss is no longer finite.
        ValueError: if ``split_batch_norm`` is set and a batch is not real images followed by as many synthetic ones.
    """
    if not len(data):
        raise NoDataError("there are no images to train a classifier on")
    begin = time.monotonic()
    model: Any = Classifier.build(recipe, data, derive_seed(seed, _WEIGHTS))
    if start is not None:
        own = model.network.state_dict()
        fits = {k: v for k, v in start.items() if k in own and own[k].shape == v.shape}
        if not fits:
            raise ValueError(
                f"no weight of start fits {recipe.model}: take those of a network of the same kind"
            )
        model.network.load_state_dict(fits, strict=False)
    with seeded(derive_seed(seed, _AUGMENT)):
        transform = nn.Identity() if augment is None else augment(derive_seed(seed, _AUGMENT))
        optimizer: Any = torch.optim.AdamW(
            model.parameters(), recipe.lr, weight_decay=recipe.weight_decay, fused=True
        )
        device = torch.device("cpu")
        if fabric is not None:
            model, optimizer = fabric.setup(model, optimizer)
            device = fabric.device
        x, y = data.x.to(device), data.y.to(device)
        weight = _class_weights(data) if recipe.imbalance == "weights" else None
        order = BatchOrder(
            data.y, recipe.batch_size, derive_seed(seed, _ORDER), recipe.imbalance == "oversample"
        )
        factor, losses, seen = warmup_cosine(recipe.steps, int(recipe.warmup * recipe.steps)), [], [0, 0]
        model.train()
        for step in range(recipe.steps):
            rows = order.next().to(device)
            batch = transform({"image": x[rows], "label": y[rows]})
            if recipe.split_batch_norm:
                _check_halves(batch, len(rows))
            for group in optimizer.param_groups:
                group["lr"] = recipe.lr * factor(step)
            loss = _loss(model(batch["image"]), batch, recipe, weight)
            optimizer.zero_grad()
            torch.autograd.backward(loss) if fabric is None else fabric.backward(loss)
            optimizer.step()
            losses.append(loss.detach())
            seen[0] += len(batch["image"])
            seen[1] += int(batch["is_synthetic"].sum()) if "is_synthetic" in batch else 0
            tick()
    plain = model.module if fabric is not None else model
    recent = float(torch.stack(losses[-max(1, len(losses) // 10) :]).mean())
    if not torch.isfinite(torch.tensor(recent)):
        raise FloatingPointError(
            f"the loss of {recipe.model} is {recent}: lower the learning rate {recipe.lr}"
        )
    return Training(plain.eval(), recent, time.monotonic() - begin, seen[1] / seen[0])


def _check_halves(batch: Mapping[str, Tensor], real: int) -> None:
    """Split batch norm takes the first half of a batch for the real images."""
    n = len(batch["image"])
    synthetic = batch["is_synthetic"].cpu() if "is_synthetic" in batch else torch.zeros(n, dtype=torch.bool)
    if n != 2 * real or not torch.equal(synthetic, torch.arange(n) >= real):
        raise ValueError(
            f"split_batch_norm needs {real} real images followed by {real} synthetic ones, got {n} images, "
            f"{int(synthetic.sum())} of them synthetic: append one to every image, as UBFAugment(synth, p=1, "
            'placement="append") does with a strategy that serves all classes'
        )


def _class_weights(data: LabelledImages) -> Tensor:
    """Inverse frequencies, with mean one over the images."""
    counts = torch.bincount(data.y, minlength=len(data.classes)).float().clamp_min(1)
    return len(data) / (int((torch.bincount(data.y) > 0).sum()) * counts)


def _loss(logits: Tensor, batch: Mapping[str, Tensor], recipe: Recipe, weight: Tensor | None) -> Tensor:
    """Cross-entropy, synthetic images weighted."""
    each = F.cross_entropy(
        logits, batch["label"], None if weight is None else weight.to(logits.device),
        reduction="none", label_smoothing=recipe.label_smoothing,
    )  # fmt: skip
    if recipe.synthetic_weight == 1.0 or "is_synthetic" not in batch:
        return each.mean()
    w = torch.where(batch["is_synthetic"].to(each.device), recipe.synthetic_weight, 1.0)
    return (w * each).sum() / w.sum().clamp_min(1e-6)
