"""MST++: attention by hand, what it learns, what it refuses, and its pictures as an augmentation."""

from __future__ import annotations

import math
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import CLASSES, NM, E, real_batch, tiny_synth
from torch import Tensor, nn

from ubf_augment import UBFAugment, UnmixingModel, metrics
from ubf_augment.baselines import MSTPlusPlus, SpectralAttention, mrae
from ubf_augment.baselines.mstpp import pad_to_multiple
from ubf_augment.errors import (
    BandCountError,
    BundleError,
    NoDataError,
    RadiometryError,
    ShapeError,
    WavelengthError,
)
from ubf_augment.radiometry import to_reflectance
from ubf_augment.sources import Reconstructor
from ubf_augment.training import make_fabric
from ubf_augment.unmixing import fitting

SMALL: dict[str, Any] = {"width": 8, "stages": 1}
FIT: dict[str, Any] = {"batch_size": 4, "crop": 12, "progress": False}
RGB = [2, 1, 0]  # the bands of red, green, blue among NM


def small(**changes: Any) -> MSTPlusPlus:
    return MSTPlusPlus(NM, **{**SMALL, **changes})


def linear_images(n: int, size: int = 24, seed: int = 0) -> Tensor:
    """Smooth red, green and blue in 0.05–0.5; two more bands are linear in them."""
    g = torch.Generator().manual_seed(seed)
    coarse = torch.rand(n, 3, 5, 5, generator=g)
    rgb = 0.05 + 0.45 * nn.functional.interpolate(coarse, (size, size), mode="bilinear")
    r, green, b = rgb.unbind(1)
    return torch.stack([b, green, r, 0.1 + 0.8 * r - 0.3 * green, 0.4 * r + 0.2 * green + 0.3 * b], 1)


def cpu() -> Any:
    return make_fabric(accelerator="cpu")


# ---- the network


def attention_alone(channels: int, heads: int) -> SpectralAttention:
    """Queries, keys and values are the input, the heads' outputs the output."""
    attention = SpectralAttention(channels, heads)
    eye = torch.eye(channels)[:, :, None, None]
    with torch.no_grad():
        attention.qkv.weight.copy_(torch.cat([eye, eye, eye]))
        attention.join.weight.copy_(eye)
        attention.join.bias.zero_()  # type: ignore[union-attr]
        for p in attention.positions.parameters():
            p.zero_()
    return attention


def test_attention_by_hand() -> None:
    """Maps (1, 0) and (3, 4): unit maps (1, 0) and (0.6, 0.8), scores 1 and 0.6; exp(0.4 σ) = 3 weighs them 3 : 1."""
    attention = attention_alone(2, 1)
    nn.init.constant_(attention.sigma, 2.5 * math.log(3))
    x = torch.tensor([[1.0, 0.0], [3.0, 4.0]]).view(1, 2, 1, 2)
    expected = torch.tensor([[1.5, 1.0], [2.5, 3.0]]).view(1, 2, 1, 2)
    torch.testing.assert_close(attention(x), expected)
    torch.testing.assert_close(attention(10 * x), 10 * expected)  # the weights do not depend on brightness


def test_heads_attend_among_themselves_and_pixels_have_no_order() -> None:
    attention = attention_alone(4, 2)
    x = torch.rand(2, 4, 3, 5)
    changed = x.clone()
    changed[:, 2:] = torch.rand(2, 2, 3, 5)
    assert torch.equal(attention(x)[:, :2], attention(changed)[:, :2])
    assert not torch.allclose(attention(x)[:, 2:], attention(changed)[:, 2:])
    order = torch.randperm(15)
    shuffled = x.flatten(2)[..., order].view_as(x)
    torch.testing.assert_close(attention(shuffled).flatten(2), attention(x).flatten(2)[..., order])
    with pytest.raises(ValueError, match="5 channels cannot be split into 2 heads"):
        SpectralAttention(5, 2)


def test_the_papers_configuration_has_its_number_of_parameters() -> None:
    model = MSTPlusPlus(range(400, 701, 10), stages=3, width=31)
    count = sum(p.numel() for p in model.parameters())
    assert abs(count / 1.62e6 - 1) < 0.01  # the paper: 1.62 M


