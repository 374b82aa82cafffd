"""Synthetic data sets, balanced ones, Indian Pines, folders of files."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import CLASSES, NM, E, real_batch, tiny_synth
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset, TensorDataset

from ubf_augment.datasets import HSIFolder, IndianPines, SyntheticHSIDataset, balance
from ubf_augment.datasets.indian_pines import load_scene, solar_irradiance
from ubf_augment.errors import (
    BandCountError,
    HSIReadError,
    LabelError,
    RadiometryError,
    ShapeError,
    UnknownClassError,
    WavelengthError,
)
from ubf_augment.io import write_hsi
from ubf_augment.unmixing import fcls


class Real(Dataset[dict[str, Any]]):
    """Dict samples with a further key; labels are not stated."""

    classes = CLASSES

    def __init__(self, labels: list[int], size: int = 8, label_key: str = "label") -> None:
        self.x, _ = real_batch(len(labels), size)
        self.y, self.label_key = labels, label_key

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, i: int) -> dict[str, Any]:
        return {"image": self.x[i], self.label_key: torch.tensor(self.y[i]), "name": f"scene {i}"}


class Stated(Real):
    """States its labels and is not to be read for them."""

    def __init__(self, labels: list[int]) -> None:
        super().__init__(labels)
        self.targets = labels
        self.read = 0

    def __getitem__(self, i: int) -> dict[str, Any]:
        self.read += 1
        return super().__getitem__(i)


# ---- SyntheticHSIDataset ----


def test_items_are_a_function_of_seed_and_index_alone() -> None:
    data = SyntheticHSIDataset(tiny_synth(), 7, seed=3)
    one_by_one = torch.stack([data[i]["image"] for i in range(21)])
    for batch_size, workers in ((1, 0), (7, 0), (64, 0), (4, 2)):
        for cache in (False, True):
            fresh = SyntheticHSIDataset(tiny_synth(), 7, seed=3, cache=cache)
            got = list(DataLoader(fresh, batch_size, num_workers=workers))
            torch.testing.assert_close(torch.cat([b["image"] for b in got]), one_by_one)
    shuffled = data.__getitems__([20, 3, 3, -1])
    torch.testing.assert_close(torch.stack([s["image"] for s in shuffled]), one_by_one[[20, 3, 3, 20]])
    assert not torch.equal(one_by_one[0], one_by_one[1])
    assert not torch.equal(SyntheticHSIDataset(tiny_synth(), 7, seed=4)[0]["image"], one_by_one[0])
    longer = SyntheticHSIDataset(tiny_synth(), {"Field": 30}, seed=3)  # same class, same index
    torch.testing.assert_close(longer[0]["image"], one_by_one[0])


def test_items_batches_and_labels() -> None:
    data = SyntheticHSIDataset(tiny_synth(), {"Forest": 2, "Lake": 3})
    assert len(data) == 5
    assert data.targets == [1, 1, 2, 2, 2]
    assert data.wavelengths.tolist() == list(NM)
    item = data[0]
    assert list(item) == ["image", "label", "is_synthetic"]
    assert item["image"].shape == (5, 8, 8)
    assert item["image"].dtype == torch.float32
    assert item["label"] == 1
    assert item["is_synthetic"] is True
    batch = next(iter(DataLoader(data, 5)))
    assert batch["label"].tolist() == data.targets
    assert batch["label"].dtype == torch.int64
    assert batch["is_synthetic"].dtype == torch.bool
    assert fcls(batch["image"], E).mean((2, 3)).argmax(1).tolist() == data.targets


def test_user_order_of_classes_size_transform_residual() -> None:
    data = SyntheticHSIDataset(
        tiny_synth(), 2, classes=["Water", "Field"], class_map={"Water": "Lake"}, size=(12, 10), residual=False,
        transform=lambda s: {**s, "extra": 1},
    )  # fmt: skip
    assert data.classes == ("Water", "Field")
    images = torch.stack([data[i]["image"] for i in range(4)])
    assert images.shape == (4, 5, 12, 10)
    assert data[0]["extra"] == 1
    a = fcls(images, E)
    assert a.mean((2, 3)).argmax(1).tolist() == [2, 2, 0, 0]
    noisy = SyntheticHSIDataset(tiny_synth(), 2, classes=["Lake", "Field"], size=(12, 10))
    assert 0.005 < float((noisy[0]["image"] - images[0]).std()) < 0.02  # the residual model


def test_cache_materialize_and_pickle() -> None:
    data = SyntheticHSIDataset(tiny_synth(), 4, seed=1)
    expected = torch.stack([s["image"] for s in data.__getitems__(range(12))])
    full = SyntheticHSIDataset(tiny_synth(), 4, seed=1).materialize(5, progress=False)
    full.synth.generator.scale.data.fill_(99.0)  # the generator is not asked again
    loaded = pickle.loads(pickle.dumps(full))
    for d in (full, loaded):
        torch.testing.assert_close(torch.stack([s["image"] for s in d.__getitems__(range(12))]), expected)


def test_synthetic_dataset_bad_input() -> None:
    synth = tiny_synth()
    with pytest.raises(UnknownClassError, match="Road"):
        SyntheticHSIDataset(synth, {"Road": 3})
    with pytest.raises(UnknownClassError, match="cannot make Road"):
        SyntheticHSIDataset(synth, 3, classes=["Field", "Road"])
    assert len(SyntheticHSIDataset(synth, {"Field": 3}, classes=["Field", "Road"])) == 3
    with pytest.raises(ValueError, match="negative"):
        SyntheticHSIDataset(synth, -1)
    with pytest.raises(IndexError, match="item 9 of a data set of 9"):
        SyntheticHSIDataset(synth, 3)[9]
    assert SyntheticHSIDataset(synth, 3).__getitems__([]) == []


# ---- balance ----


def test_balance_fills_every_class_to_the_largest() -> None:
    real = Stated([0] * 6 + [1] * 2)
    data = balance(real, tiny_synth(), seed=2)
    assert isinstance(data, ConcatDataset)
    assert real.read == 1  # the first image, for its shape; labels come from targets
    batch = next(iter(DataLoader(data, len(data))))
    assert torch.bincount(batch["label"]).tolist() == [6, 6, 6]
    assert set(batch) == {"image", "label", "is_synthetic"}
    assert batch["is_synthetic"].tolist() == [False] * 8 + [True] * 10
    assert torch.equal(batch["image"][:8], real.x)
    again = balance(Stated([0] * 6 + [1] * 2), tiny_synth(), seed=2)
    torch.testing.assert_close(again[17]["image"], data[17]["image"])


def test_balance_to_a_number_and_larger_classes() -> None:
    data = balance(Real([0] * 6 + [1]), tiny_synth(), to=4)
    assert sorted(s["label"] for s in data) == [0] * 6 + [1] * 4 + [2] * 4


def test_balance_counts_through_subset_concat_and_iteration() -> None:
    stated = Stated([0, 0, 1, 2, 2, 2])
    assert len(balance(Subset(stated, [0, 1, 2]), tiny_synth())) == 6
    assert len(balance(ConcatDataset([stated, Real([1])]), tiny_synth())) == 9
    assert len(balance(Subset(Subset(stated, [0, 1, 2, 3]), [0, 1]), tiny_synth())) == 6
    read = Real([0, 0, 1, 2, 2, 2])  # states nothing: every item is read
    assert len(balance(Subset(read, [0, 1, 2]), tiny_synth())) == 6
    assert len(balance(Subset(Subset(read, [0, 1, 2, 3]), [0, 1]), tiny_synth())) == 6
    assert len(balance(Subset(ConcatDataset([stated, read]), [0, 1, 6]), tiny_synth())) == 9
    twice = balance(Subset(balance(read, tiny_synth()), range(7)), tiny_synth())
    assert twice.classes == CLASSES
    assert sorted(twice.targets) == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    other = Real([0, 1, 1], label_key="y")
    data = balance(other, tiny_synth(), label_key="y")
    assert [s["y"] for s in data] == [0, 1, 1, 0, 2, 2]


def test_balance_of_pairs_stays_pairs() -> None:
    x, _ = real_batch(4, 6)
    y = torch.tensor([0, 0, 1, 2])
    data = balance(TensorDataset(x.double(), y), tiny_synth())
    images, labels = next(iter(DataLoader(data, 6)))
    assert images.shape == (6, 5, 6, 6)
    assert images.dtype == torch.float64
    assert labels.tolist() == [0, 0, 1, 2, 1, 2]


def test_balance_shuffles_in_batches_and_transforms() -> None:
    data = balance(Real([0, 0, 0, 1]), tiny_synth(), transform=lambda s: {**s, "image": s["image"] * 0 - 1})
    for batch in DataLoader(data, 4, shuffle=True):
        assert torch.equal((batch["image"] == -1).flatten(1).all(1), batch["is_synthetic"])


def test_balance_unknown_classes() -> None:
    names = ["Field", "Road", "Lake"]
    with pytest.raises(UnknownClassError, match="cannot make Road"):
        balance(Real([0, 0, 1, 2]), tiny_synth(), classes=names)
    data = balance(Real([0, 0, 1, 2]), tiny_synth(), classes=names, strict=False)
    assert sorted(s["label"] for s in data) == [0, 0, 1, 2, 2]
    assert len(balance(Real([0, 1, 1, 2]), tiny_synth(), classes=names)) == 6  # Road is the largest: fine
    with pytest.raises(LabelError, match="label 3"):
        balance(Real([0, 3]), tiny_synth())
    with pytest.raises(ValueError, match="empty"):
        balance(Subset(Real([0]), []), tiny_synth())


def test_balance_bad_images() -> None:
    y = torch.tensor([0, 0, 1])
    with pytest.raises(BandCountError, match="4 bands"):
        balance(TensorDataset(torch.rand(3, 4, 8, 8), y), tiny_synth())
    with pytest.raises(ShapeError, match=r"\(C, H, W\)"):
        balance(TensorDataset(torch.rand(3, 8, 8), y), tiny_synth())
    with pytest.raises(RadiometryError, match="int16"):
        balance(TensorDataset(torch.ones(3, 5, 8, 8, dtype=torch.int16), y), tiny_synth())


# ---- Indian Pines ----

FOLDS = range(3)


def test_indian_pines_scene() -> None:
    pytest.importorskip("tensorly")
    scene = load_scene()
    assert scene.image.shape == (200, 145, 145)
    assert (scene.wavelengths.diff() > 0).all()
    assert scene.wavelengths[[0, -1]].tolist() == [400.02, 2498.96]
    assert -0.05 < float(scene.image.min()) < 0 < float(scene.image.max()) < 0.9
    woods = scene.image[:, scene.truth == 14].mean(
        1
    )  # physics: a red edge, and less in the short-wave infrared
    red, nir, swir = (woods[int((scene.wavelengths - nm).abs().argmin())] for nm in (670, 860, 2200))
    assert float(nir) > 4 * float(red)
    assert float(nir) > 3 * float(swir)
    assert 0.3 < float(nir) < 0.6


def test_solar_irradiance_against_the_solar_constant() -> None:
    nm = torch.arange(150.0, 50_000.0, 5.0)
    assert abs(float(torch.trapezoid(solar_irradiance(nm), nm.double())) - 1361) < 5
    assert int(nm[solar_irradiance(nm).argmax()]) == 500  # Wien's law


@pytest.mark.parametrize("fold", FOLDS)
def test_indian_pines_split(fold: int) -> None:
    pytest.importorskip("tensorly")
    splits = [IndianPines(s, fold) for s in ("train", "val", "test")]
    assert len(splits[0].classes) == 8
    seen = np.zeros((3, 145, 145), dtype=bool)
    for k, data in enumerate(splits):
        assert set(data.targets) == set(range(8))
        for r, c in data.corners.tolist():
            seen[k, r : r + 8, c : c + 8] = True
        assert not (data.area.numpy() & np.delete(seen, k, 0).any(0)).any()
    assert (seen.sum(0) <= 1).all()  # no pixel on two sides
    areas = torch.stack([d.area for d in splits])
    assert int(areas.sum(0).max()) == 1
    assert 320 < sum(map(len, splits)) < 430
    assert 0.3 < len(splits[0]) / sum(map(len, splits)) < 0.65


def test_indian_pines_protocol_counts_and_samples() -> None:
    pytest.importorskip("tensorly")
    data = IndianPines("train")
    assert len(data._cut.corner) == 430
    assert np.bincount(data._cut.label).tolist() == [70, 39, 34, 22, 45, 132, 26, 62]
    scene = load_scene()
    for i in (0, len(data) - 1):
        r, c = data.corners[i].tolist()
        sample = data[i]
        assert sample["image"].dtype == torch.float32
        assert torch.equal(sample["image"], scene.image[:, r : r + 8, c : c + 8])
        assert sample["label"].dtype == torch.int64
        truth = scene.truth[r : r + 8, c : c + 8]
        code = {"Corn-notill": 2, "Corn-mintill": 3, "Grass-trees": 6, "Hay-windrowed": 8, "Soybean-notill": 10,
                "Soybean-mintill": 11, "Soybean-clean": 12, "Woods": 14}[data.classes[sample["label"]]]  # fmt: skip
        assert float((truth == code).float().mean()) >= 0.6
    sample["image"].zero_()  # samples are copies
    assert float(scene.image[:, r : r + 8, c : c + 8].abs().sum()) > 0
    assert IndianPines("train", 0).corners.equal(data.corners)
    assert not IndianPines("train", 1).corners.equal(data.corners)
    seen = IndianPines("val", transforms=lambda s: {**s, "seen": True})[0]
    assert seen["seen"]


def test_indian_pines_plot_and_bad_input() -> None:
    pytest.importorskip("tensorly")
    data = IndianPines("test")
    figure = data.plot({**data[0], "prediction": torch.tensor(1)}, suptitle="a")
    assert data.classes[data.targets[0]] in figure.axes[0].get_title()
    assert data.classes[1] in figure.axes[0].get_title()
    with pytest.raises(ValueError, match="train, val, test"):
        IndianPines("all")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no class has 500"):
        IndianPines(min_patches=500)
    with pytest.raises(ValueError, match="purity"):
        IndianPines(purity=0.0)


# ---- HSIFolder ----


def tree(root: Path, nm: tuple[float, ...] = NM) -> Path:
    for name, value in (("field", 0.25), ("forest", 0.5)):
        (root / name).mkdir(parents=True)
        for i in range(2):
            write_hsi(root / name / f"{i}.tif", torch.full((len(nm), 6, 7), value), nm)
    return root


def test_folder(tmp_path: Path) -> None:
    data = HSIFolder(tree(tmp_path), transforms=lambda s: {**s, "seen": True})
    assert data.classes == ("field", "forest")
    assert data.targets == [0, 0, 1, 1]
    assert data.wavelengths.tolist() == list(NM)
    sample = data[2]
    assert torch.equal(sample["image"], torch.full((5, 6, 7), 0.5))
    assert sample["label"].dtype == torch.int64
    assert sample["seen"]
    assert next(iter(DataLoader(data, 4)))["image"].shape == (4, 5, 6, 7)
    assert HSIFolder(tmp_path, classes=["forest"]).targets == [0, 0]
    assert data.plot(data[0]).axes[0].get_title() == "field"


def test_folder_of_integer_numpy_files(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    np.save(tmp_path / "a" / "x.npy", np.full((6, 7, 5), 2500, dtype=np.uint16))
    with pytest.raises(RadiometryError, match="scale"):
        HSIFolder(tmp_path, wavelengths=NM)
    data = HSIFolder(tmp_path, wavelengths=NM, scale=1e-4, drop_bands=(i for i in [4]))
    assert data[0]["image"].shape == (4, 6, 7)
    assert data[0]["image"].shape == (4, 6, 7)
    assert float(data[0]["image"][0, 0, 0]) == pytest.approx(0.25)


def test_folder_masks(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    values = np.full((6, 7, 5), 0.5, dtype=np.float32)
    values[0, 0] = np.nan
    np.save(tmp_path / "a" / "x.npy", values)
    sample = HSIFolder(tmp_path, wavelengths=NM, on_nodata="mask")[0]
    assert int((~sample["mask"]).sum()) == 1


def test_folder_bad_input(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        HSIFolder(tmp_path / "nowhere")
    with pytest.raises(HSIReadError, match="no class folders"):
        HSIFolder(tmp_path)
    root = tree(tmp_path / "data")
    with pytest.raises(UnknownClassError, match=r"'road'.*field, forest"):
        HSIFolder(root, classes=["road"])
    (root / "empty").mkdir()
    with pytest.raises(HSIReadError, match="empty"):
        HSIFolder(root)
    (root / "empty").rmdir()
    write_hsi(root / "forest" / "1.tif", torch.rand(5, 64, 64), NM)
    whole = (root / "forest" / "1.tif").read_bytes()
    (root / "forest" / "1.tif").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(HSIReadError, match=r"1\.tif"):
        HSIFolder(root)[3]
    write_hsi(root / "forest" / "1.tif", torch.full((4, 6, 7), 0.5), NM[:4])
    with pytest.raises(BandCountError, match=r"1\.tif .*: 4 bands, not 5"):
        HSIFolder(root)[3]
    write_hsi(root / "forest" / "1.tif", torch.full((5, 6, 7), 0.5), (*NM[:4], 1600.0))
    with pytest.raises(WavelengthError, match="band 4 is at 1600 nm, not 1610"):
        HSIFolder(root)[3]
