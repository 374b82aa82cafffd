"""RGB pictures and hyperspectral images as the pipeline uses them: one size, labels, one wavelength grid."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from ubf_augment.errors import MissingLabelError, RadiometryError, ShapeError, WavelengthError
from ubf_augment.files import OnDisk
from ubf_augment.radiometry import check_reflectance
from ubf_augment.seeding import derive_seed
from ubf_augment.spectra import Wavelengths, check_wavelengths, resample
from ubf_augment.synthesis.imagery import ImageSource
from ubf_augment.synthesis.stored import SceneStore

if TYPE_CHECKING:
    from ubf_augment.io import HSI

Pictures: TypeAlias = Any
"""Class name → uint8 (N, 3, H, W) or a list of (3, H, W); or a labelled data set with ``classes``, as those of torchgeo and
torchvision: uint8, floats that hold displayed values in 0…255 or 0…1, or PIL images."""


@dataclass(frozen=True)
class PictureSet:
    """Labelled RGB pictures of one size.

    Attributes:
        images: (N, 3, H, W) uint8, channels red, green, blue; in memory, or in a file.
        labels: (N,) class index.
        classes: names.
    """

    images: UInt8[Tensor, "n 3 h w"] | OnDisk
    labels: Int64[Tensor, " n"]
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class Scene:
    """A hyperspectral image on the common wavelength grid.

    Attributes:
        image: reflectance (C, H, W).
        mask: (H, W) bool, True where valid.
        name: from its file, or a number.
        label: class name, or None.
    """

    image: Tensor
    mask: Tensor
    name: str = ""
    label: str | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)

    @property
    def pixels(self) -> Tensor:
        """Valid spectra (N, C)."""
        return self.image[:, self.mask].T

    def windows(self, size: int, stride: int) -> Tensor:
        """Square crops (n, C, size, size) without any invalid pixel; none if the scene is smaller.

        >>> Scene(torch.zeros(2, 6, 4), torch.ones(6, 4, dtype=torch.bool)).windows(4, 2).shape
        torch.Size([2, 2, 4, 4])
        """
        found = [self.image[:, i : i + size, j : j + size] for i, j in self.corners(size, stride)]
        return torch.stack(found) if found else torch.zeros(0, len(self.image), size, size)

    def tiling(self, side: int = 64) -> list[tuple[slice, slice]]:
        """Rows and columns of square windows beside each other, of ``side``, or what fits between edges and invalid pixels.

        >>> Scene(torch.zeros(2, 6, 4), torch.ones(6, 4, dtype=torch.bool)).tiling()
        [(slice(0, 4, None), slice(0, 4, None))]
        """
        side = min(side, *self.mask.shape)
        while side > 2 and not self.corners(side, side):
            side //= 2
        return [(slice(i, i + side), slice(j, j + side)) for i, j in self.corners(side, side)]

    def corners(self, size: int, stride: int) -> list[tuple[int, int]]:
        """Upper left corners of the `windows`."""
        h, w = self.mask.shape
        return [
            (i, j)
            for i in range(0, h - size + 1, stride)
            for j in range(0, w - size + 1, stride)
            if bool(self.mask[i : i + size, j : j + size].all())
        ]


def read_pictures(
    rgb: Pictures | None,
    size: tuple[int, int],
    *,
    zoom: float = 1.0,
    crops: int = 1,
    seed: int = 0,
    file: Path | None = None,
) -> PictureSet:
    """Bring pictures to one size: shrink the short side to ``zoom`` × the target, then cut ``crops`` windows.

    The first window is central, further ones are random. Pictures are shrunk with antialiasing, never
    enlarged beyond what the target size needs.

    Args:
        rgb: pictures by class.
        size: (H, W) wanted.
        zoom: ≥ 1; 1 keeps the whole scene in view.
        crops: windows per picture.
        seed: of random windows.
        file: where to keep them (.npy), instead of in memory.

    Raises:
        RadiometryError: if pictures are neither uint8 nor displayed values as floats.
        ShapeError: if they are not (3, H, W), or there are none.
        MissingLabelError: if a data set has no classes.

    >>> s = read_pictures({"a": torch.zeros(2, 3, 20, 10, dtype=torch.uint8)}, (8, 8))
    >>> s.images.shape, s.labels.tolist()
    (torch.Size([2, 3, 8, 8]), [0, 0])
    """
    if zoom < 1 or crops < 1:
        raise ValueError(f"zoom and crops must be at least 1, got {zoom} and {crops}")
    if rgb is None:
        return PictureSet(torch.zeros(0, 3, *size, dtype=torch.uint8), torch.zeros(0, dtype=torch.int64), ())
    classes, items, count = _labelled(rgb)
    if not count:
        raise ShapeError(
            "there are no RGB pictures: give at least one, or rgb=None for hyperspectral images alone"
        )
    labels: list[int] = []
    shape = (count * crops, 3, *size)
    images = (
        torch.empty(shape, dtype=torch.uint8) if file is None else OnDisk.create(file, shape, torch.uint8)
    )
    for number, (picture, label) in enumerate(items):
        generator = torch.Generator().manual_seed(derive_seed(seed, 23, number))
        windows = _windows(_check_picture(picture, classes[label]), size, zoom, crops, generator)
        images[len(labels) : len(labels) + crops] = torch.stack(windows)
        labels += [label] * crops
    return PictureSet(images, torch.tensor(labels), classes)


def _labelled(rgb: Pictures) -> tuple[tuple[str, ...], Any, int]:
    """Class names, pairs of picture and label, and how many there are."""
    if isinstance(rgb, Mapping):
        classes = tuple(str(name) for name in rgb)
        pairs = ((picture, k) for k, name in enumerate(rgb) for picture in rgb[name])
        return classes, pairs, sum(len(v) for v in rgb.values())
    source = ImageSource(rgb)
    if (names := source.classes) is None:
        raise MissingLabelError(
            "the data set of RGB pictures has no 'classes': give {class name: pictures}, or a data set that "
            "names them"
        )

    def items() -> Any:
        for i in range(len(source)):
            picture, label = source[i]
            if label is None:
                raise MissingLabelError(
                    f"picture {i} has no label: items must be {{'image': …, 'label': …}} or pairs"
                )
            yield picture, names.index(label) if isinstance(label, str) else int(label)

    return names, items(), len(source)


def _check_picture(picture: Tensor, name: str) -> Tensor:
    """A picture (3, H, W) as uint8; floats of whole numbers up to 255, or of steps of 1/255 up to one, are converted exactly."""
    if picture.ndim != 3 or picture.shape[0] != 3:
        raise ShapeError(f"a picture of class {name!r} must be (3, H, W), got {tuple(picture.shape)}")
    if picture.is_floating_point():
        for factor in (1, 255):  # torchgeo keeps 0…255, torchvision's ToTensor gives 0…1
            values = picture * factor
            whole = values.round()
            if bool(((values - whole).abs() < 1e-3).all()) and bool(((whole >= 0) & (whole <= 255)).all()):
                return whole.to(torch.uint8)
    if picture.dtype != torch.uint8:
        raise RadiometryError(
            f"a picture of class {name!r} is {picture.dtype} and not of displayed values: give uint8 from 0 to 255, or floats "
            "of the same steps (no normalisation, no resizing before)"
        )
    return picture


def _windows(
    picture: Tensor, size: tuple[int, int], zoom: float, crops: int, generator: torch.Generator
) -> list[Tensor]:
    h, w = picture.shape[1:]
    factor = max(size[0] / h, size[1] / w) * zoom
    shape = max(size[0], round(h * factor)), max(size[1], round(w * factor))
    if shape != (h, w):
        small = F.interpolate(
            picture[None].float(), shape, mode="bilinear", antialias=True, align_corners=False
        )
        picture = small[0].round().clamp(0, 255).to(torch.uint8)
    room = shape[0] - size[0], shape[1] - size[1]
    corners = [(room[0] // 2, room[1] // 2)]
    for _ in range(crops - 1):
        i, j = (int(torch.randint(r + 1, (), generator=generator)) for r in room)
        corners.append((i, j))
    return [picture[:, i : i + size[0], j : j + size[1]] for i, j in corners]


def read_scenes(
    hsis: Sequence[HSI | tuple[Tensor, Wavelengths]] | Any,
    labels: Sequence[str | None] | None = None,
    wavelengths: Wavelengths | None = None,
    *,
    folder: Path | None = None,
) -> tuple[Sequence[Scene], Tensor]:
    """Bring hyperspectral images to one wavelength grid: that of ``wavelengths``, or of the first image.

    Args:
        hsis: images; or a data set with ``wavelengths``, or several of them in a list, whose samples have an ``"image"``, and
            perhaps a ``"mask"`` and a ``"label"`` (with ``classes``). Images of a data set without labels make one class of
            the data set's name.
        labels: class of each image, or None; those of a data set are its own.
        wavelengths: of the grid, in nm.
        folder: where to keep them, instead of in memory, see `SceneStore`.

    Raises:
        ShapeError: if there are no images, or labels are not one per image.
        WavelengthError: if an image does not cover the grid.
        NoDataError, RadiometryError: for images that are no reflectance.

    >>> scenes, nm = read_scenes([(torch.rand(3, 4, 4), [490, 560, 665])], ["field"])
    >>> scenes[0].label, nm.tolist()
    ('field', [490.0, 560.0, 665.0])
    """
    parts: Any = [hsis] if _is_data_set(hsis) else hsis  # which may read them one by one
    if not len(hsis):
        raise ShapeError("there are no hyperspectral images: give at least one")
    if labels is not None and len(labels) != len(parts):
        raise ShapeError(
            f"{len(labels)} labels for {len(parts)} hyperspectral images: give one per image, or None"
        )
    grid = None if wavelengths is None else check_wavelengths(wavelengths)
    scenes: list[Scene] | SceneStore = [] if folder is None else SceneStore(folder)
    for k, part in enumerate(parts):
        own = None if labels is None else labels[k]
        for scene, nm in _scenes_of(part, own) if _is_data_set(part) else [_scene_of(part, own, len(scenes))]:
            check_reflectance(scene.image, len(nm), where=f"hyperspectral image {len(scenes)}")
            grid = nm if grid is None else grid
            same = len(nm) == len(grid) and torch.allclose(nm, grid, atol=0.01)
            image = scene.image if same else resample(scene.image, nm, grid)
            scenes.append(replace(scene, image=image.float()))
    if grid is None or not len(scenes):
        raise ShapeError("there are no hyperspectral images: give at least one")
    return scenes, grid


def _is_data_set(hsis: Any) -> bool:
    return isinstance(hsis, Dataset)


def _scene_of(hsi: HSI | tuple[Tensor, Wavelengths], label: str | None, number: int) -> tuple[Scene, Tensor]:
    """One image and its wavelengths."""
    if isinstance(hsi, tuple):
        nm = check_wavelengths(hsi[1], hsi[0].shape[0], f"hyperspectral image {number}")
        return Scene(hsi[0], torch.ones(hsi[0].shape[1:], dtype=torch.bool), f"hsi-{number}", label), nm
    name = Path(str(hsi.meta["path"])).stem if "path" in hsi.meta else f"hsi-{number}"
    return Scene(hsi.image, hsi.mask, name, label, dict(hsi.meta)), hsi.wavelengths


def _scenes_of(data: Any, label: str | None) -> Iterator[tuple[Scene, Tensor]]:
    """The images of a data set and their wavelengths."""
    own: Any = data
    while not hasattr(own, "wavelengths") and hasattr(own, "dataset"):  # a Subset
        own = own.dataset
    if not hasattr(own, "wavelengths"):
        raise WavelengthError(
            f"{type(own).__name__} names no wavelengths: set data.wavelengths to its band centres in nm, or give (image, "
            "wavelengths) pairs"
        )
    nm = check_wavelengths(own.wavelengths, where=type(own).__name__)
    source = ImageSource(data)
    names = source.classes
    for i in range(len(source)):
        sample = data[i]
        image, number = source.parts(sample, i)
        mask = sample.get("mask") if isinstance(sample, Mapping) else None
        if mask is None:
            mask = torch.ones(image.shape[1:], dtype=torch.bool)
        known = names[int(number)] if names is not None and number is not None else type(own).__name__
        yield Scene(image, mask, f"{type(own).__name__} {i}", label or known), nm
