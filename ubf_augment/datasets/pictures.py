"""Labelled RGB pictures: folders of classes, and AID."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.utils.data import Dataset

from ubf_augment.datasets.missing import check_choice, not_found
from ubf_augment.datasets.splits import stratified
from ubf_augment.errors import HSIReadError, RadiometryError, UnknownClassError
from ubf_augment.plotting import sample_title

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


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
        per_class: at most so many pictures of each class, the first by name.
        transforms: applied to each sample.

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
        self,
        roots: Sequence[str | os.PathLike[str]],
        classes: Sequence[str] | None = None,
        per_class: int | None = None,
        transforms: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
    ) -> None:
        self.transforms = transforms
        found: dict[str, list[Path]] = {}
        for root in roots:
            folders = class_folders(Path(root).expanduser())
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
        sample = {"image": read_picture(file), "label": label}
        return sample if self.transforms is None else self.transforms(sample)

    def plot(self, sample: dict[str, Any], show_titles: bool = True, suptitle: str | None = None) -> Figure:
        """Show a sample.

        Args:
            sample: of this data set; a ``"prediction"`` in it is named too.
            show_titles: show class names.
            suptitle: title of the figure.
        """
        from matplotlib.figure import Figure

        figure = Figure(figsize=(4, 4), layout="constrained")
        axes = figure.subplots()
        axes.imshow(sample["image"].detach().cpu().movedim(0, -1).numpy())
        axes.set_axis_off()
        if show_titles:
            axes.set_title(sample_title(sample, self.classes))
        if suptitle is not None:
            figure.suptitle(suptitle)
        return figure


class AID(PictureFolder):
    """AID: 10,000 aerial pictures of 600×600 pixels, 30 classes, RGB.

    The pictures are published as folders of classes, in an archive that unpacks to ``AID``::

        root/<class>/<class>_<number>.jpg   or   root/AID/<class>/…

    It has no official lists: ``"train"`` is a stratified half (or ``train_share``), drawn once with a fixed seed, ``"test"`` the
    rest; the second of two equal pictures is on neither side. There is no open address to download from:
    captain-whu.github.io/AID tells how to get the pictures.

    Samples are ``{"image": uint8 (3, H, W), "label": int}``: displayed values, for `HSISynthesizer.fit` as a source of labelled
    scenes. If you use this data, please cite Xia et al. 2017, doi:10.1109/TGRS.2017.2685945.

    Args:
        root: the folder that holds the class folders, or ``AID``.
        split: ``"all"``, ``"train"`` or ``"test"``.
        train_share: share of the training side.
        per_class: at most so many pictures of each class, the first by name (with ``"all"``).
        transforms: applied to each sample.

    Attributes:
        classes: the 30 names in label order.
        files: (path, label) of each picture.
        targets: the labels.

    Raises:
        DatasetNotFoundError: (torchgeo's) if there is no such folder, or a class has none in it.
        HSIReadError: if a class holds no pictures.
        ValueError: for an unknown split, or a share that leaves a side empty.
    """

    CLASSES: ClassVar[tuple[str, ...]] = (
        "Airport", "BareLand", "BaseballField", "Beach", "Bridge", "Center", "Church", "Commercial", "DenseResidential",
        "Desert", "Farmland", "Forest", "Industrial", "Meadow", "MediumResidential", "Mountain", "Park", "Parking",
        "Playground", "Pond", "Port", "RailwayStation", "Resort", "River", "School", "SparseResidential", "Square", "Stadium",
        "StorageTanks", "Viaduct",
    )  # fmt: skip
    COPIES: ClassVar[tuple[str, ...]] = ("industrial_205.jpg",)  # the same picture as industrial_203.jpg

    def __init__(
        self,
        root: str | os.PathLike[str] = "data",
        split: Literal["all", "train", "test"] = "all",
        *,
        train_share: float = 0.5,
        per_class: int | None = None,
        transforms: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
    ) -> None:
        check_choice(split, ("all", "train", "test"))
        self.root, self.split = root, split
        folder = Path(root).expanduser()
        folder = folder / "AID" if (folder / "AID").is_dir() else folder
        if missing := [name for name in self.CLASSES if not (folder / name).is_dir()]:
            raise not_found(
                self, f"Expected 30 folders of pictures there; {', '.join(missing[:3])} of them are missing."
            )
        super().__init__([folder], self.CLASSES, per_class if split == "all" else None, transforms)
        if split != "all":
            self.files = [(file, label) for file, label in self.files if file.name not in self.COPIES]
            sides = stratified([k for _, k in self.files], round(train_share * len(self.files)), seed=2024)
            self.files = [self.files[i] for i in sides[split == "test"]]
            self.targets = [k for _, k in self.files]


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
