"""Wavelengths, spectral responses, resampling, endmembers: exact where the mathematics is exact."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ubf_augment.errors import BandCountError, ShapeError, WavelengthError
from ubf_augment.spectra import (
    RGB_NM,
    Endmembers,
    check_wavelengths,
    resample,
    rgb_bands,
    sort_bands,
    spectral_response,
)

CHIKUSEI = torch.linspace(398.71, 698.04, 59, dtype=torch.float64)
SENTINEL2 = [443, 490, 560, 665, 705, 740, 783, 842, 865, 945, 1375, 1610, 2190]


@st.composite
def grids(draw: Any, low: float = 400.0, high: float = 900.0) -> list[float]:
    n = draw(st.integers(2, 40))
    steps = draw(st.lists(st.floats(0.5, 30), min_size=n, max_size=n))
    return [low + sum(steps[:i]) * (high - low) / sum(steps) for i in range(n + 1)]


# ---- wavelengths


@pytest.mark.parametrize(
    ("wavelengths", "message"),
    [
        (None, "missing"),
        ([0.49, 0.56, 0.665], "µm, multiply by 1000"),
        ([490.0, 665.0, 560.0], "band 1 is 665 nm, band 2 560 nm.*sort_bands"),
        ([490.0, 490.0], "not ascending"),
        ([490.0, float("nan")], "NaN"),
        ([50.0, 490.0], "outside 100–20000"),
        ([490.0, 30000.0], "outside 100–20000"),
        ([], "list of band centres"),
        ([[490.0, 560.0]], "list of band centres"),
    ],
)
def test_unusable_wavelengths(wavelengths: Any, message: str) -> None:
    with pytest.raises(WavelengthError, match=message):
        check_wavelengths(wavelengths)
    with pytest.raises(ValueError, match="of the moon"):
        check_wavelengths(wavelengths, where="the moon")


def test_wrong_number_of_wavelengths() -> None:
    with pytest.raises(BandCountError, match="3 wavelengths for 4 bands"):
        check_wavelengths([490, 560, 665], 4)


def test_wavelengths_are_copied_in_double_precision() -> None:
    given_ = torch.tensor([490.123, 560.0])
    nm = check_wavelengths(given_)
    assert nm.dtype == torch.float64
    nm[0] = 0
    assert given_[0] > 490


def test_sort_bands() -> None:
    nm = [443.0, 490.0, 945.0, 2190.0, 865.0]
    cube = torch.arange(5.0).view(1, 5, 1, 1).expand(2, 5, 3, 3)
    ordered, sorted_nm = sort_bands(cube, nm)
    assert ordered[0, :, 0, 0].tolist() == [0, 1, 4, 2, 3]
    assert sorted_nm.tolist() == sorted(nm)
    check_wavelengths(sorted_nm, 5)
    assert sort_bands(cube.movedim(1, -1), nm, dim=-1)[0].shape == (2, 3, 3, 5)


def test_sort_bands_refuses() -> None:
    with pytest.raises(BandCountError, match="2 wavelengths for 3 bands"):
        sort_bands(torch.zeros(3, 2, 2), [500, 600])
    with pytest.raises(BandCountError):
        sort_bands(torch.zeros(3, 2, 2), None)
    with pytest.raises(WavelengthError, match="not ascending"):  # one wavelength twice has no order
        sort_bands(torch.zeros(3, 2, 2), [600, 500, 600])


# ---- red, green, blue


@pytest.mark.parametrize(
    ("wavelengths", "expected"),
    [
        (SENTINEL2, (3, 2, 1)),
        ([490, 560, 665], (2, 1, 0)),
        (range(400, 701, 10), (26, 16, 9)),  # 665 nm lies between 660 and 670: the first
    ],
)
def test_rgb_bands(wavelengths: Any, expected: tuple[int, int, int]) -> None:
    assert rgb_bands(list(wavelengths)) == expected


@given(grids())
@settings(max_examples=50, deadline=None)
def test_rgb_bands_are_the_nearest(nm: list[float]) -> None:
    grid = torch.tensor(nm, dtype=torch.float64)
    try:
        found = rgb_bands(nm)
    except WavelengthError:
        nearest = [(grid - c).abs() for c in RGB_NM]
        assert any(float(d.min()) > 40 for d in nearest) or len({int(d.argmin()) for d in nearest}) < 3
        return
    for band, centre in zip(found, RGB_NM, strict=True):
        distance = (grid - centre).abs()
        assert distance[band] == distance.min()
        assert distance[band] <= 40


def test_rgb_bands_that_do_not_exist() -> None:
    with pytest.raises(WavelengthError, match="no band within 40 nm of blue"):
        rgb_bands([560, 665, 842])
    with pytest.raises(WavelengthError, match="one of them twice"):
        rgb_bands([525, 660])
    assert rgb_bands([540, 560, 665], tolerance=60) == (2, 1, 0)


# ---- response and resampling


@given(grids(), grids(low=430.0, high=850.0), st.floats(0.1, 200))
@settings(max_examples=50, deadline=None)
def test_response_rows_are_weights(source: list[float], target: list[float], fwhm: float) -> None:
    response = spectral_response(source, target, fwhm)
    assert response.shape == (len(target), len(source))
    assert (response >= 0).all()
    assert torch.allclose(response.sum(1), torch.ones(len(target)), atol=1e-5)


@given(grids(), st.floats(-1, 1), st.floats(-1e-3, 1e-3))
@settings(max_examples=50, deadline=None)
def test_linear_spectra_are_resampled_exactly(source: list[float], level: float, slope: float) -> None:
    target, fwhm = torch.linspace(500, 800, 7, dtype=torch.float64), 60.0  # ±3σ stays inside 400–900 nm
    src = torch.tensor(source, dtype=torch.float64)
    cube = (level + slope * (src - 400)).view(-1, 1, 1)
    out = resample(cube, source, target, fwhm)
    assert torch.allclose(out[:, 0, 0], level + slope * (target - 400), atol=1e-5)


def test_narrow_bands_interpolate_and_the_same_grid_is_kept() -> None:
    x = torch.rand(59, 3, 3)
    assert torch.allclose(resample(x, CHIKUSEI, CHIKUSEI, 1e-3), x, atol=1e-4)
    middle = (CHIKUSEI[1:] + CHIKUSEI[:-1]) / 2
    assert torch.allclose(resample(x, CHIKUSEI, middle, 1e-3), (x[1:] + x[:-1]) / 2, atol=1e-3)


def test_response_has_the_width_it_is_given() -> None:
    source = torch.arange(400.0, 1000.0, 1.0, dtype=torch.float64)
    for fwhm in (20.0, 80.0):
        row = spectral_response(source, [700], fwhm)[0].double()
        centre = (row * source).sum()
        sigma = (row * (source - centre).square()).sum().sqrt()
        assert centre.item() == pytest.approx(700, abs=0.01)
        assert sigma.item() == pytest.approx(fwhm / 2.3548, rel=0.03)  # cut at 3σ
        half = source[row > row.max() / 2]
        assert float(half[-1] - half[0]) == pytest.approx(fwhm, abs=3)


def test_resampling_commutes_with_mixing() -> None:
    from ubf_augment.mixing import mix

    e, a = torch.rand(4, 59), torch.softmax(torch.randn(2, 4, 5, 5), 1)
    response = spectral_response(CHIKUSEI, SENTINEL2[:4])
    assert torch.allclose(resample(mix(a, e), CHIKUSEI, SENTINEL2[:4]), mix(a, e @ response.T), atol=1e-5)


def test_resample_along_any_axis() -> None:
    x = torch.rand(2, 59, 3, 4)
    out = resample(x, CHIKUSEI, [490, 560, 665])
    assert torch.allclose(resample(x.movedim(1, -1), CHIKUSEI, [490, 560, 665], dim=-1), out.movedim(1, -1))
    with pytest.raises(BandCountError, match="58 bands, 59 wavelengths"):
        resample(x[:, 1:], CHIKUSEI, [490, 560, 665])


def test_targets_outside_the_source_range() -> None:
    spectral_response(CHIKUSEI, [396.5, 700.2])  # within half a step
    with pytest.raises(WavelengthError, match=r"1 of 2 target bands \(842–842 nm\).*399|1 of 2 target"):
        spectral_response(CHIKUSEI, [665, 842])
    with pytest.raises(WavelengthError):
        spectral_response(CHIKUSEI, [380, 665])
    assert spectral_response([500], [502]).tolist() == [[1.0]]


@pytest.mark.parametrize(
    ("fwhm", "error"),
    [
        (0.0, WavelengthError),
        (-5.0, WavelengthError),
        (float("nan"), WavelengthError),
        ([10.0, 0.0, 10.0], WavelengthError),
        ([10.0, 10.0], BandCountError),
        ([[10.0, 10.0, 10.0]], BandCountError),
    ],
)
def test_unusable_widths(fwhm: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="FWHM"):
        spectral_response(CHIKUSEI, [490, 560, 665], fwhm)
    with pytest.raises(error, match="FWHM"):
        Endmembers(torch.ones(1, 3), torch.tensor([490.0, 560.0, 665.0]), fwhm=torch.tensor(fwhm))


# ---- endmembers


def test_endmembers_know_their_shape_and_colours() -> None:
    spectra = torch.rand(3, 13)
    e = Endmembers(spectra, torch.tensor(SENTINEL2), ("a", "b", "shade"))
    assert (e.num_endmembers, e.num_bands, e.rgb_bands) == (3, 13, (3, 2, 1))
    assert torch.equal(e.rgb(), spectra[:, [3, 2, 1]])
    assert Endmembers(spectra, torch.tensor(SENTINEL2)).names == ("endmember 1", "endmember 2", "endmember 3")
    assert e.wavelengths.dtype == torch.float64
    assert e.spectra.dtype == torch.float32


def test_endmembers_are_frozen_and_compare_by_identity() -> None:
    e = Endmembers(torch.rand(2, 3), torch.tensor([490.0, 560.0, 665.0]))
    with pytest.raises(dataclasses.FrozenInstanceError):
        e.spectra = torch.zeros(2, 3)  # type: ignore[misc]
    same = e.replace(e.spectra.clone())
    assert same != e
    assert len({e, same}) == 2
    assert same.names == e.names


def test_endmembers_resampled() -> None:
    e = Endmembers(torch.rand(3, 59), CHIKUSEI, ("a", "b", "c"))
    out = e.resample([490, 560, 665], fwhm=30.0)
    assert out.names == e.names
    assert out.fwhm is not None
    assert out.fwhm.tolist() == [30.0] * 3
    expected = resample(e.spectra, CHIKUSEI, [490, 560, 665], 30.0, dim=1)
    assert torch.allclose(out.spectra, expected)


@pytest.mark.parametrize(
    ("spectra", "nm", "names", "error"),
    [
        (torch.rand(3), [490, 560, 665], (), ShapeError),
        (torch.rand(0, 3), [490, 560, 665], (), ShapeError),
        (torch.rand(2, 4), [490, 560, 665], (), BandCountError),
        (torch.rand(2, 3), [665, 560, 490], (), WavelengthError),
        (torch.tensor([[0.1, -0.1, 0.1]]), [490, 560, 665], (), ValueError),
        (torch.tensor([[0.1, float("nan"), 0.1]]), [490, 560, 665], (), ValueError),
        (torch.rand(2, 3), [490, 560, 665], ("one",), ValueError),
    ],
)
def test_unusable_endmembers(
    spectra: torch.Tensor, nm: Any, names: tuple[str, ...], error: type[Exception]
) -> None:
    with pytest.raises(error):
        Endmembers(spectra, torch.tensor(nm), names)
