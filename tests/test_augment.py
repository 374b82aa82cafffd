"""UBFAugment: the contract, each strategy's mathematics, labels, randomness, and bad input."""

from __future__ import annotations

import copy
import pickle
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import CLASSES, NM, E, real_batch, tiny_synth

from ubf_augment import simplex, strategies
from ubf_augment.augment import UBFAugment
from ubf_augment.errors import (
    BandCountError,
    LabelError,
    MissingLabelError,
    NoDataError,
    RadiometryError,
    ShapeError,
    UnknownClassError,
)
from ubf_augment.labels import ClassIndex, check_labels, draw_labels, fill_up
from ubf_augment.mixing import mix
from ubf_augment.unmixing import fcls

EVERY = ["generate", "vary", "fuse", "edit", "auto"]
BANK = {"Field": torch.randint(40, 200, (3, 3, 8, 8), dtype=torch.uint8)}


def augmenter(p: float = 1.0, **options: Any) -> UBFAugment:
    return UBFAugment(tiny_synth(), p, **{"seed": 0, **options})


def sample(**more: Any) -> dict[str, Any]:
    x, y = real_batch()
    return {"image": x, "label": y, **more}


# ---- what goes in and comes out ----


@pytest.mark.parametrize("strategy", EVERY)
@settings(max_examples=15, deadline=None)
@given(p=st.floats(0, 1), seed=st.integers(0, 99), n=st.integers(1, 9), size=st.sampled_from([5, 8, 16]))
def test_contract_of_every_strategy(strategy: Any, p: float, seed: int, n: int, size: int) -> None:
    x, y = real_batch(n, size, seed)
    kept = x.clone(), y.clone()
    out = augmenter(p, strategy=strategy, seed=seed)({"image": x, "label": y})
    new = out["is_synthetic"]
    assert out["image"].shape == x.shape
    assert out["image"].dtype == x.dtype
    assert torch.isfinite(out["image"]).all()
    assert torch.equal(out["image"][~new], x[~new])  # real pixels bit for bit
    assert torch.equal(out["label"], y)  # labels="keep": class counts exact
    assert (out["image"][new] != x[new]).flatten(1).any(1).all()
    assert torch.equal(x, kept[0])
    assert torch.equal(y, kept[1])


def test_p_zero_gives_back_the_same_objects() -> None:
    given_sample = sample(name=["a"] * 12, bbox=torch.zeros(12, 4))
    out = augmenter(0.0)(given_sample)
    assert out is not given_sample
    assert "is_synthetic" not in given_sample
    assert all(out[k] is v for k, v in given_sample.items())
    assert not out["is_synthetic"].any()
    x, y = real_batch()
    assert augmenter(0.0)(x, y)[0] is x
    assert augmenter(0.0)(x, y)[1] is y


def test_p_one_replaces_all_and_p_half_about_half() -> None:
    assert augmenter(1.0)(sample())["is_synthetic"].all()
    x, y = real_batch(600, 8)
    share = augmenter(0.5)({"image": x, "label": y})["is_synthetic"].float().mean()
    assert abs(float(share) - 0.5) < 0.07


def test_other_keys_are_the_same_objects_and_image_stays_first() -> None:
    given_sample = sample(name=["a"] * 12, bbox=torch.zeros(12, 4))
    out = augmenter()(given_sample)
    assert list(out) == ["image", "label", "name", "bbox", "is_synthetic"]
    assert out["name"] is given_sample["name"]
    assert out["bbox"] is given_sample["bbox"]
    assert out["label"] is given_sample["label"]


def test_forms_of_call() -> None:
    x, y = real_batch()
    pair = augmenter()(x, y)
    assert isinstance(pair, tuple)
    assert isinstance(augmenter()((x, y)), tuple)
    assert isinstance(augmenter()([x, y]), list)
    assert torch.equal(pair[0], augmenter()([x, y])[0])
    assert torch.equal(pair[0], augmenter()(sample())["image"])
    assert torch.equal(augmenter(strategy="vary")(x), augmenter(strategy="vary")(x, y)[0])
    assert augmenter(strategy="vary")({"image": x})["is_synthetic"].all()
    renamed = augmenter(image_key="x", label_key="y")({"x": x, "y": y})
    assert torch.equal(renamed["x"], pair[0])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("strategy", ["generate", "vary", "fuse", "edit"])
