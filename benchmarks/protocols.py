"""Labelled data sets with their splits, behind one interface: what scene classification is measured on.

    protocol = open_protocol("eurosat-few", data)
    split = protocol.load(0)

| name | data | splits |
|---|---|---|
| `eurosat-few` | 120 EuroSAT scenes, 10 classes, 13 bands; AID as labelled pictures | 6 train and 6 test per class, by seed |
| `aid-few` | AID, its 17 whole classes, as a sensor of three bands | 20 train per class by seed; the same 100 test |
| `cross-sensor` | Jasper Ridge, Samson, MUUFL: patches 8×8, 4 covers, 48 bands | leave one scene out; 5 seeds |
| `indian-pines` | patches 8×8, 8 classes, 200 bands | whole blocks, by seed |
| `hsrs-sc` | the user's copy, 5 classes, 48 bands | one fixed list of 761 training images; 5 seeds |
| `eurosat` | 27,000 scenes, through torchgeo | the official lists; some of the first per class, by seed |
| `folder` | the user's, one folder per class | 70 % train by seed |
| `twin` | simulated, see `twin.py` | see there |

Everything that is learned may see the training side of a split only, and whatever is chosen is chosen on inner splits
(`ubf_augment.classification.inner_split`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import protocol_sources as sources
import torch
from adapt import EUROSAT_TO_AID
from protocol_sources import PerClass
from scenes import aid_files
from study import RADIOMETRY, WHOLE
from torch import Tensor

from ubf_augment.classification import LabelledImages
from ubf_augment.datasets import HSRSSC, HSIFolder, IndianPines
from ubf_augment.datasets.splits import portions, shuffled
from ubf_augment.demo.training import load_split
from ubf_augment.errors import ShapeError
from ubf_augment.radiometry import to_reflectance
from ubf_augment.seeding import derive_seed
from ubf_augment.spectra import RGB_NM

SATELLITE, AIRBORNE = (
    RADIOMETRY["eurosat-aid"],
    RADIOMETRY["chikusei-aid"],
)  # of AID pictures for such a sensor
SEEDS = 10  # splits that are published
REPEATS = 5  # trainings on a split that no seed changes
FIXED = 2024  # seed of what must be the same for every split
_TRAIN = 1  # stream of random numbers of a seed


@dataclass(frozen=True)
class Split:
    """One split of a protocol.

    Attributes:
        train: float32 reflectance, bands ascending.
        test: of the same classes and bands.
        groups: (N_train,) int64. Images of one group share pixels or a place, and an inner split keeps them together;
            −1: an image that shares pixels with several groups, on neither side of an inner split.
    """

    train: LabelledImages
    test: LabelledImages
    groups: Tensor

    def __post_init__(self) -> None:
        if len(self.groups) != len(self.train):
            raise ShapeError(f"{len(self.groups)} groups for {len(self.train)} training images")
        if self.train.classes != self.test.classes or not torch.equal(
            self.train.wavelengths, self.test.wavelengths
        ):
            raise ShapeError("the two sides of a split must have the same classes and wavelengths")


@dataclass(frozen=True)
class Protocol:
    """A benchmark data set with its splits.

    Attributes:
        name: one of `PROTOCOLS`.
        text: one line about the data.
        splits: how many splits are published.
        size: side that the networks see.
        load: the split of a number; the same number gives the same split.
        pictures: labelled pictures of another source, class → uint8 (N, 3, 64, 64), read when called; None without.
        class_map: the protocol's class → class of the pictures, where there is a counterpart.
        radiometry: scale and gamma of the pictures, see `to_reflectance`.
        shared: n_test / n_train, mean over the splits, for the interval of Nadeau and Bengio
            (doi:10.1023/A:1024068626366).
        simulated: whether the images were made, not measured.
        pretrained: packaged bundle that has seen no image of the protocol, or "".
        fixed_test: whether all splits have the same test side; what is tuned on one training side may then serve all.
    """

    name: str
    text: str
    splits: int
    size: int
    load: Callable[[int], Split]
    pictures: Callable[[], Mapping[str, Tensor]] | None
    class_map: Mapping[str, str]
    radiometry: tuple[float, float]
    shared: float
    simulated: bool = False
    fixed_test: bool = False
    pretrained: str = ""


def open_protocol(
    name: str,
    root: Path,
    *,
    size: int | None = None,
    per_class: PerClass = None,
    train: int | None = None,
    download: bool = False,
    reading: Mapping[str, Any] | None = None,
) -> Protocol:
    """Open a protocol.

    Args:
        name: one of `PROTOCOLS`.
        root: the folder of hsi/, msi/ and rgb/; for ``hsrs-sc`` and ``folder`` that of the class folders, for ``eurosat``
            that of torchgeo's copy; ``indian-pines`` needs none.
        size: side that the networks see, 64 by default; larger images of ``hsrs-sc`` and ``folder`` are shrunk to it.
        per_class: training images per class, of ``eurosat-few``, ``aid-few``, ``eurosat`` and ``folder``; several
            numbers are given to the classes in turn. Smaller numbers give subsets, and the test side stays.
        train: training images of ``hsrs-sc``, 761 by default.
        download: fetch ``eurosat`` if it is not there.
        reading: arguments of `HSIFolder` for ``folder``, such as scale and wavelengths.

    Raises:
        ValueError: for an unknown name, or an option that the protocol does not have.
        LabelError: if a class has too few images.
        FileNotFoundError: if the data are not there.
    """
    if name not in _OPENERS:
        raise ValueError(f"no protocol {name!r}: there are {', '.join(PROTOCOLS)}")
    if size is not None and size < 1:
        raise ValueError(f"size must be at least 1, got {size}")
    opener, known = _OPENERS[name]
    given = {"per_class": per_class, "train": train, "download": download or None, "reading": reading}
    options = {k: v for k, v in given.items() if v is not None}
    if surplus := [k for k in options if k not in known]:
        raise ValueError(f"{name} has no option {surplus[0]}; it takes {', '.join(('size', *known))}")
    if size is not None:
        options["size"] = size
    root = Path(root).expanduser()
    if name not in ("indian-pines", "eurosat") and not root.is_dir():
        raise FileNotFoundError(
            f"no folder {root}, where {name} is read: give the folder of its data as root"
        )
    return opener(root, **options)


def _parted(data: LabelledImages, train: Tensor, test: Tensor) -> Split:
    """A split of independent images."""
    return Split(data.subset(train), data.subset(test), torch.arange(len(train)))


def _open_eurosat_few(root: Path, size: int = 64, per_class: PerClass = None) -> Protocol:
    images, overlap = sources.eurosat_scenes(root)
    half = len(images) // len(images.classes) // 2

    def load(seed: int) -> Split:
        rows = shuffled(images.y, len(images.classes), derive_seed(seed, _TRAIN))
        # Both of the overlapping scenes on one side: the second changes places with its counterpart on the other.
        (_, i), (m, j) = ((int(images.y[r]), int((rows[images.y[r]] == r).nonzero())) for r in overlap)
        if (i < half) != (j < half):
            swap = [j, (j + half) % (2 * half)]
            rows[m][swap] = rows[m][swap[::-1]]
        train = sources.first([r[:half] for r in rows], per_class, images.classes)
        groups = torch.arange(len(train))
        pair = torch.isin(train, torch.tensor(overlap))
        if bool(pair.any()):
            groups[pair] = groups[pair].amin()
        return Split(images.subset(train), images.subset(torch.cat([r[half:] for r in rows])), groups)

    first = load(0)
    text = f"EuroSAT, 120 scenes 64×64, 13 bands, 10 classes; {len(first.train)} training and 60 test scenes by seed."
    return Protocol(
        "eurosat-few", text, SEEDS, size, load, partial(sources.aid_pictures, root), EUROSAT_TO_AID,
        SATELLITE, len(first.test) / len(first.train), pretrained="aid-chikusei",
    )  # fmt: skip


def _open_aid_few(root: Path, size: int = 64, per_class: PerClass = 20) -> Protocol:
    files = aid_files(root)
    classes = tuple(name for name in files if len(files[name]) >= WHOLE)
    blue_to_red = torch.tensor(RGB_NM[::-1], dtype=torch.float64)

    def sense(x: Tensor, y: Tensor) -> LabelledImages:
        return LabelledImages(to_reflectance(x.flip(1), *AIRBORNE), y, classes, blue_to_red)

    @cache
    def sides() -> tuple[Tensor, Tensor, LabelledImages]:
        """Pictures that may train and their labels, and the test side."""
        pictures = sources.aid_pictures(root)
        y = torch.cat([torch.full((len(pictures[name]),), k) for k, name in enumerate(classes)])
        x = torch.cat([pictures[name] for name in classes])
        tests = torch.cat([r[:WHOLE] for r in shuffled(y, len(classes), FIXED)])
        rest = ~torch.isin(torch.arange(len(y)), tests)
        return x[rest], y[rest], sense(x[tests], y[tests])

    def load(seed: int) -> Split:
        x, y, test = sides()
        rows = shuffled(y, len(classes), derive_seed(seed, _TRAIN))
        train = sources.first(rows, per_class, classes)
        return Split(sense(x[train], y[train]), test, torch.arange(len(train)))

    few = sources.first([torch.arange(len(files[name]) - WHOLE) for name in classes], per_class, classes)
    text = (
        f"AID at 64×64, {len(classes)} classes, as blue, green and red reflectance; {len(few)} training scenes by seed, "
        f"the same {WHOLE * len(classes)} test scenes."
    )
    return Protocol(
        "aid-few",
        text,
        SEEDS,
        size,
        load,
        None,
        {},
        AIRBORNE,
        WHOLE * len(classes) / len(few),
        fixed_test=True,
    )


def _open_cross_sensor(root: Path, size: int = 64) -> Protocol:
    def load(number: int) -> Split:
        scenes = list(sources.scene_patches(root))
        test = scenes.pop(number % len(scenes)).images
        x, y = torch.cat([s.images.x for s in scenes]), torch.cat([s.images.y for s in scenes])
        train = LabelledImages(x, y, test.classes, test.wavelengths)
        return Split(train, test, sources.scene_groups(scenes))

    counts = [len(s.images) for s in sources.scene_patches(root)]
    text = (
        f"{', '.join(sources.SCENES)}: {sum(counts)} patches 8×8, 48 bands 430–860 nm, {len(sources.COVERS)} covers; "
        "one scene tests, the others train."
    )
    shared = sum(n / (sum(counts) - n) for n in counts) / len(counts)
    return Protocol("cross-sensor", text, len(counts) * REPEATS, size, load, None, {}, AIRBORNE, shared)


def _open_indian_pines(root: Path, size: int = 64) -> Protocol:
    def load(fold: int) -> Split:
        blocks = [load_split(name, fold) for name in ("train", "val")]
        test = load_split("test", fold)
        x, y = torch.cat([b.x for b in blocks]), torch.cat([b.y for b in blocks])
        groups = torch.cat([torch.full((len(b),), i) for i, b in enumerate(blocks)])
        return Split(LabelledImages(x, y, test.classes, test.wavelengths), test, groups)

    counts = [[len(IndianPines(s, fold)) for s in ("train", "val", "test")] for fold in range(SEEDS)]
    text = "Indian Pines, patches 8×8, 200 bands, 8 classes; whole blocks of 24×24 pixels train or test."
    shared = sum(n[2] / (n[0] + n[1]) for n in counts) / len(counts)
    return Protocol("indian-pines", text, SEEDS, size, load, None, {}, AIRBORNE, shared)


def _open_hsrs_sc(root: Path, size: int = 64, train: int = 761) -> Protocol:
    @cache
    def sides() -> Split:
        chosen, rest = (
            sources.read_all(HSRSSC(root, side, train_size=train), size) for side in ("train", "test")
        )
        return Split(chosen, rest, torch.arange(len(chosen)))

    counts = [len(HSRSSC(root, side, train_size=train)) for side in ("train", "test")]
    text = f"HSRS-SC, {sum(counts)} scenes, 48 bands, 5 classes; one fixed list of {train} training scenes, the rest tests."
    return Protocol(
        "hsrs-sc", text, REPEATS, size, lambda seed: sides(), None, {}, AIRBORNE, counts[1] / counts[0], fixed_test=True
    )  # fmt: skip


def _open_eurosat(root: Path, size: int = 64, per_class: PerClass = None, download: bool = False) -> Protocol:
    data = sources.WholeEuroSAT(root, download)

    def rows(seed: int) -> Tensor:
        order = shuffled(data.labels("train"), len(data.classes), derive_seed(seed, _TRAIN))
        return sources.first(order, per_class, data.classes)

    every = torch.arange(len(data.labels("test")))

    def load(seed: int) -> Split:
        train = data.read("train", rows(seed))
        return Split(train, data.read("test", every), torch.arange(len(train)))

    count = len(rows(0))
    text = f"EuroSAT, 13 bands, 10 classes; {count} scenes of the official training list, {len(every)} test scenes."
    return Protocol(
        "eurosat", text, REPEATS, size, load, None, EUROSAT_TO_AID, SATELLITE, len(every) / count, fixed_test=True
    )  # fmt: skip


def _open_folder(
    root: Path, size: int = 64, per_class: PerClass = None, reading: Mapping[str, Any] | None = None
) -> Protocol:
    data = sources.read_all(HSIFolder(root, **(reading or {})), size)
    counts = torch.bincount(data.y, minlength=len(data.classes))
    tests = portions(counts, max(len(counts), round(0.3 * len(data))))

    def load(seed: int) -> Split:
        rows = shuffled(data.y, len(counts), derive_seed(seed, _TRAIN))
        train = sources.first([r[n:] for r, n in zip(rows, tests, strict=True)], per_class, data.classes)
        return _parted(data, train, torch.cat([r[:n] for r, n in zip(rows, tests, strict=True)]))

    count = len(load(0).train)
    text = (
        f"{root.name}, {len(data)} images, {len(data.wavelengths)} bands, {len(counts)} classes; {count} train, {sum(tests)} "
        "test by seed, as if no two images shared a place."
    )
    return Protocol("folder", text, SEEDS, size, load, None, {}, AIRBORNE, sum(tests) / count)


def _open_twin(root: Path, **options: Any) -> Protocol:
    from twin import open_twin

    return open_twin(root, **options)


_OPENERS: dict[str, tuple[Callable[..., Protocol], tuple[str, ...]]] = {
    "eurosat-few": (_open_eurosat_few, ("per_class",)),
    "aid-few": (_open_aid_few, ("per_class",)),
    "cross-sensor": (_open_cross_sensor, ()),
    "indian-pines": (_open_indian_pines, ()),
    "twin": (_open_twin, ()),
    "hsrs-sc": (_open_hsrs_sc, ("train",)),
    "eurosat": (_open_eurosat, ("per_class", "download")),
    "folder": (_open_folder, ("per_class", "reading")),
}
PROTOCOLS = tuple(_OPENERS)
