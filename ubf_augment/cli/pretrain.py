"""``ubf pretrain``: weights to start a classifier from."""

from __future__ import annotations

import glob
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ubf_augment.classification import Recipe
from ubf_augment.cli.inputs import ReadOptions, read_images
from ubf_augment.cli.output import say
from ubf_augment.errors import ShapeError
from ubf_augment.files import drop_left, refuse_existing, replacing
from ubf_augment.pretraining import pretrain
from ubf_augment.synthesis import HSISynthesizer

POSITIONAL: dict[str, dict[str, Any]] = {
    "bundle": {"type": str, "help": "of your sensor: directory (see ubf fit and adapt), packaged name, or Hugging Face Hub id"},
    "images": {"type": Path, "help": "image, folder of images, or folder of class folders; labels are not looked at"},
}  # fmt: skip


def run(
    bundle: str,
    images: Path,
    out: Path,
    *,
    recipe: Recipe = Recipe(steps=1000),  # noqa: B008 - frozen
    tile: int | None = None,
    read: ReadOptions = ReadOptions(),  # noqa: B008 - frozen
    endmember_std: float = 0.1,
    illumination_std: float = 0.2,
    brightness_std: float = 0.2,
    workdir: Path | None = None,
    accelerator: str = "auto",
    devices: int = 1,
    precision: str = "32-true",
    threads: int | None = None,
    seed: int = 0,
    overwrite: bool = False,
) -> None:
    """Train a network to read abundances from images of your sensor, without labels, and write its weights.

    Give all images that you have, test images aside. Interrupted by Ctrl-C or kill, the same command goes on from the work
    directory. The weights, without those of the last layer, go into a timm network of the same name and number of bands
    by network.load_state_dict(safetensors.torch.load_file(out), strict=False). The network saw images standardised by
    the mean and std in the file's metadata.

    Args:
        bundle: of your sensor: directory (see ubf fit and adapt), packaged name, or Hugging Face Hub id.
        images: image, folder of images, or folder of class folders; labels are not looked at.
        out: file of the weights, .safetensors.
        recipe: network (a timm name), steps, batch size, learning rate, side that the network sees.
        tile: images are cut into squares of this side; what is left over at the edges is not used.
        read: how the images are read.
        endmember_std: deviation of the log-gain of an endmember.
        illumination_std: deviation of the log-gain of an image, smooth along the wavelength.
        brightness_std: deviation of the log-gain of an image, the same in all bands.
        workdir: checkpoint; <out>.work by default, removed at the end.
        accelerator: auto, cpu, cuda, mps.
        devices: number of devices.
        precision: 32-true, bf16-mixed, 16-mixed.
        threads: CPU threads; torch's choice by default.
        seed: of everything.
        overwrite: replace weights that are there.
    """
    from safetensors.torch import save

    from ubf_augment.training import alone, launch, make_fabric, share

    if out.suffix != ".safetensors":
        raise ValueError(f"weights are written as .safetensors, got out={out}")
    refuse_existing(out, overwrite)
    synth = HSISynthesizer.from_pretrained(bundle)
    data, nm, _ = read_images(images, read)
    if len(nm) != synth.num_bands or float((nm - synth.wavelengths).abs().max()) > 0.5:
        raise ValueError(
            f"{images} has {len(nm)} bands at {nm[0]:g}–{nm[-1]:g} nm, {bundle} {synth.num_bands} at "
            f"{synth.wavelengths[0]:g}–{synth.wavelengths[-1]:g} nm: bring the bundle to the sensor by ubf adapt"
        )
    items = [data[i] for i in range(len(data))]
    x = stack([item["image"] if isinstance(item, dict) else item for item in items], tile)
    say(f"{len(x)} images of {x.shape[2]}×{x.shape[3]} pixels, {x.shape[1]} bands")
    fabric = launch(make_fabric(accelerator=accelerator, devices=devices, precision=precision), threads)
    work = out.with_name(f"{out.name}.work") if workdir is None else workdir
    with alone(fabric, work):
        done = pretrain(
            synth, x, recipe, endmember_std=endmember_std, illumination_std=illumination_std,
            brightness_std=brightness_std, checkpoint=work / "pretraining.pt", seed=seed, fabric=fabric,
        )  # fmt: skip
        if share(fabric)[0]:
            return
        refuse_existing(out, overwrite)  # once more: another process may have been quicker
        facts = {
            "model": recipe.model, "bands": str(len(nm)), "wavelengths": json.dumps(synth.wavelengths.tolist()),
            "steps": str(recipe.steps), "mean": json.dumps(done.mean.flatten().tolist()),
            "std": json.dumps(done.std.flatten().tolist()),
        }  # fmt: skip
        drop_left(out.parent.glob(f".{glob.escape(out.name)}.*"))
        with replacing(out) as aside:
            aside.write_bytes(save(done.backbone(), facts))
        if workdir is None:
            shutil.rmtree(work, ignore_errors=True)
    say(f"weights of {recipe.model} in {out}")


def stack(images: list[Tensor], tile: int | None) -> Tensor:
    """Images of one size as a batch, or their squares of a side.

    Raises:
        ShapeError: if the sizes differ and no side is given, or no image is that large.

    >>> stack([torch.zeros(3, 5, 4), torch.zeros(3, 2, 2)], 2).shape
    torch.Size([5, 3, 2, 2])
    """
    sizes = sorted({(x.shape[1], x.shape[2]) for x in images})
    if tile is None:
        if len(sizes) > 1:
            raise ShapeError(
                f"images are of {len(sizes)} sizes, {sizes[0]} to {sizes[-1]}: give tile, the side of squares to cut"
            )
        return torch.stack(images).float()
    cut = [
        x[:, i : i + tile, j : j + tile]
        for x in images
        for i in range(0, x.shape[1] - tile + 1, tile)
        for j in range(0, x.shape[2] - tile + 1, tile)
    ]
    if not cut:
        raise ShapeError(
            f"no image has {tile}×{tile} pixels; the largest is {sizes[-1]}: give a smaller tile"
        )
    return torch.stack(cut).float()