def test_dtype_is_kept(dtype: torch.dtype, strategy: Any) -> None:
    x, y = real_batch()
    out = augmenter(0.5, strategy=strategy)({"image": x.to(dtype), "label": y})
    assert out["image"].dtype == dtype
    assert torch.equal(out["image"][~out["is_synthetic"]], x.to(dtype)[~out["is_synthetic"]])
    reference = augmenter(0.5, strategy=strategy)({"image": x, "label": y})["image"]
    torch.testing.assert_close(out["image"].float(), reference, atol=2e-2, rtol=2e-2)


def test_memory_layout_is_kept() -> None:
    x, y = real_batch()
    out = augmenter(0.5)(x.to(memory_format=torch.channels_last), y)[0]
    assert out.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(out, augmenter(0.5)(x, y)[0])
    one = x[:1].expand(12, -1, -1, -1)
    torch.testing.assert_close(augmenter(0.5)(one, y)[0], augmenter(0.5)(one.contiguous(), y)[0])


@pytest.mark.parametrize("strategy", EVERY)
def test_no_gradients_even_where_they_are_enabled_and_autocast_is_on(strategy: Any) -> None:
    x, y = real_batch()
    with torch.enable_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        out, _ = augmenter(strategy=strategy)(x.requires_grad_(), y)
        assert torch.is_grad_enabled()
    assert not out.requires_grad
    plain = augmenter(strategy=strategy)(real_batch()[0], y)[0]
    torch.testing.assert_close(out, plain)


def test_append_puts_synthetic_images_last_with_their_labels() -> None:
    x, y = real_batch()
    given_sample = {"image": x, "label": y, "index": torch.arange(12), "name": list("abcdefghijkl"), "k": 3}
    out = augmenter(0.5, placement="append")(given_sample)
    n = len(out["image"]) - 12
    assert 0 < n < 12
    assert out["is_synthetic"].tolist() == [False] * 12 + [True] * n
    assert torch.equal(out["image"][:12], x)
    assert torch.equal(out["label"][:12], y)
    assert torch.equal(out["label"][12:], y[out["index"][12:]])
    assert out["name"][12:] == [given_sample["name"][i] for i in out["index"][12:]]
    assert out["k"] == 3
    assert augmenter(0.0, placement="append")(given_sample)["image"] is x


@pytest.mark.parametrize(
    "label", [list("abcdefghijkl"), torch.rand(12, 7), torch.ones(12, 3).long(), torch.ones(12, 8, 8).long()]
)
def test_vary_takes_any_labels_along(label: Any) -> None:
    x, _ = real_batch(12, 8)
    replaced = augmenter(0.5, strategy="vary")({"image": x, "label": label})
    assert replaced["label"] is label
    longer = augmenter(0.5, strategy="vary", placement="append")({"image": x, "label": label})
    rows = replaced["is_synthetic"].nonzero()[:, 0]
    assert len(longer["label"]) == len(longer["image"]) == 12 + len(rows)
    for k, row in enumerate(rows.tolist()):
        same = longer["label"][12 + k] == label[row]
        assert same.all() if isinstance(same, torch.Tensor) else same


def test_appending_repeats_rows_of_every_kind_of_value() -> None:
    rows = torch.tensor([2, 0])
    assert strategies.append_rows(("a", "b", "c"), rows, 3) == ("a", "b", "c", "c", "a")
    assert strategies.append_rows(["a", "b", "c"], rows, 3) == ["a", "b", "c", "c", "a"]
    assert strategies.append_rows(np.arange(3), rows, 3).tolist() == [0, 1, 2, 2, 0]
    assert strategies.append_rows(torch.arange(3), rows, 3).tolist() == [0, 1, 2, 2, 0]
    for other in ("abc", 3, None, [1, 2], {"a": 1}, torch.tensor(1)):
        assert strategies.append_rows(other, rows, 3) is other


