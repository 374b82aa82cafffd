"""Reconstruction of an unseen part of Chikusei: from the full spectrum, and from red, green, blue.

    python benchmarks/chikusei_reconstruction.py --preset full

Columns 0–87 of block 282 train everything, columns 96–127 test it (eight columns between them are left out). P = 5: four
materials and shade, or five materials; and P = 8 for comparison. Abundances that sum to one have P − 1 degrees of freedom, so
P − 1 principal components of the training pixels, and their mean, are what any P endmembers could reach on the training
pixels, constraints aside; they are measured on the test pixels like everything else. The quadratic regression predicts every
band from 1, R, G, B and their products, without any endmembers; "through P − 1 components" is what is left of it after
the best affine space of that many dimensions, into which P endmembers decode. Endmembers start as in `HSISynthesizer.fit`:
VCA with several restarts, of which the one that reconstructs the training pixels best is kept, then `refine`.
"""

from __future__ import annotations

from argparse import Namespace
from typing import Any

import torch
from common import Journal, Result, arguments, mean
from scenes import chikusei
from torch import Tensor

from ubf_augment import Endmembers, UnmixingModel, fcls, metrics, mix
from ubf_augment.spectra import rgb_bands
from ubf_augment.unmixing import refine, vca, with_shade

TRAIN, TEST = slice(0, 88), slice(96, 128)
MODELS = {"4 materials + shade": (5, True), "5 materials": (5, False), "7 materials + shade": (8, True)}
SETTINGS = {
    "train columns": [0, 87], "test columns": [96, 127], "restarts": 6, "pull": 1e-4, "iterations": 60,
    "width": 64, "blocks": 2, "batch_size": 4, "crop": 32, "steps": {"quick": 200, "full": 300},
    "seeds": {"quick": 1, "full": 3},
}  # fmt: skip
METRICS = ("rmse", "psnr", "ssim", "sad")
QUADRATIC = "quadratic regression from RGB"


def main() -> None:
    """Measure the bounds once and the models for every seed."""
    args = arguments(__doc__ or "")
    seeds = list(range(args.seeds or SETTINGS["seeds"][args.preset]))
    result = Result(
        "chikusei_reconstruction", "Reconstruction of unseen Chikusei pixels", "Chikusei block 282, 59 bands, 399–698 nm.",
        args, seeds, SETTINGS,
    )  # fmt: skip
    cube, nm = chikusei(args.data)
    journal = Journal(result.name, args, SETTINGS)
    bounds = journal.run("bounds", lambda: linear_bounds(cube, nm))
    found: dict[str, list[dict[str, float]]] = {}
    for model in MODELS:
        for seed in seeds:
            rows = journal.run(f"{model}/{seed}", lambda m=model, k=seed: fitted(cube, nm, m, k, args))
            for row, values in rows.items():
                found.setdefault(f"{row}, {model}", []).append(values)
                result.runs.append({"row": row, "endmembers": model, "seed": seed} | values)
    tabulate(result, bounds, found)
    judge(result, bounds, found)
    result.write()


def quality(made: Tensor, true: Tensor) -> dict[str, float]:
    """RMSE, PSNR (peak 1), SSIM, SAD (degrees) of (1, C, H, W)."""
    found = {name: float(getattr(metrics, name)(made, true)) for name in METRICS if name != "psnr"}
    return found | {
        "psnr": float(metrics.psnr(made, true, over="cube"))
    }  # a band given as input has no error at all


def linear_bounds(cube: Tensor, nm: Tensor) -> dict[str, dict[str, float]]:
    """Principal components, and the quadratic regression from red, green, blue."""
    train, test = cube[:, :, TRAIN].flatten(1).T.double(), cube[None, :, :, TEST]
    pixels = test[0].flatten(1).T.double()

    def shaped(x: Tensor) -> Tensor:
        return x.T.reshape(test.shape).float()

    out = {}
    for what, source in (("", train), (", fitted on the test pixels", pixels)):
        centre = source.mean(0)
        _, _, directions = torch.linalg.svd(source - centre, full_matrices=False)
        for p in sorted({p for p, _ in MODELS.values()}):
            basis = directions[: p - 1]
            out[f"PCA, {p - 1} components{what}"] = quality(
                shaped((pixels - centre) @ basis.T @ basis + centre), test
            )
    bands = list(rgb_bands(nm))
    weights = torch.linalg.lstsq(_quadratic(train[:, bands]), train).solution
    predicted = _quadratic(pixels[:, bands]) @ weights
    out[QUADRATIC] = quality(shaped(predicted), test)
    centre = train.mean(0)
    _, _, directions = torch.linalg.svd(train - centre, full_matrices=False)
    for p in sorted({p for p, _ in MODELS.values()}):
        basis = directions[: p - 1]
        passed = (predicted - centre) @ basis.T @ basis + centre
        out[f"{QUADRATIC}, through {p - 1} components"] = quality(shaped(passed), test)
    return out


