"""The stages of `HSISynthesizer.fit`, each a function of its own, resumable through a work directory.

``workdir/unmixing.pt`` and ``workdir/generator.pt`` are checkpoints of the training loops,
``workdir/maps.npz`` holds the abundance maps (uint8) with a fingerprint of what they were made from.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import time
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from ubf_augment.generators import AbundanceGenerator, get_generator
from ubf_augment.metrics import rmse
from ubf_augment.mixing import mix
from ubf_augment.radiometry import to_reflectance
from ubf_augment.seeding import per_sample, seeded
from ubf_augment.spectra import Endmembers, Wavelengths, rgb_bands, sees_infrared
from ubf_augment.synthesis.base import SynthesizerParts
from ubf_augment.synthesis.figures import gamut_table, reconstruction, residual_model
from ubf_augment.synthesis.infrared import learn_regression
from ubf_augment.synthesis.pictures import (
    Pictures,
    PictureSet,
    Scene,
    read_pictures,
    read_scenes,
    scene_tiles,
)
from ubf_augment.training import History, make_fabric
from ubf_augment.unmixing import (
    LeastSquares,
    RGBRegression,
    UnmixingModel,
    fcls,
    refine,
    scale_materials,
    vca,
    with_shade,
)
from ubf_augment.unmixing.regression import log_colours

if TYPE_CHECKING:
    from lightning.fabric import Fabric

    from ubf_augment.io import HSI

S = TypeVar("S", bound=SynthesizerParts)
_CHUNK = 32


@dataclass(frozen=True)
class FitSettings:
    """Settings of `HSISynthesizer.fit`.

    Attributes:
        num_endmembers: P, shade included.
        size: height and width of the maps.
        wavelengths: band centres to work on, in nm; those of the first HSI by default.
        restarts: seeds of VCA that are tried; the one that reconstructs the HSIs best is kept.
        refine_iterations: alternations that refine them, see `unmixing.refine`.
        pull: weight that keeps the endmember simplex small, see `unmixing.refine`.
        unmixing_steps: steps of the encoders; 0 for none: exact least squares unmixes, E is not refined further, and pictures
            get infrared by `unmixing.RGBRegression` where the HSIs show it.
        unmixing_config: further arguments of `UnmixingModel`.
        unmixing_options: further arguments of `UnmixingModel.fit`.
        conditional_rgb: the RGB encoder takes the scene class.
        rgb_scale: reflectance of white in RGB pictures; by default such that the 99th percentile of their
            brightness is that of the HSIs.
        rgb_gamma: exponent of their display curve.
        zoom: pictures are shrunk to ``zoom`` times the map size before they are cropped to it.
        crops: windows per picture.
        include_hsis: the generator also learns the HSIs' own abundances (the fusion).
        generator: name, see `list_generators`.
        generator_steps: steps of the generator.
        generator_batch_size: maps per step.
        generator_config: further arguments of its constructor.
        generator_options: further arguments of its ``fit``.
        residual_rank: rank of the residual model.
        seed: of everything.
    """

    num_endmembers: int = 6
    size: tuple[int, int] = (64, 64)
    wavelengths: Sequence[float] | None = None
    restarts: int = 4
    refine_iterations: int = 150
    pull: float = 1e-3
    unmixing_steps: int = 1500
    unmixing_config: Mapping[str, Any] = field(default_factory=dict)
    unmixing_options: Mapping[str, Any] = field(default_factory=dict)
    conditional_rgb: bool = False
    rgb_scale: float | None = None
    rgb_gamma: float = 1.0
    zoom: float = 1.0
    crops: int = 1
    include_hsis: bool = True
    generator: str = "ddpm"
    generator_steps: int = 20_000
    generator_batch_size: int = 32
    generator_config: Mapping[str, Any] = field(default_factory=dict)
    generator_options: Mapping[str, Any] = field(default_factory=dict)
    residual_rank: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what no stage could work with.

        Raises:
            ValueError: if there is no room for a material beside shade, or options of encoders that are not trained.
        """
        if self.unmixing_steps == 0 and (
            self.conditional_rgb or self.unmixing_config or self.unmixing_options
        ):
            raise ValueError(
                "unmixing_steps=0 trains no encoders, so conditional_rgb, unmixing_config and unmixing_options have no use: "
                "leave them out, or give steps"
            )
        if self.num_endmembers < 2:
            raise ValueError(
                f"num_endmembers={self.num_endmembers}: shade is one of them, so give at least 2 (5 to 8 are usual)"
            )


