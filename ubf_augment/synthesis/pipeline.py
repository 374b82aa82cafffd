"""The stages of `HSISynthesizer.fit`, each a function of its own, resumable through a work directory.

``workdir/unmixing.pt`` and ``workdir/generator.pt`` are checkpoints of the training loops. Images, pictures and maps lie in
``workdir`` too (scenes/, pictures.npy, maps.npy, maps.npz), so that memory does not grow with their number; images and pictures
are read anew at every start, by the first process. Without a work directory all of it is held in memory.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from ubf_augment.generators import AbundanceGenerator, get_generator
from ubf_augment.seeding import seeded
from ubf_augment.spectra import Endmembers, Wavelengths
from ubf_augment.synthesis.base import SynthesizerParts
from ubf_augment.synthesis.beginning import initial_endmembers, match_brightness
from ubf_augment.synthesis.figures import gamut_table, reconstruction, residual_model
from ubf_augment.synthesis.infrared import without_encoders
from ubf_augment.synthesis.maps import Maps, check_any_map, make_maps
from ubf_augment.synthesis.pictures import Pictures, PictureSet, Scene, read_pictures, read_scenes
from ubf_augment.synthesis.stored import Reflectance, SceneImages
from ubf_augment.training import History, digest, launch, make_fabric, once, together
from ubf_augment.unmixing import LeastSquares, RGBRegression, UnmixingModel

if TYPE_CHECKING:
    from lightning.fabric import Fabric

    from ubf_augment.io import HSI

S = TypeVar("S", bound=SynthesizerParts)


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
            get infrared by `unmixing.RGBRegression` where at least five windows of the HSIs show it.
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
    hsis: Sequence[HSI | tuple[Tensor, Wavelengths]] | Any,
    rgb: Pictures | None,
    settings: FitSettings,
    *,
    hsi_labels: Sequence[str | None] | None = None,
    endmembers: Endmembers | None = None,
    workdir: Path | None = None,
    fabric: Fabric | None = None,
    progress: bool = True,
    card: Mapping[str, Any] | None = None,
) -> S:
    """See `HSISynthesizer.fit`."""
    start = time.monotonic()
    fabric = launch(make_fabric() if fabric is None else fabric)
    scenes, nm, pictures = _read(hsis, hsi_labels, rgb, settings, workdir, fabric)
    check_any_map(scenes, pictures, settings)
    classes = class_names(scenes, pictures, settings.include_hsis)
    if endmembers is not None:
        own = endmembers.wavelengths
        if len(own) != len(nm) or not torch.allclose(own, nm, rtol=0, atol=0.01):
            endmembers = endmembers.resample(nm)
        settings = replace(settings, num_endmembers=endmembers.num_endmembers)

    def begin() -> tuple[float, Endmembers]:
        scale = settings.rgb_scale or match_brightness(scenes, nm, pictures, settings.rgb_gamma)
        found = (
            initial_endmembers(scenes, nm, pictures, scale, settings) if endmembers is None else endmembers
        )
        return scale, found

    scale, first = once(fabric, begin)
    unmixing, history = fit_unmixing(
        first, scenes, pictures, scale, classes, settings, given=endmembers is not None, workdir=workdir, fabric=fabric,
        progress=progress,
    )  # fmt: skip
    unmixing.to(fabric.device)
    maps, labels = make_maps(
        unmixing, scenes, pictures, scale, classes, settings, workdir=workdir, fabric=fabric
    )
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
    }
    gamma = settings.rgb_gamma
    measured: dict[str, Any] = once(
        fabric,
        lambda: {
            "reconstruction": reconstruction(unmixing, scenes),
            "gamut_coverage": gamut_table(unmixing, pictures, scale, gamma),
        },
    )
    return cls(
        unmixing.endmembers,
        generator,
        unmixing=unmixing if isinstance(unmixing, UnmixingModel | RGBRegression) else None,
        residual=once(
            fabric,
            lambda: residual_model(unmixing, scenes, settings.residual_rank, pictures=len(pictures) > 0),
        ),
        classes=classes,
        rgb_scale=scale,
        rgb_gamma=gamma,
        card=dict(card or {}) | facts | measured,
    )


def _read(
    hsis: Sequence[HSI | tuple[Tensor, Wavelengths]],
    hsi_labels: Sequence[str | None] | None,
    rgb: Pictures | None,
    settings: FitSettings,
    workdir: Path | None,
    fabric: Fabric,
) -> tuple[Sequence[Scene], Tensor, PictureSet]:
    """Images, their wavelengths, pictures: in files of the work directory, or in the memory of each process."""
    folder = None if workdir is None else workdir / "scenes"
    file = None if workdir is None else workdir / "pictures.npy"
    get = together if workdir is None else once
    scenes, nm = get(fabric, lambda: read_scenes(hsis, hsi_labels, settings.wavelengths, folder=folder))
    pictures = get(
        fabric,
        lambda: read_pictures(
            rgb, settings.size, zoom=settings.zoom, crops=settings.crops, seed=settings.seed, file=file
        ),
    )
    return scenes, nm, pictures


def class_names(scenes: Sequence[Scene], pictures: PictureSet, include_hsis: bool = True) -> tuple[str, ...]:
    """Classes of the pictures, then those that only HSIs have (by label, or by the HSI's own name)."""
    names = list(pictures.classes)
    for scene in scenes if include_hsis or not names else ():
        if (name := scene.label or scene.name) not in names:
            names.append(name)
    return tuple(names)


def fit_unmixing(
    first: Endmembers,
    scenes: Sequence[Scene],
    pictures: PictureSet,
    scale: float,
    classes: tuple[str, ...],
    settings: FitSettings,
    *,
    given: bool = False,
    workdir: Path | None = None,
    fabric: Fabric | None = None,
    progress: bool = True,
) -> tuple[UnmixingModel | LeastSquares, History]:
    """Train both encoders, and the endmembers with them; without steps see ``infrared.without_encoders``.

    Endmembers that were ``given`` have a checkpoint of their own: work that began with others is not gone on with. Those that
    were found follow from the images, by which a checkpoint is known.
    """
    if settings.unmixing_steps == 0:
        shown = Reflectance(pictures.images, scale, settings.rgb_gamma)
        found = once(
            fabric, lambda: without_encoders(first, scenes, shown, classes=classes, seed=settings.seed)
        )
        return found, History()
    name = f"unmixing-{digest(first.spectra)}" if given else "unmixing"
    with seeded(settings.seed):
        config: dict[str, Any] = {"num_classes": len(classes) if settings.conditional_rgb else None}
        model = UnmixingModel(first, **(config | dict(settings.unmixing_config)))
    rgb = Reflectance(pictures.images, scale, settings.rgb_gamma) if len(pictures) else None
    labels = None
    if settings.conditional_rgb:  # the class after the last means "unknown" to the encoder
        known = [classes.index(s.label) if s.label in classes else len(classes) for s in scenes]
        labels = torch.tensor(known)
    history = model.fit(
        SceneImages(scenes),
        rgb,
        labels=labels,
        rgb_labels=pictures.labels if settings.conditional_rgb and rgb is not None else None,
        steps=settings.unmixing_steps,
        seed=settings.seed,
        fabric=fabric,
        progress=progress,
        checkpoint=None if workdir is None else workdir / f"{name}.pt",
        **settings.unmixing_options,
    )
    return model, history


def fit_generator(
    maps: Maps,
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
