"""Files of named arrays: names and shapes first, then one array, if it fits into memory."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ubf_augment.errors import HSIReadError, RadiometryError, UBFError
from ubf_augment.io.limits import check_size
from ubf_augment.io.mat5 import check_variable
from ubf_augment.io.stored import Array

Shapes = Mapping[str, tuple[int, ...]]
Loader = Callable[[str], Array]
_NUMERIC = "iufb"


def open_arrays(path: Path) -> tuple[Shapes, Loader]:
    """Names and shapes of the numeric arrays of a ``.mat``, ``.npz`` or ``.npy`` file, and how to load one.

    Raises:
        HSIReadError: if the file is damaged, or is not what its ending says; so does the loader, and where an array is too
            large for the memory.
        RadiometryError: by the loader, for other than real numbers.
    """
    import h5py

    with Damage(path):
        if path.suffix.lower() == ".npy":
            shapes, load = _npy(path)
        elif path.suffix.lower() == ".npz":
            shapes, load = _npz(path)
        elif h5py.is_hdf5(path):
            shapes, load = _hdf5(path)
        else:
            shapes, load = _mat5(path)

    def checked(key: str) -> Array:
        with Damage(path):
            array = load(key)
        if array.dtype.kind not in _NUMERIC:
            raise RadiometryError(
                f"{path.name}[{key!r}] holds {array.dtype} values, which are no real numbers: choose another variable, "
                "or convert it"
            )
        return array

    return shapes, checked


class Damage:
    """Says of any error of a reader which file it is about: they fail in many ways on damaged files."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is None or isinstance(error, UBFError | MemoryError) or not isinstance(error, Exception):
            return
        raise HSIReadError(
            f"cannot read {self.path} ({type(error).__name__}: {error}): the file is truncated, damaged, or not what "
            f"its ending {self.path.suffix} says; copy or download it again"
        ) from error


def _header(file: Any) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type of a NumPy array that is about to be read."""
    version = np.lib.format.read_magic(file)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in read:
        raise ValueError(f"version {version} of the NumPy format")
    shape, _, dtype = read[version](file)
    if dtype.hasobject:
        raise ValueError("it holds Python objects, which are not opened: allow_pickle stays off")
    return shape, dtype


def _npy(path: Path) -> tuple[Shapes, Loader]:
    with path.open("rb") as file:
        shape, dtype = _header(file)
        needed, found = math.prod(shape) * dtype.itemsize, path.stat().st_size - file.tell()
    check_size(shape, dtype.itemsize, str(path))
    if found < needed:
        raise ValueError(f"its header promises {needed} bytes of values, the file has {found}")
    return {path.stem: shape}, lambda _: np.load(path, allow_pickle=False)


def _npz(path: Path) -> tuple[Shapes, Loader]:
    shapes: dict[str, tuple[int, ...]] = {}
    sizes: dict[str, int] = {}
    with zipfile.ZipFile(path) as archive:
        for member in archive.namelist():
            if not member.endswith(".npy"):
                continue
            with archive.open(member) as file:
                try:
                    shape, dtype = _header(file)
                except ValueError:  # pickled objects, and what is no array
                    continue
            if dtype.kind in _NUMERIC:
                shapes[member[:-4]], sizes[member[:-4]] = shape, dtype.itemsize

    def load(key: str) -> Array:
        check_size(shapes[key], sizes[key], f"{path}[{key!r}]")
        with np.load(path, allow_pickle=False) as arrays:
            return np.asarray(arrays[key])

    return shapes, load


def _mat5(path: Path) -> tuple[Shapes, Loader]:
    from scipy.io import loadmat, whosmat

    sizes = {"double": 8, "single": 4, "logical": 1} | {
        f"{u}int{b}": b // 8 for u in ("", "u") for b in (8, 16, 32, 64)
    }
    listed = {name: (tuple(shape), sizes[kind]) for name, shape, kind in whosmat(path) if kind in sizes}

    def load(key: str) -> Array:
        check_size(*listed[key], f"{path}[{key!r}]")
        check_variable(path, key)
        return np.asarray(loadmat(path, variable_names=[key])[key])

    return {name: shape for name, (shape, _) in listed.items()}, load


def hdf5_shapes(path: Path) -> Shapes:
    """Names and shapes of the numeric arrays of a MATLAB v7.3 file, in MATLAB's order of axes (HDF5 reverses it)."""
    import h5py

    shapes: dict[str, tuple[int, ...]] = {}

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and item.dtype.kind in _NUMERIC and not name.startswith("#"):
            shapes[name] = (item.shape or ())[::-1]

    with h5py.File(path) as file:
        file.visititems(visit)
    return shapes


def _hdf5(path: Path) -> tuple[Shapes, Loader]:
    """MATLAB v7.3: HDF5 with the axes reversed, so that they are turned back here."""
    import h5py

    def load(key: str) -> Array:
        with h5py.File(path) as file:
            item = file[key]
            where = f"{path}[{key!r}]"
            check_size(item.shape or (), item.dtype.itemsize, where)
            _check_written(item, where)
            return np.asarray(item).transpose()

    return hdf5_shapes(path), load


def _check_written(item: Any, where: str) -> None:
    """HDF5 gives zeros for what was never written, and for other files that are not there.

    Raises:
        HSIReadError: if that would happen.
    """
    if item.is_virtual or item.external:
        raise HSIReadError(f"{where} refers to other files: copy its values into one file")
    if item.chunks is None:
        missing, of = int(item.id.get_storage_size() == 0 and item.size), 1
    else:
        of = math.prod(-(-n // c) for n, c in zip(item.shape, item.chunks, strict=True))
        missing = of - item.id.get_num_chunks()
    if missing:
        raise HSIReadError(
            f"{where}: {missing} of {of} blocks of its values were never written: the program that wrote it was interrupted; "
            "write or download it again"
        )
