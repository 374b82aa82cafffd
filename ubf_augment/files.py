"""Files that are whole or not there, folders for one job at a time, and tensors in files, read a few rows at a time."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ubf_augment.errors import UBFError

_ASIDE = re.compile(r"\..+\.\d+\.tmp")
_DTYPES = {torch.uint8: np.uint8, torch.int64: np.int64, torch.float16: np.float16, torch.float32: np.float32}


@contextmanager
def replacing(path: Path, *, sync: bool = True) -> Iterator[Path]:
    """A file beside ``path`` to be written: renamed to it at the end, removed if the block fails.

    Whenever the process dies, ``path`` is the old file, or the new one, whole. Missing folders are made.

    Args:
        path: the file.
        sync: wait until the disk has it, so that this holds when the machine dies, too; some milliseconds.

    Raises:
        OSError: that names ``path`` if it cannot be written (no space, no permission).

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with replacing(Path(folder, "a.txt")) as aside:
    ...         _ = aside.write_text("all of it")
    ...     Path(folder, "a.txt").read_text()
    'all of it'
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield aside
        if sync:
            with aside.open("r+b") as file:
                os.fsync(file.fileno())
        os.replace(aside, path)
    except OSError as error:
        if error.errno is None:  # raised by other code, with a message of its own
            raise
        raise type(error)(f"cannot write {path}: {error.strerror}") from error
    finally:
        aside.unlink(missing_ok=True)


def refuse_existing(path: Path, overwrite: bool) -> None:
    """Verify that a result may be written.

    Raises:
        FileExistsError: if it is there already and is not to be replaced.
    """
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} is there already: give overwrite=true, or another out=…")


def drop_left(files: Iterable[Path]) -> None:
    """Remove what `replacing` left aside when its process was killed; only where no other process can be at work."""
    for file in files:
        if _ASIDE.fullmatch(file.name):
            file.unlink(missing_ok=True)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other jobs out of a folder, which is made; the lock dies with the process. What killed jobs left aside there goes.

    On a file system without locks nothing is kept out.

    Raises:
        UBFError: if another process holds the lock.
        OSError: if the folder cannot be written.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with locked(Path(folder)):
    ...         with locked(Path(folder)):
    ...             pass
    Traceback (most recent call last):
    ...
    ubf_augment.errors.UBFError: another process is at work in ...: wait for it, or give another folder
    """
    from filelock import FileLock, Timeout

    lock = FileLock(folder / ".lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
        drop_left(folder.rglob(".*.tmp"))
    except Timeout as error:
        raise UBFError(
            f"another process is at work in {folder}: wait for it, or give another folder"
        ) from error
    except NotImplementedError:
        pass
    except OSError as error:
        raise type(error)(f"cannot write into {folder}: {error.strerror}") from error
    try:
        yield
    finally:
        lock.release()


class OnDisk:
    """A tensor (N, …) in a .npy file: rows are read when they are asked for, so memory does not grow with N.

    The file is mapped for each access alone: a map that stays open would count as memory of the process.

    Attributes:
        path: the file.
        shape: (N, …).
        dtype: uint8, int64, float16 or float32.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     x = OnDisk.create(Path(folder, "x.npy"), (4, 2), torch.float32)
    ...     x[1:3] = torch.ones(2, 2)
    ...     x[torch.tensor([0, 2])], len(x), x.nbytes
    (tensor([[0., 0.],
            [1., 1.]]), 4, 32)
    """

    def __init__(self, path: Path) -> None:
        """Open a file.

        Raises:
            FileNotFoundError, ValueError: if there is none, or it is no such array.
        """
        self.path = path
        mapped = np.load(path, mmap_mode="r")
        self.shape = torch.Size(mapped.shape)
        self.dtype = torch.from_numpy(np.empty(0, mapped.dtype)).dtype
        self._offset = mapped.offset

    @classmethod
    def create(cls, path: Path, shape: Sequence[int], dtype: torch.dtype) -> OnDisk:
        """Make a file of zeros; what stands there is replaced."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)  # another process may still read the old one
        kind = np.dtype(_DTYPES[dtype])
        with path.open("wb") as file:
            np.lib.format.write_array_header_1_0(
                file, {"descr": kind.str, "fortran_order": False, "shape": tuple(shape)}
            )
            file.truncate(file.tell() + prod(shape) * kind.itemsize)
        return cls(path)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of all values."""
        return prod(self.shape) * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: int | slice | Tensor) -> Tensor:
        """Read rows: one, a slice, or those of an int64 tensor."""
        rows = index.cpu().numpy() if isinstance(index, Tensor) else index
        return torch.from_numpy(np.array(self._map()[rows]))

    def strided(self, step: int) -> Tensor:
        """Every ``step``-th of all values, flattened."""
        return torch.from_numpy(np.array(self._map().reshape(-1)[::step]))

    def __setitem__(self, index: slice, rows: Tensor) -> None:
        """Write consecutive rows.

        Raises:
            ValueError: if they do not fit.
            OSError: if the disk is full; a write through a map would kill the process instead.
        """
        place = range(*index.indices(len(self)))
        if place.step != 1 or rows.shape != (len(place), *self.shape[1:]):
            raise ValueError(f"{tuple(rows.shape)} values for rows {index} of {tuple(self.shape)}")
        values = rows.detach().to("cpu", self.dtype).contiguous().numpy()
        with self.path.open("r+b") as file:
            file.seek(self._offset + place.start * (self.nbytes // max(1, len(self))))
            file.write(values.tobytes())

    def _map(self) -> Any:
        return np.memmap(self.path, _DTYPES[self.dtype], "r", self._offset, tuple(self.shape))


def strided(parts: Iterable[Tensor], step: int, count: int) -> Tensor:
    """Every ``step``-th of the ``count`` rows of ``torch.cat(parts)``, with one part in memory at a time.

    Rows go into memory that is asked for once: small pieces that are kept between large ones that are not keep these from being
    given back.

    >>> strided([torch.arange(5), torch.arange(5, 9)], 3, 9)
    tensor([0, 3, 6])
    """
    out, at, filled = torch.empty(0), 0, 0
    for part in parts:
        if not at:
            out = part.new_empty(-(-count // step), *part.shape[1:])
        chosen = part[-at % step :: step]
        out[filled : filled + len(chosen)] = chosen
        at, filled = at + len(part), filled + len(chosen)
    return out


def gather(parts: Iterable[Tensor], index: Tensor) -> Tensor:
    """Rows ``index`` (n,) of ``torch.cat(parts)``, with one part in memory at a time.

    Raises:
        IndexError: if there are not so many rows.

    >>> gather([torch.arange(5), torch.arange(5, 9)], torch.tensor([7, 0, 7]))
    tensor([7, 0, 7])
    """
    wanted, order = index.sort(stable=True)
    out, at = torch.empty(0), 0
    for part in parts:
        if not at:
            out = part.new_empty(len(index), *part.shape[1:])
        first, last = torch.searchsorted(wanted, torch.tensor([at, at + len(part)])).tolist()
        out[order[first:last]] = part[wanted[first:last] - at]
        at += len(part)
    if len(wanted) and int(wanted[-1]) >= at:
        raise IndexError(f"row {int(wanted[-1])} of {at}")
    return out
