"""What `UBFAugment` costs in a training step: ResNet-18, batch 32, 64×64, 59 bands.

    python benchmarks/step_time.py --preset full --bundle aid-chikusei --threads 2

Plain step, then the same step with UBFAugment(p=0.5) before it, one strategy after the other, in one process and interleaved
(plain, generate, bank, …, plain, generate, …), so that what else the machine does falls on all alike. Warm-up first, then the
median and the interquartile range, and the ratio of means, since a pool is refreshed in one step of ten. "Augmentation alone" is
timed inside the same step. The eight maps per class that a pool begins with are made before.
"""

from __future__ import annotations

import statistics
import time
from argparse import ArgumentParser
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from common import Result, arguments, bundle_option, device_option, median
from scenes import aid

from ubf_augment import HSISynthesizer, UBFAugment
from ubf_augment.sources import Pool

SETTINGS = {"batch": 32, "p": 0.5, "model": "resnet18", "rounds": {"quick": 3, "full": 25}, "warmup": 1}


def options(parser: ArgumentParser) -> None:
    """Add what to measure."""
    bundle_option(parser)
    device_option(parser)


def main() -> None:
    """Time every strategy."""
    import timm

    args = arguments(__doc__ or "", options)
    synth = HSISynthesizer.from_pretrained(args.bundle, device=args.device)
    name, size = Path(args.bundle).name, synth.size
    result = Result(
        "step_time" if name == "aid-chikusei" else f"step_time-{name}", "Time of a training step", "made images.", args, [0],
        SETTINGS | {"bundle": name, "size": list(size), "bands": synth.num_bands}, device=args.device,
    )  # fmt: skip
    torch.manual_seed(0)
    model = timm.create_model(SETTINGS["model"], in_chans=synth.num_bands, num_classes=synth.num_classes).to(
        args.device
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    known = [c for c in synth.classes if (args.data / "rgb" / "aid150" / c).is_dir()]
    y = torch.arange(SETTINGS["batch"], device=args.device) % max(1, len(known))
    x = synth.sample(y, seed=0, steps=4)
    bank = {kind: pictures for kind, pictures in aid(args.data, size, 8) if kind in known}

    augments: dict[str, UBFAugment | None] = {"plain": None}
    pool = Pool(synth)
    pool.sample(torch.arange(synth.num_classes), torch.Generator().manual_seed(0))
    chosen: dict[str, dict[str, Any]] = {
        "generate from a pool": {"strategy": "generate", "source": pool},
        "generate live": {"strategy": "generate", "source": "live"},
        **({"bank": {"strategy": "bank", "bank": bank}} if bank else {}),
        **{name: {"strategy": name} for name in ("edit", "fuse", "vary")},
    }
    augments |= {name: UBFAugment(synth, p=SETTINGS["p"], seed=0, **given) for name, given in chosen.items()}

    def step(augment: UBFAugment | None) -> float:
        start = now(args.device)
        images, labels = (x, y) if augment is None else augment(x, y)
        between = now(args.device)
        loss = torch.nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return between - start

    whole, added = measure(augments, step, args.preset, args.device)
    base = median(whole["plain"])["centre"]
    rows = [
        [
            "plain" if s == "plain" else f"UBFAugment(p=0.5), {s}", median(whole[s]), median(added[s]),
            median(whole[s])["centre"] / base, statistics.fmean(whole[s]) / statistics.fmean(whole["plain"]),
        ]
        for s in augments
    ]  # fmt: skip
    result.table(
        "Milliseconds a step",
        ["step", "whole", "augmentation alone", "× plain", "× plain, by means"],
        rows,
        [1, 1, 2, 2],
    )
    result.runs += [{"strategy": s, "whole_ms": whole[s], "augmentation_ms": added[s]} for s in augments]
    result.notes.append("Median ± interquartile range.")
    result.write()


def measure(
    augments: dict[str, UBFAugment | None],
    step: Callable[[UBFAugment | None], float],
    preset: str,
    device: str,
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Milliseconds of whole steps and of the augmentation in them."""
    whole: dict[str, list[float]] = {name: [] for name in augments}
    added: dict[str, list[float]] = {name: [] for name in augments}
    for turn in range(SETTINGS["warmup"] + SETTINGS["rounds"][preset]):
        for name, augment in augments.items():
            start = now(device)
            augmentation = step(augment)
            if turn >= SETTINGS["warmup"]:
                whole[name].append(1000 * (now(device) - start))
                added[name].append(1000 * augmentation)
    return whole, added


def now(device: str) -> float:
    """Seconds, after the device has finished what it was asked."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter()


if __name__ == "__main__":
    main()
