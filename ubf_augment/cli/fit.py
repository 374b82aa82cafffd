"""``ubf fit``: train a bundle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from ubf_augment.bundle import check_target
from ubf_augment.cli.inputs import DataSet, ReadOptions, gather_pictures, gather_scenes, split_names
from ubf_augment.cli.output import say
from ubf_augment.io import HSI
from ubf_augment.synthesis import HSISynthesizer
from ubf_augment.synthesis.pipeline import FitSettings

POSITIONAL: dict[str, dict[str, Any]] = {}


def run(
    hsi: Path | DataSet | list[Path | DataSet],
    out: Path,
    *,
    rgb: Path | DataSet | list[Path | DataSet] | None = None,
    read: ReadOptions = ReadOptions(),  # noqa: B008 - frozen
    hsi_limit: int | None = None,
    rgb_classes: list[str] | str | None = None,
    rgb_per_class: int | None = None,
    settings: FitSettings = FitSettings(),  # noqa: B008 - frozen
    workdir: Path | None = None,
    accelerator: str = "auto",
    devices: int = 1,
    precision: str = "32-true",
    threads: int | None = None,
    dtype: Literal["float32", "float16", "bfloat16"] = "float16",
    card: dict[str, Any] | None = None,
    sheet: bool = True,
) -> None:
    """Train a synthesizer: unmixing, RGB pictures into the same abundance space, a generator of both.

    Interrupted by Ctrl-C or kill, the same command goes on from the work directory.

    Args:
        hsi: hyperspectral image, folder of images, or folder of class folders; or a data set, in YAML as class_path and
            init_args; or several.
        out: directory of the bundle.
        rgb: folder of RGB pictures with class folders, or several; or a data set of labelled pictures.
        read: how the hyperspectral files are read.
        hsi_limit: at most so many hyperspectral images of each source, evenly chosen; all are held in memory.
        rgb_classes: class folders to take, such as Forest,Meadow; all by default.
        rgb_per_class: at most so many pictures of each class.
        settings: of the fit.
        workdir: checkpoints and abundance maps; <out>.work by default.
        accelerator: auto, cpu, cuda, mps.
        devices: number of devices.
        precision: 32-true, bf16-mixed, 16-mixed.
        threads: CPU threads; torch's choice by default.
        dtype: how weights are stored.
        card: facts for the model card, such as data and licence.
        sheet: write samples.png beside the model card.
    """
    import torch

    from ubf_augment.training import make_fabric

    check_target(out)
    if threads is not None:
        torch.set_num_threads(threads)
    images, labels = gather_scenes(hsi, read, hsi_limit)
    pictures = None if rgb is None else gather_pictures(rgb, split_names(rgb_classes), rgb_per_class)
    count = sum(1 if isinstance(part, HSI) else len(part) for part in images)
    say(f"{count} hyperspectral images, {len(pictures) if pictures is not None else 0} RGB pictures")
    work = out.with_name(f"{out.name}.work") if workdir is None else workdir
    fabric = make_fabric(accelerator=accelerator, devices=devices, precision=precision)
    synth = HSISynthesizer.fit(
        images, pictures, settings, hsi_labels=labels, workdir=work, fabric=fabric, card=card
    )
    synth.save_pretrained(out, dtype=dtype)
    if sheet:
        from ubf_augment.report import sample_sheet

        names = synth.classes[:12] or None
        sample_sheet(synth, names, title=f"{out.name}: samples", path=out / "samples.png", dpi=90)
    _tell(synth.card, out, work)


def _tell(card: Mapping[str, Any], out: Path, work: Path) -> None:
    for name, figures in card.get("reconstruction", {}).items():
        say(f"reconstruction, {name}: RMSE {figures['rmse']:.4f}, spectral angle {figures['angle']:.2f}°")
    covered = {
        k: v["best_coverage"] for k, v in card.get("gamut_coverage", {}).items() if "best_coverage" in v
    }
    if low := sorted(k for k, v in covered.items() if v < 0.5):
        say(f"the materials reproduce less than half of the pixels of {', '.join(low)}: see the model card")
    say(f"bundle in {out}; {work} is no longer needed unless you want to train on")