def test_masks_and_boxes_warn_once_unless_places_are_kept() -> None:
    for key, value in (
        ("mask", torch.ones(12, 16, 16)),
        ("bbox_xyxy", torch.ones(12, 4)),
        ("dem", torch.ones(12, 1, 16, 16)),
    ):
        augment, other = augmenter(), sample(**{key: value})
        with pytest.warns(
            UserWarning, match=f"{key} of the sample stay .* generate does not keep.*strategy='vary'"
        ):
            out = augment(other)
        assert out[key] is value
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            augment(other)
            augmenter(0.0)(other)
            augmenter(strategy="vary")(other)
            augmenter()(sample(name=["a"] * 12))


def test_is_synthetic_of_the_data_set_is_kept() -> None:
    before = torch.arange(12) == 5
    out = augmenter(0.3)(sample(is_synthetic=before))
    assert out["is_synthetic"][5]
    longer = augmenter(0.5, placement="append")(sample(is_synthetic=before))["is_synthetic"]
    assert longer[5]
    assert longer[12:].all()
    assert int(longer[:12].sum()) == 1


def test_images_of_another_size_than_the_generator() -> None:
    for size in (5, 8, 31):
        x, y = real_batch(6, size)
        out = augmenter(residual=False)(x, y)[0]
        assert out.shape == x.shape
        torch.testing.assert_close(mix(fcls(out, E), E), out, atol=1e-4, rtol=0)  # still on the simplex


# ---- strategies ----


def test_generate_draws_the_class_of_the_image() -> None:
    x, y = real_batch(60, 8)
    a = fcls(augmenter()(x, y)[0], E).mean((2, 3))
    assert torch.equal(a.argmax(1), y)


def test_vary_by_hand() -> None:
    x = torch.full((1, 2, 1, 1), 0.3)
    a = torch.tensor([0.25, 0.75]).view(1, 2, 1, 1)
    spectra = torch.tensor([[0.4, 0.8], [0.0, 0.0]])
    gains = torch.tensor([[[2.0, 0.5], [9.0, 9.0]]])
    out = strategies.vary(x, a, spectra, gains, torch.tensor([[1.0, 2.0]]))
    torch.testing.assert_close(out.flatten(), torch.tensor([0.3 + 0.25 * 0.4, 2 * (0.3 - 0.25 * 0.4)]))


def test_vary_keeps_the_residual_and_leaves_shade_alone() -> None:
    x, _ = real_batch()
    augment = augmenter(strategy="vary", endmember_std=0.2, illumination_std=0.0, brightness_std=0.0)
    out = augment(x)
    a = augment.synth.unmix(x, fast=True)
    change = out - x
    explained = mix(a, E)
    # the change is a combination of the endmembers' own: zero where only shade is, and rank ≤ 2 per image
    assert float(change[explained.abs().sum(1, keepdim=True).expand_as(x) < 1e-4].abs().sum()) == 0
    for image in change:
        assert torch.linalg.matrix_rank(image.flatten(1), atol=1e-4) <= 2


def test_spectral_variation_statistics() -> None:
    def drawn(*std: float) -> list[torch.Tensor]:
        v = strategies.SpectralVariation(NM, *std, correlation_nm=100.0)
        return [g.log() for g in v.draw(4000, 2, torch.Generator().manual_seed(0))]

    def correlation(a: torch.Tensor, b: torch.Tensor) -> float:
        return float(torch.corrcoef(torch.stack([a, b]))[0, 1])

    expected = float(torch.exp(-0.5 * ((NM[1] - NM[0]) / torch.tensor(100.0)) ** 2))
    g, none = drawn(0.2, 0.0, 0.0)
    assert not none.any()
    torch.testing.assert_close(g.std(0), torch.full((2, 5), 0.2), atol=0.01, rtol=0)
    assert abs(correlation(g[:, 0, 0], g[:, 0, 1]) - expected) < 0.03
    assert abs(correlation(g[:, 0, 0], g[:, 1, 0])) < 0.05  # each endmember has its own
    none, light = drawn(0.0, 0.2, 0.0)
    assert not none.any()
    torch.testing.assert_close(light.std(0), torch.full((5,), 0.2), atol=0.01, rtol=0)
    assert abs(correlation(light[:, 0], light[:, 1]) - expected) < 0.03
    _, bright = drawn(0.0, 0.0, 0.3)
    assert float((bright - bright[:, :1]).abs().max()) < 1e-6
    assert abs(float(bright[:, 0].std()) - 0.3) < 0.02
    g, light = drawn(0.1, 0.2, 0.3)
    torch.testing.assert_close(light.var(0), torch.full((5,), 0.13), atol=0.012, rtol=0)
    assert abs(correlation(g[:, 0, 0], light[:, 0])) < 0.05
    for std in ((-1.0, 0.0, 0.0), (0.0, -1.0, 0.0), (0.0, 0.0, -1.0)):
        with pytest.raises(ValueError, match="deviations"):
            strategies.SpectralVariation(NM, *std)


