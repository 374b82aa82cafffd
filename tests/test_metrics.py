"""Metrics against hand-computed pixels, scikit-image, and the laws they must obey."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor

from ubf_augment import metrics
from ubf_augment.errors import BandCountError, ShapeError
from ubf_augment.spectra import Endmembers

reflectance = st.floats(0.015625, 1.0, width=32)
pair = st.tuples(
    arrays(np.float32, (3, 5), elements=reflectance), arrays(np.float32, (3, 5), elements=reflectance)
)


def images(*shape: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Two correlated made images in [0, 1]."""
    g = torch.Generator().manual_seed(seed)
    x = torch.rand(*shape, generator=g)
    return x, (x + 0.1 * torch.randn(*shape, generator=g)).clamp(0, 1)


def pixel(*bands: float) -> Tensor:
    return torch.tensor(bands).view(1, -1, 1, 1)


def test_rmse_by_hand() -> None:
    # errors 0.3 and 0.4: mean square (0.09 + 0.16) / 2 = 0.125
    assert metrics.rmse(pixel(0.0, 0.5), pixel(0.3, 0.9)).item() == pytest.approx(math.sqrt(0.125), rel=1e-6)


def test_rmse_is_per_image_then_averaged() -> None:
    x, y = torch.zeros(2, 1, 1, 1), torch.tensor([0.1, 0.5]).view(2, 1, 1, 1)
    assert metrics.rmse(x, y, reduction="none").tolist() == pytest.approx([0.1, 0.5])
    assert metrics.rmse(x, y).item() == pytest.approx(0.3)


def test_psnr_over_bands_is_the_mean_of_decibels() -> None:
    x, y = torch.zeros(1, 2, 3, 3), torch.zeros(1, 2, 3, 3)
    y[:, 0], y[:, 1] = 0.1, 0.01  # 20 dB and 40 dB
    assert metrics.psnr(x, y).item() == pytest.approx(30.0, rel=1e-5)


@pytest.mark.parametrize("peak", [1.0, 0.47])
def test_psnr_agrees_with_scikit_image(peak: float) -> None:
    reference = pytest.importorskip("skimage.metrics").peak_signal_noise_ratio
    x, y = images(2, 4, 12, 9)
    bands = [
        [reference(y[b, c].numpy(), x[b, c].numpy(), data_range=peak) for c in range(4)] for b in range(2)
    ]
    cubes = [reference(y[b].numpy(), x[b].numpy(), data_range=peak) for b in range(2)]
    assert metrics.psnr(x, y, peak, reduction="none").tolist() == pytest.approx(np.mean(bands, 1), rel=1e-5)
    assert metrics.psnr(x, y, peak, over="cube", reduction="none").tolist() == pytest.approx(cubes, rel=1e-5)


def test_psnr_over_the_cube_follows_from_rmse() -> None:
    x, y = images(1, 5, 8, 8)
    assert metrics.psnr(x, y, 0.5, over="cube").item() == pytest.approx(
        -20 * math.log10(metrics.rmse(x, y).item() / 0.5), rel=1e-5
    )
    assert metrics.psnr(x, y) >= metrics.psnr(x, y, over="cube")


def test_psnr_of_equal_images_is_infinite() -> None:
    x, _ = images(1, 2, 4, 4)
    assert metrics.psnr(x, x).item() == math.inf


@pytest.mark.parametrize("peak", [1.0, 0.3])
@pytest.mark.parametrize("size", [(11, 11), (24, 31)])
def test_ssim_agrees_with_scikit_image(peak: float, size: tuple[int, int]) -> None:
    reference = pytest.importorskip("skimage.metrics").structural_similarity
    x, y = images(2, 3, *size, seed=1)
    expected = [
        reference(
            a.double().numpy(), b.double().numpy(), channel_axis=0, data_range=peak,
            gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
        )
        for a, b in zip(x, y, strict=True)
    ]  # fmt: skip
    assert metrics.ssim(x, y, peak, reduction="none").tolist() == pytest.approx(expected, abs=1e-5)


