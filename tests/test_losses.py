"""Losses: values by hand, agreement with the metrics, gradients that stay finite where formulas do not."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor

from ubf_augment import losses, metrics
from ubf_augment.errors import ShapeError
from ubf_augment.spectra import Endmembers

reflectance = st.floats(0.015625, 1.0, width=32)
pair = st.tuples(
    arrays(np.float32, (3, 5), elements=reflectance), arrays(np.float32, (3, 5), elements=reflectance)
)


def test_charbonnier_by_hand() -> None:
    x, y = torch.tensor([0.0, 0.2]), torch.tensor([3e-3, 0.2])
    assert losses.charbonnier(x, y, eps=4e-3).item() == pytest.approx((5e-3 + 4e-3) / 2, rel=1e-6)


def test_charbonnier_lies_between_the_absolute_error_and_eps_above_it() -> None:
    x, y = torch.rand(100), torch.rand(100)
    absolute = (x - y).abs().mean().item()
    assert absolute <= losses.charbonnier(x, y).item() <= absolute + 1e-3


def test_charbonnier_has_no_slope_at_zero_error() -> None:
    x = torch.full((4,), 0.3, requires_grad=True)
    losses.charbonnier(x, torch.full((4,), 0.3)).backward()
    assert x.grad is not None
    assert torch.equal(x.grad, torch.zeros(4))


@given(pair)
@settings(deadline=None, max_examples=60)
def test_spectral_angle_is_the_metric_in_radians(xy: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = map(torch.from_numpy, xy)
    expected = math.radians(metrics.sad(x, y).item())
    assert losses.spectral_angle(x, y).item() == pytest.approx(expected, abs=1.1e-4)


@given(pair, st.floats(0.7, 100), st.floats(0.7, 100))
@settings(deadline=None, max_examples=60)
def test_spectral_angle_ignores_brightness_and_order(
    xy: tuple[np.ndarray, np.ndarray], s: float, t: float
) -> None:
    x, y = map(torch.from_numpy, xy)
    angle = losses.spectral_angle(x, y).item()
    assert 0 <= angle <= math.pi / 2
    assert losses.spectral_angle(s * x, t * y).item() == pytest.approx(angle, abs=1e-5)
    assert losses.spectral_angle(y, x).item() == pytest.approx(angle, abs=1e-6)


def test_spectral_angle_of_images_is_the_mean_over_pixels() -> None:
    x, y = torch.rand(2, 6, 5, 4) + 0.1, torch.rand(2, 6, 5, 4) + 0.1
    pixels = losses.spectral_angle(x.movedim(1, -1).reshape(-1, 6), y.movedim(1, -1).reshape(-1, 6))
    assert losses.spectral_angle(x, y).item() == pytest.approx(pixels.item(), rel=1e-5)


def gradient(x: Tensor, y: Tensor, **options: float) -> Tensor:
    leaf = x.clone().requires_grad_()
    losses.spectral_angle(leaf, y, **options).backward()
    assert leaf.grad is not None
    return leaf.grad


def test_spectral_angle_gradient_vanishes_at_zero_angle() -> None:
    x = torch.tensor([[0.2, 0.4, 0.1]])
    assert gradient(x, 2 * x).abs().max().item() < 1e-2
    assert losses.spectral_angle(x, 2 * x).item() < 1e-6


@pytest.mark.parametrize(
    "x", [torch.zeros(1, 3), torch.tensor([[1e-20, 0.0, 0.0]]), torch.full((1, 3), 1e-7)]
)
@pytest.mark.parametrize("y", [torch.zeros(1, 3), torch.tensor([[0.1, 0.2, 0.3]]), torch.full((1, 3), 1e-7)])
def test_spectral_angle_of_dark_spectra_counts_little_and_has_a_bounded_gradient(
    x: Tensor, y: Tensor
) -> None:
    assert losses.spectral_angle(x, y).item() < 1e-4
    g = gradient(x, y, eps=1e-2)
    assert bool(torch.isfinite(g).all())
    assert g.norm().item() <= 2.001 / 1e-2


def test_spectral_angle_passes_gradcheck() -> None:
    x = torch.rand(3, 4, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 0.1
    y = torch.rand(3, 4, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) + 0.1
    assert torch.autograd.gradcheck(losses.spectral_angle, (x.requires_grad_(), y.requires_grad_()))


def test_spectral_angle_descends_to_the_target_direction() -> None:
    target = torch.tensor([[0.1, 0.5, 0.2, 0.05]])
    x = torch.tensor([[0.4, 0.1, 0.1, 0.3]], requires_grad=True)
    optimizer = torch.optim.Adam([x], 1e-2)
    for _ in range(300):
        optimizer.zero_grad()
        losses.spectral_angle(x, target).backward()
        optimizer.step()
    assert metrics.sad(x.detach(), target).item() < 0.5


def test_spectral_angle_is_computed_in_single_precision_under_half() -> None:
    x, y = torch.rand(2, 8) + 0.1, torch.rand(2, 8) + 0.1
    value = losses.spectral_angle(x.bfloat16(), y.bfloat16())
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(losses.spectral_angle(x, y).item(), abs=1e-2)


def test_endmember_tv_by_hand() -> None:
    E = torch.tensor([[0.0, 0.1, 0.4], [0.5, 0.5, 0.5]])
    # first: (0.01 + 0.09) / 2 = 0.05; second: 0
    assert losses.endmember_tv(E).item() == pytest.approx(0.05, rel=1e-6)
    wrapped = Endmembers(E, torch.tensor([490.0, 560.0, 665.0]))
    assert losses.endmember_tv(wrapped).item() == losses.endmember_tv(E).item()


@given(arrays(np.float64, (3, 6), elements=st.floats(0, 1)), st.floats(0.1, 10))
@settings(deadline=None, max_examples=60)
def test_endmember_tv_laws(spectra: np.ndarray, scale: float) -> None:
    E = torch.from_numpy(spectra)
    tv = losses.endmember_tv(E).item()
    assert tv >= 0
    assert losses.endmember_tv(E.flip(1)).item() == pytest.approx(tv)  # direction along the spectrum
    assert losses.endmember_tv(E + 0.3).item() == pytest.approx(tv)  # a constant added
    assert losses.endmember_tv(scale * E).item() == pytest.approx(scale**2 * tv)
    assert losses.endmember_tv(torch.cat([E, E])).item() == pytest.approx(2 * tv)  # a sum over endmembers


def test_bad_input() -> None:
    x = torch.rand(2, 3)
    with pytest.raises(ShapeError, match="must be equal"):
        losses.charbonnier(x, x[:1])
    with pytest.raises(ShapeError, match="must be equal"):
        losses.spectral_angle(x, x[:, :2])
    with pytest.raises(ShapeError, match=r"\(N, C\)"):
        losses.spectral_angle(x[0], x[0])
    with pytest.raises(ShapeError, match="nothing"):
        losses.charbonnier(x[:0], x[:0])
    with pytest.raises(ValueError, match="eps"):
        losses.charbonnier(x, x, eps=0.0)
    with pytest.raises(ValueError, match="eps"):
        losses.spectral_angle(x, x, eps=-1.0)
    with pytest.raises(ShapeError, match="two bands"):
        losses.endmember_tv(x[:, :1])
