"""Images as users give them, tensors or data sets, checked to be reflectance and cut into crops."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from ubf_augment.errors import ShapeError
from ubf_augment.radiometry import check_reflectance
from ubf_augment.seeding import derive_seed

Item = tuple[Tensor, Any]
"""An image (C, H, W) and its label as the user gave it."""


class ImageSource:
    """Labelled images read one at a time, by number: a tensor, a list, or a data set.

    Args:
        images: (N, C, H, W), a sequence of (C, H, W), or a data set or iterable of ``{"image": …, "label":
            …}`` or ``(image, label)``.
        labels: one per image, int or str; for data sets those of the items are taken.

    Raises:
        ShapeError: if there are no images, or labels are not one per image.

    >>> source = ImageSource(torch.zeros(2, 3, 4, 4), ["a", "b"])
    >>> len(source), source[1][1], tuple(source[1][0].shape)
    (2, 'b', (3, 4, 4))
    """

    def __init__(self, images: Any, labels: Sequence[int] | Sequence[str] | Tensor | None = None) -> None:
        if isinstance(images, Tensor) and images.ndim != 4:
            raise ShapeError(
                f"images must be (N, C, H, W), got {tuple(images.shape)}: add a batch axis with images[None]"
            )
        if not hasattr(images, "__getitem__") or not hasattr(images, "__len__"):
            images = list(islice(_unbatched(images), 4096))
        if not len(images):
            raise ShapeError("there are no images: give at least one (C, H, W)")
        self.images = images
        self.labels = labels.tolist() if isinstance(labels, Tensor) else labels
        if self.labels is not None and len(self.labels) != len(images):
            raise ShapeError(f"{len(self.labels)} labels for {len(images)} images: give one per image")

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Item:
        return self.parts(self.images[index], index)

    def parts(self, item: Any, index: int) -> Item:
        """Image and label of an item that was read; of a PIL picture, uint8 (3, H, W).

        Args:
            item: what the data set gave.
            index: its number.

        Raises:
            ShapeError: if it holds no image (C, H, W).
        """
        image, label = _parts(item)
        if self.labels is not None:
            label = self.labels[index]
        if hasattr(image, "convert"):
            from torchvision.transforms.functional import pil_to_tensor

            image = pil_to_tensor(image.convert("RGB"))
        if not isinstance(image, Tensor) or image.ndim != 3:
            shape = tuple(getattr(image, "shape", ())) or type(image).__name__
            raise ShapeError(f"image {index} must be a tensor (C, H, W), got {shape}")
        return image, label

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Class names in label order, where the data set (or the one under a Subset) has ``classes``."""
        at: Any = self.images
        while at is not None:
            found = getattr(at, "classes", None)
            if (
                isinstance(found, Sequence)
                and not isinstance(found, str)
                and all(isinstance(c, str) for c in found)
            ):
                return tuple(found)
            at = getattr(at, "dataset", None)
        return None


def _parts(item: Any) -> tuple[Any, Any]:
    if isinstance(item, Tensor):
        return item, None
    if isinstance(item, Mapping):
        if "image" not in item:
            raise ShapeError(f"an item of the data set has no 'image', only {', '.join(map(str, item))}")
        image, label = item["image"], item.get("label")
    elif isinstance(item, tuple | list) and len(item) >= 2:
        image, label = item[0], item[1]
    else:
        return item, None
    if isinstance(label, Tensor) and label.numel() == 1:
        label = label.item()
    return image, label


def _unbatched(items: Iterable[Any]) -> Iterable[Any]:
    """Items one by one, also from a DataLoader."""
    for item in items:
        image, label = _parts(item)
        if isinstance(image, Tensor) and image.ndim == 4:
            labels = label if label is not None else [None] * len(image)
            yield from zip(image, labels, strict=True)
        else:
            yield item


@dataclass(frozen=True)
class Tiles:
    """Crops of images, and the class and image that each comes from.

    Attributes:
        cubes: reflectance (C, h, w) each.
        labels: class id of each, None where unknown.
        image: number of the image each was cut from.
    """

    cubes: tuple[Tensor, ...]
    labels: tuple[int | None, ...]
    image: tuple[int, ...]

    def held_out(self) -> Bool[Tensor, " n"]:
        """One tile in five; whole images if there are at least five, and nothing of fewer than five tiles."""
        images = sorted(set(self.image))
        if len(images) >= 5:
            chosen = set(images[4::5])
            return torch.tensor([i in chosen for i in self.image])
        return torch.arange(len(self.image)) % 5 == 4


def cut_tiles(
    source: ImageSource,
    bands: int,
    resolve: Callable[[int | str | None], int | None] = lambda label: None,
    *,
    max_pixels: int = 200_000,
    seed: int = 0,
    side: int = 64,
) -> Tiles:
    """Draw crops of at most ``max_pixels`` pixels in all, spread over as many images as possible.

    Each image gives one window of its share of the budget, at least 1024 pixels; only as many images are read
    as the budget needs, and where labels are known beforehand the classes take turns.

    Args:
        source: images.
        bands: the number of bands every image must have.
        resolve: label of an item → class id, None for no class.
        max_pixels: budget.
        seed: chooses images and windows.
        side: windows larger than this are cut into tiles of about this side.

    Raises:
        BandCountError, NoDataError, RadiometryError: for images that are no reflectance, see
        `check_reflectance`.

    >>> tiles = cut_tiles(ImageSource(torch.zeros(1, 3, 100, 100)), 3, max_pixels=4096)
    >>> [tuple(t.shape) for t in tiles.cubes]
    [(3, 64, 64)]
    """
    generator = torch.Generator().manual_seed(derive_seed(seed, 17))
    share, left = max(1024, max_pixels // len(source)), max_pixels
    cubes: list[Tensor] = []
    ids: list[int | None] = []
    origin: list[int] = []
    for i in reading_order(source, generator):
        image, label = source[i]
        check_reflectance(image, bands, where=f"image {i}", expected=", one per wavelength")
        crop = _crop(image, min(share, left), generator)
        for row in crop.tensor_split(max(1, round(crop.shape[1] / side)), 1):
            for tile in row.tensor_split(max(1, round(crop.shape[2] / side)), 2):
                cubes.append(tile.detach().cpu().float())
                ids.append(resolve(label))
                origin.append(i)
        left -= crop.shape[1] * crop.shape[2]
        if left < 64:
            break
    return Tiles(tuple(cubes), tuple(ids), tuple(origin))


def reading_order(source: ImageSource, generator: torch.Generator) -> list[int]:
    """Random order of all images; classes take turns where labels are known without reading the images."""
    order: list[int] = torch.randperm(len(source), generator=generator).tolist()
    labels = source.labels if source.labels is not None else getattr(source.images, "targets", None)
    if labels is None or len(labels) != len(source):
        return order
    seen: dict[Any, int] = {}
    turn = {}
    for i in order:
        key = str(labels[i])
        turn[i] = seen[key] = seen.get(key, 0) + 1
    return sorted(order, key=turn.__getitem__)


def _crop(image: Tensor, pixels: int, generator: torch.Generator) -> Tensor:
    """A random window of at most ``pixels`` pixels, as square as the image allows."""
    h, w = image.shape[1:]
    side = max(1, int(pixels**0.5))
    height = min(h, max(side, pixels // max(w, 1)))
    width = min(w, max(1, pixels // max(height, 1)))
    top = int(torch.randint(h - height + 1, (), generator=generator))
    start = int(torch.randint(w - width + 1, (), generator=generator))
    return image[:, top : top + height, start : start + width]
