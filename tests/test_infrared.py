"""Sensors that see the infrared: adapt and fit learn it from images, and pictures, maps and bundles carry it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from synthesis_toys import NM, WIDE_NM, Toy, abundances, images, materials, synthesizer
from torch import Tensor

from ubf_augment import bundle, get_generator, simplex
from ubf_augment.augment import UBFAugment
from ubf_augment.errors import BundleError, LabelError, ShapeError
from ubf_augment.generators import DDPM
from ubf_augment.mixing import mix
from ubf_augment.seeding import per_sample
from ubf_augment.synthesis import HSISynthesizer
from ubf_augment.synthesis.imagery import ImageSource, cut_tiles
from ubf_augment.synthesis.infrared import learn_regression, picture_statistics
from ubf_augment.unmixing import LeastSquares, RGBRegression, UnmixingModel, fcls
from ubf_augment.unmixing.regression import describe

NIR = 5  # 842 nm of WIDE_NM
RGB = [3, 2, 1]


def scenes(n: int = 24, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Images whose leaves are dark in the infrared in classes 1 and 2, and bright in class 0: no colour tells which."""
    y = torch.arange(n) % 3
    a, e = abundances(n, 16, seed), materials(WIDE_NM).spectra
    dark = e.clone()
    dark[1, NIR:] = 0.08
    return torch.stack(
        [mix(m[None], e if k == 0 else dark)[0] for m, k in zip(a, y.tolist(), strict=True)]
    ), y


@pytest.fixture(scope="module")
def adapted() -> HSISynthesizer:
    x, y = scenes()
    return synthesizer().adapt(x, wavelengths=WIDE_NM, labels=y.tolist())


def encoder(**options: Any) -> UnmixingModel:
    torch.manual_seed(0)
    return UnmixingModel(materials(), width=8, blocks=1, rgb_width=8, rgb_blocks=1, **options).eval()


def rms(x: Tensor) -> float:
    return float(x.square().mean().sqrt())


# ---- when it is learned


def test_only_sensors_that_see_the_infrared_learn_it(adapted: HSISynthesizer) -> None:
    assert adapted.regression is not None
    assert not adapted.class_endmembers
    report = adapted.card["adaptation"]
    assert len(report["rmse_per_band_regression"]) == 8
    assert report["rmse_regression"] > 0
    visible = synthesizer().adapt(images(12, 16, nm=NM), wavelengths=NM)
    assert visible.regression is None
    assert synthesizer().adapt(images(4, 16), wavelengths=WIDE_NM).regression is None  # too few
    assert synthesizer().adapt(images(12, 16), wavelengths=WIDE_NM, regression=False).regression is None
    forced = synthesizer().adapt(images(12, 16, nm=NM), wavelengths=NM, regression=True)
    assert forced.regression is not None
    with pytest.raises(ShapeError, match="at least five"):
        synthesizer().adapt(images(4, 16), wavelengths=WIDE_NM, regression=True)


def test_visible_sensors_are_as_before() -> None:
    """Bit for bit what `adapt` without a regression gives."""
    x = images(12, 16, nm=NM)
    plain, default = (synthesizer().adapt(x, wavelengths=NM, **k) for k in ({"regression": False}, {}))
    assert torch.equal(plain.endmembers.spectra, default.endmembers.spectra)
    assert torch.equal(plain.sample([0, 1], seed=3), default.sample([0, 1], seed=3))


def test_class_and_regression_lower_the_infrared_error(adapted: HSISynthesizer) -> None:
    """Against the plain RGB path, and against the regression without class, on scenes never seen."""
    x, y = scenes(12, seed=5)
    seen, _ = scenes()
    plain = synthesizer().adapt(seen, wavelengths=WIDE_NM, regression=False)
    r = x[:, RGB]
    error = {
        "plain": rms((plain.mix(plain.unmix_rgb_reflectance(r)) - x)[:, NIR]),
        "unknown": rms((adapted.mix(adapted.unmix_rgb_reflectance(r)) - x)[:, NIR]),
        "class": rms((adapted.mix(adapted.unmix_rgb_reflectance(r, y)) - x)[:, NIR]),
    }
    assert error["class"] < 0.9 * error["unknown"]
    assert error["unknown"] < 1.05 * error["plain"]


def test_unlabelled_images_make_a_regression_without_classes() -> None:
    new = synthesizer().adapt(images(10, 16), wavelengths=WIDE_NM)
    assert new.regression is not None
    assert new.regression.config["num_classes"] is None
    simplex.check(new.unmix_rgb_reflectance(images(2)[:, RGB], torch.tensor([0, 2])))  # classes are no harm