def test_vary_without_gains_of_endmembers_is_a_gain_of_the_image() -> None:
    x, _ = real_batch()
    out = UBFAugment(tiny_synth(), 1.0, strategy="vary", endmember_std=0.0, seed=0)(x)
    gain = out / x
    torch.testing.assert_close(gain, gain[:, :, :1, :1].expand_as(gain))


def test_fuse_equals_fusing_abundances_and_residuals() -> None:
    x, _ = real_batch(4)
    mask = strategies.draw_masks(2, (16, 16), torch.Generator().manual_seed(0))
    a = fcls(x, E)
    eps = x - mix(a, E)
    fused = mask * a[:2] + (1 - mask) * a[2:]
    simplex.check(fused)
    torch.testing.assert_close(
        strategies.fuse(x[:2], x[2:], mask), mix(fused, E) + mask * eps[:2] + (1 - mask) * eps[2:]
    )
    assert 0 <= float(mask.min()) < 0.1
    assert 0.9 < float(mask.max()) <= 1


def test_fuse_needs_a_partner_of_the_same_label() -> None:
    x, _ = real_batch(5)
    y = torch.tensor([0, 0, 1, 2, 2])
    out = augmenter(strategy="fuse")({"image": x, "label": y})
    assert out["is_synthetic"].tolist() == [True, True, False, True, True]
    for i, j in ((0, 1), (1, 0), (3, 4), (4, 3)):  # every pixel lies between the two images
        low, high = torch.minimum(x[i], x[j]), torch.maximum(x[i], x[j])
        assert ((out["image"][i] >= low - 1e-6) & (out["image"][i] <= high + 1e-6)).all()


def test_edit_strength_and_residual() -> None:
    x, y = real_batch(6, 8)
    torch.testing.assert_close(augmenter(strategy="edit", strength=0.0)(x, y)[0], x, atol=1e-6, rtol=0)
    augment = augmenter(strategy="edit", strength=1.0)
    out = augment(x, y)[0]
    a, b = fcls(x, E), fcls(out - (x - mix(fcls(x, E), E)), E)
    torch.testing.assert_close(out - mix(b, E), x - mix(a, E), atol=1e-4, rtol=0)


def test_edit_keeps_detail_finer_than_the_generator() -> None:
    x, y = real_batch(6, 32)
    out = augmenter(strategy="edit", strength=0.2)(x, y)[0]
    highpass = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).view(1, 1, 2, 2)
    detail = [torch.nn.functional.conv2d(v.flatten(0, 1)[:, None], highpass).flatten() for v in (x, out)]
    assert float(torch.corrcoef(torch.stack(detail))[0, 1]) > 0.9


def test_classes_with_their_own_endmembers() -> None:
    x, y = real_batch(12)
    augment = UBFAugment(tiny_synth(own=True), 1.0, strategy="vary", seed=0)
    assert torch.isfinite(augment(x, y)[0]).all()
    generated = UBFAugment(tiny_synth(own=True), 1.0, seed=0, residual=False)(x, y)[0]
    plain = UBFAugment(tiny_synth(), 1.0, seed=0, residual=False)(x, y)[0]
    torch.testing.assert_close(generated[y == 0], 1.2 * plain[y == 0])
    assert torch.equal(generated[y != 0], plain[y != 0])


