"""``ubf sample``: labelled synthetic images as GeoTIFFs, or as tar shards for WebDataset."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from ubf_augment.cli.device import find_device
from ubf_augment.cli.inputs import split_names
from ubf_augment.cli.output import bar, say
from ubf_augment.export import Plan, SampleExport, TarShards, TiffFolder, Writer, choose_classes
from ubf_augment.synthesis import HSISynthesizer
from ubf_augment.training import launch, make_fabric, share, together

if TYPE_CHECKING:
    from lightning.fabric import Fabric

POSITIONAL: dict[str, dict[str, Any]] = {
    "bundle": {"type": str, "help": "packaged name, directory, or Hugging Face Hub id"}
}


def run(
    bundle: str,
    out: Path,
    *,
    num: int = 10,
    classes: list[str] | str | None = None,
    seed: int = 0,
    residual: bool = True,
    options: dict[str, Any] | None = None,
    format: Literal["tif", "tar"] = "tif",
    scale: float | None = None,
    shard_size: int = 1024,
    batch_size: int = 16,
    device: str = "auto",
    devices: int = 1,
    num_nodes: int = 1,
    threads: int = 1,
    sheet: bool = True,
) -> None:
    """Draw labelled images and write them as out/<class>/<class>-<number>.tif, with the wavelengths in the bands.

    Or, for millions, as out/shard-<number>.tar for WebDataset: .npy (image), .cls (number of the class), .json (class,
    wavelengths, scale, seed). manifest.json says what the images are and whether they are complete.

    Image i of a class depends on seed, class and i alone: it is the same for any number of processes and in both formats. What
    is there is kept, so an interrupted or killed call goes on, and a larger num adds to what there is.

    Args:
        bundle: packaged name, directory, or Hugging Face Hub id.
        out: directory for the images, manifest.json and samples.png; with several nodes one that all of them see.
        num: images of each class.
        classes: names, such as Forest,Meadow; all by default.
        seed: of the images.
        residual: add the residual model.
        options: of the generator, such as '{"steps": 10}'.
        format: tif, a file per image; tar, shards.
        scale: None writes float32; a number such as 0.0001 writes int16 with that scale.
        shard_size: images of a shard; best a multiple of batch_size. A kill costs at most the shard at work.
        batch_size: images drawn at once.
        device: auto, cpu, cuda, cuda:1, mps.
        devices: processes on each node, one per GPU, or as many as you like on the CPU.
        num_nodes: machines; start the same command on each, by srun or torchrun.
        threads: CPU threads of each process; on a CPU more processes are faster than more threads.
        sheet: write samples.png.
    """
    fabric = start(device, devices, num_nodes, threads)

    def prepare() -> tuple[HSISynthesizer, Plan, Writer]:
        synth = HSISynthesizer.from_pretrained(
            bundle, device=fabric.device if fabric else find_device(device)
        )
        plan = Plan(
            choose_classes(synth, split_names(classes)), num, seed, batch_size, residual, options or {}
        )
        if format == "tif":
            return synth, plan, TiffFolder(out, plan, synth.wavelengths, scale)
        labels = {c: k for k, c in enumerate(synth.classes)}
        return synth, plan, TarShards(out, plan, synth.wavelengths, scale, labels, shard_size)

    synth, plan, writer = together(fabric, prepare)
    first = share(fabric)[0] == 0

    def shown(units: Sequence[int], found: int) -> Iterator[int]:
        if found and first:
            say(f"{found} of {plan.total} images are there already")
        with bar(units, len(units), "drawing", quiet=not first) as items:
            yield from items

    SampleExport(synth, plan, writer, bundle=str(bundle)).run(fabric, shown)
    if first:
        if sheet:
            _draw_sheet(synth, plan, out)
        say(f"{plan.total} images of {len(plan.classes)} classes in {out}")


def _draw_sheet(synth: HSISynthesizer, plan: Plan, out: Path) -> None:
    """The first images of the classes, abundances and spectra."""
    from ubf_augment.synthesis.drawing import draw_sheet

    names = list(plan.classes[:12])
    a, x = plan.draw(synth, [(name, i) for name in names for i in range(min(plan.num, 5))])
    draw_sheet(synth, a, x, names, note=f"seed {plan.seed}", path=out / "samples.png")


def start(device: str, devices: int, num_nodes: int, threads: int) -> Fabric | None:
    """Start the processes; a single one needs no Fabric, whose import takes seconds.

    Raises:
        ValueError: if there are not so many devices.
    """
    if min(devices, num_nodes, threads) < 1:
        raise ValueError(
            f"devices, num_nodes and threads must be at least 1, got {devices}, {num_nodes}, {threads}"
        )
    torch.set_num_threads(threads)
    if devices == num_nodes == 1:
        return None
    kind = find_device(device)
    if ":" in kind:
        raise ValueError(f"--device {kind} is one device: give --device {kind.partition(':')[0]} for several")
    if kind == "cuda" and devices > torch.cuda.device_count():
        raise ValueError(f"--devices {devices}, but this machine has {torch.cuda.device_count()} GPUs")
    return launch(make_fabric(accelerator=kind, devices=devices, num_nodes=num_nodes), threads)
