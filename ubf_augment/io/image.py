"""`HSI` and `read_hsi`: reflectance, wavelengths and valid pixels, whatever the file format."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ubf_augment.errors import HSIReadError, NoDataError, ShapeError
from ubf_augment.io.arrays import SUFFIXES, read_arrays
from ubf_augment.io.raster import read_raster
from ubf_augment.io.reflectance import (
    check_plausible,
    choose_bands,
    filled_in,
    gain_of,
    report_missing,
    to_reflectance,
)
from ubf_augment.io.stored import BandCentres
from ubf_augment.spectra import Sensor, check_wavelengths
from ubf_augment.spectra import sensor as find_sensor

PathLike = str | os.PathLike[str]


@dataclass(frozen=True, eq=False)
class HSI:
    """A hyperspectral image.

    Attributes:
        image: (C, H, W) float32 reflectance, usually within [0, 1]; 0 in every band where ``mask`` is False.
        wavelengths: (C,) float64 band centres in nm, ascending.
        mask: (H, W) bool, True where the pixel is valid in every band.
        meta: plain facts of the file: ``path``, ``dtype``, ``bands`` (0-based indices in the file), and where
            known ``fwhm`` in nm, ``crs`` (WKT), ``transform`` (six numbers a … f of the affine map),
            ``names``.

    Raises:
        ShapeError: if image or mask have the wrong shape.
        BandCountError, WavelengthError: see `ubf_augment.spectra.check_wavelengths`.
        NoDataError: if the image holds NaN or infinite values.

    >>> hsi = HSI(torch.rand(2, 4, 5), torch.tensor([560.0, 665.0]), torch.ones(4, 5, dtype=torch.bool))
    >>> hsi.pixels.shape
    torch.Size([20, 2])
    """

    image: Float[Tensor, "c h w"]
    wavelengths: Float[Tensor, " c"]
    mask: Bool[Tensor, "h w"]
    meta: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the fields against each other."""
        if self.image.ndim != 3:
            raise ShapeError(f"an image must be (C, H, W), got {tuple(self.image.shape)}")
        if self.mask.shape != self.image.shape[1:]:
            raise ShapeError(
                f"the mask is {tuple(self.mask.shape)}, the image {tuple(self.image.shape[1:])} pixels"
            )
        object.__setattr__(self, "wavelengths", check_wavelengths(self.wavelengths, self.image.shape[0]))
        if not torch.isfinite(self.image).all():
            raise NoDataError("the image holds NaN or infinite values: set them to 0 and their mask to False")

    @property
    def pixels(self) -> Float[Tensor, "n c"]:
        """Spectra of the valid pixels (N, C)."""
        return self.image[:, self.mask].T


