"""A simulated stand-in for HSRS-SC: AID pictures as hyperspectral scenes of 48 bands. An instrument, no evidence on real data.

    python benchmarks/twin.py --data /path/to/data

As many classes, bands, training and test scenes as HSRS-SC; the classes are five of AID that resemble its own. `twin_scenes.py`
makes a scene of a picture and never sees its class; neither the materials nor their maps are handed out. The pictures of the same
classes that no scene was made of are the protocol's labelled pictures. Run as a script, it draws scenes of every class.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
import protocol_sources as sources
import torch
import twin_scenes
from common import HERE, arguments
from protocol_sources import PerClass
from protocols import Protocol, Split
from scenes import aid_files, read_jpegs
from torch import Tensor
from torch.nn import functional as F
from twin_scenes import RGB, WAVELENGTHS, simulate

from ubf_augment.classification import LabelledImages
from ubf_augment.datasets import AID
from ubf_augment.datasets.splits import portions, shuffled
from ubf_augment.errors import LabelError
from ubf_augment.plotting.parts import finish
from ubf_augment.radiometry import to_display
from ubf_augment.seeding import derive_seed

CLASSES = ("BareLand", "Commercial", "Farmland", "Industrial", "River")
CACHE = HERE.parent / "runs" / "twin"
RADIOMETRY = (
    0.50,
    2.0,
)  # of the pictures, as one might guess it; the simulation takes them for something else
_POOL, _SPLIT = 1, 2  # independent streams of random numbers


@dataclass(frozen=True)
class Pool:
    """The scenes of the twin, and the pictures that none of them was made of."""

    cubes: Path  # float16 (N, 48, S, S)
    labels: Tensor
    rest: dict[str, Tensor]


def shares(count: tuple[int, int]) -> tuple[list[int], list[int]]:
    """Scenes of each class in all and on the training side, as even as can be."""
    total = torch.tensor([(sum(count) + len(CLASSES) - 1 - k) // len(CLASSES) for k in range(len(CLASSES))])
    return total.tolist(), portions(total, count[0])


@cache
def open_pool(root: Path, size: int, count: tuple[int, int]) -> Pool:
    """Choose pictures, once for all splits, and simulate them, or find them simulated under `CACHE`."""
    files, chosen, labels, rest = aid_files(root), [], [], {}
    for k, (kind, wanted) in enumerate(zip(CLASSES, shares(count)[0], strict=True)):
        names = [f for f in files.get(kind, []) if f.name not in AID.COPIES]
        if wanted > len(names):
            raise LabelError(f"{root} has {len(names)} pictures of {kind}, {wanted} are needed: lower count")
        rng = torch.Generator().manual_seed(derive_seed(0, _POOL, k))
        order = torch.randperm(len(names), generator=rng).tolist()
        pictures = read_jpegs([names[i] for i in order], (2 * size, 2 * size))
        chosen.append(pictures[:wanted])
        labels += [k] * wanted
        rest[kind] = F.interpolate(
            pictures[wanted:].float(), (64, 64), mode="bilinear", antialias=True
        ).round().to(torch.uint8)  # fmt: skip
    return Pool(_simulated(torch.cat(chosen)), torch.tensor(labels), rest)


def _simulated(pictures: Tensor) -> Path:
    """File of the cubes of pictures (N, 3, 2S, 2S); its name depends on the pictures, the simulation and the spectra."""
    from tqdm import tqdm

    side, digest = pictures.shape[-1] // 2, hashlib.sha256(Path(twin_scenes.__file__).read_bytes())
    for x in (pictures, *twin_scenes.library()):
        digest.update(x.contiguous().numpy().tobytes())
    path = CACHE / f"{len(pictures)}x{side}-{digest.hexdigest()[:12]}.npy"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}.part")
        shape = (len(pictures), len(WAVELENGTHS), side, side)
        cubes = np.lib.format.open_memmap(part, "w+", np.float16, shape)
        for i, picture in enumerate(tqdm(pictures, "simulating scenes", disable=None)):
            cubes[i] = simulate(picture).half().numpy()
        cubes.flush()
        part.replace(path)
    return path


def load_split(root: Path, size: int, count: tuple[int, int], per_class: PerClass, seed: int) -> Split:
    """Distribute the scenes over both sides by the seed, in every class at the same share."""
    pool = open_pool(root, size, count)
    rows = shuffled(pool.labels, len(CLASSES), derive_seed(seed, _SPLIT))
    parts = list(zip(rows, shares(count)[1], strict=True))
    cubes = np.load(pool.cubes, mmap_mode="r")
    nm = torch.tensor(WAVELENGTHS, dtype=torch.float64)

    def images(chosen: Tensor) -> LabelledImages:
        x = torch.from_numpy(cubes[chosen.numpy()].astype(np.float32))
        return LabelledImages(x, pool.labels[chosen], CLASSES, nm)

    train = images(sources.first([r[:n] for r, n in parts], per_class, CLASSES))
    return Split(train, images(torch.cat([r[n:] for r, n in parts])), torch.arange(len(train)))


def open_twin(
    root: Path, *, size: int = 64, count: tuple[int, int] = (761, 630), per_class: PerClass = None
) -> Protocol:
    """Open the protocol: ``count`` training and test scenes of ``size`` × ``size`` pixels, resampled by the seed.

    Scenes are simulated when first loaded (three to five minutes at full size on one core), and kept under runs/.

    Args:
        root: the folder of rgb/.
        size: side of the scenes.
        count: of scenes for training and for test.
        per_class: training scenes per class, fewer than that.

    Raises:
        LabelError: if a class has too few pictures or scenes.
        ModuleNotFoundError: from loading, if earthlib is not installed.
    """
    train = [torch.arange(n) for n in shares(count)[1]]
    few = len(sources.first(train, per_class, CLASSES))
    return Protocol(
        name="twin",
        text=f"twin of HSRS-SC, SIMULATED from AID pictures and library spectra: {len(CLASSES)} classes, "
        f"{len(WAVELENGTHS)} bands 382–1056 nm, {few} training and {count[1]} test scenes {size}×{size} by seed.",
        splits=5,
        size=size,
        load=partial(load_split, root, size, count, per_class),
        pictures=lambda: open_pool(root, size, count).rest,
        class_map={c: c for c in CLASSES},
        radiometry=RADIOMETRY,
        shared=count[1] / few,
        simulated=True,
    )


def main() -> None:
    """Draw scenes of every class: the picture, red-green-blue, near infrared, and spectra of some pixels."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    args = arguments(__doc__ or "")
    figure, axes = plt.subplots(5, 10, figsize=(16, 8.4), layout="constrained", width_ratios=[1] * 9 + [2.4])
    files = aid_files(args.data)
    for line, kind in zip(axes, CLASSES, strict=True):
        for i, picture in enumerate(read_jpegs(files[kind][::100][:3], (128, 128))):
            y = simulate(picture)
            shown = to_display(y[RGB], *RADIOMETRY).movedim(0, -1), (y[33] / 0.6).clamp(0, 1)
            for axis, image, title in zip(
                line[3 * i : 3 * i + 3],
                (picture.movedim(0, -1), *shown),
                ("AID", "simulated", "855 nm"),
                strict=True,
            ):
                axis.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
                axis.set_xticks([])
                axis.set_yticks([])
                axis.set_title(title, fontsize=7)
            for j, (row, column) in enumerate([(12, 12), (32, 32), (52, 40)]):
                line[9].plot(WAVELENGTHS, y[:, row, column], f"C{3 * i + j}", lw=0.8)
                line[3 * i + 1].plot(column, row, "s", mec=f"C{3 * i + j}", mfc="none", ms=5)
        line[0].set_ylabel(kind, fontsize=8)
        line[9].set_ylim(0, 0.6)
        line[9].tick_params(labelsize=6)
    args.out.mkdir(parents=True, exist_ok=True)
    finish(figure, args.out / "twin.png", 100)
    plt.close(figure)


if __name__ == "__main__":
    main()
