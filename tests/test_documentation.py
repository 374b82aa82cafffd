"""Every code block of the README and of the documentation runs; links lead somewhere; versions agree."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import matplotlib
import pytest
import torch
import yaml
from doc_blocks import ROOT, Block, blocks, pages
from test_cli import made_folders
from tiny import E, tiny_synth

import ubf_augment
from ubf_augment import write_hsi
from ubf_augment.classification import Recipe
from ubf_augment.cli import main
from ubf_augment.io import read_hsi

# What a page takes for granted, where its blocks are excerpts.
BEFORE = {
    "docs/api/baselines.md": """
        import torch
        from ubf_augment import HSISynthesizer, UBFAugment
        from ubf_augment.baselines import MSTPlusPlus
        synth = HSISynthesizer.from_pretrained("aid-chikusei")
        nm, hsis = synth.wavelengths, [0.3 * torch.rand(59, 32, 32) for _ in range(2)]
        pictures = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    """,
    "docs/api/metrics.md": """
        import torch
        from ubf_augment.datasets import IndianPines
        test = IndianPines("test")
        wavelengths = test.wavelengths
        real_images = torch.stack([test[i]["image"] for i in range(0, 40, 2)])
        made_images = torch.stack([test[i]["image"] for i in range(1, 40, 2)])
    """,
}
# Options that shorten a command; everything else stands as it is in the text.
SHORTER = {
    "sample": ["--options", "{'steps': 1}", "--sheet", "false"],
    "pretrain": ["--recipe.steps", "2", "--recipe.batch_size", "4", "--threads", "1"],
    "report": ["--evaluate", "0", "--per_class", "1", "--options", "{'steps': 1}"],
    "distill": ["--steps", "1", "--scenes", "8", "--batch_size", "2", "--sheet", "false", "--threads", "1"],
    "unmix": ["--sheet", "false"],
    "adapt": ["--sheet", "false"],
}  # fmt: skip
# Excerpts for data that nobody ships: test_dataset_table.py holds their commands, imports and scripts to the code.
ELSEWHERE = {"docs/datasets.md"}
_SHELL = {"sh", "bash", "console", "shell"}


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def has(*languages: str) -> list[Path]:
    """Pages whose blocks in one of the languages are run here."""
    mine = [page for page in pages() if name(page) not in ELSEWHERE]
    return [page for page in mine if any(block.language in languages for block in blocks(page))]


def test_a_page_is_cut_into_its_blocks(tmp_path: Path) -> None:
    text = "a\n```python\nx = 1\n```\n```{include} other.md\n```\n```{code-cell} ipython3\n:tags: [a]\n\n%magic\ny = 2\n```\n"
    (tmp_path / "page.md").write_text(text)
    found = blocks(tmp_path / "page.md")
    assert [(b.line, b.language, b.code.strip()) for b in found] == [
        (2, "python", "x = 1"),
        (7, "python", "y = 2"),
    ]
    (tmp_path / "page.py").write_text("# %% [markdown]\n# text\n# ```sh\n# ubf list\n# ```\n\n# %%\nx = 1\n")
    assert blocks(tmp_path / "page.py") == [Block(3, "sh", "ubf list\n")]


def test_every_block_has_a_language_that_is_run_here() -> None:
    known = {"python", "yaml", "bibtex", "text", *_SHELL}
    strange = [
        f"{name(p)}:{b.line} {b.language!r}" for p in pages() for b in blocks(p) if b.language not in known
    ]
    assert strange == []


@pytest.mark.slow
@pytest.mark.parametrize("page", has("python"), ids=name)
def test_python_blocks_run_in_order(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks of a page as one program; networks are trained for two steps instead of a thousand."""
    monkeypatch.chdir(tmp_path)
    few = partial(ubf_augment.pretrain, recipe=Recipe(steps=2, batch_size=4), progress=False)
    monkeypatch.setattr(ubf_augment, "pretrain", few)
    matplotlib.use("agg")
    torch.set_num_threads(1)
    namespace: dict[str, Any] = {"__name__": "page"}
    before = BEFORE.get(name(page), "")
    exec("\n".join(line.strip() for line in before.splitlines()), namespace)
    for block in blocks(page):
        if block.language == "python":
            code = block.code.replace("steps=1000", "steps=2")
            exec(compile("\n" * block.line + code, str(page), "exec"), namespace)


