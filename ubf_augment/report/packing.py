"""Images and spectra as text inside a page: PNG, and compressed integers that a browser unpacks again."""

from __future__ import annotations

import base64
import io
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

Bytes = NDArray[np.uint8]
STEP = 2e-4
"""Reflectance of one unit: embedded values are off by at most half of it."""
_LARGEST = 16_383  # units: differences of two of them still fit into 16 bits


@dataclass(frozen=True)
class Grid:
    """Which pixels of a page's images carry their spectra: every ``stride``-th, from ``stride // 2`` on.

    >>> Grid(3).shape(8, 4), Grid(1).shape(8, 4)
    ((3, 1), (8, 4))
    """

    stride: int

    def shape(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns that are kept of an image."""
        return len(range(self.stride // 2, height, self.stride)), len(
            range(self.stride // 2, width, self.stride)
        )

    def __call__(self, x: Tensor) -> Tensor:
        """The kept pixels of (…, H, W)."""
        return x[..., self.stride // 2 :: self.stride, self.stride // 2 :: self.stride]


@dataclass(frozen=True)
class Packed:
    """Spectra, and abundances where there are some, in base64; see `pack`.

    Attributes:
        step: reflectance of one unit.
        grid: the pixels that are in it.
        low, high: lower and upper bytes of the spectra.
        abundances: one byte each, 255 for an abundance of one.
    """

    step: float
    grid: Grid
    low: str
    high: str
    abundances: str

    @property
    def size(self) -> int:
        """Characters in all."""
        return len(self.low) + len(self.high) + len(self.abundances)


def pack(
    images: Sequence[Float[Tensor, "c h w"]],
    maps: Sequence[Float[Tensor, "p h w"] | None],
    room: float,
) -> Packed:
    """Pack the spectra of images into at most ``room`` characters, of all pixels or else of every 2nd, 3rd, ….

    Of each image in turn: units of ``step``, as differences from the band before, signs folded in (0, −1, 1, −2 → 0, 1, 2,
    3), band after band, each as rows of pixels; lower bytes apart from upper bytes; deflated (zlib).

    Args:
        images: reflectance.
        maps: abundances of each; None for an image without.
        room: number of characters.
    """
    largest = max(float(x.abs().max()) for x in images)
    step = STEP if largest <= STEP * _LARGEST else largest / _LARGEST
    shortest = min(min(x.shape[1:]) for x in images)
    stride = 1
    while True:
        grid = Grid(stride)
        units = np.concatenate([_folded(grid(x), step) for x in images])
        shares = [np.rint(255 * grid(a).numpy()).astype(np.uint8).ravel() for a in maps if a is not None]
        packed = Packed(
            step, grid, _deflated(units & 255), _deflated(units >> 8),
            _deflated(np.concatenate(shares)) if shares else "",
        )  # fmt: skip
        if packed.size <= room or stride >= shortest:
            return packed
        stride = min(shortest, max(stride + 1, int(stride * (packed.size / room) ** 0.5)))


def _folded(x: Tensor, step: float) -> NDArray[np.uint16]:
    units = np.rint(x.numpy().astype(np.float64) / step).astype(np.int32)
    change = np.diff(units, axis=0, prepend=0)
    return ((change << 1) ^ (change >> 31)).astype(np.uint16).ravel()


def _deflated(values: NDArray[Any]) -> str:
    return base64.b64encode(zlib.compress(values.astype(np.uint8).tobytes(), 9)).decode()


def picture(shown: Float[NDArray[Any], "h w 3"]) -> str:
    """Displayed red, green, blue in [0, 1] as the address of a PNG."""
    from PIL import Image

    return _address(Image.fromarray(_bytes(shown)))


def map_strip(a: Float[Tensor, "p h w"]) -> str:
    """Abundance maps side by side as the address of one PNG, in viridis from 0 to 1, with transparent gaps."""
    from PIL import Image

    maps = np.rint(254 * np.clip(a.numpy(), 0, 1)).astype(np.uint8)
    gap = np.full((maps.shape[1], max(1, maps.shape[2] // 16)), 255, dtype=np.uint8)
    parts = [part for m in maps for part in (m, gap)][:-1]
    strip = Image.fromarray(np.concatenate(parts, axis=1))
    strip.putpalette(viridis().tobytes())  # a greyscale image becomes one of palette entries
    return _address(strip, transparency=255)


def viridis() -> Bytes:
    """The colours (256, 3) of abundances 0 … 1."""
    from matplotlib import colormaps

    colours: Bytes = np.array(colormaps["viridis"](np.arange(256), bytes=True)[:, :3], dtype=np.uint8)
    return colours


def _bytes(shown: NDArray[Any]) -> Bytes:
    rounded: Bytes = np.rint(255 * np.clip(shown, 0, 1)).astype(np.uint8)
    return rounded


def _address(image: Any, **options: Any) -> str:
    stored = io.BytesIO()
    image.save(stored, "PNG", optimize=True, **options)
    return f"data:image/png;base64,{base64.b64encode(stored.getvalue()).decode()}"
