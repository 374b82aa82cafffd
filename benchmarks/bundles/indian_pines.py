"""Train the packaged bundle ``indian-pines``: Indian Pines and AID pictures in one abundance space, 8×8 patches.

    python benchmarks/bundles/indian_pines.py --data ../shared/data

Everything is fitted on the training blocks of the fixed split ``IndianPines("train", fold=0)``. That crop classes
have endmembers of their own was decided on its validation blocks; its test blocks are only looked at for the
figures of the model card. The RGB pictures are AID scenes (Xia et al. 2017, doi:10.1109/TGRS.2017.2685945) of bare
land, farmland, forest and meadow, shrunk to about the 20 m pixels of Indian Pines and cut to patches; since they
have no crop labels they make classes of their own, "AID/Farmland" and so on.

Run the same command again after an interruption: it goes on from ``--workdir``.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from pictures import add_picture
from torch import Tensor

from ubf_augment import HSISynthesizer, fcls, mix
from ubf_augment.datasets import IndianPines
from ubf_augment.datasets.indian_pines import CLASSES, load_scene
from ubf_augment.metrics import rmse, sad
from ubf_augment.mixing import ResidualModel
from ubf_augment.synthesis.adaptation import Normal, solve_endmembers

FOLD, PATCH, PURITY = 0, 8, 0.6
AID_CLASSES = ("BareLand", "Farmland", "Forest", "Meadow")
ENDMEMBERS, SIZE = 8, (PATCH, PATCH)
ZOOM = 3.75  # an AID picture (150 pixels of about 4 m) becomes 30 pixels of 20 m, of which a patch shows 8
GENERATOR = {
    "factor": 2,
    "latent_channels": 16,
    "whiten": 0.25,
    "widths": (48, 80),
    "layers": 1,
    "attention": (1,),
    "dropout": 0.1,
    "steps": 8,
    "guidance": 1.0,
}


def main() -> None:
    """Train, measure, save."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, default=Path("../shared/data"), help="folder that holds rgb/aid150"
    )
    parser.add_argument("--workdir", type=Path, default=Path("runs/indian-pines"), help="checkpoints")
    parser.add_argument("--out", type=Path, default=Path("ubf_augment/weights/indian-pines"))
    parser.add_argument("--steps", type=int, default=6000, help="of the generator")
    parser.add_argument("--unmixing-steps", type=int, default=1200)
    parser.add_argument("--pictures", type=int, default=200, help="AID pictures of each class")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    train = IndianPines("train", FOLD)
    hsis, labels = training_windows(train)
    print(f"{len(hsis)} windows of the training blocks, {len(AID_CLASSES) * args.pictures} pictures")
    fitted = HSISynthesizer.fit(
        hsis, pictures(args.data / "rgb" / "aid150", args.pictures), hsi_labels=labels, workdir=args.workdir,
        num_endmembers=ENDMEMBERS, size=SIZE, zoom=ZOOM, crops=2, rgb_gamma=1.5, seed=args.seed,
        unmixing_steps=args.unmixing_steps, unmixing_config={"width": 48, "rgb_width": 32},
        unmixing_options={"batch_size": 32, "crop": PATCH, "endmember_lr": 2e-3},
        generator_config=GENERATOR, generator_steps=args.steps, generator_batch_size=64,
    )  # fmt: skip
    synth = finish(fitted, train)
    synth.save_pretrained(args.out, dtype="float16")
    add_picture(args.out)
    size = sum(f.stat().st_size for f in args.out.rglob("*") if f.is_file())
    print(f"wrote {args.out}: {size / 2**20:.2f} MiB")


