"""Brightness of the materials and gamut coverage."""

from __future__ import annotations

import pytest
import torch

from ubf_augment.errors import ShapeError
from ubf_augment.mixing import mix
from ubf_augment.unmixing import fcls, gamut_report, reproduction, scale_materials, with_shade


def relative_error(pixels: torch.Tensor, spectra: torch.Tensor) -> torch.Tensor:
    x = pixels.T[None, :, :, None]
    return (mix(fcls(x, spectra), spectra) - x)[0, :, :, 0].norm(dim=0) / pixels.norm(dim=1)


def coefficients(pixels: int = 2000, materials: int = 3) -> torch.Tensor:
    g = torch.Generator().manual_seed(0)
    return torch.softmax(2 * torch.randn(pixels, materials, generator=g), 1)


def test_scaled_materials_reach_every_pixel() -> None:
    e = 0.05 + 0.2 * torch.rand(3, 12)
    pixels = 2.5 * coefficients() @ e  # up to 2.5 times as bright as the materials
    assert (relative_error(pixels, with_shade(e)) > 0.05).float().mean() > 0.5
    scaled = scale_materials(with_shade(e), pixels, quantile=1.0)
    assert relative_error(pixels, scaled).max() < 1e-3
    cosine = torch.cosine_similarity(scaled[:3], e, dim=1)
    assert torch.allclose(cosine, torch.ones(3), atol=1e-6)  # only the brightness changes
    assert (scaled[-1] == 0).all()


def test_scaling_does_not_depend_on_the_brightness_it_starts_from() -> None:
    e = 0.05 + 0.2 * torch.rand(3, 12)
    pixels = coefficients() @ e
    scaled = scale_materials(with_shade(e), pixels)
    dimmed = scale_materials(with_shade(e * torch.tensor([[0.7], [0.5], [0.8]])), pixels)
    assert torch.allclose(scaled, dimmed, rtol=0.02)


def test_pictures_widen_the_brightness() -> None:
    e = 0.05 + 0.2 * torch.rand(3, 12)
    pixels, bands = coefficients() @ e, (8, 5, 2)
    rgb = 3 * pixels[:, list(bands)]
    scaled = scale_materials(with_shade(e), pixels, rgb, bands, quantile=1.0)
    assert relative_error(rgb, scaled[:, list(bands)]).max() < 1e-3
    assert relative_error(pixels, scaled).max() < 1e-3


def test_a_rare_material_keeps_its_brightness() -> None:
    e = torch.rand(3, 20) + 0.05
    a = coefficients()
    a[:, 2] = 0
    a = a / a.sum(1, keepdim=True)
    a[:4] = torch.tensor([0.0, 0.0, 1.0])  # 0.2% of the pixels
    pixels = a @ e
    assert relative_error(pixels, scale_materials(with_shade(e), pixels))[:4].max() < 0.02


def test_an_unused_material_keeps_its_brightness() -> None:
    e = torch.eye(3, 6) + 0.1
    pixels = torch.rand(500, 1) * e[0]
    scaled = scale_materials(with_shade(e), pixels)
    assert torch.allclose(scaled[1:3], e[1:], rtol=1e-3)


def test_scaling_needs_shade() -> None:
    with pytest.raises(ValueError, match="with_shade"):
        scale_materials(torch.rand(3, 5) + 0.1, torch.rand(20, 5))


def test_gamut_of_pictures_inside_and_outside() -> None:
    e = torch.tensor([[0.5, 0.1, 0.1], [0.1, 0.5, 0.1], [0.1, 0.1, 0.5], [0.0, 0.0, 0.0]])
    a = torch.softmax(torch.randn(4, 4, 6, 6), 1)
    inside = gamut_report(mix(a, e), e)
    assert inside["coverage"] == 1
    assert inside["relative_error"] < 1e-3
    assert inside["angle"] < 0.1
    white = torch.full((1, 3, 4, 4), 0.9)  # brighter than any mixture, same direction as the mean
    outside = gamut_report(white, e)
    assert outside["coverage"] == 0
    assert outside["relative_error"] == pytest.approx(1 - (0.7 / 3) / 0.9, abs=0.01)
    assert outside["angle"] < 0.1
    half = gamut_report(torch.cat([mix(a, e)[:1, :, :4, :4], white]), e)
    assert half["coverage"] == 0.5


def test_black_pixels_count_neither_as_uncovered_nor_as_turned() -> None:
    e = torch.tensor([[0.5, 0.3, 0.1], [0.1, 0.5, 0.2], [0.0, 0.0, 0.0]])
    dark = gamut_report(torch.zeros(1, 3, 4, 4), e)
    assert dark == {"coverage": 1.0, "relative_error": pytest.approx(0, abs=1e-5), "angle": 0.0}
    a = torch.softmax(torch.randn(1, 3, 4, 4), 1)
    mixed = torch.cat([mix(a, e), torch.zeros(3, 3, 4, 4)])
    assert gamut_report(mixed, e)["angle"] < 0.1


def test_reproduction_by_hand() -> None:
    true = torch.tensor([[0.3, 0.3], [0.4, 0.4]]).view(1, 2, 1, 2)
    made = torch.tensor([[0.3, 0.6], [0.4, 0.8]]).view(1, 2, 1, 2)
    found = reproduction(made, true)
    assert found["coverage"] == 0.5
    assert found["relative_error"] == pytest.approx(0.5)  # 0 and 0.5, over 0.5 and 0.5
    assert found["angle"] == pytest.approx(0, abs=1e-3)
    assert reproduction(made, true, tolerance=1.01)["coverage"] == 1


def test_reproduction_refuses() -> None:
    with pytest.raises(ShapeError):
        reproduction(torch.zeros(1, 3, 2, 2), torch.zeros(1, 3, 2, 3))
    with pytest.raises(ShapeError):
        gamut_report(torch.zeros(0, 3, 2, 2), torch.rand(4, 3))
