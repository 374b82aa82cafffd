"""`open_scene`: a hyperspectral image that is read window by window, for scenes larger than memory."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ubf_augment.errors import HSIReadError, NoDataError
from ubf_augment.io.arrays import SUFFIXES
from ubf_augment.io.image import PathLike, existing
from ubf_augment.io.limits import check_size
from ubf_augment.io.raster import Place, describe, fill, open_raster, reading
from ubf_augment.io.reflectance import check_plausible, choose_bands, filled_in, gain_of, to_reflectance
from ubf_augment.io.stored import Array, BandCentres, Stored
from ubf_augment.spectra import Sensor
from ubf_augment.spectra import sensor as find_sensor

CACHE_BYTES = 256 << 20
"""Blocks that GDAL keeps while a scene is open; its own default is 5 % of the machine's memory."""
_PROBES, _PROBE_SIDE = 5, 16


@dataclass(frozen=True)
class Window:
    """A part of an image: its first row and column, and its size."""

    row: int
    column: int
    height: int
    width: int

    def grow(self, margin: int, size: tuple[int, int]) -> Window:
        """The window with a margin around it, as far as the image reaches.

        >>> Window(0, 6, 4, 4).grow(2, (12, 10))
        Window(row=0, column=4, height=6, width=6)
        """
        top, left = max(0, self.row - margin), max(0, self.column - margin)
        bottom = min(size[0], self.row + self.height + margin)
        right = min(size[1], self.column + self.width + margin)
        return Window(top, left, bottom - top, right - left)

    def within(self, outer: Window) -> tuple[slice, slice]:
        """Where it lies in a larger window, as rows and columns.

        >>> Window(2, 6, 4, 4).within(Window(0, 4, 8, 8))
        (slice(2, 6, None), slice(2, 6, None))
        """
        top, left = self.row - outer.row, self.column - outer.column
        return slice(top, top + self.height), slice(left, left + self.width)

    def __str__(self) -> str:
        rows, columns = self.row + self.height - 1, self.column + self.width - 1
        return f"rows {self.row}–{rows}, columns {self.column}–{columns}"


class Scene:
    """An open image: what `read_hsi` says about it, and its reflectance window by window (see `open_scene`).

    Attributes:
        path: the file.
        size: (H, W).
        block: rows and columns of the blocks that the file is stored in.
        wavelengths: (C,) float64 band centres in nm, ascending.
        meta: as of `HSI`.
        place: CRS, transform, ground control points and RPCs, in rasterio's types.
    """

    def __init__(
        self, path: Path, dataset: Any, stored: Stored, bands: list[int], nm: Tensor, scale: float | None,
        nodata: float | None,
    ) -> None:  # fmt: skip
        self.path, self._dataset, self._stored = path, dataset, stored
        self._bands, self._nodata, self._scaled = bands, nodata, scale is not None
        self.size = (dataset.height, dataset.width)
        self.block: tuple[int, int] = dataset.block_shapes[0]
        self.wavelengths: Float[Tensor, " c"] = nm
        self.place = Place.of(dataset, path)
        self.meta = stored.metadata(path, bands)
        self._gain = gain_of(stored, scale, path.name)

    def read(self, window: Window) -> tuple[Float[Tensor, "c h w"], Bool[Tensor, "h w"]]:
        """Reflectance and valid pixels of a window.

        A pixel with missing data in any band is 0 in all bands and False in the mask.

        Raises:
            HSIReadError: if the file is damaged there, or the window does not fit into memory.
        """
        image, mask, _ = self._read(window)
        return torch.from_numpy(image), torch.from_numpy(mask)

    def _read(self, window: Window) -> tuple[Array, Array, list[int]]:
        from rasterio.windows import Window as Part

        part = Part(window.column, window.row, window.width, window.height)
        itemsize = self._stored.values.itemsize
        check_size(
            (len(self._stored.values), window.height, window.width), itemsize, f"{window} of {self.path}"
        )
        with reading(self.path):
            stored = fill(self._stored, self._dataset, part)
        return to_reflectance(stored, self._bands, self._gain, self._nodata)

    def facts(self) -> dict[str, Any]:
        """JSON-able: changes when the files change, or what is taken from them."""
        stats = {name: os.stat(name) for name in self._dataset.files}
        return {
            "files": {name: [stat.st_size, stat.st_mtime_ns] for name, stat in stats.items()},
            "bands": self._bands,
            "wavelengths": self.wavelengths.tolist(),
            "gain": [values.tolist() for values in self._gain],
            "nodata": self._nodata,
        }

    def check(self) -> None:
        """Look at small windows all over the image: is it reflectance, does every band hold data?

        Raises:
            RadiometryError: if the values are no reflectance.
            NoDataError: if bands hold no data where others do.
        """
        images, masks, empty = [], [], set(self._bands)
        for row in _spread(self.size[0]):
            for column in _spread(self.size[1]):
                height, width = (min(_PROBE_SIDE, n) for n in self.size)
                image, mask, without = self._read(Window(row, column, height, width))
                if len(without) < len(self._bands):
                    empty &= set(without)
                    images.append(image.reshape(len(image), -1))
                    masks.append(mask.ravel())
        if not images:
            return
        if empty:
            found = sorted(empty)
            raise NoDataError(
                f"bands {found} of {self.path.name} hold no data wherever it was looked at: leave them out with "
                f"drop_bands={found}"
            )
        if (mask := np.concatenate(masks)).any():
            check_plausible(np.concatenate(images, 1)[:, None], mask[None], self._scaled, self.path.name)