def test_classes_partly_unknown_to_a_synthesizer_with_own_endmembers() -> None:
    x, y = real_batch(12)
    classes = ["Field", "Road", "Lake"]
    out = UBFAugment(tiny_synth(own=True), 1.0, strategy="vary", seed=0, classes=classes)(x, y)[0]
    known = UBFAugment(tiny_synth(own=True), 1.0, strategy="vary", seed=0)(x, y)[0]
    torch.testing.assert_close(out, known)  # Road, like Forest, has no endmembers of its own


def test_bank_decodes_pictures_of_the_class_only() -> None:
    x, y = real_batch(9, 8)
    out = augmenter(strategy="bank", bank=BANK, residual=False)({"image": x, "label": y})
    assert torch.equal(out["is_synthetic"], y == 0)
    synth = tiny_synth()
    expected = synth.mix(synth.unmix_rgb(BANK["Field"], torch.zeros(3, dtype=torch.int64), fast=True))
    nearest = (out["image"][y == 0][:, None] - expected[None]).abs().amax((2, 3, 4)).amin(1)
    assert float(nearest.max()) < 4 * 2**-12  # maps are kept as float16: 2⁻¹² at most in each of three


def test_bank_takes_the_users_the_synthesizers_and_numeric_names() -> None:
    x, y = real_batch(9, 8)
    pictures = BANK["Field"]
    for bank in ({"Acre": pictures}, {"Field": pictures}, {0: pictures}):
        out = augmenter(
            strategy="bank", bank=bank, classes=["Acre", "Forest", "Lake"], class_map={"Acre": "Field"}
        )({"image": x, "label": y})
        assert torch.equal(out["is_synthetic"], y == 0)
    unknown = augmenter(strategy="bank", bank={"Road": pictures}, classes=["Road", "Field", "Lake"])
    assert torch.equal(unknown({"image": x, "label": y})["is_synthetic"], y == 0)


def test_weights_and_auto() -> None:
    x, y = real_batch(900, 8)
    out = augmenter(strategy={"fuse": 3, "bank": 1}, bank=BANK)({"image": x, "label": y})["image"]
    low, high = x[y == 0].amin(0), x[y == 0].amax(0)
    fused = ((out[y == 0] >= low - 1e-6) & (out[y == 0] <= high + 1e-6)).flatten(1).all(1).float().mean()
    assert abs(float(fused) - 0.75) < 0.08
    assert set(augmenter(strategy="auto").weights) == {"vary", "generate", "edit", "fuse"}
    plain = UBFAugment(tiny_synth(num_classes=None, can_edit=False), strategy="auto", bank=None)
    assert set(plain.weights) == {"vary", "fuse"}


def test_unknown_class_is_served_by_strategies_that_need_no_class() -> None:
    x, y = real_batch(9, 8)
    both = augmenter(strategy={"generate": 1, "vary": 1}, classes=["Field", "Road", "Lake"])
    assert both({"image": x, "label": y})["is_synthetic"].all()


# ---- labels ----


def test_unknown_class_stays_real_and_strict_raises() -> None:
    x, y = real_batch(9, 8)
    out = augmenter(classes=["Field", "Road", "Lake"])({"image": x, "label": y})
    assert torch.equal(out["is_synthetic"], y != 1)
    with pytest.raises(UnknownClassError, match="Road"):
        augmenter(classes=["Field", "Road", "Lake"], strict=True)
    with pytest.warns(UserWarning, match="no image will be replaced"):
        augmenter(classes=["Road", "Sea"])


def test_class_map_and_order() -> None:
    x, y = real_batch(9, 8)
    augment = augmenter(classes=["Water", "Field", "Wood"], class_map={"Water": "Lake", "Wood": "Forest"})
    a = fcls(augment(x, y)[0], E).mean((2, 3))
    assert torch.equal(a.argmax(1), torch.tensor([2, 0, 1])[y])


def test_balance_evens_the_counts() -> None:
    augment = augmenter(0.7, labels="balance")
    total = torch.zeros(3)
    for i in range(20):
        x, _ = real_batch(16, 8, i)
        y = (torch.rand(16) > 0.85).long() + (torch.rand(16) > 0.95).long()
        out = augment({"image": x, "label": y})
        total += torch.bincount(out["label"], minlength=3)
        assert torch.equal(out["label"][~out["is_synthetic"]], y[~out["is_synthetic"]])
    assert float(total.max() - total.min()) <= 3
    assert torch.equal(augment.policy.counts.float(), total)


