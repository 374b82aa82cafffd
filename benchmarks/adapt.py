"""A bundle adapted to other sensors: Sentinel-2 (EuroSAT, 13 bands), EnMAP (218), AVIRIS (Jasper Ridge, 198), CASI (MUUFL, 64).

    python benchmarks/adapt.py --preset full --bundle aid-chikusei

A part of the images adapts, the others are measured, several random splits (of Jasper Ridge and MUUFL: blocks of 20×20 and
18×18 pixels): every image's red, green and blue bands are unmixed and decoded to all bands ("RGB path": what generated images
go through; by the regression that `adapt` learns, its centre), and all its bands are unmixed by FCLS and decoded ("unmixed":
the mixing model's own error). "Before" is the RGB encoder with the bundle's endmembers resampled to the new bands, which exist
only inside the bundle's range: compare it with "after" on those bands. Relative error is RMSE over the root mean square of the
image. Classes must be the bundle's: each class of EuroSAT goes to one of AID, no two to the same; which one matters only for
the class that samples are drawn from. Other ways from colours to all bands, and the spread: `beyond_visible.py`.
"""

from __future__ import annotations

import time
from argparse import Namespace
from pathlib import Path
from typing import Any

import torch
from common import Journal, Result, arguments, bundle_option, mean
from scenes import enmap, eurosat, truth
from torch import Tensor

from ubf_augment import HSISynthesizer, fcls, mix
from ubf_augment.metrics import sad
from ubf_augment.plotting.parts import finish
from ubf_augment.seeding import derive_seed
from ubf_augment.spectra import rgb_bands

EUROSAT_TO_AID = {
    "AnnualCrop": "Farmland", "Forest": "Forest", "HerbaceousVegetation": "Meadow", "Highway": "Viaduct",
    "Industrial": "Industrial", "Pasture": "Park", "PermanentCrop": "SparseResidential", "Residential": "MediumResidential",
    "River": "River", "SeaLake": "Beach",
}  # fmt: skip
SETTINGS = {"training share": 0.5, "seeds": {"quick": 2, "full": 5}, "class_map": EUROSAT_TO_AID}


def main() -> None:
    """Adapt to each sensor, on several splits."""
    args = arguments(__doc__ or "", bundle_option)
    seeds = list(range(args.seeds or SETTINGS["seeds"][args.preset]))
    synth = HSISynthesizer.from_pretrained(args.bundle)
    name = Path(args.bundle).name
    settings = SETTINGS | {"bundle": name}
    result = Result(
        "adapt" if name == "aid-chikusei" else f"adapt-{name}", f"The bundle {name} adapted to other sensors",
        "EuroSAT, 120 scenes 64×64, 13 bands; EnMAP, 14 tiles 32×32, 218 bands; Jasper Ridge, 25 blocks 20×20, 198 bands; MUUFL "
        "Gulfport, 25 blocks 18×18, 64 bands.", args, seeds, settings,
    )  # fmt: skip
    journal = Journal(result.name, args, settings)
    cases = load(args, synth)
    found: dict[str, list[dict[str, Any]]] = {}
    for case in cases:
        for seed in seeds:
            values = journal.run(f"{case}/{seed}", lambda c=case, s=seed: measure(synth, *cases[c], s))
            found.setdefault(case, []).append(values)
            result.runs.append({"case": case, "seed": seed} | values)
    tabulate(result, found, cases)
    result.write()
    picture(args, result, synth, cases)


Case = tuple[Tensor, Tensor, list[str] | None]


def load(args: Namespace, synth: HSISynthesizer) -> dict[str, Case]:
    """Images, wavelengths, and the class of each image where it is told."""
    scenes, y, nm, names = eurosat(args.data)
    cases: dict[str, Case] = {"EuroSAT, without classes": (scenes, nm, None)}
    if set(EUROSAT_TO_AID.values()) <= set(synth.classes):
        cases["EuroSAT, classes given"] = (scenes, nm, [EUROSAT_TO_AID[names[k]] for k in y.tolist()])
    cases["EnMAP"] = (*enmap(args.data), None)
    for name, block in (("Jasper", 20), ("MUUFL", 18)):
        scene = truth(name, args.data)
        blocks = scene.image.unfold(1, block, block).unfold(2, block, block).flatten(1, 2).movedim(0, 1)
        cases[name] = (blocks.contiguous(), scene.wavelengths, None)
    return cases


def split(count: int, labels: list[str] | None, seed: int) -> tuple[list[int], list[int]]:
    """Random halves; the same for every variant of a data set."""
    generator = torch.Generator().manual_seed(derive_seed(seed, count))
    order = torch.randperm(count, generator=generator).tolist()
    cut = round(SETTINGS["training share"] * count)
    return sorted(order[:cut]), sorted(order[cut:])


@torch.no_grad()
def measure(
    synth: HSISynthesizer, images: Tensor, nm: Tensor, labels: list[str] | None, seed: int
) -> dict[str, Any]:
    """Adapt on one half, measure the other."""
    train, test = split(len(images), labels, seed)
    start = time.monotonic()
    new = synth.adapt(
        images[train],
        wavelengths=nm,
        labels=None if labels is None else [labels[i] for i in train],
        seed=seed,
    )
    seconds = time.monotonic() - start
    x, y = images[test], None if labels is None else [labels[i] for i in test]
    inside = (nm >= synth.wavelengths[0]) & (nm <= synth.wavelengths[-1])
    a = rgb_abundances(new, x, nm, y)
    old, encoded = synth.endmembers.resample(nm[inside]), new.encode_rgb(x[:, list(rgb_bands(nm))])
    made = new.mix(a, y)
    whole = mix(fcls(x, new.endmembers), new.endmembers)
    return {
        "seconds": seconds,
        "rmse_before_in_range": rms(mix(encoded, old) - x[:, inside]),
        "rmse_after_in_range": rms((made - x)[:, inside]),
        "rmse_after": rms(made - x),
        "relative_after": rms(made - x) / rms(x),
        "angle_after": float(sad(made, x)),
        "rmse_unmixed": rms(whole - x),
        "relative_unmixed": rms(whole - x) / rms(x),
        "rmse_per_band": (made - x).square().mean((0, 2, 3)).sqrt().tolist(),
        "rmse_per_band_unmixed": (whole - x).square().mean((0, 2, 3)).sqrt().tolist(),
    }


