"""The demo from start to end: pictures, the choice of a strategy on the validation side, the table."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ubf_augment.classification import decide
from ubf_augment.demo.training import CANDIDATES, DemoSettings, load_split, train_once, validation_score
from ubf_augment.files import locked, replacing
from ubf_augment.synthesis import HSISynthesizer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_BUNDLE = "indian-pines"


def run_demo(
    out: str | Path, settings: DemoSettings | None = None, *, overwrite: bool = False
) -> dict[str, Any]:
    """Draw samples, train with and without augmentation, print and write what was found.

    The strategy is chosen on the validation blocks, over all seeds; the test blocks are only used for the
    table. Beside the best strategy stands the automatic choice, which keeps a strategy only if it beats the
    better of no augmentation and affine by more than its standard error (`classification.decide`). Every
    training has the same number of optimiser steps. Finished trainings are kept in ``runs.json``, so an
    interrupted demo goes on.

    Args:
        out: directory for ``table.md``, ``results.json``, ``samples.png``, ``augmentation.png``, ``runs.json``.
        settings: `DemoSettings`.
        overwrite: replace results of other settings; those of the same are made anew where the package changed.

    Returns:
        What is written to ``results.json``.

    Raises:
        FileExistsError: if there are results of other settings.
        UBFError: if another process is at work there.
        BundleError: if a bundle is not packaged.
        ModuleNotFoundError: if ``tensorly``, which holds Indian Pines, is not installed.
    """
    settings, out = settings or DemoSettings(), Path(out)
    with locked(out):
        if not overwrite and _asked(out / "results.json") not in (None, _plain(settings)):
            raise FileExistsError(
                f"{out} holds a demo of other settings: give overwrite=true, or another out"
            )
        return _run(out, settings)


def _run(out: Path, settings: DemoSettings) -> dict[str, Any]:
    from rich.console import Console

    asked, start = settings, time.monotonic()
    console = Console() if sys.stdout.isatty() else Console(width=110)
    torch.set_num_threads(max(1, int(os.environ.get("OMP_NUM_THREADS") or _cores())))
    console.print(f"[bold]1. Class-conditional samples[/bold] of the bundle {settings.scenes}")
    pictures = [draw_samples(settings, out / "samples.png")]
    console.print(f"   {pictures[0]}")
    synth = HSISynthesizer.from_pretrained(_BUNDLE)
    pictures.append(draw_augmentations(synth, settings, out / "augmentation.png"))
    sizes = {s: len(load_split(s, settings.fold).y) for s in ("train", "val", "test")}
    console.print(
        f"\n[bold]2. ResNet-18 on Indian Pines[/bold], 8×8 patches, {len(load_split('train', 0).classes)} classes: "
        f"{sizes['train']} for training, {sizes['val']} for validation, {sizes['test']} for test, blocks apart\n"
        f"   {pictures[1]}"
    )
    settings, expected = plan(settings, synth, out / "runs.json")
    names = ("none", "affine", *settings.candidates)
    total = len(names) * settings.seeds
    console.print(
        f"   {total} trainings of {settings.steps} steps, about {expected / 60:.1f} minutes on "
        f"{torch.get_num_threads()} threads"
    )
    with Runs(out / "runs.json", settings, synth, total, console) as runs:
        grid: dict[str, list[Any]] = {name: [] for name in names}
        for seed in range(settings.seeds):
            for name in names:
                grid[name].append(runs.get(name, seed))
    validation = {name: _validation(found) for name, found in grid.items()}
    best = max(settings.candidates, key=lambda name: validation[name]["score"])
    rows = {name: grid[name] for name in ("none", "affine", best)}
    scores = {name: [validation_score(run) for run in found] for name, found in grid.items()}
    automatic = decide(scores, max(("none", "affine"), key=lambda name: validation[name]["score"]))
    results = {
        "settings": asdict(settings), "asked": _plain(asked),
        "threads": torch.get_num_threads(), "seconds": round(time.monotonic() - start, 1),
        "environment": _environment(), "split": {"fold": settings.fold, **sizes},
        "bundles": [settings.scenes, _BUNDLE], "chosen": best, "chosen_options": CANDIDATES[best],
        "validation": validation,
        "rows": {name: {"seeds": list(range(settings.seeds)), "runs": found} for name, found in rows.items()},
        "summary": {name: _summary(found) for name, found in rows.items()},
        "difference": _differences(rows["affine"], rows[best]),
        "automatic": {**automatic.record(), "summary": _summary(grid[automatic.name])},
    }  # fmt: skip
    _report(results, out, console)
    return results


def draw_samples(settings: DemoSettings, path: Path) -> Path:
    """Samples of evenly chosen classes of the scene bundle, with abundances and spectra."""
    from ubf_augment.report import sample_sheet

    synth = HSISynthesizer.from_pretrained(settings.scenes)
    step = max(1, synth.num_classes // settings.scene_classes)
    names = synth.classes[::step][: settings.scene_classes]
    title = f"{settings.scenes}: samples by class, {synth.num_bands} bands"
    sample_sheet(synth, names, per_class=4, title=title, path=path, steps=settings.sampling_steps)
    return path


def draw_augmentations(synth: HSISynthesizer, settings: DemoSettings, path: Path) -> Path:
    """One real patch per class, and what each strategy makes of it; one stretch for all."""
    from ubf_augment.augment import UBFAugment
    from ubf_augment.report import image_grid

    train = load_split("train", settings.fold)
    first = torch.stack([(train.y == k).nonzero()[0, 0] for k in range(len(train.classes))])
    x, y = train.x[first], train.y[first]
    images, titles = list(x), list(train.classes)
    for strategy in ("vary", "edit", "fuse", "generate"):
        augment = UBFAugment(synth, p=1.0, strategy=strategy, classes=train.classes, seed=0)
        if strategy == "fuse":  # needs partners of the same class in the batch
            others = torch.stack([(train.y == k).nonzero()[-1, 0] for k in range(len(train.classes))])
            made = augment(torch.cat([x, train.x[others]]), torch.cat([y, y]))[0][: len(x)]
        else:
            made = augment(x, y)[0]
        images += list(made)
        titles += [strategy] * len(x)
    title = "Indian Pines: real patches, and what each strategy makes of them"
    image_grid(torch.stack(images), train.wavelengths, titles, columns=len(x), title=title, path=path)
    return path


def plan(settings: DemoSettings, synth: HSISynthesizer, journal: Path) -> tuple[DemoSettings, float]:
    """Time a few steps; returns settings that fit into the minutes, and the seconds to expect.

    An interrupted demo goes on with the steps that it began with.
    """
    trial, cost = replace(settings, steps=4), {}
    for name in ("affine", *settings.candidates):
        train_once(name, 0, replace(trial, steps=1), synth)
        cost[name] = train_once(name, 0, trial, synth)["seconds"] / trial.steps
    seconds = settings.seeds * (cost["affine"] + sum(cost.values()))
    steps = settings.steps
    if stored := read_journal(journal, mark_of(settings, synth)):
        steps = int(stored["steps"])
    elif seconds * steps > 60 * settings.minutes:
        steps = max(20, int(60 * settings.minutes / seconds))
    return replace(settings, steps=steps), seconds * steps


def _plain(settings: DemoSettings) -> Any:
    """Settings as JSON gives them back."""
    return json.loads(json.dumps(asdict(settings)))


def _asked(path: Path) -> Any:
    """The settings that a demo was called with, before its steps were fitted to the machine; None if there is none."""
    return json.loads(path.read_text(encoding="utf-8")).get("asked") if path.is_file() else None


def _validation(found: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Means over the seeds of what the validation blocks say."""
    means = {k: statistics.fmean(r["val"][k] for r in found) for k in found[0]["val"]}
    return {**means, "score": statistics.fmean(map(validation_score, found))}