def test_balance_never_draws_an_unknown_class_and_labels_fit_images() -> None:
    x, y = real_batch(12, 8)
    augment = augmenter(labels="balance", classes=["Field", "Road", "Lake"])
    out = augment({"image": x, "label": y})
    assert torch.equal(out["is_synthetic"], y != 1)
    a = fcls(out["image"], E).mean((2, 3)).argmax(1)
    assert torch.equal(a[out["is_synthetic"]], out["label"][out["is_synthetic"]])


def test_balance_by_appending() -> None:
    x, _ = real_batch(12, 8)
    y = torch.tensor([0] * 10 + [1] * 2)
    out = augmenter(labels="balance", placement="append")({"image": x, "label": y})
    assert torch.bincount(out["label"]).tolist() == [10, 7, 7]
    assert torch.equal(out["label"][:12], y)


def test_class_probabilities() -> None:
    x, y = real_batch(600, 8)
    for labels in (torch.tensor([0.0, 1.0, 3.0]), [0.0, 1.0, 3.0]):
        out = augmenter(labels=labels)({"image": x, "label": y})
        share = torch.bincount(out["label"], minlength=3) / 600
        torch.testing.assert_close(share, torch.tensor([0.0, 0.25, 0.75]), atol=0.06, rtol=0)
        assert torch.equal(fcls(out["image"], E).mean((2, 3)).argmax(1), out["label"])


def test_soft_labels() -> None:
    x, _ = real_batch(400, 8)
    y = torch.tensor([[0.75, 0.0, 0.25]]).repeat(400, 1)
    out = augmenter()({"image": x, "label": y})
    assert out["label"] is y
    made = torch.bincount(fcls(out["image"], E).mean((2, 3)).argmax(1), minlength=3) / 400
    torch.testing.assert_close(made, y[0], atol=0.07, rtol=0)
    balanced = augmenter(labels=[0, 1, 0])({"image": x, "label": y.half()})["label"]
    assert balanced.dtype == torch.float16
    assert torch.equal(balanced, torch.tensor([[0.0, 1.0, 0.0]]).half().expand(400, 3))
    fused = augmenter(strategy="fuse")(x[:3], torch.tensor([[1.0, 0, 0], [1.0, 0, 0], [0.5, 0.5, 0]]))[0]
    assert torch.equal(fused[2], x[2])


def test_label_dtype_and_helpers() -> None:
    x, y = real_batch(6, 8)
    for dtype in (torch.uint8, torch.int32):
        out = augmenter(labels="balance", placement="append")(x, y.to(dtype))[1]
        assert out.dtype == dtype
    soft = check_labels(torch.tensor([[0.1, 0.9]], dtype=torch.bfloat16), 1, 2)
    assert soft.dtype == torch.float64
    assert draw_labels(torch.tensor([[0.0, 1.0]], dtype=torch.float64), torch.Generator()).tolist() == [1]
    counts = torch.tensor([5.0, 0.0, 0.0])
    assert fill_up(counts, 2, torch.tensor([True, False, True]), torch.Generator()) == [2, 2]


# ---- randomness and state ----


def test_seed_makes_runs_repeatable_and_calls_different() -> None:
    a, b = augmenter(0.5, seed=3), augmenter(0.5, seed=3)
    first, second = a(sample())["image"], a(sample())["image"]
    torch.rand(5)  # the global generator has no part in it
    assert torch.equal(b(sample())["image"], first)
    assert torch.equal(b(sample())["image"], second)
    assert not torch.equal(first, second)
    assert not torch.equal(augmenter(0.5, seed=4)(sample())["image"], first)


def test_without_a_seed_the_global_generator_decides() -> None:
    augment = augmenter(0.5, seed=None)
    torch.manual_seed(1)
    first = augment(sample())["image"]
    assert not torch.equal(augment(sample())["image"], first)
    torch.manual_seed(1)
    assert torch.equal(augment(sample())["image"], first)


