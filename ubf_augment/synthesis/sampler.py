"""From classes and pictures to abundances to hyperspectral images: the part of `HSISynthesizer` that draws and decodes."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor

from ubf_augment.mixing import decode, mix
from ubf_augment.seeding import Generators, derive_seed, per_sample
from ubf_augment.synthesis.base import Labels
from ubf_augment.synthesis.unmixer import Unmixer

_ABUNDANCES, _RESIDUAL = 0, 1  # independent streams of random numbers of one seed


class Sampler(Unmixer):
    """a ~ p(a | y), x = mix(a, E) + ε; see `HSISynthesizer`."""

    def sample_abundances(
        self,
        y: Labels | None = None,
        *,
        n: int | None = None,
        seed: int | None = None,
        generator: Generators = None,
        **options: Any,
    ) -> Float[Tensor, "b p h w"]:
        """Draw abundance maps.

        With a ``regression`` they are drawn given the colours and classes of the generator's maps.

        Args:
            y: classes (B,); needed if there are classes.
            n: number of maps for a generator without classes, or with a single class.
            seed: makes sample i a function of (seed, i, its class) alone, whatever the batch size.
            generator: instead of a seed; one, or one per sample. It advances by one draw.
            options: of the generator at hand (sampler, number of evaluations, guidance).

        Returns:
            (B, P, H, W) on `device`, a ≥ 0 and Σₚ aₚ = 1.

        Raises:
            MissingLabelError, LabelError, UnknownClassError: for classes missing, out of range, unknown.
        """
        index = None if y is None else self.labels(y)
        if index is not None and n is not None and len(index) == 1:
            index = index.expand(n)
        count = (1 if n is None else n) if index is None else len(index)
        source = _stream(seed, generator, count, _ABUNDANCES)
        self.generator.eval()
        a = self.generator.sample(index, n=count, generator=source, **options)
        if self.regression is None:
            return a
        # The maps are those of pictures: what they leave open is drawn for this sensor.
        r = mix(a, self.map_colours)
        return self.unmix_rgb_reflectance(r, index, source or _unseeded(), pictures=True)

    def sample(
        self,
        y: Labels | None = None,
        *,
        n: int | None = None,
        seed: int | None = None,
        generator: Generators = None,
        residual: bool = True,
        **options: Any,
    ) -> Float[Tensor, "b c h w"]:
        """Draw hyperspectral images: abundances from `sample_abundances`, decoded with the residual model.

        With a seed this equals ``mix(sample_abundances(y, seed=seed), y, residual=True, seed=seed)``.

        Args and Raises as for `sample_abundances`; ``residual=False`` leaves ε out.

        Returns:
            Reflectance (B, C, H, W) on `device`.
        """
        a = self.sample_abundances(y, n=n, seed=seed, generator=generator, **options)
        if y is not None:
            y = self.labels(y).expand(len(a))
        return self.mix(a, y, residual=residual, seed=seed, generator=generator)

    def mix(
        self,
        a: Float[Tensor, "b p h w"],
        y: Labels | None = None,
        *,
        residual: bool = False,
        seed: int | None = None,
        generator: Generators = None,
        out: Float[Tensor, "n c h w"] | None = None,
        rows: Int64[Tensor, " b"] | None = None,
    ) -> Float[Tensor, "n c h w"]:
        """Decode abundances into reflectance, x = Eᵀa + ε; differentiable in a, and values are not clipped.

        Args:
            a: abundances (B, P, H, W).
            y: classes, for their own endmembers where they have some.
            residual: add ε, if the synthesizer has a residual model.
            seed: of ε, per sample.
            generator: of ε, instead of a seed.
            out: images (N, C, H, W) to write into, see `mixing.decode`.
            rows: (B,) which of them.

        Raises:
            ShapeError: if a is not (B, P, H, W), or y has another length, or ``out`` does not fit.
        """
        a, model = a.to(self.device), self.residual if residual else None
        stream = None if model is None else _stream(seed, generator, len(a), _RESIDUAL)
        return decode(a, self.spectra(y), model, stream, out=out, rows=rows)

    def lift(
        self,
        rgb: Shaped[Tensor, "b 3 h w"],
        y: Labels | None = None,
        *,
        residual: bool = True,
        seed: int | None = None,
    ) -> Float[Tensor, "b c h w"]:
        """Displayed RGB pictures as images of this sensor: x = mix(unmix_rgb(rgb), E) + ε.

        With labelled pictures of any kind this gives as many labelled images as there are pictures: to pretrain a network on
        before it sees the few real ones. Bands far from the visible are guessed from colours (see the README's limits); with
        a ``regression`` each picture gets a draw of them.

        Args:
            rgb: as for `unmix_rgb`.
            y: classes of the synthesizer, if the pictures show them.
            residual: add ε, if there is a residual model.
            seed: of ε, and of what the regression draws.

        Returns:
            Reflectance (B, C, H, W) on `device`.

        Raises:
            ShapeError, LabelError: and others, as `unmix_rgb` and `mix`.
        """
        source = None
        if self.regression is not None:
            source = _stream(seed, None, len(rgb), _ABUNDANCES) or _unseeded()
        a = self.unmix_rgb(rgb, y, generator=source, fast=True)
        return self.mix(a, y, residual=residual, seed=seed)


def _stream(seed: int | None, generator: Generators, count: int, stream: int) -> Generators:
    """Random numbers for one purpose: per sample from a seed, or children of generators."""
    if seed is not None:
        if generator is not None:
            raise ValueError("give a seed or a generator, not both")
        return per_sample(derive_seed(seed, stream), range(count))
    if generator is None:
        return None
    if isinstance(generator, torch.Generator):
        return _child(generator)
    if len(generator) != count:
        raise ValueError(f"{len(generator)} generators for {count} samples: give one per sample")
    return [_child(g) for g in generator]


def _unseeded() -> torch.Generator:
    """Random numbers from PyTorch's global state."""
    return torch.Generator().manual_seed(int(torch.randint(2**62, ())))


def _child(generator: torch.Generator) -> torch.Generator:
    drawn = torch.randint(2**62, (), generator=generator, device=generator.device)
    return torch.Generator().manual_seed(derive_seed(int(drawn)))