@pytest.mark.slow
@pytest.mark.parametrize("page", has(*_SHELL), ids=name)
def test_commands_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every command, in the order of the page, on made files of the names that stand there."""
    made_images(tmp_path)
    monkeypatch.chdir(tmp_path)
    for block in blocks(page):
        if block.language in _SHELL:
            for line in block.code.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True)
                if words:
                    check_command(words, tmp_path)


def check_command(words: list[str], folder: Path) -> None:
    if words[0] == "ubf":
        if words[1:3] == ["report", "my-bundle"]:
            tiny_bundle(folder)
        assert main([*words[1:], *SHORTER.get(words[1], [])]) == 0, words
    elif words[0] == "make":
        targets = re.findall(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert words[1] in targets[0].split()
    else:
        assert words[:2] in (["pip", "install"], ["torchgeo", "fit"], ["hf", "auth"]), words
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        for extra in re.findall(r"\[(.*?)\]", " ".join(words)):
            assert extra in extras


def made_images(folder: Path) -> None:
    """``my_images``, class folders of images of the bands of `tiny`; ``scene.tif``; ``fit.yaml`` with its files."""
    g = torch.Generator().manual_seed(0)
    for kind in ("Forest", "AnnualCrop"):
        for i in range(4):
            a = torch.softmax(2 * torch.randn(3, 16, 16, generator=g), 0)
            write_hsi(
                folder / "my_images" / kind / f"{i}.tif",
                torch.einsum("phw,pc->chw", a, E.spectra),
                E.wavelengths,
            )
    scene = read_hsi(folder / "my_images" / "Forest" / "0.tif")
    write_hsi(folder / "scene.tif", scene.image, scene.wavelengths)
    made_folders(folder)


def tiny_bundle(folder: Path) -> None:
    """``my-bundle``, of the sensor of ``my_images``."""
    from ubf_augment import HSISynthesizer, get_generator

    if not (folder / "my-bundle").exists():
        generator = get_generator("ddpm", num_endmembers=3, size=(8, 8), num_classes=3, widths=(16, 16))
        HSISynthesizer(
            E, generator, residual=tiny_synth().residual, classes=("Forest", "Farmland", "Lake")
        ).save_pretrained(folder / "my-bundle")


def test_yaml_blocks_are_yaml() -> None:
    for page in pages():
        for block in blocks(page):
            assert block.language != "yaml" or yaml.safe_load(block.code), f"{page}:{block.line}"


@pytest.mark.slow
@pytest.mark.parametrize("script", sorted((ROOT / "docs" / "tutorials").glob("*.py")), ids=lambda p: p.stem)
def test_tutorials_run(script: Path, tmp_path: Path) -> None:
    """As the build of the documentation runs them, but in a plain interpreter."""
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, timeout=600,
        env={**os.environ, "MPLBACKEND": "agg", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize("page", [p for p in pages() if p.suffix == ".md"], ids=name)
def test_links_between_files_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text)
    missing = [link for link in links if not re.match(r"[a-z]+:", link) and not (page.parent / link).exists()]
    assert missing == []


def test_every_page_is_in_a_table_of_contents() -> None:
    docs = ROOT / "docs"
    listed = set()
    for index in docs.rglob("index.md"):
        for block in re.findall(r"```\{toctree\}\n(.*?)```", index.read_text(encoding="utf-8"), re.DOTALL):
            lines = [line.strip() for line in block.splitlines()]
            listed |= {(index.parent / line).resolve() for line in lines if line and not line.startswith(":")}
    written = {p.with_suffix("") for p in pages() if p.is_relative_to(docs) and p != docs / "index.md"}
    assert written == listed


def test_model_cards_of_all_packaged_bundles_are_in_the_documentation() -> None:
    text = (ROOT / "docs" / "model_cards.md").read_text(encoding="utf-8")
    assert [b for b in ubf_augment.list_pretrained() if f"weights/{b}/README.md" not in text] == []


def test_public_names_are_in_the_reference() -> None:
    text = (ROOT / "docs" / "api" / "index.md").read_text(encoding="utf-8")
    assert [
        n
        for n in ubf_augment.__all__
        if f"{{py:class}}`{n} <" not in text and f"{{py:func}}`{n} <" not in text
    ] == []


def test_the_version_is_written_once() -> None:
    """In the package; metadata take it from there, and the citation file says the same."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["dynamic"] == ["version"]
    assert "version" not in project
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert str(citation["version"]) == ubf_augment.__version__
    assert version("ubf_augment") == ubf_augment.__version__
