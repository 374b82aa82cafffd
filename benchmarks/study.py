"""What the benchmarks of generation share: sources split into a training and an unseen side, unmixing, training, judging.

Two pairs of sources: ``chikusei-aid`` (59 visible bands; of a Chikusei block of 128×128 pixels the last columns are
unseen, as many as a map is wide; the others train, but for eight between them where maps are of 32 pixels) and
``eurosat-aid`` (13 bands; six scenes of each class train, six are unseen). AID pictures are split within each class. Everything
that is learned sees the training side only.

A set of generated HSIs is judged twice. *Scenes*: samples of the classes of the unseen AID pictures, in the same numbers,
against these pictures, by features of an ImageNet network of pseudo-RGB at the fixed radiometry of the source; what the
network cannot see is the spectrum. *Spectra*: samples of the classes that the HSIs have, against pixels of unseen HSIs, by the
sliced Wasserstein distance of spectra and by the angle to the nearest real spectrum.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from common import HERE, Journal
from scenes import aid, chikusei, eurosat
from torch import Tensor
from torch.nn import functional as F

from ubf_augment import Endmembers, UnmixingModel, get_generator, metrics, mix
from ubf_augment.generators import AbundanceGenerator
from ubf_augment.plotting.parts import finish
from ubf_augment.seeding import derive_seed, per_sample
from ubf_augment.synthesis import pipeline
from ubf_augment.synthesis.pictures import read_pictures, read_scenes
from ubf_augment.training import make_fabric

WHOLE = 100  # AID classes with fewer pictures than this are left out
RADIOMETRY = {"chikusei-aid": (0.45, 1.5), "eurosat-aid": (0.40, 1.5)}  # scale, gamma of AID pictures
CODED: dict[str, dict[str, Any]] = {  # the packaged bundles' kind of code and network, by preset
    "quick": {
        "codec": "latent",
        "latent_channels": 16,
        "codec_widths": [24, 48],
        "whiten": 0.25,
        "widths": [48, 96],
    },
    "full": {
        "codec": "latent",
        "latent_channels": 24,
        "codec_widths": [48, 96],
        "whiten": 0.25,
        "widths": [96, 192, 256],
    },
}
DECODER_STEPS = {"quick": 200, "full": 3000}


def options(parser: ArgumentParser) -> None:
    """Add what all of these benchmarks take."""
    parser.add_argument(
        "--sources", choices=sorted(RADIOMETRY), default="chikusei-aid", help="HSIs and RGB pictures"
    )
    parser.add_argument(
        "--steps", type=int, help="training steps of each generator; by the preset if not given"
    )
    parser.add_argument("--accelerator", default="auto", help="auto, cpu, cuda")
    parser.add_argument("--precision", default="32-true", help="of training: 32-true, bf16-mixed")


@dataclass(frozen=True)
class Sources:
    """HSIs and labelled RGB pictures, both in a training and an unseen part; sides of S pixels."""

    name: str
    hsis: list[tuple[Tensor, Tensor]]  # training images (C, H, W) with wavelengths
    hsi_labels: list[str]
    unseen: Tensor  # (N, C, S, S) reflectance
    unseen_labels: list[str]
    wavelengths: Tensor
    pictures: dict[str, Tensor]  # class → training pictures, uint8 (N, 3, S, S)
    held_out: Tensor  # (M, 3, S, S) uint8
    held_out_labels: list[str]
    scale: float
    gamma: float

    @property
    def size(self) -> tuple[int, int]:
        """(S, S)."""
        return self.held_out.shape[2], self.held_out.shape[3]

    @property
    def text(self) -> str:
        """One line about the data."""
        count = sum(len(v) for v in self.pictures.values())
        return (
            f"{self.name}: {len(self.hsis)} training HSIs, {len(self.wavelengths)} bands; AID pictures of "
            f"{len(self.pictures)} classes "
            f"at {self.size[0]}×{self.size[1]}, {count} training, {len(self.held_out)} unseen."
        )


def load(args: Namespace, size: int, per_class: int) -> Sources:
    """Read the sources; a fifth of the pictures of each class is unseen."""
    train, unseen, labels = {}, [], []
    for kind, pictures in aid(args.data, (size, size), per_class):
        if len(pictures) < min(per_class, WHOLE):
            continue
        seen = torch.arange(len(pictures)) % 5 != 4
        if kind == "Industrial":  # industrial_203 and industrial_205 are one picture
            distance = (pictures[:, None].float() - pictures[None].float()).abs().mean((2, 3, 4))
            twin = (distance + 255 * torch.eye(len(pictures)) < 2).any(1)
            pictures, seen = pictures[~twin], seen[~twin]
        train[kind] = pictures[seen]
        unseen.append(pictures[~seen])
        labels += [kind] * int((~seen).sum())
    scale, gamma = RADIOMETRY[args.sources]
    if args.sources == "chikusei-aid":
        cube, nm = chikusei(args.data)
        gap = 8 if size < 64 else 0
        hsis, hsi_labels = [cube[:, :, : 128 - size - gap]], ["Chikusei"]
        tests = (
            cube[:, :, 128 - size :]
            .unfold(1, size, size // 2)
            .unfold(2, size, size // 2)
            .flatten(1, 2)
            .movedim(1, 0)
        )
        test_labels = ["Chikusei"] * len(tests)
    else:
        images, y, nm, names = eurosat(args.data)
        images = F.adaptive_avg_pool2d(images, size)
        place = torch.arange(len(images)) % 12
        home = y == names.index(
            "Residential"
        )  # Residential_3 overlaps Industrial_20: both on the training side
        first = (place < 6) ^ (home & ((place == 5) | (place == 6)))
        hsis, hsi_labels = list(images[first]), [names[k] for k in y[first].tolist()]
        tests, test_labels = images[~first], [names[k] for k in y[~first].tolist()]
    return Sources(
        args.sources, [(x, nm) for x in hsis], [f"HSI {n}" for n in hsi_labels], tests, [f"HSI {n}" for n in test_labels],
        nm, train, torch.cat(unseen), labels, scale, gamma,
    )  # fmt: skip


@dataclass(frozen=True)
class Unmixed:
    """The training side in abundance space."""

    model: UnmixingModel
    maps: Tensor  # uint8 (N, P, S, S)
    labels: Tensor
    classes: tuple[str, ...]

    @property
    def endmembers(self) -> Endmembers:
        """E, as learned."""
        return self.model.endmembers


def unmix(
    sources: Sources, num_endmembers: int, steps: int, seed: int, args: Namespace, folder: Path
) -> Unmixed:
    """Fit both encoders on the training side, and bring all of it into abundance space; resumes from ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = pipeline.FitSettings(
        num_endmembers=num_endmembers, size=sources.size, unmixing_steps=steps, rgb_scale=sources.scale,
        rgb_gamma=sources.gamma, restarts=2, seed=seed, unmixing_options={"batch_size": 8, "crop": 32},
    )  # fmt: skip
    scenes, nm = read_scenes(sources.hsis, sources.hsi_labels, None)
    pictures = read_pictures(sources.pictures, sources.size, seed=seed)
    classes = pipeline.class_names(scenes, pictures)
    first = pipeline.initial_endmembers(scenes, nm, pictures, sources.scale, settings)
    model, _ = pipeline.fit_unmixing(
        first,
        scenes,
        pictures,
        sources.scale,
        classes,
        settings,
        workdir=folder,
        fabric=fabric(args),
        progress=False,
    )
    model.cpu()
    maps, labels = pipeline.make_maps(
        model, scenes, pictures, sources.scale, classes, settings, workdir=folder
    )
    return Unmixed(model, maps, labels, classes)


