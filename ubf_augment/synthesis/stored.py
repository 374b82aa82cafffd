"""Images of a fit in its work directory, read when they are needed: memory does not grow with their number."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ubf_augment.files import OnDisk, replacing
from ubf_augment.radiometry import to_reflectance

if TYPE_CHECKING:
    from ubf_augment.synthesis.pictures import Scene


class SceneStore(Sequence["Scene"]):
    """Scenes in a folder, one after the other appended, each read from its file whenever it is asked for.

    Images are mapped, so that a crop reads no more than it needs.

    Args:
        folder: for the files; what it holds goes.
    """

    def __init__(self, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        self.folder = folder
        self._facts: list[dict[str, Any]] = []

    def append(self, scene: Scene) -> None:
        """Write a scene.

        Raises:
            OSError: if the disk is full.
        """
        self._save(len(self), "image", scene.image)
        whole = bool(scene.mask.all())
        if not whole:
            self._save(len(self), "mask", scene.mask)
        self._facts.append(
            {"name": scene.name, "label": scene.label, "meta": scene.meta, "size": scene.mask.shape, "whole": whole}
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self._facts)

    def __getitem__(self, i: Any) -> Any:
        from ubf_augment.synthesis.pictures import Scene

        if isinstance(i, slice):
            return [self[k] for k in range(*i.indices(len(self)))]
        facts = self._facts[i]
        number = range(len(self))[i]
        mask = torch.ones(facts["size"], dtype=torch.bool) if facts["whole"] else self._load(number, "mask")
        return Scene(self._load(number, "image"), mask, facts["name"], facts["label"], facts["meta"])

    def _path(self, i: int, part: str) -> Path:
        return self.folder / f"{i:06d}.{part}.npy"

    def _save(self, i: int, part: str, value: Tensor) -> None:
        with replacing(self._path(i, part), sync=False) as aside, aside.open("wb") as file:
            np.save(file, value.cpu().numpy())

    def _load(self, i: int, part: str) -> Tensor:
        return torch.from_numpy(np.load(self._path(i, part), mmap_mode="c"))


class SceneImages(Sequence[Tensor]):
    """The images (C, H, W) of scenes, as `UnmixingModel.fit` takes them."""

    def __init__(self, scenes: Sequence[Scene]) -> None:
        self._scenes = scenes

    def __len__(self) -> int:
        return len(self._scenes)

    def __getitem__(self, i: Any) -> Any:
        return self._scenes[i].image


class Reflectance(Sequence[Tensor]):
    """Displayed pictures as reflectance (3, H, W), see `to_reflectance`, converted when they are asked for.

    >>> Reflectance(torch.full((2, 3, 1, 1), 255, dtype=torch.uint8), scale=0.5)[1].flatten().tolist()
    [0.5, 0.5, 0.5]
    """

    def __init__(self, images: Tensor | OnDisk, scale: float, gamma: float = 1.0) -> None:
        self._images, self._scale, self._gamma = images, scale, gamma

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, i: Any) -> Any:
        return to_reflectance(self._images[i], self._scale, self._gamma)

    def chunks(self, size: int = 64) -> Iterator[Tensor]:
        """All of them, (n, 3, H, W) at a time."""
        for start in range(0, len(self), size):
            yield self[start : start + size]
