"""Sensors: the packaged tables, a user's own, and images read with them."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch

from ubf_augment.errors import BandCountError, HSIReadError, NoDataError, RadiometryError, WavelengthError
from ubf_augment.io import read_hsi, write_hsi
from ubf_augment.spectra import Endmembers, Sensor, list_sensors, sensor, spectral_response

BANDS = {
    "arad-1k": 31, "aviris": 224, "chikusei": 128, "desis": 235, "emit": 285, "enmap": 224, "harvard": 31, "hsrs-sc": 48,
    "hyperion": 242, "landsat-8": 7, "prisma": 234, "sentinel-2": 13,
}  # fmt: skip


# ---- the packaged tables


def test_the_packaged_sensors_are_these() -> None:
    assert dict.fromkeys(list_sensors()) == dict.fromkeys(BANDS)
    assert {name: len(sensor(name).wavelengths) for name in BANDS} == BANDS


@pytest.mark.parametrize("name", BANDS)
def test_every_table_says_where_it_is_from_and_holds_physical_numbers(name: str) -> None:
    s = sensor(name)
    assert s.title
    assert s.source
    assert (s.centres.diff() > 0).all()
    assert 350 < float(s.centres[0]) < 450
    assert float(s.centres[-1]) < 2600
    if s.fwhm is not None:
        assert float(s.fwhm.min()) > 2
        assert float(s.fwhm.max()) < 200
    if s.nominal:
        assert "ominal" in s.note


def test_tables_are_part_of_the_package() -> None:
    folder = resources.files("ubf_augment.spectra") / "presets"
    assert {entry.name for entry in folder.iterdir() if entry.name.endswith(".csv")} == {
        f"{n}.csv" for n in BANDS
    }


def test_tables_agree_with_other_sources(UBF_DATA: Path) -> None:
    from scipy.io import loadmat

    stored = loadmat(UBF_DATA / "hsi" / "aviris_wavelengths.mat")["AVIRIS_wavlen"][:, 0]
    assert np.allclose(sensor("aviris").wavelengths, stored, atol=0.006)
    tile = sorted((UBF_DATA / "hsi" / "enmap_potsdam" / "images").glob("*.tif"))[0]
    hsi = read_hsi(
        tile, sensor="enmap"
    )  # its own bad band list has six bands, its own centres are those of the table
    bands = list(hsi.meta["bands"])
    assert set(sensor("enmap").order) < set(bands)
    assert torch.equal(hsi.wavelengths, sensor("enmap").wavelengths[bands])
    assert hsi.meta["fwhm"] == tuple(sensor("enmap").fwhm[bands].tolist())


def test_bad_bands_and_overlaps_are_where_the_instruments_have_them() -> None:
    emit = sensor("emit")
    nm = emit.wavelengths
    wet = ((nm > 1325) & (nm < 1435)) | ((nm > 1770) & (nm < 1962))
    assert torch.equal(wet.nonzero()[:, 0], torch.tensor(emit.bad_bands))
    assert len(emit.centres) == 244
    prisma = sensor("prisma")
    vnir, swir = prisma.wavelengths[:63], prisma.wavelengths[63:]
    for part in (vnir, swir):
        assert (part.diff() > 0).all()
    assert float(swir[0]) < float(vnir[-1]) < float(swir[0]) + 40
    assert (
        prisma.fwhm > 0.7 * torch.cat([vnir.diff(), vnir.diff()[-1:], swir.diff(), swir.diff()[-1:]])
    ).all()


@pytest.mark.slow
def test_tables_agree_with_torchgeo_and_earthlib() -> None:
    pytest.importorskip("earthlib")
    from earthlib.sensors import Landsat8
    from torchgeo.datasets import EnMAP, Sentinel2

    nm = torch.tensor([EnMAP.wavelengths[b] * 1000 for b in EnMAP.all_bands])
    assert float((nm - sensor("enmap").wavelengths).abs().max()) < 0.6  # of another product
    assert sensor("enmap").select(EnMAP.default_bands).bad_bands == ()
    assert len(sensor("enmap").centres) == len(EnMAP.default_bands)
    assert [Sentinel2.wavelengths[b] * 1000 for b in sensor("sentinel-2").bands] == pytest.approx(
        sensor("sentinel-2").wavelengths.tolist()
    )
    visible = sensor("landsat-8").select(["B2", "B3", "B4", "B5", "B6", "B7"])
    assert (1000 * Landsat8.band_centers).tolist() == pytest.approx(visible.wavelengths.tolist(), abs=0.6)
    assert (1000 * Landsat8.band_widths).tolist() == pytest.approx(visible.fwhm.tolist(), abs=0.6)
    assert (visible.scale, visible.offset) == (Landsat8.scale, Landsat8.offset)


def test_names_in_other_spellings() -> None:
    assert sensor("EnMAP") is sensor("enmap")
    assert sensor("Landsat 9") is sensor("landsat_8")
    assert sensor(sensor("emit")) is sensor("emit")
    with pytest.raises(ValueError, match=r"no sensor 'enmpa': there are .*enmap.*CSV"):
        sensor("enmpa")


# ---- choosing bands


def test_order_puts_good_bands_in_order_of_wavelength() -> None:
    s = sensor("enmap")
    assert (s.wavelengths.diff() < 0).sum() == 1  # the two spectrometers overlap
    assert torch.equal(s.wavelengths[list(s.order)], s.centres)
    assert set(s.order) == set(range(224)) - set(s.bad_bands)
    assert torch.equal(s.fwhm[list(s.order)], s.widths)
    assert sensor("chikusei").widths is None


def test_select_and_between() -> None:
    s = sensor("sentinel-2")
    eurosat = s.select(
        ["B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B09", "B10", "B11", "B12", "B8A"]
    )
    assert eurosat.bands[-1] == "B8A"
    assert torch.equal(eurosat.centres, s.wavelengths)
    assert s.select([3, 2]).wavelengths.tolist() == [664.6, 559.8]
    assert len(sensor("chikusei").between(398, 699).wavelengths) == 59  # as in the publication
    assert sensor("hyperion").select(["B1", "B8"]).bad_bands == (0,)
    with pytest.raises(BandCountError, match="no band 'B14'"):
        s.select(["B14"])
    with pytest.raises(BandCountError, match="no band 13"):
        s.select([13])
    with pytest.raises(BandCountError, match=r"no band .* is left"):
        s.between(3000, 4000)


# ---- stored numbers to reflectance


def test_reflectance_scales_sorts_and_drops() -> None:
    s = Sensor(
        "s", torch.tensor([665.0, 490.0, 1400.0, 560.0]), bad_bands=(2,), scale=1e-4, offset=-0.1, nodata=-999
    )
    stored = torch.tensor([4000, 2000, -999, 3000], dtype=torch.int16).view(1, 4, 1, 1).expand(2, 4, 3, 3)
    out = s.reflectance(stored)
    assert out.dtype == torch.float32
    assert out.shape == (2, 3, 3, 3)
    assert out[1, :, 2, 2].tolist() == pytest.approx([0.1, 0.2, 0.3])
    sample = s({"image": stored[0], "label": 3})
    assert list(sample) == ["image", "label"]
    assert torch.equal(sample["image"], out[0])
    assert stored.dtype == torch.int16


def test_reflectance_refuses_what_it_cannot_know() -> None:
    s = Sensor("s", torch.tensor([490.0, 560.0]), scale=1e-4, nodata=-999)
    holed = torch.full((2, 2, 2), 3000.0)
    holed[1, 0, 0], holed[0, 1, 1] = -999, float("nan")
    with pytest.raises(NoDataError, match="2 pixels"):
        s.reflectance(holed)
    with pytest.raises(BandCountError, match=r"3 bands, sensor 's' 2.*select"):
        s.reflectance(torch.zeros(3, 2, 2))
    bare = Sensor("bare", torch.tensor([490.0, 560.0]))
    with pytest.raises(RadiometryError, match="no scale"):
        bare.reflectance(torch.zeros(2, 2, 2, dtype=torch.int16))
    with pytest.raises(RadiometryError, match="median of 3000"):
        bare.reflectance(torch.full((2, 2, 2), 3000.0))
    assert torch.equal(bare.reflectance(torch.full((2, 2, 2), 0.3)), torch.full((2, 2, 2), 0.3))


# ---- a user's own


def table(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "mine.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_csv_of_every_column(tmp_path: Path) -> None:
    text = "# a camera\n# scale: 1/4000\n# nodata: 0\n# source: the maker: 2020\nBand;Wavelength;FWHM;bad\n"
    text += "r;665;30;0\n\ng;560;35;\n"
    with pytest.raises(WavelengthError, match=r"line 8 of .*mine\.csv, column bad: '' is no number"):
        sensor(table(tmp_path, text))
    s = sensor(table(tmp_path, text.replace("35;", "35;1")))
    assert (s.name, s.scale, s.nodata, s.source) == ("mine", 1 / 4000, 0, "the maker: 2020")
    assert s.bands == ("r", "g")
    assert s.bad_bands == (1,)
    assert s.wavelengths.tolist() == [665, 560]
    assert s.fwhm.tolist() == [30, 35]
    assert sensor(str(tmp_path / "mine.csv")).bands == s.bands


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("", WavelengthError, "holds no bands"),
        ("490\n560\n", WavelengthError, "no column 'wavelength'.*line 1.*'490'"),
        ("wavelength\n", WavelengthError, "band centres"),
        (
            "wavelength,fwhm\n490\n",
            WavelengthError,
            "line 2 .* has 1 cells, the columns are wavelength, fwhm",
        ),
        ("wavelength\nblue\n", WavelengthError, "line 2 .*column wavelength: 'blue' is no number"),
        ("# scale: many\nwavelength\n490\n", WavelengthError, "# scale: of mine: 'many'"),
        ("wavelength\n0.49\n0.56\n", WavelengthError, "µm, multiply by 1000"),
        ("wavelength\n490\n490\n", WavelengthError, "not ascending"),
        ("wavelength,fwhm\n490,-3\n", WavelengthError, "positive number of nm"),
        ("# scale: -1\nwavelength\n490\n", RadiometryError, "positive"),
        ("wavelength\nnan\n", WavelengthError, "'nan' is no number"),
    ],
)
def test_csv_that_cannot_be_used(tmp_path: Path, text: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        sensor(table(tmp_path, text))


def test_csv_that_is_not_there_or_no_text(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.csv"):
        sensor("nowhere.csv")
    (tmp_path / "a.csv").write_bytes(bytes(range(256)))
    with pytest.raises(HSIReadError, match="not a text file"):
        Sensor.from_csv(tmp_path / "a.csv")


# ---- endmembers


def test_resample_is_the_gaussian_response_of_the_good_bands() -> None:
    nm = torch.arange(350.0, 2550.0, 2.0)
    e = Endmembers(torch.rand(4, len(nm), generator=torch.Generator().manual_seed(0)), nm)
    for name in ("sentinel-2", "enmap", "hyperion", "prisma"):
        s = sensor(name)
        seen = e.resample(name)
        assert torch.equal(seen.wavelengths, s.centres)
        expected = e.spectra @ spectral_response(nm, s.centres, s.widths).T
        torch.testing.assert_close(seen.spectra, expected)
    assert torch.equal(e.resample(sensor("sentinel-2")).fwhm, sensor("sentinel-2").fwhm)
    ramp = Endmembers(nm[None] / 2550, nm)  # a Gaussian keeps a straight line
    torch.testing.assert_close(
        ramp.resample("sentinel-2").spectra[0], (sensor("sentinel-2").centres / 2550).float()
    )
    with pytest.raises(ValueError, match="widths of its own"):
        e.resample("enmap", fwhm=5.0)
    visible = Endmembers(torch.rand(2, 31), torch.arange(400.0, 701.0, 10.0))
    with pytest.raises(WavelengthError, match="outside the source range"):
        visible.resample("enmap")
    assert visible.resample(sensor("enmap").between(400, 700)).num_bands == 53


# ---- files


def test_read_hsi_fills_in_what_the_file_does_not_say(tmp_path: Path) -> None:
    s = sensor("hsrs-sc")
    stored = np.full((4, 5, 48), 1000, np.uint16)
    np.save(tmp_path / "a.npy", stored)
    hsi = read_hsi(tmp_path / "a.npy", sensor="hsrs-sc")
    assert torch.equal(hsi.wavelengths, s.centres)
    assert hsi.image.unique().item() == 0.25
    assert hsi.meta["sensor"] == "hsrs-sc"
    assert read_hsi(tmp_path / "a.npy", sensor=s, scale=1 / 2000).image.unique().item() == 0.5
    np.save(tmp_path / "b.npy", stored.astype(np.float32) / 4000)
    assert read_hsi(tmp_path / "b.npy", sensor=s).image.unique().item() == 0.25  # floats are reflectance
    with pytest.raises(BandCountError, match=r"48 bands, sensor 'enmap' 224.*between"):
        read_hsi(tmp_path / "a.npy", sensor="enmap")


def test_read_hsi_prefers_the_file_to_the_sensor(tmp_path: Path) -> None:
    nm = sensor("landsat-8").wavelengths + 0.5
    write_hsi(tmp_path / "a.tif", torch.full((7, 2, 2), 0.4), nm)
    hsi = read_hsi(tmp_path / "a.tif", sensor="landsat-8")
    assert torch.equal(hsi.wavelengths, nm)
    assert hsi.meta["fwhm"] == tuple(sensor("landsat-8").fwhm.tolist())
    assert hsi.image.unique().item() == pytest.approx(0.4)


def test_read_hsi_sorts_drops_and_masks_with_a_sensor(tmp_path: Path) -> None:
    s = sensor("enmap")
    stored = np.full((3, 3, 224), 2000, np.int16)
    stored[..., list(s.bad_bands)] = -32768  # as in the products
    stored[0, 0, 5] = -32768
    np.save(tmp_path / "a.npy", stored)
    with pytest.raises(NoDataError, match="1 of 9 pixels"):
        read_hsi(tmp_path / "a.npy", sensor="enmap")
    hsi = read_hsi(tmp_path / "a.npy", sensor="enmap", on_nodata="mask")
    assert hsi.meta["bands"] == s.order
    assert hsi.image[:, hsi.mask].unique().item() == pytest.approx(0.2)
    landsat = np.full((2, 2, 7), 10_000, np.uint16)
    np.save(tmp_path / "b.npy", landsat)
    assert read_hsi(tmp_path / "b.npy", sensor="landsat-9").image.unique().item() == pytest.approx(0.075)
