"""Seeded noise: repeatable, per sample, stable across versions of Python and torch's hash."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ubf_augment.seeding import derive_seed, per_sample, rand, randn

any_int = st.integers(-(2**70), 2**70)


@given(any_int, st.lists(any_int, max_size=3))
@settings(max_examples=50, deadline=None)
def test_derived_seeds_are_valid_and_repeatable(seed: int, keys: list[int]) -> None:
    value = derive_seed(seed, *keys)
    assert 0 <= value < 2**63
    assert value == derive_seed(seed, *keys)
    torch.Generator().manual_seed(value)


def test_derived_seeds_differ() -> None:
    keys = [(s, i) for s in range(-20, 80) for i in range(100)]
    values = {derive_seed(s, i) for s, i in keys}
    assert len(values) == len(keys)
    assert len({derive_seed(0), derive_seed(0, 0), derive_seed(0, 0, 0), derive_seed(0, 0, 1)}) == 4


def test_neighbouring_seeds_differ_in_about_half_their_bits() -> None:
    flipped = [bin(derive_seed(0, i) ^ derive_seed(0, i + 1)).count("1") for i in range(500)]
    assert 29 < sum(flipped) / len(flipped) < 34  # 63 bits


@pytest.mark.parametrize("draw", [rand, randn])
def test_a_sample_depends_on_its_own_generator_alone(draw) -> None:  # type: ignore[no-untyped-def]
    all_at_once = draw((5, 2, 3), per_sample(7, range(5)))
    for i in range(5):
        assert torch.equal(draw((1, 2, 3), per_sample(7, [i]))[0], all_at_once[i])
    assert torch.equal(draw((2, 2, 3), per_sample(7, [4, 1])), all_at_once[[4, 1]])


@pytest.mark.parametrize(("draw", "mean", "variance"), [(rand, 0.5, 1 / 12), (randn, 0.0, 1.0)])
def test_moments(draw, mean: float, variance: float) -> None:  # type: ignore[no-untyped-def]
    x = draw((400, 100), per_sample(0, range(400)))
    assert abs(x.mean().item() - mean) < 5 * (variance / 40_000) ** 0.5
    assert x.var().item() == pytest.approx(variance, rel=0.05)
    between = x.mean(1).var().item()  # samples of different generators are independent
    assert between == pytest.approx(variance / 100, rel=0.4)


def test_one_generator_advances() -> None:
    g = torch.Generator().manual_seed(3)
    first, second = randn((2, 4), g), randn((2, 4), g)
    assert not torch.equal(first, second)
    g.manual_seed(3)
    assert torch.equal(randn((2, 4), g), first)


def test_without_a_generator_the_global_state_counts() -> None:
    torch.manual_seed(5)
    first = rand((2, 2))
    torch.manual_seed(5)
    assert torch.equal(rand((2, 2)), first)
    state = torch.get_rng_state()
    randn((3,), per_sample(0, range(3)))
    assert torch.equal(torch.get_rng_state(), state)


def test_dtype_and_empty_batch() -> None:
    assert randn((2, 3), per_sample(0, range(2)), dtype=torch.float64).dtype == torch.float64
    assert randn((0, 3), []).shape == (0, 3)


def test_wrong_number_of_generators() -> None:
    with pytest.raises(ValueError, match="3 generators for a batch of 2"):
        randn((2, 4), per_sample(0, range(3)))
