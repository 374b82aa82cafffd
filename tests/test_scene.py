"""Scenes larger than memory: windows give what the whole image gives, place and missing data are kept, work resumes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.control import GroundControlPoint
from rasterio.rpc import RPC
from tiny import NM, E, TinyGenerator, tiny_synth
from torch import Tensor

from ubf_augment import HSISynthesizer, read_hsi, write_hsi
from ubf_augment.cli import main
from ubf_augment.errors import HSIReadError, NoDataError, RadiometryError, WavelengthError
from ubf_augment.generators import get_generator
from ubf_augment.io import Window, open_scene, write_maps
from ubf_augment.mixing import mix
from ubf_augment.report import scene_sheet
from ubf_augment.synthesis import windows
from ubf_augment.synthesis.scene_parts import Parts
from ubf_augment.synthesis.windows import split, windows_of
from ubf_augment.unmixing import UnmixingModel, fcls, sunsal

SIZE = (45, 70)
UTM = (30.0, 0.0, 500000.0, 0.0, -30.0, 5000000.0)
pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


@pytest.fixture(autouse=True)
def _small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows and tiles of few pixels, so that a small scene has many."""
    monkeypatch.setattr(windows, "_PIXELS", 16 * 70)
    monkeypatch.setattr(windows, "_SMALLEST_STRIP", 8)
    monkeypatch.setattr(windows, "_TILE", 16)
    monkeypatch.setattr(windows, "_TILE_PIXELS", 300)


def with_encoder() -> HSISynthesizer:
    """A synthesizer whose encoder looks at neighbours: random weights, head and all."""
    torch.manual_seed(1)
    model = UnmixingModel(E, width=16, blocks=2, rgb_width=16, rgb_blocks=1)
    torch.nn.init.normal_(model.hsi_encoder.head.weight, std=2.0)
    for block in model.hsi_encoder.blocks:
        for parameter in block.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
    return HSISynthesizer(model.endmembers, TinyGenerator(num_classes=None), unmixing=model)


def image(seed: int = 0, size: tuple[int, int] = SIZE) -> Tensor:
    """Reflectance (5, H, W), mixtures with noise."""
    g = torch.Generator().manual_seed(seed)
    a = torch.softmax(3 * torch.randn(1, 3, *size, generator=g), 1)
    return mix(a, E)[0] + 0.01 * torch.randn(5, *size, generator=g)


def missing(size: tuple[int, int] = SIZE) -> Tensor:
    """Valid pixels: a corner, a block that fills whole tiles, and some single pixels are missing."""
    mask = torch.ones(size, dtype=torch.bool)
    mask[:6, :20] = False
    mask[10:44, 30:64] = False
    mask[3, 50] = mask[44, 69] = False
    return mask


def made(path: Path, mask: Tensor | None = None, **options: Any) -> Path:
    return write_hsi(path, image(), NM, mask=mask, **options)


def relaid(path: Path, source: Path, **profile: Any) -> Path:
    """The same image in another layout on disk."""
    with (
        rasterio.open(source) as old,
        rasterio.open(path, "w", **(old.profile | {"predictor": 1} | profile)) as new,
    ):
        new.write(old.read())
        for i in old.indexes:
            new.update_tags(i, **old.tags(i))
    return path


