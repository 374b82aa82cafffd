"""``ubf distill``: a bundle that draws with few evaluations of its network."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from ubf_augment.bundle import check_target
from ubf_augment.cli.output import say
from ubf_augment.synthesis import HSISynthesizer

POSITIONAL: dict[str, dict[str, Any]] = {
    "bundle": {"type": str, "help": "packaged name, directory, or Hugging Face Hub id"}
}


def run(
    bundle: str,
    out: Path,
    *,
    evaluations: int = 2,
    guidance: float | None = None,
    scenes: int = 2048,
    steps: int = 500,
    batch_size: int = 32,
    lr: float = 2e-4,
    workdir: Path | None = None,
    accelerator: str = "auto",
    devices: int = 1,
    precision: str = "32-true",
    threads: int | None = None,
    seed: int = 0,
    dtype: Literal["float32", "float16", "bfloat16"] = "float16",
    overwrite: bool = False,
    sheet: bool = True,
) -> None:
    """Teach a copy of a bundle to draw the same scenes with few evaluations of its network. No training data are needed.

    Interrupted by Ctrl-C or kill, the same command goes on from the work directory.

    Args:
        bundle: packaged name, directory, or Hugging Face Hub id; its generator must be ddpm or flow.
        out: directory of the new bundle.
        evaluations: of the network per sample: 1, 2, 4.
        guidance: built into the new network; the bundle's own by default.
        scenes: drawn by the bundle, to learn from.
        steps: optimiser steps of each stage; a stage halves the number of evaluations.
        batch_size: maps per step.
        lr: peak learning rate.
        workdir: checkpoints; <out>.work by default.
        accelerator: auto, cpu, cuda, mps.
        devices: number of devices.
        precision: 32-true, bf16-mixed, 16-mixed.
        threads: CPU threads; torch's choice by default.
        seed: of everything.
        dtype: how weights are stored.
        overwrite: replace a bundle that is there.
        sheet: write samples.png beside the model card.
    """
    from ubf_augment.training import alone, launch, make_fabric, once, share

    check_target(out, overwrite=overwrite)
    fabric = launch(make_fabric(accelerator=accelerator, devices=devices, precision=precision), threads)
    work = out.with_name(f"{out.name}.work") if workdir is None else workdir
    with alone(fabric, work):
        fast = HSISynthesizer.from_pretrained(bundle).distill(
            evaluations, guidance=guidance, scenes=scenes, steps=steps, batch_size=batch_size, lr=lr, seed=seed,
            checkpoint=work / "distillation.pt", fabric=fabric,
        )  # fmt: skip
        once(fabric, lambda: fast.save_pretrained(out, dtype=dtype, overwrite=overwrite))
    if share(fabric)[0]:
        return
    if sheet:
        from ubf_augment.report import sample_sheet

        sample_sheet(
            fast, fast.classes[:12] or None, title=f"{out.name}: samples", path=out / "samples.png", dpi=90
        )
    say(f"bundle in {out}: {evaluations} evaluation{'s' * (evaluations > 1)} per sample")
