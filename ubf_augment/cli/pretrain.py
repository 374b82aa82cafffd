"""``ubf pretrain``: weights to start a classifier from."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ubf_augment.classification import Recipe
from ubf_augment.cli.inputs import PictureFolder, as_list, split_names
from ubf_augment.cli.output import say
from ubf_augment.pretraining import pretrain
from ubf_augment.synthesis import HSISynthesizer

POSITIONAL: dict[str, dict[str, Any]] = {
    "bundle": {"type": str, "help": "of your sensor: directory (see ubf adapt), packaged name, or Hugging Face Hub id"},
    "pictures": {"type": Path, "help": "folder of RGB pictures with class folders"},
}  # fmt: skip


def run(
    bundle: str,
    pictures: Path,
    out: Path,
    *,
    recipe: Recipe = Recipe(steps=6000),  # noqa: B008 - frozen
    classes: list[str] | str | None = None,
    per_class: int | None = None,
    size: int = 64,
    endmember_std: float = 0.2,
    brightness_std: float = 0.2,
    affine: bool = True,
    checkpoint: Path | None = None,
    accelerator: str = "auto",
    devices: int = 1,
    precision: str = "32-true",
    threads: int | None = None,
    seed: int = 0,
    overwrite: bool = False,
) -> None:
    """Train a classifier of RGB pictures as your sensor would see them, and write its weights without the last layer.

    The classes of the pictures need not be yours. Interrupted by Ctrl-C or kill, the same command goes on from its
    checkpoint. The weights go into a timm network of the same name and number of bands by
    network.load_state_dict(safetensors.torch.load_file(out), strict=False).

    Args:
        bundle: of your sensor: directory (see ubf adapt), packaged name, or Hugging Face Hub id.
        pictures: folder of RGB pictures with class folders.
        out: file of the weights, .safetensors.
        recipe: network (a timm name), steps, batch size, learning rate.
        classes: class folders to take, such as Forest,Meadow; all by default.
        per_class: at most so many pictures of each class.
        size: pictures are brought to this side before they are unmixed.
        endmember_std: deviation of the log-gain of an endmember.
        brightness_std: deviation of the log-gain of an image.
        affine: flips, quarter turns, small rotations, shifts and scalings.
        checkpoint: file to go on from; <out>.resume by default, removed at the end.
        accelerator: auto, cpu, cuda, mps.
        devices: number of devices.
        precision: 32-true, bf16-mixed, 16-mixed.
        threads: CPU threads; torch's choice by default.
        seed: of everything.
        overwrite: replace weights that are there.
    """
    import torch
    from safetensors.torch import save_file

    from ubf_augment.demo.training import affine as geometric
    from ubf_augment.training import make_fabric

    if out.suffix != ".safetensors":
        raise ValueError(f"weights are written as .safetensors, got out={out}")
    if out.exists() and not overwrite:
        raise FileExistsError(f"{out} is there already: give overwrite=true, or another file")
    if threads is not None:
        torch.set_num_threads(threads)
    folder = PictureFolder(as_list(pictures), split_names(classes), per_class)
    synth = HSISynthesizer.from_pretrained(bundle)
    say(f"{len(folder)} pictures of {len(folder.classes)} classes as {len(synth.wavelengths)} bands")
    resume = out.with_name(f"{out.name}.resume") if checkpoint is None else checkpoint
    done = pretrain(
        synth, folder, recipe, size=size, endmember_std=endmember_std, brightness_std=brightness_std,
        after=geometric if affine else None, checkpoint=resume, seed=seed,
        fabric=make_fabric(accelerator=accelerator, devices=devices, precision=precision),
    )  # fmt: skip
    facts = {
        "model": recipe.model, "bands": str(len(synth.wavelengths)), "classes": json.dumps(folder.classes),
        "wavelengths": json.dumps(synth.wavelengths.tolist()), "steps": str(recipe.steps),
        "mean": json.dumps(done.mean.flatten().tolist()), "std": json.dumps(done.std.flatten().tolist()),
    }  # fmt: skip
    out.parent.mkdir(parents=True, exist_ok=True)
    aside = out.with_name(f".{out.name}.{os.getpid()}")
    save_file(done.backbone(), aside, facts)
    os.replace(aside, out)
    if checkpoint is None:
        resume.unlink(missing_ok=True)
    say(f"weights of {recipe.model} in {out}")
