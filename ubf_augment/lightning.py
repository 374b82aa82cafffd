"""`UBFCallback`: synthetic images in any torchgeo data module, by Python or YAML."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, Literal

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn

from ubf_augment.augment import Strategy, UBFAugment
from ubf_augment.automatic import choose
from ubf_augment.synthesis import HSISynthesizer


class _Call(nn.Module):
    """A plain callable as a module, so that nn.Sequential takes it."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, sample: Any) -> Any:
        return self.function(sample)


class UBFCallback(Callback):
    """Put `UBFAugment` before the training augmentation of a torchgeo data module.

    Before fitting it sets ``datamodule.train_aug = Sequential(augment, datamodule.train_aug or
    datamodule.aug)``, so that the module's own augmentation and normalisation see synthetic images like real
    ones, and puts the old value back after fitting. (In torchgeo ``train_aug`` *replaces* ``aug``, which
    holds the normalisation.) Validation and test stay real. The state of the random stream is part of the
    checkpoint.

    Every value is a plain number, string, list or mapping, so it works in YAML::

        trainer:
          callbacks:
            - class_path: ubf_augment.UBFCallback
              init_args: {pretrained: indian-pines, p: 0.5, strategy: {vary: 0.7, generate: 0.3}, seed: 0}

    Args:
        pretrained: packaged name, directory or Hugging Face Hub id of a synthesizer.
        synth: a synthesizer, instead of ``pretrained``.
        augment: a ready `UBFAugment`, instead of both and of all that follows.
        classes: names of the data set's classes in label order; by default ``classes`` of its training set.
        p, strategy, labels, placement, class_map, strict, seed: see `UBFAugment`; ``p="auto"`` calls `automatic.choose` on the
            data module's training set before fitting: ResNet-18 on the CPU, followed by the data module's own augmentation. To
            choose with another network or on a GPU, call `automatic.choose` yourself and pass ``augment``.
        strength, endmember_std, illumination_std, brightness_std, correlation_nm, residual, source, sample_options: see
            `UBFAugment`.

    Attributes:
        augment: the module, None before fitting if it is yet to be built.

    Raises:
        ValueError: unless exactly one of ``pretrained``, ``synth``, ``augment`` is given.
        TypeError: (when fitting) if there is no data module with ``train_aug`` and ``aug``.
    """

    def __init__(
        self,
        pretrained: str | None = None,
        *,
        synth: HSISynthesizer | None = None,
        augment: UBFAugment | None = None,
        p: float | Literal["auto"] = 0.5,
        strategy: Strategy | dict[str, float] = "generate",
        labels: Literal["keep", "balance"] | list[float] = "keep",
        placement: Literal["replace", "append"] = "replace",
        classes: list[str] | None = None,
        class_map: dict[str, str] | None = None,
        strict: bool = False,
        seed: int | None = None,
        strength: float = 0.5,
        endmember_std: float = 0.1,
        illumination_std: float = 0.2,
        brightness_std: float = 0.2,
        correlation_nm: float = 200.0,
        residual: bool = True,
        source: Literal["pool", "live"] = "pool",
        sample_options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if sum(v is not None for v in (pretrained, synth, augment)) != 1:
            raise ValueError(
                "give exactly one of pretrained='name', synth=HSISynthesizer, augment=UBFAugment"
            )
        self.pretrained, self.synth, self.augment = pretrained, synth, augment
        self.classes = classes
        self.options: dict[str, Any] = {
            "p": p, "strategy": strategy, "labels": labels, "placement": placement, "class_map": class_map,
            "strict": strict, "seed": seed, "strength": strength, "endmember_std": endmember_std,
            "illumination_std": illumination_std, "brightness_std": brightness_std,
            "correlation_nm": correlation_nm, "residual": residual, "source": source,
            "sample_options": sample_options,
        }  # fmt: skip
        self._restore: tuple[Any, Any] | None = None
        self._state: dict[str, Any] | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Put the augmentation into the data module; only for fitting."""
        if stage != "fit":
            return
        self._put_back()
        module: Any = getattr(trainer, "datamodule", None)
        if module is None or not hasattr(module, "train_aug") or not hasattr(module, "aug"):
            given = "none" if module is None else type(module).__name__
            raise TypeError(
                f"UBFCallback needs a data module with train_aug and aug, as torchgeo's have; got {given}. "
                "Elsewhere call UBFAugment yourself, in the training step or in collate_fn"
            )
        if self.augment is None:
            self.augment = self._build(module)
        if self._state is not None:
            self.augment.set_extra_state(self._state)
        _warn_if_empty(module, trainer)
        before = module.train_aug
        then = module.aug if before is None else before
        self._restore = module, before
        module.train_aug = nn.Sequential(self.augment, then if isinstance(then, nn.Module) else _Call(then))

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Choose what ``p="auto"`` leaves open, unless the checkpoint has brought a choice."""
        if self.augment is None or not self.augment.pending:
            return
        module: Any = getattr(trainer, "datamodule", None)
        then = module.train_aug[1]
        choose(
            self.augment, _dataset_of(module), classes=self.classes or _classes_of(module), after=lambda: then
        )  # fmt: skip

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Give the data module its own augmentation back."""
        if stage == "fit":
            self._put_back()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """The same after an error or Ctrl-C, where Lightning does not call ``teardown``."""
        self._put_back()

    def _put_back(self) -> None:
        if self._restore is not None:
            module, before = self._restore
            module.train_aug = before
            self._restore = None

    def state_dict(self) -> dict[str, Any]:
        """The state of the random stream, for the checkpoint."""
        return {"augment": None if self.augment is None else self.augment.get_extra_state()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self._state = state_dict["augment"]
        if self.augment is not None and self._state is not None:
            self.augment.set_extra_state(self._state)

    def _build(self, module: Any) -> UBFAugment:
        if self.synth is None:
            assert self.pretrained is not None
            self.synth = HSISynthesizer.from_pretrained(self.pretrained)
        classes: Sequence[str] | None = self.classes
        if classes is None:
            classes = _classes_of(module)
        if classes is None and self.synth.classes:
            warnings.warn(
                f"the training set of {type(module).__name__} names no classes, so its label 0 is taken for "
                f"{self.synth.classes[0]!r} of the synthesizer, and so on: if that is wrong, give "
                "classes=[…] in label order (and class_map)",
                stacklevel=2,
            )
        return UBFAugment(self.synth, classes=classes, **self.options)


def _dataset_of(module: Any) -> Any:
    return getattr(module, "train_dataset", None) or getattr(module, "dataset", None)


def _classes_of(module: Any) -> list[str] | None:
    """The class names that the training data set states, looked for inside Subset too."""
    dataset = _dataset_of(module)
    while dataset is not None and not hasattr(dataset, "classes") and hasattr(dataset, "dataset"):
        dataset = dataset.dataset
    found = getattr(dataset, "classes", None)
    if not isinstance(found, list | tuple) or not all(isinstance(c, str) for c in found):
        return None
    return list(found)


def _warn_if_empty(module: Any, trainer: Trainer) -> None:
    """Data modules of torchgeo drop incomplete training batches: a set smaller than a batch gives none."""
    dataset, size = _dataset_of(module), getattr(module, "train_batch_size", None)
    size = size if size is not None else getattr(module, "batch_size", None)
    if getattr(module, "train_batch_sampler", None) is not None or not hasattr(dataset, "__len__"):
        return
    share = len(dataset) // max(trainer.world_size, 1)
    if isinstance(size, int) and share < size:
        warnings.warn(
            f"the training set has {share} images per device, a batch {size}: torchgeo drops incomplete "
            f"batches, so there will be no training step. Set batch_size to {max(share, 1)} or less",
            stacklevel=2,
        )
