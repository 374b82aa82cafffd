"""How many evaluations does a sample need? One set of weights, samplers from 3 to 250 evaluations.

    python benchmarks/few_steps.py                        # quick
    python benchmarks/few_steps.py --preset full
    python benchmarks/few_steps.py --bundle DIRECTORY

Samples of every AID class of the bundle, in equal numbers and with the same seeds, against real AID pictures by features of
pseudo-RGB. The reference is the ancestral sampler (DDPM) with 250 evaluations. A second set of samples of one sampler, and other
pictures in the place of samples, show what chance alone does. Class fidelity: how often a
classifier of real features names the class that was asked for. The kernel distance is unbiased; the Fréchet distance of so few
images is largely bias, the same for all rows.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from common import Journal, Result, arguments, bundle_option
from scenes import aid
from study import network, workplace
from torch import Tensor

from ubf_augment import HSISynthesizer, metrics, mix
from ubf_augment.seeding import derive_seed, per_sample

SETTINGS: dict[str, Any] = {
    "per class": {"quick": 5, "full": 17}, "chunk": 30,
    "samplers": [["ddpm", 250, 1, 0], ["ddpm", 50, 1, 0], ["dpm-solver++", 1, 1, 0], ["dpm-solver++", 2, 1, 0],
                 ["dpm-solver++", 3, 1, 0], ["dpm-solver++", 4, 1, 0], ["dpm-solver++", 5, 1, 0], ["dpm-solver++", 8, 1, 0],
                 ["dpm-solver++", 10, 1, 0], ["dpm-solver++", 10, 1, 1], ["dpm-solver++", 20, 1, 0], ["ddim", 10, 1, 0],
                 ["dpm-solver++", 3, 1.5, 0], ["dpm-solver++", 5, 1.5, 0], ["dpm-solver++", 8, 1.5, 0],
                 ["dpm-solver++", 20, 1.5, 0], ["dpm-solver++", 8, 3, 0]],
}  # fmt: skip
REFERENCE = ("ddpm", 250, 1, 0)
Found = dict[tuple[str, int, float, int], dict[str, Any]]
COLUMNS = {
    "frechet_distance": ("Fréchet distance", 2), "kernel_distance": ("kernel distance", 3), "precision": ("precision", 2),
    "recall": ("recall", 2), "coverage": ("coverage", 2), "class_fidelity": ("class fidelity", 2), "seconds": ("s per sample", 3),
}  # fmt: skip


def main() -> None:
    """Draw, featurise, compare."""
    args = arguments(__doc__ or "", bundle_option)
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
    y = [kind for kind, p in pictures for _ in range(len(p[::2][:count]))]
    labels = torch.tensor([synth.classes.index(n) for n in y])
    found: Found = {}
    for sampler, steps, guidance, seed in SETTINGS["samplers"]:
        made, seconds = features(synth, labels, sampler, steps, guidance, seed, journal)
        fidelity = metrics.class_fidelity(real, labels, made, labels).accuracy.mean
        report = metrics.generation_report(real, made, features=network().name)
        found[sampler, steps, guidance, seed] = report | {"class_fidelity": fidelity, "seconds": seconds}
        result.runs.append(
            {"sampler": sampler, "evaluations": steps, "guidance": guidance, "seed": seed}
            | found[sampler, steps, guidance, seed]
        )
    fidelity = metrics.class_fidelity(real, labels, other, labels).accuracy.mean
    floor = metrics.generation_report(real, other, features=network().name) | {"class_fidelity": fidelity}
    result.runs.append({"sampler": "other AID pictures"} | floor)
    rows: list[list[Any]] = [
        [
            f"{sampler}, {steps} evaluations"
            + (f", guidance {guidance:g}" if guidance != 1 else "")
            + (", other samples" if seed else ""),
            *(v[c] for c in COLUMNS),
        ]
        for (sampler, steps, guidance, seed), v in found.items()
    ]
    rows.append(["other AID pictures", *(floor.get(c) for c in COLUMNS)])
    result.table(
        "Samplers", ["sampler", *(t for t, _ in COLUMNS.values())], rows, [d for _, d in COLUMNS.values()]
    )
    judge(result, found)
    result.notes.append(
        f"Features: EfficientNet-Lite0 of pseudo-RGB; {len(real)} pictures and {len(y)} samples, fewer than the features have "
        "dimensions: compare within this table only."
    )
    result.write()


def features(
    synth: HSISynthesizer,
    labels: Tensor,
    sampler: str,
    steps: int,
    guidance: float,
    seed: int,
    journal: Journal,
) -> tuple[Tensor, float]:
    """Features of one set of samples, chunk by chunk, kept on disk; and the seconds per sample."""
    folder = workplace(journal) / f"{sampler}-{steps}-{guidance:g}-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    parts, seconds = [], []
    for start in range(0, len(labels), SETTINGS["chunk"]):
        part = range(start, min(start + SETTINGS["chunk"], len(labels)))
        path = folder / f"{start}.pt"

        def work(part: range = part, path: Path = path) -> float:
            begin = time.perf_counter()
            a = synth.sample_abundances(
                labels[part.start : part.stop], generator=per_sample(derive_seed(seed, 7), part), sampler=sampler,
                steps=steps, guidance=guidance,
            )  # fmt: skip
            spent = time.perf_counter() - begin
            found = network()(
                mix(a, synth.endmembers), synth.wavelengths, scale=synth.rgb_scale, gamma=synth.rgb_gamma
            )
            torch.save(found, path)
            return spent / len(part)

        seconds.append(journal.run(f"{sampler}/{steps}/{guidance:g}/{seed}/{start}", work))
        parts.append(torch.load(path))
    return torch.cat(parts), sorted(seconds)[len(seconds) // 2]


def judge(result: Result, found: Found) -> None:
    """Within 10% of the reference sampler?"""
    limit = 1.1 * found[REFERENCE]["frechet_distance"]
    for (sampler, steps, guidance, seed), v in found.items():
        if 3 <= steps <= 10 and seed == 0 and guidance == 1:
            result.claim(
                f"{sampler} with {steps} evaluations: Fréchet distance within 10% of ancestral sampling with 250",
                v["frechet_distance"] <= limit,
                f"{v['frechet_distance']:.2f} against {found[REFERENCE]['frechet_distance']:.2f}",
            )


if __name__ == "__main__":
    main()