def fabric(args: Namespace) -> Any:
    """Devices and precision of the training."""
    return make_fabric(accelerator=args.accelerator, precision=args.precision)


def fit(
    name: str, config: Mapping[str, Any], data: Unmixed, steps: int, seed: int, args: Namespace, folder: Path,
    **fit_options: Any,
) -> tuple[AbundanceGenerator, float]:  # fmt: skip
    """Train a registered generator on abundance maps; gives it and the seconds it took."""
    model = get_generator(
        name, num_endmembers=data.maps.shape[1], size=tuple(data.maps.shape[2:]), num_classes=len(data.classes),
        **config,
    )  # fmt: skip
    history = model.fit(
        data.maps, labels=data.labels, steps=steps, seed=seed, fabric=fabric(args), progress=False,
        checkpoint=folder / f"{name}.pt", **fit_options,
    )  # fmt: skip
    return model, history.seconds + history.extra.get("codec", {}).get("seconds", 0.0)


def device(args: Namespace) -> str:
    """Where training runs."""
    return str(fabric(args).device)


@cache
def network() -> metrics.FeatureNetwork:
    """The feature network of all tables."""
    return metrics.efficientnet_lite0_features()


class Judge:
    """Holds the unseen side, and judges generated HSIs against it."""

    def __init__(self, sources: Sources, per_hsi_class: int = 64, pixels: int = 4000) -> None:
        """Compute the features of the unseen pictures once."""
        self.sources, self.pixels = sources, pixels
        self.real = network()(sources.held_out.float() / 255, scale=1.0)
        self.spectra = metrics.draw_pixels(sources.unseen, pixels)
        kinds = sorted(set(sources.unseen_labels))
        self.hsi_labels = [k for k in kinds for _ in range(max(1, per_hsi_class // len(kinds)))]

    def features(self, images: Tensor) -> Tensor:
        """Features of reflectance (N, C, H, W)."""
        return network()(images, self.sources.wavelengths, scale=self.sources.scale, gamma=self.sources.gamma)

    def scenes(self, images: Tensor) -> dict[str, Any]:
        """Judge samples of the classes ``sources.held_out_labels``."""
        found = metrics.generation_report(self.real, self.features(images), features=network().name)
        return {k: v for k, v in found.items() if k not in ("features", "dimension")}

    def spectral(self, images: Tensor) -> dict[str, float]:
        """Judge samples of the classes ``hsi_labels``: distances of their spectra to those of unseen HSIs."""
        made = metrics.draw_pixels(images, min(self.pixels, images[:, 0].numel()))
        angles = metrics.nearest_spectral_angle(made, self.spectra)
        return {
            "sliced_wasserstein": float(metrics.sliced_wasserstein(self.spectra, made)),
            "nearest_angle": float(angles.mean()),
            "negative_share": float((images < 0).float().mean()),
        }

    def both(self, draw: Callable[[Sequence[str], int], Tensor], seed: int) -> tuple[dict[str, Any], Tensor]:
        """Draw for both views with ``draw(class names, seed)``; gives the figures and the scenes."""
        scenes = draw(self.sources.held_out_labels, derive_seed(seed, 1))
        found = self.scenes(scenes) | self.spectral(draw(self.hsi_labels, derive_seed(seed, 2)))
        return found, scenes


def drawer(
    model: AbundanceGenerator, data: Unmixed, **sample_options: Any
) -> Callable[[Sequence[str], int], Tensor]:
    """Sampling of HSIs of named classes: maps of the generator, mixed."""

    def draw(names: Sequence[str], seed: int) -> Tensor:
        y = torch.tensor([data.classes.index(n) for n in names])
        a = model.sample(y, generator=per_sample(seed, range(len(y))), **sample_options)
        return mix(a.cpu(), data.endmembers)

    return draw


def contact_sheet(
    path: Path, rows: Mapping[str, Tensor], sources: Sources, names: Sequence[str], columns: int = 10
) -> None:
    """One row per source of images: the same classes from left to right, in pseudo-RGB at the fixed radiometry."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    from ubf_augment.radiometry import to_display
    from ubf_augment.spectra import rgb_bands

    kinds = list(dict.fromkeys(names))
    chosen = [names.index(k) for k in kinds[:: max(1, len(kinds) // columns)][:columns]]
    figure, axes = plt.subplots(
        len(rows), len(chosen), figsize=(1.15 * len(chosen) + 1, 1.2 * len(rows) + 0.3), layout="constrained",
        squeeze=False,
    )  # fmt: skip
    for line, (label, images) in zip(axes, rows.items(), strict=True):
        for axis, i in zip(line, chosen, strict=True):
            x = images[i]
            shown = x.float() / 255 if x.dtype == torch.uint8 else to_display(
                x[list(rgb_bands(sources.wavelengths))].float(), sources.scale, sources.gamma
            )  # fmt: skip
            axis.imshow(shown.clamp(0, 1).movedim(0, -1), interpolation="nearest")
            axis.set_xticks([])
            axis.set_yticks([])
            if axis is line[0]:
                axis.set_ylabel(label, fontsize=7)
            if line is axes[0]:
                axis.set_title(names[i], fontsize=7)
    finish(figure, path, 130)
    plt.close(figure)


def workplace(journal: Journal) -> Path:
    """Folder of checkpoints beside a benchmark's journal."""
    return HERE.parent / "runs" / "benchmarks" / journal.path.stem
