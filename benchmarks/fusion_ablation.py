"""With and without fusion: does learning from RGB pictures too make samples of the HSIs' classes more diverse?

    python benchmarks/fusion_ablation.py                  # quick, on EuroSAT and AID
    python benchmarks/fusion_ablation.py --preset full    # for a GPU
    python benchmarks/fusion_ablation.py --sources chikusei-aid

One diffusion network, one training budget: on the abundance maps of the training HSIs alone, and on these and the AID
pictures together. Both are asked for the classes of the HSIs, and judged against unseen HSIs: recall and coverage (how much of
the unseen reality is reached), mean distance between samples, and the distance of samples to the nearest training map
beside that of unseen HSIs: a generator of few images repeats them. The fused generator can also be asked for all classes. Both
use the same endmembers and encoders, which have seen the pictures: only the generator's training differs.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from common import Journal, Result, arguments, mean
from spaces import SETTINGS as SHARED
from study import (
    CODED,
    DECODER_STEPS,
    Judge,
    Sources,
    Unmixed,
    contact_sheet,
    device,
    drawer,
    fit,
    load,
    options,
    unmix,
    workplace,
)
from torch import Tensor

from ubf_augment import metrics, mix
from ubf_augment.seeding import derive_seed
from ubf_augment.training.loop import save_atomic

SETTINGS: dict[str, Any] = SHARED | {
    "network": CODED,
    "endmembers": 8,
    "samples": {"quick": 300, "full": 2000},
}
COLUMNS = {
    "frechet_distance": ("Fréchet distance", 1), "kernel_distance": ("kernel distance", 3), "precision": ("precision", 2),
    "recall": ("recall", 2), "density": ("density", 2), "coverage": ("coverage", 2),
    "made_pairwise_distance": ("distance between samples", 2), "nearest_training": ("distance to training maps", 4),
    "sliced_wasserstein": ("spectra: sliced Wasserstein", 4),
}  # fmt: skip
ALONE, FUSED, ALL = "HSIs alone", "HSIs and RGB (fusion)", "HSIs and RGB, all classes"
REAL = "unseen HSIs, unmixed and mixed"


def more(parser: ArgumentParser) -> None:
    """EuroSAT by default: it has ten classes of HSIs."""
    options(parser)
    parser.set_defaults(sources="eurosat-aid")


def main() -> None:
    """Measure both for every seed."""
    args = arguments(__doc__ or "", more)
    steps = args.steps or SETTINGS["steps"][args.preset]
    seeds = list(range(args.seeds or SETTINGS["seeds"][args.preset]))
    sources = load(args, SETTINGS["size"][args.preset], SETTINGS["pictures per class"][args.preset])
    settings = SETTINGS | {"steps": steps, "sources": sources.name}
    name = "fusion_ablation" if sources.name == "eurosat-aid" else f"fusion_ablation-{sources.name}"
    result = Result(name, "With and without fusion", sources.text, args, seeds, settings, device(args))
    journal, judge = Journal(name, args, settings), Judge(sources)
    result.journal = journal
    found: dict[str, list[dict[str, Any]]] = {row: [] for row in (ALONE, FUSED, ALL, REAL)}
    for seed in seeds:
        home = workplace(journal) / f"seed-{seed}"
        data = unmix(
            sources, SETTINGS["endmembers"], SETTINGS["unmixing steps"][args.preset], seed, args, home
        )
        for row in (ALONE, FUSED):
            figures = journal.run(
                f"{row}/{seed}",
                lambda r=row, k=seed, d=data, h=home: measure(sources, judge, d, r, steps, k, args, h),
            )
            for key, values in figures.items():
                found[key].append(values)
                result.runs.append({"row": key, "seed": seed} | values)
        with torch.no_grad():
            a = data.model.unmix(sources.unseen)
        figures = journal.run(f"real/{seed}", lambda m=a, d=data: figures_of(judge, d, mix(m, d.endmembers)))
        found[REAL].append(figures)
        result.runs.append({"row": REAL, "seed": seed} | figures)
    rows = [
        [row, *(mean([v[c] for v in values]) if c in values[0] else None for c in COLUMNS)]
        for row, values in found.items()
    ]
    result.table(
        "Samples of the HSIs' classes", ["training", *(t for t, _ in COLUMNS.values())], rows,
        [d for _, d in COLUMNS.values()],
    )  # fmt: skip
    for column in ("recall", "coverage"):
        fused, alone = (sum(v[column] for v in found[r]) / len(seeds) for r in (FUSED, ALONE))
        result.claim(f"fusion raises {COLUMNS[column][0]}", fused > alone, f"{fused:.3g} against {alone:.3g}")
    for column in ("made_pairwise_distance", "nearest_training"):  # noise would raise these, too
        fused, alone, real = (sum(v[column] for v in found[r]) / len(seeds) for r in (FUSED, ALONE, REAL))
        result.claim(
            f"fusion brings the {COLUMNS[column][0]} nearer to that of unseen HSIs", abs(fused - real) < abs(alone - real),
            f"{fused:.4g} and {alone:.4g}, unseen HSIs {real:.4g}",
        )  # fmt: skip
    result.notes.append(
        f"Features: EfficientNet-Lite0 of pseudo-RGB. Reference: {len(sources.unseen)} unseen HSIs, far fewer than the features "
        "have dimensions: compare within this table only. “All classes” is judged against the same reference."
    )
    result.write()
    suffix = "" if args.preset == "full" else "-quick"
    sheet = {REAL: sources.unseen} | {
        row: torch.load(
            workplace(journal) / "seed-0" / f"{'fused' if row == FUSED else 'alone'}" / "scenes.pt"
        )
        for row in (ALONE, FUSED)
    }
    contact_sheet(args.out / f"{name}{suffix}.png", sheet, sources, sources.unseen_labels)


def measure(
    sources: Sources,
    judge: Judge,
    data: Unmixed,
    row: str,
    steps: int,
    seed: int,
    args: Namespace,
    home: Path,
) -> dict[str, dict[str, Any]]:
    """Train on one side of the comparison and judge."""
    own = torch.tensor([n.startswith("HSI ") for n in data.classes])[data.labels]
    side = data if row == FUSED else replace(data, maps=data.maps[own], labels=data.labels[own])
    folder = home / ("fused" if row == FUSED else "alone")
    folder.mkdir(exist_ok=True)
    model, seconds = fit(
        "ddpm", CODED[args.preset] | {"init_seed": seed}, side, steps, seed, args, folder,
        batch_size=SETTINGS["batch_size"][args.preset], lr=SETTINGS["lr"], ema_decay=SETTINGS["ema_decay"],
        warmup=min(100, steps // 10), codec_steps=DECODER_STEPS[args.preset],
    )  # fmt: skip
    draw = drawer(model, data, **SETTINGS["sampling"])
    count = SETTINGS["samples"][args.preset]
    kinds = sorted(set(sources.unseen_labels))
    names = [kinds[i % len(kinds)] for i in range(count)]
    scenes = draw(names, derive_seed(seed, 1))
    save_atomic(draw(sources.unseen_labels, derive_seed(seed, 3)).half(), folder / "scenes.pt")
    out = {row: {"train_seconds": seconds} | figures_of(judge, data, scenes)}
    if row == FUSED:
        names = [data.classes[i % len(data.classes)] for i in range(count)]
        out[ALL] = figures_of(judge, data, draw(names, derive_seed(seed, 2)))
    return out


def figures_of(judge: Judge, data: Unmixed, scenes: Tensor) -> dict[str, Any]:
    """Generation metrics against unseen HSIs, and the distance to the nearest training HSI, at 16 × 16 pixels."""
    found = metrics.generation_report(
        judge.features(judge.sources.unseen), judge.features(scenes), features="EfficientNet-Lite0"
    )
    own = torch.tensor([n.startswith("HSI ") for n in data.classes])[data.labels]
    a = data.maps[own].float()
    training = mix(a / a.sum(1, keepdim=True), data.endmembers)
    return {k: v for k, v in found.items() if not isinstance(v, str)} | judge.spectral(scenes) | {
        "nearest_training": float(nearest(scenes, training).mean())
    }  # fmt: skip


def nearest(x: Tensor, training: Tensor) -> Tensor:
    """Root mean square distance of each image to the nearest training image or one of its 8 symmetries."""
    small = torch.nn.functional.adaptive_avg_pool2d
    reference = small(training, 16)
    turned = [reference, reference.transpose(-1, -2)]
    turned = [t.rot90(k, (-2, -1)) for t in turned for k in range(4)]
    candidates = torch.cat(turned).flatten(1)
    return torch.cdist(small(x, 16).flatten(1), candidates).amin(1) / candidates.shape[1] ** 0.5


if __name__ == "__main__":
    main()