def read_hsi(
    path: PathLike,
    *,
    scale: float | None = None,
    wavelengths: BandCentres | str | None = None,
    key: str | None = None,
    layout: str = "hwc",
    size: tuple[int, int] | None = None,
    nodata: float | None = None,
    drop_bands: Iterable[int] | Literal["bad"] | None = None,
    sort_bands: bool = False,
    on_nodata: Literal["raise", "mask"] = "raise",
    sensor: Sensor | PathLike | None = None,
) -> HSI:
    """Read a hyperspectral image as float32 reflectance (C, H, W).

    GeoTIFF and ENVI (header or data file; any raster format of GDAL) carry wavelengths, scale and nodata
    themselves, in one of several dialects: ENVI header, band tags, GDAL's IMAGERY domain, band descriptions.
    MATLAB and NumPy files hold bare arrays, described by ``key``, ``layout``, ``wavelengths`` and ``scale``.

    Args:
        path: ``.tif``, ``.hdr`` or its data file, ``.mat`` (v5 and v7.3), ``.npy``, ``.npz``.
        scale: factor from stored values to reflectance, such as ``1 / 10000``; by default the scale and
            offset that the file names. Integers without either are refused.
        wavelengths: one band centre in nm for each band of the file, or the name of a variable of the file.
        key: the variable to read from ``.mat`` or ``.npz``; needed if several could be the image.
        layout: axes of a stored array, in MATLAB's own order for ``.mat``: ``"hwc"``, ``"chw"`` …, or with
            flattened pixels ``"c(wh)"`` (bands × pixels, column-major as MATLAB stores them: h varies
            fastest) or ``"c(hw)"`` (row-major).
        size: (H, W) of a flattened layout.
        nodata: stored value that marks missing data, besides what the file says; NaN and ±∞ always do.
        drop_bands: 0-based bands of the file to leave out; ``"bad"`` for those of its bad band list.
        sort_bands: order the bands by wavelength; otherwise unsorted bands are refused.
        on_nodata: ``"raise"``, or ``"mask"``: a pixel with missing data in any band is 0 in all and False in
            the mask.
        sensor: fills in what neither the call nor the file says: a `spectra.Sensor`, the name of a packaged one, or a CSV
            file. Its bad bands are left out, its scale is for whole numbers, and bands are sorted.

    Returns:
        The image; ``meta["bands"]`` says which band of the file each band is.

    Raises:
        FileNotFoundError: if there is no such file.
        HSIReadError: if the file is unreadable or truncated, or has no such variable (the message lists
            them).
        RadiometryError: for integers without a scale, a scale that multiplies the wrong way, or values that
            are no reflectance.
        WavelengthError: if wavelengths are missing, unsorted or implausible; BandCountError for a wrong
            number.
        NoDataError: for missing data, see ``on_nodata``; always if no valid pixel is left.
        ShapeError: if an array does not fit ``layout`` and ``size``.

    >>> import tempfile
    >>> from ubf_augment.io import write_hsi
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = write_hsi(f"{folder}/a.tif", torch.full((2, 4, 5), 0.25), [560, 665])
    ...     hsi = read_hsi(file)
    >>> hsi.image.shape, hsi.wavelengths.tolist(), float(hsi.image.max())
    (torch.Size([2, 4, 5]), [560.0, 665.0], 0.25)
    """
    path = existing(path)
    if on_nodata not in ("raise", "mask"):
        raise ValueError(f'on_nodata must be "raise" or "mask", got {on_nodata!r}')
    named = wavelengths if isinstance(wavelengths, str) else None
    given = None if isinstance(wavelengths, str) else wavelengths
    if path.suffix.lower() in SUFFIXES:
        stored = read_arrays(path, key, layout, size, named)
    elif key is not None or named is not None:
        raise ValueError(
            f"{path.name} has no named variables: key and named wavelengths are for .mat and .npz"
        )
    else:
        stored = read_raster(path)
    if stored.values.size == 0:
        raise HSIReadError(
            f"{path} holds an empty image of shape {stored.values.shape}: write or download it again"
        )
    if sensor is not None:
        stored = filled_in(stored, find_sensor(sensor), path.name)
        drop_bands, sort_bands = "bad" if drop_bands is None else drop_bands, True
    bands, nm = choose_bands(stored, given, drop_bands, sort_bands, path.name)
    image, mask, empty = to_reflectance(stored, bands, gain_of(stored, scale, path.name), nodata)
    if not mask.all():
        report_missing(mask, empty, on_nodata, path.name)
    check_plausible(image, mask, scale is not None, path.name)
    return HSI(torch.from_numpy(image), nm, torch.from_numpy(mask), stored.metadata(path, bands))


def list_hsi(folder: PathLike, *, recursive: bool = False) -> list[Path]:
    """List the images of a folder that `read_hsi` can read (ENVI by header), sorted.

    Raises:
        FileNotFoundError: if there is no such folder.
        HSIReadError: if it holds no image, or something of such a name that is no file (a broken link, a pipe).

    >>> import tempfile
    >>> from ubf_augment.io import write_hsi
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = write_hsi(f"{folder}/a.img", torch.zeros(1, 2, 2), [560])
    ...     [f.name for f in list_hsi(folder)]
    ['a.hdr']
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder}" + (": it is a file" if folder.exists() else ""))
    suffixes = (".tif", ".tiff", ".hdr", *SUFFIXES)
    found = folder.rglob("*") if recursive else folder.iterdir()
    named = sorted(f for f in found if f.suffix.lower() in suffixes and not f.name.startswith("."))
    files = [existing(f) for f in named if not f.is_dir()]
    if not files:
        within = " or its subfolders" if recursive else ""
        raise HSIReadError(
            f"no hyperspectral image in {folder}{within}: looked for {', '.join(suffixes)}; put them there"
        )
    return files


def existing(path: PathLike) -> Path:
    """The file, which is there.

    Raises:
        HSIReadError: if it is no file.
        FileNotFoundError: if there is none.
    """
    path = Path(path).expanduser()
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise HSIReadError(
            f"the name {path.name!a} is no UTF-8, which GDAL needs: rename the file"
        ) from error
    try:
        if path.is_file():
            return path
        if path.is_dir():
            raise HSIReadError(f"{path} is a folder: read one file of it, list_hsi({str(path)!r}) names them")
        if path.is_symlink() and not path.exists():
            raise HSIReadError(
                f"{path} is a link to {os.readlink(path)}, which is not there: fetch that file, or name it"
            )
        if path.exists():
            raise HSIReadError(
                f"{path} is no file (but a pipe, socket or device): write the image into a file"
            )
        parent = path.parent.is_dir()
    except OSError as error:
        if isinstance(error, HSIReadError):
            raise
        name = str(path) if len(str(path)) < 300 else f"{str(path)[:120]}…{str(path)[-60:]}"
        raise HSIReadError(f"cannot look for {name}: {error.strerror}") from error
    near = f"; the folder {path.parent} exists" if parent else f", nor its folder {path.parent}"
    raise FileNotFoundError(f"no file {path}{near}: check the name")