def training_windows(train: IndianPines) -> tuple[list[tuple[Tensor, Tensor]], list[str]]:
    """Every 8×8 window of the training blocks of which a class covers 60 %, and its class."""
    scene, area = load_scene(), train.area
    values = {CLASSES.index(name) + 1: name for name in train.classes}
    found, labels = [], []
    for r in range(area.shape[0] - PATCH + 1):
        for c in range(area.shape[1] - PATCH + 1):
            at = slice(r, r + PATCH), slice(c, c + PATCH)
            if not area[at].all():
                continue
            counts = torch.bincount(scene.truth[at].flatten(), minlength=len(CLASSES) + 1)
            counts[0] = 0
            best = int(counts.argmax())
            if best in values and int(counts[best]) >= PURITY * PATCH**2:
                found.append((scene.image[(slice(None), *at)], scene.wavelengths))
                labels.append(values[best])
    return found, labels


def pictures(root: Path, count: int) -> dict[str, list[Tensor]]:
    """The first ``count`` AID pictures of each class, in numerical order."""
    from PIL import Image

    out = {}
    for name in AID_CLASSES:
        files = sorted((root / name).glob("*.jpg"), key=lambda f: int(f.stem.split("_")[-1]))[:count]
        if not files:
            raise SystemExit(f"no pictures in {root / name}: give --data, the folder that holds rgb/aid150")
        arrays = [np.array(Image.open(f).convert("RGB")) for f in files]
        out[f"AID/{name}"] = [torch.from_numpy(a).movedim(-1, 0) for a in arrays]
    return out


def finish(fitted: HSISynthesizer, train: IndianPines) -> HSISynthesizer:
    """Endmembers of each crop class, residuals of the training patches under them, and the model card.

    Both belong to abundances from all bands, as the generator learnt them for the crop classes;
    `HSISynthesizer.fit` itself takes residuals under abundances from red, green and blue.
    """
    unmixing, e = fitted.unmixing, fitted.endmembers
    assert unmixing is not None
    x, y = _images("train")
    with torch.no_grad():
        a = unmixing.unmix(x)
    shade, own = e.spectra.amax(1) <= 1e-6, {}
    for k, name in enumerate(train.classes):
        normal = Normal.of(list(a[y == k]), list(x[y == k]))
        own[fitted.classes.index(name)] = solve_endmembers(normal, e.spectra, zero=shade)
    made = mix(a, torch.stack([own[fitted.classes.index(train.classes[k])] for k in y.tolist()]))
    synth = HSISynthesizer(
        e, fitted.generator, unmixing=unmixing, residual=ResidualModel.estimate(x - made, rank=8),
        classes=fitted.classes, class_endmembers=own, rgb_scale=fitted.rgb_scale, rgb_gamma=fitted.rgb_gamma,
    )  # fmt: skip
    facts = fitted.card["training"]
    synth.card = {
        "sensor": "AVIRIS (Indian Pines), 200 bands, apparent reflectance",
        "intended use": "The demo: augmentation of classifiers of 8×8 Indian Pines patches. No general crop model.",
        "data": [
            "Indian Pines (Baumgardner, Biehl and Landgrebe 2015, doi:10.4231/R7RX991C), training blocks of "
            f"ubf_augment.datasets.IndianPines(fold={FOLD}) only: {len(facts['hsis'])} windows of 8×8 pixels",
            f"AID (Xia et al. 2017, doi:10.1109/TGRS.2017.2685945), classes {', '.join(AID_CLASSES)}: "
            f"{facts['pictures']} patches of 8×8 pixels, 20 m",
        ],
        "licence": "Weights: Apache-2.0. Indian Pines: CC BY 3.0. AID: for research; none of its pictures is included.",
        "seeds": {"training": fitted.card["settings"]["seed"], "split (fold)": FOLD},
        "training": {
            "generator parameters": sum(p.numel() for p in synth.generator.parameters()),
            "unmixing parameters": sum(p.numel() for p in unmixing.parameters()),
            "unmixing seconds": round(facts["unmixing_seconds"]),
            "generator seconds": round(facts["generator_seconds"]),
            "threads": torch.get_num_threads(),
            "machine": facts["machine"],
        },
        "settings": fitted.card["settings"],
        "reconstruction": dict(reconstruction(synth)),
        "gamut of the AID pictures": {
            k: v for k, v in fitted.card["gamut_coverage"].items() if k.startswith("AID/")
        },
        "generation": generation(synth),
        "limits": "Few pixels (9,524) of one scene: generated patches stay close to the training blocks. Red, green "
        "and blue say nothing of the infrared: spectra of AID patches beyond 700 nm are what the training blocks "
        "make likely. Apparent reflectance holds the haze of the scene, which pictures lack: see the gamut.",
    }
    return synth


