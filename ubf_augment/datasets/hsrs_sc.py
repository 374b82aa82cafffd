"""HSRS-SC: airborne hyperspectral scenes of five classes."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, Literal

from ubf_augment.datasets.folder import HSIFolder
from ubf_augment.datasets.missing import check_choice, not_found
from ubf_augment.datasets.splits import stratified
from ubf_augment.errors import BandCountError, HSIReadError, NoDataError, RadiometryError
from ubf_augment.io import read_hsi
from ubf_augment.spectra import sensor

_CLASSES, _SEED = 5, 2024


class HSRSSC(HSIFolder):
    """HSRS-SC: scenes of 256×256 pixels, 48 bands from 382 to 1056 nm, five classes.

    The data set is published as five folders of GeoTIFFs with whole numbers, 4000 for a reflectance of one::

        root/<class>/<scene>.tif

    It has no official lists. ``"train"`` here is one list of ``train_size`` scenes, stratified and drawn once with a fixed seed
    (761 is the size of the training set in Yu et al., CVPR 2024, who do not name its scenes), ``"test"`` holds all others,
    and ``"val"`` is cut from the training list. Names of classes are those of the folders. There is no open address to
    download from: the publication tells how to get the data.

    Samples are ``{"image": (48, H, W) float32 reflectance, "label": int64 scalar}``. If you use this data, please cite Xu,
    Deng and Huang 2021, Journal of Image and Graphics 26(8), 1809–1822, doi:10.11834/jig.200835.

    Args:
        root: the folder that holds the five.
        split: ``"train"``, ``"val"``, ``"test"``, or ``"all"``.
        bands: 0-based bands to take, ascending; all by default.
        train_size: scenes of the training list.
        val_size: how many of them are for validation instead.
        transforms: applied to each sample.

    Attributes:
        classes: class names in label order.
        files: (path, label) of each scene.
        targets: the label of each scene.
        wavelengths: (C,) band centres in nm.

    Raises:
        DatasetNotFoundError: (torchgeo's) if there is no such folder, or no class folders in it.
        HSIReadError: if there are not five class folders, or one holds no images.
        BandCountError: if a file has other than 48 bands.
        RadiometryError: if the stored numbers divided by 4000 are no reflectance.
        NoDataError: if there are too few scenes for the lists.
        ValueError: for an unknown split, or ``"val"`` without ``val_size``.
    """

    def __init__(
        self,
        root: str | os.PathLike[str] = "data",
        split: Literal["train", "val", "test", "all"] = "train",
        *,
        bands: Sequence[int] | None = None,
        train_size: int = 761,
        val_size: int = 0,
        transforms: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
    ) -> None:
        check_choice(split, ("train", "val", "test", "all"))
        known = sensor("hsrs-sc")
        count = len(known.wavelengths)
        self.split = split
        try:
            super().__init__(
                root,
                sensor=known,
                scale=known.scale,
                drop_bands=None if bands is None else sorted(set(range(count)) - set(bands)),
                transforms=transforms,
            )
        except BandCountError as error:
            raise BandCountError(f"{error}. HSRS-SC has {count} bands; HSIFolder reads others") from error
        self._check_radiometry(1 / (known.scale or 1))
        rows = self._rows(train_size, val_size)
        self.files = [self.files[i] for i in rows]
        self.targets = [self.targets[i] for i in rows]

    def _find_classes(self, classes: Sequence[str] | None) -> tuple[str, ...]:
        folders = [d for d in self.root.iterdir() if d.is_dir()] if self.root.is_dir() else []
        if not folders:
            raise not_found(self, f"Expected {_CLASSES} folders of GeoTIFFs there, one per class.")
        found = super()._find_classes(classes)
        if len(found) != _CLASSES:
            raise HSIReadError(
                f"{self.root} has {len(found)} class folders ({', '.join(found)}), HSRS-SC has {_CLASSES}: give the folder "
                "that holds the five, and nothing else beside them"
            )
        return found

    def _rows(self, train_size: int, val_size: int) -> list[int]:
        """Scenes of the split."""
        if self.split == "all":
            return list(range(len(self.files)))
        if self.split == "val" and not val_size:
            raise ValueError("there is no validation side without val_size: give the number of scenes for it")
        try:
            train, test = stratified(self.targets, train_size, _SEED)
            if self.split == "test":
                return test
            if val_size:
                val, rest = stratified([self.targets[i] for i in train], val_size, _SEED + 1)
                train = [train[i] for i in (val if self.split == "val" else rest)]
        except ValueError as error:
            raise NoDataError(
                f"{train_size} training images of {len(self.files)} in {self.root}, {val_size} of them for validation: {error}"
            ) from error
        return train

    def _check_radiometry(self, divisor: float) -> None:
        """Raise if the first scene holds numbers that were scaled before."""
        first = read_hsi(self.files[0][0], **self._options).image
        middle = float(first.flatten()[:: max(1, first.numel() // 1_000_000)].median())
        if not 1e-3 < middle < 2:
            raise RadiometryError(
                f"{self.files[0][0]} has a median of {middle:.3g} after division by {divisor:g}, which is no reflectance: the "
                "files must hold the original numbers (HSIFolder reads scaled ones)"
            )
