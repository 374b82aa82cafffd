"""Abundances of ten thousand samples, and the same samples in other batch sizes.

    python benchmarks/sampling.py --preset full --bundle aid-chikusei

Classes take turns. Of all maps: the smallest abundance and the largest distance of a pixel's sum from one (float32, as they
come out of `sample_abundances`). Then 64 maps of one seed in batches of 1, 7 and 64: the largest difference of any abundance.
Sums within a network depend on the batch size in their last bits, so that the difference is not exactly zero.
"""

from __future__ import annotations

import time
from argparse import ArgumentParser
from pathlib import Path

import torch
from common import Journal, Result, arguments, bundle_option, device_option

from ubf_augment import HSISynthesizer

SETTINGS = {"samples": {"quick": 640, "full": 10_000}, "together": 250, "sizes": [1, 7, 64], "compared": 64}
SUM_TOLERANCE, BATCH_TOLERANCE = 1e-5, 1e-4


def options(parser: ArgumentParser) -> None:
    """Add what to measure."""
    bundle_option(parser)
    parser.add_argument("--steps", type=int, default=20, help="evaluations of the denoiser per sample")
    device_option(parser)


def main() -> None:
    """Sample, check, compare."""
    args = arguments(__doc__ or "", options)
    synth = HSISynthesizer.from_pretrained(args.bundle, device=args.device)
    name = Path(args.bundle).name
    settings = SETTINGS | {"bundle": name, "steps": args.steps}
    result = Result(
        f"sampling-{name}", f"Samples of {name}", "none.", args, [0], settings, device=args.device
    )
    journal = Journal(result.name, args, settings | {"device": args.device})
    total, part = SETTINGS["samples"][args.preset], SETTINGS["together"]

    def some(start: int) -> dict[str, float]:
        begin, count = time.perf_counter(), min(part, total - start)
        y = [synth.classes[(start + i) % synth.num_classes] for i in range(count)]
        a = synth.sample_abundances(y, seed=start, steps=args.steps)
        if not torch.isfinite(a).all():
            raise ValueError(f"samples {start} to {start + count - 1} are not finite")
        return {
            "first": start,
            "samples": count,
            "smallest_abundance": float(a.min()),
            "largest_sum_error": float((a.double().sum(1) - 1).abs().max()),
            "seconds": time.perf_counter() - begin,
        }

    result.runs += [
        journal.run(f"samples/{start}", lambda s=start: some(s)) for start in range(0, total, part)
    ]
    compared = journal.run("batches", lambda: differences(synth, args.steps))
    smallest = min(r["smallest_abundance"] for r in result.runs)
    error = max(r["largest_sum_error"] for r in result.runs)
    seconds = sum(r["seconds"] for r in result.runs) / total
    result.table(
        "Abundances",
        ["samples", "smallest abundance", "largest abs(sum − 1)", "seconds a sample"],
        [[str(total), smallest, error, seconds]],
        [8, 8, 4],
    )
    result.table(
        "The same seed in other batch sizes",
        ["batch size", "largest difference from one batch of 64"],
        [[size, value] for size, value in compared.items()],
        [8],
    )
    result.claim("every abundance is at least 0", smallest >= 0, f"{smallest:.3g}")
    result.claim("every sum is within 1e-5 of 1", error <= SUM_TOLERANCE, f"{error:.3g}")
    worst = max(compared.values())
    result.claim(
        f"samples of a seed are the same in any batch size (to {BATCH_TOLERANCE:g})",
        worst <= BATCH_TOLERANCE,
        f"{worst:.3g}",
    )
    result.write()


def differences(synth: HSISynthesizer, steps: int) -> dict[str, float]:
    """Largest difference of 64 maps drawn in batches of each size from those of the largest."""
    y = [synth.classes[i % synth.num_classes] for i in range(SETTINGS["compared"])]
    drawn = {
        size: synth.sample_abundances(y, seed=7, steps=steps, batch_size=size) for size in SETTINGS["sizes"]
    }
    return {str(size): float((a - drawn[max(drawn)]).abs().max()) for size, a in drawn.items()}


if __name__ == "__main__":
    main()
