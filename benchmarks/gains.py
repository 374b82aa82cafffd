"""The augmentation table as tables and a figure: what each row reaches, and its paired gain over affine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from common import Result, mean
from paired import Paired, compare
from protocols import Protocol
from rows import AUTOMATIC, BASELINE, USUAL

from ubf_augment.plotting.parts import finish

Runs = Mapping[str, list[dict[str, Any]]]


def tables(result: Result, model: str, runs: Runs, protocol: Protocol, classes: tuple[str, ...]) -> None:
    """Two tables of a network: figures and gains of each row; recall of each class. And what was hoped for."""
    columns = ["augmentation", "accuracy", "macro recall", "neg. log-likelihood (nats)", "train accuracy", "gain over affine",
               "plain 95 %", "corrected 95 %", "bootstrap 95 %", "gain in macro recall", "gain in log-likelihood (nats)",
               "its plain 95 %", "its corrected 95 %", "synthetic", "steps", "seconds"]  # fmt: skip
    lines = []
    for row, found in runs.items():
        gain = against(found, runs.get(BASELINE), row, protocol)
        recall = against(found, runs.get(BASELINE), row, protocol, "macro_recall")
        likely = against(found, runs.get(BASELINE), row, protocol, "nll", -1)
        lines.append([
            row, *(mean([r[k] for r in found]) for k in ("accuracy", "macro_recall", "nll", "train_accuracy")),
            _cell(gain), *(interval(None if gain is None else getattr(gain, k)) for k in ("plain", "corrected", "bootstrap")),
            _cell(recall), _cell(likely), *(interval(v, 2) for v in _intervals(likely)),
            mean([r["synthetic"] for r in found]), found[0]["steps"], mean([r["seconds"] for r in found]),
        ])  # fmt: skip
        if gain is not None and row in AUTOMATIC:
            result.claim(
                f"{model}: {row} gains at least 3 points over affine", gain.mean >= 3, f"{gain.mean:+.2f}"
            )
            limits, name = _limits(gain)
            if limits is not None:
                shown = interval(limits) or ""
                result.claim(f"{model}: the {name} interval of {row} lies above zero", limits[0] > 0, shown)
                result.claim(f"{model}: {row} does not lose significantly", limits[1] >= 0, shown)
    result.table(model, columns, lines, [1, 1, 2, 1, 1, 0, 0, 0, 1, 2, 0, 0, 2, 0, 0])
    recalls = [
        [row, *(_recall([r["recalls"][k] for r in found]) for k in range(len(classes)))]
        for row, found in runs.items()
    ]
    result.table(f"{model}: recall", ["augmentation", *classes], recalls, [0] * len(classes))
    if len(set(USUAL) & set(runs)) > 1:
        _imbalance(result, model, runs, protocol, result.settings["per class"])


def _imbalance(
    result: Result, model: str, runs: Runs, protocol: Protocol, per_class: Sequence[int] | None
) -> None:
    """Gains in macro recall over the best of the usual remedies, and recall by the number of a class's training images."""
    best = max((r for r in USUAL if r in runs), key=lambda r: fmean(x["macro_recall"] for x in runs[r]))
    counts = tuple(per_class or ())
    sizes = sorted(set(counts), reverse=True)
    balanced = all(abs(x["accuracy"] - x["macro_recall"]) < 1e-6 for found in runs.values() for x in found)

    def recall(run: dict[str, Any], size: int) -> float:
        return fmean(v for k, v in enumerate(run["recalls"]) if counts[k % len(counts)] == size)

    lines = []
    for row, found in runs.items():
        gain = against(found, runs[best], row, protocol, "macro_recall", baseline=best)
        scenes = against(found, runs[best], row, protocol, baseline=best)  # the same where tests are balanced
        plain = None if gain is None else gain.plain
        bootstrap = scenes.bootstrap if scenes is not None and balanced else None
        sized = (mean([recall(r, size) for r in found]) for size in sizes)
        lines.append([row, _cell(gain), interval(plain), interval(bootstrap), *sized])
    columns = ["augmentation", f"gain in macro recall over {best}", "plain 95 %", "bootstrap 95 %"]
    result.table(
        f"{model}: what is done about imbalance",
        columns + [f"recall of classes with {size}" for size in sizes],
        lines,
        [1, 0, 0, *[1] * len(sizes)],
    )


