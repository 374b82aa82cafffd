"""The approximate solver stays on the simplex after any number of iterations and comes to the exact solution."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ubf_augment.errors import BandCountError, NoDataError
from ubf_augment.mixing import mix
from ubf_augment.unmixing import fcls, sunsal


def made(p: int, c: int, seed: int, noise: float = 0.05) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    e = 0.6 * torch.rand(p, c, generator=g)
    a = torch.softmax(3 * torch.randn(3, p, 5, 4, generator=g), 1)
    return mix(a, e) + noise * torch.randn(3, c, 5, 4, generator=g), e


@given(st.integers(1, 9), st.integers(1, 12), st.integers(0, 2**31), st.integers(1, 30))
@settings(max_examples=40, deadline=None)
def test_every_iterate_lies_on_the_simplex(p: int, c: int, seed: int, iterations: int) -> None:
    x, e = made(p, c, seed)
    a = sunsal(x, e, iterations=iterations)
    assert a.shape == (3, p, 5, 4)
    assert float(a.min()) >= 0
    assert float((a.sum(1) - 1).abs().max()) < 1e-5


@given(st.integers(1, 6), st.integers(0, 2**31))
@settings(max_examples=25, deadline=None)
def test_it_converges_to_the_exact_solution(p: int, seed: int) -> None:
    x, e = made(p, p + 4, seed)
    best, found = fcls(x, e), sunsal(x, e, iterations=400)

    def error(a: torch.Tensor) -> float:
        return float((mix(a, e) - x).square().sum(1).sqrt().max())

    assert error(found) <= error(best) + 1e-3
    assert float((mix(found, e) - mix(best, e)).abs().max()) < 5e-3


def test_two_endmembers_in_closed_form() -> None:
    e = torch.tensor([[0.5, 0.1, 0.2], [0.1, 0.4, 0.3]])
    x = torch.tensor([[0.3, 0.2, 0.3], [0.9, 0.0, 0.1]])  # the second lies beyond the first endmember
    direction = e[0] - e[1]
    share = (((x - e[1]) @ direction) / direction.square().sum()).clamp(0, 1)
    a = sunsal(x.T[None, :, :, None], e)[0, :, :, 0]
    assert torch.allclose(a[0], share, atol=1e-4)
    assert float(a[1, 1]) == 0.0


def test_the_prior_is_that_of_the_exact_solver() -> None:
    x, e = made(5, 3, 4)  # fewer bands than endmembers: the prior makes the solution unique
    exact = fcls(x, e, prior_weight=1e-2)
    assert torch.allclose(sunsal(x, e, prior_weight=1e-2, iterations=400), exact, atol=2e-3)


def test_more_iterations_come_nearer() -> None:
    x, e = made(8, 20, 1)
    exact = fcls(x, e)
    errors = [float((sunsal(x, e, iterations=n) - exact).square().mean().sqrt()) for n in (1, 5, 20, 80)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-3


def test_bad_input_is_refused() -> None:
    x, e = made(3, 5, 0)
    with pytest.raises(ValueError, match="iterations ≥ 1"):
        sunsal(x, e, iterations=0)
    with pytest.raises(BandCountError):
        sunsal(x[:, :4], e)
    with pytest.raises(NoDataError):
        sunsal(torch.full_like(x, torch.nan), e)
