"""What a sample costs: a sampler of the reference's cost, and the packaged generators with many and with few evaluations.

    python benchmarks/throughput.py --preset full --threads 1

All in one process and interleaved (reference, ours with 20 evaluations, …, reference, …), after a warm-up; median and
interquartile range.

*Samples.* The reference samples with all 2,000 steps of a U-Net of 64 channels × (1, 2, 4, 8, 8), two blocks per level and
attention at a sixteenth of 256²; published with 97.8 M parameters, the title of the table says how many ours of that width
has. One of its steps is timed at the size and number of endmembers of the bundle, and 2,000 times that is its sample; ours are
timed whole, maps and images. GFLOP are counted, multiplications and additions apart.

*Decoding.* Abundances to images, with and without the residual model, in bytes of images written per second, beside a copy
of the same bytes (which reads them and writes them).

*Import.* `import ubf_augment` after `import torch`, each in new processes.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

import torch
from common import Result, arguments, median
from step_time import now, options
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ubf_augment import HSISynthesizer

REFERENCE_STEPS = 2000
SHIPPED = 5  # evaluations
SETTINGS: dict[str, Any] = {
    "rounds": {"quick": 3, "full": 15}, "warmup": 1, "batch": 16, "evaluations": [1, 3, 5, 8, 20], "decoded": 64, "imports": 5,
}  # fmt: skip


def main() -> None:
    """Time, compare, write."""
    args = arguments(__doc__ or "", options)
    synth = HSISynthesizer.from_pretrained(args.bundle, device=args.device)
    p, size, batch = synth.num_endmembers, synth.size, SETTINGS["batch"]
    settings = SETTINGS | {
        "bundle": args.bundle,
        "size": list(size),
        "bands": synth.num_bands,
        "endmembers": p,
    }
    result = Result("throughput", "Cost of a sample", "made images.", args, [0], settings, device=args.device)
    rounds = SETTINGS["rounds"][args.preset]
    result.runs += samplers(result, synth, rounds, batch, args.device)
    result.runs += decoding(result, synth, rounds, args.device)
    result.runs += imports(result)
    result.notes.append("Median ± interquartile range.")
    result.write()


def reference(p: int, side: int) -> nn.Module:
    """A U-Net of the reference's width for maps of ``p`` channels; attention where 256² is 16²."""
    from diffusers import UNet2DModel

    model: nn.Module = UNet2DModel(
        sample_size=side, in_channels=p, out_channels=p, layers_per_block=2, block_out_channels=(64, 128, 256, 512, 512),
        down_block_types=("DownBlock2D",) * 4 + ("AttnDownBlock2D",), up_block_types=("AttnUpBlock2D",) + ("UpBlock2D",) * 4,
        norm_num_groups=32,
    )  # fmt: skip
    return model.eval()


@torch.no_grad()
def samplers(
    result: Result, synth: HSISynthesizer, rounds: int, batch: int, device: str
) -> list[dict[str, Any]]:
    """Seconds and operations per sample."""
    unet = reference(synth.num_endmembers, synth.size[0]).to(device)
    noise = torch.randn(1, synth.num_endmembers, *synth.size, device=device)
    y = torch.arange(batch) % synth.num_classes

    def ours(evaluations: int) -> Callable[[], object]:
        return lambda: synth.sample(y, seed=0, steps=evaluations)

    tasks: dict[str, Callable[[], object]] = {"reference": lambda: unet(noise, 500)}
    tasks |= {f"{n} evaluation{'s' * (n > 1)}": ours(n) for n in SETTINGS["evaluations"]}
    times = interleaved(tasks, rounds, device)
    times["reference"] = [t * REFERENCE_STEPS for t in times["reference"]]
    base = median(times["reference"])["centre"]
    rows, runs = [], []
    for name, found in times.items():
        each = 1 if name == "reference" else batch
        counter = FlopCounterMode(display=False)
        with counter:
            tasks[name]()
        flop = counter.get_total_flops() * (REFERENCE_STEPS if name == "reference" else 1 / each) / 1e9
        seconds = [t / each for t in found]
        middle = median(seconds)
        rows.append([name, middle, 1 / middle["centre"], flop, base / middle["centre"]])
        runs.append({"kind": "sampler", "name": name, "seconds": seconds, "gflop": flop})
    count = sum(v.numel() for v in unet.parameters()) / 1e6
    result.table(
        f"A sample of {synth.size[0]}×{synth.size[1]} pixels and {synth.num_bands} bands (reference: {count:.1f} M parameters)",
        ["sampler", "seconds", "samples / s", "GFLOP", "× faster"], rows, [5, 3, 1, 0],
    )  # fmt: skip
    faster = {row[0]: row[4] for row in rows}[f"{SHIPPED} evaluations"]
    result.claim(
        f"at least 1,000 times faster than a sampler of the reference's cost, with {SHIPPED} evaluations, whose Fréchet distance "
        "is within 10 % of that of many (see few_steps)", faster >= 1000, f"{faster:.0f} ×",
    )  # fmt: skip
    return runs


@torch.no_grad()
def decoding(result: Result, synth: HSISynthesizer, rounds: int, device: str) -> list[dict[str, Any]]:
    """Bytes of images per second, beside a copy."""
    n = SETTINGS["decoded"]
    a = synth.sample_abundances(torch.arange(n) % synth.num_classes, seed=0, steps=1)
    x = synth.mix(a)
    other = torch.empty_like(x)
    rng = torch.Generator().manual_seed(0)
    tasks: dict[str, Callable[[], object]] = {
        "copy": lambda: other.copy_(x),
        "abundances to images": lambda: synth.mix(a),
        "with residual": lambda: synth.mix(a, residual=True, generator=rng),
    }
    times = interleaved(tasks, rounds, device)
    size, copy = x.numel() * x.element_size() / 1e9, median(times["copy"])["centre"]
    rows = [
        [
            name,
            median([size / t for t in found]),
            n / median(found)["centre"],
            100 * copy / median(found)["centre"],
        ]
        for name, found in times.items()
    ]
    result.table("Decoding", ["task", "GB / s", "images / s", "% of the copy"], rows, [2, 0, 0])
    for name, _, _, share in rows[1:]:
        result.claim(f"{name}: at least half of the copy's bandwidth", share >= 50, f"{share:.0f} %")
    return [{"kind": "decoding", "name": name, "seconds": found} for name, found in times.items()]


def imports(result: Result) -> list[dict[str, Any]]:
    """Seconds of importing the package after torch, in new processes."""
    code = "import torch, time; t = time.perf_counter(); import ubf_augment; print(time.perf_counter() - t)"
    seconds = [
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
        for _ in range(SETTINGS["imports"] + 1)
    ][1:]
    result.table("Import after torch", ["module", "seconds"], [["ubf_augment", median(seconds)]], [3])
    middle = median(seconds)["centre"]
    result.claim("importing takes at most 0.3 s more than torch", middle <= 0.3, f"{middle:.2f} s")
    return [{"kind": "import", "name": "ubf_augment", "seconds": seconds}]


def interleaved(
    tasks: Mapping[str, Callable[[], object]], rounds: int, device: str
) -> dict[str, list[float]]:
    """Seconds of each task, one after the other, so many times."""
    times: dict[str, list[float]] = {name: [] for name in tasks}
    for turn in range(SETTINGS["warmup"] + rounds):
        for name, task in tasks.items():
            start = now(device)
            task()
            if turn >= SETTINGS["warmup"]:
                times[name].append(now(device) - start)
    return times


if __name__ == "__main__":
    main()
