"""Data sets as they are published, read from made files of the same layout, and from the real ones where they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from made import (
    CHIKUSEI,
    chikusei_scene,
    made_aid,
    made_arad,
    made_chikusei_envi,
    made_chikusei_mat,
    made_harvard,
    made_hsrs,
    write_mat73,
)
from torch.utils.data import DataLoader

from ubf_augment.datasets import AID, ARAD1K, HSRSSC, Chikusei, HarvardHSI
from ubf_augment.datasets.splits import portions, stratified
from ubf_augment.errors import (
    BandCountError,
    HSIReadError,
    LabelError,
    NoDataError,
    RadiometryError,
    ShapeError,
)
from ubf_augment.io import read_hsi, write_hsi
from ubf_augment.spectra import sensor


def not_found() -> type[Exception]:
    from torchgeo.datasets import DatasetNotFoundError

    found: type[Exception] = DatasetNotFoundError
    return found


# ---- splits


@given(st.lists(st.integers(2, 60), min_size=1, max_size=6), st.data())
def test_portions_add_up(counts: list[int], data: Any) -> None:
    total = data.draw(st.integers(len(counts), sum(counts) - len(counts)))
    found = portions(torch.tensor(counts), total)
    assert sum(found) == total
    for n, count in zip(found, counts, strict=True):
        assert 1 <= n < count
    exact = [total * c / sum(counts) for c in counts]
    if all(1 <= e <= c - 1 for e, c in zip(exact, counts, strict=True)):
        assert all(abs(n - e) < 1 for n, e in zip(found, exact, strict=True))


def test_stratified_is_a_partition_by_seed() -> None:
    y = [0] * 10 + [1] * 30 + [2] * 20
    chosen, rest = stratified(y, 30, seed=5)
    assert sorted(chosen + rest) == list(range(60))
    assert [sum(y[i] == k for i in chosen) for k in range(3)] == [5, 15, 10]
    assert stratified(y, 30, seed=5) == (chosen, rest)
    assert stratified(y, 30, seed=6) != (chosen, rest)
    for size in (2, 58):
        with pytest.raises(ValueError, match="each of 3 classes must stand on both sides"):
            stratified(y, size, seed=0)
    with pytest.raises(LabelError, match="one has 1"):
        stratified([0, 1, 1], 2, seed=0)


# ---- HSRS-SC


def test_hsrs_reads_the_published_layout(tmp_path: Path) -> None:
    import rasterio

    data = HSRSSC(made_hsrs(tmp_path), train_size=12, transforms=lambda s: {**s, "seen": True})
    assert data.classes == tuple(f"class {k}" for k in range(5))
    assert torch.equal(data.wavelengths, sensor("hsrs-sc").centres)
    sample = data[3]
    assert list(sample) == ["image", "label", "seen"]
    assert sample["image"].shape == (48, 16, 16)
    assert sample["image"].dtype == torch.float32
    assert sample["label"].dtype == torch.int64
    path, label = data.files[3]
    assert int(sample["label"]) == label == data.targets[3]
    with rasterio.open(path) as f:
        assert np.allclose(sample["image"] * 4000, f.read(), atol=1e-3)
    assert next(iter(DataLoader(data, 12)))["image"].shape == (12, 48, 16, 16)


def test_hsrs_lists_are_fixed_disjoint_and_stratified(tmp_path: Path) -> None:
    root = made_hsrs(tmp_path, counts=(6, 6, 6, 6, 12), side=4)

    def files(split: Any, val_size: int = 0) -> set[Path]:
        data = HSRSSC(root, split, train_size=18, val_size=val_size)
        assert data.targets == [label for _, label in data.files]
        return {path for path, _ in data.files}

    train, test = files("train"), files("test")
    assert len(train) == len(test) == 18
    assert train | test == files("all")
    assert not train & test
    assert (
        sorted(path.parent.name for path in train)
        == ["class 0"] * 3 + ["class 1"] * 3 + ["class 2"] * 3 + ["class 3"] * 3 + ["class 4"] * 6
    )
    val = files("val", 6)
    assert files("test", 6) == test
    assert files("train", 6) | val == train
    assert not files("train", 6) & val
    assert len({path.parent.name for path in val}) == 5


def test_hsrs_the_training_list_of_the_published_size(tmp_path: Path) -> None:
    for k, count in enumerate((154, 200, 250, 300, 485)):  # made numbers; only the first file is read
        write_hsi(
            tmp_path / f"c{k}" / "0000.tif", torch.full((48, 2, 2), 800.0), sensor("hsrs-sc").wavelengths
        )
        for i in range(1, count):
            (tmp_path / f"c{k}" / f"{i:04}.tif").touch()
    assert len(HSRSSC(tmp_path)) == 761
    assert len(HSRSSC(tmp_path, "test")) == 1389 - 761


def test_hsrs_bands_and_plot(tmp_path: Path) -> None:
    root = made_hsrs(tmp_path)
    data = HSRSSC(root, train_size=12, bands=[7, 12, 20])
    assert data.wavelengths.tolist() == [483.1, 554.7, 669.1]
    assert torch.equal(data[0]["image"], HSRSSC(root, train_size=12)[0]["image"][[7, 12, 20]])
    figure = data.plot({**data[0], "prediction": torch.tensor(2)}, suptitle="a scene")
    assert figure.axes[0].get_title() == "class 0\npredicted: class 2"
    assert len(figure.axes[1].lines[0].get_xdata()) == 3


def test_hsrs_refuses_what_it_is_not(tmp_path: Path) -> None:
    for root in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(
            not_found(), match=r"cannot be automatically downloaded.*Expected 5 folders of GeoTIFFs"
        ):
            HSRSSC(root)
    with pytest.raises(HSIReadError, match=r"has 4 class folders \(class 0, .*HSRS-SC has 5"):
        HSRSSC(made_hsrs(tmp_path / "four", (2, 2, 2, 2)))
    with pytest.raises(BandCountError, match=r"has 47 bands.*HSRS-SC has 48 bands"):
        HSRSSC(made_hsrs(tmp_path / "bands", (2,) * 5, bands=47))
    root = made_hsrs(tmp_path / "small")
    with pytest.raises(NoDataError, match="761 training images of 24 in"):
        HSRSSC(root)
    with pytest.raises(NoDataError, match=r"12 training images of 24 in .*, 11 of them for validation"):
        HSRSSC(root, "val", train_size=12, val_size=11)
    with pytest.raises(ValueError, match="without val_size"):
        HSRSSC(root, "val", train_size=12)
    with pytest.raises(ValueError, match="split must be one of train, val, test, all"):
        HSRSSC(root, "dev")  # type: ignore[arg-type]
    for k in range(5):
        write_hsi(
            tmp_path / "scaled" / f"{k}" / "a.tif", torch.full((48, 4, 4), 0.2), torch.linspace(400, 1000, 48)
        )
    with pytest.raises(RadiometryError, match=r"median of 5e-05 after division by 4000"):
        HSRSSC(tmp_path / "scaled")


# ---- Chikusei

SMALL: dict[str, Any] = {"patch": 4, "block": 8, "gap": 2}


@pytest.mark.parametrize("make", [made_chikusei_mat, made_chikusei_envi])
def test_chikusei_reads_windows_of_the_published_layouts(tmp_path: Path, make: Any) -> None:
    scene = chikusei_scene()
    data = Chikusei(make(tmp_path), "all", **SMALL)
    assert data.wavelengths.tolist() == pytest.approx(sensor("chikusei").wavelengths.tolist(), abs=0.006)
    assert len(data) == 4 * 5 * 2 * 2  # blocks of 8 every 10 pixels in 40×50
    for i in (0, 7, len(data) - 1):
        r, c = data.corners[i].tolist()
        image = data[i]["image"]
        assert image.dtype == torch.float32
        expected = scene[r : r + 4, c : c + 4].transpose(2, 0, 1) / 10_000
        assert np.allclose(image, expected, atol=1e-6)
    assert list(data[0]) == ["image"]
    assert next(iter(DataLoader(data, 3, num_workers=2)))["image"].shape == (3, 128, 4, 4)


def test_chikusei_never_reads_the_whole_scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import h5py

    data = Chikusei(made_chikusei_mat(tmp_path), "all", nm=Chikusei.VISIBLE, **SMALL)
    asked, before = [], h5py.Dataset.__getitem__

    def spy(self: Any, args: Any, *more: Any, **options: Any) -> Any:
        found = before(self, args, *more, **options)
        asked.append(found.size)
        return found

    monkeypatch.setattr(h5py.Dataset, "__getitem__", spy)
    _ = data[11]
    assert asked == [59 * 4 * 4]


def test_chikusei_sides_share_no_pixel_and_keep_their_distance(tmp_path: Path) -> None:
    root = made_chikusei_mat(tmp_path)
    for fold in range(3):
        seen = torch.zeros(3, 40, 50, dtype=torch.bool)
        for k, split in enumerate(("train", "val", "test")):
            data = Chikusei(root, split, fold=fold, stride=2, **SMALL)
            assert len(data)
            for r, c in data.corners.tolist():
                seen[k, r : r + 4, c : c + 4] = True
        grown = torch.nn.functional.max_pool2d(seen[None].float(), 5, 1, 2)[
            0
        ].bool()  # two pixels more on each side
        for k in range(3):
            assert not (seen[k] & grown[[j for j in range(3) if j != k]].any(0)).any()
        share = seen.flatten(1).sum(1) / seen.sum()
        assert 0.6 < float(share[0]) < 0.8
    first, again, other = (Chikusei(root, fold=f, **SMALL).corners for f in (0, 0, 1))
    assert first.equal(again)
    assert not first.equal(other)


def test_chikusei_area_of_the_published_scene_leaves_its_empty_border_out() -> None:
    from ubf_augment.datasets.chikusei import _area, _blocks
    from ubf_augment.io.windows import WindowedScene

    area = _area(WindowedScene(Path("x.mat"), (128, 2517, 2335), key="chikusei"), None)
    assert (area[1] - area[0], area[3] - area[2]) == (2304, 2048)
    blocks = _blocks(area, 256, 64, 64)
    assert len(blocks) == 8 * 7
    assert all(b[0] >= 106 and b[1] <= 2410 and b[2] >= 143 and b[3] <= 2191 for b in blocks)


def test_chikusei_the_59_bands_of_the_real_block(tmp_path: Path, UBF_DATA: Path) -> None:
    nm = sensor("chikusei").between(*Chikusei.VISIBLE).wavelengths
    real = read_hsi(UBF_DATA / "hsi" / "chikusei_282.mat", key="Y", wavelengths=nm)
    numbers = real.image * 15133  # the block was divided by the largest number of the scene
    assert float((numbers - numbers.round()).abs().max()) < 1e-3
    scene = np.zeros((64, 64, 128), np.uint16)
    scene[..., 7:66] = numbers[:, :64, :64].round().permute(1, 2, 0)
    made_chikusei_mat(tmp_path, scene)
    data = Chikusei(tmp_path, "all", nm=Chikusei.VISIBLE, patch=32, gap=0)
    assert len(data) == 4
    r, c = data.corners[3].tolist()
    expected = real.image[:, r : r + 32, c : c + 32] * 1.5133
    torch.testing.assert_close(data[3]["image"], expected, atol=1e-6, rtol=0)
    assert torch.equal(data.wavelengths, nm)
    assert data.plot(data[3]).axes[1].get_xlabel() == "wavelength in nm"


def test_chikusei_refuses_what_it_is_not(tmp_path: Path) -> None:
    with pytest.raises(not_found(), match=rf"Expected {CHIKUSEI}\.hdr"):
        Chikusei(tmp_path)
    root = made_chikusei_mat(tmp_path / "mat")
    with pytest.raises(BandCountError, match=r"no band .* within 2000–2100 nm"):
        Chikusei(root, nm=(2000, 2100))
    with pytest.raises(RadiometryError, match="after scale=1,"):
        Chikusei(root, scale=1.0, **SMALL)
    with pytest.raises(NoDataError, match="room for 1 blocks"):
        Chikusei(root, patch=30)
    with pytest.raises(ValueError, match="lies outside the scene of 40×50"):
        Chikusei(root, area=(0, 60, 0, 50))
    with pytest.raises(ValueError, match="at least 1"):
        Chikusei(root, patch=0)
    with pytest.raises(HSIReadError, match=r"no numeric array 'scene'.*'chikusei' 40×50×128"):
        Chikusei(root, key="scene")
    few = write_mat73(tmp_path / "few.mat", chikusei=np.ones((8, 8, 59)))
    with pytest.raises(BandCountError, match="59 bands and names no wavelengths"):
        Chikusei(few)
    from scipy.io import savemat

    savemat(tmp_path / "v5.mat", {"chikusei": np.ones((4, 4, 128))})
    with pytest.raises(HSIReadError, match=r"no MATLAB v7\.3 file"):
        Chikusei(tmp_path / "v5.mat")
    file = root / "Chikusei_MATLAB" / f"{CHIKUSEI}.mat"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(HSIReadError, match="truncated"):
        Chikusei(root, **SMALL)


# ---- AID and folders of pictures


def test_aid_reads_the_published_layout(tmp_path: Path) -> None:
    from PIL import Image

    data = AID(made_aid(tmp_path), transforms=lambda s: {**s, "seen": True})
    assert len(data) == 120
    assert data.classes == AID.CLASSES
    assert len(data.classes) == 30
    sample = data[9]
    assert list(sample) == ["image", "label", "seen"]
    assert (sample["image"].dtype, tuple(sample["image"].shape)) == (torch.uint8, (3, 12, 12))
    path, label = data.files[9]
    assert path.parent.name == data.classes[label] == "BaseballField"
    assert np.array_equal(sample["image"].permute(1, 2, 0), np.asarray(Image.open(path)))
    assert len(AID(tmp_path / "AID", per_class=2)) == 60  # the unpacked folder itself
    figure = data.plot({**data[0], "prediction": 1}, suptitle="a")
    assert figure.axes[0].get_title() == "Airport\npredicted: BareLand"


def test_aid_sides_are_fixed_disjoint_and_stratified(tmp_path: Path) -> None:
    root = made_aid(tmp_path)
    train, test = AID(root, "train"), AID(root, "test")
    assert np.bincount(train.targets).tolist() == np.bincount(test.targets).tolist() == [2] * 30
    assert not set(train.files) & set(test.files)
    assert AID(root, "train").files == train.files
    assert len(AID(root, "train", train_share=0.25)) == 30


def test_aid_the_real_pictures(UBF_DATA: Path) -> None:
    root = UBF_DATA / "rgb" / "aid150"
    data = AID(root)
    assert len(data) == 6770
    assert data[0]["image"].shape == (3, 150, 150)
    sides = AID(root, "train"), AID(root, "test")
    names = [{f.name for f, _ in side.files} for side in sides]
    assert len(names[0] | names[1]) == 6769
    assert "industrial_203.jpg" in names[0] | names[1]
    assert "industrial_205.jpg" not in names[0] | names[1]


def test_aid_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(
        not_found(), match=r"Expected 30 folders .* Airport, BareLand, BaseballField of them are missing"
    ):
        AID(tmp_path)
    root = made_aid(tmp_path, 2, 4)
    (root / "AID" / "Viaduct").rename(root / "Viaduct")
    with pytest.raises(not_found(), match="Viaduct"):
        AID(root)
    (root / "AID" / "Viaduct").mkdir()
    with pytest.raises(HSIReadError, match="class 'Viaduct' holds no pictures"):
        AID(root)
    with pytest.raises(ValueError, match="all, train, test"):
        AID(root, "val")  # type: ignore[arg-type]


# ---- ARAD_1K, Harvard


def test_arad_reads_the_published_layout(tmp_path: Path) -> None:
    import h5py

    data = ARAD1K(made_arad(tmp_path, side=(6, 8)), transforms=lambda s: {**s, "seen": True})
    assert [f.name for f in data.files] == [f"ARAD_1K_{n:04}.mat" for n in (1, 2, 900)]
    assert data.wavelengths.tolist() == list(range(400, 701, 10))
    sample = data[1]
    assert list(sample) == ["image", "seen"]
    assert (sample["image"].dtype, tuple(sample["image"].shape)) == (torch.float32, (31, 6, 8))
    with h5py.File(data.files[1]) as f:
        assert np.allclose(sample["image"], f["cube"][()].transpose(0, 2, 1))  # stored (31, 8, 6)
    assert [f.name for f in ARAD1K(tmp_path, "val").files] == ["ARAD_1K_0901.mat", "ARAD_1K_0950.mat"]
    assert len(ARAD1K(tmp_path, "all")) == 5
    part = ARAD1K(tmp_path, bands=[0, 30], crop=4)
    assert part.wavelengths.tolist() == [400, 700]
    assert torch.equal(part[1]["image"], sample["image"][[0, 30], 1:5, 2:6])
    assert data.plot(sample, suptitle="a").axes[1].get_ylabel() == "reflectance"


def test_harvard_reads_the_published_layout(tmp_path: Path) -> None:
    from scipy.io import loadmat

    data = HarvardHSI(made_harvard(tmp_path, side=(6, 8)))
    assert [f.name for f in data.files] == ["img1.mat", "imga1.mat", "imgc4.mat"]
    assert data.wavelengths.tolist() == list(range(420, 721, 10))
    sample, stored = data[0], loadmat(data.files[0])
    assert list(sample) == ["image", "mask"]
    assert torch.equal(sample["mask"], torch.from_numpy(stored["lbl"]) == 1)
    assert 0 < int(sample["mask"].sum()) < 48
    expected = stored["ref"].transpose(2, 0, 1) * stored["lbl"]
    assert np.allclose(sample["image"], expected)
    assert len(HarvardHSI(tmp_path, "mixed")) == 1
    flat = HarvardHSI(tmp_path, "daylight", calibrate=True, bands=range(10, 31))
    calib = np.loadtxt(tmp_path / "CZ_hsdb" / "calib.txt")[10:]
    gain = np.loadtxt(tmp_path / "CZ_hsdb" / "calib.txt").max() / calib
    assert np.allclose(flat[0]["image"], expected[10:] * gain[:, None, None])
    assert HarvardHSI(tmp_path, crop=2)[0]["mask"].shape == (2, 2)
    assert len(data.plot(sample).axes) == 2


def test_harvard_fetches_its_archives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tarfile

    source = made_harvard(tmp_path / "source", side=(6, 8))
    for name in ("CZ_hsdb", "CZ_hsdbi"):
        with tarfile.open(source / f"{name}.tgz", "w:gz") as archive:
            archive.add(source / name, name)
    monkeypatch.setattr(HarvardHSI, "URL", f"{source.as_uri()}/")
    root = tmp_path / "root"
    with pytest.raises(not_found(), match="download=True fetches them"):
        HarvardHSI(root)
    assert [f.name for f in HarvardHSI(root, "mixed", download=True).files] == ["imgc4.mat"]
    assert not (root / "CZ_hsdb").exists()  # of another split
    data = HarvardHSI(root, download=True)
    assert torch.equal(data[0]["image"], HarvardHSI(source)[0]["image"])
    assert {f.name for f in root.iterdir()} == {"CZ_hsdb", "CZ_hsdb.tgz", "CZ_hsdbi", "CZ_hsdbi.tgz"}
    (source / "CZ_hsdb.tgz").unlink()
    assert len(HarvardHSI(root, download=True)) == 3  # what is there is not fetched again


def test_harvard_archives_that_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tarfile

    monkeypatch.setattr(HarvardHSI, "URL", f"{tmp_path.as_uri()}/")
    root = tmp_path / "root"
    with pytest.raises(HSIReadError, match=r"CZ_hsdb\.tgz cannot be fetched .*by hand"):
        HarvardHSI(root, download=True)
    source = made_harvard(tmp_path / "source", side=(6, 8))
    with tarfile.open(tmp_path / "CZ_hsdb.tgz", "w:gz") as archive:
        archive.add(source / "CZ_hsdb", "CZ_hsdb")
    whole = (tmp_path / "CZ_hsdb.tgz").read_bytes()
    places = range(64, len(whole) - 64, len(whole) // 9)
    flipped = [whole[:i] + bytes([whole[i] ^ 255]) + whole[i + 1 :] for i in places]
    for damaged in (whole[: len(whole) // 2], b"<html>404</html>", *flipped):
        (tmp_path / "CZ_hsdb.tgz").write_bytes(damaged)
        with pytest.raises(HSIReadError, match=r"CZ_hsdb\.tgz is damaged .*remove it"):
            HarvardHSI(root, download=True)
        assert not (root / "CZ_hsdb").exists()  # nothing half
        (root / "CZ_hsdb.tgz").unlink()
    with tarfile.open(tmp_path / "CZ_hsdb.tgz", "w:gz") as archive:
        archive.add(source / "CZ_hsdb", "../outside")
    with pytest.raises(HSIReadError, match="is damaged"):
        HarvardHSI(root, download=True)
    assert not (tmp_path / "outside").exists()


def test_natural_data_that_are_not_there_or_not_so(tmp_path: Path) -> None:
    from scipy.io import savemat

    with pytest.raises(not_found(), match=r"ARAD_1K_0001\.mat … there for 'val'"):
        ARAD1K(tmp_path, "val")
    with pytest.raises(not_found(), match="Expected CZ_hsdb and CZ_hsdbi"):
        HarvardHSI(tmp_path)
    with pytest.raises(ValueError, match="train, val, all"):
        ARAD1K(tmp_path, "test")  # type: ignore[arg-type]
    root = made_harvard(tmp_path, side=(6, 8))
    with pytest.raises(ShapeError, match="6×8 pixels, crop=7"):
        _ = HarvardHSI(root, crop=7)[0]
    (root / "CZ_hsdb" / "calib.txt").write_text("1 2 3")
    with pytest.raises(BandCountError, match=r"31 positive numbers.* holds 3"):
        HarvardHSI(root, calibrate=True)
    (root / "CZ_hsdb" / "calib.txt").write_text("one two")
    with pytest.raises(HSIReadError, match="other things than numbers"):
        HarvardHSI(root, calibrate=True)
    (root / "CZ_hsdb" / "calib.txt").unlink()
    with pytest.raises(not_found(), match=r"needs calib\.txt"):
        HarvardHSI(root, calibrate=True)
    first = HarvardHSI(root).files[0]
    savemat(first, {"ref": np.full((6, 8, 30), 0.1), "lbl": np.ones((6, 8))})
    with pytest.raises(BandCountError, match="31 wavelengths for the 30 bands"):
        _ = HarvardHSI(root)[0]
    savemat(first, {"ref": np.full((6, 8, 31), 0.1)})
    with pytest.raises(HSIReadError, match="no variable 'lbl'"):
        _ = HarvardHSI(root)[0]
    savemat(first, {"ref": np.full((6, 8, 31), 0.1), "lbl": np.ones((8, 6))})
    with pytest.raises(ShapeError, match=r"ref has \(6, 8\) pixels, lbl \(8, 6\)"):
        _ = HarvardHSI(root)[0]
    write_mat73(root / "arad" / "ARAD_1K_0001.mat", hyper=np.full((6, 8, 31), 0.1))
    with pytest.raises(HSIReadError, match="no numeric array 'cube'"):
        _ = ARAD1K(root / "arad")[0]
