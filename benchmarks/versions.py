"""Versions that the tests pass with, by what `make test-matrix` left in its environments.

    make test-matrix
    python benchmarks/versions.py --preset full

Counted are the last tests that were run in each; failed are errors as well.
"""

from __future__ import annotations

from importlib.metadata import distributions
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from common import HERE, Result, arguments

SETTINGS: dict[str, Any] = {
    "environments": {"constraints.txt": ".venv", "newest": ".venv-newest", "lowest": ".venv-lowest"},
    "packages": ["torch", "torchgeo", "numpy", "kornia", "timm", "diffusers", "lightning"],
}


def main() -> None:
    """Read, count, write."""
    args = arguments(__doc__ or "")
    result = Result("versions", "Versions", "small real images and made ones.", args, [0], SETTINGS)
    rows = [row(name, HERE.parent / folder) for name, folder in SETTINGS["environments"].items()]
    columns = ["versions", "Python", *SETTINGS["packages"], "passed", "failed", "skipped", "on"]
    result.table("Quick tests", columns, rows, [0] * (len(columns) - 1))
    passed, failed, _, _ = zip(*(r[-4:] for r in rows), strict=True)
    result.claim(
        "the quick tests pass in each environment", not any(failed) and all(passed), f"{sum(passed)} passed"
    )
    result.write()


def row(name: str, folder: Path) -> list[Any]:
    """Versions in an environment, and what its tests came to."""
    site = next(folder.glob("lib/python*/site-packages"))
    found = {d.name.lower(): d.version for d in distributions(path=[str(site)])}
    suite = next(ElementTree.parse(folder / "tests.xml").iter("testsuite"))
    tests, skipped, *bad = (int(suite.get(k, 0)) for k in ("tests", "skipped", "failures", "errors"))
    return [
        name, site.parent.name.removeprefix("python"), *(found[p] for p in SETTINGS["packages"]),
        tests - skipped - sum(bad), sum(bad), skipped, suite.get("timestamp", "")[:10],
    ]  # fmt: skip


if __name__ == "__main__":
    main()
