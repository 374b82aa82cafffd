"""What speed costs: a sample, a training step with a source of abundances, a decoded image, an import.

    python benchmarks/throughput.py --preset full --threads 1

All in one process and interleaved (reference, ours, …, reference, …), after a warm-up; median and interquartile range.

*Samples.* The reference samples with all 2,000 steps of a U-Net of 64 channels × (1, 2, 4, 8, 8), two blocks per level and
attention at a sixteenth of 256²; published with 97.8 M parameters, the title of the table says how many ours of that width
has. One of its steps is timed at the size and number of endmembers of the bundle, and 2,000 times that is its sample; ours are
timed whole, maps and images: the bundle, and every other generator at its shape with the sizes it has by default and random
weights. "× 1.5" is guidance, which asks the network twice. GFLOP are counted, multiplications and additions apart. Memory is
what a process of its own takes for a batch beyond what it holds before, weights included there.

*Training step.* ResNet-18, batch 64, UBFAugment(p=0.5) before it: `Pool` (its first maps made before), `Bank` (pictures unmixed
before, in files), and `Live` with so many evaluations, which is what a generator distilled to them costs. By means too, since a
pool is refreshed in one step of ten.

*Decoding.* Abundances to images, with and without the residual model, beside a copy of the same bytes (which reads them and
writes them), into memory that is there, and into new one.

*Import.* `import ubf_augment` after `import torch`, each in new processes.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from common import Result, arguments, median
from throughput_figure import draw
from timing import STEP_COLUMNS, STEP_DIGITS, Step, options, seconds
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ubf_augment import HSISynthesizer, UBFAugment, get_generator, list_generators
from ubf_augment.sources import Live, Pool

REFERENCE_STEPS = 2000
SETTINGS: dict[str, Any] = {
    "rounds": {"quick": 2, "full": 10}, "batch": 16, "evaluations": [1, 2, 5, 20], "guidance": [1, 1.5],
    "step": {"batch": 64, "p": 0.5, "live": [1, 2, 5], "rounds": {"quick": {64: 2}, "full": {64: 20, 128: 10}}},
    "decoded": 64, "imports": 5, "pictures": 8, "pool on a GPU": 8192,
}  # fmt: skip
Sampler = tuple[str, str, dict[str, Any]]  # name of the row, of the generator, options of a sample


def main() -> None:
    """Time, compare, write, draw."""
    args = arguments(__doc__ or "", options)
    synth = HSISynthesizer.from_pretrained(args.bundle, device=args.device)
    name = Path(args.bundle).name
    settings = SETTINGS | {
        "bundle": name, "size": list(synth.size), "bands": synth.num_bands, "endmembers": synth.num_endmembers,
        "reference steps": REFERENCE_STEPS, "threads": args.threads,
    }  # fmt: skip
    result = Result(
        "throughput" if name == "aid-chikusei" else f"throughput-{name}", "What speed costs", "made images.", args, [0], settings,
        device=args.device,
    )  # fmt: skip
    rounds = SETTINGS["rounds"][args.preset]
    samplers(result, synth, rounds, args.device)
    training(result, synth, args.preset, args.device)
    decoding(result, synth, rounds, args.device)
    imports(result)
    result.notes.append("Median ± interquartile range.")
    draw(result, result.write())


# ---- samples


def reference(p: int, side: int) -> nn.Module:
    """A U-Net of the reference's width for maps of ``p`` channels; attention where 256² is 16²."""
    from diffusers import UNet2DModel

    model: nn.Module = UNet2DModel(
        sample_size=side, in_channels=p, out_channels=p, layers_per_block=2, block_out_channels=(64, 128, 256, 512, 512),
        down_block_types=("DownBlock2D",) * 4 + ("AttnDownBlock2D",), up_block_types=("AttnUpBlock2D",) + ("UpBlock2D",) * 4,
        norm_num_groups=32,
    )  # fmt: skip
    return model.eval()


