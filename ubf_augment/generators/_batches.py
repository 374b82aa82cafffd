"""The maps of a training run, batch by batch."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

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
        self, model: MapGenerator, maps: Tensor, labels: Tensor | None, device: torch.device, augment: bool
    ) -> None:
        """Move the maps to the device if they are small enough."""
        self.maps = maps.to(device) if maps.nbytes <= _ON_DEVICE_BYTES else maps
        self.labels, self.device, self._read = labels, device, model._read
        self.symmetries = num_symmetries(model.size) if augment else 1

    def __call__(self, indices: Tensor, generator: torch.Generator) -> Tensor:
        """Give the maps at ``indices`` (b,), each by a random symmetry."""
        op = torch.randint(self.symmetries, (len(indices),), generator=generator)
        return dihedral(self._read(self.maps[indices.to(self.maps.device)]), op).to(self.device)

    def classes(self, indices: Tensor) -> Tensor | None:
        """Give the labels at ``indices``, on the device."""
        return None if self.labels is None else self.labels[indices].to(self.device)

    def sampled(self) -> Iterator[Tensor]:
        """Give batches of at most about 4096 evenly chosen maps, their symmetries in turn."""
        chosen = self.maps[:: max(1, len(self.maps) // 4096)]
        for part in torch.split(chosen, _CHUNK):
            yield dihedral(self._read(part), torch.arange(len(part)) % self.symmetries).to(self.device)
