"""How many evaluations does a sample need? One set of weights, samplers from 1 to 250 evaluations.

    python benchmarks/few_steps.py                        # quick
    python benchmarks/few_steps.py --preset full
    python benchmarks/few_steps.py --bundle DIRECTORY --distilled DIRECTORY

Samples of every AID class of the bundle, in equal numbers and with the same seeds, against real AID pictures by features of
pseudo-RGB. The reference is the ancestral sampler (DDPM) with 250 evaluations. A second set of samples of one sampler, and other
pictures in the place of samples, show what chance alone does. Class fidelity: how often a classifier of real features
names the class that was asked for. The kernel distance is unbiased; the Fréchet distance of so few images is largely bias,
the same for all rows.
"""

from __future__ import annotations

import time
from argparse import ArgumentParser
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from common import Journal, Result, arguments, bundle_option
from scenes import aid
from study import network, workplace
from torch import Tensor

from ubf_augment import HSISynthesizer, metrics, mix
from ubf_augment.seeding import derive_seed, per_sample
from ubf_augment.training.loop import save_atomic

SETTINGS: dict[str, Any] = {
    "per class": {"quick": 5, "full": 17}, "chunk": 30, "evaluations": [1, 2, 3, 4, 5, 8, 10, 20], "guided": [3, 8, 20],
}  # fmt: skip
COLUMNS = {
    "frechet_distance": ("Fréchet distance", 2), "kernel_distance": ("kernel distance", 3), "precision": ("precision", 2),
    "recall": ("recall", 2), "coverage": ("coverage", 2), "class_fidelity": ("class fidelity", 2), "seconds": ("s per sample", 3),
}  # fmt: skip


class Way(NamedTuple):
    """One way to draw the samples."""

    synth: HSISynthesizer
    evaluations: int
    options: Mapping[str, Any]
    seed: int = 0


def options(parser: ArgumentParser) -> None:
    """Add what to measure."""
    bundle_option(parser)
    parser.add_argument(
        "--distilled", type=Path, nargs="*", default=[], help="bundles that `ubf distill` made of it"
    )


def ways(synth: HSISynthesizer, distilled: Sequence[Path]) -> dict[str, Way]:
    """Every way by its name; the first is the reference."""

    def solver(steps: int, guidance: float = 1.0, sampler: str = "dpm-solver++", seed: int = 0) -> Way:
        return Way(synth, steps, {"sampler": sampler, "steps": steps, "guidance": guidance}, seed)

    found = {f"ddpm, {n} evaluations": solver(n, sampler="ddpm") for n in (250, 50)}
    found |= {f"dpm-solver++, {n} evaluation{'s' * (n > 1)}": solver(n) for n in SETTINGS["evaluations"]}
    found["dpm-solver++, 8 evaluations, other samples"] = solver(8, seed=1)
    found["ddim, 8 evaluations"] = solver(8, sampler="ddim")
    found |= {f"dpm-solver++, {n} evaluations, guidance 1.5": solver(n, 1.5) for n in SETTINGS["guided"]}
    for path in distilled:
        fast = HSISynthesizer.from_pretrained(path)
        count = int(fast.card["distillation"]["evaluations"])
        found[f"distilled, {count} evaluation{'s' * (count > 1)}"] = Way(fast, count, {})
    return found


def main() -> None:
    """Draw, featurise, compare."""
    args = arguments(__doc__ or "", options)
    synth = HSISynthesizer.from_pretrained(args.bundle)
    name = Path(args.bundle).name
    settings = SETTINGS | {
        "bundle": name,
        "generator steps": synth.card.get("settings", {}).get("generator_steps"),
    }
    count = SETTINGS["per class"][args.preset]
    result = Result(
        "few_steps" if name == "aid-chikusei" else f"few_steps-{name}", f"Evaluations per sample, bundle {name}",
        f"Reference: AID pictures of the bundle's classes at {synth.size[0]}×{synth.size[1]}, {count} of each class compared.",
        args, [0, 1], settings,
    )  # fmt: skip
    journal = Journal(result.name, args, settings)
    pictures = [(kind, p) for kind, p in aid(args.data, synth.size, 2 * count) if kind in synth.classes]
    real, other = (
        network()(torch.cat([p[i::2][:count] for _, p in pictures]).float() / 255, scale=1.0) for i in (0, 1)
    )
    labels = torch.cat(
        [torch.full((len(p[::2][:count]),), synth.classes.index(kind)) for kind, p in pictures]
    )
    tried = ways(synth, args.distilled)
    found: dict[str, dict[str, Any]] = {}
    for title, way in tried.items():
        made, seconds = features(title, way, labels, journal)
        found[title] = judged(real, made, labels) | {"seconds": seconds}
    found["other AID pictures"] = judged(real, other, labels)
    result.runs += [{"sampler": title} | v for title, v in found.items()]
    rows = [[title, *(v.get(c) for c in COLUMNS)] for title, v in found.items()]
    result.table(
        "Samplers", ["sampler", *(t for t, _ in COLUMNS.values())], rows, [d for _, d in COLUMNS.values()]
    )
    first = next(iter(tried))
    for title, way in tried.items():
        if way.evaluations <= 10 and way.seed == 0 and way.options.get("guidance", 1) == 1:
            limit, reached = (found[k]["frechet_distance"] for k in (first, title))
            result.claim(
                f"{title}: Fréchet distance within 10% of {first}", reached <= 1.1 * limit, f"{reached:.2f} against {limit:.2f}"
            )  # fmt: skip
    result.notes.append(
        f"Features: EfficientNet-Lite0 of pseudo-RGB; {len(real)} pictures and {len(labels)} samples, fewer than the features "
        "have dimensions: compare within this table only."
    )
    result.write()


def judged(real: Tensor, made: Tensor, labels: Tensor) -> dict[str, Any]:
    """Figures of one set of features."""
    fidelity = metrics.class_fidelity(real, labels, made, labels).accuracy.mean
    return metrics.generation_report(real, made, features=network().name) | {"class_fidelity": fidelity}


def features(title: str, way: Way, labels: Tensor, journal: Journal) -> tuple[Tensor, float]:
    """Features of one set of samples, chunk by chunk, kept on disk; and the seconds per sample."""
    synth = way.synth
    folder = workplace(journal) / title.replace(" ", "_")
    folder.mkdir(parents=True, exist_ok=True)
    parts, seconds = [], []
    for start in range(0, len(labels), SETTINGS["chunk"]):
        part = range(start, min(start + SETTINGS["chunk"], len(labels)))
        path = folder / f"{start}.pt"

        def work(part: range = part, path: Path = path) -> float:
            begin, rngs = time.perf_counter(), per_sample(derive_seed(way.seed, 7), part)
            a = synth.sample_abundances(labels[part.start : part.stop], generator=rngs, **way.options)
            spent = time.perf_counter() - begin
            found = network()(
                mix(a, synth.endmembers), synth.wavelengths, scale=synth.rgb_scale, gamma=synth.rgb_gamma
            )
            save_atomic(found, path)
            return spent / len(part)

        seconds.append(journal.run(f"{title}/{start}", work))
        parts.append(torch.load(path))
    return torch.cat(parts), sorted(seconds)[len(seconds) // 2]


if __name__ == "__main__":
    main()
