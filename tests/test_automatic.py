"""p="auto": nothing happens before the choice, the choice is what the scores say, and it is stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import CLASSES, NM, real_batch, tiny_synth
from torch import nn

from ubf_augment import automatic, choose
from ubf_augment.augment import UBFAugment
from ubf_augment.classification import Choice, LabelledImages, Recipe, decide

TINY = Recipe("test_resnet", steps=2, batch_size=4, size=32)


def pending(**options: Any) -> UBFAugment:
    return UBFAugment(tiny_synth(), "auto", **{"strategy": "auto", "seed": 0, **options})


def images(n: int = 16) -> LabelledImages:
    x, _ = real_batch(n, 8, 0)
    return LabelledImages(x, torch.arange(n) % len(CLASSES), tuple(CLASSES), torch.as_tensor(NM))


def scored(monkeypatch: pytest.MonkeyPatch, figures: dict[str, list[float]]) -> list[int]:
    """Put figures in place of trainings; every candidate is built and called on a batch."""
    calls: list[int] = []

    def instead(data: LabelledImages, candidates: Any, baseline: str, recipe: Recipe, **_: Any) -> Choice:
        calls.append(1)
        assert set(figures) <= set(candidates)
        for make in candidates.values():
            make(0)({"image": data.x, "label": data.y})
        return decide({k: figures.get(k, [0.0, 0.0]) for k in candidates}, baseline)

    monkeypatch.setattr("ubf_augment.automatic.classification.choose", instead)
    return calls


def test_before_the_choice_it_refuses_to_run() -> None:
    augment, data = pending(), images()
    with pytest.raises(RuntimeError, match="choose"):
        augment(data.x, data.y)
    assert "p=auto" in repr(augment)


def test_the_best_option_is_taken(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scored(monkeypatch, {automatic.NOTHING: [50, 50], "fuse, p = 0.5": [60, 61], "vary, p = 0.5": [58, 58]})
    augment = pending()
    found = choose(augment, images())
    assert found.name == "fuse, p = 0.5"
    assert (augment.p, set(augment.weights)) == (0.5, {"fuse"})
    assert "← chosen" in capsys.readouterr().out
    data = images()
    share = augment({"image": data.x, "label": data.y})["is_synthetic"].float().mean()
    assert 0 < float(share) < 1


def test_where_nothing_helps_nothing_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    scored(monkeypatch, {automatic.NOTHING: [50, 50], "fuse, p = 0.5": [49, 52], "vary, p = 0.5": [40, 40]})
    augment, data = pending(), images()
    assert choose(augment, data, progress=False).name == automatic.NOTHING
    x, y = augment(data.x, data.y)
    assert x is data.x
    assert y is data.y


def test_a_given_strategy_is_tried_in_three_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    scored(monkeypatch, {automatic.NOTHING: [50, 50], "vary, p = 0.75": [60, 61], "vary, p = 0.25": [58, 58]})
    augment = pending(strategy="vary")
    choose(augment, images(), progress=False)
    assert (augment.p, augment.weights) == (0.75, {"vary": 1.0})


def test_only_what_can_work_is_tried() -> None:
    assert not any("bank" in name for name in automatic.options(pending()))  # no pictures were given
    bank = {CLASSES[0]: torch.randint(40, 200, (2, 3, 8, 8), dtype=torch.uint8)}
    assert "bank, p = 0.25" in automatic.options(pending(bank=bank))


def test_the_choice_is_kept_in_a_file_and_in_the_state(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls = scored(monkeypatch, {automatic.NOTHING: [50, 50], "vary, p = 0.5": [60, 61]})
    first, path = pending(), tmp_path / "choice.json"
    choose(first, images(), progress=False, path=path)
    second = pending()
    assert choose(second, images(), progress=False, path=path) == choose(
        pending(), images(), progress=False, path=path
    )
    assert len(calls) == 1
    assert (second.p, second.weights) == (first.p, first.weights)
    third = pending()
    third.load_state_dict(first.state_dict())
    assert (third.p, third.weights, third.pending) == (first.p, first.weights, False)
    with pytest.raises(ValueError, match="delete it"):  # the choice of other options
        choose(pending(strategy="fuse"), images(), progress=False, path=path)
    path.write_text("{")
    with pytest.raises(ValueError, match="delete it"):
        choose(pending(), images(), progress=False, path=path)


def test_it_trains_and_scores_on_parts_of_the_training_set() -> None:
    seen: list[int] = []

    class Probe(nn.Module):
        def forward(self, batch: dict[str, Any]) -> dict[str, Any]:
            seen.append(len(batch["image"]))
            return batch

    augment, data = pending(strategy={"vary": 1.0, "fuse": 1.0}), images()
    found = choose(augment, data, after=Probe, recipe=TINY, repeats=2, progress=False)
    assert set(found.scores) == {automatic.NOTHING, *automatic.options(augment)}
    assert all(len(v) == 2 for v in found.scores.values())
    assert len(seen) == 4 * 2 * TINY.steps  # (three options and none) × repeats × steps
    again = choose(pending(strategy={"vary": 1.0, "fuse": 1.0}), data, recipe=TINY, repeats=2, progress=False)
    assert again.scores == found.scores
    assert not augment.pending


def test_a_data_set_is_read() -> None:
    data = images(8)
    items = [{"image": x, "label": y} for x, y in zip(data.x, data.y, strict=True)]
    found = choose(pending(strategy="vary"), items, classes=CLASSES, recipe=TINY, repeats=1, progress=False)
    assert all(len(v) == 1 for v in found.scores.values())
