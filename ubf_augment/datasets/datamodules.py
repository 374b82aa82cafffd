"""Lightning data modules in torchgeo's manner: splits, loaders, and bands standardised by the training side."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import kornia.augmentation as K
import torch
from torch import Tensor
from torchgeo.datamodules import NonGeoDataModule

from ubf_augment.datasets.folder import HSIFolder
from ubf_augment.datasets.hsrs_sc import HSRSSC
from ubf_augment.datasets.splits import stratified
from ubf_augment.errors import NoDataError

_IMAGES = 64  # read for mean and deviation


class _Standardising(NonGeoDataModule):
    """Normalises with mean and deviation of each band, of the training side unless given.

    Like every data module of torchgeo it normalises after the batch has reached its device, in ``aug``, so that `UBFCallback` can
    put synthetic images before that. It drops incomplete training batches.
    """

    def __init__(
        self,
        dataset_class: Any,
        batch_size: int,
        num_workers: int,
        mean: Sequence[float] | None,
        std: Sequence[float] | None,
        **kwargs: Any,
    ) -> None:
        if (mean is None) != (std is None):
            raise ValueError("give both mean and std, or neither to have them computed")
        self._computed = mean is None
        self.mean, self.std = (torch.tensor(v if v is not None else d) for v, d in ((mean, 0.0), (std, 1.0)))
        super().__init__(dataset_class, batch_size, num_workers, **kwargs)

    def train_side(self) -> Any:
        """The training data set."""
        return self.dataset_class(split="train", **self.kwargs)  # type: ignore[call-arg]

    def setup(self, stage: str) -> None:
        """Open the data sets of a stage; the first time, also compute mean and deviation.

        Args:
            stage: ``"fit"``, ``"validate"`` or ``"test"``.
        """
        super().setup(stage)
        self._standardise()

    def _standardise(self) -> None:
        if not self._computed or self.mean.ndim:
            return
        data: Any = self.train_dataset if self.train_dataset is not None else self.train_side()
        self.mean, self.std = band_statistics(data)
        self.aug = K.AugmentationSequential(K.Normalize(self.mean, self.std), data_keys=None, keepdim=True)


class HSRSSCDataModule(_Standardising):
    """`HSRSSC` for Lightning: the fixed training list less ``val_size`` scenes for validation, and the rest for testing.

    Args:
        root: see `HSRSSC`.
        batch_size: scenes per batch.
        num_workers: of the loaders.
        val_size: scenes of the training list that validate; a tenth by default.
        mean: of each band, for normalisation; that of the training side by default.
        std: likewise, deviations.
        kwargs: further arguments of `HSRSSC`.

    Raises:
        ValueError: if only one of mean and std is given; further as `HSRSSC`, when set up.
    """

    def __init__(
        self,
        root: str | os.PathLike[str] = "data",
        batch_size: int = 32,
        num_workers: int = 0,
        *,
        val_size: int = 76,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(HSRSSC, batch_size, num_workers, mean, std, root=root, val_size=val_size, **kwargs)


class HSIFolderDataModule(_Standardising):
    """`HSIFolder` for Lightning, split at random within each class.

    This takes images for independent: do not use it where files of one folder overlap, or show one place.

    Args:
        root: see `HSIFolder`.
        batch_size: images per batch.
        num_workers: of the loaders.
        val_share: share of the images that validate.
        test_share: share that tests.
        seed: of the split.
        mean: of each band, for normalisation; that of the training side by default.
        std: likewise, deviations.
        kwargs: further arguments of `HSIFolder`.

    Raises:
        ValueError: if only one of mean and std is given.
        NoDataError: (when set up) if a class has too few images to stand on every side.
        Further as `HSIFolder`, when set up.
    """

    def __init__(
        self,
        root: str | os.PathLike[str] = "data",
        batch_size: int = 32,
        num_workers: int = 0,
        *,
        val_share: float = 0.1,
        test_share: float = 0.2,
        seed: int = 0,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(HSIFolder, batch_size, num_workers, mean, std, root=root, **kwargs)
        self.val_share, self.test_share, self.seed = val_share, test_share, seed

    def setup(self, stage: str) -> None:
        """Open the data sets of a stage; the first time, also compute mean and deviation.

        Args:
            stage: ``"fit"``, ``"validate"`` or ``"test"``.
        """
        whole = HSIFolder(**self.kwargs)
        y, count, classes = whole.targets, len(whole), len(whole.classes)
        try:
            test, rest = stratified(y, max(classes, round(self.test_share * count)), self.seed)
            val, train = stratified(
                [y[i] for i in rest], max(classes, round(self.val_share * count)), self.seed + 1
            )
        except ValueError as error:
            raise NoDataError(f"{whole.root} has {count} images of {classes} classes: {error}") from error
        self.train_dataset = whole.subset([rest[i] for i in train])
        self.val_dataset = whole.subset([rest[i] for i in val])
        self.test_dataset = whole.subset(test)
        self._standardise()


def band_statistics(data: Any) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (C,) of each band over the pixels of at most 64 images, evenly chosen.

    Args:
        data: a data set of ``{"image": (C, H, W), …}``; pixels outside ``"mask"`` are not counted.
    """
    chosen = range(0, len(data), max(1, len(data) // _IMAGES))[:_IMAGES]
    count, total, squares = 0, torch.zeros(()).double(), torch.zeros(()).double()
    for i in chosen:
        sample = data[i]
        pixels = sample["image"].double().flatten(1)
        if "mask" in sample:
            pixels = pixels[:, sample["mask"].flatten()]
        count += pixels.shape[1]
        total, squares = total + pixels.sum(1), squares + pixels.square().sum(1)
    mean = total / count
    return mean.float(), (squares / count - mean.square()).clamp_min(1e-12).sqrt().float()
