"""Wheel and sdist are built; the wheel works in an environment of its own, with the packaged bundles."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from doc_blocks import ROOT, blocks
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import ubf_augment

pytestmark = pytest.mark.slow


def run(*words: str | Path, cwd: Path) -> str:
    """Run a command outside the source tree."""
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run(
        [str(w) for w in words], cwd=cwd, env=environment | {"OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"},
        capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, f"{words}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of an sdist, and of a wheel that was made from it."""
    pytest.importorskip("build")
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    return folder


@pytest.fixture(scope="module")
def python(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Python of a new environment with the wheel; what it depends on is borrowed from this one."""
    folder = tmp_path_factory.mktemp("clean")
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder)
    python = folder / "bin" / "python"
    site = Path(
        run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip()
    )
    (site / "borrowed.pth").write_text("\n".join(p for p in sys.path if p.endswith("site-packages")))
    (wheel,) = built.glob("*.whl")
    install = (
        sys.executable,
        "-m",
        "pip",
        "--python",
        python,
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
    )
    run(*install, "--force-reinstall", "--target", site, wheel, cwd=folder)
    return python


def test_what_is_in_the_wheel_and_the_sdist(built: Path) -> None:
    (wheel,), (sdist,) = built.glob("*.whl"), built.glob("*.tar.gz")
    assert wheel.name == f"ubf_augment-{ubf_augment.__version__}-py3-none-any.whl"
    assert sdist.name == f"ubf_augment-{ubf_augment.__version__}.tar.gz"
    ours = set(zipfile.ZipFile(wheel).namelist())
    tracked = subprocess.run(
        ["git", "ls-files", "ubf_augment"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if tracked.returncode == 0:
        assert {f for f in tracked.stdout.splitlines() if (ROOT / f).exists()} <= ours
    assert "ubf_augment/py.typed" in ours
    assert all(name.startswith(("ubf_augment/", "ubf_augment-")) for name in ours)
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for needed in (
        "README.md",
        "LICENSE",
        "CITATION.cff",
        "Makefile",
        "constraints.txt",
        "constraints-lowest.txt",
        "docs/conf.py",
        "tests/tiny.py",
    ):
        assert needed in names
    assert not [name for name in names if name.startswith((".venv", "site", "runs", "data"))]
    assert max(wheel.stat().st_size, sdist.stat().st_size) < 60 << 20


def test_the_lowest_versions_allowed_are_those_tested() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    allowed = {
        (canonicalize_name(needed.name), Version(bound.version))
        for needed in map(Requirement, [*project["dependencies"], *extras["demo"], *extras["library"], *extras["bench"]])
        for bound in needed.specifier
        if bound.operator == ">="
    }  # fmt: skip
    lines = (ROOT / "constraints-lowest.txt").read_text().splitlines()
    pins = [line.split("==") for line in lines if not line.startswith("#")]
    assert {(canonicalize_name(name), Version(version)) for name, version in pins} >= allowed


def test_packaged_bundles_and_the_command_work(python: Path, tmp_path: Path) -> None:
    code = (
        "import ubf_augment, importlib.metadata as m\n"
        "assert m.version('ubf_augment') == ubf_augment.__version__\n"
        "print(ubf_augment.__file__)\n"
        "for name in ubf_augment.list_pretrained():\n"
        "    synth = ubf_augment.HSISynthesizer.from_pretrained(name)\n"
        "    assert synth.sample([synth.classes[0]], seed=0, steps=1).isfinite().all()\n"
        "    print(name)\n"
    )
    where, *names = run(python, "-c", code, cwd=tmp_path).split("\n")
    assert Path(where).is_relative_to(python.parent.parent)
    assert set(names) - {""} == set(ubf_augment.list_pretrained())
    listed = run(python, "-m", "ubf_augment.cli", "list", cwd=tmp_path)
    assert all(name in listed for name in ubf_augment.list_pretrained())
    words = ("report", "indian-pines", "-o", "page", "--per_class", "1", "--options", "{'steps': 1}")
    run(python, "-m", "ubf_augment.cli", *words, cwd=tmp_path)
    assert (tmp_path / "page" / "index.html").stat().st_size > 100_000


def test_the_first_example_of_the_readme_runs_as_it_stands(python: Path, tmp_path: Path) -> None:
    example = next(block.code for block in blocks(ROOT / "README.md") if block.language == "python")
    check = (
        'assert set(batch) == {"image", "label", "is_synthetic"}\nprint(tuple(batch["image"].shape[1:]))\n'
    )
    assert run(python, "-c", f"{example}\n{check}", cwd=tmp_path).strip().endswith("(200, 8, 8)")


def test_types_are_seen_from_outside(python: Path, tmp_path: Path) -> None:
    """A program that uses the installed package is checked strictly, and a wrong call is found."""
    pytest.importorskip("mypy")
    (tmp_path / "program.py").write_text(
        "from ubf_augment import HSISynthesizer, UBFAugment\n"
        'synth = HSISynthesizer.from_pretrained("indian-pines")\n'
        'augment = UBFAugment(synth, p=0.5, strategy="vary")\n'
        'augment = UBFAugment(synth, p=0.5, strategy="varry")\n'
    )
    (tmp_path / "mypy.ini").write_text(  # other packages are not read: that takes a minute
        "[mypy]\nfollow_imports = skip\n[mypy-ubf_augment.*]\nfollow_imports = silent\n"
    )
    words = (sys.executable, "-m", "mypy", "--strict", "--python-executable", python, "program.py")
    found = subprocess.run([str(w) for w in words], cwd=tmp_path, capture_output=True, text=True, check=False)
    errors = [line for line in found.stdout.splitlines() if "error:" in line]
    assert len(errors) == 1, found.stdout
    assert errors[0].startswith("program.py:4:")
    assert "varry" in errors[0]
