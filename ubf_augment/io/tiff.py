"""Whether a TIFF file is complete: libtiff skips tags whose values lie beyond the end of the file."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

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


def needed_bytes(path: Path) -> int:
    """How many bytes the directories of a TIFF file and the values of their tags reach; 0 if it is no TIFF.

    Metadata (wavelengths, scale) may stand behind the pixels; where it is cut off, GDAL reads the image
    without it and says nothing. Pixel data is not looked at: GDAL reports that itself.
    """
    with path.open("rb") as file:
        head = file.read(16)
        order = {b"II": "<", b"MM": ">"}.get(head[:2])
        version = struct.unpack(f"{order}H", head[2:4])[0] if order and len(head) >= 8 else 0
        if version == 42:
            return _walk(file, f"{order}I", f"{order}H", struct.unpack(f"{order}I", head[4:8])[0])
        if version == 43 and len(head) == 16:
            return _walk(file, f"{order}Q", f"{order}Q", struct.unpack(f"{order}Q", head[8:16])[0])
    return 0


def _walk(file: BinaryIO, offset_format: str, count_format: str, start: int) -> int:
    """Follow the chain of directories; returns the largest end, at once if one lies beyond the file."""
    order, width, head = offset_format[0], struct.calcsize(offset_format), struct.calcsize(count_format)
    entry = struct.Struct(f"{order}HH{offset_format[1]}{width}s")
    size, end, seen = file.seek(0, 2), 0, set[int]()
    while start and start not in seen and end <= size:
        seen.add(start)
        file.seek(start)
        if len(raw := file.read(head)) < head:
            return start + head
        count = int(struct.unpack(count_format, raw)[0])
        end = max(end, start + head + count * entry.size + width)
        if end > size:
            return end
        for _tag, kind, number, value in entry.iter_unpack(file.read(count * entry.size)):
            if (length := int(number) * _SIZES.get(kind, 0)) > width:
                end = max(end, int(struct.unpack(offset_format, value)[0]) + length)
        start = int(struct.unpack(offset_format, file.read(width))[0])
    return end
