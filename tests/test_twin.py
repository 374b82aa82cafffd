"""The simulated twin of HSRS-SC: its splits, its spectra, its noise, and how it departs from the linear model."""

from __future__ import annotations

import importlib
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

FOLDER = Path(__file__).resolve().parent.parent / "benchmarks"
pytestmark = pytest.mark.skipif(
    not (FOLDER / "twin.py").is_file(), reason="the benchmarks are not part of this installation"
)
SIDE, COUNT = 16, (20, 15)  # of the scenes made here; every class gets nine pictures


@pytest.fixture(scope="module")
def modules() -> Any:
    try:
        metadata.distribution("earthlib")
    except metadata.PackageNotFoundError:
        pytest.skip("the twin takes its spectra from the package earthlib: pip install earthlib")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        yield importlib.import_module("twin"), importlib.import_module("twin_scenes")


@pytest.fixture(scope="module")
def twin(modules: tuple[ModuleType, ModuleType]) -> ModuleType:
    return modules[0]


@pytest.fixture(scope="module")
def scenes(modules: tuple[ModuleType, ModuleType]) -> ModuleType:
    return modules[1]


def picture(seed: int, side: int = 2 * SIDE) -> Tensor:
    """Smooth patches of the colours of fields, soil, roofs and water, with a little grain: uint8 (3, side, side)."""
    rng = torch.Generator().manual_seed(seed)
    palette = torch.tensor([[60, 85, 50], [40, 55, 60], [165, 140, 110], [120, 120, 120], [90, 130, 70.0]])
    fields = F.interpolate(torch.randn(1, 5, 5, 5, generator=rng), (side, side), mode="bicubic")[0]
    x = torch.einsum("khw,kc->chw", (4 * fields).softmax(0), palette)
    return (x + 6 * torch.randn(x.shape, generator=rng)).round().clamp(0, 255).to(torch.uint8)


