"""How a scene is cut: windows that fit into memory and into the blocks of its file."""

from __future__ import annotations

from collections.abc import Sequence

from ubf_augment.io import Window

_VALUES = 1 << 25
"""Bands × pixels of a window: 192 MiB as int16 and float32."""
_PIXELS = 1 << 18
_SMALLEST_STRIP = 32
_TILE = 128
_TILE_PIXELS = 1 << 16


def windows_of(size: tuple[int, int], block: tuple[int, int], bands: int, margin: int) -> list[Window]:
    """Windows that cover an image row by row.

    Strips as wide as the image where the file is stored so (every block is then unpacked once), else squares of whole blocks.

    Args:
        size: (H, W) of the image.
        block: rows and columns of a block of the file.
        bands: C.
        margin: pixels read around a window, which a strip must be worth.

    >>> windows_of((100, 1000), (1, 1000), 200, 4)[0]
    Window(row=0, column=0, height=100, width=1000)
    >>> windows_of((5000, 4000), (256, 256), 200, 0)[1]
    Window(row=0, column=256, height=256, width=256)
    """
    height, width = size
    pixels = max(1024, min(_PIXELS, _VALUES // bands))
    rows = pixels // width
    if block[1] >= width and rows >= max(_SMALLEST_STRIP, 4 * margin):
        rows = rows // block[0] * block[0] or rows
        return split(Window(0, 0, height, width), (rows, width))
    side = int(pixels**0.5)
    sides = [max(side // b * b, 16) if b <= side else side for b in block]
    return split(Window(0, 0, height, width), (sides[0], sides[1]))


def tiles_of(window: Window, margin: int) -> list[Window]:
    """Parts of a window that are unmixed at once: squares if neighbours are looked at, else of so many pixels.

    >>> len(tiles_of(Window(0, 0, 41, 4000), 0)), len(tiles_of(Window(0, 0, 41, 4000), 4))
    (3, 32)
    """
    return split(window, _TILE if margin else (window.height, max(1, _TILE_PIXELS // window.height)))


def split(window: Window, sides: int | Sequence[int]) -> list[Window]:
    """Cut a window into parts of at most so many rows and columns.

    >>> split(Window(0, 0, 3, 2), 2)
    [Window(row=0, column=0, height=2, width=2), Window(row=2, column=0, height=1, width=2)]
    """
    high, wide = (sides, sides) if isinstance(sides, int) else sides
    return [
        Window(row, column, min(high, window.row + window.height - row), min(wide, window.column + window.width - column))
        for row in range(window.row, window.row + window.height, high)
        for column in range(window.column, window.column + window.width, wide)
    ]  # fmt: skip
