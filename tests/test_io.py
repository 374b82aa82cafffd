"""Reading and writing images: exact round trips, the metadata dialects in use, bad input, and real files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ubf_augment import errors
from ubf_augment.io import HSI, list_hsi, read_hsi, write_hsi
from ubf_augment.io.headers import numbers
from ubf_augment.io.tiff import needed_bytes

NM = [490.0, 560.0, 665.0]
pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
UTM = (10.00570688714736, 0.0, 624602.2348443292, 0.0, -9.994088099999352, 4877286.033637)


def cube(bands: int = 3, height: int = 4, width: int = 5, seed: int = 0) -> Tensor:
    """A made image in [0, 1]."""
    return torch.rand(bands, height, width, generator=torch.Generator().manual_seed(seed))


def write_tif(
    path: Path, values: np.ndarray, tags: list[dict[str, Any]] | None = None, **profile: Any
) -> Path:
    """A GeoTIFF as somebody else might write it; ``tags`` are per band, with ns and description set apart."""
    rasterio = pytest.importorskip("rasterio")
    scales, shared = profile.pop("scales", None), profile.pop("shared", {})
    count, height, width = values.shape
    size = {"count": count, "height": height, "width": width, "dtype": values.dtype.name}
    with rasterio.open(path, "w", driver="GTiff", **size, **profile) as dataset:
        dataset.write(values)
        dataset.update_tags(**shared)
        if scales:
            dataset.scales = scales
        for band, items in enumerate(tags or [], 1):
            items = dict(items)
            if "description" in items:
                dataset.set_band_description(band, items.pop("description"))
            dataset.update_tags(band, **items)
    return path


def write_envi(path: Path, values: np.ndarray, **header: Any) -> Path:
    """An ENVI pair written by hand, band sequential."""
    codes = {"uint8": 1, "int16": 2, "float32": 4, "uint16": 12}
    count, height, width = values.shape
    lines = {
        "samples": width,
        "lines": height,
        "bands": count,
        "header offset": 0,
        "file type": "ENVI Standard",
        "data type": codes[values.dtype.name],
        "interleave": "bsq",
        "byte order": 0,
    } | header
    path.with_suffix(".hdr").write_text("ENVI\n" + "".join(f"{k} = {v}\n" for k, v in lines.items()))
    values.tofile(path)
    return path


# ---------------------------------------------------------------- round trips


@pytest.mark.parametrize("ending", ["tif", "tiff", "img", "hdr", "dat", "bil", "bip"])
def test_round_trip_is_exact(tmp_path: Path, ending: str) -> None:
    nm = torch.tensor([490.123456789012345, 560 / 1.0000001, 665 + 1 / 3], dtype=torch.float64)
    names = ["blue", "green", "red"]
    x = cube() - 0.1  # negatives occur in reflectance and must survive
    file = write_hsi(tmp_path / f"a.{ending}", x, nm, names=names, fwhm=[5, 6, 7.1])
    hsi = read_hsi(file)
    assert torch.equal(hsi.image, x)
    assert hsi.image.dtype == torch.float32
    assert torch.equal(hsi.wavelengths, nm)
    assert hsi.wavelengths.dtype == torch.float64
    assert hsi.meta["names"] == tuple(names)
    assert hsi.meta["fwhm"] == (5.0, 6.0, 7.1)
    assert hsi.meta["bands"] == (0, 1, 2)
    assert hsi.meta["transform"] is None
    assert hsi.meta["crs"] is None
    assert bool(hsi.mask.all())


def test_round_trip_keeps_the_place_on_earth(tmp_path: Path) -> None:
    crs = pytest.importorskip("rasterio").crs.CRS
    rotated = (8.0, 3.0, 624602.25, 3.0, -8.0, 4877286.1)
    for transform in (UTM, rotated):
        hsi = read_hsi(write_hsi(tmp_path / "a.tif", cube(), NM, crs="EPSG:32635", transform=transform))
        assert hsi.meta["transform"] == transform
        assert crs.from_wkt(hsi.meta["crs"]) == crs.from_epsg(32635)
    again = write_hsi(
        tmp_path / "b.tif", hsi.image, hsi.wavelengths, crs=hsi.meta["crs"], transform=hsi.meta["transform"]
    )
    assert read_hsi(again).meta["transform"] == rotated


def test_envi_keeps_the_place_to_15_digits_and_refuses_rotation(tmp_path: Path) -> None:
    hsi = read_hsi(write_hsi(tmp_path / "a.img", cube(), NM, crs="EPSG:32635", transform=UTM))
    assert hsi.meta["transform"] == pytest.approx(UTM, rel=1e-14)
    with pytest.raises(ValueError, match="rotated"):
        write_hsi(tmp_path / "b.img", cube(), NM, transform=(8.0, 3.0, 0.0, 3.0, -8.0, 0.0))


@given(
    st.lists(st.floats(350, 2500), min_size=1, max_size=6, unique=True).map(sorted),
    st.sampled_from(["tif", "img"]),
    st.integers(0, 1000),
)
@settings(deadline=None, max_examples=20)
def test_round_trip_of_any_wavelengths(
    tmp_path_factory: pytest.TempPathFactory, nm: list[float], ending: str, seed: int
) -> None:
    x = cube(len(nm), 2, 3, seed)
    hsi = read_hsi(write_hsi(tmp_path_factory.mktemp("any") / f"a.{ending}", x, nm))
    assert hsi.wavelengths.tolist() == nm
    assert torch.equal(hsi.image, x)


@pytest.mark.parametrize("ending", ["tif", "img"])
def test_integers_with_a_scale_round_to_half_a_step(tmp_path: Path, ending: str) -> None:
    x = cube() - 0.1
    hsi = read_hsi(write_hsi(tmp_path / f"a.{ending}", x, NM, scale=1e-4))
    assert hsi.meta["dtype"] == "int16"
    assert (hsi.image - x).abs().max().item() <= 0.5e-4 + 1e-7


@pytest.mark.parametrize("ending", ["tif", "img"])
@pytest.mark.parametrize("scale", [None, 1e-4])
def test_masked_pixels_stay_masked(tmp_path: Path, ending: str, scale: float | None) -> None:
    x, mask = cube(), torch.ones(4, 5, dtype=torch.bool)
    mask[1, 2] = mask[3, 0] = False
    x[:, 1, 2] = float("nan")
    file = write_hsi(tmp_path / f"a.{ending}", x, NM, mask=mask, scale=scale)
    with pytest.raises(errors.NoDataError, match=r"2 of 20 pixels .* row 1, column 2.*on_nodata"):
        read_hsi(file)
    hsi = read_hsi(file, on_nodata="mask")
    assert torch.equal(hsi.mask, mask)
    assert torch.equal(hsi.image[:, ~mask], torch.zeros(3, 2))
    assert torch.allclose(hsi.pixels, x[:, mask].T, atol=0.51e-4 if scale else 0)


def test_writing_replaces_at_once_and_leaves_nothing_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_hsi(tmp_path / "new" / "a.tif", cube(seed=1), NM)

    def crash(*_: Any) -> None:
        raise RuntimeError("the disk went away")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", crash)
        with pytest.raises(RuntimeError, match="disk"):
            write_hsi(file, cube(seed=2), NM)
    assert torch.equal(read_hsi(file).image, cube(seed=1))
    write_hsi(file, cube(seed=2), NM)
    assert torch.equal(read_hsi(file).image, cube(seed=2))
    assert os.listdir(file.parent) == ["a.tif"]


def test_envi_writes_a_pair_and_names_no_temporary_path(tmp_path: Path) -> None:
    write_hsi(tmp_path / "a.hdr", cube(), NM)
    assert sorted(os.listdir(tmp_path)) == ["a.hdr", "a.img"]
    assert str(tmp_path) not in (tmp_path / "a.hdr").read_text()


def test_stale_sidecar_of_an_older_file_goes(tmp_path: Path) -> None:
    (tmp_path / "a.tif.aux.xml").write_text(
        '<PAMDataset><PAMRasterBand band="1"><Scale>0.5</Scale></PAMRasterBand></PAMDataset>'
    )
    write_hsi(tmp_path / "a.tif", cube(), NM)
    assert torch.equal(read_hsi(tmp_path / "a.tif").image, cube())


# ---------------------------------------------------------------- wavelength dialects

VALUES = cube().numpy()
DIALECTS = {
    "lower case": ([{"wavelength": str(v), "wavelength_units": "Nanometers"} for v in NM], {}),
    "upper case": ([{"WAVELENGTH": str(v), "WAVELENGTH_UNITS": "nm"} for v in NM], {}),
    "micrometres": ([{"wavelength": str(v / 1000), "wavelength_units": "Micrometers"} for v in NM], {}),
    "µm": ([{"wavelength": str(v / 1000), "wavelength_unit": "µm"} for v in NM], {}),
    "unit in the value": ([{"wavelength": f"{v} nm"} for v in NM], {}),
    "unit in the key": ([{"wavelength_um": str(v / 1000)} for v in NM], {}),
    "no unit": ([{"center_wavelength": str(v)} for v in NM], {}),
    "common unit": (
        [{"wavelength": str(v / 1000)} for v in NM],
        {"wavelength_units": "Micrometers"},
    ),
    "list of the data set": (None, {"wavelengths": "{490.0, 560, 665}", "wavelength_units": "nm"}),
    "IMAGERY": ([{"ns": "IMAGERY", "CENTRAL_WAVELENGTH_UM": str(v / 1000)} for v in NM], {}),
    "description in nm": ([{"description": f"{v:g} nm"} for v in NM], {}),
    "description in µm": ([{"description": f"B{i} ({v / 1000} Micrometers)"} for i, v in enumerate(NM)], {}),
    "description with a number": (
        [{"description": f"band {i} ({v} Nanometers)"} for i, v in enumerate(NM, 1)],
        {},
    ),
}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_wavelengths_in_every_dialect(tmp_path: Path, dialect: str) -> None:
    tags, shared = DIALECTS[dialect]
    file = write_tif(tmp_path / "a.tif", VALUES, tags, shared=shared)
    assert read_hsi(file).wavelengths.tolist() == NM


def test_widths_come_with_the_unit_of_the_wavelengths(tmp_path: Path) -> None:
    tags = [{"wavelength": v / 1000, "wavelength_units": "um", "fwhm": "0.01"} for v in NM]
    assert read_hsi(write_tif(tmp_path / "a.tif", VALUES, tags)).meta["fwhm"] == (10.0, 10.0, 10.0)
    tags = [{"ns": "IMAGERY", "CENTRAL_WAVELENGTH_UM": v / 1000, "FWHM_UM": "0.0125"} for v in NM]
    assert read_hsi(write_tif(tmp_path / "b.tif", VALUES, tags)).meta["fwhm"] == (12.5, 12.5, 12.5)


def test_envi_header(tmp_path: Path) -> None:
    values = (VALUES * 10000).astype(np.uint16)
    file = write_envi(
        tmp_path / "a.dat",
        values,
        **{
            "wavelength": "{0.49,\n 0.56, 0.665}",
            "wavelength units": "Micrometers",
            "fwhm": "{0.01, 0.02, 0.03}",
            "reflectance scale factor": "10000",
            "bbl": "{1, 0, 1}",
        },
    )
    for path in (file, file.with_suffix(".hdr")):
        hsi = read_hsi(path)
        assert hsi.wavelengths.tolist() == NM
        assert hsi.meta["fwhm"] == (10.0, 20.0, 30.0)
        assert torch.equal(hsi.image, torch.from_numpy((values / 10000).astype(np.float32)))
    good = read_hsi(file, drop_bands="bad")
    assert good.wavelengths.tolist() == [490.0, 665.0]
    assert good.meta["bands"] == (0, 2)


def test_envi_header_beside_a_file_with_its_full_name(tmp_path: Path) -> None:
    write_envi(tmp_path / "a.img", VALUES, wavelength="{490, 560, 665}")
    (tmp_path / "a.hdr").rename(tmp_path / "a.img.hdr")
    assert torch.equal(read_hsi(tmp_path / "a.img.hdr").image, cube())


def test_envi_gain_and_ignore_value(tmp_path: Path) -> None:
    values = np.full((3, 2, 2), 5000, np.int16)
    values[0, 1, 1] = -999
    header = {"data gain values": "{0.0001, 0.0001, 0.0002}", "data ignore value": -999}
    file = write_envi(tmp_path / "a.img", values, wavelength="{490, 560, 665}", **header)
    hsi = read_hsi(file, on_nodata="mask")
    assert hsi.image[:, 0, 0].tolist() == pytest.approx([0.5, 0.5, 1.0])
    assert hsi.mask.tolist() == [[True, True], [True, False]]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{0.4, 5e2}", ["0.4", "5e2"]),
        ("[1 2.5]", ["1", "2.5"]),
        (".5;-1", [".5", "-1"]),
        ("{}", []),
        (None, []),
    ],
)
def test_lists_of_numbers(text: str | None, expected: list[str]) -> None:
    assert numbers(text) == expected


# ---------------------------------------------------------------- scale, nodata, bands


def test_scale_from_the_argument_wins_over_the_file(tmp_path: Path) -> None:
    values = np.full((1, 2, 2), 5000, np.uint16)
    file = write_tif(tmp_path / "a.tif", values, [{"wavelength": 560}], scales=[1e-4])
    assert read_hsi(file).image.unique().item() == pytest.approx(0.5)
    assert read_hsi(file, scale=1 / 50000).image.unique().item() == pytest.approx(0.1)


def test_float_file_with_a_band_scale(tmp_path: Path) -> None:
    values = np.full((1, 2, 2), 5000, np.float32)
    file = write_tif(tmp_path / "a.tif", values, [{"wavelength": 560}], scales=[1e-4])
    assert read_hsi(file).image.unique().item() == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("dtype", "missing", "kwargs", "argument"),
    [
        ("float32", -32768.0, {"nodata": -32768.0}, None),
        ("float32", -3.4028234663852886e38, {"nodata": -3.4028234663852886e38}, None),
        ("float32", np.nan, {}, None),
        ("float32", np.inf, {}, None),
        ("float32", -1.0, {}, -1.0),
        ("uint16", 0, {"nodata": 0}, None),
        ("uint16", 65535, {}, 65535.0),
    ],
)
def test_missing_data(
    tmp_path: Path, dtype: str, missing: float, kwargs: dict[str, float], argument: float | None
) -> None:
    values = np.ones((3, 4, 5), dtype)
    values[1, 2, 3] = missing
    tags = [{"wavelength": v} for v in NM]
    file = write_tif(tmp_path / "a.tif", values, tags, **kwargs)
    scale = 1e-4 if dtype == "uint16" else None
    with pytest.raises(errors.NoDataError, match="1 of 20 pixels"):
        read_hsi(file, nodata=argument, scale=scale)
    hsi = read_hsi(file, nodata=argument, scale=scale, on_nodata="mask")
    assert (~hsi.mask).nonzero().tolist() == [[2, 3]]
    assert hsi.image[:, 2, 3].tolist() == [0, 0, 0]
    clean = read_hsi(file, nodata=argument, scale=scale, drop_bands=[1])  # the fault is in a band left out
    assert bool(clean.mask.all())
    assert clean.wavelengths.tolist() == [490.0, 665.0]


def test_mask_inside_the_file(tmp_path: Path) -> None:
    rasterio = pytest.importorskip("rasterio")
    file = write_tif(tmp_path / "a.tif", VALUES, [{"wavelength": v} for v in NM])
    inside = np.full((4, 5), 255, np.uint8)
    inside[0, 4] = 0
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(file, "r+") as dataset:
        dataset.write_mask(inside)
    assert (~read_hsi(file, on_nodata="mask").mask).nonzero().tolist() == [[0, 4]]


def test_a_band_without_any_data_is_named(tmp_path: Path) -> None:
    values = np.ones((3, 2, 2), np.float32)
    values[1] = np.nan
    file = write_tif(tmp_path / "a.tif", values, [{"wavelength": v} for v in NM])
    for on_nodata in ("raise", "mask"):
        with pytest.raises(errors.NoDataError, match=r"drop_bands=\[1\]"):
            read_hsi(file, on_nodata=on_nodata)  # type: ignore[arg-type]


def test_unsorted_bands_are_refused_or_sorted_with_their_names(tmp_path: Path) -> None:
    tags = [
        {"wavelength": v, "description": n, "fwhm": f}
        for v, n, f in ((665, "r", 3), (490, "b", 1), (560, "g", 2))
    ]
    file = write_tif(tmp_path / "a.tif", VALUES, tags)
    with pytest.raises(errors.WavelengthError, match=r"a\.tif.*sort_bands=True"):
        read_hsi(file)
    hsi = read_hsi(file, sort_bands=True)
    assert hsi.wavelengths.tolist() == NM
    assert hsi.meta["bands"] == (1, 2, 0)
    assert hsi.meta["names"] == ("b", "g", "r")
    assert hsi.meta["fwhm"] == (1.0, 2.0, 3.0)
    assert torch.equal(hsi.image, cube()[[1, 2, 0]])


def test_two_bands_at_one_wavelength_cannot_be_sorted(tmp_path: Path) -> None:
    file = write_tif(tmp_path / "a.tif", VALUES, [{"wavelength": v} for v in (490, 560, 560)])
    with pytest.raises(errors.WavelengthError, match="ascending"):
        read_hsi(file, sort_bands=True)


# ---------------------------------------------------------------- MATLAB and NumPy


def savemat(path: Path, **arrays: Any) -> Path:
    pytest.importorskip("scipy.io").savemat(path, arrays)
    return path


def save73(path: Path, **arrays: np.ndarray) -> Path:
    """MATLAB v7.3: HDF5 with reversed axes behind a user block with the MATLAB header."""
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, array in arrays.items():
            file[name] = np.asarray(array).transpose()
        file.create_group("#refs#")["x"] = np.zeros((2, 2, 2))
    with open(path, "r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file".ljust(116) + b"\0" * 8 + b"\x00\x02IM")
    return path


HWC = cube().permute(1, 2, 0).numpy()


@pytest.mark.parametrize("save", [savemat, save73])
@pytest.mark.parametrize(
    ("layout", "array", "size"),
    [
        ("hwc", HWC, None),
        ("chw", HWC.transpose(2, 0, 1), None),
        ("cwh", HWC.transpose(2, 1, 0), None),
        ("c(wh)", HWC.reshape(-1, 3, order="F").T, (4, 5)),
        ("c (h w)", HWC.reshape(-1, 3).T, (4, 5)),
        ("(wh)c", HWC.reshape(-1, 3, order="F"), (4, 5)),
        ("(hw)c", HWC.reshape(-1, 3), (4, 5)),
    ],
)
def test_layouts(
    tmp_path: Path, save: Any, layout: str, array: np.ndarray, size: tuple[int, int] | None
) -> None:
    file = save(tmp_path / "a.mat", Y=array, wavelengths=np.array(NM))
    assert torch.equal(read_hsi(file, key="Y", layout=layout, size=size).image, cube())


@pytest.mark.parametrize("save", [savemat, save73])
def test_the_only_cube_is_found_and_its_wavelengths_too(tmp_path: Path, save: Any) -> None:
    file = save(tmp_path / "a.mat", cube=HWC, Wavelength=np.array(NM)[:, None], gt=np.zeros((4, 5)))
    hsi = read_hsi(file)
    assert torch.equal(hsi.image, cube())
    assert hsi.wavelengths.tolist() == NM
    assert hsi.meta["key"] == "cube"


@pytest.mark.parametrize("save", [savemat, save73])
def test_choice_between_several_cubes_is_left_to_the_caller(tmp_path: Path, save: Any) -> None:
    file = save(tmp_path / "a.mat", Y=HWC, RGB=HWC[..., :3])
    with pytest.raises(errors.HSIReadError, match=r"'RGB' 4×5×3, 'Y' 4×5×3|'Y' 4×5×3, 'RGB' 4×5×3"):
        read_hsi(file, wavelengths=NM)
    with pytest.raises(errors.HSIReadError, match=r"no numeric array 'Z'.*'Y' 4×5×3"):
        read_hsi(file, key="Z", wavelengths=NM)
    assert torch.equal(read_hsi(file, key="Y", wavelengths=NM).image, cube())


def test_wavelengths_by_name(tmp_path: Path) -> None:
    file = savemat(tmp_path / "a.mat", Y=HWC, centres=np.array(NM), few=np.array(NM[:2]))
    assert read_hsi(file, key="Y", wavelengths="centres").wavelengths.tolist() == NM
    with pytest.raises(errors.HSIReadError, match="'nm' for the wavelengths"):
        read_hsi(file, key="Y", wavelengths="nm")
    with pytest.raises(errors.BandCountError, match="2 wavelengths"):
        read_hsi(file, key="Y", wavelengths="few")
    with pytest.raises(errors.WavelengthError, match="missing"):
        read_hsi(file, key="Y")


def test_numpy_files(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", HWC)
    np.savez(tmp_path / "a.npz", x=HWC, wavelengths=NM)
    assert torch.equal(read_hsi(tmp_path / "a.npy", wavelengths=NM).image, cube())
    assert torch.equal(read_hsi(tmp_path / "a.npz").image, cube())


def test_bad_layouts(tmp_path: Path) -> None:
    file = savemat(tmp_path / "a.mat", Y=HWC.reshape(-1, 3).T)
    with pytest.raises(errors.ShapeError, match=r"c\(wh\)"):
        read_hsi(file, wavelengths=NM)
    with pytest.raises(ValueError, match="size="):
        read_hsi(file, wavelengths=NM, layout="c(wh)")
    with pytest.raises(errors.ShapeError, match="20 pixels, which is not 4 × 6"):
        read_hsi(file, wavelengths=NM, layout="c(wh)", size=(4, 6))
    for layout in ("hwx", "hhc", "c(hwc)", "hw", "h(wc)"):
        with pytest.raises(ValueError, match="not understood"):
            read_hsi(file, wavelengths=NM, layout=layout)


# ---------------------------------------------------------------- bad input


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no file"):
        read_hsi(tmp_path / "a.tif")
    with pytest.raises(FileNotFoundError, match="nor its folder"):
        read_hsi(tmp_path / "b" / "a.tif")
    with pytest.raises(FileNotFoundError, match="no folder"):
        list_hsi(tmp_path / "b")
    with pytest.raises(errors.HSIReadError, match="is a folder"):
        read_hsi(tmp_path)


def test_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(errors.HSIReadError, match=r"no hyperspectral image .*\.tif"):
        list_hsi(tmp_path)


def test_folder_listing(tmp_path: Path) -> None:
    for name in ("b.tif", "a.img", "sub/c.mat"):
        if name.endswith("mat"):
            (tmp_path / "sub").mkdir()
            savemat(tmp_path / name, Y=HWC)
        else:
            write_hsi(tmp_path / name, cube(), NM)
    assert [f.name for f in list_hsi(tmp_path)] == ["a.hdr", "b.tif"]
    assert [f.name for f in list_hsi(tmp_path, recursive=True)] == ["a.hdr", "b.tif", "c.mat"]


@pytest.mark.parametrize("ending", ["tif", "img", "mat", "7.mat", "npy", "npz"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.6])
def test_truncated_files(tmp_path: Path, ending: str, share: float) -> None:
    file, big = tmp_path / f"a.{ending}", cube(30, 32, 32)
    nm = torch.linspace(400, 900, 30)
    hwc = big.permute(1, 2, 0).numpy()
    if ending in ("tif", "img"):
        write_hsi(file, big, nm)
    elif ending == "mat":
        savemat(file, Y=hwc)
    elif ending == "7.mat":
        save73(file, Y=hwc)
    elif ending == "npy":
        np.save(file, hwc)
    else:
        np.savez(file, Y=hwc)
    os.truncate(file, int(file.stat().st_size * share))
    with pytest.raises(errors.HSIReadError, match=rf"a\.{ending}.*(truncated|download)"):
        read_hsi(file, wavelengths=nm)


@pytest.mark.parametrize("options", [{}, {"BIGTIFF": "YES"}, {"ENDIANNESS": "BIG"}, {"compress": "deflate"}])
def test_a_tiff_cut_anywhere_is_truncated(tmp_path: Path, options: dict[str, str]) -> None:
    tags = [{"wavelength": v, "wavelength_units": "nm"} for v in NM]
    file = write_tif(tmp_path / "a.tif", VALUES, tags, **options)
    whole = file.read_bytes()
    assert 0 < needed_bytes(file) <= len(whole)
    assert read_hsi(file).wavelengths.tolist() == list(NM)
    for size in {*range(0, len(whole), 41), *range(len(whole) - 12, len(whole))}:
        file.write_bytes(whole[:size])
        with pytest.raises(errors.HSIReadError, match=r"a\.tif.*(truncated|download)"):
            read_hsi(file)
    file.write_bytes(whole + b"more")
    assert read_hsi(file).wavelengths.tolist() == list(NM)


def test_what_is_no_tiff_needs_no_bytes(tmp_path: Path) -> None:
    for content in (b"", b"II", b"II*\0", b"MM\0+\0\0", b"PNG and more than sixteen bytes"):
        (tmp_path / "a").write_bytes(content)
        assert needed_bytes(tmp_path / "a") == 0


def test_an_envi_header_cut_inside_a_list_is_truncated(tmp_path: Path) -> None:
    file = write_hsi(tmp_path / "a.img", cube(), NM)
    header = file.with_suffix(".hdr")
    text = header.read_text()
    end = text.index("}", text.index("wavelength ="))
    header.write_text(text[: end - 2])
    with pytest.raises(errors.HSIReadError, match=r"a\.hdr is truncated: a list .* has no end"):
        read_hsi(file)


@pytest.mark.parametrize("ending", ["tif", "hdr", "mat", "npy", "npz"])
def test_files_that_are_something_else(tmp_path: Path, ending: str) -> None:
    file = tmp_path / f"a.{ending}"
    file.write_bytes(b"this is no image at all " * 20)
    with pytest.raises(errors.HSIReadError, match=r"damaged|no data file"):
        read_hsi(file)


def test_pickles_are_not_opened(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([{"x": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(errors.HSIReadError, match="allow_pickle"):
        read_hsi(tmp_path / "a.npy", wavelengths=NM)


def test_integers_without_a_scale(tmp_path: Path) -> None:
    file = write_tif(tmp_path / "a.tif", np.full((3, 2, 2), 5000, np.uint16), [{"wavelength": v} for v in NM])
    with pytest.raises(
        errors.RadiometryError, match=r"a\.tif holds integers \(uint16, up to 5000\).*scale=1/10000"
    ):
        read_hsi(file)
    np.save(tmp_path / "a.npy", np.full((2, 2, 3), 7, np.uint8))
    with pytest.raises(errors.RadiometryError, match="uint8"):
        read_hsi(tmp_path / "a.npy", wavelengths=NM)


def test_implausible_scales(tmp_path: Path) -> None:
    values = np.full((3, 2, 2), 5000, np.float32)
    file = write_tif(tmp_path / "a.tif", values, [{"wavelength": v} for v in NM])
    with pytest.raises(errors.RadiometryError, match="does not look like reflectance"):
        read_hsi(file)
    with pytest.raises(errors.RadiometryError, match="scale=1/10000"):
        read_hsi(file, scale=10000)
    for scale in (0.0, -1.0, float("nan")):
        with pytest.raises(errors.RadiometryError, match="positive"):
            read_hsi(file, scale=scale)
    assert read_hsi(file, scale=1.0).image.unique().item() == 5000


def test_bad_wavelengths(tmp_path: Path) -> None:
    file = write_tif(tmp_path / "a.tif", VALUES)
    with pytest.raises(errors.WavelengthError, match=r"a\.tif are missing.*wavelengths="):
        read_hsi(file)
    with pytest.raises(errors.BandCountError, match="2 wavelengths for the 3 bands"):
        read_hsi(file, wavelengths=NM[:2])
    with pytest.raises(errors.WavelengthError, match="µm"):
        read_hsi(file, wavelengths=[0.49, 0.56, 0.665])
    with pytest.raises(errors.WavelengthError, match="sort_bands"):
        read_hsi(file, wavelengths=NM[::-1])
    with pytest.raises(ValueError, match="named variables"):
        read_hsi(file, wavelengths="nm")
    with pytest.raises(ValueError, match="named variables"):
        read_hsi(file, key="Y")


def test_wavelengths_of_some_bands_alone(tmp_path: Path) -> None:
    file = write_tif(tmp_path / "a.tif", VALUES, [{"wavelength": 490}, {}, {"wavelength": 665}])
    with pytest.raises(errors.WavelengthError, match=r"bands \[1\] .*drop_bands"):
        read_hsi(file)
    assert read_hsi(file, drop_bands=[1]).wavelengths.tolist() == [490.0, 665.0]


@pytest.mark.parametrize(("unit", "value"), [("Wavenumber", "20000"), ("GHz", "600000"), ("nm", "green")])
def test_wavelengths_that_are_none(tmp_path: Path, unit: str, value: str) -> None:
    tags = [{"wavelength": value, "wavelength_units": unit} for _ in NM]
    with pytest.raises(errors.WavelengthError, match=r"not understood|not a number"):
        read_hsi(write_tif(tmp_path / "a.tif", VALUES, tags))


def test_band_numbers_are_no_wavelengths(tmp_path: Path) -> None:
    file = write_envi(tmp_path / "a.img", VALUES, **{"wavelength": "{1, 2, 3}", "wavelength units": "Index"})
    with pytest.raises(errors.WavelengthError, match="missing"):
        read_hsi(file)


def test_bad_drop_bands(tmp_path: Path) -> None:
    file = write_hsi(tmp_path / "a.tif", cube(), NM)
    with pytest.raises(errors.BandCountError, match=r"bands \[-1, 3\].*0 to 2"):
        read_hsi(file, drop_bands=[3, 1, -1])
    with pytest.raises(errors.BandCountError, match="no bad band list"):
        read_hsi(file, drop_bands="bad")
    with pytest.raises(errors.BandCountError, match="no band"):
        read_hsi(file, drop_bands=range(3))
    with pytest.raises(ValueError, match="on_nodata"):
        read_hsi(file, on_nodata="ignore")  # type: ignore[arg-type]


def test_bad_writes(tmp_path: Path) -> None:
    x, file = cube(), tmp_path / "a.tif"
    with pytest.raises(errors.ShapeError, match="one by one"):
        write_hsi(file, x[None], NM)
    with pytest.raises(errors.BandCountError, match="2 wavelengths"):
        write_hsi(file, x, NM[:2])
    with pytest.raises(errors.WavelengthError, match="ascending"):
        write_hsi(file, x, np.array(NM[::-1]))
    with pytest.raises(errors.WavelengthError, match="missing"):
        write_hsi(file, x, None)
    with pytest.raises(errors.BandCountError, match="1 names"):
        write_hsi(file, x, NM, names=["a"])
    with pytest.raises(ValueError, match=r"\.tif for GeoTIFF"):
        write_hsi(tmp_path / "a.png", x, NM)
    with pytest.raises(errors.NoDataError, match="mask="):
        write_hsi(file, x / 0, NM)
    with pytest.raises(errors.ShapeError, match="mask"):
        write_hsi(file, x, NM, mask=torch.ones(5, 4, dtype=torch.bool))
    with pytest.raises(errors.RadiometryError, match="16 bits"):
        write_hsi(file, 10 * x, NM, scale=1e-4)
    with pytest.raises(errors.RadiometryError, match="1e-4"):
        write_hsi(file, x, NM, scale=10000)
    assert os.listdir(tmp_path) == []


def test_hsi_checks_its_fields() -> None:
    nm, mask = torch.tensor(NM), torch.ones(4, 5, dtype=torch.bool)
    assert HSI(cube(), nm, mask).pixels.shape == (20, 3)
    with pytest.raises(errors.ShapeError, match=r"\(C, H, W\)"):
        HSI(cube()[None], nm, mask)
    with pytest.raises(errors.ShapeError, match="mask"):
        HSI(cube(), nm, mask.T)
    with pytest.raises(errors.BandCountError, match="2 wavelengths"):
        HSI(cube(), nm[:2], mask)
    with pytest.raises(errors.NoDataError, match="NaN"):
        HSI(cube() / 0, nm, mask)


# ---------------------------------------------------------------- real files


def real(folder: Path, name: str) -> Path:
    if not (folder / name).exists():
        pytest.skip(f"{name} is not in {folder}")
    return folder / name


def test_enmap(UBF_DATA: Path) -> None:
    file = list_hsi(real(UBF_DATA, "hsi/enmap_potsdam/images"))[0]
    with pytest.raises(errors.WavelengthError, match="sort_bands"):  # the two detectors overlap
        read_hsi(file)
    with pytest.raises(errors.NoDataError, match=r"drop_bands=\[129, 130, 131, 132, 133, 134\]"):
        read_hsi(file, sort_bands=True)
    hsi = read_hsi(file, sort_bands=True, drop_bands=range(129, 135))
    assert hsi.image.shape == (218, 32, 32)
    assert bool(hsi.mask.all())
    assert hsi.wavelengths[[0, -1]].tolist() == [418.24, 2445.53]
    assert bool((hsi.wavelengths.diff() > 0).all())
    assert torch.equal(read_hsi(file, sort_bands=True, drop_bands="bad").image, hsi.image)
    assert hsi.meta["fwhm"][0] == 6.99561
    assert 0.0 < hsi.image.median().item() < 0.6  # stored × 10000 as float32, scaled by the band's own scale
    assert hsi.meta["transform"] == (30.0, 0.0, 366015.0, 0.0, -30.0, 5809965.0)


def test_chikusei(UBF_DATA: Path) -> None:
    nm = np.linspace(398.71, 698.04, 59)
    file = real(UBF_DATA, "hsi/chikusei_282.mat")
    hsi = read_hsi(file, key="Y", wavelengths=nm)
    assert hsi.image.shape == (59, 128, 128)
    assert 0.001 < hsi.image.min().item() < hsi.image.max().item() < 0.5
    with pytest.raises(errors.HSIReadError, match="'Y' 128×128×59, 'RGB' 128×128×3"):
        read_hsi(file, wavelengths=nm)


def test_jasper_ridge(UBF_DATA: Path) -> None:
    scipy_io = pytest.importorskip("scipy.io")
    file = real(UBF_DATA, "hsi/jasper_ridge.mat")
    bands = scipy_io.loadmat(file)["SlectBands"].ravel().astype(int) - 1
    nm = scipy_io.loadmat(real(UBF_DATA, "hsi/aviris_wavelengths.mat"))["AVIRIS_wavlen"].ravel()[bands]
    hsi = read_hsi(
        file, key="Y", layout="c(wh)", size=(100, 100), scale=1 / 5000, wavelengths=nm, sort_bands=True
    )
    assert hsi.image.shape == (198, 100, 100)
    stored = scipy_io.loadmat(file)["Y"]
    row, column = 7, 42
    expected = torch.from_numpy((stored[:, column * 100 + row] / 5000.0).astype(np.float32))
    assert torch.allclose(hsi.image[:, row, column], expected[list(hsi.meta["bands"])])


def test_gulfport(UBF_DATA: Path) -> None:
    file = real(
        UBF_DATA, "hsi/gulfport_vi_demo.mat"
    )  # the wavelengths are in the file; the detectors overlap
    hsi = read_hsi(file, scale=1 / 10000, sort_bands=True)
    assert hsi.image.shape == (224, 90, 90)
    assert hsi.wavelengths[0].item() == pytest.approx(365.91, abs=1e-3)
    assert hsi.image.min().item() == pytest.approx(-0.0012)  # negatives are kept


def test_eurosat(UBF_DATA: Path) -> None:
    file = list_hsi(real(UBF_DATA, "msi/eurosat_ms/Forest"))[0]
    nm = [443, 490, 560, 665, 705, 740, 783, 842, 945, 1375, 1610, 2190, 865]  # B8A comes last
    with pytest.raises(errors.RadiometryError, match="uint16"):
        read_hsi(file, wavelengths=nm, sort_bands=True)
    hsi = read_hsi(file, wavelengths=nm, sort_bands=True, scale=1 / 10000)
    assert hsi.image.shape == (13, 64, 64)
    assert hsi.meta["bands"] == (0, 1, 2, 3, 4, 5, 6, 7, 12, 8, 9, 10, 11)
    assert 0 < hsi.image.mean().item() < 0.6
