"""A synthesizer small enough for tests: 3 endmembers (one is shade), 5 bands, 3 classes, 8×8 maps."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ubf_augment import simplex
from ubf_augment.generators import AbundanceGenerator
from ubf_augment.mixing import ResidualModel, mix
from ubf_augment.spectra import Endmembers
from ubf_augment.synthesis import HSISynthesizer
from ubf_augment.training import History

NM = (490.0, 560.0, 665.0, 842.0, 1610.0)
CLASSES = ("Field", "Forest", "Lake")
E = Endmembers(
    torch.tensor([[0.3, 0.4, 0.5, 0.6, 0.7], [0.05, 0.15, 0.08, 0.6, 0.3], [0.0, 0.0, 0.0, 0.0, 0.0]]),
    torch.tensor(NM),
    ("soil", "tree", "shade"),
)


class TinyGenerator(AbundanceGenerator):
    """Class k is mostly endmember k, with noise."""

    can_edit = True

    def __init__(self, size: tuple[int, int] = (8, 8), num_classes: int | None = 3) -> None:
        super().__init__(3, size, num_classes)
        self.scale = nn.Parameter(torch.tensor(0.5))

    @property
    def config(self) -> dict[str, Any]:
        return {"size": list(self.size), "num_classes": self.num_classes}

    def _sample(self, y: Tensor | None, n: int, generator: list[torch.Generator], **options: Any) -> Tensor:
        assert not self.training
        noise = torch.stack([torch.randn(3, *self.size, generator=g) for g in generator])
        centre = torch.zeros(n, 3) if y is None else 4.0 * nn.functional.one_hot(y.cpu(), 3).float()
        return simplex.from_logits(
            centre[:, :, None, None].to(self.device) + self.scale * noise.to(self.device)
        )

    def _edit(
        self, a: Tensor, y: Tensor | None, strength: float, generator: list[torch.Generator], **options: Any
    ) -> Tensor:
        return (1 - strength) * a + strength * self._sample(y, len(a), generator)

    def _fit(self, maps: Tensor, labels: Tensor | None, **options: Any) -> History:
        return History()

    def loss(self, maps: Tensor, labels: Tensor | None, generator: torch.Generator) -> Tensor:
        return self.scale.square()


def tiny_synth(
    size: tuple[int, int] = (8, 8), num_classes: int | None = 3, own: bool = False, can_edit: bool = True
) -> HSISynthesizer:
    """Build the synthesizer; ``own`` gives class 0 its own endmembers."""
    generator = TinyGenerator(size, num_classes)
    generator.can_edit = can_edit  # type: ignore[misc]
    residual = ResidualModel(torch.zeros(5), 0.01 * torch.eye(5)[:, :2], torch.full((5,), 0.005), 1.0)
    return HSISynthesizer(
        E,
        generator,
        residual=residual,
        classes=CLASSES if num_classes else (),
        class_endmembers={0: 1.2 * E.spectra} if own else None,
    )


def real_batch(n: int = 12, size: int = 16, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Images that mostly follow the mixing model, and their labels 0, 1, 2, 0, …"""
    g = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % 3
    logits = 3.0 * nn.functional.one_hot(y, 3)[:, :, None, None] + torch.randn(n, 3, size, size, generator=g)
    x = mix(simplex.from_logits(logits), E) + 0.01 * torch.randn(n, 5, size, size, generator=g)
    return x, y
