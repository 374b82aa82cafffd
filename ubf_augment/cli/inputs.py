"""What the commands read: hyperspectral files, folders of RGB pictures, wavelengths from the command line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from ubf_augment.datasets import HSIFolder
from ubf_augment.datasets.pictures import class_folders
from ubf_augment.errors import HSIReadError, NoDataError
from ubf_augment.io import HSI, list_hsi, read_hsi


@dataclass(frozen=True)
class ReadOptions:
    """How hyperspectral files are read, where they do not say it themselves; see `read_hsi`.

    Attributes:
        scale: factor from stored values to reflectance, such as 0.0001; integers need one.
        wavelengths: band centres in nm: a list (443,490,560), a text file of numbers, or the name of a
            variable in the files.
        key: variable of MATLAB and NumPy files.
        layout: axes of their arrays: hwc, chw, c(wh), c(hw).
        size: height and width of flattened arrays.
        nodata: stored value that marks missing data.
        drop_bands: 0-based bands to leave out, or bad for those of the file's bad band list.
        sort_bands: order the bands by wavelength.
        sensor: name of a packaged sensor (enmap, sentinel-2, …: see `spectra.list_sensors`) or CSV file of its bands; fills
            in what the files do not say.
    """

    scale: float | None = None
    wavelengths: str | list[float] | None = None
    key: str | None = None
    layout: str = "hwc"
    size: tuple[int, int] | None = None
    nodata: float | None = None
    drop_bands: list[int] | Literal["bad"] | None = None
    sort_bands: bool = False
    sensor: str | None = None

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of `read_hsi` and `HSIFolder`."""
        return {
            "scale": self.scale,
            "wavelengths": parse_wavelengths(self.wavelengths),
            "key": self.key,
            "layout": self.layout,
            "size": self.size,
            "nodata": self.nodata,
            "drop_bands": self.drop_bands,
            "sort_bands": self.sort_bands,
            "sensor": self.sensor,
        }


def parse_wavelengths(given: str | Sequence[float] | None) -> list[float] | str | None:
    """A list of numbers, the numbers of a text file, or the name of a variable as it stands.

    Raises:
        ValueError: if a file of that name holds other things than numbers.

    >>> parse_wavelengths("443, 490 560"), parse_wavelengths("nm")
    ([443.0, 490.0, 560.0], 'nm')
    """
    if given is None or not isinstance(given, str):
        return None if given is None else [float(v) for v in given]
    text, path = given, Path(given).expanduser()
    if path.is_file():
        text = "\n".join(line.partition("#")[0] for line in path.read_text(encoding="utf-8").splitlines())
    words = [w for w in re.split(r"[\s,;\[\]]+", text) if w]
    try:
        return [float(w) for w in words]
    except ValueError as error:
        if path.is_file():
            raise ValueError(
                f"{path} holds {str(error).rpartition(': ')[2]}, which is no number: give band centres in nm, "
                "separated by spaces, commas or lines"
            ) from error
        return given


def split_names(given: Sequence[str] | str | None) -> list[str] | None:
    """Names separated by commas, as a list.

    >>> split_names("Forest, Meadow"), split_names(["a,b"])
    (['Forest', 'Meadow'], ['a,b'])
    """
    if isinstance(given, str):
        return [name.strip() for name in given.split(",") if name.strip()]
    return None if given is None else list(given)


def as_list(given: Sequence[Path] | Path) -> list[Path]:
    """One or several paths as a list."""
    return [given] if isinstance(given, Path) else list(given)


def read_scenes(path: Path, read: ReadOptions) -> tuple[list[HSI], list[str | None]]:
    """Read one file, a folder of files, or a folder of class folders; gives images and their classes.

    Raises:
        FileNotFoundError, HSIReadError: if there is nothing to read; further as `read_hsi`.
    """
    path = path.expanduser()
    if path.is_file():
        return [read_hsi(path, on_nodata="mask", **read.arguments())], [None]
    files: list[tuple[Path, str | None]] = []
    folders = class_folders(path)
    if _holds_images(path) or not folders:
        files += [(f, None) for f in list_hsi(path)]
    for folder in folders:
        files += [(f, folder.name) for f in list_hsi(folder)]
    return [read_hsi(f, on_nodata="mask", **read.arguments()) for f, _ in files], [name for _, name in files]


def read_images(path: Path, read: ReadOptions) -> tuple[Any, Tensor, Any]:
    """A data set (labelled if there are class folders) or a list of images of one sensor, their wavelengths and band widths.

    Raises:
        NoDataError: if a pixel holds no data.
        ValueError: if images have different numbers of bands.
        FileNotFoundError, HSIReadError: if there is nothing to read; further as `read_hsi`.
    """
    path = path.expanduser()
    if path.is_dir() and class_folders(path) and not _holds_images(path):
        for folder in class_folders(path):
            list_hsi(folder)  # says which class is empty
        data = HSIFolder(path, **read.arguments())
        return data, data.wavelengths, None
    scenes, _ = read_scenes(path, read)
    if bad := [s for s in scenes if not bool(s.mask.all())]:
        raise NoDataError(
            f"{bad[0].meta.get('path', path)} has {int((~bad[0].mask).sum())} pixels without data: crop the image, or leave "
            "out the bands at fault with --read.drop_bands"
        )
    first = scenes[0]
    if odd := [s for s in scenes if len(s.wavelengths) != len(first.wavelengths)]:
        raise ValueError(
            f"{odd[0].meta.get('path')} has {len(odd[0].wavelengths)} bands, {first.meta.get('path')} "
            f"{len(first.wavelengths)}: give images of one sensor at a time"
        )
    return [s.image for s in scenes], first.wavelengths, first.meta.get("fwhm")


def _holds_images(folder: Path) -> bool:
    """Whether hyperspectral files lie in the folder itself; a read-me beside class folders is none."""
    try:
        return bool(list_hsi(folder))
    except HSIReadError:
        return False
