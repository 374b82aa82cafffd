"""The benchmark scripts use public names, and their results fit the schema."""

from __future__ import annotations

import ast
import copy
import importlib
import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

FOLDER = Path(__file__).resolve().parent.parent / "benchmarks"
SCRIPTS = sorted(FOLDER.glob("*.py"))
pytestmark = pytest.mark.skipif(not SCRIPTS, reason="the benchmarks are not part of this installation")

RESULT: dict[str, Any] = {
    "name": "x", "title": "X", "command": "python", "date": "2026-01-01", "preset": "full", "seconds": 1.5,
    "environment": {
        "python": "3", "torch": "2", "ubf_augment": "0", "platform": "p", "cpu": "c", "cores": 2, "threads": 1,
        "device": "cpu",
    },
    "data": "d", "settings": {}, "seeds": [0],
    "tables": [{"title": "t", "columns": ["a", "b"], "digits": [2], "rows": [["r", None], ["s", 1.25]]}],
    "claims": [{"text": "t", "holds": False, "measured": "m"}], "runs": [{"seed": 0}], "notes": [],
}  # fmt: skip


@pytest.fixture(scope="module")
def common() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmarks_common", FOLDER / "common.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda p: p.name)
def test_scripts_import_public_names_only(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ubf_augment"):
            names = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
            assert not [name for name in names if name.startswith("_")]


@pytest.mark.parametrize("path", sorted(FOLDER.glob("results/*.json")), ids=lambda p: p.name)
def test_stored_results_fit_the_schema(common: ModuleType, path: Path) -> None:
    schema = json.loads((FOLDER / "schema.json").read_text())
    content = json.loads(path.read_text())
    assert common.violations(content, schema) == []
    assert path.with_suffix(".md").read_text() == common.markdown(content)


def test_a_good_result_and_bad_ones(common: ModuleType) -> None:
    schema = json.loads((FOLDER / "schema.json").read_text())
    assert common.violations(RESULT, schema) == []
    changes: list[tuple[list[Any], Any]] = [
        (["preset"], "huge"),
        (["seconds"], "long"),
        (["seeds"], []),
        (["seeds", 0], 0.5),
        (["environment", "cores"], True),
        (["tables", 0, "rows", 0, 1], {"centre": 1.0}),
        (["claims", 0, "holds"], "yes"),
        (["surprise"], 1),
    ]
    for path, value in changes:
        bad = copy.deepcopy(RESULT)
        at: Any = bad
        for key in path[:-1]:
            at = at[key]
        at[path[-1]] = value
        found = common.violations(bad, schema)
        assert len(found) == 1, (path, found)
    for key in RESULT:
        bad = {k: v for k, v in RESULT.items() if k != key}
        assert common.violations(bad, schema) == [f"result.{key}: missing"]


def test_cells(common: ModuleType) -> None:
    assert common.mean([1.0, 3.0])["spread"] == pytest.approx(2**0.5)
    assert common.median([1.0, 2.0, 3.0, 4.0, 100.0])["centre"] == 3
    table = {
        "title": "t",
        "columns": ["a", "b"],
        "digits": [2],
        "rows": [["r", common.mean([1.0, 3.0])], ["s", None]],
    }
    text = common.markdown(RESULT | {"tables": [table]})
    assert "| r | 2.00 ± 1.41 |" in text
    assert "| s | – |" in text
    assert "**does not hold**: t (m)" in text


@pytest.mark.parametrize("name", ["chikusei-aid", "eurosat-aid"])
@pytest.mark.parametrize("size", [32, 64])
def test_sources_of_generation_are_split(
    name: str, size: int, UBF_DATA: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both presets, both pairs: maps fit into both sides, and no picture or HSI pixel stands on both."""
    from argparse import Namespace

    monkeypatch.syspath_prepend(str(FOLDER))
    study = importlib.import_module("study")
    sources = study.load(Namespace(data=UBF_DATA, sources=name), size, 5)
    assert sources.unseen.shape[1:] == (len(sources.wavelengths), size, size)
    assert all(min(x.shape[1:]) >= size for x, _ in sources.hsis)
    assert len(sources.hsis) == len(sources.hsi_labels)
    assert set(sources.unseen_labels) == set(sources.hsi_labels)
    assert set(sources.held_out_labels) == set(sources.pictures)

    def rows(x: torch.Tensor) -> set[bytes]:
        return {row.tobytes() for row in x.contiguous().numpy()}

    assert not rows(torch.cat(list(sources.pictures.values()))) & rows(sources.held_out)
    seen, new = ([x.flatten(1).T for x in side] for side in ([x for x, _ in sources.hsis], sources.unseen))
    assert not rows(torch.cat(seen)) & rows(torch.cat(new))


def test_features_of_a_ramp_by_hand() -> None:
    """Values 0, 1, 2 along a row and the same in all rows: mean 1, deviation √(6/8), gradients 1 and 0."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        transfer = importlib.import_module("picture_transfer")
    ramp = torch.arange(3.0).expand(1, 1, 3, 3)
    x = torch.cat([ramp, torch.full((1, 1, 3, 3), 0.5)], 1)
    found = transfer.features(x)
    assert found.shape == (1, 6)
    assert found[0].tolist() == pytest.approx([1.0, 0.5, 0.75**0.5, 0.0, 0.5, 0.0])


def test_the_readme_holds_the_table_of_the_stored_results(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    readme = importlib.import_module("readme")
    text = (FOLDER.parent / "README.md").read_text()
    assert readme.filled(text, readme.table()) == text, "run: python benchmarks/readme.py --write"
    with pytest.raises(ValueError, match="no place for the table"):
        readme.filled("nothing here", "| a |")


def test_a_cell_gives_the_interval_that_judges_the_gain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    readme = importlib.import_module("readme")
    row = {"augmentation": "vary", "gain over affine": {"centre": 1.25}, "plain 95 %": "[-1, +3]"}
    assert readme.cell({**row, "bootstrap 95 %": None}) == "+1.2 [-1, +3]"
    assert readme.cell({**row, "bootstrap 95 %": "[+0, +2]"}) == "+1.2 [+0, +2]"
    assert readme.cell({"augmentation": "affine", "accuracy": {"centre": 50, "spread": 2}}) == "50.0 ± 2.0 %"


def test_every_result_stands_in_the_documentation() -> None:
    docs = FOLDER.parent / "docs"
    pages = "".join((docs / name).read_text() for name in ("evidence.md", "measured.md", "reliability.md"))
    assert [p.name for p in sorted(FOLDER.glob("results/*.md")) if f"results/{p.name}" not in pages] == []
