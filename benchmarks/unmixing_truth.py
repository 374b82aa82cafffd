"""Abundances and endmembers against the truth that ships with Jasper Ridge, Samson and MUUFL Gulfport.

    python benchmarks/unmixing_truth.py --preset full

One recipe for all three scenes, and nothing is chosen by the truth: the settings are those of `HSISynthesizer.fit` (VCA, four
restarts of which the one with the smallest reconstruction error is kept, `refine` with pull 1e-3, `scale_materials`, shade as
an additional endmember). With shade the abundances of the materials are closed to sum one, a_p / (1 − a_shade), before they
are compared: shade carries the brightness of a pixel, which the shipped truth does not count as a material. Rows without
shade are there to show what it does. Estimated endmembers are matched to the shipped ones by `metrics.endmember_angles`.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from typing import Any

import torch
from common import Journal, Result, arguments, mean
from scenes import Scene, truth
from torch import Tensor

from ubf_augment import Endmembers, UnmixingModel, fcls, mix
from ubf_augment.metrics import endmember_angles
from ubf_augment.plotting.parts import finish
from ubf_augment.unmixing import refine, scale_materials, vca, with_shade

SCENES = ("Jasper", "Samson", "MUUFL")
SETTINGS = {
    "pull": 1e-3, "restarts": 4, "iterations": 100, "every_nth_pixel": 3, "width": 64, "blocks": 2, "batch_size": 4,
    "crop": 32, "steps": {"quick": 200, "full": 250}, "seeds": {"quick": 1, "full": 5},
}  # fmt: skip
ROWS = {
    "vca": "VCA, FCLS",
    "vca+shade": "VCA and shade, FCLS",
    "refined": "refined, FCLS",
    "refined+shade": "refined, with shade, FCLS",
    "network": "network, no shade",
    "network+shade": "**network** (recommended: with shade)",
}


def main() -> None:
    """Run every method on every scene and seed."""
    args = arguments(__doc__ or "")
    seeds = list(range(args.seeds or SETTINGS["seeds"][args.preset]))
    result = Result(
        "unmixing_truth", "Unmixing against ground truth", "Jasper Ridge (4 materials), Samson (3), MUUFL Gulfport (5).",
        args, seeds, SETTINGS,
    )  # fmt: skip
    journal = Journal(result.name, args, SETTINGS)
    scores: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for name in SCENES:
        scene = truth(name, args.data)
        for method in ROWS:
            for seed in seeds:
                key = f"{name}/{method}/{seed}"
                found = journal.run(
                    key, lambda s=scene, m=method, k=seed, n=name: measure(s, n, m, k, args, journal)
                )
                scores.setdefault((name, method), []).append(found)
                result.runs.append({"scene": name, "method": method, "seed": seed} | found)
        journal.run(f"{name}/bound", lambda s=scene: bound(s))
    tabulate(result, scores, {name: journal.done[f"{name}/bound"] for name in SCENES})
    judge(result, scores)
    result.write()
    picture(args, journal, result)


def measure(
    scene: Scene, name: str, method: str, seed: int, args: Namespace, journal: Journal
) -> dict[str, Any]:
    """One method, one seed: abundance RMSE, mean angle, angles per material, reconstruction RMSE."""
    shade = method.endswith("+shade")
    if method.startswith("vca"):
        spectra = vca(scene.pixels, len(scene.materials), seed=seed)
        spectra = with_shade(spectra) if shade else spectra
    else:
        spectra = initial(scene, shade, seed)
    if method.startswith("network"):
        torch.manual_seed(seed)
        model = UnmixingModel(
            Endmembers(spectra, scene.wavelengths), width=SETTINGS["width"], blocks=SETTINGS["blocks"]
        )
        model.fit(
            [scene.image], steps=SETTINGS["steps"][args.preset], batch_size=SETTINGS["batch_size"],
            crop=SETTINGS["crop"], seed=seed, progress=False,
        )  # fmt: skip
        spectra = model.endmembers.spectra
        with torch.no_grad():
            a = model.unmix(scene.image[None])
    else:
        a = fcls(scene.image[None], spectra)
    error = float((mix(a, spectra) - scene.image).square().mean().sqrt())
    out, matched = score(scene, a[0], spectra, shade)
    if seed == 0:
        torch.save(matched, journal.path.with_name(f"{journal.path.stem}-{name}-{method}.pt"))
    return out | {"reconstruction_rmse": error}


def initial(scene: Scene, shade: bool, seed: int) -> Tensor:
    """VCA and `refine`, best of several restarts by reconstruction error, as `HSISynthesizer.fit` begins."""
    image = scene.pixels.T[None, :, :, None]
    best: tuple[float, Tensor] | None = None
    for restart in range(SETTINGS["restarts"]):
        start = vca(scene.pixels, len(scene.materials), seed=seed * SETTINGS["restarts"] + restart)
        spectra = refine(
            scene.pixels[:: SETTINGS["every_nth_pixel"]], with_shade(start) if shade else start, shade=shade,
            iterations=SETTINGS["iterations"], pull=SETTINGS["pull"],
        )  # fmt: skip
        spectra = scale_materials(spectra, scene.pixels) if shade else spectra
        error = float((mix(fcls(image, spectra), spectra) - image).square().mean())
        if best is None or error < best[0]:
            best = error, spectra
    assert best is not None
    return best[1]


def score(scene: Scene, a: Tensor, spectra: Tensor, shade: bool) -> tuple[dict[str, Any], Tensor]:
    """Errors against the truth, and the abundances in its order."""
    if shade:
        lit = a[:-1].sum(0, keepdim=True)
        a = torch.where(lit > 1e-6, a[:-1] / lit.clamp_min(1e-6), 1 / len(scene.materials))
        spectra = spectra[:-1]
    angles, order = endmember_angles(spectra, scene.endmembers)
    error = (a[order] - scene.abundances).square()
    found = {
        "abundance_rmse": float(error.mean().sqrt()),
        "angle": float(angles.mean()),
        "angle_per_material": {m: float(v) for m, v in zip(scene.materials, angles, strict=True)},
    }
    return found, a[order]


def bound(scene: Scene) -> dict[str, float]:
    """Abundance RMSE of FCLS with the shipped endmembers, scaled to the image by shade and `scale_materials`."""
    spectra = scale_materials(with_shade(scene.endmembers), scene.pixels)
    return score(scene, fcls(scene.image[None], spectra)[0], spectra, True)[0]


def tabulate(
    result: Result, scores: dict[tuple[str, str], list[dict[str, Any]]], bounds: dict[str, dict[str, float]]
) -> None:
    """One row per method, RMSE and angle per scene."""
    columns = ["method", *(f"{name}: {what}" for name in SCENES for what in ("RMSE", "angle (°)"))]
    rows: list[list[Any]] = []
    for method, label in ROWS.items():
        row: list[Any] = [label]
        for name in SCENES:
            found = scores[name, method]
            row += [mean([f["abundance_rmse"] for f in found]), mean([f["angle"] for f in found])]
        rows.append(row)
    last: list[Any] = ["shipped endmembers, with shade, FCLS"]
    for name in SCENES:
        last += [bounds[name]["abundance_rmse"], 0.0]
    result.table("Abundance RMSE and mean endmember angle", columns, [*rows, last], [3, 1] * len(SCENES))
    columns = ["method", *SCENES]
    rows = [
        [label, *(mean([f["reconstruction_rmse"] for f in scores[name, method]]) for name in SCENES)]
        for method, label in ROWS.items()
    ]
    result.table("Reconstruction RMSE (reflectance)", columns, rows, [4] * len(SCENES))


def judge(result: Result, scores: dict[tuple[str, str], list[dict[str, Any]]]) -> None:
    """The network against FCLS with VCA endmembers, scene by scene."""
    average: Callable[[str, str, str], float] = lambda name, method, what: mean(  # noqa: E731
        [f[what] for f in scores[name, method]]
    )["centre"]
    for oracle in ("vca", "vca+shade"):
        for what, unit in (("abundance_rmse", "abundance RMSE"), ("angle", "mean angle")):
            pairs = {n: (average(n, "network+shade", what), average(n, oracle, what)) for n in SCENES}
            wins = sum(ours <= theirs for ours, theirs in pairs.values())
            result.claim(
                f"network no worse than {ROWS[oracle]} on at least two scenes, {unit}",
                wins >= 2,
                ", ".join(f"{n} {ours:.3f} against {theirs:.3f}" for n, (ours, theirs) in pairs.items()),
            )
    result.notes += [
        "Mean ± standard deviation over seeds (of VCA, and of the network's weights and crops). Unmixing is unsupervised: it "
        "sees the whole image and never the truth.",
        "Samson's shipped spectra are each scaled to a maximum of one; angles do not depend on scale.",
    ]


def picture(args: Namespace, journal: Journal, result: Result) -> None:
    """Abundance maps of the truth, of the oracle and of the network, seed 0."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    rows = [(n, m) for n in SCENES for m in ("truth", "vca", "network+shade")]
    figure, axes = plt.subplots(len(rows), 5, figsize=(7.5, 1.55 * len(rows)), layout="constrained")
    for line, (name, method) in zip(axes, rows, strict=True):
        scene = truth(name, args.data)
        path = journal.path.with_name(f"{journal.path.stem}-{name}-{method}.pt")
        maps = scene.abundances if method == "truth" else torch.load(path, weights_only=True)
        for i, axis in enumerate(line):
            axis.set_axis_off()
            if i < len(maps):
                axis.imshow(maps[i], vmin=0, vmax=1, cmap="viridis")
                axis.set_title(f"{scene.materials[i]}: {method.split('+')[0]}", fontsize=7)
        line[0].text(
            -0.08, 0.5, name, transform=line[0].transAxes, rotation=90, va="center", ha="right", fontsize=8
        )
    suffix = "" if args.preset == "full" else "-quick"
    finish(figure, args.out / f"{result.name}{suffix}.png", 110)
    plt.close(figure)


if __name__ == "__main__":
    main()
