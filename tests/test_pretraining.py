"""Pretraining without labels: what a step draws, what is learned, and that a run resumes to the same weights."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file
from synthesis_toys import NM, materials, residual, synthesizer
from torch import Tensor, nn

from ubf_augment import get_generator, pretraining, simplex, write_hsi
from ubf_augment.classification import Classifier, LabelledImages, Recipe, predict, train_classifier
from ubf_augment.cli import main
from ubf_augment.errors import BandCountError, NoDataError, RadiometryError, ShapeError
from ubf_augment.mixing import mix
from ubf_augment.pretraining import Decoder, describe, join, pretrain, unmixed
from ubf_augment.strategies import SpectralVariation
from ubf_augment.synthesis.maps import quantise
from ubf_augment.training import make_fabric

CPU = torch.device("cpu")
TEST = Recipe("test_resnet", steps=4, batch_size=6)


def maps(n: int = 8, size: int = 16, seed: int = 0) -> Tensor:
    """Smooth abundance maps of four endmembers, each image with a composition of its own."""
    g = torch.Generator().manual_seed(seed)
    z = 2 * torch.randn(n, 4, 1, 1, generator=g) + 0.5 * torch.randn(n, 4, size, size, generator=g)
    return simplex.from_logits(z)


def images(n: int = 8, size: int = 16, seed: int = 0) -> Tensor:
    return mix(maps(n, size, seed), materials().spectra.float())


def quick(synth: Any, recipe: Recipe = TEST, **options: Any) -> Classifier:
    options = {"progress": False, "fabric": make_fabric(accelerator="cpu"), **options}
    return pretrain(synth, images(), recipe, **options)


def same(a: nn.Module, b: nn.Module) -> bool:
    other = b.state_dict()
    return all(torch.equal(v, other[k]) for k, v in a.state_dict().items())


# ---- what is told ----


def test_describe_by_hand() -> None:
    stripes = torch.tensor([[0.0, 1.0, 0.0, 1.0]]).expand(2, 4)
    flat = torch.full((2, 4), 0.25)
    got = describe(torch.stack([stripes, flat])[None])[0]
    torch.testing.assert_close(
        got, torch.tensor([0.5, 0.25, 0.5, 0.0, 0.5, 0.0])
    )  # gradient: 1 across, 0 down


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 99))
def test_describe_knows_no_direction_and_totals_one(height: int, width: int, seed: int) -> None:
    a = simplex.from_logits(torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(seed)))
    d = describe(a)
    assert torch.isfinite(d).all()
    torch.testing.assert_close(d[:, :3].sum(1), torch.ones(2))
    for moved in (a.flip(2), a.flip(3), a.transpose(2, 3)):
        torch.testing.assert_close(describe(moved), d)


# ---- what is drawn ----


def test_joining_keeps_the_simplex_and_lies_between_two_images() -> None:
    rows = torch.arange(8)
    simplex.check(join(quantise(maps()), rows, torch.Generator().manual_seed(0)))
    constant = torch.arange(8.0)[:, None, None, None].expand(8, 1, 4, 4)
    found = join(constant, rows, torch.Generator().manual_seed(0))
    for i, image in enumerate(found):
        assert (
            float((image - i).min() * (image - i).max()) >= -1e-6
        )  # towards one other image, and to no third
    assert float((found.amax((1, 2, 3)) - found.amin((1, 2, 3))).max()) > 0.5
    assert float(found.min()) >= -1e-6
    assert float(found.max()) <= 7 + 1e-6


def test_joined_images_are_moved() -> None:
    """One image alone, joined to itself: what comes out is it, turned and flipped and shifted."""
    ramp = torch.arange(8.0).expand(1, 1, 8, 8)
    found = [join(ramp, torch.tensor([0]), torch.Generator().manual_seed(i))[0, 0] for i in range(40)]
    along = {tuple(bool(x.diff(dim=d).abs().mean() > 0.5) for d in (0, 1)) for x in found}
    assert {(True, False), (False, True)} <= along
    falling = [bool(x[0, 0] > x[-1, -1]) for x in found]
    assert 5 < sum(falling) < 35


def test_without_variation_and_residual_maps_are_mixed() -> None:
    a = maps()
    decode = Decoder(synthesizer(residual=None), SpectralVariation(NM, 0.0, 0.0, 0.0), CPU)
    torch.testing.assert_close(
        decode(a, torch.Generator().manual_seed(0)), mix(a, materials().spectra.float())
    )


def test_variation_multiplies_each_endmember_by_one_smooth_gain() -> None:
    """Pure pixels of one material: image over spectrum is a gain, the same in the whole image, and another image has another."""
    a = torch.zeros(3, 4, 2, 2)
    a[:, 0] = 1
    decode = Decoder(synthesizer(residual=None), SpectralVariation(NM, 0.3, 0.1, 0.1), CPU)
    gain = decode(a, torch.Generator().manual_seed(0)) / materials().spectra[0].float()[:, None, None]
    torch.testing.assert_close(gain, gain[:, :, :1, :1].expand_as(gain))
    assert bool((gain > 0).all())
    assert float((gain[0] - gain[1]).abs().min()) > 1e-3
    dark = torch.zeros_like(a)
    dark[:, 3] = 1  # shade stays dark under any gain
    assert not decode(dark, torch.Generator()).any()


def test_the_residual_is_that_of_the_sensor() -> None:
    """Shade alone: what is left is the residual; its mean and deviation are the model's."""
    a = torch.zeros(64, 4, 16, 16)
    a[:, 3] = 1
    x = Decoder(synthesizer(), SpectralVariation(NM), CPU)(a, torch.Generator().manual_seed(0))
    model = residual()
    torch.testing.assert_close(x.mean((0, 2, 3)), model.mean, atol=2e-3, rtol=0)
    torch.testing.assert_close(x.std((0, 2, 3)), torch.diagonal(model.covariance()).sqrt(), rtol=0.15, atol=0)


