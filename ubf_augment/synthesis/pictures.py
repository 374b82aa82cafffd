"""RGB pictures and hyperspectral images as the pipeline uses them: one size, labels, one wavelength grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor
from torch.nn import functional as F

from ubf_augment.errors import MissingLabelError, RadiometryError, ShapeError
from ubf_augment.radiometry import check_reflectance
from ubf_augment.seeding import derive_seed
from ubf_augment.spectra import Wavelengths, check_wavelengths, resample
from ubf_augment.synthesis.imagery import ImageSource, Tiles

if TYPE_CHECKING:
    from ubf_augment.io import HSI

Pictures: TypeAlias = Any
"""Class name → uint8 (N, 3, H, W) or a list of (3, H, W); or a labelled data set with ``classes``."""


@dataclass(frozen=True)
class PictureSet:
    """Labelled RGB pictures of one size.

    Attributes:
        images: (N, 3, H, W) uint8, channels red, green, blue.
        labels: (N,) class index.
        classes: names.
    """

    images: UInt8[Tensor, "n 3 h w"]
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
        c, h, w = self.image.shape
        found = [
            self.image[:, i : i + size, j : j + size]
            for i in range(0, h - size + 1, stride)
            for j in range(0, w - size + 1, stride)
            if bool(self.mask[i : i + size, j : j + size].all())
        ]
        return torch.stack(found) if found else torch.zeros(0, c, size, size)


def read_pictures(
    rgb: Pictures | None, size: tuple[int, int], *, zoom: float = 1.0, crops: int = 1, seed: int = 0
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

    Raises:
        RadiometryError: if pictures are not uint8.
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
    classes, items = _labelled(rgb)
    images, labels = [], []
    for number, (picture, label) in enumerate(items):
        generator = torch.Generator().manual_seed(derive_seed(seed, 23, number))
        images += _windows(_check_picture(picture, classes[label]), size, zoom, crops, generator)
        labels += [label] * crops
    if not images:
        raise ShapeError(
            "there are no RGB pictures: give at least one, or rgb=None for hyperspectral images alone"
        )
    return PictureSet(torch.stack(images), torch.tensor(labels), classes)


def _labelled(rgb: Pictures) -> tuple[tuple[str, ...], Any]:
    if isinstance(rgb, Mapping):
        classes = tuple(str(name) for name in rgb)
        return classes, ((picture, k) for k, name in enumerate(rgb) for picture in rgb[name])
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

    return names, items()


def _check_picture(picture: Tensor, name: str) -> Tensor:
    if picture.ndim != 3 or picture.shape[0] != 3:
        raise ShapeError(f"a picture of class {name!r} must be (3, H, W), got {tuple(picture.shape)}")
    if picture.dtype != torch.uint8:
        raise RadiometryError(
            f"a picture of class {name!r} is {picture.dtype}: give displayed values as uint8, 0 to 255"
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
    hsis: Sequence[HSI | tuple[Tensor, Wavelengths]],
    labels: Sequence[str | None] | None = None,
    wavelengths: Wavelengths | None = None,
) -> tuple[list[Scene], Tensor]:
    """Bring hyperspectral images to one wavelength grid: that of ``wavelengths``, or of the first image.

    Raises:
        ShapeError: if there are no images, or labels are not one per image.
        WavelengthError: if an image does not cover the grid.
        NoDataError, RadiometryError: for images that are no reflectance.

    >>> scenes, nm = read_scenes([(torch.rand(3, 4, 4), [490, 560, 665])], ["field"])
    >>> scenes[0].label, nm.tolist()
    ('field', [490.0, 560.0, 665.0])
    """
    if not len(hsis):
        raise ShapeError("there are no hyperspectral images: give at least one")
    if labels is not None and len(labels) != len(hsis):
        raise ShapeError(
            f"{len(labels)} labels for {len(hsis)} hyperspectral images: give one per image, or None"
        )
    grid = None if wavelengths is None else check_wavelengths(wavelengths)
    scenes = []
    for i, hsi in enumerate(hsis):
        meta: dict[str, Any] = {}
        if isinstance(hsi, tuple):
            image, nm = hsi[0], check_wavelengths(hsi[1], hsi[0].shape[0], f"hyperspectral image {i}")
            mask = torch.ones(image.shape[1:], dtype=torch.bool)
        else:
            image, nm, mask, meta = hsi.image, hsi.wavelengths, hsi.mask, dict(hsi.meta)
        check_reflectance(image, len(nm), where=f"hyperspectral image {i}")
        grid = nm if grid is None else grid
        if len(nm) != len(grid) or not torch.allclose(nm, grid, atol=0.01):
            image = resample(image, nm, grid)
        name = Path(str(meta["path"])).stem if "path" in meta else f"hsi-{i}"
        scenes.append(Scene(image.float(), mask, name, None if labels is None else labels[i], meta))
    assert grid is not None
    return scenes, grid


def scene_tiles(scenes: Sequence[Scene], classes: Sequence[str], side: int = 64) -> Tiles:
    """Windows of scenes without any invalid pixel, of at most ``side`` pixels, with the class of the scene's label.

    >>> scene = Scene(torch.zeros(2, 80, 64), torch.ones(80, 64, dtype=torch.bool), label="field")
    >>> scene_tiles([scene], ("forest", "field")).labels
    (1,)
    """
    cut = []
    for i, scene in enumerate(scenes):
        size = min(side, *scene.image.shape[1:])
        y = classes.index(scene.label) if scene.label in classes else None
        cut += [(window, y, i) for window in scene.windows(size, size)]
    return Tiles(tuple(w for w, *_ in cut), tuple(y for _, y, _ in cut), tuple(i for *_, i in cut))