def against(
    ours: list[dict[str, Any]],
    theirs: list[dict[str, Any]] | None,
    row: str,
    protocol: Protocol,
    key: str = "accuracy",
    sign: int = 1,
    baseline: str = BASELINE,
) -> Paired | None:
    """Paired difference to the baseline, times ``sign``; None for the baseline itself."""
    if theirs is None or row == baseline:
        return None
    same = protocol.fixed_test and key == "accuracy"
    right = ([r["right"] for r in ours], [r["right"] for r in theirs]) if same else None
    return compare([sign * r[key] for r in ours], [sign * r[key] for r in theirs], protocol.shared, right)


def _limits(gain: Paired) -> tuple[tuple[float, float] | None, str]:
    """The interval to judge by: where all splits share a test side, that over splits and test scenes."""
    return (gain.corrected, "corrected") if gain.bootstrap is None else (gain.bootstrap, "bootstrap")


def _intervals(gain: Paired | None) -> tuple[tuple[float, float] | None, ...]:
    return (None, None) if gain is None else (gain.plain, gain.corrected)


def _cell(gain: Paired | None) -> dict[str, Any] | None:
    return None if gain is None else {**mean([gain.mean]), "spread": gain.sd, "n": gain.n}


def _recall(values: list[float | None]) -> dict[str, Any] | None:
    known = [v for v in values if v is not None]
    return mean(known) if known else None


def interval(found: tuple[float, float] | None, digits: int = 1) -> str | None:
    """An interval as text."""
    return None if found is None else f"[{found[0]:+.{digits}f}, {found[1]:+.{digits}f}]"


def figure(content: Mapping[str, Any], protocol: Protocol, folder: Path) -> Path | None:
    """Gains over affine with their intervals, from a result; None if there is nothing to compare."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    grid: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for run in content["runs"]:
        grid.setdefault(run["model"], {}).setdefault(run["row"], []).append(run)
    rows = [r for r in dict.fromkeys(run["row"] for run in content["runs"]) if r != BASELINE]
    if not rows or any(BASELINE not in runs for runs in grid.values()):
        return None
    fig, axes = plt.subplots(
        1, len(grid), figsize=(1.5 + 3.6 * len(grid), 1.2 + 0.35 * len(rows)), sharey=True, squeeze=False, layout="constrained"
    )  # fmt: skip
    for ax, (model, runs) in zip(axes[0], grid.items(), strict=True):
        for i, row in enumerate(rows):
            gain = against(runs[row], runs[BASELINE], row, protocol)
            assert gain is not None
            limits, _ = _limits(gain)
            if limits is not None and gain.plain is not None:
                ax.plot(gain.plain, [i, i], color="#9bd", lw=5)
                ax.plot(limits, [i, i], color="#235", lw=1.3)
            ax.plot(gain.mean, i, "o", color="#c33")
        ax.axvline(0, color="k", lw=0.8)
        reached = mean([r["accuracy"] for r in runs[BASELINE]])["centre"]
        ax.set_title(f"{model} (affine {reached:.1f} %)")
        ax.set_xlabel("points over affine")
        ax.set_yticks(range(len(rows)), rows)
        ax.invert_yaxis()
    suffix = "" if content["preset"] == "full" else "-quick"
    simulated = ", simulated" if protocol.simulated else ""
    fig.suptitle(
        f"{content['title']}{simulated}, {len(content['seeds'])} splits\nthick: plain 95 %, thin: corrected or bootstrap",
        fontsize=9,
    )  # fmt: skip
    path = folder / f"{content['name']}{suffix}.png"
    finish(fig, path, 110)
    plt.close(fig)
    return path
