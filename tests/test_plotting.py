"""Pictures: one stretch for a whole figure, bands by wavelength, fixed scales, named rows."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import CLASSES, NM, E, real_batch, tiny_synth

from ubf_augment import SyntheticHSIDataset, report
from ubf_augment.errors import ShapeError, UnknownClassError, WavelengthError
from ubf_augment.plotting.parts import with_gaps
from ubf_augment.report import Display


def shown(figure: object) -> list[np.ndarray]:
    """Pixel values of every image in a figure."""
    return [np.asarray(im.get_array()) for ax in figure.axes for im in ax.get_images()]  # type: ignore[attr-defined]


def test_pseudo_rgb_takes_bands_by_wavelength_and_one_stretch() -> None:
    x = torch.zeros(2, 5, 1, 1)
    x[0, 2], x[0, 1], x[0, 0] = 0.4, 0.2, 0.1  # 665, 560, 490 nm
    x[1] = x[0] / 4
    rgb = report.pseudo_rgb(x, NM, Display(0.4, 2.0))
    np.testing.assert_allclose(rgb[0, 0, 0], np.sqrt([1, 0.5, 0.25]), rtol=1e-6)
    np.testing.assert_allclose(rgb[1], rgb[0] / 2, rtol=1e-6)


def test_default_stretch_is_of_all_images_together() -> None:
    x = torch.cat([torch.full((1, 3, 8, 8), 0.5), torch.full((1, 3, 8, 8), 0.05)])
    assert Display.of(x).scale == pytest.approx(0.5)
    bright, dark = report.pseudo_rgb(x)
    assert bright.min() == pytest.approx(1.0)
    assert dark.max() == pytest.approx(0.1 ** (1 / Display().gamma), rel=1e-5)


def test_pseudo_rgb_refuses_what_has_no_colours() -> None:
    with pytest.raises(WavelengthError, match="red"):
        report.pseudo_rgb(torch.rand(1, 2, 4, 4), [1610, 2190])
    with pytest.raises(ShapeError, match="wavelengths"):
        report.pseudo_rgb(torch.rand(1, 5, 4, 4))
    with pytest.raises(ShapeError, match=r"x\[None\]"):
        report.pseudo_rgb(torch.rand(5, 4, 4), NM)


def test_image_grid_states_its_stretch_and_keeps_brightness(tmp_path: Path) -> None:
    x, _ = real_batch(3)
    x[1] = x[0] / 2
    figure = report.image_grid(
        x, NM, CLASSES, columns=2, display=Display(0.9, 1.0), path=tmp_path / "grid.png"
    )
    assert "white = reflectance 0.9" in figure.get_suptitle()
    images = shown(figure)
    assert len(images) == 3
    np.testing.assert_allclose(images[1], images[0] / 2, atol=1e-6)
    assert [ax.get_title() for ax in figure.axes[:3]] == list(CLASSES)
    assert (tmp_path / "grid.png").stat().st_size > 1000


def test_abundance_maps_have_a_fixed_scale_and_names() -> None:
    a = torch.zeros(2, 3, 4, 4)
    a[:, 1] = 1
    figure = report.abundance_grid(a, E.names, ("first", "second"))
    maps = [ax for ax in figure.axes if ax.get_images()]
    assert len(maps) == 6
    assert {ax.get_images()[0].get_clim() for ax in maps} == {(0, 1)}
    assert [ax.get_title() for ax in maps[:3]] == list(E.names)
    assert [maps[0].get_ylabel(), maps[3].get_ylabel()] == ["first", "second"]
    with pytest.raises(ShapeError, match=r"a\[None\]"):
        report.abundance_grid(a[0])


def test_spectra_show_mean_and_percentiles_of_pixels() -> None:
    x, _ = real_batch(4)
    figure = report.spectra_plot({"all": x}, NM)
    (line,) = figure.axes[0].get_lines()
    np.testing.assert_allclose(line.get_ydata(), x.mean((0, 2, 3)).numpy(), rtol=1e-5)
    band = figure.axes[0].collections[0].get_paths()[0].vertices
    low, high = (np.quantile(x.movedim(1, -1).reshape(-1, 5).numpy(), q, axis=0) for q in (0.1, 0.9))
    at = band[band[:, 0] == NM[2], 1]
    assert at.min() == pytest.approx(low[2], rel=1e-4)
    assert at.max() == pytest.approx(high[2], rel=1e-4)


def test_endmembers_are_named_and_shade_is_set_apart() -> None:
    lines = report.endmember_plot(E).axes[0].get_lines()
    assert [line.get_label() for line in lines] == list(E.names)
    assert [line.get_linestyle() for line in lines] == ["-", "-", "--"]


def test_curves_stay_open_where_bands_were_taken_out() -> None:
    nm = np.concatenate([np.arange(400, 1300, 10.0), np.arange(1450, 1800, 10.0)])
    at, values = with_gaps(nm, np.ones(len(nm)))
    assert np.isnan(values).sum() == 1
    assert at[np.flatnonzero(np.isnan(values))[0] - 1] == 1290
    assert not np.isnan(with_gaps(np.array(NM), np.ones(5))[1]).any()


def test_sample_sheet_has_a_row_per_class(tmp_path: Path) -> None:
    synth = tiny_synth()
    figure = report.sample_sheet(
        synth, ["Lake", "Field"], per_class=2, seed=3, path=tmp_path / "s.png", dpi=50
    )
    images = shown(figure)
    colour = [im for im in images if im.ndim == 3]
    assert (len(colour), len(images) - len(colour)) == (4, 6)
    assert {"Lake", "Field"} <= {ax.get_ylabel() for ax in figure.axes}
    x = synth.sample(["Lake", "Lake", "Field", "Field"], seed=3)
    rgb = x[:, list(E.rgb_bands)]
    np.testing.assert_allclose(colour, report.pseudo_rgb(rgb, display=Display.of(rgb)), atol=1e-5)
    assert (tmp_path / "s.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(UnknownClassError):
        report.sample_sheet(synth, ["Sea"])


def test_sample_sheet_without_classes() -> None:
    figure = report.sample_sheet(tiny_synth(num_classes=None), per_class=3)
    assert len([im for im in shown(figure) if im.ndim == 3]) == 3


def test_sheet_needs_equal_rows() -> None:
    synth, (x, _) = tiny_synth(), real_batch(3, 8)
    with pytest.raises(ShapeError, match="rows"):
        report.draw_sheet(synth, synth.unmix(x), x, ["one", "two"])


def test_comparison_states_the_errors(tmp_path: Path) -> None:
    x, _ = real_batch(2)
    figure = report.comparison_sheet(x, x + 0.01, NM, ("one", "two"), path=tmp_path / "c.png")
    images = shown(figure)
    np.testing.assert_allclose(images[4], 0.01, atol=1e-4)  # row 3: difference
    assert "RMSE 0.0100" in figure.axes[4].get_xlabel()
    pictures = report.comparison_sheet(x[:, list(E.rgb_bands)], x, NM)
    assert "RMSE 0.0000" in pictures.axes[4].get_xlabel()
    with pytest.raises(ShapeError, match="pairs"):
        report.comparison_sheet(x, x[:1], NM)


def test_sample_shows_the_spectra_of_the_pixels_that_it_marks() -> None:
    x, _ = real_batch(1)
    figure = report.plot_sample(
        {"image": x[0], "label": 2, "prediction": 0}, NM, CLASSES, display=Display(0.9)
    )
    picture, chart = figure.axes
    assert picture.get_title() == f"{CLASSES[2]}\npredicted: {CLASSES[0]}"
    assert picture.get_xlabel() == str(Display(0.9))
    marks = [tuple(int(v[0]) for v in line.get_data()) for line in picture.get_lines()[::2]]
    assert len(set(marks)) == len(chart.get_lines()) == 6
    for (column, row), line in zip(marks, chart.get_lines(), strict=True):
        np.testing.assert_allclose(line.get_ydata(), x[0, :, row, column].numpy(), rtol=1e-6)


def test_synthesizer_and_its_data_set_plot_themselves() -> None:
    synth = tiny_synth()
    figure = synth.plot(per_class=2, seed=1)
    assert [ax.get_ylabel() for ax in figure.axes if ax.get_ylabel() in CLASSES] == list(CLASSES)
    assert len([im for im in shown(figure) if im.ndim == 3]) == 6
    data = SyntheticHSIDataset(synth, 1, seed=0)
    sample = data[2]
    figure = data.plot(sample)
    assert figure.axes[0].get_title() == f"{CLASSES[2]} (synthetic)"
    np.testing.assert_allclose(shown(figure)[0], report.pseudo_rgb(sample["image"][None], NM)[0], atol=1e-6)


def test_figures_show_themselves_in_a_notebook_and_can_be_pickled() -> None:
    figure = report.endmember_plot(E)
    png = figure._repr_png_()  # type: ignore[attr-defined]
    assert png.startswith(b"\x89PNG")
    assert pickle.loads(pickle.dumps(figure))._repr_png_().startswith(b"\x89PNG")