def test_ssim_keeps_its_digits_on_bright_flat_images() -> None:
    """Variances of 1e-8 beside means of 0.9: E[x²] − E[x]² alone would lose them in single precision."""
    reference = pytest.importorskip("skimage.metrics").structural_similarity
    g = torch.Generator().manual_seed(0)
    x = 0.9 + 1e-4 * torch.randn(1, 1, 16, 16, generator=g)
    y = 0.9 + 1e-4 * torch.randn(1, 1, 16, 16, generator=g)
    expected = reference(
        x[0, 0].double().numpy(), y[0, 0].double().numpy(), data_range=1e-3, gaussian_weights=True,
        use_sample_covariance=False,
    )  # fmt: skip
    assert metrics.ssim(x, y, 1e-3).item() == pytest.approx(expected, abs=1e-3)


def test_ssim_of_an_image_with_itself_is_one() -> None:
    x, _ = images(2, 3, 16, 16)
    assert metrics.ssim(x, x).item() == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize(
    ("x", "y", "degrees"),
    [
        ((1.0, 0.0), (0.5, 0.5), 45.0),
        ((1.0, 0.0), (0.0, 3.0), 90.0),
        ((0.2, 0.4), (0.1, 0.2), 0.0),
        ((1.0, 0.0), (math.sqrt(3.0), 1.0), 30.0),
        ((1.0, 0.0), (-1.0, 0.0), 180.0),
    ],
)
def test_sad_by_hand(x: tuple[float, ...], y: tuple[float, ...], degrees: float) -> None:
    assert metrics.sad(pixel(*x), pixel(*y)).item() == pytest.approx(degrees, abs=1e-4)


def test_sad_averages_over_pixels() -> None:
    x = torch.tensor([[1.0, 1.0], [0.0, 0.0]]).view(1, 2, 1, 2)
    y = torch.tensor([[1.0, 1.0], [0.0, 1.0]]).view(1, 2, 1, 2)
    assert metrics.spectral_angles(x, y).flatten().tolist() == pytest.approx([0.0, 45.0])
    assert metrics.sad(x, y).item() == pytest.approx(22.5)


def test_sad_of_zero_spectra() -> None:
    zero, one = torch.zeros(1, 3), torch.ones(1, 3)
    assert metrics.sad(zero, zero).item() == 0.0
    assert metrics.sad(zero, one).item() == metrics.sad(one, zero).item() == 90.0


def test_small_angles_are_exact_in_single_precision() -> None:
    angle = 1e-4  # rad; arccos in float32 would give 0 or 0.02°
    x, y = torch.tensor([[1.0, 0.0]]), torch.tensor([[math.cos(angle), math.sin(angle)]])
    assert metrics.sad(x, y).item() == pytest.approx(math.degrees(angle), rel=1e-3)


def test_sad_of_spectra_whose_squares_underflow() -> None:
    x = torch.tensor([[1e-30, 1e-30]])
    assert metrics.sad(x, torch.tensor([[1.0, 0.0]])).item() == pytest.approx(45.0, abs=1e-4)


