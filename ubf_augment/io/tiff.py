"""Whether a TIFF file is complete: libtiff skips tags whose values lie beyond the end of the file."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

_SIZES = {
    1: 1,
    2: 1,
    3: 2,
    4: 4,
    5: 8,
    6: 1,
    7: 1,
    8: 2,
    9: 4,
    10: 8,
    11: 4,
    12: 8,
    13: 4,
    16: 8,
    17: 8,
    18: 8,
}
"""Bytes of one value of each TIFF type (TIFF 6.0, section 2; 16 to 18 are those of BigTIFF)."""
_BYTE_COUNTS = (279, 325)
"""Tags with the bytes of each strip or tile."""


@dataclass(frozen=True)
class _Directory:
    """Entries (tag, type, number of values, value or its offset) of a directory, and where it ends."""

    entries: list[tuple[int, int, int, bytes]]
    end: int


def needed_bytes(path: Path) -> int:
    """How many bytes the directories of a TIFF file and the values of their tags reach; 0 if it is no TIFF.

    Metadata (wavelengths, scale) may stand behind the pixels; where it is cut off, GDAL reads the image
    without it and says nothing. Pixel data is not looked at: GDAL reports that itself.
    """
    with path.open("rb") as file:
        offset_format, count_format, start = _start(file)
        width, end = struct.calcsize(offset_format), 0
        for directory in _directories(file, offset_format, count_format, start):
            end = max(end, directory.end)
            for _tag, kind, number, value in directory.entries:
                if (length := number * _SIZES.get(kind, 0)) > width:
                    end = max(end, int(struct.unpack(offset_format, value)[0]) + length)
    return end


def unwritten_blocks(path: Path) -> tuple[int, int]:
    """How many strips or tiles of a TIFF file have no bytes, and how many there are; (0, 0) if it is no TIFF.

    A program that dies while it writes leaves them so, and GDAL reads them as zeros.
    """
    with path.open("rb") as file:
        offset_format, count_format, start = _start(file)
        for directory in _directories(file, offset_format, count_format, start):
            for tag, kind, number, value in directory.entries:
                if tag not in _BYTE_COUNTS:
                    continue
                size = _SIZES.get(kind, 0)
                if number * size > len(value):
                    file.seek(struct.unpack(offset_format, value)[0])
                    value = file.read(number * size)
                counts = (
                    np.frombuffer(value, f"u{size}", min(number, len(value) // size)) if size else np.ones(0)
                )
                return int((counts == 0).sum()), number
            break  # the image is the first directory; overviews and masks follow
    return 0, 0


def _start(file: BinaryIO) -> tuple[str, str, int]:
    """Formats of an offset and of a number of entries, and the first directory (0 if this is no TIFF)."""
    head = file.read(16)
    order = {b"II": "<", b"MM": ">"}.get(head[:2])
    version = struct.unpack(f"{order}H", head[2:4])[0] if order and len(head) >= 8 else 0
    if version == 42:
        return f"{order}I", f"{order}H", struct.unpack(f"{order}I", head[4:8])[0]
    if version == 43 and len(head) == 16:
        return f"{order}Q", f"{order}Q", struct.unpack(f"{order}Q", head[8:16])[0]
    return "<I", "<H", 0


def _directories(file: BinaryIO, offset_format: str, count_format: str, start: int) -> Iterator[_Directory]:
    """Follow the chain of directories; the last one has no entries if it reaches beyond the file."""
    order, width, head = offset_format[0], struct.calcsize(offset_format), struct.calcsize(count_format)
    entry = struct.Struct(f"{order}HH{offset_format[1]}{width}s")
    size, seen = file.seek(0, 2), set[int]()
    while start and start not in seen:
        seen.add(start)
        file.seek(start)
        raw = file.read(head)
        count = int(struct.unpack(count_format, raw)[0]) if len(raw) == head else 0
        end = start + head + (count * entry.size + width if len(raw) == head else 0)
        if end > size or len(raw) < head:
            yield _Directory([], end)
            return
        entries = list(entry.iter_unpack(file.read(count * entry.size)))
        start = int(struct.unpack(offset_format, file.read(width))[0])
        yield _Directory(entries, end)
