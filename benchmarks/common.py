"""What every benchmark shares: arguments, provenance, a journal to resume from, results that are checked, tables."""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import math
import os
import platform
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from ubf_augment.files import replacing

HERE = Path(__file__).resolve().parent
MEAN, MEDIAN = "mean and standard deviation", "median and interquartile range"


def arguments(
    description: str, extend: Callable[[argparse.ArgumentParser], object] | None = None
) -> argparse.Namespace:
    """Parse the common options, and those that ``extend`` adds; sets the number of threads."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--preset", choices=("quick", "full"), default="quick", help="quick: a look; full: published"
    )
    parser.add_argument("--seeds", type=int, help="number of seeds, from 0; by the preset if not given")
    parser.add_argument("--data", type=Path, help="folder of real images: $UBF_DATA, or ../shared/data")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="where results go")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--fresh", action="store_true", help="forget the journal of an interrupted run")
    parser.add_argument("--overwrite", action="store_true", help="replace the result of another command")
    if extend is not None:
        extend(parser)
    args = parser.parse_args()
    root = HERE.parent
    args.data = args.data or Path(os.environ.get("UBF_DATA") or root.parent / "shared" / "data")
    if not args.data.is_dir():
        parser.error(
            f"no real images at {args.data}: set UBF_DATA or --data to the folder of hsi/, msi/ and rgb/"
        )
    torch.set_num_threads(args.threads)
    return args


def device_option(parser: ArgumentParser) -> None:
    """Add ``--device``, a GPU where there is one."""
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")


def bundle_option(parser: argparse.ArgumentParser) -> None:
    """Add the bundle to measure."""
    parser.add_argument("--bundle", default="aid-chikusei", help="packaged name, directory or hub id")


@dataclass
class Result:
    """What a benchmark found; `write` checks it against schema.json."""

    name: str
    title: str
    data: str
    args: argparse.Namespace
    seeds: Sequence[int]
    settings: Mapping[str, Any]
    device: str = "cpu"
    tables: list[dict[str, Any]] = field(default_factory=list)
    claims: list[dict[str, Any]] = field(default_factory=list)
    runs: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    start: float = field(default_factory=time.monotonic)
    journal: Journal | None = None  # then ``seconds`` is the time of all its parts, interruptions excluded

    def __post_init__(self) -> None:
        if not self.args.overwrite and self.path.is_file():
            there = json.loads(self.path.read_text())["command"]
            if _measured(there.split()) != _command().split():
                raise SystemExit(
                    f"{self.path} holds what `{there}` found: give --overwrite to replace it, or --out for another folder"
                )

    @property
    def path(self) -> Path:
        """The file that `write` makes. It is replaced when its command is run again, by another one only if asked."""
        return Path(self.args.out) / (self.name + ("" if self.args.preset == "full" else "-quick") + ".json")

    def table(
        self, title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], digits: Sequence[int]
    ) -> None:
        """Add a table; ``digits`` after the point for each column but the first."""
        self.tables.append(
            {
                "title": title,
                "columns": list(columns),
                "digits": list(digits),
                "rows": [list(r) for r in rows],
            }
        )

    def claim(self, text: str, holds: bool, measured: str) -> None:
        """State what was hoped for, whether it holds, and by what numbers."""
        self.claims.append({"text": text, "holds": bool(holds), "measured": measured})

    def spent(self) -> float:
        """Seconds of work."""
        here = time.monotonic() - self.start
        return here if self.journal is None else max(here, self.journal.seconds)

    def write(self) -> Path:
        """Check, write ``<name>.json`` and ``<name>.md``, print the tables."""
        content = _finite(
            {
                "name": self.name, "title": self.title, "command": _command(),
                "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
                "preset": self.args.preset, "seconds": round(self.spent(), 1),
                "environment": environment(self.device), "data": self.data, "settings": dict(self.settings),
                "seeds": list(self.seeds), "tables": self.tables, "claims": self.claims, "runs": self.runs,
                "notes": self.notes,
            }
        )  # fmt: skip
        problems = violations(content, json.loads((HERE / "schema.json").read_text()))
        if problems:
            raise ValueError("the result does not fit schema.json:\n" + "\n".join(problems))
        text = markdown(content)
        _replace(self.path.with_suffix(".md"), text)
        _replace(self.path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
        print(text)
        return self.path


class Journal:
    """Finished parts of a run on disk, one JSON line each, so that the same command goes on after an interruption.

    The journal belongs to one benchmark, preset and settings; another file is begun when these change.
    """

    def __init__(self, name: str, args: argparse.Namespace, settings: Mapping[str, Any]) -> None:
        mark = hashlib.sha256(
            json.dumps([settings, args.preset], sort_keys=True, default=str).encode()
        ).hexdigest()
        self.path = HERE.parent / "runs" / "benchmarks" / f"{name}-{mark[:12]}.jsonl"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if args.fresh:
            self.path.unlink(missing_ok=True)
            shutil.rmtree(self.path.with_suffix(""), ignore_errors=True)  # checkpoints
        self.done: dict[str, Any] = {}
        self.seconds = 0.0
        self._read()

    def _read(self) -> None:
        """Take what is on disk; another process may have finished a part."""
        if not self.path.exists():
            return
        self.seconds = 0.0
        for line in self.path.read_text().splitlines():
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:  # cut off by an interruption
                continue
            self.done[entry["key"]] = entry["value"]
            self.seconds += entry.get("seconds", 0.0)

    def run(self, key: str, work: Callable[[], Any]) -> Any:
        """Give the stored value of ``key``, or do the work and store it; if another process is at it, wait for that."""
        with self._turn(key):
            self._read()
            if key not in self.done:
                start = time.monotonic()
                self.done[key] = work()
                seconds = round(time.monotonic() - start, 1)
                print(f"{key}: {seconds} s", file=sys.stderr, flush=True)
                self.seconds += seconds
                entry = {"key": key, "value": self.done[key], "seconds": seconds}
                with self.path.open("a") as f:  # a newline first: the line before may be cut off
                    f.write("\n" + json.dumps(entry) + "\n")
        return self.done[key]

    @contextmanager
    def _turn(self, key: str) -> Iterator[None]:
        from filelock import FileLock, Timeout

        folder = self.path.with_suffix("")
        folder.mkdir(exist_ok=True)
        lock = FileLock(folder / f"{hashlib.sha256(key.encode()).hexdigest()[:12]}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            print(f"{key}: another process is at it, waiting", file=sys.stderr, flush=True)
            lock.acquire()
        try:
            yield
        finally:
            lock.release()


def mean(values: Sequence[float]) -> dict[str, Any]:
    """Mean and standard deviation of a cell."""
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return {"centre": statistics.fmean(values), "spread": spread, "n": len(values), "kind": MEAN}


def median(values: Sequence[float]) -> dict[str, Any]:
    """Median and interquartile range of a cell."""
    low, _, high = (
        statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else (0.0, 0.0, 0.0)
    )
    return {"centre": statistics.median(values), "spread": high - low, "n": len(values), "kind": MEDIAN}


def environment(device: str = "cpu") -> dict[str, Any]:
    """Versions and machine."""
    packages = ("torch", "ubf_augment", "numpy", "scipy", "diffusers", "lightning", "timm", "torchgeo")
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except Exception:
            found[package] = "not installed"
    if found["ubf_augment"] == "not installed":
        found["ubf_augment"] = "source tree"
    return {
        "python": platform.python_version(), **found, "platform": platform.platform(terse=True), "cpu": _cpu(),
        "cores": os.cpu_count() or 1, "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if device.startswith("cuda") else device,
    }  # fmt: skip


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _command() -> str:
    words = [w if not Path(w).is_absolute() else Path(w).name for w in _measured(sys.argv[1:])]
    return " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *words])


def _finite(value: Any) -> Any:
    """JSON has no NaN or infinity: they become null."""
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _measured(words: Sequence[str]) -> list[str]:
    """Those that say what is measured."""
    return [word for word in words if word not in ("--fresh", "--overwrite")]


def _replace(path: Path, text: str) -> None:
    with replacing(path) as aside:
        aside.write_text(text)


def markdown(content: Mapping[str, Any]) -> str:
    """The tables of a result as Markdown."""
    e = content["environment"]
    lines = [
        f"# {content['title']}", "", f"`{content['command']}`", "",
        f"{content['date']}, {e['cpu']}, {e['threads']} thread(s), device {e['device']}, torch {e['torch']}, "
        f"{content['seconds']:g} s. Data: {content['data']} Seeds: {', '.join(map(str, content['seeds']))}.", "",
    ]  # fmt: skip
    for table in content["tables"]:
        lines += [f"**{table['title']}**", "", "| " + " | ".join(table["columns"]) + " |"]
        lines.append("|" + "---|" * len(table["columns"]))
        digits = [0, *table.get("digits", [])]
        for row in table["rows"]:
            cells = [_cell(v, digits[i] if i < len(digits) else 3) for i, v in enumerate(row)]
            lines.append("| " + " | ".join(cells) + " |")
        lines.append("")
    for claim in content["claims"]:
        lines.append(
            f"- {'holds' if claim['holds'] else '**does not hold**'}: {claim['text']} ({claim['measured']})"
        )
    lines += ["", *content["notes"], ""]
    return "\n".join(lines)


def _cell(value: Any, digits: int) -> str:
    if isinstance(value, dict):
        spread = f" ± {value['spread']:.{digits}f}" if value["n"] > 1 else ""
        return f"{value['centre']:.{digits}f}{spread}"
    if value is None:
        return "–"
    return value if isinstance(value, str) else f"{value:.{digits}f}"


_TYPES: dict[str, Callable[[Any], bool]] = {
    "object": lambda v: isinstance(v, dict),
    "array": lambda v: isinstance(v, list),
    "string": lambda v: isinstance(v, str),
    "boolean": lambda v: isinstance(v, bool),
    "null": lambda v: v is None,
    "integer": lambda v: isinstance(v, int) and not isinstance(v, bool),
    "number": lambda v: isinstance(v, int | float) and not isinstance(v, bool),
}


def violations(value: Any, schema: Mapping[str, Any], at: str = "result") -> list[str]:
    """Where ``value`` departs from ``schema``, in the part of JSON Schema that schema.json uses."""
    if "anyOf" in schema:
        return (
            []
            if any(not violations(value, s, at) for s in schema["anyOf"])
            else [f"{at}: fits no alternative"]
        )
    if "enum" in schema:
        return [] if value in schema["enum"] else [f"{at}: {value!r} is not one of {schema['enum']}"]
    if not _TYPES[schema["type"]](value):
        return [f"{at}: not of type {schema['type']}"]
    found: list[str] = []
    if isinstance(value, dict):
        known = schema.get("properties", {})
        found += [f"{at}.{key}: missing" for key in schema.get("required", ()) if key not in value]
        if not schema.get("additionalProperties", True):
            found += [f"{at}.{key}: unknown" for key in value if key not in known]
        for key, part in known.items():
            found += violations(value[key], part, f"{at}.{key}") if key in value else []
    if isinstance(value, list):
        if len(value) < schema.get("minItems", 0):
            found.append(f"{at}: fewer than {schema['minItems']} entries")
        for i, entry in enumerate(value):
            found += violations(entry, schema["items"], f"{at}[{i}]")
    return found