@given(pair)
@settings(deadline=None, max_examples=60)
def test_sad_is_symmetric_and_bounded(xy: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = map(torch.from_numpy, xy)
    there, back = metrics.spectral_angles(x, y), metrics.spectral_angles(y, x)
    assert torch.equal(there, back)
    assert bool(((there >= 0) & (there <= 90)).all())  # non-negative spectra are at most orthogonal


@given(pair, st.floats(1e-3, 1e3), st.floats(1e-3, 1e3))
@settings(deadline=None, max_examples=60)
def test_sad_ignores_brightness(xy: tuple[np.ndarray, np.ndarray], s: float, t: float) -> None:
    x, y = map(torch.from_numpy, xy)
    assert torch.allclose(metrics.spectral_angles(s * x, t * y), metrics.spectral_angles(x, y), atol=1e-3)


@given(pair)
@settings(deadline=None, max_examples=60)
def test_rmse_is_symmetric_and_obeys_the_triangle(xy: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = (torch.from_numpy(v).view(1, 3, 5, 1) for v in xy)
    assert metrics.rmse(x, y) == metrics.rmse(y, x)
    middle = torch.full_like(x, 0.5)
    assert metrics.rmse(x, y) <= metrics.rmse(x, middle) + metrics.rmse(middle, y) + 1e-6


@given(st.integers(0, 10_000))
@settings(deadline=None, max_examples=20)
def test_ssim_is_symmetric_and_bounded(seed: int) -> None:
    x, y = images(1, 2, 12, 12, seed=seed)
    assert metrics.ssim(x, y).item() == pytest.approx(metrics.ssim(y, x).item(), abs=1e-6)
    assert -1 <= metrics.ssim(x, 1 - y).item() <= 1


@pytest.mark.parametrize("metric", [metrics.rmse, metrics.psnr, metrics.sad])
def test_half_precision_is_computed_in_single(metric: object) -> None:
    x, y = images(1, 8, 4, 4)
    half = metric(x.half(), y.half())  # type: ignore[operator]
    assert half.dtype == torch.float32
    assert half.item() == pytest.approx(metric(x, y).item(), rel=2e-3)  # type: ignore[operator]


@pytest.mark.parametrize("metric", [metrics.rmse, metrics.psnr, metrics.ssim, metrics.sad])
def test_bad_shapes(metric: object) -> None:
    x = torch.rand(1, 3, 16, 16)
    with pytest.raises(ShapeError, match=r"x\[None\]"):
        metric(x[0], x[0])  # type: ignore[operator]
    with pytest.raises(ShapeError, match="must be equal"):
        metric(x, x[:, :2])  # type: ignore[operator]


def test_bad_options() -> None:
    x = torch.rand(1, 3, 16, 16)
    with pytest.raises(ValueError, match="peak"):
        metrics.psnr(x, x, 0.0)
    with pytest.raises(ValueError, match="peak"):
        metrics.ssim(x, x, -1.0)
    with pytest.raises(ShapeError, match="11 × 11"):
        metrics.ssim(x[..., :10], x[..., :10])


def test_endmember_angles_finds_the_permutation() -> None:
    g = torch.Generator().manual_seed(0)
    reference = torch.rand(5, 30, generator=g)
    order = torch.tensor([3, 0, 4, 1, 2])
    estimate = reference[order] * torch.tensor([0.5, 1.0, 2.0, 3.0, 0.1])[:, None]
    angles, permutation = metrics.endmember_angles(estimate, reference)
    assert torch.equal(order[permutation], torch.arange(5))
    assert float(angles.max()) < 1e-3


def test_endmember_angles_minimises_the_sum_not_each_angle() -> None:
    def at(degrees: float) -> list[float]:
        return [math.cos(math.radians(degrees)), math.sin(math.radians(degrees))]

    reference = torch.tensor([at(0), at(10)])
    estimate = torch.tensor([at(9), at(45)])
    # Greedily, 9° goes to 10° (1°) and 45° to 0° (45°): 46°. Best is 9° to 0° and 45° to 10°: 9° + 35° = 44°.
    angles, permutation = metrics.endmember_angles(estimate, reference)
    assert permutation.tolist() == [0, 1]
    assert angles.tolist() == pytest.approx([9.0, 35.0], abs=1e-3)


def test_endmember_angles_leaves_a_shade_endmember_unmatched() -> None:
    reference = torch.tensor([[0.1, 0.5, 0.2], [0.4, 0.4, 0.1]])
    estimate = torch.cat([torch.zeros(1, 3), reference])
    angles, permutation = metrics.endmember_angles(estimate, reference)
    assert permutation.tolist() == [1, 2]
    assert angles.tolist() == pytest.approx([0.0, 0.0], abs=1e-3)


def test_endmember_angles_bad_input() -> None:
    with pytest.raises(BandCountError, match="resample"):
        metrics.endmember_angles(torch.rand(2, 4), torch.rand(2, 5))
    with pytest.raises(ShapeError, match="at least Q"):
        metrics.endmember_angles(torch.rand(2, 4), torch.rand(3, 4))
    with pytest.raises(ShapeError, match=r"\(P, C\)"):
        metrics.endmember_angles(torch.rand(4), torch.rand(3, 4))
    one = Endmembers(torch.rand(2, 3), torch.tensor([490.0, 560.0, 665.0]))
    other = Endmembers(torch.rand(2, 3), torch.tensor([490.0, 570.0, 665.0]))
    with pytest.raises(ValueError, match="up to 10 nm"):
        metrics.endmember_angles(one, other)


@pytest.mark.gpu
def test_metrics_stay_on_their_device() -> None:
    x, y = images(2, 3, 16, 16)
    for metric in (metrics.rmse, metrics.psnr, metrics.ssim, metrics.sad):
        on_gpu = metric(x.cuda(), y.cuda())
        assert on_gpu.is_cuda
        assert on_gpu.item() == pytest.approx(metric(x, y).item(), rel=1e-4)
