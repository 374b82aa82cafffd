"""Samples beside a model card, and in it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ubf_augment import HSISynthesizer
from ubf_augment.report import sample_sheet


def add_picture(directory: Path, names: Sequence[str] | None = None) -> None:
    """Write samples of the bundle's classes to ``samples.png`` and show them at the top of its model card."""
    synth = HSISynthesizer.from_pretrained(directory)
    sample_sheet(synth, names, title=f"{directory.name}: samples", path=directory / "samples.png", dpi=80)
    card = directory / "README.md"
    title, _, rest = card.read_text(encoding="utf-8").partition("\n\n")
    card.write_text(f"{title}\n\n![Samples by class](samples.png)\n\n{rest}", encoding="utf-8")
