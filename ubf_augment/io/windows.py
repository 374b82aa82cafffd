"""Windows of scenes that are too large to be read whole: rasters through rasterio, MATLAB v7.3 through h5py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from ubf_augment.errors import HSIReadError
from ubf_augment.io import headers
from ubf_augment.io.arrays import choose_array
from ubf_augment.io.containers import Damage, hdf5_shapes
from ubf_augment.io.raster import open_raster


@dataclass(frozen=True)
class WindowedScene:
    """A scene on disk, read window by window.

    The file is opened for each window, so that workers of a DataLoader can share the object.

    Attributes:
        path: the file.
        shape: (C, H, W).
        wavelengths: (C,) nm in the order of the file, or None where it names none.
        key: variable of a MATLAB file, or "".
    """

    path: Path
    shape: tuple[int, int, int]
    wavelengths: Float[Tensor, " c"] | None = None
    key: str = ""

    def read(
        self, bands: Sequence[int], top: int, left: int, height: int, width: int
    ) -> Shaped[Tensor, "b h w"]:
        """Stored values (B, H, W) of a window.

        Args:
            bands: 0-based, ascending.
            top: first row.
            left: first column.
            height: rows.
            width: columns.

        Raises:
            IndexError: if the window reaches beyond the scene.
            HSIReadError: if the file cannot be read.
        """
        count, rows, columns = self.shape
        if min(top, left) < 0 or top + height > rows or left + width > columns or max(bands) >= count:
            raise IndexError(
                f"rows {top}–{top + height}, columns {left}–{left + width} lie outside {self.path.name} of {self.shape}"
            )
        if not self.key:
            with open_raster(self.path) as dataset:
                window = ((top, top + height), (left, left + width))
                return torch.from_numpy(dataset.read([b + 1 for b in bands], window=window))
        return torch.from_numpy(self._read_hdf5(bands, slice(top, top + height), slice(left, left + width)))

    def _read_hdf5(self, bands: Sequence[int], rows: slice, columns: slice) -> np.ndarray[Any, Any]:
        import h5py

        whole = list(bands) == list(range(bands[0], bands[-1] + 1))
        with Damage(self.path), h5py.File(self.path) as file:
            found = file[self.key][slice(bands[0], bands[-1] + 1) if whole else list(bands), columns, rows]
        return np.ascontiguousarray(found.swapaxes(1, 2))


def open_windowed(path: Path, key: str | None = None) -> WindowedScene:
    """Look at a scene without reading it: GeoTIFF, ENVI, or MATLAB v7.3 with axes (H, W, C).

    Args:
        path: the file; of ENVI the header or the data.
        key: variable of a MATLAB file; needed where several have three axes.

    Raises:
        HSIReadError: if the file cannot be read, or is a MATLAB file before v7.3, which cannot be read in windows.
    """
    import h5py

    if path.suffix.lower() != ".mat":
        with open_raster(path) as dataset:
            centres, *_ = headers.band_centres(dataset, str(path))
            shape = (dataset.count, dataset.height, dataset.width)
        return WindowedScene(path, shape, None if centres is None else torch.from_numpy(centres))
    if not h5py.is_hdf5(path):
        raise HSIReadError(
            f"{path} is no MATLAB v7.3 file, so that windows cannot be read from it: save it with -v7.3, or as ENVI"
        )
    with Damage(path):
        shapes = hdf5_shapes(path)
    name = choose_array(path, shapes, key, 3)
    if len(shapes[name]) != 3:
        raise HSIReadError(
            f"{path.name}[{name!r}] has shape {shapes[name]}, a scene has three axes (H, W, C)"
        )
    height, width, count = shapes[name]
    return WindowedScene(path, (count, height, width), key=name)