def listed(synth: HSISynthesizer) -> list[Sampler]:
    """The bundle as it is, then every generator, with so many evaluations where it takes them step by step."""
    own = synth.generator
    found: list[Sampler] = [("bundle", "", {})]
    for name in list_generators():
        steppers = hasattr(own if name == own.name else shaped(synth, name).generator, "guidance")
        if not steppers:
            found.append((f"{name}, one pass", name, {}))
            continue
        for n in SETTINGS["evaluations"]:
            for g in SETTINGS["guidance"]:
                row = f"{name}, {n} evaluation{'s' * (n > 1)}" + (f" × {g:g}" if g != 1 else "")
                found.append((row, name, {"steps": n, "guidance": g}))
    return found


def shaped(synth: HSISynthesizer, name: str) -> HSISynthesizer:
    """A synthesizer with a generator of that name at the shape of the bundle's; "" is the bundle's own."""
    if not name:
        return synth
    generator = get_generator(
        name, num_endmembers=synth.num_endmembers, size=synth.size, num_classes=synth.num_classes
    )
    return HSISynthesizer(
        synth.endmembers, generator.to(synth.device), residual=synth.residual, classes=synth.classes
    )


@torch.no_grad()
def samplers(result: Result, synth: HSISynthesizer, rounds: int, device: str) -> None:
    """Seconds, operations and memory per sample."""
    unet = reference(synth.num_endmembers, synth.size[0]).to(device)
    noise, batch = torch.randn(1, synth.num_endmembers, *synth.size, device=device), SETTINGS["batch"]
    y = torch.arange(batch) % synth.num_classes
    rows_of = listed(synth)
    models = {name: shaped(synth, name) for _, name, _ in rows_of}

    def ours(name: str, given: dict[str, Any]) -> Callable[[], object]:
        return lambda: models[name].sample(y, seed=0, **given)

    tasks: dict[str, Callable[[], object]] = {"reference": lambda: unet(noise, 500)}
    tasks |= {row: ours(name, given) for row, name, given in rows_of}
    times = seconds(tasks, rounds, device)
    weights = {"reference": unet} | {row: models[name].generator for row, name, _ in rows_of}
    memory = {
        row: peak(result.args.bundle, name, given, device) for row, name, given in rows_of if once(given)
    }
    rows, base = [], 0.0
    for name, found in times.items():
        scale = REFERENCE_STEPS if name == "reference" else 1 / batch
        with FlopCounterMode(display=False) as counter:
            tasks[name]()
        each, gflop = [t * scale for t in found], counter.get_total_flops() * scale / 1e9
        middle = median(each)
        base = base or middle["centre"]
        millions = sum(v.numel() for v in weights[name].parameters()) / 1e6
        rows.append(
            [name, millions, gflop, middle, 1 / middle["centre"], base / middle["centre"], memory.get(name)]
        )
        result.runs.append({"kind": "sampler", "name": name, "seconds": each, "gflop": gflop})
    h, w = synth.size
    result.table(
        f"A sample of {h}×{w} pixels and {synth.num_bands} bands",
        ["sampler", "M parameters", "GFLOP", "seconds", "samples / s", "× faster", f"MiB for {batch}"],
        rows, [2, 2, 4, 2, 0, 0],
    )  # fmt: skip
    faster, speed = rows[1][5], rows[1][4]
    result.claim(
        "the bundle, with the evaluations it asks for, is at least 1,000 times faster than a sampler of the reference's cost",
        faster >= 1000, f"{faster:.0f} ×",
    )  # fmt: skip
    if device.startswith("cuda"):
        result.claim("the bundle draws at least 2,000 samples a second", speed >= 2000, f"{speed:.0f}")


def once(given: dict[str, Any]) -> bool:
    """Memory does not depend on the number of evaluations: it is measured for the fewest."""
    return given.get("steps", 1) == SETTINGS["evaluations"][0]


