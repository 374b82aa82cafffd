"""Arrays in MATLAB files (v5 by scipy, v7.3 by h5py) and NumPy files."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ubf_augment.errors import BandCountError, HSIReadError, ShapeError
from ubf_augment.io.containers import open_arrays
from ubf_augment.io.stored import Array, Stored, some

SUFFIXES = (".mat", ".npy", ".npz")
_WAVELENGTH_NAMES = ("wavelengths", "wavelength", "wavelengths_nm", "wavelength_nm", "wl")
_LAYOUT = re.compile(r"[chw]{3}|c\((?:hw|wh)\)|\((?:hw|wh)\)c")


def read_arrays(
    path: Path, key: str | None, layout: str, size: tuple[int, int] | None, wavelengths: str | None
) -> Stored:
    """Read an image from a file of named arrays.

    Args:
        path: ``.mat``, ``.npz`` or ``.npy``.
        key: name of the variable; needed where several could be the image.
        layout: order of the axes, see `read_hsi`.
        size: (H, W), needed where the layout flattens the pixels.
        wavelengths: name of the variable with the wavelengths in nm; by default one that is called so.

    Raises:
        HSIReadError: if the file cannot be read or has no such variable.
        ShapeError, ValueError: if the array does not fit the layout.
    """
    pattern = _check_layout(layout, size)
    shapes, load = open_arrays(path)
    key = choose_array(path, shapes, key, 2 if "(" in pattern else 3)
    problem: BandCountError | None = None
    values = _to_chw(load(key), pattern, size, f"{path.name}[{key!r}]")
    if wavelengths is not None:
        _known(path, shapes, wavelengths, "the wavelengths")
    else:
        named = [k for k in shapes if k.lower() in _WAVELENGTH_NAMES and k != key]
        wavelengths = next((k for k in named if math.prod(shapes[k]) == len(values)), None)
        if named and wavelengths is None:
            problem = BandCountError(
                f"{path.name}[{named[0]!r}] holds {math.prod(shapes[named[0]])} wavelengths, {key!r} has {len(values)} bands: "
                "pass wavelengths=[…], or another layout if the bands are another axis"
            )
    centres = None if wavelengths is None else np.asarray(load(wavelengths), np.float64).ravel()
    if centres is not None and len(centres) != len(values):
        raise BandCountError(
            f"{path.name}[{wavelengths!r}] holds {len(centres)} wavelengths, {key!r} has {len(values)} bands"
        )
    return Stored(
        values, some(centres), problem, meta={"driver": path.suffix.lower().lstrip("."), "key": key}
    )


def choose_array(path: Path, shapes: Mapping[str, tuple[int, ...]], key: str | None, axes: int) -> str:
    """The array named ``key``, or the one with so many axes.

    Raises:
        HSIReadError: if there is none, or several could be meant; the message lists the arrays.
    """
    if key is not None:
        return _known(path, shapes, key, "the image")
    candidates = [k for k, shape in shapes.items() if len(shape) == axes and min(shape, default=0) > 1]
    if len(candidates) == 1:
        return candidates[0]
    others = [k for k in shapes if k.lower() not in _WAVELENGTH_NAMES]
    if len(others) == 1:  # let the layout check say what is wrong with it
        return others[0]
    problem = "several arrays could be the image" if candidates else f"no array has {axes} axes"
    raise HSIReadError(f"{path.name}: {problem}; it holds {_listing(shapes)}: choose one with key=…")


def _known(path: Path, shapes: Mapping[str, tuple[int, ...]], key: str, what: str) -> str:
    if key not in shapes:
        raise HSIReadError(
            f"{path.name} has no numeric array {key!r} for {what}; it holds {_listing(shapes)}: choose one of them"
        )
    return key


def _listing(shapes: Mapping[str, tuple[int, ...]]) -> str:
    if not shapes:
        return "no numeric arrays"
    return ", ".join(f"{name!r} {'×'.join(map(str, shape))}" for name, shape in shapes.items())


def _check_layout(layout: str, size: tuple[int, int] | None) -> str:
    pattern = layout.replace(" ", "")
    if not _LAYOUT.fullmatch(pattern) or sorted(re.sub(r"[()]", "", pattern)) != list("chw"):
        raise ValueError(
            f"layout {layout!r} is not understood: write the axes as stored, 'hwc' or 'chw', or for a matrix "
            "of bands × pixels 'c(wh)' (column-major, as MATLAB stores it) or 'c(hw)' (row-major)"
        )
    if "(" in pattern and size is None:
        raise ValueError(f"layout {layout!r} flattens the pixels: give size=(height, width) as well")
    if size is not None and min(size) < 1:
        raise ValueError(
            f"size must be (height, width) of the image, both at least 1, got {size}: correct it"
        )
    return pattern


def _to_chw(array: Array, pattern: str, size: tuple[int, int] | None, where: str) -> Array:
    """Bring an array to (C, H, W); inside parentheses the last letter varies fastest."""
    wanted = 2 if "(" in pattern else 3
    if array.ndim != wanted:
        hint = "; for a matrix of bands × pixels use layout='c(wh)' and size=(height, width)" * (
            array.ndim == 2
        )
        raise ShapeError(
            f"{where} has shape {array.shape}, but layout {pattern!r} needs {wanted} axes: choose another variable with key=…, "
            f"or another layout{hint}"
        )
    letters = re.sub(r"[()]", "", pattern)
    if size is not None and wanted == 2:
        height, width = size
        pixels = array.shape[0 if pattern.startswith("(") else 1]
        if height * width != pixels:
            raise ShapeError(
                f"{where} has {pixels} pixels, which is not {height} × {width}: correct size=(height, width)"
            )
        lengths = {"h": height, "w": width, "c": array.size // max(pixels, 1)}
        array = array.reshape([lengths[axis] for axis in letters])
    return array.transpose([letters.index(axis) for axis in "chw"])