def test_tiles_of_one_image_are_left_out_together() -> None:
    x, _ = scenes(6)
    tiles = cut_tiles(ImageSource(torch.cat([x, x], 3).repeat(1, 1, 5, 3)), 8)
    assert len(tiles.cubes) > 6
    model, maps, report = learn_regression(tiles, materials(WIDE_NM), rgb=(3, 2, 1))
    torch.testing.assert_close(maps[0], fcls(tiles.cubes[0][None], materials(WIDE_NM))[0])
    assert report["rmse_regression"] == pytest.approx(
        float(torch.tensor(report["rmse_per_band_regression"]).square().mean().sqrt()), rel=1e-4
    )
    assert model.rgb_index == (3, 2, 1)


# ---- what it is used for


def test_residual_and_draws_cover_what_images_have(adapted: HSISynthesizer) -> None:
    """ε is what the mixing model leaves; what colours leave open is in the draws."""
    x, _ = scenes()
    residual = adapted.residual
    assert residual is not None
    left = x - mix(fcls(x, adapted.endmembers), adapted.endmembers)
    torch.testing.assert_close(residual.mean, left.mean((0, 2, 3)), rtol=0, atol=1e-5)
    draws = torch.stack(
        [
            adapted.mix(adapted.unmix_rgb_reflectance(x[:, RGB], generator=per_sample(s, range(len(x)))))[
                :, NIR
            ]
            for s in range(20)
        ]
    )
    assert float(draws.std(0).mean()) > 0.01


def test_generated_maps_are_carried_over_by_their_colours(adapted: HSISynthesizer) -> None:
    y = [0, 1, 2, 2]
    a = adapted.sample_abundances(y, seed=4)
    simplex.check(a)
    made = adapted.generator.sample(torch.tensor(y), generator=per_sample(_seed(4), range(4)))
    source = per_sample(_seed(4), range(4))
    adapted.generator.sample(torch.tensor(y), generator=source)
    assert adapted.regression is not None
    r = mix(made, adapted.map_colours)
    want = adapted.regression.unmix_rgb(r, torch.tensor(y), source, pictures=True)
    torch.testing.assert_close(a, want, rtol=0, atol=1e-6)
    torch.testing.assert_close(a[2:3], adapted.sample_abundances([0, 1, 2], seed=4)[2:3], rtol=0, atol=1e-6)
    assert not torch.equal(a, adapted.sample_abundances(y, seed=5))
    torch.testing.assert_close(adapted.sample(y, seed=4), adapted.mix(a, y, residual=True, seed=4))
    assert not torch.equal(adapted.sample_abundances(y), adapted.sample_abundances(y))  # unseeded


def _seed(seed: int) -> int:
    from ubf_augment.seeding import derive_seed

    return derive_seed(seed, 0)


def test_pictures_get_draws(adapted: HSISynthesizer) -> None:
    shown = torch.randint(0, 256, (3, 3, 16, 16), dtype=torch.uint8)
    centre = adapted.unmix_rgb(shown, [0, 1, 2])
    draw = adapted.unmix_rgb(shown, [0, 1, 2], generator=per_sample(0, range(3)))
    assert torch.equal(centre, adapted.unmix_rgb(shown, [0, 1, 2]))
    assert rms(draw - centre) > 1e-3
    assert torch.equal(adapted.lift(shown, seed=1), adapted.lift(shown, seed=1))
    assert not torch.equal(adapted.lift(shown, seed=1), adapted.lift(shown, seed=2))
    torch.testing.assert_close(
        adapted.lift(shown, seed=1)[:1], adapted.lift(shown[:1], seed=1), rtol=0, atol=1e-5
    )
    assert adapted.unmix_rgb(shown[:0]).shape == (0, 4, 16, 16)
    assert adapted.sample_abundances(torch.zeros(0, dtype=torch.int64)).shape[0] == 0


def test_the_bank_holds_draws_of_its_pictures(adapted: HSISynthesizer) -> None:
    shown = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8)
    augment = UBFAugment(
        adapted,
        p=1.0,
        strategy="bank",
        classes=["field", "forest", "town"],
        bank={"field": shown},
        residual=False,
        seed=0,
    )
    x, _ = augment(images(8, 16), torch.zeros(8, dtype=torch.int64))
    want = adapted.mix(adapted.unmix_rgb(shown, [0] * 4, generator=torch.Generator().manual_seed(0)))
    nearest = torch.stack([(want - image).abs().amax((1, 2, 3)).amin() for image in x])
    assert float(nearest.max()) < 0.02  # kept in eight bits


