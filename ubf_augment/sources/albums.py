"""The RGB pictures of one class: in memory, or read from a data set a few at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from os import PathLike, stat
from typing import Any, TypeAlias

import torch
from jaxtyping import UInt8
from torch import Tensor

from ubf_augment.errors import RadiometryError, ShapeError
from ubf_augment.synthesis.imagery import ImageSource
from ubf_augment.synthesis.pictures import read_pictures

Bank: TypeAlias = Mapping[str, Tensor] | Mapping[int, Tensor] | Any
"""Class → uint8 (N, 3, H, W), or a labelled data set with ``classes`` and ``targets``."""
_CHUNK = 32


class Album:
    """Pictures of one class.

    Args:
        pictures: uint8 (N, 3, H, W), or a data set.
        rows: which items of the data set.

    >>> album = Album(torch.zeros(40, 3, 8, 8, dtype=torch.uint8))
    >>> len(album), [len(part) for part in album.parts((4, 4))]
    (40, [32, 8])
    """

    def __init__(self, pictures: Any, rows: Sequence[int] | None = None) -> None:
        self._pictures, self._rows = pictures, rows

    def __len__(self) -> int:
        return len(self._pictures if self._rows is None else self._rows)

    def parts(self, size: tuple[int, int]) -> Iterator[UInt8[Tensor, "n 3 h w"]]:
        """Some pictures at a time: a tensor's as they are, those of a data set shrunk and cropped to ``size``."""
        if self._rows is None:
            yield from torch.split(self._pictures, _CHUNK)
            return
        source = ImageSource(self._pictures)
        for start in range(0, len(self), _CHUNK):
            images = [source[i][0] for i in self._rows[start : start + _CHUNK]]
            shrunk = read_pictures({"bank": images}, size).images
            yield shrunk[:]  # all of them: there is no file

    def mark(self) -> str:
        """Fingerprint: of the values, or, where a data set names its files, of their names, sizes and times."""
        found = hashlib.sha256()
        files = getattr(self._pictures, "files", None) or getattr(self._pictures, "samples", None)
        if self._rows is None:
            found.update(str(tuple(self._pictures.shape)).encode())
            found.update(self._pictures.contiguous().numpy())
        elif files is not None:
            for i in self._rows:
                path: str | PathLike[str] = files[i][0]
                facts = stat(path)
                found.update(f"{path}|{facts.st_size}|{facts.st_mtime_ns}\n".encode())
        else:
            source = ImageSource(self._pictures)
            for i in self._rows:
                image = source[i][0]
                found.update(
                    f"{tuple(image.shape)}{image.dtype}".encode() + image.contiguous().numpy().tobytes()
                )
        return found.hexdigest()


def open_albums(bank: Bank) -> dict[str | int, Album]:
    """The pictures of each class.

    Raises:
        RadiometryError: if a tensor is not uint8.
        ShapeError: if a tensor is not (N, 3, H, W) with N ≥ 1, or a data set does not say the class of each picture.
    """
    if not isinstance(bank, Mapping):
        return _of_data_set(bank)
    for key, value in bank.items():
        if not isinstance(value, Tensor) or value.ndim != 4 or value.shape[1] != 3 or not len(value):
            raise ShapeError(f"bank[{key!r}] must be a uint8 tensor (N, 3, H, W) with N ≥ 1")
        if value.dtype != torch.uint8:
            raise RadiometryError(f"bank[{key!r}] is {value.dtype}: give pictures as uint8, 0 to 255")
    return {key: Album(value.detach().cpu()) for key, value in bank.items()}


def _of_data_set(pictures: Any) -> dict[str | int, Album]:
    classes, targets = getattr(pictures, "classes", None), getattr(pictures, "targets", None)
    if classes is None or targets is None or not hasattr(pictures, "__getitem__"):
        raise ShapeError(
            f"bank is {type(pictures).__name__}: give {{class: uint8 pictures (N, 3, H, W)}}, or a data set with classes and "
            "targets, such as datasets.PictureFolder or torchvision's ImageFolder"
        )
    rows: dict[int, list[int]] = {}
    for i, label in enumerate(targets):
        rows.setdefault(int(label), []).append(i)
    return {str(classes[k]): Album(pictures, rows[k]) for k in sorted(rows)}
