"""The simplex: projection by its optimality conditions, closure, log-ratios."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from torch import Tensor

from ubf_augment import simplex
from ubf_augment.errors import SimplexError

finite = st.floats(-100, 100, width=32)
vectors = arrays(np.float64, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=7), elements=finite)
positive = arrays(
    np.float64,
    array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=7),
    elements=st.floats(0.0009765625, 100, width=32),
)


def abundances(*shape: int, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.softmax(3 * torch.randn(*shape, generator=g, dtype=torch.float64), 1)


@given(vectors)
@settings(max_examples=100, deadline=None)
def test_projection_meets_the_optimality_conditions(v: np.ndarray) -> None:
    x = torch.from_numpy(v)
    a = simplex.project(x)
    simplex.check(a, atol=1e-9)
    # argmin ½‖a − x‖²: one multiplier τ per pixel with x − a = τ on the support and x ≤ τ off it
    tau = torch.where(a > 0, x - a, -torch.inf).amax(1, keepdim=True)
    assert (torch.where(a > 0, x - a - tau, 0.0).abs() < 1e-9).all()
    assert (torch.where(a > 0, -torch.inf, x - tau) < 1e-9).all()


@given(vectors)
@settings(max_examples=50, deadline=None)
def test_projection_is_idempotent(v: np.ndarray) -> None:
    a = simplex.project(torch.from_numpy(v))
    assert torch.allclose(simplex.project(a), a, atol=1e-12)


@given(vectors, st.integers(0, 2**31))
@settings(max_examples=50, deadline=None)
def test_projection_does_not_expand(v: np.ndarray, seed: int) -> None:
    x = torch.from_numpy(v)
    y = x + torch.randn(x.shape, generator=torch.Generator().manual_seed(seed), dtype=x.dtype)
    moved = (simplex.project(x) - simplex.project(y)).norm(dim=1)
    assert (moved <= (x - y).norm(dim=1) + 1e-9).all()


@given(vectors, st.floats(-1000, 1000))
@settings(max_examples=50, deadline=None)
def test_projection_ignores_a_common_shift(v: np.ndarray, shift: float) -> None:
    x = torch.from_numpy(v)
    assert torch.allclose(simplex.project(x + shift), simplex.project(x), atol=1e-9)


def test_projection_beats_every_other_point() -> None:
    x = torch.randn(1, 4, 50, dtype=torch.float64)
    others = abundances(2000, 4, 1, seed=1)
    best = (simplex.project(x) - x).norm(dim=1)
    assert ((others - x).norm(dim=1) >= best - 1e-12).all()


def test_projection_by_hand() -> None:
    given_, wanted = [[0.6, 0.6], [2.0, 0.0], [0.1, 0.3]], [[0.5, 0.5], [1.0, 0.0], [0.4, 0.6]]
    assert torch.allclose(simplex.project(torch.tensor(given_)), torch.tensor(wanted))


def test_projection_works_on_any_axis_in_float32() -> None:
    x = 5 * torch.randn(2, 6, 3, 4)
    a = simplex.project(x)
    simplex.check(a, atol=1e-6)
    assert torch.equal(simplex.project(x.movedim(1, -1), dim=-1), a.movedim(1, -1))
    assert torch.equal(simplex.project(torch.full((2, 1, 3), -7.0)), torch.ones(2, 1, 3))
    assert simplex.project(torch.zeros(0, 3, 2)).shape == (0, 3, 2)


def test_projection_keeps_gradients_tangent() -> None:
    x = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, 5, dtype=torch.float64)
    (simplex.project(x) * weight).sum().backward()
    assert x.grad is not None
    assert torch.allclose(x.grad.sum(1), torch.zeros(3, dtype=torch.float64), atol=1e-12)


def test_projection_of_nan_is_reported_by_check() -> None:
    a = simplex.project(torch.tensor([[1.0, float("nan")], [2.0, 0.0]]))
    assert torch.equal(a[1], torch.tensor([1.0, 0.0]))
    with pytest.raises(SimplexError, match="NaN"):
        simplex.check(a)


@given(positive, st.floats(0.01, 100))
@settings(max_examples=50, deadline=None)
def test_closure_keeps_ratios_and_ignores_scale(v: np.ndarray, scale: float) -> None:
    x = torch.from_numpy(v)
    a = simplex.closure(x)
    simplex.check(a, atol=1e-12)
    assert torch.allclose(a * x[:, :1], a[:, :1] * x)
    assert torch.allclose(simplex.closure(scale * x), a)
    assert torch.allclose(simplex.closure(a), a)


@pytest.mark.parametrize("bad", [[0.0, 0.0], [-0.1, 1.1], [float("nan"), 1.0], [float("inf"), 1.0]])
def test_closure_refuses_what_has_no_composition(bad: list[float]) -> None:
    with pytest.raises(SimplexError, match=r"simplex\.project"):
        simplex.closure(torch.tensor([bad]))


@given(vectors, st.floats(-50, 50))
@settings(max_examples=50, deadline=None)
def test_logits_ignore_a_common_shift(z: np.ndarray, shift: float) -> None:
    x = torch.from_numpy(z)
    a = simplex.from_logits(x)
    simplex.check(a, atol=1e-12)
    assert torch.allclose(simplex.from_logits(x + shift), a, atol=1e-12)


def test_logits_round_trip() -> None:
    a = abundances(3, 5, 4, 4)
    z = simplex.to_logits(a, eps=1e-12)
    assert torch.allclose(z.sum(1), torch.zeros(3, 4, 4, dtype=z.dtype), atol=1e-9)
    assert torch.allclose(simplex.from_logits(z), a, atol=1e-9)
    assert torch.allclose(simplex.to_logits(simplex.from_logits(z), eps=1e-12), z, atol=1e-6)


def test_logits_of_a_vertex_are_finite() -> None:
    z = simplex.to_logits(torch.tensor([[1.0, 0.0, 0.0]]), eps=1e-4)
    assert torch.isfinite(z).all()
    assert torch.allclose(simplex.from_logits(z), torch.tensor([[1.0, 0.0, 0.0]]), atol=3e-4)


def test_check_accepts_and_names_the_worst() -> None:
    a = abundances(2, 3, 4, 5)
    simplex.check(a)
    simplex.check(torch.zeros(0, 3, 4, 4))
    worse = a.clone()
    worse[1, 2, 3, 4] -= 2e-3
    with pytest.raises(SimplexError, match=r"index \(1, 3, 4\)"):
        simplex.check(worse)
    simplex.check(worse, atol=1e-2)
    with pytest.raises(SimplexError, match=r"negative \(-0.5 at index \(1,\)\)"):
        simplex.check(torch.tensor([1.5, -0.5]), dim=0)
    with pytest.raises(SimplexError, match="NaN"):
        simplex.check(torch.tensor([[float("nan"), 1.0]]))


def test_what_is_moved_in_is_the_mirror_image() -> None:
    ramp = torch.tensor([0.1, 0.2, 0.3, 0.4]).view(1, 1, 1, 4).expand(1, 1, 4, 4)
    shift = torch.tensor([[[1.0, 0.0, 0.5], [0.0, 1.0, 0.0]]])  # one pixel of four is half a unit of two
    moved = simplex.move(torch.cat([ramp, 1 - ramp], 1), shift)
    torch.testing.assert_close(moved[0, 0, 0], torch.tensor([0.2, 0.3, 0.4, 0.4]))
    torch.testing.assert_close(moved.sum(1), torch.ones(1, 4, 4))
