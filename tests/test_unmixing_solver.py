"""Constrained least squares: optimality conditions, scipy, closed forms, degenerate problems."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ubf_augment import simplex
from ubf_augment.errors import BandCountError, NoDataError, ShapeError
from ubf_augment.mixing import mix
from ubf_augment.spectra import Endmembers
from ubf_augment.unmixing import fcls, nnls


def problem(p: int, c: int, n: int, seed: int, noise: float = 0.1) -> tuple[Tensor, Tensor]:
    """Pixels (N, C) in and around the simplex of endmembers (P, C)."""
    g = torch.Generator().manual_seed(seed)
    e = torch.rand(p, c, generator=g, dtype=torch.float64)
    a = torch.softmax(3 * torch.randn(n, p, generator=g, dtype=torch.float64), 1)
    return a @ e + noise * torch.randn(n, c, generator=g, dtype=torch.float64), e


def image(pixels: Tensor) -> Tensor:
    return pixels.T[None, :, :, None]


def pixels(cube: Tensor) -> Tensor:
    return cube[0, :, :, 0].T


def excess(x: Tensor, e: Tensor, a: Tensor, prior: Tensor | None = None, weight: float = 0.0) -> Tensor:
    """How far a is from optimal: Frank-Wolfe gap g·a − min g ≥ f(a) − f(best), for f = ½‖x − Eᵀa‖² + ½ridge‖a − a₀‖²."""
    gradient = (a @ e - x) @ e.T
    if prior is not None:
        gradient = gradient + weight * e.square().sum(1).mean() * (a - prior)
    return (gradient * a).sum(1) - gradient.amin(1)


# ---- fcls


@given(st.integers(1, 9), st.integers(1, 12), st.integers(0, 2**31), st.floats(0, 0.5))
@settings(max_examples=60, deadline=None)
def test_fcls_is_optimal(p: int, c: int, seed: int, noise: float) -> None:
    x, e = problem(p, c, 40, seed, noise)
    a = pixels(fcls(image(x), e))
    simplex.check(a, atol=1e-9)
    assert (a >= 0).all()
    assert (excess(x, e, a) < 1e-6).all()


@given(st.integers(2, 9), st.integers(1, 4), st.integers(0, 2**31), st.sampled_from([1e-6, 1e-2, 1.0, 100.0]))
@settings(max_examples=40, deadline=None)
def test_fcls_with_a_prior_is_optimal(p: int, c: int, seed: int, weight: float) -> None:
    x, e = problem(p, c, 30, seed)  # fewer bands than endmembers, too
    prior = torch.softmax(torch.randn(30, p, dtype=torch.float64), 1)
    a = pixels(fcls(image(x), e, prior=image(prior), prior_weight=weight))
    simplex.check(a, atol=1e-9)
    assert (excess(x, e, a, prior, weight) < 1e-7 * (1 + weight)).all()


@pytest.mark.parametrize(("p", "c"), [(2, 5), (4, 20), (6, 59), (12, 30)])
def test_fcls_agrees_with_scipy(p: int, c: int) -> None:
    scipy_nnls = pytest.importorskip("scipy.optimize").nnls
    x, e = problem(p, c, 25, seed=p)
    heavy = 1e4  # the sum to one as one more, heavy equation (Heinz and Chang 2001)
    system = torch.cat([e.T, heavy * torch.ones(1, p, dtype=e.dtype)]).numpy()
    ours = pixels(fcls(image(x), e))
    for pixel, a in zip(x, ours, strict=True):
        theirs, _ = scipy_nnls(system, [*pixel.tolist(), heavy])
        assert torch.allclose(a, torch.from_numpy(theirs), atol=2e-5)


def test_fcls_of_two_endmembers_in_closed_form() -> None:
    x, e = problem(2, 8, 200, seed=0, noise=0.3)
    d = e[0] - e[1]
    share = ((x - e[1]) @ d / d.square().sum()).clamp(0, 1)
    assert torch.allclose(pixels(fcls(image(x), e))[:, 0], share, atol=1e-6)


def test_fcls_recovers_abundances_and_commutes_with_order() -> None:
    x, e = problem(5, 59, 100, seed=1, noise=0.0)
    a = fcls(image(x), e)
    assert torch.allclose(mix(a, e), image(x), atol=1e-7)
    order = [3, 0, 4, 1, 2]
    assert torch.allclose(fcls(image(x), e[order]), a[:, order], atol=1e-8)
    assert torch.allclose(fcls(image(x[:10]), e), a[:, :, :10], atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_fcls_on_vertices_is_exact(dtype: torch.dtype) -> None:
    e = torch.rand(5, 12, dtype=dtype)
    a = pixels(fcls(image(e), e))
    assert a.dtype == dtype
    assert torch.allclose(a, torch.eye(5, dtype=dtype), atol=1e-6)


def test_fcls_with_shade_carries_brightness() -> None:
    e = torch.cat([torch.rand(2, 10), torch.zeros(1, 10)])
    gains = torch.tensor([1.0, 0.5, 0.1, 0.0])
    a = pixels(fcls(image(gains[:, None] * e[0]), e))
    assert torch.allclose(a[:, 0], gains, atol=1e-6)
    assert torch.allclose(a[:, 2], 1 - gains, atol=1e-6)


@pytest.mark.parametrize(
    "e",
    [
        torch.tensor([[0.2, 0.4, 0.1], [0.2, 0.4, 0.1], [0.5, 0.1, 0.3]]),  # twins
        torch.tensor([[0.2, 0.4, 0.1], [0.4, 0.8, 0.2], [0.0, 0.0, 0.0]]),  # on one line, with shade
        torch.tensor(
            [[0.2, 0.4, 0.1], [0.4, 0.2, 0.3], [0.3, 0.3, 0.2]]
        ),  # the third is the mean of the others
        torch.zeros(3, 3),
        torch.tensor([[1e-5, 2e-5, 1e-5], [3e-5, 1e-5, 1e-5], [0.9, 0.8, 0.9]]),  # very different scales
    ],
)
def test_fcls_of_degenerate_endmembers(e: Tensor) -> None:
    e = e.double()
    x = torch.cat([e, torch.rand(60, 3, dtype=torch.float64), torch.zeros(1, 3, dtype=torch.float64)])
    a = pixels(fcls(image(x), e))
    simplex.check(a, atol=1e-9)
    assert (excess(x, e, a) < 1e-7).all()


def test_ties_are_broken_towards_the_prior() -> None:
    e = torch.tensor([[0.2, 0.4], [0.2, 0.4], [0.5, 0.1]], dtype=torch.float64)
    x = torch.tensor([[0.2, 0.4], [0.35, 0.25]], dtype=torch.float64)
    equal = pixels(fcls(image(x), e))
    assert torch.allclose(equal, torch.tensor([[0.5, 0.5, 0.0], [0.25, 0.25, 0.5]]).double(), atol=1e-4)
    prior = torch.tensor([[0.9, 0.1, 0.0], [0.6, 0.0, 0.4]], dtype=torch.float64)
    leaning = pixels(fcls(image(x), e, prior=image(prior)))
    assert leaning[0].tolist() == pytest.approx([0.9, 0.1, 0.0], abs=1e-4)
    assert leaning[1].tolist() == pytest.approx([0.5, 0.0, 0.5], abs=1e-4)


def test_a_heavy_prior_wins_and_a_light_one_yields() -> None:
    x, e = problem(6, 3, 50, seed=3, noise=0.0)  # three bands leave six abundances open
    prior = torch.softmax(torch.randn(50, 6, dtype=torch.float64), 1)
    heavy = pixels(fcls(image(x), e, prior=image(prior), prior_weight=1e6))
    assert torch.allclose(heavy, prior, atol=1e-4)
    light = pixels(fcls(image(x), e, prior=image(prior), prior_weight=1e-7))
    assert torch.allclose(light @ e, x, atol=1e-4)
    # of all that reproduce the pixel, nearly the nearest to the prior: no further than the abundances it was made from
    bare = pixels(fcls(image(x), e))
    assert ((light - prior).norm(dim=1) <= (bare - prior).norm(dim=1) + 1e-3).all()


@pytest.mark.parametrize("shape", [(0, 4, 3, 3), (2, 4, 0, 3), (1, 4, 1, 1), (3, 4, 2, 5)])
def test_fcls_of_any_batch(shape: tuple[int, ...]) -> None:
    e = Endmembers(torch.rand(3, 4), [450, 490, 560, 665])
    x = torch.rand(shape)
    a = fcls(x, e)
    assert a.shape == (shape[0], 3, *shape[2:])
    for i in range(shape[0]):  # an image does not depend on its neighbours
        assert torch.allclose(fcls(x[i : i + 1], e)[0], a[i], atol=1e-7)


def test_one_endmember_and_many() -> None:
    assert torch.equal(fcls(torch.rand(1, 4, 2, 2), torch.rand(1, 4)), torch.ones(1, 1, 2, 2))
    x, e = problem(70, 90, 6, seed=5)
    a = pixels(fcls(image(x), e))
    assert (excess(x, e, a) < 1e-6).all()


def test_fcls_carries_no_gradient() -> None:
    a = fcls(torch.rand(1, 4, 2, 2, requires_grad=True), torch.rand(3, 4, requires_grad=True))
    assert not a.requires_grad


@pytest.mark.parametrize(
    ("x", "options", "error", "message"),
    [
        (torch.rand(4, 5, 5), {}, ShapeError, r"x\[None\]"),
        (torch.rand(1, 3, 5, 5), {}, BandCountError, "3 bands, the endmembers 4"),
        (torch.full((1, 4, 2, 2), float("nan")), {}, NoDataError, "4 pixels hold NaN"),
        (torch.full((1, 4, 1, 2), float("inf")), {}, NoDataError, "2 pixels"),
        (torch.rand(1, 4, 5, 5), {"prior": torch.rand(1, 2, 5, 5)}, ShapeError, "prior"),
        (torch.rand(1, 4, 5, 5), {"prior_weight": -1.0}, ValueError, "negative"),
        (torch.rand(1, 4, 5, 5), {"prior_weight": float("nan")}, ValueError, "nan"),
    ],
)
def test_fcls_refuses(x: Tensor, options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        fcls(x, torch.rand(3, 4), **options)


# ---- nnls


@given(st.integers(1, 10), st.integers(0, 2**31))
@settings(max_examples=40, deadline=None)
def test_nnls_meets_the_optimality_conditions(p: int, seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    system = torch.randn(p + 3, p, generator=g, dtype=torch.float64)
    right = torch.randn(20, p + 3, generator=g, dtype=torch.float64) @ system
    gram = system.T @ system
    found = nnls(gram, right)
    gradient = found @ gram - right
    scale = gram.diagonal().max()
    assert (found >= 0).all()
    assert (gradient > -1e-8 * scale).all()
    assert ((found * gradient).abs() < 1e-7 * scale).all()


def test_nnls_agrees_with_scipy() -> None:
    scipy_nnls = pytest.importorskip("scipy.optimize").nnls
    system, targets = torch.randn(30, 8, dtype=torch.float64), torch.randn(15, 30, dtype=torch.float64)
    found = nnls(system.T @ system, targets @ system)
    for target, row in zip(targets, found, strict=True):
        assert torch.allclose(row, torch.from_numpy(scipy_nnls(system.numpy(), target.numpy())[0]), atol=1e-9)


def test_nnls_of_a_diagonal_and_of_nothing() -> None:
    r = torch.randn(50, 4)
    d = torch.tensor([1.0, 2.0, 4.0, 8.0])
    assert torch.allclose(nnls(torch.diag(d), r), (r / d).clamp_min(0))
    assert nnls(torch.eye(3), torch.zeros(0, 3)).shape == (0, 3)
