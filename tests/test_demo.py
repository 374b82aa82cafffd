"""The demo runs end to end and keeps the test blocks out of its choices."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import torch

from ubf_augment.demo import CANDIDATES, DemoSettings, run_demo, train_once
from ubf_augment.synthesis import HSISynthesizer


def test_the_quick_demo_writes_table_pictures_and_results(tmp_path: Path) -> None:
    run_demo(tmp_path, DemoSettings.of(seeds=2, quick=True))
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["chosen"] in CANDIDATES
    scores = {k: v["score"] for k, v in results["validation"].items() if k in CANDIDATES}
    assert scores[results["chosen"]] == max(scores.values())
    chosen = results["rows"][results["chosen"]]["runs"]
    assert len(chosen) == 2
    expected = sum(r["val"]["accuracy"] + r["val"]["macro_recall"] for r in chosen) / 4
    assert abs(scores[results["chosen"]] - expected) < 1e-9
    table = (tmp_path / "table.md").read_text()
    assert "affine" in table
    assert results["chosen"] in table
    assert f"automatic choice: {results['automatic']['name']}" in table
    gains, errors = results["automatic"]["gains"], results["automatic"]["errors"]
    better = [k for k in gains if gains[k] > errors[k]]
    assert results["automatic"]["name"] in (better or [results["automatic"]["baseline"]])
    assert results["automatic"]["baseline"] in ("none", "affine")
    assert len(list(tmp_path.glob("*.png"))) == 2


def test_a_training_depends_on_its_seed_alone() -> None:
    synth = HSISynthesizer.from_pretrained("indian-pines")
    settings = replace(DemoSettings.of(quick=True), steps=2)
    one = train_once("vary, p = 0.5", 3, settings, synth)
    torch.manual_seed(123)
    two = train_once("vary, p = 0.5", 3, settings, synth)
    assert one["loss"] == two["loss"]
    assert one["test"] == two["test"]
    other = train_once("vary, p = 0.5", 4, settings, synth)
    assert other["loss"] != one["loss"]
