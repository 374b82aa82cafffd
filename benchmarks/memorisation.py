"""Is a sample of a packaged bundle a copy of a training scene?

    python benchmarks/memorisation.py                     # quick
    python benchmarks/memorisation.py --preset full

Samples of every class of the bundle aid-chikusei against all AID pictures it was trained on, in red, green and blue
reflectance at 16 × 16 pixels, in all eight symmetries. How near is too near is read off real pictures: a tenth of the
pictures plays the part of new ones, and a sample counts as a near copy where it comes nearer to one of the other pictures
(or nearer relative to the second nearest) than 99% of these do, so up to 2% of new real pictures would count, too. Two
different tenths are used in turn, so that every picture can be found.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

import torch
from common import Result, arguments
from scenes import aid
from torch import Tensor

from ubf_augment import HSISynthesizer, metrics, mix
from ubf_augment.radiometry import to_display, to_reflectance
from ubf_augment.seeding import per_sample
from ubf_augment.spectra import rgb_bands

SETTINGS: dict[str, Any] = {
    "per class": {"quick": 8, "full": 32}, "pictures per class": {"quick": 60, "full": 1000}, "quantile": 0.02,
    "sampling": {"steps": 10, "guidance": 1.5}, "tenths": [0, 5], "shown": 8,
}  # fmt: skip


def options(parser: ArgumentParser) -> None:
    """Add what to measure."""
    parser.add_argument("--bundle", default="aid-chikusei", help="packaged name, directory or hub id")


def main() -> None:
    """Draw, compare with two tenths left out in turn, show the nearest pairs."""
    args = arguments(__doc__ or "", options)
    synth = HSISynthesizer.from_pretrained(args.bundle)
    name = Path(args.bundle).name
    pictures = [
        (k, p)
        for k, p in aid(args.data, synth.size, SETTINGS["pictures per class"][args.preset])
        if k in synth.classes
    ]
    real = distinct(to_reflectance(torch.cat([p for _, p in pictures]), synth.rgb_scale, synth.rgb_gamma))
    y = [k for k, _ in pictures for _ in range(SETTINGS["per class"][args.preset])]
    result = Result(
        "memorisation" if name == "aid-chikusei" else f"memorisation-{name}", f"Near copies of training scenes, bundle {name}",
        f"{len(real)} AID pictures, {len(y)} samples of {len(pictures)} classes.", args, [0], SETTINGS | {"bundle": name},
    )  # fmt: skip
    labels = torch.tensor([synth.classes.index(n) for n in y])
    a = synth.sample_abundances(labels, generator=per_sample(0, range(len(y))), **SETTINGS["sampling"])
    made = mix(a, synth.endmembers)[:, list(rgb_bands(synth.wavelengths))]
    rows, copies, nearest = [], torch.zeros(len(made), dtype=torch.bool), []
    for tenth in SETTINGS["tenths"]:
        out = torch.arange(len(real)) % 10 == tenth
        found = metrics.memorisation(made, real[~out], held_out=real[out], quantile=SETTINGS["quantile"])
        copies |= found.copies
        nearest.append((found.distances, (~out).nonzero()[:, 0][found.nearest]))
        inside = (found.held_out_distances < found.threshold) | (found.held_out_ratio < found.ratio_threshold)
        rows.append([
            f"tenth {tenth} left out", float(found.distances.median()), float(found.distances.min()),
            float(found.held_out_distances.median()), float(found.held_out_distances.min()), found.threshold,
            found.share, float(inside.double().mean()),
        ])  # fmt: skip
    result.table(
        "Distance to the nearest training scene (root mean square reflectance)",
        ["training scenes", "samples: median", "smallest", "real: median", "smallest", "threshold", "near copies", "of real"],
        rows, [4, 4, 4, 4, 4, 4, 4],
    )  # fmt: skip
    result.runs.append(
        {
            "near_copies": int(copies.sum()),
            "samples": len(made),
            "labels": [y[i] for i in copies.nonzero()[:, 0]],
        }
    )
    result.claim(
        "no sample is a near copy of a training scene",
        not bool(copies.any()),
        f"{int(copies.sum())} of {len(made)}",
    )
    result.claim(
        "near copies are no more frequent than among new real pictures",
        float(copies.double().mean()) <= 2 * SETTINGS["quantile"],
        f"{float(copies.double().mean()):.4f} of the samples, at most {2 * SETTINGS['quantile']:.2f} expected",
    )
    result.write()
    best = torch.stack([d for d, _ in nearest]).min(0)
    index = torch.stack([i for _, i in nearest]).gather(0, best.indices[None])[0]
    show(args, result, synth, made, real, best.values, index, y)


def distinct(x: Tensor) -> Tensor:
    """Leave out pictures that stand in the data twice (AID holds such pairs)."""
    small = torch.nn.functional.adaptive_avg_pool2d(x, 8).flatten(1)
    twins = torch.cdist(small, small).tril(-1)
    twins = (twins < 1e-3 * small.shape[1] ** 0.5) & (torch.ones_like(twins).tril(-1) > 0)
    return x[~twins.any(1)]


def show(
    args: Namespace, result: Result, synth: HSISynthesizer, made: Tensor, real: Tensor, distance: Tensor, index: Tensor,
    y: list[str],
) -> None:  # fmt: skip
    """The samples that are nearest to a training scene, above that scene."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    chosen = distance.argsort()[: SETTINGS["shown"]].tolist()
    figure, axes = plt.subplots(2, len(chosen), figsize=(1.3 * len(chosen), 3.1), layout="constrained")
    for column, i in enumerate(chosen):
        for axis, x in ((axes[0][column], made[i]), (axes[1][column], real[index[i]])):
            axis.imshow(to_display(x, synth.rgb_scale, synth.rgb_gamma).movedim(0, -1))
            axis.set_axis_off()
        axes[0][column].set_title(f"{y[i]}\n{float(distance[i]):.4f}", fontsize=7)
        axes[1][column].set_title("nearest training scene", fontsize=6)
    suffix = "" if args.preset == "full" else "-quick"
    figure.savefig(args.out / f"{result.name}{suffix}.png", dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    main()
