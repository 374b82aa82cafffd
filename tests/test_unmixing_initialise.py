"""VCA finds vertices; refinement lowers its objective."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ubf_augment.errors import NoDataError, ShapeError
from ubf_augment.metrics import endmember_angles
from ubf_augment.mixing import mix
from ubf_augment.unmixing import fcls, refine, vca, with_shade


def scene(p: int, c: int, n: int = 500, seed: int = 0, pure: bool = True) -> tuple[Tensor, Tensor]:
    """Pixels (N, C) inside the simplex of endmembers (P, C); with ``pure`` the vertices are among them."""
    g = torch.Generator().manual_seed(seed)
    e = 0.05 + 0.9 * torch.rand(p, c, generator=g)
    a = torch.softmax(1.5 * torch.randn(n, p, generator=g), 1)
    if pure:
        a = torch.cat([a, torch.eye(p)])
    return a @ e, e


def reconstruction(pixels: Tensor, spectra: Tensor) -> Tensor:
    """Squared error of the best abundances."""
    x = pixels.T[None, :, :, None]
    return (mix(fcls(x, spectra), spectra) - x).double().square().sum()


def objective(pixels: Tensor, spectra: Tensor, pull: float, shade: bool) -> float:
    free = spectra[:-1] if shade else spectra
    volume = (free - pixels.mean(0)).double().square().sum()
    return float(reconstruction(pixels, spectra) + pull * len(pixels) / len(free) * volume)


# ---- VCA


@given(st.integers(1, 7), st.integers(0, 2**31), st.integers(0, 5))
@settings(max_examples=30, deadline=None)
def test_vca_finds_the_vertices_of_noiseless_data(p: int, seed: int, direction: int) -> None:
    pixels, e = scene(p, 30, 200, seed)
    found = vca(pixels, p, seed=direction)
    distance = torch.cdist(e.double(), found.double())
    assert (distance.amin(1) < 1e-3).all()
    assert (distance.amin(0) < 1e-3).all()


def test_vca_sees_through_brightness() -> None:
    pixels, e = scene(4, 30)
    g = torch.Generator().manual_seed(1)
    shaded = pixels * (0.2 + 0.8 * torch.rand(len(pixels), 1, generator=g))
    angles, _ = endmember_angles(vca(shaded, 4), e)
    assert angles.max() < 0.1


def test_vca_is_robust_to_noise_and_dark_pixels() -> None:
    pixels, e = scene(4, 30)
    g = torch.Generator().manual_seed(1)
    noisy = pixels + 1e-3 * torch.randn(pixels.shape, generator=g)
    dark = 1e-3 * torch.randn(200, 30, generator=g)  # noise around zero has every direction
    found = vca(torch.cat([noisy, dark, torch.zeros(5, 30)]), 4)
    angles, _ = endmember_angles(found, e)
    assert angles.max() < 2


def test_vca_is_repeatable_and_gives_reflectance() -> None:
    pixels, _ = scene(5, 12)
    assert torch.equal(vca(pixels, 5, seed=3), vca(pixels, 5, seed=3))
    found = vca(pixels - 0.2, 5)
    assert (found >= 0).all()
    assert found.dtype == pixels.dtype
    before = pixels.clone()
    vca(pixels, 5)
    assert torch.equal(pixels, before)


@pytest.mark.parametrize(
    ("pixels", "count", "error"),
    [
        (torch.rand(3, 10), 4, ShapeError),
        (torch.rand(50, 3), 4, ShapeError),
        (torch.rand(50, 3), 0, ShapeError),
        (torch.rand(1, 3, 5, 5), 2, ShapeError),
        (torch.full((50, 3), float("nan")), 2, NoDataError),
    ],
)
def test_vca_refuses(pixels: Tensor, count: int, error: type[Exception]) -> None:
    with pytest.raises(error):
        vca(pixels, count)


# ---- refine


@given(st.integers(2, 5), st.integers(0, 2**31), st.booleans(), st.sampled_from([0.0, 1e-3, 0.1]))
@settings(max_examples=10, deadline=None)
def test_refinement_never_ends_above_its_start(p: int, seed: int, shade: bool, pull: float) -> None:
    pixels, _ = scene(p, 8, 150, seed, pure=False)
    pixels = pixels + 0.02 * torch.randn(pixels.shape, generator=torch.Generator().manual_seed(seed))
    spectra = vca(pixels.abs(), p, seed=seed % 7)
    spectra = with_shade(spectra) if shade else spectra
    start = objective(pixels, spectra, pull, shade)
    values = [
        objective(pixels, refine(pixels, spectra, shade=shade, iterations=n, pull=pull), pull, shade)
        for n in (0, 1, 2, 5, 20)
    ]
    assert values[0] == pytest.approx(start)
    assert max(values) <= start * (1 + 1e-4) + 1e-7
    assert values[-1] <= values[1] * (1 + 1e-4) + 1e-7


def test_refinement_reaches_the_data_without_noise() -> None:
    pixels, e = scene(4, 20, pure=False)
    found = refine(pixels, (e + 0.05).clamp(0, 1), iterations=50)
    assert float((reconstruction(pixels, found) / pixels.numel()).sqrt()) < 1e-3


def test_the_solution_is_a_fixed_point() -> None:
    pixels, e = scene(4, 20)
    assert torch.allclose(refine(pixels, e, iterations=20), e, atol=1e-4)


def test_pull_shrinks_the_simplex() -> None:
    pixels, _ = scene(4, 20, pure=False)
    start = vca(pixels, 4)
    spread = [
        float((refine(pixels, start, pull=pull) - pixels.mean(0)).square().sum()) for pull in (0.0, 1e-2, 1.0)
    ]
    assert spread[0] > spread[1] > spread[2]
    all_of_it = refine(pixels, start, pull=1e9)
    assert torch.allclose(all_of_it, pixels.mean(0).expand_as(all_of_it), atol=1e-3)


def test_shade_stays_zero_and_spectra_stay_positive() -> None:
    pixels, _ = scene(3, 10)
    found = refine(pixels - 0.1, with_shade(vca(pixels, 3)), shade=True, iterations=30)
    assert (found[-1] == 0).all()
    assert (found >= 0).all()
    assert found.shape == (4, 10)


def test_refinement_leaves_an_endmember_that_no_pixel_holds() -> None:
    pixels, e = scene(2, 10)
    unused = torch.full((1, 10), 5.0)
    found = refine(pixels, torch.cat([e, unused]), iterations=10)
    assert torch.allclose(found[2], unused[0], atol=1e-3)


@pytest.mark.parametrize(
    ("pixels", "spectra", "shade", "error"),
    [
        (torch.rand(50, 4), torch.rand(2, 5), False, ShapeError),
        (torch.rand(4), torch.rand(2, 4), False, ShapeError),
        (torch.full((50, 4), float("inf")), torch.rand(2, 4), False, NoDataError),
        (torch.rand(50, 4), torch.rand(2, 4) + 0.1, True, ValueError),
    ],
)
def test_refinement_refuses(pixels: Tensor, spectra: Tensor, shade: bool, error: type[Exception]) -> None:
    with pytest.raises(error):
        refine(pixels, spectra, shade=shade)