def _quadratic(rgb: Tensor) -> Tensor:
    r, g, b = rgb.unbind(1)
    return torch.stack([torch.ones_like(r), r, g, b, r * r, g * g, b * b, r * g, r * b, g * b], 1)


def fitted(cube: Tensor, nm: Tensor, name: str, seed: int, args: Namespace) -> dict[str, dict[str, float]]:
    """Endmembers and encoders fitted on the training columns, measured on the test columns."""
    train, test = cube[:, :, TRAIN], cube[None, :, :, TEST]
    start = initial(train.flatten(1).T, *MODELS[name], seed)
    rows = {"FCLS, initial endmembers": quality(mix(fcls(test, start), start), test)}
    torch.manual_seed(seed)
    model = UnmixingModel(Endmembers(start, nm), width=SETTINGS["width"], blocks=SETTINGS["blocks"])
    history = model.fit(
        [train], steps=SETTINGS["steps"][args.preset], batch_size=SETTINGS["batch_size"], crop=SETTINGS["crop"],
        seed=seed, progress=False,
    )  # fmt: skip
    e, rgb = model.endmembers, test[:, list(model.rgb_index)]
    with torch.no_grad():
        rows["FCLS, learned endmembers"] = quality(mix(fcls(test, e), e), test)
        rows["HSI encoder"] = quality(mix(model.unmix(test), e), test)
        rows["RGB encoder"] = quality(mix(model.unmix_rgb(rgb, refine=False), e), test)
        rows["RGB encoder, refined"] = quality(mix(model.unmix_rgb(rgb), e), test)
    rows["HSI encoder"]["fit_seconds"] = history.seconds
    return rows


def initial(pixels: Tensor, p: int, shade: bool, seed: int) -> Tensor:
    """Best of several VCA restarts by reconstruction error on the training pixels."""
    image = pixels.T[None, :, :, None]
    best: tuple[float, Tensor] | None = None
    for restart in range(SETTINGS["restarts"]):
        number = seed * SETTINGS["restarts"] + restart
        start = with_shade(vca(pixels, p - 1, seed=number)) if shade else vca(pixels, p, seed=number)
        spectra = refine(pixels, start, shade=shade, iterations=SETTINGS["iterations"], pull=SETTINGS["pull"])
        error = float((mix(fcls(image, spectra), spectra) - image).square().mean())
        if best is None or error < best[0]:
            best = error, spectra
    assert best is not None
    return best[1]


def tabulate(result: Result, bounds: dict[str, Any], found: dict[str, Any]) -> None:
    """One row per model."""
    columns = ["model", "RMSE", "× bound", "PSNR (dB)", "SSIM", "SAD (°)"]
    rows: list[list[Any]] = [
        [name, v["rmse"], None, v["psnr"], v["ssim"], v["sad"]] for name, v in bounds.items()
    ]
    for name, values in found.items():
        base = bound(bounds, name.split(", ")[-1])
        cells = [mean([v[m] for v in values]) for m in METRICS]
        rows.append([name, cells[0], mean([v["rmse"] / base for v in values]), *cells[1:]])
    result.table("Test columns", columns, rows, [5, 2, 2, 4, 2])
    result.notes.append(
        "× bound: RMSE over that of P − 1 principal components of the training pixels. The test columns are not quite like the "
        "training columns, so that constrained endmembers can do better there than those components. The RGB encoder is "
        "trained to serve pictures of other brightness too (scaled pixels), the regression for this scene alone. Mean ± "
        "standard deviation over seeds."
    )


def bound(bounds: dict[str, Any], model: str) -> float:
    """RMSE of P − 1 principal components."""
    return float(bounds[f"PCA, {MODELS[model][0] - 1} components"]["rmse"])


def judge(result: Result, bounds: dict[str, Any], found: dict[str, Any]) -> None:
    """The two goals."""
    quadratic = bounds[QUADRATIC]["rmse"]
    for model, (p, _) in MODELS.items():
        base = bound(bounds, model)
        error = mean([v["rmse"] for v in found[f"HSI encoder, {model}"]])["centre"]
        result.claim(
            f"HSI encoder ({model}) within 1.5 × the RMSE of {p - 1} principal components",
            error <= 1.5 * base,
            f"{error:.5f} = {error / base:.2f} × {base:.5f}",
        )
        for row in ("RGB encoder", "RGB encoder, refined"):
            error = mean([v["rmse"] for v in found[f"{row}, {model}"]])["centre"]
            result.claim(
                f"{row} ({model}) no worse than the quadratic regression from RGB",
                error <= quadratic,
                f"{error:.5f} against {quadratic:.5f}",
            )


if __name__ == "__main__":
    main()
