"""Ten thousand training steps with `UBFAugment`: does memory stay flat, a step as quick, every number finite?

    python benchmarks/soak.py --preset full

A small network learns Indian Pines (patches 8×8, 200 bands) from batches of which a quarter is synthetic, with maps from the
generator at every step (`Live`), and from a pool that gets a new map at every step (`Pool`). Looked at are the second tenth and
the last tenth of the steps: memory that the process holds, files and objects that it keeps, seconds of CPU per step, which other
work on the machine does not change much. Loss and images are looked at in every step.
"""

from __future__ import annotations

import gc
import os
import statistics
import time
from functools import partial
from typing import Any

import torch
from common import Journal, Result, arguments, device_option
from torch import nn
from torch.nn import functional as F

from ubf_augment import HSISynthesizer, UBFAugment
from ubf_augment.classification import LabelledImages
from ubf_augment.datasets import IndianPines
from ubf_augment.plotting.parts import finish, new_figure
from ubf_augment.sources import Live, Pool

SETTINGS: dict[str, Any] = {
    "bundle": "indian-pines", "steps": {"quick": 500, "full": 10_000}, "batch": 8, "p": 0.25, "width": 32, "lr": 1e-3,
    "options": {"steps": 5}, "looks": 100, "growth": 0.02, "slowdown": 0.1,
}  # fmt: skip
PAGE = os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    """Train, look, compare."""
    args = arguments(__doc__ or "", device_option)
    settings = {k: v[args.preset] if isinstance(v, dict) and "quick" in v else v for k, v in SETTINGS.items()}
    result = Result(
        "soak",
        "Many training steps",
        "Indian Pines, training patches of fold 0.",
        args,
        [0],
        settings,
        args.device,
    )
    result.journal = Journal("soak", args, settings | {"device": args.device})
    train = patches()
    rows = []
    for source in ("live", "pool"):
        found = result.journal.run(source, partial(soak, source, train, settings, args.device))
        result.runs.append({"source": source, **found})
        tenth = len(found["step"]) // 10
        first, last = (middle(found, part) for part in (slice(tenth, 2 * tenth), slice(-tenth, None)))
        compared = [value for key in ("memory", "ms", "objects") for value in (first[key], last[key])]
        rows.append([source, settings["steps"], *compared, last["files"], found["bad"]])
        growth = last["memory"] / first["memory"] - 1
        result.claim(f"{source}: memory stays flat", growth < settings["growth"], f"{100 * growth:+.1f} %")
        slower = last["ms"] / first["ms"] - 1
        result.claim(
            f"{source}: no step becomes slower", slower < settings["slowdown"], f"{100 * slower:+.1f} %"
        )
        kept = last["files"] == first["files"] and last["objects"] < 1.01 * first["objects"]
        result.claim(
            f"{source}: no files or objects pile up", kept,
            f"{first['files']:.0f} to {last['files']:.0f} files, {first['objects']:.0f} to {last['objects']:.0f} objects",
        )  # fmt: skip
        result.claim(
            f"{source}: every loss and image is finite",
            found["bad"] == 0,
            f"{found['bad']} steps with others",
        )
    result.table(
        "Second tenth of the steps, and last tenth (medians)",
        ["source", "steps", "MiB", "MiB, last", "ms of CPU a step", "last", "objects", "last", "files", "steps with NaN"],
        rows, [0, 1, 1, 1, 1, 0, 0, 0, 0],
    )  # fmt: skip
    result.notes.append("Other work ran on the machine meanwhile, which makes seconds of CPU vary.")
    finish(picture(result.runs), result.path.with_suffix(".png"), 100)
    result.write()


def patches() -> LabelledImages:
    """Indian Pines, training side."""
    data = IndianPines("train", 0)
    x = torch.stack([data[i]["image"] for i in range(len(data))])
    return LabelledImages(x, torch.tensor(data.targets), data.classes, data.wavelengths)


def soak(name: str, train: LabelledImages, settings: dict[str, Any], device: str) -> dict[str, Any]:
    """Train; what was seen at evenly spaced steps."""
    torch.manual_seed(0)
    synth = HSISynthesizer.from_pretrained(settings["bundle"], device=device)
    options = settings["options"]
    source = Live(synth, options) if name == "live" else Pool(synth, refresh=1.0, options=options)
    augment = UBFAugment(
        synth, p=settings["p"], strategy="generate", source=source, classes=train.classes, seed=0
    )
    width, bands = settings["width"], train.x.shape[1]
    network = nn.Sequential(
        nn.Conv2d(bands, width, 1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, len(train.classes)),
    ).to(device)  # fmt: skip
    optimizer = torch.optim.AdamW(network.parameters(), settings["lr"])
    order = torch.Generator().manual_seed(0)
    steps, bad = settings["steps"], torch.zeros((), device=device)
    every = max(1, steps // settings["looks"])
    seen: dict[str, Any] = {"step": [], "memory": [], "ms": [], "objects": [], "files": []}
    start = time.process_time()
    for step in range(1, steps + 1):
        rows = torch.randint(len(train.y), (settings["batch"],), generator=order)
        x, y = augment(train.x[rows].to(device), train.y[rows].to(device))
        loss = F.cross_entropy(network(x), y)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        bad += ~(loss.isfinite() & x.isfinite().all())
        if step % every == 0:
            seen["ms"].append(1000 * (time.process_time() - start) / every)
            gc.collect()
            seen["step"].append(step)
            seen["memory"].append(resident())
            seen["objects"].append(len(gc.get_objects()))
            seen["files"].append(len(os.listdir("/proc/self/fd")))
            start = time.process_time()
    return {**seen, "bad": int(bad)}


def middle(found: dict[str, Any], part: slice) -> dict[str, float]:
    """Medians of a part of what was seen."""
    return {key: statistics.median(values[part]) for key, values in found.items() if key != "bad"}


def resident() -> float:
    """MiB of memory that the process holds."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * PAGE / 2**20


def picture(runs: list[dict[str, Any]]) -> Any:
    """Memory and time over the steps."""
    figure = new_figure(8, 3)
    for axes, key, label in zip(
        figure.subplots(1, 2), ("memory", "ms"), ("MiB of memory", "ms of CPU a step"), strict=True
    ):
        for run in runs:
            axes.plot(run["step"], run[key], label=run["source"])
        axes.set(xlabel="step", ylabel=label, ylim=(0, 1.2 * max(max(run[key]) for run in runs)))
    axes.legend()
    return figure


if __name__ == "__main__":
    main()
