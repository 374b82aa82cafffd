"""ARAD_1K and the Harvard database: hyperspectral images of everyday scenes, 31 bands of 10 nm."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.utils.data import Dataset

from ubf_augment.datasets.download import fetch_folder
from ubf_augment.datasets.missing import check_choice, not_found
from ubf_augment.errors import BandCountError, HSIReadError, ShapeError
from ubf_augment.io import read_hsi
from ubf_augment.plotting import plot_sample
from ubf_augment.spectra import Sensor, sensor

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Transform = Callable[[dict[str, Any]], dict[str, Any]]


class _Scenes(Dataset[dict[str, Any]]):
    """Files of one variable each, with the bands of a sensor; without labels."""

    key: str
    files: list[Path]

    def __init__(
        self, known: Sensor, bands: Sequence[int] | None, crop: int | None, transforms: Transform | None
    ) -> None:
        if crop is not None and crop < 1:
            raise ValueError(f"crop must be at least 1, got {crop}")
        self.crop, self.transforms, self._centres = crop, transforms, known.wavelengths
        self.bands = tuple(range(len(self._centres))) if bands is None else tuple(bands)
        self.wavelengths: Tensor = known.select(self.bands).centres

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, i: int) -> dict[str, Any]:
        """Read one image."""
        sample = self._read(self.files[i])
        if self.crop is not None:
            sample = {name: _central(values, self.crop, self.files[i]) for name, values in sample.items()}
        return sample if self.transforms is None else self.transforms(sample)

    def _read(self, path: Path) -> dict[str, Tensor]:
        dropped = sorted(set(range(len(self._centres))) - set(self.bands))
        hsi = read_hsi(path, key=self.key, wavelengths=self._centres, drop_bands=dropped)
        return {"image": hsi.image}

    def plot(self, sample: dict[str, Any], show_titles: bool = True, suptitle: str | None = None) -> Figure:
        """Show a sample in pseudo-RGB and some of its spectra.

        Args:
            sample: of this data set.
            show_titles: has no effect, there are no classes.
            suptitle: title of the figure.
        """
        return plot_sample(sample, self.wavelengths, None, suptitle)


class ARAD1K(_Scenes):
    """ARAD_1K (NTIRE 2022): 950 images of everyday scenes, 482×512 pixels, 31 bands from 400 to 700 nm.

    The images are published as MATLAB v7.3 files, 900 for training and 50 for validation (50 more test images are not public)::

        root/**/ARAD_1K_0001.mat … ARAD_1K_0950.mat   variable `cube`, (482, 512, 31)

    Sides go by these numbers, whatever the folders are called. Values between 0 and 1 are the camera's signal, with the light
    of the scene in it; they stand in the place of reflectance here. Download: github.com/boazarad/ARAD_1K (registration).

    Samples are ``{"image": (31, H, W) float32}``. If you use this data, please cite Arad et al. 2022, NTIRE 2022 Spectral
    Recovery Challenge and Data Set, CVPR Workshops, pp. 863–881.

    Args:
        root: a folder that holds the files, or folders of them.
        split: ``"train"``, ``"val"`` or ``"all"``.
        bands: 0-based bands to take, ascending; all by default.
        crop: take the central square of so many pixels of each image.
        transforms: applied to each sample.

    Attributes:
        files: the files, by number.
        wavelengths: (C,) band centres in nm.

    Raises:
        DatasetNotFoundError: (torchgeo's) if there are no such files.
        HSIReadError, BandCountError: (when read) for files that hold no such image.
        ValueError: for an unknown split.
    """

    key = "cube"
    _LAST_OF_TRAINING = 900

    def __init__(
        self,
        root: str | os.PathLike[str] = "data",
        split: Literal["train", "val", "all"] = "train",
        *,
        bands: Sequence[int] | None = None,
        crop: int | None = None,
        transforms: Transform | None = None,
    ) -> None:
        check_choice(split, ("train", "val", "all"))
        super().__init__(sensor("arad-1k"), bands, crop, transforms)
        self.root, self.split = root, split
        found = {
            int(match[1]): path
            for path in Path(root).expanduser().rglob("ARAD_1K_*.mat")
            if (match := re.fullmatch(r"ARAD_1K_(\d{4})\.mat", path.name))
        }
        sides = {"train": False, "val": True}
        self.files = [
            found[n] for n in sorted(found) if split == "all" or sides[split] == (n > self._LAST_OF_TRAINING)
        ]
        if not self.files:
            raise not_found(self, f"Expected ARAD_1K_0001.mat … there for {split!r}, or in a folder of it.")


class HarvardHSI(_Scenes):
    """Harvard database: 50 images under daylight, 27 under artificial and mixed light, 1040×1392 pixels, 31 bands 420–720 nm.

    The images are published as MATLAB files (before v7.3) in two archives::

        root/CZ_hsdb/*.mat    daylight                 variables `ref` (1040, 1392, 31), and
        root/CZ_hsdbi/*.mat   artificial and mixed     `lbl` (1040, 1392): 0 where something moved
        root/**/calib.txt     sensitivity of the camera in each band

    Values are the camera's signal, with the light of the scene and the sensitivity of the camera in it; they stand in the
    place of reflectance here. The archives (for research) lie at vision.seas.harvard.edu/hyperspec, without published checksums;
    ``download`` fetches them.

    Samples are ``{"image": (31, H, W) float32, "mask": (H, W) bool}``; the image is 0 where the mask is False. If you use this
    data, please cite Chakrabarti and Zickler 2011, Statistics of Real-World Hyperspectral Images, doi:10.1109/CVPR.2011.5995660.

    Args:
        root: the folder that holds the two.
        split: ``"daylight"``, ``"mixed"`` or ``"all"``.
        bands: 0-based bands to take, ascending; all by default.
        crop: take the central square of so many pixels of each image.
        calibrate: divide by ``calib.txt``, scaled to a maximum of one.
        transforms: applied to each sample.
        download: fetch and unpack the archives of the split that are not there (some GB each).

    Attributes:
        files: the files, daylight first, by name.
        wavelengths: (C,) band centres in nm.

    Raises:
        DatasetNotFoundError: (torchgeo's) if there are no such files, or with ``calibrate`` no ``calib.txt``.
        HSIReadError: (with ``download``) if an archive cannot be fetched, or is damaged.
        HSIReadError, BandCountError: (when read) for files that hold no such image; for a ``calib.txt`` of other than 31
            positive numbers.
        ShapeError: (when read) if image and mask differ in size.
        ValueError: for an unknown split.
    """

    key = "ref"
    URL: ClassVar[str] = "http://vision.seas.harvard.edu/hyperspec/d2x5g3/"
    _FOLDERS: tuple[tuple[str, str], ...] = (("daylight", "CZ_hsdb"), ("mixed", "CZ_hsdbi"))

    def __init__(
        self,
        root: str | os.PathLike[str] = "data",
        split: Literal["daylight", "mixed", "all"] = "all",
        *,
        bands: Sequence[int] | None = None,
        crop: int | None = None,
        calibrate: bool = False,
        transforms: Transform | None = None,
        download: bool = False,
    ) -> None:
        check_choice(split, ("daylight", "mixed", "all"))
        super().__init__(sensor("harvard"), bands, crop, transforms)
        self.root, self.split = root, split
        folder = Path(root).expanduser()
        wanted = [name for side, name in self._FOLDERS if split in (side, "all")]
        for name in wanted if download else ():
            if not (folder / name).is_dir():
                fetch_folder(f"{self.URL}{name}.tgz", folder)
        self.files = [file for name in wanted for file in sorted((folder / name).glob("*.mat"))]
        if not self.files:
            raise not_found(
                self,
                f"Expected {' and '.join(wanted)} there, folders of .mat files; download=True fetches them.",
            )
        self._gain = self._calibration(folder) if calibrate else None

    def _calibration(self, folder: Path) -> Tensor:
        """(C, 1, 1) by which the signal is multiplied."""
        import numpy as np

        files = sorted(folder.rglob("calib.txt"))
        if not files:
            raise not_found(self, "calibrate=True needs calib.txt, which comes with the images.")
        try:
            numbers = torch.from_numpy(np.loadtxt(files[0], dtype=np.float64).ravel())
        except ValueError as error:
            raise HSIReadError(f"{files[0]} holds other things than numbers ({error})") from error
        if len(numbers) != len(self._centres) or not bool((numbers > 0).all()):
            raise BandCountError(
                f"{files[0]} must hold {len(self._centres)} positive numbers, one per band, and holds {len(numbers)}"
            )
        return (numbers.max() / numbers)[list(self.bands), None, None].float()

    def _read(self, path: Path) -> dict[str, Tensor]:
        image = super()._read(path)["image"]
        mask = read_labels(path, "lbl") != 0
        if mask.shape != image.shape[1:]:
            raise ShapeError(f"{path}: ref has {tuple(image.shape[1:])} pixels, lbl {tuple(mask.shape)}")
        if self._gain is not None:
            image = image * self._gain
        return {"image": torch.where(mask, image, 0.0), "mask": mask}


def read_labels(path: Path, key: str) -> Tensor:
    """A matrix (H, W) of a MATLAB file before v7.3.

    Raises:
        HSIReadError: if there is none of that name.
    """
    from scipy.io import loadmat

    try:
        return torch.from_numpy(loadmat(path, variable_names=[key])[key])
    except KeyError:
        raise HSIReadError(f"{path} has no variable {key!r}") from None


def _central(values: Tensor, side: int, path: Path) -> Tensor:
    """The central square of (…, H, W)."""
    height, width = values.shape[-2:]
    if side > min(height, width):
        raise ShapeError(f"{path} has {height}×{width} pixels, crop={side} is more")
    top, left = (height - side) // 2, (width - side) // 2
    return values[..., top : top + side, left : left + side].contiguous()
