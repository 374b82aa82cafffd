"""How samples lie on disk: a GeoTIFF each, in a folder per class, or in tar shards."""

from __future__ import annotations

import io
import json
import os
import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ubf_augment.export.plan import Plan
from ubf_augment.files import replacing
from ubf_augment.io import write_hsi
from ubf_augment.io.writing import quantise
from ubf_augment.synthesis.drawing import sample_seed

Flags = NDArray[np.bool_]
Classes = dict[str, dict[str, Any]]


class Writer(Protocol):
    """One way to store the samples of a plan; a unit is what a process writes without looking around."""

    out: Path

    @property
    def unit(self) -> int:
        """Samples of a unit."""

    def facts(self) -> dict[str, Any]:
        """What a folder must agree on to be gone on with."""

    def classes(self, labels: Mapping[str, int]) -> Classes:
        """The plan's classes as the manifest lists them, with the bundle's numbers."""

    def merged(self, there: Classes, mine: Classes) -> Classes:
        """Both lists of classes together."""

    def present(self) -> Flags:
        """(total,) True for the samples that are there; leavings of killed processes are removed."""

    def complete(self, there: Classes) -> bool:
        """Whether all samples of a manifest are there, if all of the plan are."""

    def write(self, samples: Iterable[tuple[int, Tensor]], first: int) -> None:
        """Store the samples of the unit that begins with number ``first``."""


class TiffFolder:
    """``<class>/<class>-<i>.tif``, with the wavelengths in the band metadata.

    Args:
        out: folder.
        plan: of the samples.
        wavelengths: (C,) nm.
        scale: None stores float32; a number such as 0.0001 int16 with that scale.

    Raises:
        ValueError: if two classes would share a folder.
    """

    def __init__(self, out: Path, plan: Plan, wavelengths: Tensor, scale: float | None = None) -> None:
        self.out, self.plan, self.wavelengths, self.scale = out, plan, wavelengths, scale
        if len({folder_name(c) for c in plan.classes}) < len(plan.classes):
            raise ValueError(
                f"of {', '.join(plan.classes)} two would share a folder: draw them into two places"
            )

    @property
    def unit(self) -> int:
        """A batch."""
        return self.plan.batch_size

    def facts(self) -> dict[str, Any]:
        """Scale of the values."""
        return {"format": "tif", "scale": self.scale}

    def classes(self, labels: Mapping[str, int]) -> Classes:
        """Each with its folder."""
        return {
            c: {"label": labels.get(c), "num": self.plan.num, "folder": folder_name(c)}
            for c in self.plan.classes
        }

    def merged(self, there: Classes, mine: Classes) -> Classes:
        """Other classes stay, and so do more samples of a class."""
        more = {c: v | {"num": max(v["num"], there.get(c, v)["num"])} for c, v in mine.items()}
        return there | more

    def present(self) -> Flags:
        """Look once into each class folder."""
        columns = [listed(self.out, name, self.plan.num) for name in self.plan.classes]
        return np.stack(columns, 1).ravel()

    def complete(self, there: Classes) -> bool:
        """Look into all class folders."""
        return all(bool(listed(self.out, c, v["num"]).all()) for c, v in there.items())

    def write(self, samples: Iterable[tuple[int, Tensor]], first: int) -> None:
        """One file after the other; a file that is there stays."""
        for n, image in samples:
            name, i = self.plan.item(n)
            flat = folder_name(name)
            path = self.out / flat / f"{flat}-{i:05d}.tif"
            if not path.exists():
                write_hsi(path, image, self.wavelengths, scale=self.scale)


def folder_name(name: str) -> str:
    """A class may be called AID/Forest, or even '..'.

    >>> folder_name("AID/Forest"), folder_name("..")
    ('AID_Forest', '_.')
    """
    return re.sub(r"^\.", "_", re.sub(r"[/\\]", "_", name))


def listed(out: Path, name: str, num: int) -> Flags:
    """(num,) which of the first images of a class are there, from one look at its folder."""
    found, flat = np.zeros(num, bool), folder_name(name)
    known = re.compile(re.escape(flat) + r"-(\d{5,})\.tif")
    for entry in entries(out / flat):
        if (match := known.fullmatch(entry)) and int(match[1]) < num:
            found[int(match[1])] = True
    return found