@pytest.mark.parametrize("size", [(13, 17), (8, 12), (1, 1), (2, 3), (1, 9)])
def test_any_size(size: tuple[int, int]) -> None:
    made = small()(torch.rand(2, 3, *size))
    assert made.shape == (2, 5, *size)
    assert torch.isfinite(made).all()


def test_maps_are_continued_by_reflection() -> None:
    def row(*values: float) -> Tensor:
        return torch.tensor(values).view(1, 1, 1, -1).expand(1, 1, 4, -1)

    assert torch.equal(pad_to_multiple(row(0, 1, 2, 3, 4), 4), row(0, 1, 2, 3, 4, 3, 2, 1))
    assert torch.equal(pad_to_multiple(row(0, 1), 4), row(0, 1, 0, 1))
    assert torch.equal(pad_to_multiple(row(7), 4), row(7, 7, 7, 7))
    x = torch.rand(1, 2, 8, 4)
    assert pad_to_multiple(x, 4) is x
    assert torch.equal(pad_to_multiple(x[..., :3, :], 4)[:, :, 3], x[:, :, 1])


def test_an_image_does_not_depend_on_its_batch() -> None:
    model, rgb = small(), torch.rand(5, 3, 9, 9)
    whole = model.reconstruct(rgb)
    torch.testing.assert_close(model.reconstruct(rgb, batch_size=2), whole, atol=1e-5, rtol=0)
    torch.testing.assert_close(model.reconstruct(rgb[3:4])[0], whole[3], atol=1e-5, rtol=0)
    assert model.reconstruct(rgb[:0]).shape == (0, 5, 9, 9)


def test_gradients_reach_every_parameter() -> None:
    model = small(stages=2, blocks=2)
    x = linear_images(2, 16)
    mrae(model(model.rgb(x)), x).backward()
    assert not [k for k, p in model.named_parameters() if p.grad is None or not bool(p.grad.abs().sum() > 0)]


def test_reflectance_is_not_negative_and_z_counts_in_deviations() -> None:
    model = small()
    model.set_statistics(linear_images(4).movedim(1, -1).flatten(0, 2))
    with torch.no_grad():
        wild = model(torch.randn(4, 3, 8, 8) * 5)
        assert float(wild.min()) >= 0
    mean, zero = model.mean.view(1, -1, 1, 1), torch.zeros(1, 5, 1, 1, requires_grad=True)
    start = model.from_standard(zero)
    torch.testing.assert_close(start.detach(), mean, rtol=1e-5, atol=0)
    (slope,) = torch.autograd.grad(start.sum(), zero)
    torch.testing.assert_close(slope.flatten(), model.std, rtol=1e-3, atol=0)
    dark = model.from_standard(-2 * mean / model.std.view(1, -1, 1, 1))  # linearly: −mean
    assert 0 < float((dark / mean).max()) < 1e-4


# ---- training


def test_relative_error_by_hand() -> None:
    made, true = torch.tensor([0.3, 0.1, 0.006]), torch.tensor([0.2, 0.2, 0.001])
    torch.testing.assert_close(mrae(made, true, floor=0.01), torch.tensor((0.5 + 0.5 + 0.5) / 3))
    torch.testing.assert_close(mrae(made, true, floor=0.001), torch.tensor((0.5 + 0.5 + 5) / 3))
    with pytest.raises(ShapeError):
        mrae(made, true[:2])
    with pytest.raises(ValueError, match="floor"):
        mrae(made, true, floor=0.0)


def test_it_learns_a_linear_map() -> None:
    """RMSE on unseen images below 0.02; the bands' means leave 0.084, the untrained network 0.092."""
    train, unseen = linear_images(16), linear_images(8, seed=1)
    means = train.mean((0, 2, 3), keepdim=True)
    model = small()

    def error(gain: float = 1.0) -> float:
        return float(metrics.rmse(model.reconstruct(gain * model.rgb(unseen)), gain * unseen))

    model.set_statistics(train.movedim(1, -1).flatten(0, 2))
    untrained = error()
    model.fit(train, steps=70, lr=1.5e-2, batch_size=8, crop=8, fabric=cpu(), progress=False)
    assert min(untrained, float(metrics.rmse(means.expand_as(unseen), unseen))) > 0.08
    assert error() < 0.02
    assert error(1.2) < 0.025  # scaled crops were seen too


