"""``ubf demo``: the two-minute tour."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ubf_augment.demo import DemoSettings, run_demo

POSITIONAL: dict[str, dict[str, Any]] = {}


def run(
    out: Path = Path("demo"),
    *,
    seeds: int = 3,
    steps: int | None = None,
    quick: bool = False,
    overwrite: bool = False,
) -> None:
    """Draw samples of the packaged bundles, then train a classifier with and without augmentation.

    Needs no data: Indian Pines comes with the package tensorly. Writes table.md, results.json and pictures.

    Args:
        out: directory for the results.
        seeds: number of repetitions of every training.
        steps: optimiser steps of every training.
        quick: very few steps, to see that everything works; the numbers then mean nothing.
        overwrite: replace the results of other settings.
    """
    run_demo(out, DemoSettings.of(seeds=seeds, steps=steps, quick=quick), overwrite=overwrite)
