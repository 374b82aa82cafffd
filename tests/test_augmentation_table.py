"""The augmentation table: its intervals, its rows, and a run from end to end on a tiny made data set."""

from __future__ import annotations

import importlib
import json
import math
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import nn
from torch.nn import functional as F

from ubf_augment.classification import Recipe
from ubf_augment.io import write_hsi
from ubf_augment.training import make_fabric

FOLDER = Path(__file__).resolve().parent.parent / "benchmarks"
pytestmark = pytest.mark.skipif(
    not (FOLDER / "augmentation_table.py").exists(), reason="the benchmarks are not part of this installation"
)
NM = (490.0, 560.0, 665.0, 842.0)


def module(name: str) -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        yield importlib.import_module(name)


@pytest.fixture(scope="module")
def paired() -> Iterator[ModuleType]:
    yield from module("paired")


@pytest.fixture(scope="module")
def rows() -> Iterator[ModuleType]:
    yield from module("rows")


@pytest.fixture(scope="module")
def table() -> Iterator[ModuleType]:
    yield from module("augmentation_table")


# ---- paired: intervals ----


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 30), st.floats(0.0, 6.0), st.sampled_from([0.8, 0.95, 0.99]), st.integers(0, 999))
def test_plain_and_corrected_intervals(
    paired: ModuleType, n: int, shared: float, level: float, seed: int
) -> None:
    ours, theirs = np.random.default_rng(seed).normal(60, 5, (2, n))
    found = paired.compare(ours, theirs, shared, level=level)
    expected = stats.ttest_rel(ours, theirs).confidence_interval(level)
    assert found.plain == pytest.approx((expected.low, expected.high))
    assert found.mean == pytest.approx(float((ours - theirs).mean()))
    assert found.sd == pytest.approx(float((ours - theirs).std(ddof=1)))
    widths = [high - low for low, high in (found.plain, found.corrected)]
    assert widths[1] / widths[0] == pytest.approx(math.sqrt(1 + n * shared))  # of Nadeau and Bengio
    assert sum(found.corrected) / 2 == pytest.approx(found.mean)
    assert found.bootstrap is None
    swapped = paired.compare(theirs, ours, shared, level=level)
    assert swapped.plain == pytest.approx((-found.plain[1], -found.plain[0]))


def test_corrected_interval_by_hand(paired: ModuleType) -> None:
    """Differences 1, 3: s² = 2. n_test / n_train = 1/4: half width 12.706 √(2 (1/2 + 1/4))."""
    found = paired.compare([11.0, 13.0], [10.0, 10.0], shared=0.25)
    half = 12.706204736 * math.sqrt(1.5)
    assert found.corrected == pytest.approx((2 - half, 2 + half))
    assert found.record() == {
        "mean": 2.0, "sd": pytest.approx(math.sqrt(2)), "n": 2, "plain": pytest.approx((2 - 12.706204736, 14.706204736)),
        "corrected": found.corrected, "bootstrap": None,
    }  # fmt: skip


def test_one_split_has_no_interval_and_rows_need_the_same_splits(paired: ModuleType) -> None:
    found = paired.compare([3.0], [1.0], 0.5)
    assert (found.mean, found.n, found.plain, found.corrected) == (2.0, 1, None, None)
    for ours, theirs in (([1.0, 2.0], [1.0]), ([], [])):
        with pytest.raises(ValueError, match="both rows need the same splits"):
            paired.compare(ours, theirs, 0.5)


def test_plain_interval_covers_the_truth(paired: ModuleType) -> None:
    """500 studies of 6 independent splits: 95 % ± 2.2 points of them cover the true difference (± two deviations)."""
    rng, covers = np.random.default_rng(0), 0
    for _ in range(500):
        split = rng.normal(70, 8, 6)  # both rows share what makes a split hard
        low, high = paired.compare(split + 3 + rng.normal(0, 2, 6), split, 0.0).plain
        covers += low <= 3 <= high
    assert 0.928 <= covers / 500 <= 0.972