def entries(folder: Path) -> Iterator[str]:
    """Names in a folder, which may be missing; leavings of `replacing` go."""
    if not folder.is_dir():
        return
    with os.scandir(folder) as found:
        for entry in found:
            if entry.name.startswith(".") and entry.name.endswith(".tmp"):
                Path(entry.path).unlink(missing_ok=True)
            else:
                yield entry.name


class TarShards:
    """``shard-00000.tar`` …, each of so many samples, for WebDataset or any other reader of tar files.

    A sample is ``<n>.npy``, the image (C, H, W); ``<n>.cls``, the number of its class in the bundle; and ``<n>.json``: class,
    its number, the sample's number in it, seed, scale and wavelengths in nm. Classes take turns. Shards appear when they are
    complete.

    Args:
        out: folder.
        plan: of the samples.
        wavelengths: (C,) nm.
        scale: None stores float32 reflectance; a number such as 0.0001 int16, to be multiplied by it.
        labels: class name → number.
        size: samples per shard; best a multiple of the plan's batch size, for no batch to be drawn twice.

    Raises:
        ValueError: if ``size`` is below one.
    """

    def __init__(
        self, out: Path, plan: Plan, wavelengths: Tensor, scale: float | None, labels: Mapping[str, int], size: int = 1024
    ) -> None:  # fmt: skip
        if size < 1:
            raise ValueError(f"a shard must hold at least one sample, got {size}")
        self.out, self.plan, self.scale, self.labels, self.unit = out, plan, scale, labels, size
        self._wavelengths = wavelengths.tolist()

    def facts(self) -> dict[str, Any]:
        """Scale of the values, size and order of the shards."""
        order = list(self.plan.classes)
        return {"format": "tar", "scale": self.scale, "shard_size": self.unit, "order": order}

    def classes(self, labels: Mapping[str, int]) -> Classes:
        """Each as often as the others."""
        return {c: {"label": labels.get(c), "num": self.plan.num} for c in self.plan.classes}

    def merged(self, there: Classes, mine: Classes) -> Classes:
        """More samples of the same classes; a last shard that was not full goes, to be written anew.

        Raises:
            ValueError: if there are to be fewer.
        """
        before = min(v["num"] for v in there.values())
        if before > self.plan.num:
            raise ValueError(f"{self.out} holds num={before} samples of each class: shards can only be added")
        if before < self.plan.num and (full := before * len(there)) % self.unit:
            self.path(full).unlink(missing_ok=True)
        return mine

    def present(self) -> Flags:
        """Look once into the folder."""
        found = np.zeros(self.plan.total, bool)
        for name in entries(self.out):
            if match := re.fullmatch(r"shard-(\d{5,})\.tar", name):
                first = int(match[1]) * self.unit
                found[first : first + self.unit] = True
        return found

    def complete(self, there: Classes) -> bool:
        """All there is belongs to the plan."""
        return True

    def path(self, first: int) -> Path:
        """The shard of sample ``first``."""
        return self.out / f"shard-{first // self.unit:05d}.tar"

    def write(self, samples: Iterable[tuple[int, Tensor]], first: int) -> None:
        """A shard, aside, renamed when it is complete."""
        path = self.path(first)
        with replacing(path) as aside, tarfile.open(aside, "w") as tar:
            for n, image in samples:
                for ending, data in self._parts(n, image.numpy(), path):
                    entry = tarfile.TarInfo(f"{n:09d}.{ending}")  # readers split a name at its first dot
                    entry.size = len(data)
                    tar.addfile(entry, io.BytesIO(data))

    def _parts(self, n: int, image: NDArray[Any], path: Path) -> Iterator[tuple[str, bytes]]:
        name, i = self.plan.item(n)
        array = io.BytesIO()
        np.save(array, image if self.scale is None else quantise(image, self.scale, f"sample {n} of {path}"))
        yield "npy", array.getvalue()
        facts = {
            "class": name, "label": self.labels.get(name), "index": i, "seed": sample_seed(self.plan.seed, name, i),
            "scale": self.scale, "wavelengths": self._wavelengths,
        }  # fmt: skip
        if name in self.labels:
            yield "cls", str(self.labels[name]).encode()
        yield "json", json.dumps(facts, ensure_ascii=False).encode()
