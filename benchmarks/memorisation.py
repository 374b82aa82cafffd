"""Is a sample of a packaged bundle a copy of a training scene?

    python benchmarks/memorisation.py --preset full
    python benchmarks/memorisation.py --preset full --bundle indian-pines

Samples of every class against everything that the bundle was trained on, in reflectance, at 16 × 16 pixels or the bundle's
own size, in all eight symmetries. How near is too near is read off real images. ``aid-chikusei`` has seen all AID pictures: a
tenth of them plays the part of new ones; two different tenths are used in turn, so that every picture can be found. For
``indian-pines`` the new ones are the windows of its test blocks, which it never saw; both sides are unmixed and mixed again.

A sample counts as a near copy where it comes nearer to a training scene (or nearer relative to the second nearest) than
99% of the new real images do, so up to 2% of new real images would count, too: their share is printed beside.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from common import Result, arguments
from scenes import aid
from torch import Tensor

from ubf_augment import HSISynthesizer, metrics, mix
from ubf_augment.datasets.indian_pines import IndianPines, load_scene
from ubf_augment.plotting.parts import finish
from ubf_augment.radiometry import to_display, to_reflectance
from ubf_augment.seeding import per_sample
from ubf_augment.spectra import rgb_bands

SETTINGS: dict[str, Any] = {
    "per class": {"quick": 8, "full": 32}, "pictures per class": {"quick": 60, "full": 1000}, "quantile": 0.02,
    "sampling": {"steps": 10, "guidance": 1.5}, "tenths": [0, 5], "shown": 8, "bands of indian-pines": 8,
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """Training scenes and new real ones, (N, C, S, S) reflectance at ``bands``."""

    name: str
    training: Tensor
    held_out: Tensor
    bands: list[int]
    rgb: tuple[int, int, int]  # their places among ``bands``


def options(parser: ArgumentParser) -> None:
    """Add what to measure."""
    parser.add_argument("--bundle", choices=("aid-chikusei", "indian-pines"), default="aid-chikusei")


def main() -> None:
    """Draw, compare, show the nearest pairs."""
    args = arguments(__doc__ or "", options)
    synth = HSISynthesizer.from_pretrained(args.bundle)
    cases = list(aid_cases(args, synth) if args.bundle == "aid-chikusei" else indian_pines_case(synth))
    kinds = [k for k in synth.classes if k != "Chikusei" and not k.startswith("AID/")]
    y = [k for k in kinds for _ in range(SETTINGS["per class"][args.preset])]
    result = Result(
        "memorisation" if args.bundle == "aid-chikusei" else f"memorisation-{args.bundle}",
        f"Near copies of training scenes, bundle {args.bundle}",
        f"{len(cases[0].training)} training scenes and {len(cases[0].held_out)} new ones in each case; {len(y)} samples of "
        f"{len(kinds)} classes.",
        args, [0], SETTINGS | {"bundle": args.bundle},
    )  # fmt: skip
    labels = torch.tensor([synth.classes.index(n) for n in y])
    a = synth.sample_abundances(labels, generator=per_sample(0, range(len(y))), **SETTINGS["sampling"])
    made = mix(a, synth.endmembers)
    rows, pairs = [], []
    for case in cases:
        samples, size = made[:, case.bands], min(16, *synth.size)
        found = metrics.memorisation(
            samples, case.training, held_out=case.held_out, quantile=SETTINGS["quantile"], size=size
        )
        inside = (found.held_out_distances < found.threshold) | (found.held_out_ratio < found.ratio_threshold)
        rows.append([
            case.name, float(found.distances.median()), float(found.distances.min()),
            float(found.held_out_distances.median()), float(found.held_out_distances.min()),
            float(found.training_distances.min()), found.threshold, found.share, float(inside.double().mean()),
        ])  # fmt: skip
        flagged = found.copies.nonzero()[:, 0].tolist()
        result.runs.append(
            {"case": case.name, "near_copies": len(flagged), "classes": [y[i] for i in flagged]}
        )
        nearest = found.distances.argsort()[: SETTINGS["shown"]].tolist()
        rgb = list(case.rgb)
        pairs += [
            (y[i], float(found.distances[i]), samples[i][rgb], case.training[found.nearest[i]][rgb])
            for i in nearest
        ]
    columns = ["training scenes", "samples: median", "smallest", "new real: median", "smallest", "training: smallest",
               "threshold", "near copies", "of new real"]  # fmt: skip
    result.table(
        "Distance to the nearest training scene (root mean square reflectance)", columns, rows, [4] * 8
    )
    count = sum(run["near_copies"] for run in result.runs)
    result.claim("no sample counts as a near copy", not count, f"{count} of {len(rows) * len(y)} comparisons")
    for row in rows:
        result.claim(
            f"{row[0]}: no sample is nearer to a training scene than the nearest new real scene is", row[2] > row[4],
            f"{row[2]:.4f} against {row[4]:.4f}",
        )  # fmt: skip
        result.claim(
            f"{row[0]}: near copies are no more frequent than among new real scenes", row[7] <= row[8],
            f"{row[7]:.4f} of the samples, {row[8]:.4f} of the real ones",
        )  # fmt: skip
    result.write()
    show(args, result, synth, sorted(pairs, key=lambda p: p[1])[: SETTINGS["shown"]])


def aid_cases(args: Namespace, synth: HSISynthesizer) -> Iterator[Case]:
    """AID pictures with a tenth left out, in turn."""
    pictures = aid(args.data, synth.size, SETTINGS["pictures per class"][args.preset])
    shown = torch.cat([p for kind, p in pictures if kind in synth.classes])
    real = distinct(to_reflectance(shown, synth.rgb_scale, synth.rgb_gamma))
    for tenth in SETTINGS["tenths"]:
        out = torch.arange(len(real)) % 10 == tenth
        yield Case(
            f"tenth {tenth} left out", real[~out], real[out], list(rgb_bands(synth.wavelengths)), (0, 1, 2)
        )


def indian_pines_case(synth: HSISynthesizer) -> Iterator[Case]:
    """All windows of the training blocks, and of the test blocks; unmixed and mixed, a part of the bands."""
    bands = sorted(
        {*range(0, synth.num_bands, SETTINGS["bands of indian-pines"]), *rgb_bands(synth.wavelengths)}
    )
    r, g, b = (bands.index(i) for i in rgb_bands(synth.wavelengths))
    found, side = [], synth.size[0]
    for split in ("train", "test"):
        area = IndianPines(split, 0).area  # type: ignore[arg-type]
        whole = area.unfold(0, side, 1).unfold(1, side, 1).flatten(2).all(2)
        windows = load_scene().image.unfold(1, side, 1).unfold(2, side, 1)[:, whole].movedim(0, 1)
        with torch.no_grad():
            found.append(
                torch.cat([mix(synth.unmix(x), synth.endmembers)[:, bands] for x in windows.split(128)])
            )
    yield Case("windows of the training blocks", found[0], found[1], bands, (r, g, b))


def distinct(x: Tensor) -> Tensor:
    """Leave out pictures that stand in the data twice (AID holds such pairs)."""
    small = torch.nn.functional.adaptive_avg_pool2d(x, 8).flatten(1)
    near = torch.cdist(small, small) < 1e-3 * small.shape[1] ** 0.5
    return x[~near.tril(-1).any(1)]


def show(
    args: Namespace, result: Result, synth: HSISynthesizer, pairs: list[tuple[str, float, Tensor, Tensor]]
) -> None:
    """The samples that are nearest to a training scene, above that scene."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(2, len(pairs), figsize=(1.3 * len(pairs), 3.1), layout="constrained")
    for (top, bottom), (kind, distance, sample, real) in zip(axes.T, pairs, strict=True):
        for axis, x in ((top, sample), (bottom, real)):
            axis.imshow(
                to_display(x, synth.rgb_scale, synth.rgb_gamma).movedim(0, -1), interpolation="nearest"
            )
            axis.set_axis_off()
        top.set_title(f"{kind}\n{distance:.4f}", fontsize=7)
        bottom.set_title("nearest training scene", fontsize=6)
    suffix = "" if args.preset == "full" else "-quick"
    finish(figure, args.out / f"{result.name}{suffix}.png", 110)
    plt.close(figure)


if __name__ == "__main__":
    main()