def run(
    cls: type[S],
    hsis: Sequence[HSI | tuple[Tensor, Wavelengths]],
    rgb: Pictures | None,
    settings: FitSettings,
    *,
    hsi_labels: Sequence[str | None] | None = None,
    workdir: Path | None = None,
    fabric: Fabric | None = None,
    progress: bool = True,
    card: Mapping[str, Any] | None = None,
) -> S:
    """See `HSISynthesizer.fit`."""
    start = time.monotonic()
    fabric = make_fabric() if fabric is None else fabric
    if workdir is not None:
        workdir.mkdir(parents=True, exist_ok=True)
    scenes, nm = read_scenes(hsis, hsi_labels, settings.wavelengths)
    pictures = read_pictures(rgb, settings.size, zoom=settings.zoom, crops=settings.crops, seed=settings.seed)
    classes = class_names(scenes, pictures, settings.include_hsis)
    scale = settings.rgb_scale or match_brightness(scenes, nm, pictures, settings.rgb_gamma)
    first = initial_endmembers(scenes, nm, pictures, scale, settings)
    unmixing, history = fit_unmixing(
        first, scenes, pictures, scale, classes, settings, workdir=workdir, fabric=fabric, progress=progress
    )
    unmixing.to(fabric.device)
    maps, labels = make_maps(unmixing, scenes, pictures, scale, classes, settings, workdir=workdir)
    unmixing.cpu()
    generator, generated = fit_generator(
        maps, labels, len(classes), settings, workdir=workdir, fabric=fabric, progress=progress
    )
    facts = {
        "settings": asdict(settings),
        "rgb_scale": scale,
        "training": {
            "machine": f"{platform.machine()}, {os.cpu_count()} CPU cores"
            + (f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""),
            "unmixing_seconds": history.seconds,
            "generator_seconds": generated.seconds,
            "maps": len(maps),
            "pictures": len(pictures),
            "hsis": [s.name for s in scenes],
            "seconds_in_all": round(time.monotonic() - start, 1),
        },
        "reconstruction": reconstruction(unmixing, scenes),
        "gamut_coverage": gamut_table(
            unmixing, pictures, scale, settings.rgb_gamma, conditional=settings.conditional_rgb
        ),
    }
    return cls(
        unmixing.endmembers,
        generator,
        unmixing=unmixing if isinstance(unmixing, UnmixingModel | RGBRegression) else None,
        residual=residual_model(unmixing, scenes, settings.residual_rank, pictures=len(pictures) > 0),
        classes=classes,
        rgb_scale=scale,
        rgb_gamma=settings.rgb_gamma,
        card=dict(card or {}) | facts,
    )


def class_names(scenes: Sequence[Scene], pictures: PictureSet, include_hsis: bool = True) -> tuple[str, ...]:
    """Classes of the pictures, then those that only HSIs have (by label, or by the HSI's own name)."""
    names = list(pictures.classes)
    for scene in scenes if include_hsis or not names else ():
        if (name := scene.label or scene.name) not in names:
            names.append(name)
    return tuple(names)


