"""Where images come from at training time: the generator, a bank of RGB pictures, or the real images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from ubf_augment import simplex, strategies
from ubf_augment.errors import RadiometryError, ShapeError, UnknownClassError
from ubf_augment.labels import ClassIndex
from ubf_augment.synthesis import HSISynthesizer


class AbundanceBank:
    """Abundance maps of labelled RGB pictures: unmixed once per class when first needed, kept as uint8.

    Args:
        pictures: class → uint8 (N, 3, H, W), channels R, G, B. A class is one of the user's names, its label,
            or the synthesizer's name for it.
        index: the user's classes.
        known: the synthesizer's class names.

    Raises:
        UnknownClassError: if a key is none of these.
        RadiometryError: if pictures are not uint8.
        ShapeError: if pictures are not (N, 3, H, W) with N ≥ 1.
    """

    def __init__(
        self, pictures: Mapping[str, Tensor] | Mapping[int, Tensor], index: ClassIndex, known: tuple[str, ...]
    ) -> None:
        self._pictures: dict[int, UInt8[Tensor, "n 3 h w"]] = {}
        self._maps: dict[int, UInt8[Tensor, "n p h w"]] = {}
        self._source = index.source.tolist()
        for key, value in pictures.items():
            if not isinstance(value, Tensor) or value.ndim != 4 or value.shape[1] != 3 or not len(value):
                raise ShapeError(f"bank[{key!r}] must be a uint8 tensor (N, 3, H, W) with N ≥ 1")
            if value.dtype != torch.uint8:
                raise RadiometryError(f"bank[{key!r}] is {value.dtype}: give pictures as uint8, 0 to 255")
            labels = self._labels_of(key, index, known)
            if not labels:
                raise UnknownClassError(
                    f"bank has {key!r}, which is neither one of your classes ({', '.join(index.names)}) nor "
                    "one that the synthesizer gives to them"
                )
            for label in labels:
                self._pictures.setdefault(label, value.detach().cpu())

    @staticmethod
    def _labels_of(key: str | int, index: ClassIndex, known: tuple[str, ...]) -> list[int]:
        if isinstance(key, int):
            return [key] if 0 <= key < index.num_classes else []
        if key in index.names:
            return [index.names.index(key)]
        return [k for k, s in enumerate(index.source.tolist()) if s >= 0 and known[s] == key]

    def holds(self, num_classes: int) -> Tensor:
        """(K,) bool: the classes that have pictures."""
        return torch.tensor([k in self._pictures for k in range(num_classes)], dtype=torch.bool)

    def draw(
        self,
        labels: Int64[Tensor, " b"],
        size: tuple[int, int],
        synth: HSISynthesizer,
        generator: torch.Generator,
    ) -> Float[Tensor, "b p h w"]:
        """Draw one picture's abundances per label, resized to ``size``, on the device of ``synth``."""
        drawn = []
        for label in labels.tolist():
            maps = self._unmixed(label, synth)
            i = int(torch.randint(len(maps), (), generator=generator))
            a = simplex.closure(maps[i : i + 1].to(synth.device).float())
            drawn.append(strategies.resize_maps(a, size))
        return torch.cat(drawn)

    def _unmixed(self, label: int, synth: HSISynthesizer) -> Tensor:
        if label not in self._maps:
            pictures, source = self._pictures[label], self._source[label]
            parts = []
            fixed = torch.Generator().manual_seed(
                0
            )  # a probabilistic encoder draws once, the same on every machine
            for chunk in torch.split(pictures, 32):
                y = None if source < 0 else torch.full((len(chunk),), source)
                a = synth.unmix_rgb(chunk.to(synth.device), y, generator=fixed)
                parts.append((a * 255).round().to("cpu", torch.uint8))
            self._maps[label] = torch.cat(parts)
        return self._maps[label]


class Draw(NamedTuple):
    """The images of a batch that one strategy serves, and its randomness.

    Attributes:
        x: (n, C, H, W) float32, these images.
        rows: (n,) their places in the batch.
        classes: (n,) the user's classes, -1 where not given.
        source: (n,) the synthesizer's classes, -1 where unknown.
        batch: (B, C, H, W) the whole batch.
        partners: (B, B) bool, who has whose label.
        rng: generator on the CPU.
    """

    x: Tensor
    rows: Tensor
    classes: Tensor
    source: Tensor
    batch: Tensor
    partners: Tensor
    rng: torch.Generator

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return self.x.shape[2], self.x.shape[3]