def test_pictures_are_standardised_by_what_the_encoder_learned_from() -> None:
    model = encoder()
    r = torch.exp(
        torch.tensor([-2.5, -2.2, -2.8])
        + 0.5 * torch.randn(50_000, 3, generator=torch.Generator().manual_seed(0))
    )
    model.rgb_encoder.set_statistics(r)
    mean, std = picture_statistics(synthesizer(unmixing=model))
    z = describe(r.T[None, :, :, None]).flatten(2)[0, :3]
    torch.testing.assert_close(mean[:3], z.mean(1), rtol=0, atol=0.03)
    torch.testing.assert_close(std[:3], z.std(1), rtol=0, atol=0.03)
    drawn = picture_statistics(synthesizer())  # no encoder: maps of the generator
    y = torch.arange(60) % 3
    shown = describe(mix(Toy().sample(y), materials().rgb()))
    torch.testing.assert_close(drawn[0], shown.mean((0, 2, 3)), rtol=0, atol=0.1)


def test_adapting_again_starts_from_the_generators_maps(adapted: HSISynthesizer) -> None:
    x = images(10, 16)
    first, again = (s.adapt(x, wavelengths=WIDE_NM) for s in (synthesizer(), adapted))
    torch.testing.assert_close(
        first.endmembers.spectra[:, :5], again.endmembers.spectra[:, :5], rtol=0, atol=0.02
    )
    r = x[:, RGB]
    torch.testing.assert_close(adapted.encode_rgb(r), synthesizer().encode_rgb(r))


# ---- bundles


def test_bundles_keep_it(adapted: HSISynthesizer, tmp_path: Path) -> None:
    torch.manual_seed(0)
    parts = {"generator": DDPM(4, (8, 8), 3, codec="unshuffle", factor=2, widths=(16, 16), attention=())}
    x, y = scenes()
    synth = synthesizer(unmixing=encoder(), **parts).adapt(x, wavelengths=WIDE_NM, labels=y.tolist())
    path = synth.save_pretrained(tmp_path / "toy", dtype="float16")
    assert sorted(p.name for p in (path / "regression").iterdir()) == ["config.json", "model.safetensors"]
    back = HSISynthesizer.from_pretrained(path)
    full = HSISynthesizer.from_pretrained(synth.save_pretrained(tmp_path / "full"))
    assert back.regression is not None
    assert synth.regression is not None
    for name, buffer in synth.regression.state_dict().items():
        assert torch.equal(buffer, back.regression.state_dict()[name]), (
            name
        )  # exact whatever the networks' precision
    shown = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    assert torch.equal(back.lift(shown, [0, 1], seed=0), synth.lift(shown, [0, 1], seed=0))
    assert torch.equal(full.sample([0, 1], seed=0, steps=2), synth.sample([0, 1], seed=0, steps=2))


def test_a_distilled_copy_keeps_it() -> None:
    class Taught(Toy):
        def distill(self, evaluations: int, **options: Any) -> Toy:
            return Toy()

    synth = synthesizer(generator=Taught())
    x, y = scenes()
    synth = synth.adapt(x, wavelengths=WIDE_NM, labels=y.tolist())
    assert synth.distill(1).regression is synth.regression


def test_scenes_in_files_are_scenes(tmp_path: Path) -> None:
    """`without_encoders` learns the same from a folder as from memory; sensors of the visible alone learn nothing."""
    from ubf_augment.synthesis.infrared import without_encoders
    from ubf_augment.synthesis.pictures import read_scenes
    from ubf_augment.synthesis.stored import Reflectance

    x, y = scenes(9)
    names = ("field", "forest", "town")
    shown = Reflectance(torch.randint(20, 200, (3, 3, 16, 16), dtype=torch.uint8), 0.5)
    found = []
    for folder in (None, tmp_path / "scenes"):
        hsis = [(image, WIDE_NM) for image in x]
        stored, _ = read_scenes(hsis, [names[k] for k in y.tolist()], folder=folder)
        model = without_encoders(materials(WIDE_NM), stored, shown, classes=names)
        assert isinstance(model, RGBRegression)
        found.append(model.state_dict())
    for name, buffer in found[0].items():
        assert torch.equal(buffer, found[1][name]), name
    few, _ = read_scenes([(image, WIDE_NM) for image in x[:4]])
    assert type(without_encoders(materials(WIDE_NM), few, shown)) is LeastSquares
    visible, _ = read_scenes([(image, NM) for image in images(9, 16, nm=NM)])
    assert type(without_encoders(materials(), visible, shown)) is LeastSquares


