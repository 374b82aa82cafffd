"""What each strategy of `UBFAugment` costs in a training step: ResNet-18, batch 32, 64×64, 59 bands.

    python benchmarks/step_time.py --preset full --bundle aid-chikusei --threads 2

Plain step, then the same step with UBFAugment(p=0.5) before it, one strategy after the other, in one process and interleaved
(plain, generate, bank, …, plain, generate, …), so that what else the machine does falls on all alike. Warm-up first, then the
median and the interquartile range, and the ratio of means, since a pool is refreshed in one step of ten. "Augmentation alone" is
timed inside the same step. The maps that a pool begins with are made before. `throughput.py` compares sources of abundances.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from common import Result, arguments
from scenes import aid
from timing import STEP_COLUMNS, STEP_DIGITS, Step, options

from ubf_augment import HSISynthesizer, UBFAugment
from ubf_augment.sources import Pool

SETTINGS = {"batch": 32, "p": 0.5, "model": "resnet18", "rounds": {"quick": 3, "full": 25}, "warmup": 1}


def main() -> None:
    """Time every strategy."""
    args = arguments(__doc__ or "", options)
    synth = HSISynthesizer.from_pretrained(args.bundle, device=args.device)
    name, size = Path(args.bundle).name, synth.size
    result = Result(
        "step_time" if name == "aid-chikusei" else f"step_time-{name}", "Time of a training step", "made images.", args, [0],
        SETTINGS | {"bundle": name, "size": list(size), "bands": synth.num_bands}, device=args.device,
    )  # fmt: skip
    known = [c for c in synth.classes if (args.data / "rgb" / "aid150" / c).is_dir()]
    step = Step(synth, size[0], SETTINGS["batch"], args.device, max(1, len(known)))
    bank = {kind: pictures for kind, pictures in aid(args.data, size, 8) if kind in known}
    pool = Pool(synth)
    pool.sample(torch.arange(synth.num_classes), torch.Generator().manual_seed(0))
    chosen: dict[str, dict[str, Any]] = {
        "generate from a pool": {"strategy": "generate", "source": pool},
        "generate live": {"strategy": "generate", "source": "live"},
        **({"bank": {"strategy": "bank", "bank": bank}} if bank else {}),
        **{name: {"strategy": name} for name in ("edit", "fuse", "vary")},
    }
    augments: dict[str, UBFAugment | None] = {"plain": None}
    for s, given in chosen.items():
        augments[f"UBFAugment(p=0.5), {s}"] = UBFAugment(synth, p=SETTINGS["p"], seed=0, **given)
    rows, result.runs = step.table(augments, SETTINGS["rounds"][args.preset])
    result.table("Milliseconds a step", STEP_COLUMNS, rows, STEP_DIGITS)
    result.notes.append("Median ± interquartile range.")
    result.write()


if __name__ == "__main__":
    main()
