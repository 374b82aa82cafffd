"""The unmixing networks on made scenes whose truth is known."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ubf_augment import simplex
from ubf_augment.errors import BandCountError, LabelError, NoDataError, ShapeError, WavelengthError
from ubf_augment.mixing import mix
from ubf_augment.seeding import per_sample
from ubf_augment.spectra import Endmembers
from ubf_augment.unmixing import AbundanceEncoder, UnmixingModel, fcls

NM = [450.0, 490.0, 530.0, 560.0, 610.0, 665.0, 750.0, 850.0]
BLUE_GREEN_RED = [1, 3, 5]
# Two plants that look alike and differ in the infrared; soil; shade.
SPECTRA = torch.tensor(
    [
        [0.08, 0.10, 0.20, 0.22, 0.10, 0.08, 0.70, 0.75],
        [0.08, 0.10, 0.20, 0.22, 0.10, 0.08, 0.20, 0.15],
        [0.15, 0.20, 0.25, 0.30, 0.36, 0.42, 0.46, 0.50],
        [0.00, 0.00, 0.00, 0.00, 0.00, 0.00, 0.00, 0.00],
    ]
)
E = Endmembers(SPECTRA, NM, ("maple", "spruce", "soil", "shade"))
SMALL: dict[str, Any] = {"width": 16, "blocks": 1, "rgb_width": 16, "rgb_blocks": 1}
FIT: dict[str, Any] = {"batch_size": 4, "crop": 12, "progress": False}


def abundances(n: int, size: int = 24, seed: int = 0, plant: int | None = None) -> Tensor:
    """Smooth maps (N, 4, size, size); ``plant`` says which of the two plants occurs."""
    g = torch.Generator().manual_seed(seed)
    z = torch.nn.functional.interpolate(
        torch.randn(n, 4, 5, 5, generator=g), size, mode="bicubic", align_corners=True
    )
    a = torch.softmax(4 * z, 1)
    if plant is not None:
        a[:, plant] += a[:, 1 - plant]
        a[:, 1 - plant] = 0
    return a


def images(n: int, seed: int = 0, plant: int | None = None) -> Tensor:
    x = mix(abundances(n, seed=seed, plant=plant), SPECTRA)
    return x + 0.002 * torch.randn(x.shape, generator=torch.Generator().manual_seed(seed + 1))


def build(**options: Any) -> UnmixingModel:
    torch.manual_seed(0)
    return UnmixingModel(E, **(SMALL | options)).eval()


def shaken(model: UnmixingModel) -> UnmixingModel:
    """Every parameter moved at random, so that zero-initialised layers take part."""
    g = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=g))
    model.hsi_encoder.set_statistics(torch.rand(100, len(NM), generator=g))
    model.rgb_encoder.set_statistics(torch.rand(100, 3, generator=g))
    return model


def rms(x: Tensor) -> float:
    return float(x.square().mean().sqrt())


# ---- construction


def test_endmembers_are_kept_and_shade_is_seen() -> None:
    model = build()
    assert torch.allclose(
        model.endmembers.spectra, SPECTRA.clamp_min(1e-4) * (SPECTRA.sum(1, keepdim=True) > 0)
    )
    assert model.shade
    assert model.endmembers.names == E.names
    assert model.rgb_index == (5, 3, 1)
    assert not UnmixingModel(Endmembers(SPECTRA[:3], NM), **SMALL).shade


def test_set_spectra() -> None:
    model = build()
    new = 0.01 + torch.rand(4, len(NM))
    model.set_spectra(new)
    assert torch.allclose(model.spectra[:3], new[:3], atol=1e-6)
    assert (model.spectra[3] == 0).all()
    with pytest.raises(ShapeError):
        model.set_spectra(new[:3])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_classes": 3},
        {"probabilistic": True},
        {"rgb_index": (6, 3, 0), "prior_weight": 0.5, "blocks": 2},
    ],
)
def test_config_and_state_rebuild_the_same_model(options: dict[str, Any]) -> None:
    model = shaken(build(**options))
    config = json.loads(json.dumps(model.config))
    torch.manual_seed(99)
    again = UnmixingModel.from_config(config)
    again.load_state_dict(model.state_dict())
    assert again.config == model.config
    assert torch.equal(again.endmembers.spectra, model.endmembers.spectra)
    assert torch.equal(again.endmembers.wavelengths, model.endmembers.wavelengths)
    x = images(2)
    y = torch.tensor([0, 2]) if "num_classes" in options else None
    with torch.no_grad():
        assert torch.equal(again.unmix(x), model.unmix(x))
        assert torch.equal(again.unmix_rgb(x[:, [5, 3, 1]], y), model.unmix_rgb(x[:, [5, 3, 1]], y))


def test_config_without_shade() -> None:
    model = UnmixingModel(Endmembers(SPECTRA[:3], NM), **SMALL)
    assert not UnmixingModel.from_config(model.config).shade


@pytest.mark.parametrize("index", [(0, 1), (0, 1, 8), (-1, 2, 3)])
def test_unusable_rgb_bands(index: tuple[int, ...]) -> None:
    with pytest.raises(BandCountError, match="three of the 8 bands"):
        build(rgb_index=index)


def test_a_sensor_without_rgb_bands() -> None:
    infrared = Endmembers(torch.rand(2, 3), [900, 1200, 1600])
    with pytest.raises(WavelengthError, match="red"):
        UnmixingModel(infrared)
    assert UnmixingModel(infrared, rgb_index=(2, 1, 0), **SMALL).rgb_index == (2, 1, 0)


# ---- encoders


def test_an_untrained_model_gives_least_squares_abundances() -> None:
    x = images(2)
    with torch.no_grad():
        assert (build().unmix(x) - fcls(x, E)).abs().max() < 4e-3  # floors of 1e-3 under each abundance


@pytest.mark.parametrize(("h", "w"), [(1, 1), (1, 9), (7, 5)])
@pytest.mark.parametrize("options", [{}, {"num_classes": 2, "probabilistic": True}])
def test_abundances_lie_on_the_simplex_for_any_size(h: int, w: int, options: dict[str, Any]) -> None:
    model = shaken(build(**options))
    x = 2 * torch.rand(3, len(NM), h, w) - 0.2
    with torch.no_grad():
        for a in (
            model.unmix(x),
            model.unmix_rgb(x[:, [5, 3, 1]], refine=False),
            model.unmix_rgb(x[:, [5, 3, 1]]),
            model.unmix_rgb(x[:, [5, 3, 1]], generator=torch.Generator().manual_seed(0)),
        ):
            assert a.shape == (3, 4, h, w)
            simplex.check(a)
    assert model.unmix(torch.zeros(0, len(NM), 4, 4)).shape == (0, 4, 4, 4)
    assert model.unmix_rgb(torch.zeros(0, 3, 4, 4)).shape == (0, 4, 4, 4)


@pytest.mark.parametrize("blocks", [1, 2])
def test_encoders_commute_with_translation_inside_the_receptive_field(blocks: int) -> None:
    model = shaken(build(blocks=blocks, rgb_blocks=blocks))
    x = torch.rand(1, len(NM), 26, 26)
    for encoder, cube in ((model.hsi_encoder, x), (model.rgb_encoder, x[:, :3])):
        radius = encoder.receptive_field // 2
        assert radius == 2 * blocks
        with torch.no_grad():
            whole = encoder(cube)
            part = encoder(cube[:, :, 4:22, 3:24])
        inside = slice(radius, -radius)
        expected = whole[:, :, 4:22, 3:24][:, :, inside, inside]
        assert torch.allclose(part[:, :, inside, inside], expected, atol=1e-5)


def test_receptive_field_is_what_a_pixel_depends_on() -> None:
    encoder = shaken(build(blocks=2)).hsi_encoder
    x = torch.rand(1, len(NM), 21, 21, requires_grad=True)
    encoder(x)[0, 0, 10, 10].backward()
    assert x.grad is not None
    touched = (x.grad[0].abs().sum(0) > 0).nonzero()
    assert (touched.amin(0) == 10 - encoder.receptive_field // 2).all()
    assert (touched.amax(0) == 10 + encoder.receptive_field // 2).all()


def test_images_of_a_batch_do_not_mix() -> None:
    model, x = shaken(build()), images(3)
    with torch.no_grad():
        together = model.unmix(x)
        assert torch.allclose(model.unmix(x[1:2])[0], together[1], atol=1e-5)


def test_statistics_standardise_the_input() -> None:
    encoder = AbundanceEncoder(3, 2, width=8, blocks=1)
    pixels = 0.1 + 0.3 * torch.rand(500, 3)
    encoder.set_statistics(pixels)
    z = (torch.cat([pixels, pixels.sqrt()], 1) - encoder.mean) / encoder.std
    assert torch.allclose(z.mean(0), torch.zeros(6), atol=1e-4)
    assert torch.allclose(z.std(0), torch.ones(6), atol=1e-2)
    encoder.set_statistics(pixels[:1])
    assert torch.isfinite(encoder(torch.rand(1, 3, 2, 2))).all()


def test_refined_rgb_abundances_reproduce_the_picture() -> None:
    model = shaken(build(prior_weight=1e-4))
    rgb = mix(abundances(2, seed=5), SPECTRA)[:, [5, 3, 1]]
    colours = model.spectra.detach()[:, [5, 3, 1]]
    model.set_spectra(SPECTRA)
    colours = model.spectra.detach()[:, [5, 3, 1]]
    with torch.no_grad():
        rough, fine = model.unmix_rgb(rgb, refine=False), model.unmix_rgb(rgb)
    assert rms(mix(fine, colours) - rgb) < 1e-3
    assert rms(mix(fine, colours) - rgb) < 0.05 * rms(mix(rough, colours) - rgb)
    model.prior_weight = 1e6
    with torch.no_grad():
        rough = model.unmix_rgb(rgb, refine=False)
        assert torch.allclose(model.unmix_rgb(rgb), rough, atol=1e-3)


# ---- training


def test_fit_lowers_the_error_and_keeps_endmembers_positive() -> None:
    g = torch.Generator().manual_seed(0)
    wrong = (SPECTRA * torch.exp(0.4 * torch.randn(SPECTRA.shape, generator=g))).clamp_min(1e-4)
    wrong[-1] = 0
    model = build()
    model.set_spectra(wrong)
    x, unseen = images(4), images(2, seed=50)
    with torch.no_grad():
        before = rms(mix(model.unmix(unseen), model.endmembers) - unseen)
    history = model.fit(list(x), steps=100, endmember_lr=2e-2, seed=0, **FIT)
    with torch.no_grad():
        after = rms(mix(model.unmix(unseen), model.endmembers) - unseen)
        rgb = rms(mix(model.unmix_rgb(unseen[:, [5, 3, 1]]), model.endmembers)[:, :6] - unseen[:, :6])
    assert after < 0.6 * before
    assert rgb < 0.03
    assert history.loss[-1] < 0.9 * history.loss[0]
    e = model.endmembers.spectra
    assert (e[:3] > 0).all()
    assert (e[3] == 0).all()
    assert not model.training
    assert model.theta.requires_grad


def test_endmembers_stay_positive_under_large_steps() -> None:
    model = build()
    model.fit(list(images(2)), steps=30, endmember_lr=0.5, **FIT)
    assert (model.spectra[:3] > 0).all()
    assert (model.spectra[3] == 0).all()


def test_fit_can_leave_the_endmembers() -> None:
    model = build()
    before = model.endmembers.spectra
    model.fit(list(images(2)), steps=5, learn_endmembers=False, **FIT)
    assert torch.equal(model.endmembers.spectra, before)


def test_fit_takes_images_of_any_size_and_pictures() -> None:
    model = build()
    x = images(2)
    pictures = x[:, [5, 3, 1]]
    history = model.fit([x[0], x[1, :, :7, :9]], pictures, steps=5, seed=1, **FIT)
    assert all(torch.isfinite(torch.tensor(history.loss)))


def class_data() -> tuple[list[Tensor], Tensor]:
    """Scenes of class 0 hold the first plant, those of class 1 the second."""
    x = torch.cat([images(4, seed=k, plant=k) for k in range(2)])
    return list(x), torch.tensor([0] * 4 + [1] * 4)


def test_the_class_resolves_what_red_green_blue_cannot() -> None:
    x, y = class_data()
    errors = {}
    for name, options, labels in (("blind", {}, None), ("class", {"num_classes": 2}, y)):
        model = build(**options)
        model.fit(x, labels=labels, steps=120, learn_endmembers=False, lr=1e-2, **FIT)
        found = 0.0
        for k in range(2):
            unseen = images(3, seed=70 + k, plant=k)
            given = torch.full((3,), k) if labels is not None else None
            with torch.no_grad():
                a = model.unmix_rgb(unseen[:, [5, 3, 1]], given)
            found += rms((mix(a, model.endmembers) - unseen)[:, 6:]) / 2
        errors[name] = found
    assert errors["class"] < 0.5 * errors["blind"]  # in the two infrared bands
    with torch.no_grad():  # without the class it does what a blind encoder does
        a = model.unmix_rgb(unseen[:, [5, 3, 1]], refine=False)
    assert rms((mix(a, model.endmembers) - unseen)[:, :6]) < 0.03


def test_the_rgb_encoder_starts_from_a_regression_to_abundances() -> None:
    x = images(2, seed=5)
    model, rgb = build(), x[:, [5, 3, 1]]
    with torch.no_grad():
        assert torch.allclose(
            model.unmix_rgb(rgb, refine=False), torch.tensor(1 / len(SPECTRA))
        )  # knows nothing yet
    model.rgb_encoder.set_statistics(rgb.movedim(1, -1).reshape(-1, 3))
    model.set_regression(x)
    features = model._quadratic(rgb).movedim(1, -1).reshape(-1, 10).double().numpy()
    target = fcls(x, model.spectra.detach()).movedim(1, -1).reshape(len(features), -1).double().numpy()
    best = np.linalg.lstsq(features, target, rcond=None)[0]
    ours = features @ model.regression.double().numpy() - target
    assert np.square(ours).mean() <= 1.001 * np.square(features @ best - target).mean()
    with torch.no_grad():
        start, untrained = model.rgb_start(rgb), model.unmix_rgb(rgb, refine=False)
    simplex.check(start)
    assert torch.allclose(untrained, start, atol=6e-3)  # the floor of the logarithm


def test_the_probabilistic_encoder_knows_what_it_does_not_know() -> None:
    x, _ = class_data()
    model = build(probabilistic=True)
    model.fit(x, steps=400, learn_endmembers=False, lr=1e-2, **FIT)
    unseen = torch.cat([images(3, seed=70 + k, plant=k) for k in range(2)])
    rgb = unseen[:, [5, 3, 1]]
    truth = torch.cat([abundances(3, seed=70 + k, plant=k) for k in range(2)])
    with torch.no_grad():
        mean, log_std = model.rgb_encoder.logits(rgb, start=model.rgb_start(rgb))
        assert log_std is not None
        plants, soil = truth[:, :2].sum(1) > 0.8, truth[:, 2] > 0.8
        spread = log_std.exp()
        assert spread[:, :2].mean(1)[plants].mean() > 3 * spread[:, 2][soil].mean()
        # calibrated: the true log-ratios lie about one predicted deviation away
        target = simplex.to_logits(model.unmix(unseen), eps=1e-3)
        z = (target - (mean - mean.mean(1, keepdim=True))) / spread
        assert 0.5 < rms(z) < 2
        draws = [model.unmix_rgb(rgb, generator=per_sample(s, range(6)), refine=False) for s in range(8)]
        assert torch.stack(draws).std(0)[:, 0][plants].mean() > 0.15
        assert torch.stack(draws).std(0)[:, 2][soil].mean() < 0.15
        alone = model.unmix_rgb(rgb[4:5], generator=per_sample(0, [4]), refine=False)
        assert torch.allclose(alone[0], draws[0][4], atol=1e-4)


def test_an_interrupted_fit_goes_on_to_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ubf_augment.unmixing import fitting

    x, pictures = list(images(2)), images(3, seed=9)[:, [5, 3, 1]]
    whole = build()
    expected = whole.fit(x, pictures, steps=12, seed=4, **FIT)
    path, calls, real = tmp_path / "unmixing.pt", [0], fitting._crops

    def interrupted(*args: Any) -> Any:
        calls[0] += 1
        if calls[0] == 9:  # two calls a step: in the fifth
            signal.raise_signal(signal.SIGINT)
        return real(*args)

    monkeypatch.setattr(fitting, "_crops", interrupted)
    old = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job starts with it ignored
    try:
        with pytest.raises(KeyboardInterrupt):
            build().fit(x, pictures, steps=12, seed=4, checkpoint=path, **FIT)
    finally:
        signal.signal(signal.SIGINT, old)
    monkeypatch.setattr(fitting, "_crops", real)
    assert path.exists()
    resumed = build()
    history = resumed.fit(x, pictures, steps=12, seed=4, checkpoint=path, **FIT)
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name
    assert history.loss == expected.loss
    assert history.steps == expected.steps
    finished = build()
    finished.fit(x, pictures, steps=12, seed=4, checkpoint=path, **FIT)
    assert torch.equal(finished.theta, whole.theta)


# ---- bad input


@pytest.mark.parametrize(
    ("x", "error"),
    [
        (torch.rand(8, 6, 6), ShapeError),
        (torch.rand(1, 7, 6, 6), BandCountError),
        (torch.full((1, 8, 2, 2), float("nan")), NoDataError),
        (torch.full((1, 8, 2, 2), float("inf")), NoDataError),
    ],
)
def test_unmix_refuses(x: Tensor, error: type[Exception]) -> None:
    with pytest.raises(error):
        build().unmix(x)
    with pytest.raises(error):
        build().unmix_rgb(x[..., :3, :, :] if x.shape[-3] == 8 else x)


@pytest.mark.parametrize("y", [torch.tensor([0, 4]), torch.tensor([-1, 0]), torch.tensor([0])])
def test_unmix_rgb_refuses_labels(y: Tensor) -> None:
    model = build(num_classes=3)
    model.unmix_rgb(torch.rand(2, 3, 4, 4), torch.tensor([0, 3]))  # 3: unknown
    with pytest.raises(LabelError, match="integers from 0 to 3"):
        model.unmix_rgb(torch.rand(2, 3, 4, 4), y)


@pytest.mark.parametrize(
    ("hsis", "options", "error"),
    [
        ([], {}, ShapeError),
        ([torch.rand(1, 8, 6, 6)], {}, ShapeError),
        ([torch.rand(7, 6, 6)], {}, BandCountError),
        ([torch.full((8, 6, 6), float("nan"))], {}, NoDataError),
        ([torch.rand(8, 6, 6)], {"rgb": torch.rand(3, 6, 6)}, ShapeError),
        ([torch.rand(8, 6, 6)], {"rgb": torch.rand(0, 3, 6, 6)}, ShapeError),
        ([torch.rand(8, 6, 6)], {"rgb": torch.rand(1, 4, 6, 6)}, ShapeError),
        ([torch.rand(8, 6, 6)], {"rgb": torch.full((1, 3, 6, 6), float("nan"))}, NoDataError),
        ([torch.rand(8, 6, 6)], {"labels": torch.tensor([0, 1])}, LabelError),
        ([torch.rand(8, 6, 6)], {"labels": torch.tensor([3])}, LabelError),
        ([torch.rand(8, 6, 6)], {"rgb": torch.rand(2, 3, 6, 6), "rgb_labels": torch.tensor([0])}, LabelError),
        ([torch.rand(8, 6, 6)], {"rgb_labels": torch.tensor([0])}, LabelError),
    ],
)
def test_fit_refuses(hsis: list[Tensor], options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        build(num_classes=2).fit(hsis, steps=1, progress=False, **options)


def test_labels_need_a_model_with_classes() -> None:
    with pytest.raises(LabelError, match="num_classes"):
        build().fit([torch.rand(8, 6, 6)], labels=torch.tensor([0]), steps=1, progress=False)
