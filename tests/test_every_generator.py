"""Every registered generator through the whole flow: `ubf fit`, bundle, `UBFAugment`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml
from test_cli import made_folders
from test_generators import SMALL

from ubf_augment import HSISynthesizer, UBFAugment, simplex
from ubf_augment.cli import main
from ubf_augment.generators import list_generators


@pytest.mark.slow
@pytest.mark.parametrize("name", list_generators())
def test_from_folders_to_an_augmented_batch(name: str, tmp_path: Path) -> None:
    config = made_folders(tmp_path) / "fit.yaml"
    settings = yaml.safe_load(config.read_text())
    settings["settings"] |= {
        "generator": name,
        "size": [8, 8],
        "generator_config": json.loads(json.dumps(SMALL[name])),
    }
    config.write_text(yaml.safe_dump(settings))
    assert main(["fit", "--config", str(config)]) == 0
    synth = HSISynthesizer.from_pretrained(tmp_path / "bundle")
    assert synth.generator.name == name
    a = synth.sample_abundances(["Red", "Green"], seed=0)
    simplex.check(a)
    again = HSISynthesizer.from_pretrained(tmp_path / "bundle").sample_abundances(["Red", "Green"], seed=0)
    assert torch.equal(a, again)

    augment = UBFAugment(synth, p=1.0, strategy="generate", classes=synth.classes, seed=0)
    real = torch.rand(4, 8, 12, 12) * 0.4
    out = augment(
        {
            "image": real,
            "label": torch.tensor([synth.classes.index(c) for c in ("Red", "Green", "Red", "Green")]),
        }
    )
    assert out["image"].shape == real.shape
    assert bool(out["is_synthetic"].all())
    assert torch.isfinite(out["image"]).all()
    assert not torch.allclose(out["image"][0], out["image"][2])
