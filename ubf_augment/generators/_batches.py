"""The maps of a training run, batch by batch."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ubf_augment.files import OnDisk
from ubf_augment.generators.base import MapGenerator
from ubf_augment.generators.maps import dihedral, num_symmetries

_ON_DEVICE_BYTES = 1 << 32  # larger sets of maps stay where they are and are moved batch by batch
_CHUNK = 256


class Batches:
    """Stored maps (N, P, H, W) and labels (N,) of a fit; gives batches as float32 on the training device.

    Args:
        model: reads stored maps.
        maps: as `MapGenerator.fit` takes them.
        labels: classes, or None.
        device: where the network trains.
        augment: flip and turn each map at random.
    """

    def __init__(
        self,
        model: MapGenerator,
        maps: Tensor | OnDisk,
        labels: Tensor | None,
        device: torch.device,
        augment: bool,
    ) -> None:
        """Move the maps to the device if they are small enough; maps in a file stay there on a CPU."""
        if maps.nbytes <= _ON_DEVICE_BYTES and not (isinstance(maps, OnDisk) and device.type == "cpu"):
            maps = maps[:].to(device)
        self.maps = maps
        self.labels, self.device, self._read = labels, device, model._read
        self.symmetries = num_symmetries(model.size) if augment else 1

    def __call__(self, indices: Tensor, generator: torch.Generator) -> Tensor:
        """Give the maps at ``indices`` (b,), each by a random symmetry."""
        op = torch.randint(self.symmetries, (len(indices),), generator=generator)
        chosen = self.maps[indices if isinstance(self.maps, OnDisk) else indices.to(self.maps.device)]
        return dihedral(self._read(chosen), op).to(self.device)

    def classes(self, indices: Tensor) -> Tensor | None:
        """Give the labels at ``indices``, on the device."""
        return None if self.labels is None else self.labels[indices].to(self.device)

    def sampled(self) -> Iterator[Tensor]:
        """Give batches of at most about 4096 evenly chosen maps, their symmetries in turn."""
        every = torch.arange(0, len(self.maps), max(1, len(self.maps) // 4096))
        for chosen in torch.split(every, _CHUNK):
            part = self.maps[chosen]
            yield dihedral(self._read(part), torch.arange(len(part)) % self.symmetries).to(self.device)
