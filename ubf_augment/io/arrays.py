"""Arrays in MATLAB files (v5 by scipy, v7.3 by h5py) and NumPy files."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ubf_augment.errors import BandCountError, HSIReadError, ShapeError
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
    shapes, load = _open(path)
    key = choose_array(path, shapes, key, 2 if "(" in pattern else 3)
    values = _to_chw(load(key), pattern, size, f"{path.name}[{key!r}]")
    if wavelengths is not None:
        _known(path, shapes, wavelengths, "the wavelengths")
    else:
        wavelengths = next(
            (k for k in shapes if k.lower() in _WAVELENGTH_NAMES and np.prod(shapes[k]) == len(values)), None
        )
    centres = None if wavelengths is None else np.asarray(load(wavelengths), np.float64).ravel()
    if centres is not None and len(centres) != len(values):
        raise BandCountError(
            f"{path.name}[{wavelengths!r}] holds {len(centres)} wavelengths, {key!r} has {len(values)} bands"
        )
    return Stored(values, some(centres), meta={"driver": path.suffix.lower().lstrip("."), "key": key})


Loader = Callable[[str], Array]


def _open(path: Path) -> tuple[dict[str, tuple[int, ...]], Loader]:
    """Names and shapes of the numeric arrays of a file, and how to load one."""
    import h5py

    try:
        if path.suffix.lower() == ".npy":
            array = np.load(path, allow_pickle=False)
            return {path.stem: array.shape}, lambda _: array
        if path.suffix.lower() == ".npz":
            with np.load(path, allow_pickle=False) as archive:
                found = {name: archive[name] for name in archive.files}
            return {name: a.shape for name, a in found.items() if a.dtype.kind in "iufb"}, found.__getitem__
        if h5py.is_hdf5(path):
            return _open_hdf5(path)
        return _open_mat5(path)
    except MemoryError:
        raise
    except Exception as error:  # the readers fail in many ways on damaged files
        raise damaged(path, error) from error


def damaged(path: Path, error: Exception) -> HSIReadError:
    """What to say of a file that its reader cannot make sense of."""
    return HSIReadError(
        f"cannot read {path} ({type(error).__name__}: {error}): the file is truncated, damaged, or not what "
        f"its ending {path.suffix} says; copy or download it again"
    )


def _open_mat5(path: Path) -> tuple[dict[str, tuple[int, ...]], Loader]:
    from scipy.io import loadmat, whosmat

    numeric = {"double", "single", "logical"} | {f"{u}int{b}" for u in ("", "u") for b in (8, 16, 32, 64)}
    shapes = {name: tuple(shape) for name, shape, kind in whosmat(path) if kind in numeric}

    def load(key: str) -> Array:
        try:
            return np.asarray(loadmat(path, variable_names=[key])[key])
        except Exception as error:
            raise damaged(path, error) from error

    return shapes, load


def hdf5_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the numeric arrays of a MATLAB v7.3 file, in MATLAB's order of axes (HDF5 reverses it)."""
    import h5py

    shapes: dict[str, tuple[int, ...]] = {}

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and item.dtype.kind in "iufb" and not name.startswith("#"):
            shapes[name] = item.shape[::-1]

    with h5py.File(path) as file:
        file.visititems(visit)
    return shapes


def _open_hdf5(path: Path) -> tuple[dict[str, tuple[int, ...]], Loader]:
    """MATLAB v7.3: HDF5 with the axes reversed, so that they are turned back here."""
    import h5py

    def load(key: str) -> Array:
        try:
            with h5py.File(path) as file:
                return np.asarray(file[key]).transpose()
        except Exception as error:
            raise damaged(path, error) from error

    return hdf5_shapes(path), load


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
    if len(shapes) == 1:  # let the layout check say what is wrong with it
        return next(iter(shapes))
    problem = "several arrays could be the image" if candidates else f"no array has {axes} axes"
    raise HSIReadError(f"{path.name}: {problem}; it holds {_listing(shapes)}: choose one with key=…")


def _known(path: Path, shapes: Mapping[str, tuple[int, ...]], key: str, what: str) -> str:
    if key not in shapes:
        raise HSIReadError(
            f"{path.name} has no numeric array {key!r} for {what}; it holds {_listing(shapes)}"
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
    return pattern


def _to_chw(array: Array, pattern: str, size: tuple[int, int] | None, where: str) -> Array:
    """Bring an array to (C, H, W); inside parentheses the last letter varies fastest."""
    wanted = 2 if "(" in pattern else 3
    if array.ndim != wanted:
        hint = "; for a matrix of bands × pixels use layout='c(wh)' and size=(height, width)" * (
            array.ndim == 2
        )
        raise ShapeError(f"{where} has shape {array.shape}, but layout {pattern!r} needs {wanted} axes{hint}")
    letters = re.sub(r"[()]", "", pattern)
    if size is not None and wanted == 2:
        height, width = size
        pixels = array.shape[0 if pattern.startswith("(") else 1]
        if height * width != pixels:
            raise ShapeError(f"{where} has {pixels} pixels, which is not {height} × {width}")
        lengths = {"h": height, "w": width, "c": array.size // max(pixels, 1)}
        array = array.reshape([lengths[axis] for axis in letters])
    return array.transpose([letters.index(axis) for axis in "chw"])