def mark_of(settings: DemoSettings, synth: HSISynthesizer) -> str:
    """What finished trainings depend on besides name, seed and steps; the package's own code too."""
    left_out = ("seeds", "candidates", "minutes", "steps", "scenes", "scene_classes", "sampling_steps")
    facts = {k: v for k, v in asdict(settings).items() if k not in left_out} | {"options": CANDIDATES}
    digest = hashlib.sha256(json.dumps([facts, _environment()], sort_keys=True).encode())
    for value in synth.state_dict().values():
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    for file in sorted(Path(__file__).parents[1].rglob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def read_journal(path: Path, mark: str) -> dict[str, Any] | None:
    """Finished trainings of an interrupted demo, if they belong to this one."""
    if not path.is_file():
        return None
    stored = json.loads(path.read_text(encoding="utf-8"))
    return dict(stored) if stored.get("mark") == mark else None


class Runs:
    """Trainings, each done once: finished ones are kept on disk; progress is shown on the console."""

    def __init__(
        self, path: Path, settings: DemoSettings, synth: HSISynthesizer, total: int, console: Console
    ) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        self.path, self.settings, self.synth = path, settings, synth
        self.mark, self.done = mark_of(settings, synth), dict[str, Any]()
        stored = read_journal(path, self.mark)
        if stored is not None and stored["steps"] == settings.steps:
            self.done = stored["runs"]
        columns = (
            TextColumn("   {task.description}"),
            BarColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        self.bar = Progress(*columns, console=console, disable=not console.is_terminal, transient=True)
        self.task = self.bar.add_task("training", total=total * settings.steps)
        self.console = console

    def __enter__(self) -> Runs:
        """Show the bar."""
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Remove it."""
        self.bar.stop()

    def get(self, name: str, seed: int) -> dict[str, Any]:
        """The result of one training, done now if it was not done before."""
        key = f"{name}, seed {seed}"
        self.bar.update(self.task, description=key)
        if key not in self.done:
            self.done[key] = train_once(name, seed, self.settings, self.synth, self._tick())
            _write(
                self.path, json.dumps({"mark": self.mark, "steps": self.settings.steps, "runs": self.done})
            )
            val, seconds = self.done[key]["val"], self.done[key]["seconds"]
            self.console.print(
                f"   {key}: validation accuracy {val['accuracy']:.1f} %, {seconds:.0f} s", highlight=False
            )
        return dict(self.done[key])

    def _tick(self) -> Callable[[], object]:
        return lambda: self.bar.advance(self.task)


def _summary(runs: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Mean and standard deviation over seeds of the test figures."""
    out = {}
    for key in ("accuracy", "macro_recall"):
        values = [run["test"][key] for run in runs]
        out[key] = {
            "mean": statistics.fmean(values),
            "std": statistics.stdev(values) if len(values) > 1 else 0.0,
        }
    return out


def _differences(base: Sequence[dict[str, Any]], other: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Paired differences over seeds, in points."""
    out = {}
    for key in ("accuracy", "macro_recall"):
        values = [b["test"][key] - a["test"][key] for a, b in zip(base, other, strict=True)]
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        out[key] = {"per_seed": values, "mean": statistics.fmean(values), "std": spread}
    return out


def _verdict(results: dict[str, Any]) -> str:
    """What the table says, in words, whatever it says."""
    d = results["difference"]["accuracy"]
    n, size = len(d["per_seed"]), results["split"]["test"]
    text = f"affine + UBF against affine: {d['mean']:+.1f} ± {d['std']:.1f} points of accuracy over {n} paired seeds"
    if n < 2 or abs(d["mean"]) <= d["std"]:
        return f"{text}: no clear difference (one split, {size} test patches)."
    return f"{text}: {'better' if d['mean'] > 0 else 'worse'} on this split ({size} test patches)."


def _rows(results: dict[str, Any]) -> list[tuple[str, str, str]]:
    labels = {
        "none": "no augmentation",
        "affine": "affine",
        results["chosen"]: f"affine + UBF ({results['chosen']})",
    }

    def spread(v: dict[str, float]) -> str:
        return f"{v['mean']:.1f} ± {v['std']:.1f}"

    automatic = results["automatic"]
    labels["automatic"] = f"automatic choice: {automatic['name']}"
    summary = {**results["summary"], "automatic": automatic["summary"]}
    return [(labels[name], spread(v["accuracy"]), spread(v["macro_recall"])) for name, v in summary.items()]


def _report(results: dict[str, Any], out: Path, console: Console) -> None:
    """Print the tables; write table.md and results.json."""
    from rich.table import Table

    seeds, steps = results["settings"]["seeds"], results["settings"]["steps"]
    title = f"test blocks, % (mean ± standard deviation over {seeds} seeds, {steps} steps each)"
    head = ("augmentation", "overall accuracy", "macro recall")
    table: Table = Table(*head, title=title)
    for row in _rows(results):
        table.add_row(*row)
    choice: Table = Table(
        "candidate",
        "accuracy",
        "macro recall",
        title="validation blocks, %, mean over the seeds: what the strategy was chosen by",
    )
    lines = [title, "", "| " + " | ".join(head) + " |", "|---|---|---|"]
    lines += ["| " + " | ".join(row) + " |" for row in _rows(results)]
    lines += [
        "",
        _verdict(results),
        "",
        str(choice.title),
        "",
        "| candidate | accuracy | macro recall |",
        "|---|---|---|",
    ]
    for name, v in results["validation"].items():
        cells = (
            name + (" (chosen)" if name == results["chosen"] else ""),
            f"{v['accuracy']:.1f}",
            f"{v['macro_recall']:.1f}",
        )
        choice.add_row(*cells)
        lines.append("| " + " | ".join(cells) + " |")
    env = results["environment"]
    lines += [
        "",
        f"{results['seconds']:.0f} s on {env['machine']}, torch {env['torch']}, {results['threads']} threads.",
    ]
    console.print()
    console.print(choice)
    console.print(table)
    console.print(
        f"{_verdict(results)}\n{results['seconds']:.0f} s in all; everything is in {out}", highlight=False
    )
    _write(out / "table.md", "\n".join(lines) + "\n")
    _write(out / "results.json", json.dumps(results, indent=1, ensure_ascii=False) + "\n")


def _environment() -> dict[str, str]:
    packages = ("ubf_augment", "torch", "timm", "kornia", "tensorly", "diffusers")
    found = {"python": platform.python_version(), "machine": f"{platform.machine()}, {_cores()} CPU cores"}
    for package in packages:
        try:
            found[package] = version(package)
        except ModuleNotFoundError:
            found[package] = "not installed as a package"
    return found


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _write(path: Path, text: str) -> None:
    with replacing(path) as aside:
        aside.write_text(text, encoding="utf-8")