def rgb_abundances(synth: HSISynthesizer, x: Tensor, nm: Tensor, y: list[str] | None) -> Tensor:
    """Abundances from the red, green and blue bands, as `adapt` finds them."""
    index = None if y is None else synth.labels(y)
    return synth.unmix_rgb_reflectance(x[:, list(rgb_bands(nm))], index)


def rms(x: Tensor) -> float:
    """Root mean square."""
    return float(x.double().square().mean().sqrt())


def tabulate(result: Result, found: dict[str, list[dict[str, Any]]], cases: dict[str, Case]) -> None:
    """Seconds and errors, then errors per band."""
    keys = (
        "seconds", "rmse_before_in_range", "rmse_after_in_range", "rmse_after", "relative_after", "angle_after",
        "rmse_unmixed", "relative_unmixed",
    )  # fmt: skip
    columns = [
        "data", "seconds", "RGB path: before, bands in range", "after, bands in range", "after, all bands",
        "relative", "angle (°)", "unmixed: after, all bands", "relative",
    ]  # fmt: skip
    rows = [[case, *(mean([v[k] for v in values]) for k in keys)] for case, values in found.items()]
    result.table("Held-out images, RMSE in reflectance", columns, rows, [1, 4, 4, 4, 3, 1, 4, 3])
    sentinel = [case for case in found if case.startswith("EuroSAT")]
    nm = cases[sentinel[0]][1].tolist()
    rows = [
        [f"{centre:.0f}", *(mean([v[key][i] for v in found[case]]) for case in sentinel for key in PER_BAND)]
        for i, centre in enumerate(nm)
    ]
    columns = [
        "band (nm)",
        *(f"{case.split(', ')[1]}: {what}" for case in sentinel for what in PER_BAND.values()),
    ]
    result.table("EuroSAT, RMSE per band", columns, rows, [4] * (len(columns) - 1))
    for case, values in found.items():
        before, after = (mean([v[k] for v in values])["centre"] for k in keys[1:3])
        result.claim(
            f"{case}: adapting lowers the error on bands in range",
            after < before,
            f"{before:.4f} to {after:.4f}",
        )
        slowest = max(v["seconds"] for v in values)
        result.claim(f"{case}: adapting takes less than a minute", slowest < 60, f"{slowest:.1f} s")
    if len(sentinel) == 2:
        without, told = (mean([v["rmse_after"] for v in found[case]])["centre"] for case in sentinel)
        result.claim(
            "knowing the class lowers the error of the RGB path",
            told < without,
            f"{without:.4f} to {told:.4f}",
        )
    result.notes.append(
        "Mean ± standard deviation over random splits of the same images, which are not independent."
    )


PER_BAND = {"rmse_per_band": "RGB path", "rmse_per_band_unmixed": "unmixed"}


@torch.no_grad()
def picture(args: Namespace, result: Result, synth: HSISynthesizer, cases: dict[str, Case]) -> None:
    """A held-out image of each sensor in true and false colour, beside its decoded versions; error along the spectrum."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    columns = ("true colour", "decoded", "infrared, red, green", "decoded", "RMSE per band")
    figure, axes = plt.subplots(
        len(cases), 5, figsize=(12, 2.5 * len(cases)), layout="constrained", squeeze=False
    )
    for line, (case, (images, nm, labels)) in zip(axes, cases.items(), strict=True):
        train, test = split(len(images), labels, 0)
        new = synth.adapt(
            images[train], wavelengths=nm, labels=None if labels is None else [labels[i] for i in train]
        )
        shown = test[len(test) // 2]
        x, y = images[shown][None], None if labels is None else [labels[shown]]
        made = new.mix(rgb_abundances(new, x, nm, y), y)
        natural = list(rgb_bands(nm))
        infrared = [int((nm - 842).abs().argmin()), *natural[:2]]
        for axis, cube, bands in zip(
            line, (x, made, x, made), (natural, natural, infrared, infrared), strict=False
        ):
            white = float(x[0, bands].quantile(0.99))
            axis.imshow((cube[0, bands] / white).clamp(0, 1).movedim(0, -1))
            axis.set_axis_off()
        per_band = [[r[k] for r in result.runs if r["case"] == case] for k in PER_BAND]
        for values, label in zip(per_band, PER_BAND.values(), strict=True):
            line[4].plot(
                nm, torch.tensor(values).mean(0), ".-" if len(nm) < 20 else "-", label=label, linewidth=1
            )
        line[4].legend(fontsize=6)
        line[4].tick_params(labelsize=6)
        line[4].set_xlabel("nm", fontsize=6)
        for axis, title in zip(line, columns, strict=True):
            axis.set_title(title, fontsize=7)
        line[0].text(
            -0.06, 0.5, case, transform=line[0].transAxes, rotation=90, va="center", ha="right", fontsize=6
        )
    suffix = "" if args.preset == "full" else "-quick"
    finish(figure, args.out / f"{result.name}{suffix}.png", 110)
    plt.close(figure)


if __name__ == "__main__":
    main()
