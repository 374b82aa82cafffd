"""Makes the images of every strategy: from the generator, a bank of RGB pictures, or the real images of a batch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ubf_augment import simplex, strategies
from ubf_augment.labels import ClassIndex
from ubf_augment.sources.abundances import AbundanceSource
from ubf_augment.sources.pictures import PictureBank, ReconstructionBank
from ubf_augment.synthesis import HSISynthesizer


@dataclass(frozen=True)
class Draw:
    """The images of a batch that one strategy serves, and its randomness.

    Attributes:
        rows: (n,) their places in the batch.
        classes: (n,) the user's classes, -1 where not given.
        source: (n,) the synthesizer's classes, -1 where unknown.
        batch: (B, C, H, W) the whole batch.
        partners: (B, B) bool, who has whose label.
        rng: generator on the CPU.
    """

    rows: Tensor
    classes: Tensor
    source: Tensor
    batch: Tensor
    partners: Tensor
    rng: torch.Generator

    @cached_property
    def x(self) -> Float[Tensor, "n c h w"]:
        """These images, float32, a copy."""
        return self.batch[self.rows.to(self.batch.device)].float()

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return self.batch.shape[2], self.batch.shape[3]


class ImageSource:
    """Makes synthetic images by any strategy of `UBFAugment`.

    Args:
        synth: the synthesizer.
        scenes: abundance maps of a class, for ``generate``.
        bank: RGB pictures, for ``bank``.
        variation: of the endmembers, for ``vary``.
        strength: of ``edit``.
        residual: add the residual model to whole scenes (``generate``, ``bank``).
    """

    def __init__(
        self,
        synth: HSISynthesizer,
        scenes: AbundanceSource,
        bank: PictureBank | None,
        variation: strategies.SpectralVariation,
        strength: float = 0.5,
        residual: bool = True,
    ) -> None:
        self.synth, self.scenes, self.bank, self.variation = synth.eval(), scenes, bank, variation
        self.strength, self.residual = strength, residual

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

    def make(self, strategy: str, draw: Draw, out: Float[Tensor, "m c h w"], at: Int64[Tensor, " n"]) -> None:
        """Make one synthetic image for each of ``draw``, and write them into images ``at`` of ``out``."""
        if self.synth.device != draw.batch.device:
            self.synth.to(draw.batch.device)
        if any(m.training for m in self.synth.modules()):
            self.synth.eval()
        if strategy == "generate":
            self.generate(draw, out, at)
        elif strategy == "bank":
            self.from_bank(draw, out, at)
        else:
            out[at.to(out.device)] = getattr(self, strategy)(draw).to(out.dtype)

    def generate(self, d: Draw, out: Float[Tensor, "m c h w"], at: Int64[Tensor, " n"]) -> None:
        """New scenes of the classes."""
        a = self.scenes.sample(d.source, d.rng)
        self._decode(simplex.resize(a, d.size), d.source, d.rng, out, at)

    def from_bank(self, d: Draw, out: Float[Tensor, "m c h w"], at: Int64[Tensor, " n"]) -> None:
        """RGB pictures of the classes, unmixed and decoded, or reconstructed (the residual model is not theirs)."""
        assert self.bank is not None
        if isinstance(self.bank, ReconstructionBank):
            drawn = self.bank.draw(d.classes, d.size, self.synth, d.rng)
            out[at.to(out.device)] = drawn.to(out.dtype)
            return
        for known in (True, False):
            rows = ((d.source >= 0) == known).nonzero()[:, 0]
            if len(rows):
                a = self.bank.draw(d.classes[rows], d.size, self.synth, d.rng)
                self._decode(a, d.source[rows] if known else None, d.rng, out, at[rows])

    def edit(self, d: Draw) -> Float[Tensor, "n c h w"]:
        """The images with their abundances partly renewed."""
        a, spectra = self._unmix(d)
        generator = self.synth.generator
        before = simplex.resize(a, generator.size)
        y = None if generator.num_classes is None else d.source
        after = generator.edit(before, y, strength=self.strength, generator=d.rng)
        return strategies.edit(d.x, a, before, after, spectra)

    def fuse(self, d: Draw) -> Float[Tensor, "n c h w"]:
        """The images joined to others of their label."""
        other = strategies.draw_partners(d.partners[d.rows], d.rng).to(d.x.device)
        mask = strategies.draw_masks(len(d.x), d.size, d.rng, d.x.device)
        return strategies.fuse(d.x, d.batch[other].float(), mask)

    def vary(self, d: Draw) -> Float[Tensor, "n c h w"]:
        """The images with varied endmembers, in another light."""
        a, spectra = self._unmix(d)
        gains, light = (g.to(d.x.device) for g in self.variation.draw(len(d.x), a.shape[1], d.rng))
        return strategies.vary(d.x, a, spectra, gains, light)

    def _decode(self, a: Tensor, y: Tensor | None, rng: torch.Generator, out: Tensor, at: Tensor) -> None:
        self.synth.mix(a, y, residual=self.residual, generator=rng, out=out, rows=at)

    def _unmix(self, d: Draw) -> tuple[Tensor, Tensor]:
        """Abundances and endmembers of images; the classes' own endmembers where they exist."""
        synth, known = self.synth, d.source >= 0
        if not synth.class_endmembers or not known.any():
            return synth.unmix(d.x, fast=True), synth.spectra()
        if known.all():
            return synth.unmix(d.x, d.source, fast=True), synth.spectra(d.source)
        a, spectra = synth.unmix(d.x, fast=True), synth.spectra().repeat(len(d.x), 1, 1)
        at, y = known.nonzero()[:, 0].to(d.x.device), d.source[known]
        own = synth.spectra(y).expand(len(y), -1, -1)
        return a.index_copy(0, at, synth.unmix(d.x[at], y, fast=True)), spectra.index_copy(0, at, own)