def right(rng: np.random.Generator, splits: int, scenes: int, p: float) -> list[list[bool]]:
    return (rng.random((splits, scenes)) < p).tolist()  # type: ignore[no-any-return]


def test_bootstrap_contains_the_mean_and_shrinks_with_more_scenes(paired: ModuleType) -> None:
    rng, widths = np.random.default_rng(1), []
    for scenes in (40, 640):
        a, b = right(rng, 8, scenes, 0.8), right(rng, 8, scenes, 0.7)
        packed = [paired.pack(r) for r in a], [paired.pack(r) for r in b]
        accuracy = [[100 * np.mean(r) for r in side] for side in (a, b)]
        found = paired.compare(*accuracy, 0.1, packed)
        low, high = found.bootstrap
        assert low < found.mean < high
        assert found.bootstrap == paired.compare(*accuracy, 0.1, packed).bootstrap
        widths.append(high - low)
    assert widths[1] < widths[0] / 2.5  # 16 times the scenes: a quarter of the width
    narrow = paired.compare(*accuracy, 0.1, packed, level=0.5).bootstrap
    assert narrow[1] - narrow[0] < widths[1] / 2


def test_bootstrap_resamples_splits_and_scenes(paired: ModuleType) -> None:
    """Where all splits agree, scenes alone are left: width 2 · 1.96 σ / √n. Where all scenes agree, splits alone."""
    scene = np.arange(400) % 5 == 0  # right in one row and wrong in the other
    one, none = paired.pack(scene.tolist()), paired.pack([False] * 400)
    low, high = paired.compare([20.0] * 5, [0.0] * 5, 0.1, ([one] * 5, [none] * 5)).bootstrap
    assert high - low == pytest.approx(2 * 1.96 * 100 * math.sqrt(0.2 * 0.8 / 400), rel=0.08)
    whole = paired.pack([True] * 400)
    accuracy = [100.0] * 4 + [0.0] * 4
    found = paired.compare(accuracy, [0.0] * 8, 0.1, ([whole] * 4 + [none] * 4, [none] * 8)).bootstrap
    assert found[1] - found[0] == pytest.approx(2 * 1.96 * 100 * math.sqrt(0.25 / 8), rel=0.1)
    short = paired.pack([True] * 399)
    assert paired.compare([1.0, 2.0], [0.0, 1.0], 0.1, ([one, one], [short, short])).bootstrap is None