def test_images_are_unmixed_once() -> None:
    synth, x = synthesizer(), images()
    a = unmixed(synth, x)
    assert a.dtype == torch.uint8
    assert bool((a.sum(1, dtype=torch.int64) == 255).all())
    torch.testing.assert_close(a / 255, synth.unmix(x), atol=1 / 255, rtol=0)


def test_no_map_is_seen_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Tensor] = []
    whole = pretraining.describe

    def watched(a: Tensor) -> Tensor:
        seen.extend(a)
        return whole(a)

    monkeypatch.setattr(pretraining, "describe", watched)
    quick(synthesizer(residual=None))
    simplex.check(torch.stack(seen))
    means = torch.stack([x[0].mean() for x in seen])
    assert len(means) == 512 + 24  # for the statistics, and for four steps
    assert len(means.unique()) > 0.85 * len(means)  # one in eight is joined to itself


# ---- the training ----


def test_bands_and_targets_are_standardised_by_what_is_drawn() -> None:
    synth = synthesizer()
    net = quick(synth, Recipe("test_resnet", steps=1, batch_size=2, lr=1e-12, warmup=0))
    decode, rng = Decoder(synth, SpectralVariation(NM), CPU), torch.Generator().manual_seed(1)
    a = unmixed(synth, images())
    x = torch.cat([decode(join(a, torch.arange(8), rng), rng) for _ in range(60)])
    torch.testing.assert_close(net.mean.flatten(), x.mean((0, 2, 3)), rtol=0.1, atol=0)
    torch.testing.assert_close(net.std.flatten(), x.std((0, 2, 3)), rtol=0.2, atol=0)
    assert not net.training
    assert predict(net, x).shape == (480, 12)


def test_the_seed_decides_everything() -> None:
    first = quick(synthesizer(), seed=3)
    torch.randn(5)  # whatever happens elsewhere
    assert same(first, quick(synthesizer(), seed=3))
    assert not same(first, quick(synthesizer(), seed=4))


def test_the_random_state_stays_as_it_was() -> None:
    torch.manual_seed(0)
    wanted = torch.rand(3)
    torch.manual_seed(0)
    quick(synthesizer())
    assert torch.equal(torch.rand(3), wanted)


def test_an_interrupted_run_ends_with_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps, path, whole = [0], tmp_path / "run.pt", pretraining.describe
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # jobs in the background ignore it

    def stopping(a: Tensor) -> Tensor:
        """Asks to stop during the third step; the statistics draw more images at once."""
        if len(a) == 6:
            steps[0] += 1
            if steps[0] == 3:
                os.kill(os.getpid(), signal.SIGINT)
        return whole(a)

    with monkeypatch.context() as patch:
        patch.setattr(pretraining, "describe", stopping)
        with pytest.raises(KeyboardInterrupt):
            quick(synthesizer(), checkpoint=path)
        signal.signal(signal.SIGINT, before)
        assert torch.load(path, weights_only=True)["step"] == 3
        resumed = quick(synthesizer(), checkpoint=path)
    assert steps[0] == 4
    assert same(resumed, quick(synthesizer()))
    for changed in ({"endmember_std": 0.3}, {"seed": 1}):
        with pytest.raises(ValueError, match="belongs to another run"):
            quick(synthesizer(), checkpoint=path, **changed)


def test_it_learns_to_read_compositions_of_new_images_in_any_light() -> None:
    synth = synthesizer()
    net = pretrain(
        synth, images(64), Recipe("test_resnet", steps=150, batch_size=16, lr=3e-3),
        progress=False, fabric=make_fabric(accelerator="cpu"),
    )  # fmt: skip
    a = maps(200, seed=9)
    x = Decoder(synth, SpectralVariation(NM), CPU)(a, torch.Generator().manual_seed(2))
    told, truth = predict(net, x)[:, :4], a.mean((2, 3))
    right = torch.stack([torch.corrcoef(torch.stack([told[:, p], truth[:, p]]))[0, 1] for p in range(4)])
    assert float(right.min()) > 0.7


