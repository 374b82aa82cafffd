"""Real images for a report: windows of equal size, with their classes and where they come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ubf_augment.errors import LabelError, WavelengthError
from ubf_augment.radiometry import check_reflectance
from ubf_augment.seeding import derive_seed
from ubf_augment.spectra import Wavelengths, check_wavelengths
from ubf_augment.synthesis.imagery import ImageSource, reading_order


@dataclass(frozen=True, eq=False)
class RealImages:
    """Windows of real images.

    Attributes:
        images: reflectance (N, C, h, w).
        labels: class of each, an index into ``classes``; None where unknown.
        classes: names; empty if the images have no classes.
        origins: file or number of the image that each window was cut from.
        wavelengths: (C,) band centres in nm.
        total: number of images in the data set.
    """

    images: Float[Tensor, "n c h w"]
    labels: tuple[int | None, ...]
    classes: tuple[str, ...]
    origins: tuple[str, ...]
    wavelengths: Tensor
    total: int

    def of_class(self, k: int | None) -> list[int]:
        """Numbers of the windows of a class."""
        return [i for i, label in enumerate(self.labels) if label == k]


def read_real(
    images: Any,
    *,
    wavelengths: Wavelengths | None = None,
    labels: Any = None,
    size: tuple[int, int] = (64, 64),
    limit: int = 200,
    seed: int = 0,
) -> RealImages:
    """Read windows of up to ``limit`` images; few large images give several windows each.

    Args:
        images: (N, C, H, W), a list of (C, H, W), or a data set of ``{"image": …, "label": …}``, with ``classes``.
        wavelengths: band centres in nm; a data set's own by default.
        labels: one per image, index or name; a data set's items bring theirs.
        size: largest height and width of a window; smaller ones if an image is smaller.
        limit: number of windows.
        seed: chooses the images, classes taking turns.

    Raises:
        WavelengthError: if there are no wavelengths, or another number of bands.
        ShapeError, BandCountError, NoDataError, RadiometryError: for images that are no reflectance.
        LabelError: for a label that is no class index.
    """
    source = ImageSource(images, labels)
    nm = _wavelengths(images, wavelengths)
    order = reading_order(source, torch.Generator().manual_seed(derive_seed(seed, 23)))
    each = -(-limit // len(source))
    windows: list[Tensor] = []
    given: list[int | str | None] = []
    origins: list[str] = []
    for i in order[:limit]:
        image, label = source[i]
        check_reflectance(image, len(nm), where=f"image {i}", expected=", one per wavelength")
        cut = _windows(image.detach().cpu().float(), size, each)
        windows += cut
        given += [label] * len(cut)
        origins += [_origin(source.images, i)] * len(cut)
    h, w = (min(x.shape[axis] for x in windows) for axis in (1, 2))
    classes, index = _classes(source.classes, given)
    return RealImages(
        torch.stack([middle(x, h, w) for x in windows]), index, classes, tuple(origins), nm, len(source)
    )


def middle(x: Float[Tensor, "*batch h w"], height: int, width: int) -> Float[Tensor, "*batch i j"]:
    """The central window.

    >>> middle(torch.arange(16.0).view(4, 4), 2, 2).tolist()
    [[5.0, 6.0], [9.0, 10.0]]
    """
    top, left = (x.shape[-2] - height) // 2, (x.shape[-1] - width) // 2
    return x[..., top : top + height, left : left + width]


def _windows(image: Tensor, size: tuple[int, int], count: int) -> list[Tensor]:
    """The middle of an image; where several are asked for, windows side by side as far as it is large enough."""
    h, w = min(size[0], image.shape[1]), min(size[1], image.shape[2])
    if count == 1:
        return [middle(image, h, w)]
    corners = [
        (r, c) for r in range(0, image.shape[1] - h + 1, h) for c in range(0, image.shape[2] - w + 1, w)
    ]
    return [image[:, r : r + h, c : c + w] for r, c in corners[:count]]


def _wavelengths(images: Any, given: Wavelengths | None) -> Tensor:
    at: Any = images
    while given is None and at is not None:
        given, at = getattr(at, "wavelengths", None), getattr(at, "dataset", None)
    if given is None:
        raise WavelengthError("the real images have no wavelengths: give wavelengths=…, band centres in nm")
    return check_wavelengths(given, where="the real images")


def _origin(images: Any, i: int) -> str:
    """The name of the file, where the data set knows its files."""
    files = getattr(images, "files", None)
    if isinstance(files, Sequence) and len(files) == len(images):
        entry = files[i]
        return str(getattr(entry[0] if isinstance(entry, tuple) else entry, "name", f"image {i}"))
    return f"image {i}"


def _classes(
    names: tuple[str, ...] | None, given: Sequence[int | str | None]
) -> tuple[tuple[str, ...], tuple[int | None, ...]]:
    """Class names in label order, and the labels as indices."""
    texts = sorted({label for label in given if isinstance(label, str)})
    if names is None:
        numbers = [label for label in given if label is not None and not isinstance(label, str)]
        names = (
            tuple(texts)
            if texts
            else tuple(f"class {k}" for k in range(max(map(int, numbers), default=-1) + 1))
        )
    place = {name: k for k, name in enumerate(names)}
    index: list[int | None] = []
    for label in given:
        k = place.get(label, -1) if isinstance(label, str) else label
        if k is not None and not (isinstance(k, int) and 0 <= k < len(names)):
            raise LabelError(
                f"label {label!r} of a real image is none of {len(names)} classes: {', '.join(names)}"
            )
        index.append(k)
    return names, tuple(index)


def same_bands(a: Tensor, b: Tensor) -> bool:
    """Whether two wavelength grids are one: as many bands, none of them more than 1 nm apart."""
    return len(a) == len(b) and float((a - b).abs().max()) <= 1.0
