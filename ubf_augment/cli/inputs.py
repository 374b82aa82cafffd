"""What the commands read: hyperspectral files, folders of RGB pictures, wavelengths from the command line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.data import Dataset

from ubf_augment.datasets import HSIFolder
from ubf_augment.errors import HSIReadError, NoDataError, RadiometryError, UnknownClassError
from ubf_augment.io import HSI, list_hsi, read_hsi

_PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


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
    """

    scale: float | None = None
    wavelengths: str | list[float] | None = None
    key: str | None = None
    layout: str = "hwc"
    size: tuple[int, int] | None = None
    nodata: float | None = None
    drop_bands: list[int] | Literal["bad"] | None = None
    sort_bands: bool = False

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
    if any(f.is_file() for f in path.iterdir()) or not folders:
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
    if path.is_dir() and class_folders(path) and not any(f.is_file() for f in path.iterdir()):
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


def class_folders(root: Path) -> list[Path]:
    """Subfolders, sorted by name, hidden ones left out.

    Raises:
        FileNotFoundError: if there is no such folder.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"no folder {root}" + (": it is a file" if root.exists() else ""))
    return sorted(d for d in root.iterdir() if d.is_dir() and not d.name.startswith("."))


class PictureFolder(Dataset[dict[str, Any]]):
    """RGB pictures ``root/<class>/<file>`` of one or several roots, uint8 (3, H, W), read when asked for.

    Folders of the same name in several roots make one class.

    Args:
        roots: folders of class folders.
        classes: those to take; all by default.
        per_class: at most so many pictures of each class.

    Attributes:
        classes: names in label order.
        files: (path, label) of each picture.
        targets: the labels.

    Raises:
        FileNotFoundError: if a root does not exist.
        HSIReadError: if a root has no class folders, or a class no pictures.
        UnknownClassError: if one of ``classes`` has no folder.
    """

    def __init__(
        self, roots: Sequence[Path], classes: Sequence[str] | None = None, per_class: int | None = None
    ) -> None:
        found: dict[str, list[Path]] = {}
        for root in roots:
            folders = class_folders(root.expanduser())
            if not folders:
                raise HSIReadError(
                    f"{root} has no class folders: put the pictures of each class into {root}/<class>/"
                )
            for folder in folders:
                files = (f for f in folder.iterdir() if f.suffix.lower() in _PICTURES and f.is_file())
                found.setdefault(folder.name, []).extend(sorted(files, key=_natural))
        if missing := [c for c in classes or () if c not in found]:
            raise UnknownClassError(f"no folder {missing[0]!r}; there are {', '.join(sorted(found))}")
        self.classes = tuple(classes) if classes is not None else tuple(sorted(found))
        if empty := [c for c in self.classes if not found[c]]:
            raise HSIReadError(f"class {empty[0]!r} holds no pictures: looked for {', '.join(_PICTURES)}")
        self.files = [(f, k) for k, c in enumerate(self.classes) for f in found[c][:per_class]]
        self.targets = [k for _, k in self.files]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, i: int) -> dict[str, Any]:
        """Read one picture.

        Raises:
            HSIReadError: if the file is no readable picture.
        """
        file, label = self.files[i]
        return {"image": read_picture(file), "label": label}


def read_picture(path: Path) -> Tensor:
    """One picture as uint8 (3, H, W), channels red, green, blue.

    Raises:
        HSIReadError: if the file is no readable picture.
        RadiometryError: if it has more than 8 bits per channel, which have no known scale.
    """
    import numpy as np
    from PIL import Image

    try:
        with Image.open(path) as image:
            mode, array = image.mode, np.array(image.convert("RGB"))
    except MemoryError:
        raise
    except Exception as error:  # damaged files make the decoders fail in many ways
        raise HSIReadError(f"{path} is no readable picture ({error}): replace or remove it") from error
    if mode.startswith(("I", "F")):  # converting would clip at 255
        raise RadiometryError(
            f"{path} holds values of another type than 8 bits ({mode}): convert it to 8 bits"
        )
    return torch.from_numpy(array).movedim(-1, 0).contiguous()


def _natural(path: Path) -> list[tuple[int, int, str]]:
    """Sort key that counts numbers: scene_2 before scene_10."""
    parts = re.split(r"(\d+)", path.name)
    return [(0, int(p), "") if p.isdigit() else (1, 0, p) for p in parts]
