"""Where a fit begins: the brightness of pictures, and the first endmembers."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ubf_augment.files import gather, strided
from ubf_augment.metrics import rmse
from ubf_augment.mixing import mix
from ubf_augment.spectra import Endmembers, rgb_bands
from ubf_augment.synthesis.pictures import PictureSet, Scene
from ubf_augment.synthesis.stored import Reflectance
from ubf_augment.unmixing import fcls, refine, scale_materials, vca, with_shade

if TYPE_CHECKING:
    from ubf_augment.synthesis.pipeline import FitSettings

_PIXELS, _COLOURS = 20_000, 50_000
_PERMUTED = 1 << 22  # more pixels than this are drawn without a permutation of all of them


def match_brightness(scenes: Sequence[Scene], nm: Tensor, pictures: PictureSet, gamma: float = 1.0) -> float:
    """Reflectance of white such that bright pictures are as bright as bright HSI pixels.

    One scale for the whole source: the ratio of the 99th percentiles of brightness, the mean of red, green
    and blue.
    """
    if not len(pictures):
        return 1.0
    bands = list(rgb_bands(nm))
    bright = (s.image[bands][:, s.mask].mean(0) for s in scenes)
    white = Reflectance(pictures.images, 1.0, gamma)
    h, w = pictures.images.shape[2:]
    shown = (r[:, :, ::2, ::2].mean(1).flatten() for r in white.chunks())
    return _quantile(bright, _count(scenes), 0.99) / max(
        _quantile(shown, len(pictures) * -(-h // 2) * -(-w // 2), 0.99), 1e-6
    )


def _quantile(parts: Iterable[Tensor], count: int, q: float) -> float:
    return float(strided(parts, max(1, count // 1_000_000), count).quantile(q))


def _count(scenes: Sequence[Scene]) -> int:
    """Valid pixels of all scenes."""
    return sum(int(s.mask.sum()) for s in scenes)


def initial_endmembers(
    scenes: Sequence[Scene], nm: Tensor, pictures: PictureSet, scale: float, settings: FitSettings
) -> Endmembers:
    """VCA, exact least squares, and materials made as bright as the sources need; shade comes last."""
    bands = rgb_bands(nm)
    generator = torch.Generator().manual_seed(settings.seed)
    pixels = gather((s.pixels for s in scenes), _choose(_count(scenes), _PIXELS, generator))
    colours = None
    if len(pictures):
        h, w = pictures.images.shape[2:]
        index = torch.randint(len(pictures) * h * w, (_COLOURS,), generator=generator)
        parts = (
            r.movedim(1, -1).reshape(-1, 3)
            for r in Reflectance(pictures.images, scale, settings.rgb_gamma).chunks()
        )
        colours = gather(parts, index)
    best: tuple[float, Tensor] | None = None
    for restart in range(settings.restarts):
        start = with_shade(vca(pixels, settings.num_endmembers - 1, seed=settings.seed + restart))
        spectra = refine(pixels, start, shade=True, iterations=settings.refine_iterations, pull=settings.pull)
        spectra = scale_materials(spectra, pixels, colours, bands)
        x = pixels.T[None, :, :, None]
        error = rmse(mix(fcls(x, spectra), spectra), x)
        if best is None or float(error) < best[0]:
            best = float(error), spectra
    assert best is not None
    names = (*(f"material {i + 1}" for i in range(settings.num_endmembers - 1)), "shade")
    return Endmembers(best[1], nm, names)


def _choose(count: int, most: int, generator: torch.Generator) -> Tensor:
    """Numbers of at most so many items, drawn without putting them back."""
    if count <= _PERMUTED:
        return torch.randperm(count, generator=generator)[:most]
    return torch.tensor(random.Random(int(generator.initial_seed())).sample(range(count), most))
