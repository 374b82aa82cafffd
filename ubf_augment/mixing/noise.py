"""Normal noise read from fixed fields, at random places: many times faster than to draw and filter new numbers."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

_SIZE = 1 << 20  # numbers of a white field


class Noise(NamedTuple):
    """Where the noise of images stands in the fields: smooth noise z in windows, white noise d n in runs.

    A run is one piece of the white field for as many bands as it has room for, so that no two of them share a number.

    Attributes:
        places: (N, R, 2) of the windows, top and left, in 0 … 1.
        length: ℓ of the smooth noise in pixels.
        starts: (N, G) of the runs, in 0 … 1.
        scale: (N, C) deviation of each band, negative where the field is read with the other sign.
    """

    places: Tensor
    length: float
    starts: Tensor
    scale: Tensor

    def smooth(self, height: int, width: int) -> Float[Tensor, "n r h w"]:
        """Read z, every one a window."""
        side = max(1024, 1 << (2 * max(height, width) - 1).bit_length())
        field = smooth_field(side, self.length, str(self.scale.device))
        every = field.as_strided(((side - height) * side + side - width + 1, height, width), (1, side, 1))
        top, left = (
            (self.places[..., i] * (side - size + 1)).long() for i, size in enumerate((height, width))
        )
        found = every.index_select(0, (top * side + left).flatten().to(field.device))
        return found.view(*top.shape, height, width)

    def runs(self, pixels: int) -> Iterator[list[tuple[slice, Float[Tensor, "k m"]]]]:
        """Every run of one image after the other: its bands, and its piece of the field (bands, pixels), a view."""
        bands = self.scale.shape[1]
        step, size = run_length(bands, pixels)
        field = white_field(size, str(self.scale.device))
        parts = [slice(first, min(first + step, bands)) for first in range(0, bands, step)]
        for row in self._begin(size, step * pixels).tolist():
            yield [
                (b, field[s : s + (b.stop - b.start) * pixels].view(-1, pixels))
                for b, s in zip(parts, row, strict=True)
            ]

    def white(self, pixels: int) -> Float[Tensor, "n c m"]:
        """Read d n, (N, C, pixels)."""
        n, bands = self.scale.shape
        step, size = run_length(bands, pixels)
        length = step * pixels
        every = white_field(size, str(self.scale.device)).as_strided((size - length + 1, length), (1, 1))
        found = every.index_select(0, self._begin(size, length).flatten().to(every.device))
        return found.view(n, -1, pixels)[:, :bands] * self.scale[:, :, None]

    def _begin(self, size: int, length: int) -> Tensor:
        return (self.starts * (size - length + 1)).long()


def run_length(bands: int, pixels: int) -> tuple[int, int]:
    """Bands of a run, and the size of the field, at least twice as large.

    >>> run_length(59, 64 * 64), run_length(59, 128 * 128), run_length(3, 1024 * 1024)
    ((59, 1048576), (32, 1048576), (1, 2097152))
    """
    step = min(bands, max(1, _SIZE // (2 * max(1, pixels))))
    return step, max(_SIZE, 1 << (2 * pixels - 1).bit_length())


@lru_cache(maxsize=4)
def white_field(size: int, device: str) -> Float[Tensor, " s"]:
    """White normal numbers of mean 0 and deviation 1, the same in every process."""
    return _standardised(torch.randn(size, generator=_rng(0), dtype=torch.float64), device)


@lru_cache(maxsize=4)
def smooth_field(side: int, length: float, device: str) -> Float[Tensor, "s s"]:
    """A normal field of autocorrelation exp(−r² / (2 ℓ²)), mean 0 and deviation 1, the same in every process.

    White noise is filtered by the root of the field's spectrum, on a torus.
    """
    x = torch.randn(side, side, generator=_rng(1), dtype=torch.float64)
    if length > 0:
        r = torch.arange(side, dtype=torch.float64)
        r = torch.minimum(r, side - r)
        root = torch.fft.fft(torch.exp(-r.square() / (2 * length**2))).real.clamp_min(0).sqrt()
        x = torch.fft.ifft2(torch.fft.fft2(x) * root[:, None] * root).real
    return _standardised(x, device)


def _rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _standardised(x: Tensor, device: str) -> Tensor:
    return ((x - x.mean()) / x.std()).float().to(device)
