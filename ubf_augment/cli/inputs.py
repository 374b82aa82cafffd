"""What the commands read: hyperspectral files, folders of RGB pictures, wavelengths from the command line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar

from torch import Tensor
from torch.utils.data import Dataset, Subset

from ubf_augment.datasets import HSIFolder, PictureFolder
from ubf_augment.datasets.balancing import labels_of
from ubf_augment.datasets.pictures import class_folders
from ubf_augment.errors import HSIReadError, NoDataError
from ubf_augment.io import HSI, list_hsi, read_hsi

if TYPE_CHECKING:
    DataSet: TypeAlias = Dataset[Any]
else:
    DataSet = Dataset  # with a parameter, the parser of the command line takes no arguments of its subclasses


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
    words = _words(given)
    try:
        return [float(w) for w in words]
    except ValueError:
        path = Path(given).expanduser()
    try:
        if not path.is_file():
            return given
        lines = path.read_text(encoding="utf-8").splitlines()
        if words := _words("\n".join(line.partition("#")[0] for line in lines)):
            return [float(w) for w in words]
        raise ValueError("no text: nothing")
    except (OSError, ValueError) as error:
        what = "other things than text" if isinstance(error, UnicodeError) else str(error).rpartition(": ")[2]
        raise ValueError(
            f"{path} holds {what}, which is no number: give band centres in nm, separated by spaces, commas or lines"
        ) from error


def _words(text: str) -> list[str]:
    return [w for w in re.split(r"[\s,;\[\]]+", text) if w]


def split_names(given: Sequence[str] | str | None) -> list[str] | None:
    """Names separated by commas, as a list.

    >>> split_names("Forest, Meadow"), split_names(["a,b"])
    (['Forest', 'Meadow'], ['a,b'])
    """
    if isinstance(given, str):
        return [name.strip() for name in given.split(",") if name.strip()]
    return None if given is None else list(given)


class SceneFiles(Sequence[Any]):
    """Hyperspectral files, each read when it is asked for, and data sets among them.

    Args:
        sources: paths and data sets.
        read: how files are read.
    """

    def __init__(self, sources: Sequence[Path | DataSet], read: ReadOptions) -> None:
        self.sources, self._arguments = sources, read.arguments()

    @property
    def images(self) -> int:
        """Number of images, those of the data sets included."""
        counts: list[int] = [1 if isinstance(s, Path) else len(s) for s in self.sources]  # type: ignore[arg-type]
        return sum(counts)

    def __len__(self) -> int:
        return len(self.sources)

    def __getitem__(self, i: Any) -> Any:
        source = self.sources[i]
        return read_hsi(source, on_nodata="mask", **self._arguments) if isinstance(source, Path) else source


def find_scenes(path: Path, limit: int | None = None) -> list[tuple[Path, str | None]]:
    """Find one file, a folder of files, or a folder of class folders; gives paths and their classes.

    Args:
        path: file or folder.
        limit: at most so many, evenly chosen.

    Raises:
        FileNotFoundError, HSIReadError: if there is nothing to read.
    """
    path = path.expanduser()
    if path.is_file():
        return [(path, None)]
    files: list[tuple[Path, str | None]] = []
    folders = class_folders(path)
    if _holds_images(path) or not folders:
        files += [(f, None) for f in list_hsi(path)]
    for folder in folders:
        files += [(f, folder.name) for f in list_hsi(folder)]
    return list(evenly(files, limit))


def gather_scenes(
    sources: Path | DataSet | Sequence[Path | DataSet], read: ReadOptions, limit: int | None = None
) -> tuple[SceneFiles, list[str | None]]:
    """Images and data sets for `HSISynthesizer.fit`, and the classes of the images.

    Args:
        sources: files, folders (see `find_scenes`) and data sets.
        read: how files are read.
        limit: at most so many images of each source, evenly chosen.

    Raises:
        FileNotFoundError, HSIReadError: if there is nothing to read.
    """
    found: list[tuple[Path | DataSet, str | None]] = []
    for source in [sources] if isinstance(sources, Path | DataSet) else sources:
        if isinstance(source, Path):
            found += find_scenes(source, limit)
        else:
            rows = evenly(range(len(source)), limit)  # type: ignore[arg-type]
            found.append((source if limit is None else Subset(source, list(rows)), None))
    return SceneFiles([s for s, _ in found], read), [label for _, label in found]


def gather_pictures(
    sources: Path | DataSet | Sequence[Path | DataSet], classes: Sequence[str] | None, per_class: int | None
) -> Any:
    """Labelled pictures of folders of class folders, or of one data set.

    Args:
        sources: one or several folders, or a data set of labelled pictures.
        classes: class folders to take.
        per_class: at most so many pictures of each class.

    Raises:
        ValueError: for several data sets, or classes with a data set.
        FileNotFoundError, HSIReadError, UnknownClassError: see `PictureFolder`.
    """
    given = [sources] if isinstance(sources, Path | DataSet) else list(sources)
    folders = [source for source in given if isinstance(source, Path)]
    if len(folders) == len(given):
        return PictureFolder(folders, classes, per_class)
    if len(given) > 1:
        raise ValueError("pictures come from folders, or from one data set: give rgb=… one data set alone")
    if classes is not None:
        raise ValueError(
            "rgb_classes=… is for folders of pictures: choose the classes of a data set in its own arguments"
        )
    data: Any = given[0]
    if per_class is None:
        return data
    seen: dict[int, int] = {}
    rows = []
    for i, label in enumerate(labels_of(data)):
        seen[label] = seen.get(label, 0) + 1
        if seen[label] <= per_class:
            rows.append(i)
    return Subset(data, rows)


T = TypeVar("T")


def evenly(items: Sequence[T], limit: int | None) -> Sequence[T]:
    """At most ``limit`` of the items, evenly chosen from first to last.

    >>> list(evenly(range(10), 4)), list(evenly(range(3), 4))
    ([0, 2, 5, 7], [0, 1, 2])
    """
    if limit is not None and limit < 1:
        raise ValueError(f"the limit must be at least 1, got {limit}")
    if limit is None or limit >= len(items):
        return items
    return [items[i * len(items) // limit] for i in range(limit)]


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
    scenes: list[HSI] = list(SceneFiles([file for file, _ in find_scenes(path)], read))
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