def test_damage_is_found(tmp_path: Path) -> None:
    from ubf_augment.synthesis.storage import pack, unpack

    x, y = scenes()
    generator = get_generator("gmm", num_endmembers=4, size=(16, 16), num_classes=3)
    generator.fit(abundances(12), labels=torch.arange(12) % 3, steps=2, progress=False)
    synth = synthesizer(generator=generator).adapt(x, wavelengths=WIDE_NM, labels=y.tolist())
    whole = pack(synth, "toy")
    part = whole.components["regression"]
    config = dict(part.config)
    for change in (
        {"num_classes": 2},
        {"num_classes": 500_000},
        {"names": ["a", "b"]},
        {"wavelengths": [500.0, 400.0]},
        {"colour": 1},
    ):
        broken = bundle.Component(config | change, part.state)
        spoilt = bundle.Bundle(whole.index, whole.tensors, dict(whole.components) | {"regression": broken})
        with pytest.raises(BundleError, match="does not describe"):
            unpack(HSISynthesizer, spoilt, tmp_path)
    path = synth.save_pretrained(tmp_path / "toy")
    file = path / "regression" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"rgb_index": [0, 1, 2]}))
    with pytest.raises(BundleError, match="altered"):
        HSISynthesizer.from_pretrained(path)


def test_parts_that_do_not_fit_are_refused(adapted: HSISynthesizer) -> None:
    with pytest.raises(ShapeError, match="the regression is of endmembers"):
        synthesizer(regression=adapted.regression)  # of other bands
    model = RGBRegression(materials(), num_classes=2)
    with pytest.raises(LabelError, match="regression knows 2 classes, the generator 3"):
        synthesizer(regression=model)


# ---- fit and finetune


def test_fit_without_encoders_learns_it(tmp_path: Path) -> None:
    x, y = scenes(12)
    names = ["field", "forest", "town"]
    pictures = {k: torch.randint(20, 200, (3, 3, 16, 16), dtype=torch.uint8) for k in names}
    options: dict[str, Any] = {
        "num_endmembers": 4, "size": (16, 16), "restarts": 1, "refine_iterations": 10, "unmixing_steps": 0, "generator": "gmm",
        "generator_steps": 2, "residual_rank": 2,
    }  # fmt: skip
    hsis, labels = [(image, WIDE_NM) for image in x], [names[k] for k in y.tolist()]
    options |= {"hsi_labels": labels, "progress": False, "workdir": tmp_path / "work"}
    synth = HSISynthesizer.fit(hsis, pictures, **options)
    assert isinstance(synth.unmixing, RGBRegression)
    assert synth.regression is None  # its generator makes maps of this sensor
    assert synth.unmixing.config["num_classes"] == 3
    simplex.check(synth.sample_abundances(names, seed=0))
    shown = pictures["town"]
    draw = synth.unmix_rgb(shown, ["town"] * 3, generator=per_sample(0, range(3)))
    assert rms(draw - synth.unmix_rgb(shown, ["town"] * 3)) > 1e-3
    torch.testing.assert_close(synth.unmix(x[:2]), fcls(x[:2], synth.endmembers))
    back = HSISynthesizer.from_pretrained(synth.save_pretrained(tmp_path / "bundle"))
    assert torch.equal(back.unmix_rgb(shown, ["field"] * 3), synth.unmix_rgb(shown, ["field"] * 3))
    again = HSISynthesizer.fit(hsis, pictures, **options)
    assert torch.equal(again.endmembers.spectra, synth.endmembers.spectra)
    nir = synth.adapt(x, wavelengths=WIDE_NM, labels=y.tolist())  # and is a start for other sensors
    assert nir.regression is not None
    assert nir.unmixing is synth.unmixing


def test_a_finetuned_generator_is_in_the_sensors_space(adapted: HSISynthesizer) -> None:
    small: dict[str, Any] = {
        "codec": "unshuffle",
        "factor": 2,
        "widths": (16, 16),
        "layers": 1,
        "attention": (),
    }
    generator = get_generator("ddpm", num_endmembers=4, size=(8, 8), num_classes=3, **small)
    x, y = scenes(12)
    synth = synthesizer(generator=generator).adapt(x, wavelengths=WIDE_NM, labels=y.tolist())
    tuned = synth.finetune(
        x,
        y,
        classes=["bright", "dark", "new"],
        class_map={"bright": "field", "dark": "town"},
        steps=2,
        progress=False,
    )
    assert tuned.regression is None
    assert isinstance(tuned.unmixing, RGBRegression)
    assert synth.regression is not None
    r = x[:2, RGB]
    for new, old in ((0, 0), (1, 2)):
        k = torch.tensor([new, new]), torch.tensor([old, old])
        assert torch.equal(tuned.unmix_rgb_reflectance(r, k[0]), synth.unmix_rgb_reflectance(r, k[1]))
    assert torch.equal(tuned.unmix_rgb_reflectance(r, torch.tensor([2, 2])), synth.unmix_rgb_reflectance(r))