@given(st.lists(st.booleans(), max_size=70))
def test_packed_scenes_come_back(paired: ModuleType, scenes: list[bool]) -> None:
    text = paired.pack(scenes)
    assert paired.unpack(text).tolist() == scenes
    assert len(text) <= len(str(len(scenes))) + 1 + 2 * (len(scenes) // 8 + 1)
    json.dumps(text)


# ---- rows ----


def test_every_row_has_the_same_number_of_different_plans(rows: ModuleType) -> None:
    assert {len(plans) for plans in rows.ROWS.values()} == {4}
    for name, plans in rows.ROWS.items():
        assert len({repr(p) for p in plans}) == 4, name
        assert all(
            (p.affine == 0) == (name == "none") for p in plans
        )  # geometric augmentation ends all other rows
    for name in (*rows.AUTOMATIC, *rows.NEEDS_GENERATOR, *rows.BANKS):
        assert name in rows.ROWS


def test_automatic_rows_begin_with_affine_alone(rows: ModuleType, table: ModuleType) -> None:
    for name in rows.AUTOMATIC:
        first, *others = rows.ROWS[name]
        assert first == rows.Plan()
        assert rows.ROWS["affine"][0] == rows.Plan(recipe={"lr": table.SETTINGS["lr"]})  # the same training
        assert (first.affine, first.gain, first.mixing, first.ubf, first.pretrain) == (
            1.0,
            None,
            0.0,
            None,
            "",
        )
        assert all(p.ubf is not None or p.pretrain for p in others)
    generating = {
        n
        for n, plans in rows.ROWS.items()
        for p in plans
        if p.ubf and p.ubf["strategy"] in ("generate", "edit")
    }
    assert generating == set(rows.NEEDS_GENERATOR)


def test_spectral_gain_is_a_positive_smooth_factor_of_whole_images(rows: ModuleType) -> None:
    torch.manual_seed(0)
    nm = torch.linspace(400, 1000, 31)
    x = 0.1 + torch.rand(400, 31, 3, 2)
    batch = {"image": x, "label": torch.zeros(400), "place": "here"}
    found = rows.SpectralGain(nm, (0.2, 0.1), 0.75)(batch)
    gain = found["image"] / x
    torch.testing.assert_close(gain, gain[:, :, :1, :1].expand_as(gain))
    log = gain[:, :, 0, 0].log()
    assert torch.isfinite(log).all()  # gains are positive
    changed = (log != 0).any(1)
    assert 0.68 < float(changed.float().mean()) < 0.82
    log = log[changed]
    assert float(log.std()) == pytest.approx(math.hypot(0.2, 0.1), rel=0.1)
    assert float(log.mean()) == pytest.approx(0, abs=0.03)
    assert float(log.diff(dim=1).abs().max()) < 0.15  # 20 nm apart, of a deviation of 0.2 over 200 nm
    assert found["place"] == "here"
    assert found["label"] is batch["label"]
    assert torch.equal(rows.SpectralGain(nm, (0.2, 0.1), 0.0)(batch)["image"], x)


def test_pretraining_on_bands_tells_them_before_the_gain(
    rows: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control of pretraining: flat images, whose input is the told bands times one smooth gain."""
    found: dict[str, Any] = {}

    def learn(draw: Any, count: int, *_: Any, **__: Any) -> None:
        found["x"], found["told"] = draw(torch.arange(count), torch.Generator().manual_seed(0))

    monkeypatch.setattr(rows, "learn", learn)
    images = torch.linspace(0.1, 0.5, 24).view(6, 4, 1, 1).expand(-1, -1, 8, 8).contiguous()
    rows.pretrain_bands(
        images,
        torch.tensor(NM),
        Recipe(),
        checkpoint=Path("x"),
        seed=0,
        fabric=make_fabric(accelerator="cpu"),
    )
    gain = found["x"].mean((2, 3)) / found["told"][:, :4]
    assert 0.02 < float(gain.log().std()) < 0.6
    assert float(gain.log().diff(dim=1).abs().max()) < 0.6
    assert found["told"].shape == (6, 12)
    assert float(found["told"][:, :4].min()) >= 0.1  # joined images of the six, before any gain
    assert float(found["told"][:, :4].max()) <= 0.5


def test_mask_mix_labels_are_the_shares_of_the_mask(rows: ModuleType) -> None:
    """Images of one value per class: the mean of a mixed image says what share of each class it holds."""
    torch.manual_seed(0)
    y = torch.arange(300) % 3
    value = torch.tensor([0.0, 1.0, 10.0])
    x = value[y][:, None, None, None].expand(-1, 2, 8, 8)
    found = rows.MaskMix(3, 0.6)({"image": x, "label": y, "place": 1})
    label = found["label"]
    assert label.shape == (300, 3)
    torch.testing.assert_close(label.sum(1), torch.ones(300))
    assert float(label.min()) >= 0
    torch.testing.assert_close(found["image"].mean((1, 2, 3)), label @ value, atol=1e-5, rtol=1e-5)
    mixed = (label.max(1).values < 1 - 1e-6).float().mean()
    assert float(mixed) == pytest.approx(0.6 * 2 / 3, abs=0.09)  # a third of the partners have the same class
    unmixed = rows.MaskMix(3, 0.0)({"image": x, "label": y})
    assert torch.equal(unmixed["label"], F.one_hot(y, 3).float())
    torch.testing.assert_close(unmixed["image"], x)


def test_fading_lowers_the_share_linearly_to_zero(rows: ModuleType) -> None:
    class Asked(nn.Module):
        p, seen = 0.8, ()

        def forward(self, batch: Any) -> Any:
            self.seen += (self.p,)
            return batch

    asked = Asked()
    fade = rows.Fade(asked, 4)
    for _ in range(6):
        fade({})
    assert asked.seen == pytest.approx((0.8, 0.6, 0.4, 0.2, 0.0, 0.0))


def test_the_rows_of_pictures_differ_in_one_thing(rows: ModuleType) -> None:
    """What is done about synthetic images is compared at the share of `bank`, but for the one that gives every image one."""
    plain = rows.ROWS["bank"][0]
    for name in ("bank-light", "bank-kept"):
        changed = rows.ROWS[name][0]
        fields = [f for f in plain.__dataclass_fields__ if getattr(plain, f) != getattr(changed, f)]
        assert len(fields) == 1, name
    assert rows.ROWS["bank-fade"][0].ubf["p"] == 2 * plain.ubf["p"]  # the same share, on average
    split = rows.ROWS["bank-split"][0]
    assert (split.ubf["p"], split.ubf["placement"], split.recipe["split_batch_norm"]) == (1.0, "append", True)


def test_a_plan_becomes_modules_in_order(rows: ModuleType) -> None:
    nm = torch.tensor(NM)

    def kinds(plan: Any) -> list[str]:
        return [type(m).__name__ for m in rows.augmentation(plan, nm, ("a", "b"), None, None, 9)(0)]

    assert kinds(rows.Plan(affine=0)) == []
    assert kinds(rows.Plan()) == ["AugmentationSequential"]
    plan = rows.Plan(gain=(0.1, 0.1), mixing=0.5)
    assert kinds(plan) == ["SpectralGain", "AugmentationSequential", "MaskMix"]
    batch = {"image": torch.rand(4, 4, 8, 8), "label": torch.tensor([0, 1, 0, 1])}
    nothing = rows.augmentation(rows.Plan(affine=0), nm, ("a", "b"), None, None, 9)(0)
    assert nothing(batch) is batch
    assert isinstance(nothing, nn.Module)
    mixed = rows.augmentation(plan, nm, ("a", "b"), None, None, 9)(0)(batch)
    assert mixed["image"].shape == (4, 4, 8, 8)
    assert mixed["label"].shape == (4, 2)


# ---- the table, from end to end ----


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of eight images 8×8, four bands: water is dark in the infrared, fields are bright."""
    root, g = tmp_path_factory.mktemp("scenes"), torch.Generator().manual_seed(0)
    spectra = {"field": [0.08, 0.12, 0.1, 0.4], "water": [0.09, 0.08, 0.05, 0.02]}
    soil = torch.tensor([0.15, 0.2, 0.25, 0.3])[:, None, None]
    for name, values in spectra.items():
        (root / name).mkdir()
        for i in range(8):
            share = 0.4 * torch.rand(1, 8, 8, generator=g)
            image = (1 - share) * torch.tensor(values)[:, None, None] + share * soil
            image = image + 0.005 * torch.randn(4, 8, 8, generator=g)
            write_hsi(root / name / f"{i}.tif", image.clamp_min(0.001), NM)
    return root


@pytest.fixture
def home(table: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Journals and results of this test alone."""
    folder = tmp_path / "benchmarks"
    folder.mkdir()
    shutil.copy(FOLDER / "schema.json", folder)
    monkeypatch.setattr(sys.modules["common"], "HERE", folder)
    return tmp_path


Trainings = list[tuple[Any, int]]  # recipe and seed of each


@pytest.fixture
def trainings(table: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Trainings:
    """Every training that is begun, those of inner splits too."""
    from ubf_augment.classification import choice

    found: Trainings = []
    train = table.train_classifier

    def counted(data: Any, recipe: Any, *arguments: Any, **options: Any) -> Any:
        found.append((recipe, options["seed"]))
        return train(data, recipe, *arguments, **options)

    monkeypatch.setattr(table, "train_classifier", counted)
    monkeypatch.setattr(choice, "train_classifier", counted)
    return found


@pytest.fixture
def run(
    table: ModuleType, home: Path, made: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., dict[str, Any]]:
    def call(rows: str, *more: str) -> dict[str, Any]:
        words = [
            "--dataset", "folder", "--root", str(made), "--data", str(made), "--models", "test_resnet", "--rows",
            *rows.split(), "--steps", "2", "--size", "32", "--seeds", "2", "--accelerator", "cpu", "--out",
            str(home / "out"), "--overwrite", *more,
        ]  # fmt: skip
        monkeypatch.setattr(sys, "argv", ["benchmarks/augmentation_table.py", *words])
        monkeypatch.setitem(table.SETTINGS, "pretraining steps", {"quick": 3, "full": 3})
        table.main()
        found: dict[str, Any] = json.loads((home / "out" / "augmentation-folder-quick.json").read_text())
        return found

    return call


def test_what_is_done_about_imbalance_by_hand(table: ModuleType) -> None:
    """Four classes with 9, 3, 9 and 3 training images: two splits, ten test scenes per class."""
    gains = sys.modules["gains"]

    class Tables:
        settings: dict[str, Any] = {"per class": [9, 3]}  # noqa: RUF012

        def __init__(self) -> None:
            self.made: dict[str, tuple[list[str], list[list[Any]]]] = {}

        def table(self, title: str, columns: list[str], lines: list[list[Any]], digits: list[int]) -> None:
            assert all(len(line) == len(columns) == len(digits) + 1 for line in lines)
            self.made[title] = columns, lines

    def of(*recalls: list[int]) -> list[dict[str, Any]]:
        pack = sys.modules["paired"].pack
        return [
            {
                "accuracy": sum(r) / 4, "macro_recall": sum(r) / 4, "recalls": r, "nll": 1.0, "train_accuracy": 100.0,
                "synthetic": 0.0, "steps": 1, "seconds": 1.0, "right": pack([i < v // 10 for v in r for i in range(10)]),
            }
            for r in recalls
        ]  # fmt: skip

    runs = {
        "affine": of([90, 10, 80, 20], [90, 20, 90, 20]),  # 50, 55
        "class-weights": of([70, 30, 60, 20], [70, 40, 60, 30]),  # 45, 50
        "oversample": of([80, 40, 70, 30], [80, 40, 70, 30]),  # 55, 55: the best
        "balance": of([80, 50, 80, 50], [90, 40, 80, 30]),  # 65, 60
    }

    class Balanced:
        shared, fixed_test = 2.0, True

    result = Tables()
    gains.tables(result, "net", runs, Balanced, ("a", "b", "c", "d"))
    columns, lines = result.made["net: what is done about imbalance"]
    assert columns[1] == "gain in macro recall over oversample"
    assert columns[4:] == ["recall of classes with 9", "recall of classes with 3"]
    found = {line[0]: line[1:] for line in lines}
    assert found["oversample"][:3] == [None, None, None]
    assert found["balance"][0]["centre"] == pytest.approx(7.5)  # (10 + 5) / 2
    assert found["affine"][0]["centre"] == pytest.approx(-2.5)  # (−5 + 0) / 2
    low, high = stats.t.interval(0.95, 1, 7.5, 2.5)
    assert found["balance"][1] == f"[{low:+.1f}, {high:+.1f}]"
    low, high = map(float, found["balance"][2].strip("[]").split(","))  # bootstrap: the tests are balanced
    assert 0 <= low < 7.5 < high
    assert [cell["centre"] for cell in found["balance"][3:]] == pytest.approx([82.5, 42.5])
    assert [cell["centre"] for cell in found["affine"][3:]] == pytest.approx([87.5, 17.5])
    for row in runs[
        "balance"
    ]:  # an unbalanced test side: accuracy is another figure, and so are its intervals
        row["accuracy"] += 1
    gains.tables(result, "net", runs, Balanced, ("a", "b", "c", "d"))
    assert [line[3] for line in result.made["net: what is done about imbalance"][1]] == [None] * 4


ROWS = "none affine vary ubf"


def test_a_run_gives_a_result_and_the_second_trains_nothing(
    table: ModuleType, run: Callable[..., dict[str, Any]], trainings: Trainings, home: Path
) -> None:
    found = run(ROWS)
    common = sys.modules["common"]
    assert common.violations(found, json.loads((FOLDER / "schema.json").read_text())) == []
    assert (home / "out" / "augmentation-folder-quick.md").read_text() == common.markdown(found)
    assert len(trainings) == 8
    assert {r.steps for r, _ in trainings} == {2}
    assert len({seed for _, seed in trainings}) == 2  # rows are paired: one seed per split
    runs = found["runs"]
    assert [(r["row"], r["split"]) for r in runs] == [(row, i) for row in ROWS.split() for i in (0, 1)]
    assert [r["plan"] for r in runs] == [0] * 6 + [1] * 2  # untuned: `ubf` shows its second plan
    unpack = sys.modules["paired"].unpack
    for r in runs:
        assert r["n"] == len(unpack(r["right"])) == 5
        assert r["accuracy"] == pytest.approx(100 * unpack(r["right"]).mean())
        assert len(r["recalls"]) == 2
        assert r["synthetic"] == 0 if r["row"] in ("none", "affine") else r["synthetic"] > 0
        assert r["steps"] == (2 + 3 if r["row"] == "ubf" else 2)  # its untuned plan pretrains
    shown, recall = found["tables"]
    assert recall["title"] == "test_resnet: recall"
    for line, row in zip(recall["rows"], ROWS.split(), strict=True):
        of = [r["recalls"] for r in runs if r["row"] == row]
        assert [cell["centre"] for cell in line[1:]] == pytest.approx(np.mean(of, 0).tolist())
    assert (home / "out" / "augmentation-folder-quick.png").stat().st_size > 5000
    assert shown["title"] == "test_resnet"
    assert [row[0] for row in shown["rows"]] == ROWS.split()
    assert all(len(row) == len(shown["columns"]) == len(shown["digits"]) + 1 for row in shown["rows"])
    mine, base = ([r["accuracy"] for r in runs if r["row"] == row] for row in ("vary", "affine"))
    gain = dict(zip(shown["columns"], shown["rows"][2], strict=True))
    assert gain["gain over affine"]["centre"] == pytest.approx(np.subtract(mine, base).mean())
    expected = stats.ttest_rel(mine, base).confidence_interval() if mine != base else None
    if expected is not None and np.isfinite(expected.low):
        assert gain["plain 95 %"] == f"[{expected.low:+.1f}, {expected.high:+.1f}]"
    assert [c["text"].split(": ")[1].split()[0] for c in found["claims"]] == ["ubf", "the", "ubf"]
    again = run(ROWS)
    assert len(trainings) == 8
    assert again["runs"] == runs
    more = run(f"{ROWS} spectral-gain", "--seeds", "3")  # rows and seeds are added to what is there
    assert len(trainings) == 8 + 4 + 3
    assert [r for r in more["runs"] if r["split"] < 2 and r["row"] != "spectral-gain"] == runs


def test_an_interrupted_run_goes_on(
    table: ModuleType, run: Callable[..., dict[str, Any]], trainings: Trainings, home: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    counted = table.train_classifier

    def stopped(*arguments: Any, **options: Any) -> Any:
        if len(trainings) == 3:
            raise KeyboardInterrupt
        return counted(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(table, "train_classifier", stopped)
        with pytest.raises(KeyboardInterrupt):
            run("none affine")
    [journal] = (home / "runs" / "benchmarks").glob("*.jsonl")
    with journal.open("a") as f:
        f.write('\n{"key": "test_resnet/affine/1", "value": {"acc')  # cut off
    found = run("none affine")
    assert len(trainings) == 4
    assert [r["split"] for r in found["runs"]] == [0, 1, 0, 1]
    assert list((home / "runs" / "benchmarks").glob("*.jsonl")) == [journal]
    run("none affine", "--fresh")
    assert len(trainings) == 8


def test_another_folder_has_another_journal(
    run: Callable[..., dict[str, Any]], trainings: Trainings, made: Path, tmp_path: Path
) -> None:
    run("affine", "--seeds", "1")
    shutil.copytree(made, tmp_path / "other" / made.name)
    run("affine", "--seeds", "1", "--root", str(tmp_path / "other" / made.name))
    assert len(trainings) == 2


def test_plans_are_chosen_on_inner_splits(
    table: ModuleType, run: Callable[..., dict[str, Any]], trainings: Trainings, home: Path
) -> None:
    found = run("affine ubf", "--seeds", "1", "--tuning", "2")
    assert len(trainings) == 2 * (4 * 2 + 1)  # two rows: four plans on two inner splits, then one training
    [journal] = (home / "runs" / "benchmarks").glob("*.jsonl")
    entries = [json.loads(line) for line in journal.read_text().splitlines() if line]
    found_for = {e["key"].split("/")[2]: e["value"] for e in entries if e["key"].startswith("tune/")}
    scores = {row: found_for[row]["scores"] for row in ("affine", "ubf")}
    assert all(
        list(s) == ["0", "1", "2", "3"] and {len(v) for v in s.values()} == {2} for s in scores.values()
    )
    best = max(range(4), key=lambda i: sum(scores["affine"][str(i)]))
    assert scores["affine"][str(best)] == scores["ubf"]["0"]  # the same plan, on the same inner splits
    from ubf_augment.classification import decide

    assert [r["plan"] for r in found["runs"]] == [best, int(decide(scores["ubf"], "0").name)]
    inner = [seed for _, seed in trainings[:8]]
    assert inner == [inner[0], inner[1]] * 4  # plans are paired too
    assert not any("Nothing is tuned" in note for note in found["notes"])
    assert [c["text"].split(": ")[1][:3] for c in found["claims"]] == ["ubf"]  # one split has no interval


def test_rows_that_need_pictures_are_refused_at_once(
    run: Callable[..., dict[str, Any]], trainings: Trainings
) -> None:
    with pytest.raises(
        SystemExit, match=r"folder has no labelled pictures of another source: leave out bank bank-light$"
    ):
        run("affine bank bank-light")
    assert trainings == []


def test_pretrained_weights_are_kept_and_counted(
    table: ModuleType,
    run: Callable[..., dict[str, Any]],
    trainings: Trainings,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = run("affine affine-long pretrain pretrain-bands", "--seeds", "1")
    assert {r["row"]: r["steps"] for r in found["runs"]} == {
        "affine": 2, "affine-long": 5, "pretrain": 5, "pretrain-bands": 5,
    }  # fmt: skip
    kept = sorted(f.name for f in (home / "runs").rglob("*.pt"))
    assert kept == ["test_resnet-abundances-0.pt", "test_resnet-bands-0.pt"]
    assert not list((home / "runs").rglob("*.resume"))

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("the weights of the split are there")

    monkeypatch.setattr(table, "pretrain", never)
    more = run("affine affine-long pretrain pretrain-bands pretrain-vary", "--seeds", "1")
    last = [r for r in more["runs"] if r["row"] == "pretrain-vary"]
    assert len(last) == 1
    assert last[0]["steps"] == 5
    assert len(trainings) == 5


def test_generate(
    table: ModuleType,
    run: Callable[..., dict[str, Any]],
    trainings: Trainings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(table.SETTINGS, "generator steps", {"quick": 2, "full": 2})
    found = run("affine generate balance", "--seeds", "1")
    shares = {r["row"]: r["synthetic"] for r in found["runs"]}
    assert shares["affine"] == 0
    assert 0.05 < shares["generate"] < 0.5
    assert 0.05 < shares["balance"] < 0.5
    assert len(trainings) == 3