def peak(bundle: str, name: str, given: dict[str, Any], device: str) -> float:
    """MiB that a process of its own takes for a batch."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_peak, bundle, name, given, device, torch.get_num_threads()).result()


def _peak(bundle: str, name: str, given: dict[str, Any], device: str, threads: int) -> float:
    torch.set_num_threads(threads)
    synth = shaped(HSISynthesizer.from_pretrained(bundle, device=device), name)
    y = torch.arange(SETTINGS["batch"]) % synth.num_classes
    synth.sample(y[:1], seed=0, **given)
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        synth.sample(y, seed=0, **given)
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    status = Path("/proc/self/status")
    if not status.exists():  # no Linux
        return float("nan")
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    before = _kib(status, "VmRSS")
    synth.sample(y, seed=0, **given)
    return (_kib(status, "VmHWM") - before) / 1024


def _kib(status: Path, name: str) -> int:
    return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith(name))


# ---- training steps


def training(result: Result, synth: HSISynthesizer, preset: str, device: str) -> None:
    """A step with each source, at each size."""
    chosen = SETTINGS["step"]
    fixed = torch.Generator().manual_seed(0)
    pictures = {
        c: torch.randint(256, (SETTINGS["pictures"], 3, *synth.size), dtype=torch.uint8, generator=fixed)
        for c in synth.classes
    }
    pool = Pool(synth)
    pool.sample(torch.arange(synth.num_classes), fixed)
    steppers = hasattr(synth.generator, "guidance") and getattr(synth.generator, "times", None) is None
    with tempfile.TemporaryDirectory() as folder:
        given: dict[str, dict[str, Any]] = {
            "Pool": {"source": pool},
            "Bank": {"strategy": "bank", "bank": pictures, "bank_cache": folder},
            "Live, as the bundle asks": {"source": Live(synth)},
        }
        for n in chosen["live"] if steppers else []:
            source = Live(synth, {"steps": n, "guidance": 1})
            given[f"Live, {n} evaluation{'s' * (n > 1)}"] = {"source": source}
        for size, rounds in chosen["rounds"][preset].items():
            step = Step(synth, size, chosen["batch"], device, synth.num_classes)
            augments: dict[str, UBFAugment | None] = {"plain": None}
            augments |= {s: UBFAugment(synth, chosen["p"], seed=0, **o) for s, o in given.items()}
            if (bank := augments["Bank"].source.bank) is not None:
                bank.draw(torch.arange(synth.num_classes), synth.size, synth, fixed)
            rows, runs = step.table(augments, rounds)
            result.table(f"Milliseconds a step, {size}×{size}", STEP_COLUMNS, rows, STEP_DIGITS)
            result.runs += [{"kind": "step", "size": size, **run} for run in runs]
            judge_steps(result, size, rows, device)
    if device.startswith("cuda"):
        gpu_pool(result, synth)


def judge_steps(result: Result, size: int, rows: list[list[Any]], device: str) -> None:
    """The goals of a training step."""
    ratio = {row[0]: (row[3], row[4]) for row in rows}
    limit = 1.05 if device.startswith("cuda") else 1.10
    for how, value in zip(("medians", "means"), ratio["Pool"], strict=True):
        result.claim(
            f"a step with a pool costs at most {limit:.2f} plain ones, {size}×{size}, by {how}",
            value <= limit,
            f"{value:.3f}",
        )
    value = ratio["Live, as the bundle asks"][0]
    result.claim(
        f"a live step at p=0.5 costs at most 2 plain ones, {size}×{size}", value <= 2, f"{value:.2f}"
    )


def gpu_pool(result: Result, synth: HSISynthesizer) -> None:
    """What a GPU is asked for beside the step: images from a full pool, and its memory."""
    torch.cuda.reset_peak_memory_stats()
    capacity = -(-SETTINGS["pool on a GPU"] // synth.num_classes)
    pool, rng = Pool(synth, capacity, refresh=0.0, progress=False), torch.Generator().manual_seed(0)
    pool.fill()
    y = torch.arange(256) % synth.num_classes
    out = torch.empty(len(y), synth.num_bands, *synth.size, device=synth.device)
    held = torch.cuda.memory_allocated() / 2**30
    task = {"decode": lambda: synth.mix(pool.sample(y, rng), y, residual=True, generator=rng, out=out)}
    speed = len(y) / median(seconds(task, 30, "cuda", 5)["decode"])["centre"]
    result.claim("at least 100,000 images a second from a pool", speed >= 1e5, f"{speed:.0f}")
    result.claim("the generator and a pool of 8,000 maps take at most 1 GiB", held <= 1, f"{held:.2f} GiB")


# ---- decoding and importing


@torch.no_grad()
def decoding(result: Result, synth: HSISynthesizer, rounds: int, device: str) -> None:
    """Bytes of images per second, beside a copy; on a CPU with one thread and with all."""
    n, threads = SETTINGS["decoded"], torch.get_num_threads()
    a = synth.sample_abundances(torch.arange(n) % synth.num_classes, seed=0)
    x = synth.mix(a)
    out, rng = torch.empty_like(x), torch.Generator().manual_seed(0)
    square = torch.rand(1024, 1024, device=device)
    tasks: dict[str, Callable[[], object]] = {
        "copy": lambda: out.copy_(x),
        "abundances to images": lambda: synth.mix(a, out=out),
        "with residual": lambda: synth.mix(a, residual=True, generator=rng, out=out),
        "with residual, into new memory": lambda: synth.mix(a, residual=True, generator=rng),
        "matrix product": lambda: torch.mm(square, square),
    }
    size = x.numel() * x.element_size() / 1e9
    rank = 0 if synth.residual is None else synth.residual.factors.shape[1]
    operations = 2 * x.numel() * (synth.num_endmembers + rank + 2) / 1e9  # [E; Lᵀ; μᵀ] and the noise
    for count in [1] if device.startswith("cuda") else sorted({1, os.cpu_count() or 1}):
        torch.set_num_threads(count)
        times = seconds(tasks, rounds + 5, device)
        product, copy = median(times.pop("matrix product"))["centre"], median(times["copy"])["centre"]
        where = "" if device.startswith("cuda") else f", {count} thread{'s' * (count > 1)}"
        rows = [
            [name, median([size / t for t in v]), n / median(v)["centre"], 100 * copy / median(v)["centre"]]
            for name, v in times.items()
        ]
        result.table(f"Decoding{where}", ["task", "GB / s", "images / s", "% of the copy"], rows, [2, 0, 0])
        goal = 70 if device.startswith("cuda") else 50
        for name, _, _, share in rows[1:3]:
            result.claim(
                f"{name}{where}: at least {goal} % of the copy's bandwidth", share >= goal, f"{share:.0f} %"
            )
        peak_rate = 2 * 1024**3 / product / 1e9
        bound = 100 * copy / max(copy / 2, operations / peak_rate)
        result.notes.append(
            f"With residual{where}: {operations:.2f} GFLOP and {size:.3f} GB of images; at the rate of a large matrix product, "
            f"{peak_rate:.0f} GFLOP/s, the arithmetic alone allows {bound:.0f} % of the copy's bandwidth."
        )
        result.runs += [
            {"kind": "decoding", "threads": count, "name": k, "seconds": v} for k, v in times.items()
        ]
    torch.set_num_threads(threads)


def imports(result: Result) -> None:
    """Seconds of importing the package after torch, in new processes."""
    code = "import torch, time; t = time.perf_counter(); import ubf_augment; print(time.perf_counter() - t)"
    found = [
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
        for _ in range(SETTINGS["imports"] + 1)
    ][1:]
    result.table("Import after torch", ["module", "seconds"], [["ubf_augment", median(found)]], [3])
    middle = median(found)["centre"]
    result.claim("importing takes at most 0.3 s more than torch", middle <= 0.3, f"{middle:.2f} s")
    result.runs.append({"kind": "import", "name": "ubf_augment", "seconds": found})


if __name__ == "__main__":
    main()
