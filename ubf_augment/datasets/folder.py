"""A folder of hyperspectral files, one subfolder per class."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor
from torch.utils.data import Dataset

from ubf_augment.errors import BandCountError, HSIReadError, UnknownClassError, WavelengthError
from ubf_augment.io import list_hsi, read_hsi
from ubf_augment.plotting import plot_sample
from ubf_augment.spectra import Sensor, Wavelengths

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class HSIFolder(Dataset[dict[str, Any]]):
    """Labelled hyperspectral files ``root/<class>/<file>`` in any format of `read_hsi`, on one grid.

    Samples are ``{"image": (C, H, W) float32 reflectance, "label": int64 scalar}``. Files are read when they
    are asked for; what is wrong with one is raised with its path.

    Args:
        root: the folder.
        wavelengths: band centres in nm, if the files do not name them.
        classes: names of the subfolders in label order; by default all of them, sorted.
        scale: factor from stored values to reflectance, such as ``1 / 10000``, if the files do not name it.
        key: variable of MATLAB and NumPy files.
        layout: axes of their arrays.
        size: (H, W) of flattened arrays.
        nodata: stored value that marks missing data.
        drop_bands: 0-based bands to leave out, or ``"bad"``.
        sort_bands: order the bands by wavelength.
        on_nodata: ``"raise"``, or ``"mask"``: missing pixels are 0, and samples have a ``"mask"`` (H, W)
            bool.
        sensor: fills in what the files do not say, see `read_hsi`.
        recursive: look into subfolders of the class folders too.
        transforms: applied to each sample.

    Attributes:
        classes: class names in label order.
        files: (path, label) of each sample.
        targets: the label of each sample.
        wavelengths: (C,) band centres in nm.

    Raises:
        FileNotFoundError: if there is no such folder.
        HSIReadError: if there are no class folders, or one holds no images, or the first file is unreadable.
        UnknownClassError: if one of ``classes`` has no folder.
        WavelengthError, BandCountError: if a file has another wavelength grid than the first one.

    >>> import tempfile
    >>> from ubf_augment.io import write_hsi
    >>> with tempfile.TemporaryDirectory() as root:
    ...     for name in ("field", "forest"):
    ...         (Path(root) / name).mkdir()
    ...         file = write_hsi(f"{root}/{name}/1.tif", torch.full((2, 4, 4), 0.25), [560, 665])
    ...     data = HSIFolder(root)
    ...     data.classes, len(data), data[1]["image"].shape, int(data[1]["label"])
    (('field', 'forest'), 2, torch.Size([2, 4, 4]), 1)
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        wavelengths: Wavelengths | str | None = None,
        classes: Sequence[str] | None = None,
        scale: float | None = None,
        key: str | None = None,
        layout: str = "hwc",
        size: tuple[int, int] | None = None,
        nodata: float | None = None,
        drop_bands: Iterable[int] | Literal["bad"] | None = None,
        sort_bands: bool = False,
        on_nodata: Literal["raise", "mask"] = "raise",
        sensor: Sensor | str | os.PathLike[str] | None = None,
        recursive: bool = False,
        transforms: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
    ) -> None:
        self.root, self.transforms, self.on_nodata = Path(root).expanduser(), transforms, on_nodata
        if drop_bands is not None and not isinstance(drop_bands, str):
            drop_bands = tuple(drop_bands)
        self._options: dict[str, Any] = {
            "wavelengths": wavelengths, "scale": scale, "key": key, "layout": layout, "size": size,
            "nodata": nodata, "drop_bands": drop_bands, "sort_bands": sort_bands, "on_nodata": on_nodata,
            "sensor": sensor,
        }  # fmt: skip
        self.classes = self._find_classes(classes)
        self.files = [
            (file, label)
            for label, name in enumerate(self.classes)
            for file in list_hsi(self.root / name, recursive=recursive)
        ]
        self.targets = [label for _, label in self.files]
        self.wavelengths: Tensor = read_hsi(self.files[0][0], **self._options).wavelengths

    def _find_classes(self, classes: Sequence[str] | None) -> tuple[str, ...]:
        if not self.root.is_dir():
            raise FileNotFoundError(
                f"no folder {self.root}" + (": it is a file" if self.root.exists() else "")
            )
        found = sorted(d.name for d in self.root.iterdir() if d.is_dir() and not d.name.startswith("."))
        if not found:
            raise HSIReadError(
                f"{self.root} has no class folders: put the files of each class into {self.root}/<class>/"
            )
        if classes is None:
            return tuple(found)
        if missing := [c for c in classes if c not in found]:
            raise UnknownClassError(f"{self.root} has no folder {missing[0]!r}; there are {', '.join(found)}")
        return tuple(classes)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, i: int) -> dict[str, Any]:
        """Read one image."""
        file, label = self.files[i]
        hsi = read_hsi(file, **self._options)
        where = f"{file} differs from {self.files[0][0]}"
        if len(hsi.wavelengths) != len(self.wavelengths):
            raise BandCountError(f"{where}: {len(hsi.wavelengths)} bands, not {len(self.wavelengths)}")
        if not torch.allclose(hsi.wavelengths, self.wavelengths, rtol=0, atol=0.05):
            j = int((hsi.wavelengths - self.wavelengths).abs().argmax())
            raise WavelengthError(
                f"{where}: band {j} is at {float(hsi.wavelengths[j]):g} nm, not "
                f"{float(self.wavelengths[j]):g} nm. Resample the files to one grid first"
            )
        sample = {"image": hsi.image, "label": torch.tensor(label)}
        if self.on_nodata == "mask":
            sample["mask"] = hsi.mask
        return sample if self.transforms is None else self.transforms(sample)

    def subset(self, rows: Sequence[int]) -> HSIFolder:
        """The same data set with some of its files.

        Args:
            rows: which, in the order wanted.
        """
        part = copy.copy(self)
        part.files = [self.files[i] for i in rows]
        part.targets = [self.targets[i] for i in rows]
        return part

    def plot(self, sample: dict[str, Any], show_titles: bool = True, suptitle: str | None = None) -> Figure:
        """Show a sample in pseudo-RGB and some of its spectra, see `report.plot_sample`.

        Args:
            sample: of this data set; a ``"prediction"`` in it is named too.
            show_titles: show class names.
            suptitle: title of the figure.
        """
        return plot_sample(sample, self.wavelengths, self.classes if show_titles else None, suptitle)
