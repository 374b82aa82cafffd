"""Abundance maps of pictures and scenes: what the generator of a fit learns from.

In a work directory ``maps.npy`` holds them (uint8), and ``maps.npz`` their labels and a fingerprint of what they were made
from; it is written last.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from ubf_augment.errors import ShapeError
from ubf_augment.files import OnDisk, replacing
from ubf_augment.synthesis.pictures import PictureSet, Scene
from ubf_augment.synthesis.stored import Reflectance
from ubf_augment.training import once, share, together
from ubf_augment.unmixing import LeastSquares, UnmixingModel

if TYPE_CHECKING:
    from lightning.fabric import Fabric

    from ubf_augment.synthesis.pipeline import FitSettings

_CHUNK = 32
Maps = UInt8[Tensor, "n p h w"] | OnDisk


def quantise(a: Float[Tensor, "b p h w"]) -> UInt8[Tensor, "b p h w"]:
    """Store abundances in uint8 such that every pixel sums to 255 exactly (largest remainders go up).

    >>> quantise(torch.tensor([1 / 3, 1 / 3, 1 / 3]).view(1, 3, 1, 1)).flatten().tolist()
    [85, 85, 85]
    >>> int(quantise(torch.tensor([0.501, 0.301, 0.198]).view(1, 3, 1, 1)).sum())
    255
    """
    exact = a * 255
    low = exact.floor()
    short = (255 - low.sum(1, keepdim=True)).round()
    order = torch.argsort(exact - low, dim=1, descending=True, stable=True)
    rank = torch.argsort(order, dim=1)
    return torch.where(rank < short, low + 1, low).to(torch.uint8)


@torch.no_grad()
def make_maps(
    unmixing: UnmixingModel | LeastSquares,
    scenes: Sequence[Scene],
    pictures: PictureSet,
    scale: float,
    classes: tuple[str, ...],
    settings: FitSettings,
    *,
    workdir: Path | None = None,
    fabric: Fabric | None = None,
) -> tuple[Maps, Int64[Tensor, " n"]]:
    """Unmix every picture, and windows of every HSI: the generator's training set (maps, labels).

    With a work directory the maps stay in a file, and several processes make a part of them each.

    Raises:
        ValueError: if ``workdir`` holds maps of other inputs.
    """
    used = scenes if settings.include_hsis or not len(pictures) else []
    counts = [_count(s, settings) for s in used]
    names = [classes.index(s.label or s.name) for s in used]
    labels = torch.cat(
        [pictures.labels, torch.tensor(names, dtype=torch.int64).repeat_interleave(torch.tensor(counts, dtype=torch.int64))]
    )  # fmt: skip
    shape = (len(labels), unmixing.endmembers.num_endmembers, *settings.size)

    def work(out: Tensor | OnDisk, rank: int, world: int) -> None:
        jobs = _jobs(unmixing, used, counts, pictures, scale, settings)
        for number, (start, stop, make) in enumerate(jobs):
            if number % world == rank:
                out[start:stop] = make()

    if workdir is None or not len(labels):
        maps = torch.empty(shape, dtype=torch.uint8)
        work(maps, 0, 1)
        return maps, labels
    record, path = workdir / "maps.npz", workdir / "maps.npy"
    mark, done = once(fabric, lambda: _look(record, unmixing, scenes, pictures, scale, classes, settings))
    if not done or not path.exists():
        aside = once(fabric, lambda: OnDisk.create(path.with_name(".maps.npy.tmp"), shape, torch.uint8))
        together(fabric, lambda: work(aside, *share(fabric)))
        once(fabric, lambda: _keep(aside, path, record, labels, mark))
    return OnDisk(path), labels


def check_any_map(scenes: Sequence[Scene], pictures: PictureSet, settings: FitSettings) -> None:
    """Find out before the work whether there will be anything to learn from.

    Raises:
        ShapeError: if there are no pictures, and no scene has room for a window.
    """
    if not len(pictures) and not any(_count(s, settings) for s in scenes):
        side, most = max(settings.size), max((min(s.mask.shape) for s in scenes), default=0)
        raise ShapeError(
            f"no hyperspectral image has {side}×{side} valid pixels in one piece, the largest is {most} pixels wide, and there "
            "are no pictures: the generator would have nothing to learn from. Give a smaller settings.size, or larger images"
        )


def _count(scene: Scene, settings: FitSettings) -> int:
    """Windows of a scene that are unmixed."""
    side = max(settings.size)
    return len(scene.corners(side, max(1, side // 2)))


def _jobs(
    unmixing: UnmixingModel | LeastSquares,
    scenes: Sequence[Scene],
    counts: Sequence[int],
    pictures: PictureSet,
    scale: float,
    settings: FitSettings,
) -> Iterator[tuple[int, int, Callable[[], Tensor]]]:
    """Pieces of work: first and last row, and what makes them. Their size, and so rounding, is the same for all processes."""
    device = unmixing.spectra.device
    rgb = Reflectance(pictures.images, scale, settings.rgb_gamma)

    def of_pictures(part: slice) -> Tensor:
        y = pictures.labels[part].to(device) if settings.conditional_rgb else None
        return quantise(unmixing.unmix_rgb(rgb[part].to(device), y)).cpu()

    def of_scene(k: int) -> Tensor:
        side = max(settings.size)
        windows = torch.split(scenes[k].windows(side, max(1, side // 2)), _CHUNK)
        maps = torch.cat([quantise(unmixing.unmix(x.to(device))).cpu() for x in windows])
        return maps[..., : settings.size[0], : settings.size[1]]

    for start in range(0, len(pictures), _CHUNK):
        stop = min(start + _CHUNK, len(pictures))
        yield start, stop, lambda part=slice(start, stop): of_pictures(part)  # type: ignore[misc]
    start = len(pictures)
    for k, count in enumerate(counts):
        if count:
            yield start, start + count, lambda k=k: of_scene(k)  # type: ignore[misc]
        start += count


def _look(
    record: Path,
    unmixing: UnmixingModel | LeastSquares,
    scenes: Sequence[Scene],
    pictures: PictureSet,
    scale: float,
    classes: tuple[str, ...],
    settings: FitSettings,
) -> tuple[str, bool]:
    """Fingerprint of all that the maps are made from, and whether the record of finished ones has it."""
    mark = _fingerprint(unmixing, scenes, pictures, scale, classes, settings)
    if not record.exists():
        return mark, False
    try:
        with np.load(record) as file:
            stored = str(file["fingerprint"])
    except (ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{record} cannot be read ({error}): delete it, and the maps are made anew"
        ) from error
    if stored != mark:
        raise ValueError(
            f"{record} was made from other data or settings: delete it, or use another work directory"
        )
    return mark, True


def _keep(aside: OnDisk, path: Path, record: Path, labels: Tensor, mark: str) -> None:
    aside.path.replace(path)
    with replacing(record) as other, other.open("wb") as handle:
        np.savez(handle, labels=labels.numpy(), fingerprint=np.array(mark))


def _fingerprint(
    unmixing: UnmixingModel | LeastSquares,
    scenes: Sequence[Scene],
    pictures: PictureSet,
    scale: float,
    classes: tuple[str, ...],
    settings: FitSettings,
) -> str:
    digest = hashlib.sha256()
    shown = (pictures.images[i : i + 256] for i in range(0, len(pictures), 256))
    for tensor in chain(unmixing.state_dict().values(), (s.image for s in scenes), shown, [pictures.labels]):
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    rest = [
        scale,
        settings.rgb_gamma,
        settings.conditional_rgb,
        settings.include_hsis,
        list(settings.size),
        list(classes),
    ]
    digest.update(json.dumps([*rest, [s.label for s in scenes]]).encode())
    return digest.hexdigest()
