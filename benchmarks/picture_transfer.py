"""What labelled pictures of another source know about the classes of a sensor's scenes: EuroSAT and AID.

    python benchmarks/picture_transfer.py --seeds 10

AID pictures of the class that each EuroSAT class is matched with are lifted to 13 bands (unmixed, mixed with the endmembers of
the training side, residual added), and a linear classifier is trained on them alone and tested on real scenes; another one
tells lifted from real. Its features are the mean, the deviation and the mean gradient of every band. *Matched*: before they are
unmixed, pictures are blurred, and red, green and blue get the distribution that they have over all training scenes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from common import Journal, Result, arguments, mean
from protocols import Protocol, open_protocol
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from ubf_augment import HSISynthesizer
from ubf_augment.radiometry import to_reflectance
from ubf_augment.spectra import rgb_bands

SETTINGS: dict[str, Any] = {
    "pictures per class": 60, "endmembers": 8, "refinements": 40, "blur": 0.7, "quantiles": 201,
    "seeds": {"quick": 3, "full": 10},
}  # fmt: skip
CASES = {"real training scenes": "real", "lifted pictures": "lifted", "lifted pictures, matched": "matched"}


def features(x: Tensor) -> np.ndarray[Any, Any]:
    """Mean, deviation and mean absolute gradient of every band (N, 3 C)."""
    gradient = (x.diff(dim=2).abs().mean((2, 3)) + x.diff(dim=3).abs().mean((2, 3))) / 2
    found: np.ndarray[Any, Any] = torch.cat([x.mean((2, 3)), x.std((2, 3)), gradient], 1).numpy()
    return found


def linear() -> Pipeline:
    """Logistic regression of standardised features."""
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=3000))


def quantiles(x: Tensor) -> np.ndarray[Any, Any]:
    """Of each channel (3, Q)."""
    levels = np.linspace(0, 1, SETTINGS["quantiles"])
    return np.quantile(x.movedim(1, 0).flatten(1).numpy(), levels, axis=1).T


def measure(protocol: Protocol, number: int) -> dict[str, dict[str, float]]:
    """One split: accuracy on real test scenes, and how well lifted and real scenes are told apart."""
    assert protocol.pictures is not None
    split = protocol.load(number)
    train, test, pictures = split.train, split.test, protocol.pictures()
    scale, gamma = protocol.radiometry
    synth = HSISynthesizer.fit(
        [(x, train.wavelengths) for x in train.x], None, num_endmembers=SETTINGS["endmembers"], size=(64, 64),
        unmixing_steps=0, restarts=2, refine_iterations=SETTINGS["refinements"], generator="gmm", generator_steps=1,
        rgb_scale=scale, rgb_gamma=gamma, seed=number, progress=False,
    )  # fmt: skip
    everything = torch.cat([p[: SETTINGS["pictures per class"]] for p in pictures.values()])
    blurred = gaussian_blur(to_reflectance(everything, scale, gamma), 7, SETTINGS["blur"])
    source, target = quantiles(blurred), quantiles(train.x[:, list(rgb_bands(train.wavelengths))])

    def lift(kind: str) -> tuple[Tensor, Tensor]:
        x, y = [], []
        for k, name in enumerate(train.classes):
            r = to_reflectance(
                pictures[protocol.class_map[name]][: SETTINGS["pictures per class"]], scale, gamma
            )
            if kind == "matched":
                r = gaussian_blur(r, 7, SETTINGS["blur"])
                bands = [np.interp(r[:, c].numpy(), source[c], target[c]) for c in range(3)]
                r = torch.from_numpy(np.stack(bands, 1)).float()
            x.append(synth.mix(synth.unmix_rgb_reflectance(r, fast=True), residual=True, seed=k))
            y.append(torch.full((len(r),), k))
        return torch.cat(x), torch.cat(y)

    found, real = {}, torch.cat([train.x, test.x])
    for case, kind in CASES.items():
        x, y = (train.x, train.y) if kind == "real" else lift(kind)
        accuracy = linear().fit(features(x), y.numpy()).score(features(test.x), test.y.numpy())
        found[case] = {"accuracy": 100 * float(accuracy)}
        if kind == "real":
            continue
        also = torch.cat([x, *[train.x] * 5]), torch.cat([y, *[train.y] * 5])
        both = linear().fit(features(also[0]), also[1].numpy()).score(features(test.x), test.y.numpy())
        some = x[torch.randperm(len(x), generator=torch.Generator().manual_seed(number))[: len(real)]]
        told = cross_val_score(
            linear(), features(torch.cat([real, some])), np.arange(2 * len(real)) >= len(real), cv=5
        )
        found[case] |= {"with real": 100 * float(both), "told": 100 * float(told.mean())}
    return found


def main() -> None:
    """Measure on several splits, write."""
    args = arguments(__doc__ or "")
    protocol = open_protocol("eurosat-few", args.data)
    settings = {k: v[args.preset] if isinstance(v, dict) else v for k, v in SETTINGS.items()}
    seeds = range(args.seeds or settings["seeds"])
    result = Result(
        "picture_transfer", "What pictures of another source know about a sensor's classes",
        f"{protocol.text} AID pictures of the matched classes.", args, seeds, settings,
    )  # fmt: skip
    result.journal = Journal(result.name, args, settings)
    runs = [result.journal.run(f"{i}", lambda i=i: measure(protocol, i)) for i in seeds]  # type: ignore[misc]
    columns = [
        "trained on", "accuracy on real test scenes (%)", "with the real training scenes (%)", "told from real (%)",
    ]  # fmt: skip
    keys = ("accuracy", "with real", "told")
    rows = [
        [case, *(mean([r[case][k] for r in runs]) if k in runs[0][case] else None for k in keys)]
        for case in CASES
    ]
    result.table("Linear classifiers", columns, rows, [1, 1, 1])
    chance = 100 / len(protocol.load(0).train.classes)
    for case, kind in CASES.items():
        if kind != "real":
            alone, both, real = (
                mean([r[c][k] for r in runs])["centre"]
                for c, k in (
                    (case, "accuracy"),
                    (case, "with real"),
                    ("real training scenes", "accuracy"),
                )
            )
            result.claim(
                f"{case}: alone, they teach the classes (twice chance, {2 * chance:g} %)",
                alone > 2 * chance,
                f"{alone:.1f} %",
            )
            result.claim(
                f"{case}: added to the real scenes, they help", both > real, f"{real:.1f} to {both:.1f} %"
            )
    result.runs = [{"split": i, **r} for i, r in zip(seeds, runs, strict=True)]
    result.write()


if __name__ == "__main__":
    main()
