"""Where a sensor sees the infrared: learn from its images what the infrared can be, given red, green and blue."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from ubf_augment.errors import ShapeError
from ubf_augment.mixing import mix
from ubf_augment.seeding import per_sample
from ubf_augment.spectra import Endmembers, rgb_bands, sees_infrared
from ubf_augment.synthesis.imagery import Tiles
from ubf_augment.unmixing import LeastSquares, RGBRegression, UnmixingModel, fcls
from ubf_augment.unmixing.regression import describe

if TYPE_CHECKING:
    from ubf_augment.synthesis.model import HSISynthesizer
    from ubf_augment.synthesis.pictures import Scene
    from ubf_augment.synthesis.stored import Reflectance

_MAPS = 16  # that show the textures of a generator
_VALUES = 1 << 26  # of the HSIs of a fit, in memory together


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


def without_encoders(
    endmembers: Endmembers,
    scenes: Sequence[Scene],
    pictures: Reflectance,
    *,
    classes: Sequence[str] = (),
    seed: int = 0,
) -> LeastSquares:
    """What unmixes where nothing is trained: exact least squares, for pictures with a regression if it can be learned.

    It can where the scenes see the infrared and give at least five windows without gaps.

    Args:
        endmembers: E.
        scenes: HSIs on the bands of E; their images may lie in files.
        pictures: that are to be unmixed.
        classes: in which the scenes' labels count.
        seed: of the windows that are taken from many, and of the regression.
    """
    if not len(pictures) or not sees_infrared(endmembers.wavelengths):
        return LeastSquares(endmembers)
    tiles = scene_tiles(scenes, classes, seed=seed)
    if not tiles.held_out().any():
        return LeastSquares(endmembers)
    rgb = rgb_bands(endmembers.wavelengths)
    model, *_ = learn_regression(tiles, endmembers, rgb=rgb, num_classes=len(classes), seed=seed)
    return model.set_pictures(*statistics(pictures.chunks()))


def scene_tiles(scenes: Sequence[Scene], classes: Sequence[str], *, seed: int = 0) -> Tiles:
    """Windows of scenes without invalid pixels, and the classes of their labels; no more than 256 MiB of them, by chance.

    >>> from ubf_augment.synthesis.pictures import Scene
    >>> scene = Scene(torch.zeros(2, 80, 64), torch.ones(80, 64, dtype=torch.bool), label="field")
    >>> scene_tiles([scene], ("forest", "field")).labels
    (1,)
    """
    places = [(i, *place) for i, scene in enumerate(scenes) for place in scene.tiling()]
    order = torch.randperm(len(places), generator=torch.Generator().manual_seed(seed)).tolist()
    cubes: list[Tensor] = []
    labels: list[int | None] = []
    image: list[int] = []
    left = _VALUES
    for i, rows, columns in (places[k] for k in order):
        cube = scenes[i].image[:, rows, columns]
        left -= cube.numel()
        if left < 0 and cubes:
            break
        cubes.append(cube.clone())
        labels.append(classes.index(k) if (k := scenes[i].label) in classes else None)
        image.append(i)
    return Tiles(tuple(cubes), tuple(labels), tuple(image))


def statistics(
    pictures: Iterable[Float[Tensor, "b 3 _ _"]],
) -> tuple[Float[Tensor, "6"], Float[Tensor, "6"]]:
    """Mean and deviation of colours and textures (`describe`) over all pixels of pictures, for `RGBRegression.set_pictures`.

    >>> mean, std = statistics([torch.full((1, 3, 2, 2), 0.09), torch.full((1, 3, 2, 2), 0.99)])
    >>> [round(float(v.exp()), 2) for v in (mean[0], std[0])]  # between 0.1 and 1: a factor of √10 on both sides
    [0.32, 3.16]
    """
    count, total, square = 0, torch.zeros(6, dtype=torch.float64), torch.zeros(6, dtype=torch.float64)
    for r in pictures:
        d = describe(r).double().movedim(1, 0).flatten(1).cpu()
        count, total, square = count + d.shape[1], total + d.sum(1), square + d.square().sum(1)
    mean = total / count
    return mean.float(), (square / count - mean.square()).clamp_min(0).sqrt().float()


@torch.no_grad()
def picture_statistics(synth: HSISynthesizer) -> tuple[Float[Tensor, "6"], Float[Tensor, "6"]]:
    """`statistics` of the pictures of a synthesizer, and of its generator's maps, for `RGBRegression.set_pictures`.

    Some maps are drawn. Mean and deviation of the pictures' colours are known to an RGB encoder from its training, and those of
    the logarithm follow as for a log-normal r.
    """
    if isinstance(synth.unmixing, RGBRegression):
        return synth.unmixing.mean[1].cpu(), synth.unmixing.std[1].cpu()
    k = synth.generator.num_classes
    y = None if k is None else torch.arange(_MAPS) * max(k // _MAPS, 1) % k
    a = synth.generator.sample(y, n=_MAPS, generator=per_sample(0, range(_MAPS)))
    mean, std = statistics([mix(a, synth.map_colours)])
    if isinstance(synth.unmixing, UnmixingModel):
        encoder = synth.unmixing.rgb_encoder
        m, s = (v[:3].cpu().float() for v in (encoder.mean, encoder.std))
        variance = (1 + (s / (m + 0.01)).square()).log()  # adding 0.01 moves the mean alone
        mean[:3], std[:3] = (m + 0.01).log() - variance / 2, variance.sqrt()
    return mean, std
