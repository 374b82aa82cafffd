"""Where a sensor sees the infrared: learn from its images what the infrared can be, given red, green and blue."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from ubf_augment.errors import ShapeError
from ubf_augment.mixing import mix
from ubf_augment.seeding import per_sample
from ubf_augment.spectra import Endmembers
from ubf_augment.synthesis.imagery import Tiles
from ubf_augment.unmixing import RGBRegression, fcls
from ubf_augment.unmixing.regression import log_colours

if TYPE_CHECKING:
    from ubf_augment.synthesis.model import HSISynthesizer

_MAPS = 32  # that show the colours of a generator


def learn_regression(
    tiles: Tiles,
    endmembers: Endmembers,
    *,
    rgb: tuple[int, int, int],
    num_classes: int = 0,
    seed: int = 0,
) -> tuple[RGBRegression, list[Float[Tensor, "p _ _"]], dict[str, Any]]:
    """A regression of the tiles' abundances on their red, green and blue.

    A first one is learned on some images and measured on the others (`Tiles.held_out`): RMSE of what it expects of them, mixed
    again. The one that is returned is learned on all.

    Args:
        tiles: at least five, labelled or not.
        endmembers: E of the tiles' sensor.
        rgb: indices of its red, green and blue band.
        num_classes: K, the number of classes that the labels of the tiles count in.
        seed: see `RGBRegression.fit`.

    Returns:
        The regression, the tiles' abundances by `fcls`, and JSON-able figures.

    Raises:
        ShapeError: if there are too few tiles to hold one out.
    """
    held = tiles.held_out()
    if not held.any():
        raise ShapeError(
            f"{len(tiles.cubes)} images are too few for a regression: give at least five, or cut large ones"
        )
    maps = [fcls(x[None], endmembers)[0] for x in tiles.cubes]
    pictures = [x[list(rgb)] for x in tiles.cubes]
    labelled = any(y is not None for y in tiles.labels)
    unknown = num_classes if labelled else 0
    y = torch.tensor([unknown if k is None or not labelled else k for k in tiles.labels])

    def learn(chosen: Sequence[int]) -> RGBRegression:
        model = RGBRegression(endmembers, rgb_index=rgb, num_classes=unknown or None)
        return model.fit(
            [pictures[i] for i in chosen], [maps[i] for i in chosen], y[list(chosen)],
            scenes=[tiles.image[i] for i in chosen], seed=seed,
        )  # fmt: skip

    trial, squares = learn((~held).nonzero()[:, 0].tolist()), []
    for i in held.nonzero()[:, 0].tolist():
        made = mix(trial.unmix_rgb(pictures[i][None], y[i : i + 1]), endmembers)[0]
        squares.append((made - tiles.cubes[i]).square().flatten(1).double())
    band = torch.cat(squares, 1).mean(1)
    report = {
        "rmse_regression": float(band.mean().sqrt()),
        "rmse_per_band_regression": band.sqrt().tolist(),
    }
    return learn(range(len(maps))), maps, report


@torch.no_grad()
def picture_colours(synth: HSISynthesizer) -> tuple[Float[Tensor, "3"], Float[Tensor, "3"]]:
    """Mean and deviation of log(r + 0.01) in the pictures of a synthesizer, and in its generator's maps, for `set_pictures`.

    The RGB encoder knows those of r from its training, and those of the logarithm follow as for a log-normal r. Without an
    encoder some maps are drawn.
    """
    if isinstance(synth.unmixing, RGBRegression):
        return synth.unmixing.mean[1].cpu(), synth.unmixing.std[1].cpu()
    if synth.unmixing is None:
        k = synth.generator.num_classes
        y = None if k is None else torch.arange(_MAPS) % k
        a = synth.generator.sample(y, n=_MAPS, generator=per_sample(0, range(_MAPS)))
        z = log_colours(mix(a, synth.map_colours)).movedim(1, -1).reshape(-1, 3).cpu()
        return z.mean(0), z.std(0)
    mean, std = (
        v[:3].cpu().float() for v in (synth.unmixing.rgb_encoder.mean, synth.unmixing.rgb_encoder.std)
    )
    # Adding 0.01 moves the mean alone.
    variance = (1 + (std / (mean + 0.01)).square()).log()
    return (mean + 0.01).log() - variance / 2, variance.sqrt()