def result(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Values (P, H, W) and valid pixels (P, H, W) of a result."""
    with rasterio.open(path) as dataset:
        values = dataset.read(masked=True)
        scale = dataset.scales[0]
    return values.data * scale, ~np.ma.getmaskarray(values)


# ---------------------------------------------------------------- the same as in memory

LAYOUTS: dict[str, dict[str, Any]] = {
    "strips": {"blockysize": 4, "tiled": False},
    "tiles": {"tiled": True, "blockxsize": 16, "blockysize": 32},
    "pixels": {"tiled": True, "blockxsize": 32, "blockysize": 16, "interleave": "pixel"},
    "plain": {"compress": None, "tiled": False},
}


@pytest.mark.parametrize("method", ["encoder", "fcls", "sunsal"])
@pytest.mark.parametrize("layout", [*LAYOUTS, "img", "bil", "bip"])
def test_windows_give_what_the_whole_image_gives(tmp_path: Path, method: Any, layout: str) -> None:
    synth = with_encoder() if method == "encoder" else tiny_synth()
    file = made(tmp_path / ("a.tif" if layout in LAYOUTS else f"a.{layout}"), missing())
    if layout in LAYOUTS:
        file = relaid(tmp_path / "b.tif", file, **LAYOUTS[layout])
    whole = read_hsi(file, on_nodata="mask")
    solve = {"encoder": synth.unmix, "fcls": lambda x: fcls(x, E), "sunsal": lambda x: sunsal(x, E)}[method]
    expected = solve(whole.image[None])[0].numpy()
    found = synth.unmix_scene(file, tmp_path / "out.tif", method=method, progress=False)
    values, valid = result(tmp_path / "out.tif")
    assert found.windows[0] == found.windows[1] > 2
    assert np.array_equal(valid, np.broadcast_to(whole.mask.numpy(), valid.shape))
    assert np.abs(values - expected)[valid].max() < 1e-5
    if method == "encoder":  # the margin matters: without the neighbours something else comes out
        alone = synth.unmix(whole.image[None, :, 8:24, 8:24])[0].numpy()
        assert np.abs(alone - expected[:, 8:24, 8:24])[:, whole.mask[8:24, 8:24].numpy()].max() > 1e-3
    mean = expected[:, whole.mask.numpy()].mean(1)
    assert found.mean.tolist() == pytest.approx(mean.tolist(), abs=1e-5)
    assert found.valid == int(whole.mask.sum())
    assert not (tmp_path / "out.tif.work").exists()


def test_auto_is_what_unmix_does(tmp_path: Path) -> None:
    file = made(tmp_path / "a.tif")
    for synth in (with_encoder(), tiny_synth()):
        synth.unmix_scene(file, tmp_path / "out.tif", overwrite=True, progress=False)
        expected = synth.unmix(read_hsi(file).image[None])[0].numpy()
        assert np.abs(result(tmp_path / "out.tif")[0] - expected).max() < 1e-5
    with pytest.raises(ValueError, match=r"no encoder .* method=fcls"):
        tiny_synth().unmix_scene(file, tmp_path / "b.tif", method="encoder")


@given(
    st.tuples(st.integers(1, 90), st.integers(1, 90)),
    st.tuples(st.integers(1, 40), st.integers(1, 120)),
    st.integers(1, 300),
    st.sampled_from([0, 4]),
)
@settings(deadline=None, max_examples=60)
def test_windows_cover_every_pixel_once_and_fit_into_memory(
    size: tuple[int, int], block: tuple[int, int], bands: int, margin: int
) -> None:
    count = np.zeros(size, int)
    for w in windows_of(size, block, bands, margin):
        count[w.row : w.row + w.height, w.column : w.column + w.width] += 1
        assert w.height * w.width <= max(1024, 16 * 70, 256)
        tiles = np.zeros((w.height, w.width), int)
        for tile in windows.tiles_of(w, margin):
            tiles[tile.within(w)] += 1
        assert (tiles == 1).all()
    assert (count == 1).all()


def test_a_scene_of_200_bands_has_windows_of_bounded_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    for size, block in (
        ((4000, 4000), (1, 4000)),
        ((4000, 4000), (256, 256)),
        ((9000, 120_000), (1, 120_000)),
    ):
        found = windows_of(size, block, 200, 4)
        assert max(w.height * w.width * 200 for w in found) <= 1 << 25
        assert all(w.width == size[1] for w in found) == (block[1] == 4000)
    assert len(split(Window(0, 0, 10, 10), 4)) == 9


# ---------------------------------------------------------------- place, missing data, names


@pytest.mark.parametrize("scale", [None, 1e-4])
def test_place_names_and_tags(tmp_path: Path, scale: float | None) -> None:
    file = made(tmp_path / "a.tif", missing(), crs="EPSG:32633", transform=UTM)
    tiny_synth().unmix_scene(file, tmp_path / "new" / "out.tif", rmse=True, scale=scale, progress=False)
    with rasterio.open(tmp_path / "new" / "out.tif") as dataset:
        assert dataset.descriptions == ("soil", "tree", "shade", "RMSE")
        assert dataset.crs == rasterio.CRS.from_epsg(32633)
        assert dataset.transform[:6] == UTM
        assert dataset.profile["tiled"]
        assert dataset.profile["compress"] == "deflate"
        assert dataset.dtypes[0] == ("float32" if scale is None else "int16")
        assert dataset.nodata == (-9999 if scale is None else -32768)
        assert dataset.tags()["scene"] == "a.tif"
    values, valid = result(tmp_path / "new" / "out.tif")
    x = image()
    a = fcls(x[None], E)
    error = (x - mix(a, E)[0]).square().mean(0).sqrt().numpy()
    tolerance = 1e-6 if scale is None else 0.5e-4 + 1e-7
    assert np.abs(values[:3] - a[0].numpy())[valid[:3]].max() <= tolerance
    assert np.abs(values[3] - error)[valid[3]].max() <= tolerance


def test_ground_control_points_and_rpcs_are_kept(tmp_path: Path) -> None:
    file = made(tmp_path / "a.tif")
    gcps = [
        GroundControlPoint(r, c, 500000 + 30 * c, 5000000 - 30 * r, 7.0)
        for r, c in ((0, 0), (0, 70), (45, 0), (45, 70))
    ]
    linear = [0.0, 1.0, *[0.0] * 18]
    one = [1.0, *[0.0] * 19]
    rpcs = RPC(0.0, 500.0, 45.0, 0.1, one, linear, 22.0, 22.0, 15.0, 0.1, one, linear, 35.0, 35.0, 0.5, 0.25)
    with rasterio.open(file, "r+") as dataset:
        dataset.gcps = (gcps, rasterio.CRS.from_epsg(32633))
        dataset.rpcs = rpcs
    tiny_synth().unmix_scene(file, tmp_path / "out.tif", progress=False)
    with rasterio.open(tmp_path / "out.tif") as dataset:
        found, crs = dataset.gcps
        assert [(p.row, p.col, p.x, p.y, p.z) for p in found] == [(p.row, p.col, p.x, p.y, p.z) for p in gcps]
        assert crs == rasterio.CRS.from_epsg(32633)
        assert dataset.rpcs.to_dict() == rpcs.to_dict()


def test_one_missing_band_makes_a_pixel_missing(tmp_path: Path) -> None:
    x = image()
    x[3, 7, 9] = float("nan")
    x[0, 8, 9] = float("inf")
    file = tmp_path / "a.tif"
    with rasterio.open(file, "w", driver="GTiff", count=5, height=45, width=70, dtype="float32") as dataset:
        dataset.write(x.numpy())
    synth = tiny_synth()
    synth.unmix_scene(file, tmp_path / "out.tif", read={"wavelengths": NM}, progress=False)
    _, valid = result(tmp_path / "out.tif")
    assert [tuple(v) for v in np.argwhere(~valid)] == [(p, r, 9) for p in range(3) for r in (7, 8)]
    synth = tiny_synth()
    four = HSISynthesizer(E.resample([490, 560, 665, 1610]), TinyGenerator(num_classes=None))
    four.unmix_scene(  # the fault is in a band left out
        file,
        tmp_path / "out.tif",
        read={"wavelengths": NM, "drop_bands": [3]},
        overwrite=True,
        progress=False,
    )
    assert [tuple(v) for v in np.argwhere(~result(tmp_path / "out.tif")[1])] == [(p, 8, 9) for p in range(3)]


def test_a_mask_in_the_file_is_kept(tmp_path: Path) -> None:
    file = made(tmp_path / "a.tif")
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(file, "r+") as dataset:
        dataset.write_mask(missing().numpy())
    tiny_synth().unmix_scene(file, tmp_path / "out.tif", progress=False)
    assert np.array_equal(result(tmp_path / "out.tif")[1][0], missing().numpy())


def test_no_valid_pixel(tmp_path: Path) -> None:
    file = made(tmp_path / "a.tif", torch.zeros(SIZE, dtype=torch.bool))
    with pytest.raises(NoDataError, match=r"no pixel of the scene is valid .* drop_bands"):
        tiny_synth().unmix_scene(file, tmp_path / "out.tif", progress=False)
    assert not (tmp_path / "out.tif").exists()
    with rasterio.open(file, "r+") as dataset:  # one band without data is named at once
        dataset.write(np.concatenate([image()[:2].numpy(), np.full((1, *SIZE), -9999), image()[3:].numpy()]))
    with pytest.raises(NoDataError, match=r"bands \[2\] of a\.tif hold no data .*drop_bands=\[2\]"):
        tiny_synth().unmix_scene(file, tmp_path / "b.tif", progress=False)
    assert not (tmp_path / "b.tif.work").exists()


def test_overviews_are_means_of_the_pixels_with_data(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((1, 600, 520), np.float32)
    values[0, 100:201] = np.nan
    parts = [
        (w, values[(slice(None), *w.within(Window(0, 0, 600, 520)))])
        for w in split(Window(0, 0, 600, 520), 100)
    ]
    write_maps(tmp_path / "a.tif", parts, (600, 520), ["soil"])
    with rasterio.open(tmp_path / "a.tif") as dataset:
        assert dataset.overviews(1) == [2]
        small = dataset.read(1, out_shape=(300, 260), masked=True)
        assert np.array_equal(
            np.where(dataset.read_masks(1) > 0, dataset.read(1), np.nan), values[0], equal_nan=True
        )
    known = [*range(50), *range(100, 300)]  # row 100 has data in one of its two rows alone
    mean = np.nanmean(values[0].reshape(300, 2, 260, 2)[known], (1, 3))
    assert np.abs(small[known] - mean).max() < 1e-6
    assert np.ma.getmaskarray(small)[50:100].all()


# ---------------------------------------------------------------- how the scene is read


def test_scale_order_and_wavelengths_are_read_as_read_hsi_does(tmp_path: Path) -> None:
    order = [2, 0, 4, 1, 3]
    stored = np.rint(image()[order].numpy() * 5000).astype(np.int16)
    with rasterio.open(
        tmp_path / "a.tif", "w", driver="GTiff", count=5, height=45, width=70, dtype="int16"
    ) as dataset:
        dataset.write(stored)
    options = {"scale": 1 / 5000, "wavelengths": [NM[i] for i in order], "sort_bands": True}
    synth = tiny_synth()
    synth.unmix_scene(tmp_path / "a.tif", tmp_path / "out.tif", read=options, progress=False)
    expected = synth.unmix(read_hsi(tmp_path / "a.tif", **options).image[None])[0].numpy()
    assert np.abs(result(tmp_path / "out.tif")[0] - expected).max() < 1e-5
    with pytest.raises(RadiometryError, match=r"a\.tif holds integers .*scale=1/10000"):
        synth.unmix_scene(tmp_path / "a.tif", tmp_path / "b.tif", read=options | {"scale": None})
    with pytest.raises(WavelengthError, match=r"sort_bands=True"):
        synth.unmix_scene(tmp_path / "a.tif", tmp_path / "b.tif", read=options | {"sort_bands": False})
    with pytest.raises(WavelengthError, match=r"a\.tif are missing"):
        synth.unmix_scene(tmp_path / "a.tif", tmp_path / "b.tif", read=options | {"wavelengths": None})
    assert sorted(os.listdir(tmp_path)) == ["a.tif", "out.tif"]


def test_a_window_is_what_read_hsi_cuts_out(tmp_path: Path) -> None:
    file = made(tmp_path / "a.tif", missing(), scale=1e-4)
    whole = read_hsi(file, on_nodata="mask", drop_bands=[1])
    with open_scene(file, drop_bands=[1]) as scene:
        assert scene.wavelengths.tolist() == whole.wavelengths.tolist()
        assert scene.meta == whole.meta
        window = Window(4, 10, 30, 41)
        x, mask = scene.read(window)
        assert torch.equal(x, whole.image[:, 4:34, 10:51])
        assert torch.equal(mask, whole.mask[4:34, 10:51])


def test_the_cache_of_gdal_is_bounded_while_a_scene_is_open(tmp_path: Path) -> None:
    from rasterio._env import get_gdal_config

    before = get_gdal_config("GDAL_CACHEMAX", normalize=False)
    with open_scene(made(tmp_path / "a.tif")):
        assert get_gdal_config("GDAL_CACHEMAX", normalize=False) == 256 << 20
    assert get_gdal_config("GDAL_CACHEMAX", normalize=False) == before


FINE = [float(v) for v in np.linspace(480, 1630, 116)]


def test_finer_bands_are_resampled(tmp_path: Path) -> None:
    synth, fine = tiny_synth(), E.resample(FINE)
    x = mix(synth.unmix(image()[None]), fine)[0]
    write_hsi(tmp_path / "a.tif", x, FINE)
    found = synth.unmix_scene(tmp_path / "a.tif", tmp_path / "out.tif", progress=False)
    expected = synth.unmix(x[None], wavelengths=FINE)[0].numpy()
    assert np.abs(result(tmp_path / "out.tif")[0] - expected).max() < 1e-5
    assert found.rmse < 0.05


@pytest.mark.parametrize(
    ("nm", "words"),
    [
        (
            [v for v in FINE if not 600 < v < 730],
            r"1 of the 5 bands of the bundle have no band of a\.tif near.*665 nm \(65",
        ),
        (
            [v for v in FINE if v < 1000],
            r"a\.tif has bands at 480–990 nm, the bundle at 490–1610 nm.*ubf adapt",
        ),
        ([v + 900 for v in FINE], r"do not cover: bring the bundle to this sensor with ubf adapt"),
    ],
)
def test_wavelengths_that_cannot_be_resampled_are_refused(
    tmp_path: Path, nm: list[float], words: str
) -> None:
    narrow = HSISynthesizer(E, TinyGenerator(num_classes=None))
    write_hsi(tmp_path / "a.tif", torch.full((len(nm), 4, 4), 0.2), nm)
    if "65" in words:  # the bundle's bands are far apart: what is near is a matter of its own spacing
        narrow = HSISynthesizer(E.resample([490, 560, 600, 610, 665, 670]), TinyGenerator(num_classes=None))
        words = r"of the 6 bands of the bundle have no band of a\.tif near.*\d nm \(\d+ nm away\)"
    with pytest.raises(WavelengthError, match=words):
        narrow.unmix_scene(tmp_path / "a.tif", tmp_path / "out.tif")
    assert sorted(os.listdir(tmp_path)) == ["a.tif"]


# ---------------------------------------------------------------- interruptions, refusals

KILL = """
import os, sys, torch
sys.path.insert(0, {tests!r})
torch.set_num_threads({threads})  # sums in the same order
from tiny import tiny_synth
from ubf_augment.synthesis import scene_parts, windows
windows._PIXELS, windows._SMALLEST_STRIP, windows._TILE_PIXELS = 16 * 70, 8, 300
save, done = scene_parts._write, []
def stop_at(path, content):
    if len(done) == 3:
        def content(file): file.write(b"half"); file.flush(); os.kill(os.getpid(), 9)
    done.append(path)
    save(path, content)
scene_parts._write = stop_at
tiny_synth().unmix_scene({file!r}, {out!r}, progress=False)
"""


def goes_on(file: Path, out: Path) -> None:
    """A call that was stopped while it wrote its third window (its fourth file; the first is the plan) goes on."""
    assert not out.exists()
    found = tiny_synth().unmix_scene(file, out, progress=False)
    assert found.windows[0] - found.windows[1] == 2
    whole = tiny_synth().unmix_scene(file, out.with_name("whole.tif"), progress=False)
    assert whole.windows[0] == whole.windows[1]
    for a, b in zip(result(out), result(whole.path), strict=True):
        assert np.array_equal(a, b)
    assert found.rmse == whole.rmse
    assert torch.equal(found.abundances.nan_to_num(), whole.abundances.nan_to_num())
    assert sorted(os.listdir(out.parent)) == ["a.tif", "out.tif", "whole.tif"]


@pytest.mark.slow
def test_a_killed_call_goes_on_from_its_finished_windows(tmp_path: Path) -> None:
    file, out = made(tmp_path / "a.tif", missing()), tmp_path / "out.tif"
    code = KILL.format(
        tests=str(Path(__file__).parent), threads=torch.get_num_threads(), file=str(file), out=str(out)
    )
    died = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert died.returncode == -signal.SIGKILL, died.stderr
    goes_on(file, out)


def test_an_interrupted_call_goes_on_from_its_finished_windows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, out = made(tmp_path / "a.tif", missing()), tmp_path / "out.tif"
    saved: list[Window] = []
    save = Parts.save

    def stop(self: Parts, window: Window, *arrays: Any) -> None:
        if len(saved) == 2:
            raise KeyboardInterrupt
        saved.append(window)
        save(self, window, *arrays)

    with monkeypatch.context() as patch:
        patch.setattr(Parts, "save", stop)
        with pytest.raises(KeyboardInterrupt):
            tiny_synth().unmix_scene(file, out, progress=False)
    goes_on(file, out)


def test_a_damaged_block_names_the_window_and_keeps_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "ubf_augment.io.scene._PROBE_SIDE", 2
    )  # the look at the scene before does not meet it
    file = relaid(tmp_path / "b.tif", made(tmp_path / "a.tif"), blockysize=4, tiled=False)
    good = file.read_bytes()
    with rasterio.open(file) as dataset:
        at = int(dataset.get_tag_item("BLOCK_OFFSET_0_9", "TIFF", bidx=1))
    file.write_bytes(good[:at] + b"\0" * 20 + good[at + 20 :])
    synth = tiny_synth()
    with pytest.raises(HSIReadError, match=r"rows \d+–\d+, columns 0–69 of b\.tif: cannot read .*damaged"):
        synth.unmix_scene(file, tmp_path / "out.tif", progress=False)
    assert not (tmp_path / "out.tif").exists()
    assert len(os.listdir(tmp_path / "out.tif.work")) > 1
    with pytest.raises(ValueError, match=r"out\.tif\.work holds work of another scene.*delete it.*workdir="):
        synth.unmix_scene(tmp_path / "a.tif", tmp_path / "out.tif", progress=False)
    found = synth.unmix_scene(tmp_path / "a.tif", tmp_path / "out.tif", overwrite=True, progress=False)
    assert found.windows[0] == found.windows[1]  # nothing of the other scene was used


def test_other_work_is_not_deleted(tmp_path: Path) -> None:
    file = made(tmp_path / "a.tif")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    with pytest.raises(ValueError, match="mine holds work of another scene"):
        tiny_synth().unmix_scene(file, tmp_path / "out.tif", workdir=tmp_path / "mine", overwrite=True)
    assert (tmp_path / "mine" / "thesis.tex").exists()


def test_refusals(tmp_path: Path) -> None:
    file, synth = made(tmp_path / "a.tif"), tiny_synth()
    before = file.read_bytes()
    (tmp_path / "folder.tif").mkdir()
    (tmp_path / "there.tif").write_bytes(b"mine")
    np.save(tmp_path / "a.npy", np.zeros((2, 2, 5), np.float32))
    for out, overwrite, error, words in (
        ("a.tif", True, ValueError, "is the scene itself"),
        ("folder.tif", True, ValueError, "is a folder"),
        ("a.img", False, ValueError, r"written as GeoTIFF: give out=….tif"),
        ("there.tif", False, FileExistsError, "there.tif is there already: give overwrite=true"),
    ):
        with pytest.raises(error, match=words):
            synth.unmix_scene(file, tmp_path / out, overwrite=overwrite)
    with pytest.raises(HSIReadError, match=r"a\.npy cannot be read window by window: .* write_hsi"):
        synth.unmix_scene(tmp_path / "a.npy", tmp_path / "out.tif")
    with pytest.raises(FileNotFoundError, match="no file"):
        synth.unmix_scene(tmp_path / "nowhere.tif", tmp_path / "out.tif")
    assert file.read_bytes() == before
    assert (tmp_path / "there.tif").read_bytes() == b"mine"
    assert sorted(os.listdir(tmp_path)) == ["a.npy", "a.tif", "folder.tif", "there.tif"]


def test_too_little_room_is_said_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    from ubf_augment.synthesis import scene_parts

    monkeypatch.setattr(scene_parts.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(OSError, match=r"GiB left, and up to .* needed"):
        tiny_synth().unmix_scene(made(tmp_path / "a.tif"), tmp_path / "out.tif")


# ---------------------------------------------------------------- quick look, command line


def test_the_quick_look_takes_every_nth_pixel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ubf_augment.synthesis import scene

    monkeypatch.setattr(scene, "_QUICK_LOOK", 20)
    found = tiny_synth().unmix_scene(
        made(tmp_path / "a.tif", missing()), tmp_path / "out.tif", progress=False
    )
    values, valid = result(tmp_path / "out.tif")
    assert found.abundances.shape == (3, 12, 18)
    expected = np.where(valid, values, np.nan)[:, ::4, ::4]
    assert np.array_equal(found.abundances.numpy(), expected, equal_nan=True)
    assert found.rgb is not None
    x = torch.where(missing(), image(), torch.nan)[[2, 1, 0], ::4, ::4]
    assert np.array_equal(found.rgb.numpy(), x.numpy(), equal_nan=True)
    figure = scene_sheet(found, title="made", path=tmp_path / "look.png")
    titles = [ax.get_title() for ax in figure.axes if ax.get_title()]
    assert titles == [
        "red, green, blue",
        *(f"{n}, mean {m:.2f}" for n, m in zip(E.names, found.mean.tolist(), strict=True)),
    ]
    assert (tmp_path / "look.png").stat().st_size > 5000


def test_a_scene_without_visible_bands_has_no_colours(tmp_path: Path) -> None:
    nm = [1500.0, 1550.0, 1610.0]
    synth = HSISynthesizer(E.resample(nm), TinyGenerator(num_classes=None), rgb_endmembers=torch.rand(3, 3))
    write_hsi(
        tmp_path / "a.tif", mix(synth.unmix_rgb_reflectance(torch.rand(1, 3, 8, 8)), E.resample(nm))[0], nm
    )
    found = synth.unmix_scene(tmp_path / "a.tif", tmp_path / "out.tif", progress=False)
    assert found.rgb is None
    assert len([ax for ax in scene_sheet(found).axes if ax.get_title()]) == 3


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    generator = get_generator("gmm", num_endmembers=3, size=(8, 8), num_classes=None)
    HSISynthesizer(E, generator).save_pretrained(tmp_path / "bundle")
    file = made(tmp_path / "a.tif", missing(), scale=1e-4)
    words = ["unmix", str(file), "--bundle", str(tmp_path / "bundle"), "--device", "cpu"]
    assert main(words) == 0
    said = capsys.readouterr().err
    assert "mean abundances: soil 0." in said
    assert (tmp_path / "a-abundances.png").is_file()
    expected = HSISynthesizer.from_pretrained(tmp_path / "bundle").unmix(
        read_hsi(file, on_nodata="mask").image[None]
    )
    values, valid = result(tmp_path / "a-abundances.tif")
    assert np.abs(values - expected[0].numpy())[valid].max() < 1e-5
    assert main(words) == 2
    assert (
        "a-abundances.tif is there already: give overwrite=true, or another out=… (on the command line: --overwrite, --out)"
        in (capsys.readouterr().err)
    )
    for option, says in (
        ("--read.key=Y", "read.key is for MATLAB"),
        ("--read.wavelengths=nm", "neither numbers nor a file"),
    ):
        assert main([*words, option]) == 2
        assert says in capsys.readouterr().err
    more = ["--overwrite", "true", "--sheet", "false", "--scale", "0.0001", "--read.drop_bands", "[4]"]
    assert main([*words, *more]) == 2
    assert "which they do not cover" in capsys.readouterr().err
    assert main([*words, *more[:-2], "--method", "sunsal"]) == 0
    assert np.abs(result(tmp_path / "a-abundances.tif")[0] - expected[0].numpy())[valid].max() < 0.02


def test_a_sensor_fills_in_what_the_file_does_not_say(tmp_path: Path) -> None:

    file, bands = tmp_path / "plain.tif", (2, 3, 4)
    values = np.arange(3 * 4 * 5, dtype=np.uint16).reshape(3, 4, 5) * 50
    with rasterio.open(file, "w", driver="GTiff", count=3, height=4, width=5, dtype="uint16") as dataset:
        dataset.write(values)
    nm = tmp_path / "camera.csv"
    nm.write_text("# scale: 0.0001\nwavelength\n" + "\n".join(str(100 * (b + 3)) for b in bands) + "\n")
    whole = read_hsi(file, sensor=nm)
    with open_scene(file, sensor=nm) as scene:
        image, _ = scene.read(Window(0, 0, 4, 5))
    assert torch.equal(image, whole.image)
    assert scene.wavelengths.tolist() == whole.wavelengths.tolist() == [500.0, 600.0, 700.0]
    torch.testing.assert_close(image, torch.from_numpy(values.astype(np.float32)) * 1e-4)
