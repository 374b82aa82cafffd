"""Finished windows of a scene on disk, and what is gathered from them: means and a quick look."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from ubf_augment.errors import NoDataError
from ubf_augment.files import replacing
from ubf_augment.io import Window

Array = NDArray[np.float32]
_PLAN = "plan.json"


@dataclass(frozen=True, eq=False)
class UnmixedScene:
    """What `HSISynthesizer.unmix_scene` wrote, and a reduced copy of it.

    Attributes:
        path: the GeoTIFF.
        names: of its bands.
        size: (H, W) of the scene.
        valid: number of pixels with data.
        mean: (P,) mean abundances over them.
        rmse: root-mean-square of x − Eᵀa over pixels with data and bands, in reflectance.
        windows: number of windows, and how many of them this call unmixed.
        seconds: of this call.
        abundances: (P, h, w) of every n-th pixel, NaN where there is no data.
        rgb: (3, h, w) reflectance of the same pixels at red, green and blue, NaN where there is no data; None if the scene
            has no such bands.
    """

    path: Path
    names: tuple[str, ...]
    size: tuple[int, int]
    valid: int
    mean: Float[Tensor, " p"]
    rmse: float
    windows: tuple[int, int]
    seconds: float
    abundances: Float[Tensor, "p h w"]
    rgb: Float[Tensor, "3 h w"] | None


def free_space(out: Path, needed: int) -> None:
    """Make the folder of a file and verify that there is room in it.

    Raises:
        OSError: if there is not.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    if (free := shutil.disk_usage(out.parent).free) < needed:
        raise OSError(
            f"{out.parent} has {free / 2**30:.3g} GiB left, and up to {needed / 2**30:.3g} GiB are needed: make room, or "
            "write elsewhere"
        )


class Parts:
    """Finished windows in a folder, one file each, whole or not there whenever the process dies.

    Args:
        folder: of the files, `locked`.
        facts: what they belong to, JSON-able.
        overwrite: replace those that belong to others.

    Raises:
        ValueError: if the folder holds the work of others.
    """

    def __init__(self, folder: Path, facts: Mapping[str, Any], overwrite: bool) -> None:
        self.folder = folder
        plan, text = folder / _PLAN, json.dumps(facts, sort_keys=True)
        there = [file for file in folder.iterdir() if not file.name.startswith(".")]
        if there and not (plan.is_file() and plan.read_text() == text):
            if not (overwrite and plan.is_file()):
                raise ValueError(
                    f"{folder} holds work of another scene, bundle or method (or something else): delete it, or give "
                    "another workdir=…"
                )
            for file in there:
                file.unlink()
        if not plan.exists():
            _write(plan, lambda file: file.write(text.encode()))

    def __contains__(self, window: Window) -> bool:
        return self._file(window).exists()

    def save(
        self, window: Window, layers: Float[Tensor, "l h w"], rgb: Float[Tensor, "3 _ _"] | None
    ) -> None:
        """Write a window: abundances and RMSE, and the pixels of the quick look."""
        arrays = {"layers": layers.numpy()} | ({} if rgb is None else {"rgb": rgb.numpy()})
        _write(self._file(window), lambda file: np.savez(file, allow_pickle=False, **arrays))

    def load(self, window: Window) -> tuple[Array, Array | None]:
        """Read a window back."""
        with np.load(self._file(window), allow_pickle=False) as arrays:
            return arrays["layers"], arrays.get("rgb", None)

    def _file(self, w: Window) -> Path:
        return self.folder / f"{w.row}-{w.column}-{w.height}-{w.width}.npz"


def _write(path: Path, content: Callable[[Any], object]) -> None:
    with replacing(path) as aside, aside.open("wb") as file:
        content(file)


class Summary:
    """Means over a scene and its quick look, gathered window by window.

    Args:
        endmembers: P.
        size: (H, W).
        step: the quick look takes every so-many-th pixel.
    """

    def __init__(self, endmembers: int, size: tuple[int, int], step: int) -> None:
        self.size, self.step, self.valid = size, step, 0
        self._total, self._squares = np.zeros(endmembers), 0.0
        self._abundances = self._empty(endmembers)
        self._rgb: Array | None = None

    def over(
        self, parts: Parts, windows: Sequence[Window], with_rmse: bool
    ) -> Iterator[tuple[Window, Array]]:
        """Read all windows and sum them up on the way.

        Raises:
            NoDataError: at the end, if no pixel holds data.
        """
        for window in windows:
            layers, rgb = parts.load(window)
            self._add(window, layers, rgb)
            yield window, layers if with_rmse else layers[:-1]
        if not self.valid:
            raise NoDataError(
                "no pixel of the scene is valid in every band: drop_bands=… leaves out bands without data, nodata=… "
                "says what marks missing data"
            )

    def _empty(self, channels: int) -> Array:
        return np.full((channels, *(-(-n // self.step) for n in self.size)), np.nan, np.float32)

    def _add(self, window: Window, layers: Array, rgb: Array | None) -> None:
        flat = layers[:, ~np.isnan(layers[0])].astype(np.float64)
        self.valid += flat.shape[1]
        self._total += flat[:-1].sum(1)
        self._squares += float(np.square(flat[-1]).sum())
        small = layers[:-1, -window.row % self.step :: self.step, -window.column % self.step :: self.step]
        top, left = -(-window.row // self.step), -(-window.column // self.step)
        where = (slice(None), slice(top, top + small.shape[1]), slice(left, left + small.shape[2]))
        self._abundances[where] = small
        if rgb is not None:
            if self._rgb is None:
                self._rgb = self._empty(3)
            self._rgb[where] = rgb

    def result(
        self, path: Path, names: tuple[str, ...], windows: tuple[int, int], seconds: float
    ) -> UnmixedScene:
        """What was found, after all windows."""
        return UnmixedScene(
            path=path,
            names=names,
            size=self.size,
            valid=self.valid,
            mean=torch.from_numpy(self._total / self.valid).float(),
            rmse=(self._squares / self.valid) ** 0.5,
            windows=windows,
            seconds=seconds,
            abundances=torch.from_numpy(self._abundances),
            rgb=None if self._rgb is None else torch.from_numpy(self._rgb),
        )
