"""Displayed values and reflectance."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ubf_augment.errors import RadiometryError
from ubf_augment.radiometry import to_display, to_reflectance


@given(st.floats(0.05, 2), st.floats(0.5, 3))
@settings(max_examples=50, deadline=None)
def test_round_trip_and_order(scale: float, gamma: float) -> None:
    v = torch.linspace(0, 1, 33)
    r = to_reflectance(v, scale, gamma)
    assert torch.allclose(to_display(r, scale, gamma), v, atol=1e-4)
    assert (r.diff() >= 0).all()
    assert r[-1].item() == pytest.approx(scale)


def test_by_hand() -> None:
    assert to_reflectance(torch.tensor([0, 51, 255], dtype=torch.uint8), 0.5, 2.0).tolist() == pytest.approx(
        [0.0, 0.02, 0.5]
    )
    assert to_display(torch.tensor([2.0, -1.0])).tolist() == [1.0, 0.0]


def test_bytes_and_floats_agree() -> None:
    v = torch.arange(256, dtype=torch.uint8)
    assert torch.allclose(to_reflectance(v, 0.4, 1.5), to_reflectance(v / 255, 0.4, 1.5))


@pytest.mark.parametrize(
    "picture",
    [
        torch.tensor([0, 300], dtype=torch.int16),
        torch.tensor([True]),
        torch.tensor([0.0, 1.2]),
        torch.tensor([-0.1, 0.5]),
        torch.tensor([128.0]),
    ],
)
def test_values_of_unknown_scale(picture: torch.Tensor) -> None:
    with pytest.raises(RadiometryError):
        to_reflectance(picture)


def test_rounding_is_forgiven() -> None:
    assert to_reflectance(torch.tensor([-1e-7, 1 + 1e-7])).tolist() == [0.0, 1.0]
