"""Made data for tests of synthesis: a cheap generator, known spectra, images of known abundances."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ubf_augment import seeding, simplex
from ubf_augment.generators import AbundanceGenerator
from ubf_augment.mixing import ResidualModel, mix
from ubf_augment.spectra import Endmembers
from ubf_augment.synthesis import HSISynthesizer
from ubf_augment.training import History

NM = torch.tensor([450.0, 490.0, 560.0, 665.0, 700.0], dtype=torch.float64)
WIDE_NM = torch.tensor([450.0, 490.0, 560.0, 665.0, 700.0, 842.0, 1610.0, 2190.0], dtype=torch.float64)


class Toy(AbundanceGenerator):
    """Softmax of noise plus a pull of class y towards endmember y."""

    def __init__(
        self, num_endmembers: int = 4, size: tuple[int, int] = (8, 8), num_classes: int | None = 3
    ) -> None:
        super().__init__(num_endmembers, size, num_classes)
        self.strength = nn.Parameter(torch.tensor(4.0))

    @property
    def config(self) -> dict[str, Any]:
        return {"num_endmembers": self.num_endmembers, "size": self.size, "num_classes": self.num_classes}

    def _sample(self, y: Tensor | None, n: int, generator: list[torch.Generator], **options: Any) -> Tensor:
        z = seeding.randn((n, self.num_endmembers, *self.size), generator, self.device)
        if y is not None:
            z[torch.arange(n), y] += self.strength
        return simplex.from_logits(z)

    def _fit(self, maps: Tensor, labels: Tensor | None, **options: Any) -> History:
        return History(steps=[options["steps"]], loss=[0.0])

    def loss(self, maps: Tensor, labels: Tensor | None, generator: torch.Generator) -> Tensor:
        return self.strength.square()


def materials(nm: Tensor = NM) -> Endmembers:
    """Soil, leaf, roof and shade: smooth curves, different in red, green and blue."""
    t = (nm.float() - 400) / 1800
    soil = 0.15 + 0.35 * t
    leaf = (
        0.05
        + 0.12 * torch.exp(-(((nm.float() - 560) / 40) ** 2))
        + 0.4 * torch.sigmoid((nm.float() - 720) / 20)
    )
    roof = 0.25 * torch.exp(-(((nm.float() - 480) / 120) ** 2)) + 0.1
    return Endmembers(
        torch.stack([soil, leaf, roof, torch.zeros_like(t)]), nm, ("soil", "leaf", "roof", "shade")
    )


def abundances(n: int, size: int = 16, seed: int = 0, p: int = 4) -> Tensor:
    """Smooth maps on the simplex, every endmember dominant somewhere."""
    generator = torch.Generator().manual_seed(seed)
    coarse = 3 * torch.randn(n, p, 5, 5, generator=generator)
    return simplex.from_logits(nn.functional.interpolate(coarse, (size, size), mode="bicubic"))


def images(n: int = 12, size: int = 16, seed: int = 0, nm: Tensor = WIDE_NM) -> Tensor:
    """Noiseless mixtures of `materials`."""
    return mix(abundances(n, size, seed), materials(nm))


def residual(bands: int = 5) -> ResidualModel:
    """A small residual model."""
    factors = 0.01 * torch.randn(bands, 2, generator=torch.Generator().manual_seed(1))
    return ResidualModel(torch.full((bands,), 0.002), factors, torch.full((bands,), 0.003), 1.5)


def synthesizer(**changes: Any) -> HSISynthesizer:
    """A complete toy synthesizer with three classes."""
    parts: dict[str, Any] = {
        "generator": Toy(),
        "residual": residual(),
        "classes": ["field", "forest", "town"],
    } | changes
    return HSISynthesizer(parts.pop("endmembers", materials()), **parts)
