"""The picture of `throughput.py`: samples, training steps, decoding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from common import Result

from ubf_augment.plotting.parts import finish

_GOALS = {"Pool": 1.1, "Live": 2.0}


def draw(result: Result, json: Path) -> Path:
    """Write ``<name>.png`` beside the JSON."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 6.2), layout="constrained")
    left, middle, right = figure.subplots(1, 3, width_ratios=(1.25, 1, 0.8))
    _samples(left, _table(result, "A sample"))
    _steps(middle, [t for t in result.tables if t["title"].startswith("Milliseconds")])
    _decoding(right, [t for t in result.tables if t["title"].startswith("Decoding")])
    path = json.with_suffix(".png")
    finish(figure, path, 100)
    return path


def _table(result: Result, start: str) -> dict[str, Any]:
    return next(t for t in result.tables if t["title"].startswith(start))


def _samples(axes: Any, table: dict[str, Any]) -> None:
    rows = table["rows"][::-1]
    values = [row[3]["centre"] for row in rows]
    colours = [
        "tab:grey" if r[0] == "reference" else "tab:orange" if r[0] == "bundle" else "tab:blue" for r in rows
    ]
    axes.barh([row[0] for row in rows], values, color=colours)
    for i, value in enumerate(values):
        axes.text(1.15 * value, i, f"{value:.3g} s", va="center", fontsize=8)
    axes.set(xscale="log", xlabel="seconds per sample", title=table["title"], xlim=(None, 20 * max(values)))
    axes.tick_params(axis="y", labelsize=8)


def _steps(axes: Any, tables: list[dict[str, Any]]) -> None:
    names = [row[0] for row in tables[0]["rows"][1:]]
    height = 0.8 / len(tables)
    for k, table in enumerate(tables):
        places = [i + k * height for i in range(len(names))]
        values = [row[4] for row in table["rows"][1:]]
        axes.barh(places, values, height * 0.95, label=table["title"].split(", ")[-1])
        for y, value in zip(places, values, strict=True):
            axes.text(value + 0.03, y, f"{value:.2f}", va="center", fontsize=8)
    axes.axvline(1, color="black", lw=1)
    for goal in _GOALS.values():
        axes.axvline(goal, color="tab:red", lw=1, ls=":")
    axes.set_yticks([i + height * (len(tables) - 1) / 2 for i in range(len(names))], names, fontsize=8)
    axes.invert_yaxis()
    axes.set(
        xlabel="training step with p = 0.5, × plain, by means", title="Sources (dotted: goals of Pool, Live)"
    )
    axes.set_xlim(0.9, axes.get_xlim()[1] + 0.15)
    axes.legend(fontsize=8)


def _decoding(axes: Any, tables: list[dict[str, Any]]) -> None:
    height = 0.8 / len(tables)
    names = [row[0] for row in tables[0]["rows"]]
    for k, table in enumerate(tables):
        places = [i + k * height for i in range(len(names))]
        values = [row[3] for row in table["rows"]]
        axes.barh(
            places, values, height * 0.95, label=table["title"].removeprefix("Decoding").strip(", ") or None
        )
        for y, value in zip(places, values, strict=True):
            axes.text(value + 1, y, f"{value:.0f}", va="center", fontsize=8)
    axes.axvline(50, color="tab:red", lw=1, ls=":")
    labels = [name.replace(", ", ",\n") for name in names]
    axes.set_yticks([i + height * (len(tables) - 1) / 2 for i in range(len(names))], labels, fontsize=8)
    axes.invert_yaxis()
    axes.set(xlabel="% of the bandwidth of a copy", title="Decoding")
    axes.set_xlim(0, axes.get_xlim()[1] * 1.08)
    if len(tables) > 1:
        axes.legend(fontsize=8)