@pytest.fixture(scope="module")
def root(modules: tuple[ModuleType, ModuleType], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder laid out like that of AID, with nine made pictures per class."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("data")
    for k, kind in enumerate(modules[0].CLASSES):
        (folder / "rgb" / "aid150" / kind).mkdir(parents=True)
        for i in range(9):
            image = Image.fromarray(picture(10 * k + i, 40).movedim(0, -1).numpy())
            image.save(folder / "rgb" / "aid150" / kind / f"{kind.lower()}_{i + 1}.jpg", quality=95)
    return folder


@pytest.fixture
def cache(twin: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(twin, "CACHE", tmp_path)
    twin.open_pool.cache_clear()
    return tmp_path


def test_bands_are_those_of_hsrs_sc(scenes: ModuleType) -> None:
    nm = scenes.WAVELENGTHS
    assert (len(nm), nm[0], nm[-1]) == (48, 382.5, 1055.5)
    steps = np.diff(nm)
    assert steps.min() > 14.2
    assert steps.max() < 14.5


def test_splits(twin: ModuleType, root: Path, cache: Path) -> None:
    protocol = twin.open_twin(root, size=SIDE, count=COUNT)
    assert protocol.simulated
    assert "SIMULATED" in protocol.text
    assert protocol.shared == 15 / 20
    drawn = []
    for seed in (0, 1):
        split = protocol.load(seed)
        assert split.train.x.shape == (20, 48, SIDE, SIDE)
        assert split.test.x.shape == (15, 48, SIDE, SIDE)
        assert split.train.x.dtype == torch.float32
        assert torch.bincount(split.train.y).tolist() == [4] * 5
        assert torch.bincount(split.test.y).tolist() == [3] * 5
        assert split.groups.tolist() == list(range(20))
        assert tuple(split.train.wavelengths.tolist()) == twin.WAVELENGTHS
        every = torch.cat([split.train.x, split.test.x])
        drawn.append({x.numpy().tobytes() for x in every})
        assert len(drawn[-1]) == 35  # no scene twice, on one side or on both
    assert drawn[0] == drawn[1]  # the same scenes
    assert not torch.equal(protocol.load(0).train.x, split.train.x)  # distributed differently
    assert torch.equal(protocol.load(1).train.x, split.train.x)
    assert len(list(cache.iterdir())) == 1


def test_scenes_come_back_the_same_without_the_cache(
    twin: ModuleType, root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = twin.open_twin(root, size=SIDE, count=COUNT).load(0)
    monkeypatch.setattr(twin, "CACHE", cache / "other")
    twin.open_pool.cache_clear()
    assert torch.equal(twin.open_twin(root, size=SIDE, count=COUNT).load(0).test.x, first.test.x)


def test_fewer_training_scenes_are_a_subset(twin: ModuleType, root: Path, cache: Path) -> None:
    whole = twin.open_twin(root, size=SIDE, count=COUNT).load(3)
    protocol = twin.open_twin(root, size=SIDE, count=COUNT, per_class=[3, 1])
    few = protocol.load(3)
    assert torch.bincount(few.train.y).tolist() == [3, 1, 3, 1, 3]
    assert protocol.shared == 15 / 11
    assert {x.numpy().tobytes() for x in few.train.x} < {x.numpy().tobytes() for x in whole.train.x}
    assert torch.equal(few.test.x, whole.test.x)


def test_pictures_beside_it_made_no_scene(twin: ModuleType, root: Path, cache: Path) -> None:
    protocol = twin.open_twin(root, size=32, count=COUNT)
    beside = protocol.pictures()
    assert set(beside) == set(protocol.class_map.values()) == set(twin.CLASSES)
    split = protocol.load(0)
    bands = list(twin.RGB)
    for k, kind in enumerate(twin.CLASSES):
        assert beside[kind].shape == (2, 3, 64, 64)
        assert beside[kind].dtype == torch.uint8
        # Scenes look like their pictures, so a picture that had made a scene would be recognised in it.
        side = torch.cat([s.x[s.y == k][:, bands].mean(1) for s in (split.train, split.test)])
        own = F.avg_pool2d(beside[kind].float().mean(1, keepdim=True), 2)[:, 0]
        assert float(torch.corrcoef(torch.cat([side, own]).flatten(1))[:7, 7:].max()) < 0.8


def test_too_few_pictures(twin: ModuleType, root: Path, cache: Path) -> None:
    with pytest.raises(Exception, match="9 pictures of BareLand, 10 are needed"):
        twin.open_twin(root, size=SIDE, count=(30, 20)).load(0)


def test_a_scene_is_its_picture(scenes: ModuleType) -> None:
    x = picture(1)
    y = scenes.simulate(x)
    assert torch.equal(scenes.simulate(x.clone()), y)
    assert not torch.equal(scenes.simulate(picture(2)), y)
    seen = F.avg_pool2d(scenes.colours(x)[None], 2)[0]
    for band, channel in zip(scenes.RGB, seen, strict=True):
        assert float(torch.corrcoef(torch.stack([y[band].flatten(), channel.flatten()]))[0, 1]) > 0.8


def test_reflectance_is_plausible(scenes: ModuleType) -> None:
    y = torch.stack([scenes.simulate(picture(i)) for i in range(6)])
    clean = torch.stack([scenes.simulate(picture(i), scenes.Effects(noise=0.0)) for i in range(6)])
    assert torch.isfinite(y).all()
    assert float(clean.min()) >= 0
    assert float(y.min()) > -0.03
    assert float(y.max()) < 1.2
    assert 0.03 < float(y.median()) < 0.4


def test_library(scenes: ModuleType) -> None:
    nm = torch.tensor(scenes.WAVELENGTHS)
    blue, green, red, infrared = (int((nm - at).abs().argmin()) for at in (490, 560, 670, 850))
    mean = dict(zip([m.name for m in scenes.MATERIALS], [s.mean(0) for s in scenes.library()], strict=True))
    assert all(s.shape[1] == 48 and len(s) > scenes.VARIANTS for s in scenes.library())
    assert all(float(s.min()) > 0 and float(s.max()) < 1 for s in scenes.library())
    for name in ("trees", "grass"):  # the red edge
        assert float(mean[name][infrared] / mean[name][red]) > 6
    for name in ("dark soil", "bright soil"):  # a slope
        assert float(mean[name][infrared] / mean[name][red]) < 2
        assert float(mean[name][infrared] / mean[name][blue]) > 2
    for name in ("clear water", "turbid water"):  # dark in the near infrared
        assert float(mean[name][infrared]) < 0.03
        assert float(mean[name][infrared]) < float(mean[name][green])


def residual(scenes: ModuleType, x: Tensor, effects: Any) -> float:
    """Relative error of the best mixture of the scene's own materials with amounts that are not negative."""
    from scipy.optimize import nnls

    y = scenes.simulate(x, effects).flatten(1).double().numpy()
    E = scenes.endmembers(x)[:, 0].double().numpy().T
    return float(np.linalg.norm([nnls(E, pixel, maxiter=5000)[1] for pixel in y.T]) / np.linalg.norm(y))


@pytest.mark.parametrize(
    "effect",
    [{"intimate": True}, {"bilinear": 1.0}, {"shadow": 0.6}, {"variability": True}, {"illumination": 1.0}],
    ids=lambda e: next(iter(e)),
)
def test_effects_leave_the_linear_model(scenes: ModuleType, effect: dict[str, Any]) -> None:
    from dataclasses import replace

    x, changed = picture(4), replace(scenes.LINEAR, **effect)
    linear = scenes.simulate(x, scenes.LINEAR)
    assert float((scenes.simulate(x, changed) - linear).norm() / linear.norm()) > 0.005
    assert residual(scenes, x, scenes.LINEAR) < 1e-5
    assert (
        residual(scenes, x, changed) > 1e-4
    )  # 18 materials of 48 bands take most of it up, in wrong amounts


def test_brightness_alone_is_linear(scenes: ModuleType) -> None:
    from dataclasses import replace

    assert residual(scenes, picture(4), replace(scenes.LINEAR, relief=0.2, blur=0.5)) < 1e-5


def test_intimate_mixture(scenes: ModuleType) -> None:
    dark, bright = torch.full((1, 3, 1), 0.1), torch.full((1, 3, 1), 0.6)
    both = torch.cat([dark, bright])
    for part, spectrum in (([1.0, 0.0], dark), ([0.0, 1.0], bright)):
        assert torch.allclose(scenes.grains(torch.tensor(part)[:, None], both), spectrum[0], atol=1e-6)
    half = scenes.grains(torch.tensor([[0.5], [0.5]]), both)
    assert float(half.max()) < 0.3  # dark grains weigh more than in the mean of 0.35


def test_bilinear_term_is_the_sum_over_pairs(scenes: ModuleType) -> None:
    rng = torch.Generator().manual_seed(0)
    a = torch.rand(4, 6, generator=rng)
    which = torch.rand(3, 6, generator=rng)
    E = torch.rand(4, 3, 5, generator=rng)
    e = torch.einsum("vn,kvc->kcn", which, E)
    wanted = sum(a[i] * a[j] * e[i] * e[j] for i in range(4) for j in range(i))
    assert torch.allclose(scenes.pairs(a, which, E), wanted, atol=1e-4)


def test_noise_by_band(scenes: ModuleType) -> None:
    xs = [picture(i, 96) for i in range(4)]
    clean = torch.stack([scenes.simulate(x, scenes.Effects(noise=0.0)) for x in xs])
    noise = torch.stack([scenes.simulate(x) for x in xs]) - clean
    wanted = torch.stack([scenes.noise_std(y) for y in clean])
    found = (noise / wanted).square().mean((0, 2, 3)).sqrt()
    assert (found - 1).abs().max() < 0.04
    flat = scenes.noise_std(torch.full((48, 1, 1), 0.2))[:, 0, 0]
    snr = 0.2 / flat
    assert snr[0].round() == 51
    assert snr[-1].round() == 30
    assert 148 < float(snr.max()) <= 150


def test_missing_spectra_are_explained(scenes: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", absent)
    with pytest.raises(ModuleNotFoundError, match="pip install earthlib"):
        scenes.library.__wrapped__()