class ImageSource:
    """Makes synthetic images by any strategy of `UBFAugment`.

    Args:
        synth: the synthesizer.
        bank: RGB pictures, for ``bank``.
        variation: of the endmembers, for ``vary``.
        strength: of ``edit``.
        residual: add the residual model to whole scenes (``generate``, ``bank``).
        sample_options: options of the generator, for ``generate``.
    """

    def __init__(
        self,
        synth: HSISynthesizer,
        bank: AbundanceBank | None,
        variation: strategies.SpectralVariation,
        strength: float = 0.5,
        residual: bool = True,
        sample_options: Mapping[str, Any] | None = None,
    ) -> None:
        self.synth, self.bank, self.variation, self.strength = synth.eval(), bank, variation, strength
        self.residual, self.sample_options = residual, dict(sample_options or {})

    def impossible(self) -> dict[str, str]:
        """Strategies that cannot work with this synthesizer, and why."""
        generator, why = self.synth.generator, {}
        if generator.num_classes is None:
            why["generate"] = "the generator takes no class, so the label of a scene would be unknown"
        if self.bank is None:
            why["bank"] = "it needs bank={class: RGB pictures}"
        if not generator.can_edit:
            why["edit"] = f"{type(generator).__name__} cannot edit abundance maps"
        return why

    def serves(self, strategy: str, index: ClassIndex) -> Tensor:
        """(K,) bool: the user's classes that a strategy can serve."""
        if strategy == "bank" and self.bank is not None:
            return self.bank.holds(index.num_classes)
        if strategy == "generate" or (strategy == "edit" and self.synth.generator.num_classes is not None):
            return index.source >= 0
        return torch.ones(index.num_classes, dtype=torch.bool)

    def make(self, strategy: str, draw: Draw) -> Float[Tensor, "n c h w"]:
        """Make one synthetic image for each of ``draw``, float32, on the device of its images."""
        if self.synth.device != draw.x.device:
            self.synth.to(draw.x.device)
        if any(m.training for m in self.synth.modules()):
            self.synth.eval()
        made: Tensor = (self.from_bank if strategy == "bank" else getattr(self, strategy))(draw)
        return made

    def generate(self, d: Draw) -> Float[Tensor, "n c h w"]:
        """New scenes of the classes."""
        a = self.synth.sample_abundances(d.source, generator=d.rng, **self.sample_options)
        return self._decode(strategies.resize_maps(a, d.size), d.source, d.rng)

    def from_bank(self, d: Draw) -> Float[Tensor, "n c h w"]:
        """RGB pictures of the classes, unmixed and decoded."""
        assert self.bank is not None
        out = torch.empty_like(d.x)
        for known in (True, False):
            rows = ((d.source >= 0) == known).nonzero()[:, 0]
            if len(rows):
                a = self.bank.draw(d.classes[rows], d.size, self.synth, d.rng)
                out[rows.to(out.device)] = self._decode(a, d.source[rows] if known else None, d.rng)
        return out

    def edit(self, d: Draw) -> Float[Tensor, "n c h w"]:
        """The images with their abundances partly renewed."""
        a, spectra = self._unmix(d)
        generator = self.synth.generator
        before = strategies.resize_maps(a, generator.size)
        y = None if generator.num_classes is None else d.source
        after = generator.edit(before, y, strength=self.strength, generator=d.rng)
        return strategies.edit(d.x, a, before, after, spectra)

    def fuse(self, d: Draw) -> Float[Tensor, "n c h w"]:
        """The images joined to others of their label."""
        other = strategies.draw_partners(d.partners[d.rows], d.rng).to(d.x.device)
        mask = strategies.draw_masks(len(d.x), d.size, d.rng, d.x.device)
        return strategies.fuse(d.x, d.batch[other].float(), mask)

    def vary(self, d: Draw) -> Float[Tensor, "n c h w"]:
        """The images with varied endmembers."""
        a, spectra = self._unmix(d)
        gains = self.variation.draw(len(d.x), a.shape[1], d.rng).to(d.x.device)
        return strategies.vary(d.x, a, spectra, gains)

    def _decode(self, a: Tensor, y: Tensor | None, rng: torch.Generator) -> Tensor:
        residual = self.residual and self.synth.residual is not None
        return self.synth.mix(a, y, residual=residual, generator=rng)

    def _unmix(self, d: Draw) -> tuple[Tensor, Tensor]:
        """Abundances and endmembers of images; the classes' own endmembers where they exist."""
        synth, known = self.synth, d.source >= 0
        if not synth.class_endmembers or not known.any():
            return synth.unmix(d.x), synth.spectra()
        if known.all():
            return synth.unmix(d.x, d.source), synth.spectra(d.source)
        a, spectra = synth.unmix(d.x), synth.spectra().repeat(len(d.x), 1, 1)
        at, y = known.nonzero()[:, 0].to(d.x.device), d.source[known]
        own = synth.spectra(y).expand(len(y), -1, -1)
        return a.index_copy(0, at, synth.unmix(d.x[at], y)), spectra.index_copy(0, at, own)