@pytest.mark.parametrize("loss", ["mrae", "charbonnier"])
def test_both_losses_fall(loss: Any) -> None:
    model = small()
    history = model.fit(linear_images(4), steps=25, lr=5e-3, loss=loss, fabric=cpu(), **FIT)
    assert sum(history.loss[-5:]) < 0.6 * sum(history.loss[:5])


def test_the_pairs_are_those_of_the_rgb_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Same bands, same crops, same brightness."""
    seen: dict[str, list[Tensor]] = {"unmixing": [], "mst++": []}
    x = linear_images(3)
    unmixing, model = UnmixingModel(E, width=8, blocks=1, rgb_width=8, rgb_blocks=1), small()
    assert model.rgb_index == unmixing.rgb_index == tuple(RGB)
    cut = unmixing.rgb_encoder.logits

    def spy(rgb: Tensor, *rest: Any) -> Any:
        seen["unmixing"].append(rgb.detach())
        return cut(rgb, *rest)

    monkeypatch.setattr(unmixing.rgb_encoder, "logits", spy)
    unmixing.fit(list(x), steps=2, fabric=cpu(), **FIT)
    model.register_forward_pre_hook(lambda _, args: seen["mst++"].append(args[0].detach()))
    model.fit(x, steps=2, fabric=cpu(), **FIT)
    assert len(seen["mst++"]) == 2
    for a, b in zip(seen["unmixing"], seen["mst++"], strict=True):
        torch.testing.assert_close(a, b)


def test_the_first_fit_sets_the_statistics() -> None:
    x, model = linear_images(3), small()
    model.fit(x, steps=1, fabric=cpu(), **FIT)
    torch.testing.assert_close(model.mean, x.mean((0, 2, 3)))
    torch.testing.assert_close(model.std, x.std((0, 2, 3), correction=0))
    model.fit(2 * x, steps=1, fabric=cpu(), **FIT)
    torch.testing.assert_close(model.mean, x.mean((0, 2, 3)))


def test_averaged_weights() -> None:
    def weights(decay: float | None) -> Tensor:
        model = small()
        model.fit(linear_images(3), steps=6, lr=1e-2, ema_decay=decay, fabric=cpu(), **FIT)
        return nn.utils.parameters_to_vector(model.parameters()).detach()

    start = nn.utils.parameters_to_vector(small().parameters()).detach()
    last, lagging = weights(None), weights(0.9)
    assert torch.equal(weights(0.0), last)
    assert 0 < float((lagging - start).norm()) < float((last - start).norm())


def test_an_interrupted_fit_goes_on_to_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, options = linear_images(3), {"steps": 8, "seed": 4, "ema_decay": 0.9, "fabric": cpu(), **FIT}
    whole = small()
    expected = whole.fit(x, **options)
    path, calls, real = tmp_path / "mstpp.pt", [0], fitting._crops

    def interrupted(*args: Any) -> Any:
        calls[0] += 1
        if calls[0] == 4:
            signal.raise_signal(signal.SIGINT)
        return real(*args)

    monkeypatch.setattr(fitting, "_crops", interrupted)
    old = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job starts with it ignored
    try:
        with pytest.raises(KeyboardInterrupt):
            small().fit(x, checkpoint=path, **options)
    finally:
        signal.signal(signal.SIGINT, old)
    assert calls[0] == 4
    resumed = small()
    history = resumed.fit(x, checkpoint=path, **options)
    assert calls[0] == 8
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name
    assert history.loss == expected.loss


# ---- files


def test_saved_and_loaded_it_reconstructs_the_same(tmp_path: Path) -> None:
    model = small(blocks=2, rgb_scale=0.4, rgb_gamma=1.8, rgb_index=(3, 1, 0))
    model.fit(linear_images(2), steps=2, fabric=cpu(), **FIT)
    loaded = MSTPlusPlus.load(model.save(tmp_path / "m"))
    assert loaded.config == model.config
    pictures = torch.randint(0, 256, (2, 3, 9, 7), dtype=torch.uint8)
    assert torch.equal(loaded.reconstruct(pictures), model.reconstruct(pictures))
    x = linear_images(1)
    loaded.fit(3 * x, steps=1, fabric=cpu(), **FIT)
    torch.testing.assert_close(loaded.mean, model.mean)  # it knows that it was fitted


def test_initial_weights_follow_their_seed() -> None:
    state = torch.get_rng_state()
    first = small().head.weight
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, small().head.weight)
    assert not torch.equal(first, small(init_seed=1).head.weight)


def test_damaged_directories_are_refused(tmp_path: Path) -> None:
    directory = small().save(tmp_path)
    text = (directory / "config.json").read_text()
    (directory / "config.json").write_text(text.replace('"width": 8', '"width": 4'))
    with pytest.raises(BundleError, match="does not hold an MST"):
        MSTPlusPlus.load(directory)
    (directory / "config.json").write_text(text.replace("mst++", "ddpm"))
    with pytest.raises(BundleError, match="'ddpm'"):
        MSTPlusPlus.load(directory)
    (directory / "model.safetensors").unlink()
    with pytest.raises(BundleError, match=r"model\.safetensors is missing"):
        MSTPlusPlus.load(directory)


# ---- bad input


def test_bad_construction_is_refused() -> None:
    with pytest.raises(ValueError, match="width"):
        small(width=0)
    with pytest.raises(ValueError, match="rgb_scale"):
        small(rgb_scale=-0.4)
    with pytest.raises(BandCountError, match="three of the 5 bands"):
        small(rgb_index=(0, 1, 5))
    with pytest.raises(WavelengthError, match="red"):
        MSTPlusPlus([400, 490, 560], **SMALL)


def test_bad_training_images_are_refused() -> None:
    x = linear_images(2)
    broken = x.clone()
    broken[1, 0, 2, 3] = torch.nan
    for images, error, match in (
        (x[:, :4], BandCountError, "image 0 has 4 bands, expected 5, one per wavelength"),
        ((1000 * x).to(torch.int16), RadiometryError, "image 0 is torch.int16, not reflectance"),
        (1000 * x, RadiometryError, "median"),
        (broken, NoDataError, "1 pixels of the hyperspectral image 1 hold NaN"),
        (x[0], ShapeError, "image 0 must be"),
        (x[:0], ShapeError, "at least one"),
    ):
        with pytest.raises(error, match=match):
            small().fit(images, steps=1, **FIT)
    with pytest.raises(ValueError, match="choose 'mrae'"):
        small().fit(x, steps=1, loss="l2", **FIT)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="floor"):
        small().fit(x, steps=1, floor=-1.0, **FIT)


def test_bad_pictures_are_refused() -> None:
    model, rgb = small(), torch.rand(2, 3, 8, 8)
    broken = rgb.clone()
    broken[1, 0, 2, 3] = torch.inf
    for pictures, error, match in (
        ((255 * rgb).to(torch.uint8), RadiometryError, "build the model with rgb_scale"),
        ((255 * rgb).to(torch.int64), RadiometryError, r"int64, not reflectance"),
        (255 * rgb, RadiometryError, "median"),
        (torch.rand(2, 4, 8, 8), BandCountError, "4 bands, expected 3"),
        (rgb[0], ShapeError, r"pictures\[None\]"),
        (broken, NoDataError, "first in image 1"),
    ):
        with pytest.raises(error, match=match):
            model.reconstruct(pictures)


def test_displayed_pictures_become_reflectance() -> None:
    model = small(rgb_scale=0.4, rgb_gamma=1.8)
    pictures = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    assert torch.equal(model.reconstruct(pictures), model.reconstruct(0.4 * (pictures.float() / 255) ** 1.8))


# ---- as an augmentation


BANK = {
    "Field": torch.randint(40, 200, (3, 3, 8, 8), dtype=torch.uint8),
    "Lake": torch.randint(0, 60, (2, 3, 11, 9), dtype=torch.uint8),
}


class Counting(nn.Module):
    """A reconstructor whose bands are known functions of red, green and blue."""

    def __init__(self) -> None:
        super().__init__()
        self.wavelengths, self.seen = torch.tensor(NM), 0

    def reconstruct(self, pictures: Tensor) -> Tensor:
        assert not self.training
        self.seen += len(pictures)
        r, g, b = pictures.unbind(1)
        return torch.stack([b, g, r, r + g, 2 * b], 1)


def test_a_reconstructor_makes_images_of_the_classs_pictures_only() -> None:
    x, y = real_batch(18, 8)
    kept, model = x.clone(), Counting()
    augment = UBFAugment(tiny_synth(), 1.0, strategy="bank", bank=BANK, reconstructor=model, seed=0)
    out = augment({"image": x, "label": y})
    assert torch.equal(out["label"], y)
    assert torch.equal(x, kept)
    assert torch.equal(out["is_synthetic"], y != 1)  # no pictures of a Forest
    assert torch.equal(out["image"][y == 1], x[y == 1])
    synth = tiny_synth()
    for label, name in ((0, "Field"), (2, "Lake")):
        made = Counting().eval().reconstruct(to_reflectance(BANK[name], synth.rgb_scale, synth.rgb_gamma))
        made = nn.functional.interpolate(made, (8, 8), mode="bilinear", antialias=True, align_corners=False)
        error = (out["image"][y == label][:, None] - made[None]).abs().amax((2, 3, 4))
        assert float(error.amin(1).max()) < 1e-3  # kept as float16; no residual model is added
        assert len(error.argmin(1).unique()) == len(made)  # each picture was drawn
    assert model.seen == 5
    augment({"image": x, "label": y})
    assert model.seen == 5  # reconstructed once
    assert not list(augment.parameters())  # shared, no submodule


def test_an_mstpp_in_the_training_loop() -> None:
    x, y = real_batch(12)
    model = small()
    model.fit(x, steps=3, fabric=cpu(), **FIT)
    assert isinstance(model, Reconstructor)

    def run(**options: Any) -> dict[str, Any]:
        settings = {"strategy": "bank", "bank": BANK, "reconstructor": model, "seed": 3, **options}
        made: dict[str, Any] = UBFAugment(tiny_synth(), 0.7, **settings)({"image": x.double(), "label": y})
        return made

    first, again = run(), run()
    assert torch.equal(first["image"], again["image"])
    assert not torch.equal(first["image"], run(seed=4)["image"])
    assert first["image"].dtype == torch.float64
    assert first["image"].shape == x.shape
    new = first["is_synthetic"]
    assert 0 < int(new.sum()) < 12
    assert torch.equal(first["image"][~new], x.double()[~new])
    appended = run(placement="append", labels="balance")
    assert appended["label"][12:].unique().tolist() == [0, 2]
    mixed = run(strategy={"vary": 1.0, "bank": 1.0})
    assert torch.equal(mixed["label"], y)
    renamed = run(
        classes=["Acre", "Forest", "Pond"], class_map={"Acre": "Field"}, bank={"Pond": BANK["Lake"]}
    )
    assert set(y[renamed["is_synthetic"]].tolist()) == {2}


def test_reconstructors_that_do_not_fit_are_refused() -> None:
    def build(reconstructor: Any, **options: Any) -> UBFAugment:
        settings = {"strategy": "bank", "bank": BANK, **options}
        return UBFAugment(tiny_synth(), reconstructor=reconstructor, **settings)

    with pytest.raises(BandCountError, match="gives 3 bands, the synthesizer has 5"):
        build(MSTPlusPlus(NM[:3], **SMALL))
    with pytest.raises(WavelengthError, match="band 3 of the reconstructor is at 800 nm"):
        build(MSTPlusPlus([*NM[:3], 800.0, NM[4]], **SMALL))
    with pytest.raises(ValueError, match="needs bank="):
        build(small(), bank=None, strategy="vary")
    with pytest.raises(TypeError, match="must have reconstruct"):
        build(nn.Identity())
    assert CLASSES[1] not in BANK
