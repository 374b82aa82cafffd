"""The augmentation table of the project's README, made from `results/augmentation-*.json`.

    python benchmarks/readme.py            # print it
    python benchmarks/readme.py --write    # put it between the markers of README.md

One column for each data set and network: accuracy of `affine`, and of every other row its gain over affine, split by split,
with the interval that judges it: over splits and test scenes (bootstrap) where all splits share a test side, else the plain
one. Where a result of the full preset exists, that of the quick one is left out; so are second tables of a data set (--tag).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rows import BASELINE, ROWS

HERE = Path(__file__).resolve().parent
BEGIN, END = "<!-- augmentation table -->", "<!-- end of the augmentation table -->"
TITLES = {
    "aid-few": "AID as three bands",
    "cross-sensor": "one scene of three left out",
    "eurosat-few": "EuroSAT",
    "indian-pines": "Indian Pines",
    "aid-few-imbalanced": "AID, 20, 10, 5, 2 scenes per class",
    "eurosat": "whole EuroSAT",
    "hsrs-sc": "HSRS-SC",
    "twin": "simulated twin",
}


def results(folder: Path) -> dict[str, Mapping[str, Any]]:
    """Protocol → its result; the full preset before the quick one."""
    found: dict[str, Mapping[str, Any]] = {}
    for path in sorted(folder.glob("augmentation-*.json")):
        content = json.loads(path.read_text())
        name = content["name"].removeprefix("augmentation-")
        if name in TITLES and (name not in found or content["preset"] == "full"):
            found[name] = content
    return found


def columns(found: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, str]]:
    """Title of a column → row → cell."""
    made: dict[str, dict[str, str]] = {}
    for name, content in found.items():
        for model in dict.fromkeys(run["model"] for run in content["runs"]):
            table = next(t for t in content["tables"] if t["title"] == model)
            count, preset = len(content["seeds"]), "" if content["preset"] == "full" else ", quick"
            title = f"{TITLES[name]}, {model}, {count} splits{preset}"
            rows = [dict(zip(table["columns"], row, strict=True)) for row in table["rows"]]
            made[title] = {row["augmentation"]: cell(row) for row in rows}
    return made


def cell(row: Mapping[str, Any]) -> str:
    """Accuracy of the baseline; gain and interval of the others."""
    if row["augmentation"] == BASELINE:
        return f"{row['accuracy']['centre']:.1f} ± {row['accuracy']['spread']:.1f} %"
    gain, limits = row["gain over affine"], row["bootstrap 95 %"] or row["plain 95 %"]
    return f"{gain['centre']:+.1f} {limits}"


def table(folder: Path = HERE / "results") -> str:
    """The table as Markdown."""
    made = columns(results(folder))
    shown = [row for row in (BASELINE, *ROWS) if any(row in cells for cells in made.values())]
    lines = ["| augmentation | " + " | ".join(made) + " |", "|" + "---|" * (len(made) + 1)]
    lines += [
        f"| `{row}` | " + " | ".join(cells.get(row, "–") for cells in made.values()) + " |"
        for row in dict.fromkeys(shown)
    ]
    return "\n".join(lines)


def filled(text: str, made: str) -> str:
    """A text with the table between its markers.

    Raises:
        ValueError: if a marker is missing.
    """
    if BEGIN not in text or END not in text:
        raise ValueError(f"the text has no place for the table: put {BEGIN} and {END} into it")
    before, rest = text.split(BEGIN, 1)
    return f"{before}{BEGIN}\n\n{made}\n\n{END}{rest.split(END, 1)[1]}"


def main() -> None:
    """Print the table, or write it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true", help="put it into README.md")
    if not parser.parse_args().write:
        print(table())
        return
    path = HERE.parent / "README.md"
    path.write_text(filled(path.read_text(), table()))


if __name__ == "__main__":
    main()