def test_a_seed_leaves_the_global_generator_alone() -> None:
    augment = augmenter(strategy="auto", bank=BANK)
    before = torch.get_rng_state()
    augment(sample())
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("seed", [0, None])
def test_processes_of_one_training_differ(seed: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    def on(rank: int) -> torch.Tensor:
        monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
        monkeypatch.setattr(torch.distributed, "get_rank", lambda: rank)
        torch.manual_seed(0)  # as Lightning's seed_everything does in each process
        result: torch.Tensor = augmenter(seed=seed)(sample())["image"]
        return result

    assert torch.equal(on(0), on(0))
    assert not (on(0) == on(1)).flatten(1).all(1).any()


def test_inside_a_compiled_model() -> None:
    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.augment, self.layer = augmenter(0.5), torch.nn.Conv2d(5, 3, 3)

        def forward(self, batch: dict[str, Any]) -> Any:
            batch = self.augment(batch)
            return self.layer(batch["image"]).mean((2, 3)), batch["is_synthetic"]

    model = Model()
    expected = [model(sample()) for _ in range(2)]
    model.augment.calls = 0
    compiled = torch.compile(model, backend="eager")
    for logits, synthetic in expected:
        found = compiled(sample())
        torch.testing.assert_close(found[0], logits)
        assert torch.equal(found[1], synthetic)
        found[0].sum().backward()
    assert model.layer.weight.grad is not None


def test_state_goes_on_where_it_stopped() -> None:
    a = augmenter(0.5, labels="balance")
    a(sample())
    state = a.state_dict()
    expected = a(sample())
    b = augmenter(0.5, labels="balance")
    b.load_state_dict(state)
    got = b(sample())
    assert torch.equal(got["image"], expected["image"])
    assert torch.equal(got["label"], expected["label"])
    assert set(state) == {"_extra_state"}
    with pytest.raises(ValueError, match="of 3 classes, this module has 2"):
        augmenter(classes=["Field", "Lake"]).set_extra_state(state["_extra_state"])


def test_copies_and_pickles() -> None:
    a = augmenter(0.5)
    twin, loaded = copy.deepcopy(a), pickle.loads(pickle.dumps(a))
    expected = a(sample())["image"]
    assert torch.equal(twin(sample())["image"], expected)
    assert torch.equal(loaded(sample())["image"], expected)


def test_networks_stay_in_eval_mode_and_out_of_reach() -> None:
    augment = augmenter()
    augment.train()
    assert not any(m.training for m in augment.synth.modules())
    augment.synth.train()
    augment(sample())  # TinyGenerator asserts that it is in eval mode
    assert list(augment.parameters()) == []
    augment.half()
    assert next(augment.synth.parameters()).dtype == torch.float32


@pytest.mark.gpu
def test_follows_the_device_of_the_batch() -> None:
    x, y = real_batch()
    for strategy in EVERY:
        augment = augmenter(strategy=strategy)
        out = augment({"image": x.cuda(), "label": y.cuda()})
        assert out["image"].is_cuda
        assert out["is_synthetic"].is_cuda
        assert augment.synth.device.type == "cuda"
        expected = augmenter(strategy=strategy)({"image": x, "label": y})["image"]
        torch.testing.assert_close(out["image"].cpu(), expected, atol=1e-3, rtol=1e-3)


def test_empty_batch() -> None:
    x, y = torch.zeros(0, 5, 8, 8), torch.zeros(0, dtype=torch.int64)
    for strategy in EVERY:
        assert augmenter(strategy=strategy)({"image": x, "label": y})["image"] is x


# ---- bad input ----


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"image": torch.rand(12, 4, 8, 8)}, BandCountError, "4 bands, expected 5"),
        ({"image": torch.rand(5, 8, 8)}, ShapeError, r"x\[None\]"),
        ({"image": torch.ones(12, 5, 8, 8, dtype=torch.int16)}, RadiometryError, "int16"),
        ({"image": torch.full((12, 5, 8, 8), float("nan"))}, NoDataError, "pixels .*first in image 0"),
        ({"image": "x"}, TypeError, "image_key"),
        ({"label": None}, MissingLabelError, "augment"),
        ({"label": [0] * 12}, TypeError, "tensor"),
        ({"label": torch.full((12,), 3)}, LabelError, "label 3 at position 0 is outside 0..2"),
        ({"label": torch.full((12,), -1)}, LabelError, "-1"),
        ({"label": torch.zeros(12)}, LabelError, "integers"),
        ({"label": torch.zeros(11, dtype=torch.int64)}, ShapeError, "12 images"),
        ({"label": torch.ones(12, 3, dtype=torch.int64)}, LabelError, "multi-label"),
        ({"label": torch.ones(12, 3)}, LabelError, "position 0"),
        ({"label": torch.ones(12, 4) / 4}, LabelError, "4 classes"),
    ],
)
def test_bad_batches(change: dict[str, Any], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        augmenter()({**sample(), **change})


def test_image_alone() -> None:
    x, y = real_batch()
    for strategy in ("generate", "fuse", "edit", "auto", {"vary": 1, "generate": 1}):
        with pytest.raises(MissingLabelError, match="data_keys=None") as caught:
            augmenter(strategy=strategy)(x)
        assert isinstance(caught.value, TypeError)
        with pytest.raises(MissingLabelError):
            augmenter(strategy=strategy)({"image": x})
    with pytest.raises(TypeError, match="got Tensor, Tensor, Tensor"):
        augmenter()(x, y, y)
    with pytest.raises(TypeError, match="got int"):
        augmenter()(1)
    with pytest.raises(TypeError, match="from_pretrained"):
        UBFAugment("aid-chikusei")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"p": 1.5}, ValueError, "p must"),
        ({"strength": 2.0}, ValueError, "strength"),
        ({"placement": "after"}, ValueError, "placement"),
        ({"strategy": "mixup"}, ValueError, "no strategy 'mixup'"),
        ({"strategy": {}}, ValueError, "at least one"),
        ({"strategy": {"vary": -1}}, ValueError, "weight"),
        ({"strategy": "bank"}, ValueError, "needs bank="),
        ({"labels": "even"}, ValueError, "balance"),
        ({"labels": "balance", "strategy": "vary"}, ValueError, "generate"),
        ({"labels": [0.5, 0.5]}, ValueError, "shape"),
        ({"labels": [0.0, 0.0, 0.0]}, ValueError, "probabilities"),
        ({"labels": [1, 1, 1], "classes": ["Field", "Road", "Lake"]}, UnknownClassError, "Road"),
        ({"class_map": {"a": "Field"}}, ValueError, "needs classes"),
        ({"classes": ["a", "a"]}, ValueError, "twice"),
        ({"classes": ["a"], "class_map": {"b": "Field"}}, UnknownClassError, "'b'"),
        ({"classes": ["a"], "class_map": {"a": "Fielt"}}, UnknownClassError, "did you mean 'Field'"),
        ({"bank": {"Road": BANK["Field"]}, "strategy": "bank"}, UnknownClassError, "Road"),
        ({"bank": {"Field": BANK["Field"].float()}, "strategy": "bank"}, RadiometryError, "uint8"),
        ({"bank": {"Field": BANK["Field"][0]}, "strategy": "bank"}, ShapeError, "Field"),
    ],
)
def test_bad_options(options: dict[str, Any], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        augmenter(**options)


def test_strategies_that_the_synthesizer_cannot_serve() -> None:
    with pytest.raises(ValueError, match="takes no class"):
        UBFAugment(tiny_synth(num_classes=None), strategy="generate")
    with pytest.raises(ValueError, match="cannot edit"):
        UBFAugment(tiny_synth(can_edit=False), strategy="edit")
    x, y = real_batch()
    unconditional = UBFAugment(tiny_synth(num_classes=None), 1.0, strategy={"edit": 1, "fuse": 1})
    assert unconditional({"image": x, "label": y + 40})["is_synthetic"].all()


def test_class_index() -> None:
    assert ClassIndex.match(CLASSES).source.tolist() == [0, 1, 2]
    assert ClassIndex.match((), ["a"]).unknown == ("a",)
