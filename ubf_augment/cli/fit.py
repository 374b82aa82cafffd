"""``ubf fit``: train a bundle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from ubf_augment.bundle import check_target
from ubf_augment.cli.inputs import DataSet, ReadOptions, gather_pictures, gather_scenes, split_names
from ubf_augment.cli.output import say
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
    num_nodes: int = 1,
    precision: str = "32-true",
    threads: int | None = None,
    dtype: Literal["float32", "float16", "bfloat16"] = "float16",
    card: dict[str, Any] | None = None,
    overwrite: bool = False,
    sheet: bool = True,
) -> None:
    """Train a synthesizer: unmixing, RGB pictures into the same abundance space, a generator of both.

    Interrupted by Ctrl-C or kill, the same command goes on from the work directory. Images, pictures and abundance maps are kept
    there, not in memory.

    Args:
        hsi: hyperspectral image, folder of images, or folder of class folders; or a data set, in YAML as class_path and
            init_args; or several.
        out: directory of the bundle.
        rgb: folder of RGB pictures with class folders, or several; or a data set of labelled pictures.
        read: how the hyperspectral files are read.
        hsi_limit: at most so many hyperspectral images of each source, evenly chosen.
        rgb_classes: class folders to take, such as Forest,Meadow; all by default.
        rgb_per_class: at most so many pictures of each class.
        settings: of the fit.
        workdir: checkpoints, images and abundance maps; <out>.work by default; with several nodes one that all of them see.
        accelerator: auto, cpu, cuda, mps.
        devices: processes on each node, one per GPU. They share each training step, so the batch size must be a multiple of
            all of them, and the unmixing of the pictures.
        num_nodes: machines; start the same command on each, by srun or torchrun.
        precision: 32-true, bf16-mixed, 16-mixed.
        threads: CPU threads of each process; by default all cores, shared by the processes of a machine.
        dtype: how weights are stored.
        card: facts for the model card, such as data and licence.
        overwrite: replace a bundle that is there.
        sheet: write samples.png beside the model card.
    """
    from ubf_augment.training import launch, make_fabric, once, share

    check_target(out, overwrite=overwrite)
    images, labels = gather_scenes(hsi, read, hsi_limit)
    pictures = None if rgb is None else gather_pictures(rgb, split_names(rgb_classes), rgb_per_class)
    fabric = make_fabric(accelerator=accelerator, devices=devices, num_nodes=num_nodes, precision=precision)
    launch(fabric, threads)
    work = out.with_name(f"{out.name}.work") if workdir is None else workdir
    first = share(fabric)[0] == 0
    if first:
        say(f"{images.images} hyperspectral images, {0 if pictures is None else len(pictures)} RGB pictures")
    synth = HSISynthesizer.fit(
        images, pictures, settings, hsi_labels=labels, workdir=work, fabric=fabric, card=card
    )
    once(fabric, lambda: synth.save_pretrained(out, dtype=dtype, overwrite=overwrite))
    if first:
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