def _spread(length: int) -> list[int]:
    """Where small windows begin, evenly."""
    room = max(0, length - _PROBE_SIDE)
    return sorted({round(i * room / (_PROBES - 1)) for i in range(_PROBES)})


@contextmanager
def open_scene(
    path: PathLike,
    *,
    scale: float | None = None,
    wavelengths: BandCentres | None = None,
    nodata: float | None = None,
    drop_bands: Iterable[int] | Literal["bad"] | None = None,
    sort_bands: bool = False,
    sensor: Sensor | PathLike | None = None,
) -> Iterator[Scene]:
    """Open a GeoTIFF, ENVI file or other raster without reading it.

    What `read_hsi` says of scale, wavelengths, missing data, bands and their order holds here too; missing pixels are
    always masked. GDAL keeps at most 256 MiB of the file in memory meanwhile.

    Args:
        path: ``.tif``, ``.hdr`` or its data file.
        scale: factor from stored values to reflectance.
        wavelengths: one band centre in nm for each band of the file.
        nodata: stored value that marks missing data, besides what the file says.
        drop_bands: 0-based bands of the file to leave out; ``"bad"`` for those of its bad band list.
        sort_bands: order the bands by wavelength.
        sensor: fills in what neither the call nor the file says, as for `read_hsi`.

    Raises:
        HSIReadError: for MATLAB and NumPy files; further as `read_hsi`.

    >>> import tempfile
    >>> from ubf_augment.io import write_hsi
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = write_hsi(f"{folder}/a.tif", torch.full((2, 4, 5), 0.25), [560, 665])
    ...     with open_scene(file) as scene:
    ...         image, mask = scene.read(Window(1, 2, 3, 2))
    >>> scene.size, image.shape, bool(mask.all())
    ((4, 5), torch.Size([2, 3, 2]), True)
    """
    path = existing(path)
    if path.suffix.lower() in SUFFIXES:
        raise HSIReadError(
            f"{path} cannot be read window by window: read it whole with read_hsi, or write it to GeoTIFF with write_hsi"
        )
    import rasterio

    with rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES), open_raster(path) as dataset:
        stored = describe(dataset, path)
        if sensor is not None:
            stored = filled_in(stored, find_sensor(sensor), path.name)
            drop_bands, sort_bands = "bad" if drop_bands is None else drop_bands, True
        bands, nm = choose_bands(stored, wavelengths, drop_bands, sort_bands, path.name)
        yield Scene(path, dataset, stored, bands, nm, scale, nodata)