@torch.no_grad()
def reconstruction(synth: HSISynthesizer) -> Iterator[tuple[str, dict[str, float]]]:
    """RMSE and mean spectral angle (degrees) on the patches of two splits, beside PCA with P − 1 components."""
    pixels = _images("train")[0].movedim(1, -1).flatten(0, -2)
    mean, e, unmixing = pixels.mean(0), synth.endmembers, synth.unmixing
    assert unmixing is not None
    basis = torch.linalg.svd(pixels - mean, full_matrices=False)[2][: e.num_endmembers - 1]
    names = IndianPines("train", FOLD).classes
    for split in ("train", "test"):
        x, y = _images(split)
        labels = [names[k] for k in y]
        centred = x - mean.view(1, -1, 1, 1)
        bound = torch.einsum("kc,kd,bdhw->bchw", basis, basis, centred) + mean.view(1, -1, 1, 1)
        made = {
            "HSI encoder": mix(unmixing.unmix(x), e),
            "FCLS": mix(fcls(x, e), e),
            "FCLS, endmembers of the class": synth.mix(synth.unmix(x, labels), labels),
            "RGB encoder": mix(unmixing.unmix_rgb(x[:, list(unmixing.rgb_index)]), e),
            "PCA, no constraints": bound,
        }
        for name, found in made.items():
            yield f"{split}: {name}", {"rmse": float(rmse(found, x)), "angle": float(sad(found, x))}


def generation(synth: HSISynthesizer, per_class: int = 40, seeds: int = 5) -> dict[str, float]:
    """How useful and how true samples of crop classes are: a linear classifier and class means, test blocks.

    Accuracies are those of logistic regression on the bands' means and deviations within a patch, averaged
    over the seeds of the samples.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    (x, y), (xt, yt) = _images("train"), _images("test")
    names = IndianPines("train", FOLD).classes
    made_y = torch.arange(len(names)).repeat_interleave(per_class)
    labels = [names[k] for k in made_y]
    made = [synth.sample(labels, seed=seed) for seed in range(seeds)]
    a = synth.sample_abundances(labels, seed=0)

    def features(v: Tensor) -> Tensor:
        return torch.cat([v.mean((2, 3)), v.std((2, 3))], 1)

    def score(*sets: tuple[Tensor, Tensor]) -> float:
        model = make_pipeline(
            StandardScaler(), LogisticRegression(C=0.1, max_iter=3000, class_weight="balanced")
        )
        model.fit(torch.cat([features(v) for v, _ in sets]).numpy(), torch.cat([k for _, k in sets]).numpy())
        return float(model.score(features(xt).numpy(), yt.numpy()))

    def distance(v: Tensor, k: Tensor) -> float:
        means = [v[k == c].mean((0, 2, 3)) - xt[yt == c].mean((0, 2, 3)) for c in range(len(names))]
        return float(torch.stack(means).square().mean().sqrt())

    return {
        "test accuracy, trained on real patches": score((x, y)),
        "test accuracy, trained on generated patches": sum(score((m, made_y)) for m in made) / seeds,
        "test accuracy, trained on both": sum(score((x, y), (m, made_y)) for m in made) / seeds,
        "rmse of class mean spectra, generated against test": distance(made[0], made_y),
        "rmse of class mean spectra, real training against test": distance(x, y),
        "smallest abundance": float(a.min()),
        "largest deviation from sum one": float((a.sum(1) - 1).abs().max()),
    }


def _images(split: str) -> tuple[Tensor, Tensor]:
    data = IndianPines(split, FOLD)  # type: ignore[arg-type]
    return torch.stack([data[i]["image"] for i in range(len(data))]), torch.tensor(data.targets)


if __name__ == "__main__":
    main()
