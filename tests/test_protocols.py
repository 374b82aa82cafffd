"""The protocols of the benchmarks: what must hold for every split of every data set, and what each one promises."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from made import made_eurosat, made_hsrs
from torch import Tensor

from ubf_augment.classification import inner_split
from ubf_augment.errors import (
    BandCountError,
    HSIReadError,
    LabelError,
    NoDataError,
    RadiometryError,
    ShapeError,
)
from ubf_augment.io import write_hsi
from ubf_augment.radiometry import to_reflectance

FOLDER = Path(__file__).resolve().parent.parent / "benchmarks"
pytestmark = pytest.mark.skipif(
    not (FOLDER / "protocols.py").exists(), reason="the benchmarks are not part of this installation"
)
REAL = ("eurosat-few", "aid-few", "cross-sensor")
EVERY = (*REAL, "indian-pines", "hsrs-sc", "eurosat", "folder")  # the twin has tests of its own


@pytest.fixture(scope="module")
def protocols() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        yield importlib.import_module("protocols")


@pytest.fixture(scope="module")
def sources(protocols: ModuleType) -> ModuleType:
    return importlib.import_module("protocol_sources")


def made_folder(root: Path, counts: tuple[int, ...] = (4, 10), side: int = 12) -> Path:
    g = torch.Generator().manual_seed(0)
    for k, count in enumerate(counts):
        (root / f"class {k}").mkdir(parents=True)
        for i in range(count):
            image = 0.1 + 0.2 * torch.rand(3, side, side, generator=g)
            write_hsi(root / f"class {k}" / f"{i}.tif", image, [490, 560, 665])
    return root


@pytest.fixture(scope="module")
def opened(
    protocols: ModuleType, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Any]:
    """Opens a protocol once: on the real data, or on a made copy of the layout."""
    found: dict[str, Any] = {}

    def get(name: str) -> Any:
        root = request.getfixturevalue("UBF_DATA") if name in REAL else tmp_path_factory.mktemp(name)
        if name == "indian-pines":
            pytest.importorskip("tensorly", reason="Indian Pines ships inside tensorly")
        if name not in found:
            make = {"hsrs-sc": made_hsrs, "eurosat": made_eurosat, "folder": made_folder}.get(name)
            options: dict[str, Any] = {"hsrs-sc": {"train": 12}, "eurosat": {"per_class": 3}}.get(name, {})
            found[name] = protocols.open_protocol(name, make(root) if make else root, **options)
        return found[name]

    return get


def rows(x: Tensor) -> list[bytes]:
    """Each row of a tensor as bytes."""
    return [row.tobytes() for row in x.contiguous().numpy()]


def spectra(x: Tensor) -> set[bytes]:
    """The pixels of images (N, C, H, W)."""
    return set(rows(x.movedim(1, -1).flatten(0, 2)))


def covered(corners: Tensor) -> set[tuple[int, int]]:
    """The pixels of patches of 8×8."""
    return {(r + i, c + j) for r, c in corners.tolist() for i in range(8) for j in range(8)}


# ---- every protocol ----


@pytest.mark.parametrize("name", EVERY)
def test_contract(protocols: ModuleType, opened: Callable[[str], Any], name: str) -> None:
    protocol = opened(name)
    assert protocol.name == name
    assert not protocol.simulated
    assert protocol.splits >= 5
    assert protocol.size >= 63  # AlexNet's least
    splits = [protocol.load(i) for i in range(10 if name == "indian-pines" else 3)]
    sizes = [len(s.test) / len(s.train) for s in splits]
    assert protocol.shared == pytest.approx(sum(sizes) / len(sizes))
    for split in splits[:3]:
        train, test = split.train, split.test
        assert train.x.dtype == test.x.dtype == torch.float32
        assert train.classes == test.classes
        assert train.wavelengths.diff().min() > 0
        x = torch.cat([train.x.flatten(), test.x.flatten()])
        assert -0.1 < float(x.min()) <= float(x.max()) < 3
        assert 0.01 < float(x[:: max(1, len(x) // 100_000)].median()) < 1
        images = [*rows(train.x), *rows(test.x)]
        assert len(set(images)) == len(images)  # no image on both sides, none twice on one
        assert set(train.y.tolist()) == set(range(len(train.classes)))
        assert split.groups.shape == train.y.shape
        assert split.groups.dtype == torch.int64
        fit, validation = inner_split(train.y, split.groups, seed=0)
        assert not set(split.groups[fit].tolist()) & set(split.groups[validation].tolist())
        assert set(train.y[fit].tolist()) == set(train.y.tolist())
        assert len(validation)
    again = protocol.load(1)
    assert torch.equal(again.train.x, splits[1].train.x)
    assert torch.equal(again.test.x, splits[1].test.x)
    same = set(rows(splits[0].train.x)) == set(rows(splits[1].train.x))
    assert same == (name == "hsrs-sc")


@pytest.mark.parametrize("name", EVERY)
def test_pictures_have_the_classes_of_the_map(opened: Callable[[str], Any], name: str) -> None:
    protocol = opened(name)
    assert (protocol.pictures is not None) == (name == "eurosat-few")
    if protocol.pictures is None:
        return
    pictures, classes = protocol.pictures(), protocol.load(0).train.classes
    assert set(protocol.class_map) == set(classes)
    assert set(protocol.class_map.values()) <= set(pictures)
    assert all(p.dtype == torch.uint8 and p.shape[1:] == (3, 64, 64) and len(p) for p in pictures.values())
    assert protocol.radiometry == (0.40, 1.5)


# ---- one by one ----


def test_eurosat_few_is_stratified_and_keeps_the_overlapping_scenes_together(
    protocols: ModuleType, sources: ModuleType, opened: Callable[[str], Any], UBF_DATA: Path
) -> None:
    images, pair = sources.eurosat_scenes(UBF_DATA)
    assert [images.classes[int(images.y[i])] for i in pair] == ["Industrial", "Residential"]
    marks = [rows(images.x[i][None])[0] for i in pair]
    sides, often = [], torch.zeros(len(images))
    everything = {mark: i for i, mark in enumerate(rows(images.x))}
    for seed in range(10):
        split = opened("eurosat-few").load(seed)
        assert torch.bincount(split.train.y).tolist() == torch.bincount(split.test.y).tolist() == [6] * 10
        train = rows(split.train.x)
        assert len({mark in train for mark in marks}) == 1
        sides.append(marks[0] in train)
        if sides[-1]:
            first, second = (train.index(mark) for mark in marks)
            assert split.groups[first] == split.groups[second]
        assert len(split.groups.unique()) == 60 - sides[-1]
        often[[everything[mark] for mark in train]] += 1
    assert 0 < sum(sides) < 10
    assert often.min() >= 0.5
    assert often.max() <= 9.5  # every scene trains and tests
    few = protocols.open_protocol("eurosat-few", UBF_DATA, per_class=[6, 3, 1])
    small, whole = few.load(1), opened("eurosat-few").load(1)
    assert torch.bincount(small.train.y).tolist() == [6, 3, 1, 6, 3, 1, 6, 3, 1, 6]
    assert set(rows(small.train.x)) < set(rows(whole.train.x))
    assert torch.equal(small.test.x, whole.test.x)
    assert few.shared == 60 / 36
    with pytest.raises(LabelError, match="class AnnualCrop has 6 training images, per_class asks for 7"):
        protocols.open_protocol("eurosat-few", UBF_DATA, per_class=7)


def test_aid_few_has_one_test_side_and_the_copy_once(
    protocols: ModuleType, sources: ModuleType, opened: Callable[[str], Any], UBF_DATA: Path
) -> None:
    protocol = opened("aid-few")
    first, second = protocol.load(0), protocol.load(1)
    assert torch.equal(first.test.x, second.test.x)
    assert torch.bincount(first.test.y).tolist() == [100] * 17
    assert torch.bincount(first.train.y).tolist() == [20] * 17
    files = UBF_DATA / "rgb" / "aid150" / "Industrial"
    copies = rows(sources.read_jpegs([files / f"industrial_{n}.jpg" for n in (203, 205)], (64, 64)))
    pictures = sources.aid_pictures(UBF_DATA)
    assert copies[0] == copies[1]
    assert rows(pictures["Industrial"]).count(copies[0]) == 1
    assert first.train.wavelengths.tolist() == [490, 560, 665]
    k = first.train.classes.index("Beach")
    known = set(rows(to_reflectance(pictures["Beach"], 0.45, 1.5)))
    assert set(rows(first.train.x[first.train.y == k].flip(1))) < known  # stored as blue, green, red
    uneven = protocols.open_protocol("aid-few", UBF_DATA, per_class=(20, 10, 5, 2))
    split = uneven.load(0)
    assert torch.bincount(split.train.y).tolist() == [20, 10, 5, 2] * 4 + [20]
    assert set(rows(split.train.x)) < set(rows(first.train.x))
    assert torch.equal(split.test.x, first.test.x)
    assert uneven.shared == 1700 / len(split.train)


def test_cross_sensor_has_the_published_patches(
    protocols: ModuleType, sources: ModuleType, opened: Callable[[str], Any], UBF_DATA: Path
) -> None:
    counts = [torch.bincount(s.images.y, minlength=4).tolist() for s in sources.scene_patches(UBF_DATA)]
    assert counts == [[184, 133, 22, 7], [101, 155, 107, 0], [0, 131, 0, 232]]
    protocol = opened("cross-sensor")
    splits = [protocol.load(i) for i in range(4)]
    assert protocol.splits == 15
    assert [len(s.test) for s in splits] == [346, 363, 363, 346]
    assert torch.equal(splits[0].train.x, splits[3].train.x)
    assert splits[0].train.classes == ("water", "vegetation", "soil", "built")
    assert splits[0].train.wavelengths[[0, -1]].tolist() == [430, 860]
    # Jasper Ridge has all covers, so the other training scene is the validation side.
    for split, other in ((splits[1], counts[2]), (splits[2], counts[1])):
        fit, validation = inner_split(split.train.y, split.groups, seed=0)
        assert torch.bincount(split.train.y[fit], minlength=4).tolist() == counts[0]
        assert torch.bincount(split.train.y[validation], minlength=4).tolist() == other
    # Without it there are blocks, and no pixel is on both sides.
    y, groups = splits[0].train.y, splits[0].groups
    assert 0.1 < float((groups < 0).float().mean()) < 0.4
    scenes = sources.scene_patches(UBF_DATA)[1:]
    corners = torch.cat([s.corners + 1000 * i for i, s in enumerate(scenes)])
    for seed in range(3):
        fit, validation = inner_split(y, groups, seed)
        assert not covered(corners[fit]) & covered(corners[validation])
        held = torch.bincount(y[validation], minlength=4) / torch.bincount(y[groups >= 0], minlength=4)
        assert float((held - 0.25).abs().max()) < 0.15
        assert len(y) - len(fit) - len(validation) == int((groups < 0).sum())
    # Patches of one scene overlap without being equal: no pixel of it is on both sides.
    for split in splits[:3]:
        assert not spectra(split.train.x) & spectra(split.test.x)


def test_patches_are_cut_where_their_corner_says(sources: ModuleType, UBF_DATA: Path) -> None:
    patches = sources.scene_patches(UBF_DATA)[1]
    a, b = patches.images.x, patches.corners
    place = {tuple(c): i for i, c in enumerate(b.tolist())}
    pairs = [(i, place[r + 4, c]) for (r, c), i in place.items() if (r + 4, c) in place]
    assert len(pairs) > 100
    for i, j in pairs:
        assert torch.equal(a[i, :, 4:], a[j, :, :4])
    inside = patches.blocks()
    assert set((b[inside >= 0] % 24).flatten().tolist()) == {0, 4, 8, 12, 16}
    assert inside[place[(24, 48)]] == 102


def test_indian_pines_sides_share_no_pixel(protocols: ModuleType, opened: Callable[[str], Any]) -> None:
    for fold in range(3):
        split = opened("indian-pines").load(fold)
        assert not spectra(split.train.x) & spectra(split.test.x)
        fit, validation = inner_split(split.train.y, split.groups, seed=fold)
        assert not spectra(split.train.x[fit]) & spectra(split.train.x[validation])
        assert split.groups[validation].eq(1).all()
        assert split.groups[fit].eq(0).all()


def test_hsrs_is_read_as_reflectance_and_split_once(
    protocols: ModuleType, opened: Callable[[str], Any], tmp_path: Path
) -> None:
    split = opened("hsrs-sc").load(3)
    assert torch.bincount(split.train.y).tolist() == torch.bincount(split.test.y).tolist() == [2, 2, 2, 2, 4]
    assert split.train.x.shape == (12, 48, 16, 16)
    assert float(split.train.x.max()) < 0.5
    nm = split.train.wavelengths
    assert [len(nm), float(nm[0]), float(nm[-1])] == [48, 382.5, 1055.5]
    assert nm.diff().sub(14.3).abs().max() < 0.11
    small = protocols.open_protocol("hsrs-sc", made_hsrs(tmp_path), train=12, size=8)
    assert small.size == 8
    x = small.load(0).train.x
    assert torch.allclose(x, split.train.x.unfold(2, 2, 2).unfold(3, 2, 2).mean((-2, -1)), atol=1e-6)


def test_hsrs_refuses_what_it_is_not(protocols: ModuleType, tmp_path: Path) -> None:
    def reading(root: Path, **options: Any) -> Any:
        return protocols.open_protocol("hsrs-sc", root, **options)

    with pytest.raises(HSIReadError, match=r"has 4 class folders \(class 0, .*HSRS-SC has 5"):
        reading(made_hsrs(tmp_path / "four", (2, 2, 2, 2)))
    with pytest.raises(BandCountError, match=r"0.tif has 47 bands.*HSRS-SC has 48 bands"):
        reading(made_hsrs(tmp_path / "bands", (2,) * 5, bands=47))
    with pytest.raises(NoDataError, match=r"761 training images of 24 in .*leave too few"):
        reading(made_hsrs(tmp_path / "small"))
    scaled = tmp_path / "scaled"
    for k in range(5):
        (scaled / f"class {k}").mkdir(parents=True)
        write_hsi(scaled / f"class {k}" / "a.tif", torch.full((48, 4, 4), 0.2), torch.linspace(400, 1000, 48))
    with pytest.raises(RadiometryError, match=r"median of 5e-05 after division by 4000"):
        reading(scaled)


def test_eurosat_takes_the_official_lists(
    protocols: ModuleType, opened: Callable[[str], Any], tmp_path: Path
) -> None:
    split = opened("eurosat").load(0)
    assert split.train.classes == ("Forest", "River")
    assert torch.bincount(split.train.y).tolist() == [3, 3]
    assert torch.bincount(split.test.y).tolist() == [2, 2]
    expected = split.test.wavelengths.float()[None] / 10000
    assert torch.allclose(split.test.x[:, :, 1, 1], expected)  # 8A stands last in the file
    numbers = ((split.test.x - split.test.x[:, :, 1:2, 1:2])[:, 0, 0, 0] * 10000).round().tolist()
    assert numbers == [7, 8, 17, 18]
    whole = protocols.open_protocol("eurosat", made_eurosat(tmp_path / "eurosat")).load(0)
    assert torch.bincount(whole.train.y).tolist() == [5, 5]
    with pytest.raises(FileNotFoundError, match="download"):
        protocols.open_protocol("eurosat", tmp_path / "absent")


def test_folder_is_stratified(protocols: ModuleType, opened: Callable[[str], Any], tmp_path: Path) -> None:
    split = opened("folder").load(0)
    assert torch.bincount(split.train.y).tolist() == [3, 7]
    assert torch.bincount(split.test.y).tolist() == [1, 3]
    small = protocols.open_protocol("folder", made_folder(tmp_path / "a"), size=6, per_class=(3, 2))
    assert small.load(0).train.x.shape == (5, 3, 6, 6)
    assert torch.equal(small.load(0).test.y, split.test.y)
    write_hsi(tmp_path / "a" / "class 0" / "odd.tif", torch.full((3, 5, 6), 0.2), [490, 560, 665])
    with pytest.raises(ShapeError, match=r"odd.tif has 5×6 pixels, .*0.tif has 6×6"):
        protocols.open_protocol("folder", tmp_path / "a", size=6)
    with pytest.raises(LabelError, match="needs two images or more, one has 1"):
        protocols.open_protocol("folder", made_folder(tmp_path / "b", (1, 3)))
    numbers = tmp_path / "c"
    for k in range(2):
        (numbers / f"{k}").mkdir(parents=True)
        for i in range(2):
            np.save(numbers / f"{k}" / f"{i}.npy", np.full((4, 4, 2), 2000 + 100 * k + i, np.uint16))
    reading = {"wavelengths": [560, 665], "scale": 1 / 10000}
    read = protocols.open_protocol("folder", numbers, reading=reading).load(0).train
    assert [round(float(v), 4) for v in read.x.mean((1, 2, 3))] in (
        [[a, b] for a in (0.2, 0.2001) for b in (0.21, 0.2101)]
    )


def test_twin_is_left_to_its_module(
    protocols: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []
    monkeypatch.setitem(
        sys.modules, "twin", SimpleNamespace(open_twin=lambda root, **k: calls.append((root, k)))
    )
    protocols.open_protocol("twin", tmp_path, size=96)
    assert calls == [(tmp_path, {"size": 96})]


def test_wrong_options_are_named(protocols: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no protocol 'eurosat-many': there are eurosat-few, "):
        protocols.open_protocol("eurosat-many", tmp_path)
    with pytest.raises(ValueError, match="cross-sensor has no option per_class; it takes size"):
        protocols.open_protocol("cross-sensor", tmp_path, per_class=3)
    with pytest.raises(ValueError, match="folder has no option download; it takes size, per_class, reading"):
        protocols.open_protocol("folder", tmp_path, download=True)
    with pytest.raises(ValueError, match="size must be at least 1"):
        protocols.open_protocol("folder", tmp_path, size=0)
    with pytest.raises(FileNotFoundError, match="absent, where aid-few is read"):
        protocols.open_protocol("aid-few", tmp_path / "absent")
    with pytest.raises(ValueError, match="per_class must be one or several positive numbers"):
        protocols.open_protocol("folder", made_folder(tmp_path / "made"), per_class=(2, 0))


def test_a_split_has_groups_for_its_images_and_one_grid(
    protocols: ModuleType, opened: Callable[[str], Any]
) -> None:
    split = opened("folder").load(0)
    with pytest.raises(ShapeError, match="9 groups for 10 training images"):
        protocols.Split(split.train, split.test, torch.arange(9))
    with pytest.raises(ShapeError, match="same classes and wavelengths"):
        protocols.Split(split.train, opened("hsrs-sc").load(0).test, torch.arange(10))


# ---- drawing ----


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_inner_split(protocols: ModuleType, data: Any) -> None:
    n = data.draw(st.integers(1, 40))
    y = torch.tensor(data.draw(st.lists(st.integers(0, 3), min_size=n, max_size=n)))
    most = data.draw(st.sampled_from([0, 1, 2, 5, 40]))
    groups = torch.tensor(data.draw(st.lists(st.integers(-1, most), min_size=n, max_size=n)))
    seed, share = data.draw(st.integers(0, 2**31)), data.draw(st.sampled_from([0.1, 0.25, 0.5]))
    names = [g for g in groups.unique().tolist() if g >= 0]

    def complete(left_out: list[int]) -> bool:
        left = torch.tensor([g >= 0 and g not in left_out for g in groups.tolist()])
        return set(y[left].tolist()) == set(y.tolist())

    if not any(complete([g]) for g in names):
        with pytest.raises(ValueError, match="no inner split"):
            inner_split(y, groups, seed, share)
        return
    fit, validation = inner_split(y, groups, seed, share)
    assert sorted([*fit.tolist(), *validation.tolist()]) == (groups >= 0).nonzero()[:, 0].tolist()
    assert len(validation)
    held = groups[validation].unique().tolist()
    assert not set(held) & set(groups[fit].tolist())
    assert complete(held)
    again = inner_split(y, groups, seed, share)
    assert torch.equal(again[0], fit)
    assert torch.equal(again[1], validation)
    if len(names) < 1 / share:
        assert len(held) == 1
        sizes = {g: int((groups == g).sum()) for g in names}
        small = [g for g in names if complete([g]) and 2 * sizes[g] <= sum(sizes.values())]
        if small:
            assert held[0] in small
            others = {inner_split(y, groups, s, share)[1].tolist()[0] for s in range(len(small))}
            assert {int(groups[i]) for i in others} == set(small)  # each of them in turn
        else:
            assert sizes[held[0]] == min(sizes[g] for g in names if complete([g]))


@given(st.lists(st.integers(1, 30), min_size=1, max_size=5), st.integers(0, 1000))
def test_inner_split_of_independent_images_is_stratified(
    protocols: ModuleType, counts: list[int], seed: int
) -> None:
    y = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    if max(counts) < 2 or len(y) < 4:
        return
    _, validation = inner_split(y, torch.arange(len(y)), seed)
    found = torch.bincount(y[validation], minlength=len(counts)).tolist()
    assert found == [0 if n < 2 else max(1, round(0.25 * n)) for n in counts]


def test_inner_split_depends_on_the_seed_and_says_what_is_wrong(protocols: ModuleType) -> None:
    y = torch.arange(40) % 2
    sides = {tuple(inner_split(y, torch.arange(40), seed)[1].tolist()) for seed in range(5)}
    assert len(sides) == 5
    with pytest.raises(ValueError, match="share must be within"):
        inner_split(y, torch.arange(40), 0, share=1.0)
    with pytest.raises(ShapeError, match="labels and"):
        inner_split(y, torch.arange(39), 0)