def test_a_training_starts_from_the_backbone() -> None:
    """After one step of (almost) no length the network is the pretrained one, but for its new last layer."""
    synth = synthesizer()
    net = quick(synth)
    few = LabelledImages(images(), torch.arange(8) % 3, ("a", "b", "c"), NM)
    recipe = Recipe("test_resnet", steps=1, batch_size=8, lr=1e-12, warmup=0)
    plain, started = (train_classifier(few, recipe, start=s).model.network for s in (None, net.backbone()))
    parameters = dict(started.named_parameters())
    for name, weight in net.network.named_parameters():
        if name.startswith("fc."):
            assert torch.equal(parameters[name], dict(plain.named_parameters())[name])
        else:
            torch.testing.assert_close(parameters[name], weight)


def test_the_backbone_is_the_network_without_its_last_layer() -> None:
    net = quick(synthesizer())
    weights = net.backbone()
    assert set(net.network.state_dict()) - set(weights) == {"fc.weight", "fc.bias"}
    own = timm.create_model("test_resnet", in_chans=5, num_classes=7)
    missing, unexpected = own.load_state_dict(weights, strict=False)
    assert sorted(missing) == ["fc.bias", "fc.weight"]
    assert unexpected == []


@pytest.mark.parametrize(
    "change",
    [
        {"imbalance": "weights"},
        {"synthetic_weight": 0.5},
        {"split_batch_norm": True},
        {"label_smoothing": 0.1},
    ],
)
def test_what_has_no_meaning_is_refused(change: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(pretraining, "unmixed", None)  # before any work
        with pytest.raises(ValueError, match=f"{next(iter(change))} has no meaning in pretraining"):
            quick(synthesizer(), Recipe("test_resnet", steps=2, batch_size=4, **change))


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        (torch.rand(5, 8, 8), ShapeError),
        (torch.rand(0, 5, 8, 8), NoDataError),
        (torch.rand(2, 4, 8, 8), BandCountError),
        (torch.full((2, 5, 8, 8), torch.nan), NoDataError),
        (torch.ones(2, 5, 8, 8, dtype=torch.int32), RadiometryError),
        (torch.full((2, 5, 8, 8), 3000.0), RadiometryError),
    ],
)
def test_images_that_do_not_fit_are_refused(bad: Tensor, error: type[Exception]) -> None:
    with pytest.raises(error):
        pretrain(synthesizer(), bad, TEST, progress=False)


# ---- the command ----


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    generator = get_generator("ddpm", num_endmembers=4, size=(8, 8), widths=(16, 16))
    synthesizer(generator=generator, classes=()).save_pretrained(tmp_path / "sensor")
    (tmp_path / "images").mkdir()
    for i, x in enumerate(images(4)):
        write_hsi(tmp_path / "images" / f"{i}.tif", x, NM)
    return tmp_path


def test_the_command_writes_weights_that_timm_takes(
    folders: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = folders / "weights.safetensors"
    words = ["pretrain", str(folders / "sensor"), str(folders / "images"), "--out", str(out), "--tile", "8",
             "--recipe.model", "test_resnet", "--recipe.steps", "2", "--recipe.batch_size", "4",
             "--accelerator", "cpu"]  # fmt: skip
    assert main(words) == 0
    assert "16 images of 8×8 pixels, 5 bands" in capsys.readouterr().err
    assert sorted(f.name for f in folders.iterdir()) == ["images", "sensor", "weights.safetensors"]
    own = timm.create_model("test_resnet", in_chans=5, num_classes=7)
    missing, unexpected = own.load_state_dict(load_file(out), strict=False)
    assert (sorted(missing), unexpected) == (["fc.bias", "fc.weight"], [])
    with safe_open(out, "pt") as f:
        facts = f.metadata()
    assert (facts["model"], facts["bands"], facts["steps"]) == ("test_resnet", "5", "2")
    assert json.loads(facts["wavelengths"]) == NM.tolist()
    assert len(json.loads(facts["mean"])) == len(json.loads(facts["std"])) == 5
    before = out.read_bytes()
    assert main(words) == 2
    assert "there already" in capsys.readouterr().err
    assert out.read_bytes() == before
    assert main([*words[:4], str(out.with_suffix(".pt")), *words[5:]]) == 2


def test_the_command_says_what_does_not_fit(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def said(*more: str) -> str:
        words = [
            "pretrain",
            str(folders / "sensor"),
            str(folders / "images"),
            "--out",
            str(folders / "w.safetensors"),
        ]
        assert main([*words, "--accelerator", "cpu", *more]) == 2
        assert not (folders / "w.safetensors").exists()
        return capsys.readouterr().err

    assert "no image has 99×99 pixels" in said("--tile", "99")
    write_hsi(folders / "images" / "other.tif", images(1, 20)[0], NM)
    assert "images are of 2 sizes, (16, 16) to (20, 20): give tile" in said()
    for file in (folders / "images").iterdir():
        file.unlink()
    write_hsi(folders / "images" / "0.tif", images(1)[0], NM + 30)
    assert "bring the bundle to the sensor by ubf adapt" in said()
