"""What a MATLAB v5 file claims about a variable, looked at before scipy allocates memory for it."""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from ubf_augment.errors import HSIReadError, RadiometryError

_MATRIX, _COMPRESSED = 14, 15
_BYTES = {1: 1, 2: 1, 3: 2, 4: 2, 5: 4, 6: 4, 7: 4, 9: 8, 12: 8, 13: 8}
"""Bytes of one value of each storage type (MAT-File Format, table 1-1)."""
_HEAD = 4096
_COMPLEX = 0x0800


def check_variable(path: Path, key: str) -> None:
    """Verify that the stored bytes of a numeric array are those of its shape, without unpacking it.

    Raises:
        HSIReadError: if they are not: what is compressed may unpack to any size.
        RadiometryError: if the array is complex.
    """
    with path.open("rb") as file:
        head = file.read(128)
        order = {b"IM": "<", b"MI": ">"}.get(head[126:128])
        if order is None:  # version 4: scipy knows
            return
        for element in _heads(file, order):
            name, shape, is_complex, found, needed = _claims(element, order)
            if name != key:
                continue
            if is_complex:
                raise RadiometryError(
                    f"{path.name}[{key!r}] holds complex numbers, not reflectance: choose another variable"
                )
            if found != needed:
                raise HSIReadError(
                    f"{path.name}[{key!r}] claims the shape {'×'.join(map(str, shape))}, which takes {needed} bytes, but {found} "
                    "bytes are stored for it: the file is damaged; copy or download it again"
                )


def _heads(file: BinaryIO, order: str) -> Iterator[bytes]:
    """The first bytes of each variable, unpacked, from its array flags on."""
    while len(tag := file.read(8)) == 8:
        kind, size = struct.unpack(f"{order}2I", tag)
        begin = file.tell()
        data = file.read(min(size, _HEAD))
        if kind == _COMPRESSED:
            data = zlib.decompressobj().decompress(data, _HEAD)[8:]
        if kind in (_MATRIX, _COMPRESSED):
            yield data
        file.seek(begin + size)


def _claims(head: bytes, order: str) -> tuple[str, tuple[int, ...], bool, int, int]:
    """Name, shape, whether it is complex, bytes stored, and bytes that the shape takes."""
    flags = struct.unpack_from(f"{order}I", head, 8)[0]
    _, dimensions, at = _element(head, 16, order)
    shape = struct.unpack(f"{order}{len(dimensions) // 4}i", dimensions)
    _, name, at = _element(head, at, order)
    kind, size = _tag(head, at, order)[:2]
    return (
        name.decode("latin1"),
        shape,
        bool(flags & _COMPLEX),
        size,
        math.prod(shape) * _BYTES.get(kind, 0),
    )


def _tag(head: bytes, at: int, order: str) -> tuple[int, int, int]:
    """Type and bytes of an element, and where its data begin."""
    first, second = struct.unpack_from(f"{order}2I", head, at)
    if first >> 16:  # up to four bytes share the tag
        return first & 0xFFFF, first >> 16, at + 4
    return first, second, at + 8


def _element(head: bytes, at: int, order: str) -> tuple[int, bytes, int]:
    """Type, data and end of an element."""
    kind, size, begin = _tag(head, at, order)
    end = begin + size if begin == at + 4 else begin + -(-size // 8) * 8
    return kind, head[begin : begin + size], at + 8 if begin == at + 4 else end