def match_brightness(scenes: Sequence[Scene], nm: Tensor, pictures: PictureSet, gamma: float = 1.0) -> float:
    """Reflectance of white such that bright pictures are as bright as bright HSI pixels.

    One scale for the whole source: the ratio of the 99th percentiles of brightness, the mean of red, green
    and blue.
    """
    if not len(pictures):
        return 1.0
    bands = list(rgb_bands(nm))
    bright = torch.cat([s.pixels[:, bands].mean(1) for s in scenes])
    shown = to_reflectance(pictures.images[:, :, ::2, ::2], 1.0, gamma).mean(1).flatten()
    return _quantile(bright, 0.99) / max(_quantile(shown, 0.99), 1e-6)


def _quantile(values: Tensor, q: float) -> float:
    return float(values[:: max(1, len(values) // 1_000_000)].quantile(q))


def initial_endmembers(
    scenes: Sequence[Scene], nm: Tensor, pictures: PictureSet, scale: float, settings: FitSettings
) -> Endmembers:
    """VCA, exact least squares, and materials made as bright as the sources need; shade comes last."""
    bands = rgb_bands(nm)
    pixels = torch.cat([s.pixels for s in scenes])
    generator = torch.Generator().manual_seed(settings.seed)
    pixels = pixels[torch.randperm(len(pixels), generator=generator)[:20_000]]
    colours = None
    if len(pictures):
        flat = pictures.images.movedim(1, -1).reshape(-1, 3)
        chosen = flat[torch.randint(len(flat), (50_000,), generator=generator)]
        colours = to_reflectance(chosen, scale, settings.rgb_gamma)
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


def fit_unmixing(
    first: Endmembers,
    scenes: Sequence[Scene],
    pictures: PictureSet,
    scale: float,
    classes: tuple[str, ...],
    settings: FitSettings,
    *,
    workdir: Path | None = None,
    fabric: Fabric | None = None,
    progress: bool = True,
) -> tuple[UnmixingModel | LeastSquares, History]:
    """Train both encoders, and the endmembers with them; without steps see `without_encoders`."""
    if settings.unmixing_steps == 0:
        return without_encoders(first, scenes, pictures, scale, classes, settings), History()
    with seeded(settings.seed):
        config: dict[str, Any] = {"num_classes": len(classes) if settings.conditional_rgb else None}
        model = UnmixingModel(first, **(config | dict(settings.unmixing_config)))
    rgb = to_reflectance(pictures.images, scale, settings.rgb_gamma) if len(pictures) else None
    labels = None
    if settings.conditional_rgb:  # the class after the last means "unknown" to the encoder
        known = [classes.index(s.label) if s.label in classes else len(classes) for s in scenes]
        labels = torch.tensor(known)
    history = model.fit(
        [s.image for s in scenes],
        rgb,
        labels=labels,
        rgb_labels=pictures.labels if settings.conditional_rgb and rgb is not None else None,
        steps=settings.unmixing_steps,
        seed=settings.seed,
        fabric=fabric,
        progress=progress,
        checkpoint=None if workdir is None else workdir / "unmixing.pt",
        **settings.unmixing_options,
    )
    return model, history


def without_encoders(
    first: Endmembers,
    scenes: Sequence[Scene],
    pictures: PictureSet,
    scale: float,
    classes: tuple[str, ...],
    settings: FitSettings,
) -> LeastSquares:
    """Exact least squares; where the HSIs see the infrared and give five windows or more, with a regression for pictures."""
    tiles = scene_tiles(scenes, classes)
    if not len(pictures) or not sees_infrared(first.wavelengths) or not tiles.held_out().any():
        return LeastSquares(first)
    model, *_ = learn_regression(
        tiles, first, rgb=rgb_bands(first.wavelengths), num_classes=len(classes), seed=settings.seed
    )
    z = log_colours(to_reflectance(pictures.images, scale, settings.rgb_gamma)).movedim(1, -1).reshape(-1, 3)
    return model.set_pictures(z.mean(0), z.std(0))


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
) -> tuple[UInt8[Tensor, "n p h w"], Tensor]:
    """Unmix every picture, and windows of every HSI: the generator's training set (maps, labels).

    Raises:
        ValueError: if ``workdir`` holds maps of other inputs.
    """
    import numpy as np

    path = None if workdir is None else workdir / "maps.npz"
    mark = _fingerprint(unmixing, scenes, pictures, scale, classes, settings)
    if path is not None and path.exists():
        try:
            with np.load(path) as file:
                stored = {name: file[name] for name in ("fingerprint", "maps", "labels")}
        except (ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
            raise ValueError(
                f"{path} cannot be read ({error}): delete it, and the maps are made anew"
            ) from error
        if str(stored["fingerprint"]) != mark:
            raise ValueError(
                f"{path} was made from other data or settings: delete it, or use another work directory"
            )
        return torch.from_numpy(stored["maps"]), torch.from_numpy(stored["labels"])
    device = unmixing.spectra.device
    maps, labels = [], [pictures.labels]
    for start in range(0, len(pictures), _CHUNK):
        part = slice(start, start + _CHUNK)
        r = to_reflectance(pictures.images[part].to(device), scale, settings.rgb_gamma)
        y = pictures.labels[part].to(device)
        if isinstance(unmixing, RGBRegression):
            rng = per_sample(settings.seed, range(start, start + len(r)))
            a = unmixing.unmix_rgb(r, y if unmixing.num_classes else None, rng, pictures=True)
        else:
            a = unmixing.unmix_rgb(r, y if settings.conditional_rgb else None)
        maps.append(quantise(a).cpu())
    if settings.include_hsis or not len(pictures):
        for scene in scenes:
            found = _scene_maps(unmixing, scene, settings.size)
            maps.append(found)
            labels.append(torch.full((len(found),), classes.index(scene.label or scene.name)))
    out = torch.cat(maps), torch.cat(labels)
    if path is not None:
        aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        with aside.open("wb") as handle:
            np.savez(handle, maps=out[0].numpy(), labels=out[1].numpy(), fingerprint=np.array(mark))
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(aside, path)
    return out


def _scene_maps(unmixing: UnmixingModel | LeastSquares, scene: Scene, size: tuple[int, int]) -> Tensor:
    """Half-overlapping windows of an HSI, unmixed; none if it is smaller than a map."""
    side = max(size)
    windows = scene.windows(side, max(1, side // 2))
    if not len(windows):
        return torch.zeros(0, unmixing.endmembers.num_endmembers, *size, dtype=torch.uint8)
    device = unmixing.spectra.device
    starts = range(0, len(windows), _CHUNK)
    maps = [quantise(unmixing.unmix(windows[i : i + _CHUNK].to(device))).cpu() for i in starts]
    return torch.cat(maps)[..., : size[0], : size[1]]


def _fingerprint(
    unmixing: UnmixingModel | LeastSquares,
    scenes: Sequence[Scene],
    pictures: PictureSet,
    scale: float,
    classes: tuple[str, ...],
    settings: FitSettings,
) -> str:
    digest = hashlib.sha256()
    tensors = [*unmixing.state_dict().values(), *(s.image for s in scenes), pictures.images, pictures.labels]
    for tensor in tensors:
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


def fit_generator(
    maps: UInt8[Tensor, "n p h w"],
    labels: Tensor,
    num_classes: int,
    settings: FitSettings,
    *,
    workdir: Path | None = None,
    fabric: Fabric | None = None,
    progress: bool = True,
) -> tuple[AbundanceGenerator, History]:
    """Train the class-conditional generator on the maps."""
    config = {"num_endmembers": maps.shape[1], "size": tuple(maps.shape[2:]), "num_classes": num_classes}
    generator = get_generator(settings.generator, **(config | dict(settings.generator_config)))
    history = generator.fit(
        maps,
        labels=labels,
        steps=settings.generator_steps,
        batch_size=settings.generator_batch_size,
        seed=settings.seed,
        fabric=fabric,
        checkpoint=None if workdir is None else workdir / "generator.pt",
        progress=progress,
        **settings.generator_options,
    )
    return generator.cpu(), history
