"""One contract for every registered generator."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ubf_augment.errors import BundleError, LabelError, MissingLabelError, ShapeError, SimplexError
from ubf_augment.generators import AbundanceGenerator, get_generator, list_generators, load_generator
from ubf_augment.generators.maps import as_abundances, dihedral, num_symmetries
from ubf_augment.generators.registry import register
from ubf_augment.seeding import per_sample
from ubf_augment.training import make_fabric

P, SIZE, K = 3, (8, 8), 2
_CODED = {"factor": 2, "latent_channels": 6, "codec_widths": (16, 16), "widths": (16, 32), "head_dim": 16}
_CODED_FIT = {"codec_steps": 20, "warmup": 10, "ema_decay": 0.98}
SMALL: dict[str, dict[str, Any]] = {
    "ddpm": _CODED,
    "flow": _CODED,
    "gmm": {"components": 3},
    "stylegan3": {
        "layers": 4,
        "channels": 16,
        "max_channels": 32,
        "margin": 2,
        "z_dim": 16,
        "w_dim": 32,
        "critic_channels": 16,
        "critic_max_channels": 32,
    },
    "vdvae": {"widths": (16,), "encoder_blocks": (1,), "decoder_blocks": (1,), "latent_channels": 4},
}
QUICK: dict[str, dict[str, Any]] = {
    "ddpm": _CODED_FIT,
    "flow": _CODED_FIT,
    "vdvae": {"warmup": 10, "ema_decay": 0.98},
}
DRAW: dict[str, dict[str, Any]] = {"ddpm": {"steps": 5}, "flow": {"steps": 5}}
ADVERSARIAL = {"stylegan3"}  # two players: their common loss need not fall


def build(name: str, **config: Any) -> AbundanceGenerator:
    settings = {"num_endmembers": P, "size": SIZE, "num_classes": K, **SMALL.get(name, {}), **config}
    return get_generator(name, **settings)


def two_classes(n: int = 64) -> tuple[Tensor, Tensor]:
    """Class k has mostly endmember k, with smooth structure."""
    g = torch.Generator().manual_seed(3)
    labels = torch.arange(n) % K
    logits = torch.nn.functional.interpolate(torch.randn(n, P, 2, 2, generator=g), SIZE, mode="bilinear")
    logits[torch.arange(n), labels] += 2.5
    return torch.softmax(logits, 1), labels


@pytest.fixture(scope="module", params=list_generators())
def fitted(request: pytest.FixtureRequest) -> AbundanceGenerator:
    generator = build(request.param)
    maps, labels = two_classes()
    history = generator.fit(
        maps, labels=labels, steps=150, batch_size=16, lr=2e-3, fabric=make_fabric(accelerator="cpu"),
        progress=False, **QUICK.get(request.param, {}),
    )  # fmt: skip
    assert history.steps[-1] == 150
    assert request.param in ADVERSARIAL or history.loss[-1] < history.loss[0]
    return generator


def draw(model: AbundanceGenerator, y: Any, **options: Any) -> Tensor:
    return model.sample(y, **DRAW.get(model.name, {}), **options)


def test_samples_lie_on_the_simplex(fitted: AbundanceGenerator) -> None:
    a = draw(fitted, torch.arange(20) % K)
    assert a.shape == (20, P, *SIZE)
    assert a.dtype == torch.float32
    assert not a.requires_grad
    assert float(a.min()) >= 0
    assert float((a.sum(1) - 1).abs().max()) <= 1e-5
    assert len(a.flatten(1).unique(dim=0)) == 20  # no two alike


def test_a_seed_gives_the_same_samples(fitted: AbundanceGenerator) -> None:
    first = draw(fitted, [0, 1, 0], generator=torch.Generator().manual_seed(5))
    assert torch.equal(first, draw(fitted, [0, 1, 0], generator=torch.Generator().manual_seed(5)))
    assert not torch.allclose(first, draw(fitted, [0, 1, 0], generator=torch.Generator().manual_seed(6)))
    torch.manual_seed(1)
    unseeded = draw(fitted, [0, 1, 0])
    torch.manual_seed(1)
    assert torch.equal(unseeded, draw(fitted, [0, 1, 0]))


@pytest.mark.parametrize("batch_size", [1, 3, 7])
def test_a_sample_does_not_depend_on_its_batch(fitted: AbundanceGenerator, batch_size: int) -> None:
    y = torch.tensor([0, 1, 1, 0, 1, 0, 0])
    whole = draw(fitted, y, generator=per_sample(0, range(7)), batch_size=7)
    torch.testing.assert_close(
        draw(fitted, y, generator=per_sample(0, range(7)), batch_size=batch_size), whole, atol=1e-4, rtol=0
    )
    alone = draw(fitted, y[4:5], generator=per_sample(0, [4]))
    torch.testing.assert_close(alone[0], whole[4], atol=1e-4, rtol=0)
    one = draw(fitted, y, generator=torch.Generator().manual_seed(0), batch_size=7)
    parts = draw(fitted, y, generator=torch.Generator().manual_seed(0), batch_size=batch_size)
    torch.testing.assert_close(one, parts, atol=1e-4, rtol=0)


def test_the_class_shows_in_the_samples(fitted: AbundanceGenerator) -> None:
    y = torch.arange(40) % K
    means = draw(fitted, y, generator=torch.Generator().manual_seed(0)).mean((2, 3))
    own = means[torch.arange(40), y].mean()
    other = means[torch.arange(40), 1 - y].mean()
    assert float(own) > float(other) + 0.3  # in the training maps: about 0.8 against 0.1


def test_saved_and_loaded_it_draws_the_same(fitted: AbundanceGenerator, tmp_path: Path) -> None:
    loaded = load_generator(fitted.save(tmp_path / "g"))
    assert type(loaded) is type(fitted)
    assert loaded.config == fitted.config
    before = draw(fitted, [1, 0], generator=torch.Generator().manual_seed(2))
    assert torch.equal(before, draw(loaded, [1, 0], generator=torch.Generator().manual_seed(2)))


def test_sampling_restores_each_mode(fitted: AbundanceGenerator) -> None:
    fitted.train()
    first = next(m for m in fitted.modules() if m is not fitted)
    first.eval()
    draw(fitted, [0])
    assert fitted.training
    assert not first.training
    fitted.eval()


def test_edit_goes_from_the_map_to_a_new_one(fitted: AbundanceGenerator) -> None:
    if not fitted.can_edit:
        pytest.skip("this generator does not edit")
    maps, labels = two_classes(16)
    options = DRAW.get(fitted.name, {})
    distances = []
    for strength in (0.0, 0.3, 0.9):
        edited = fitted.edit(maps, labels, strength=strength, generator=per_sample(0, range(16)), **options)
        assert float(edited.min()) >= 0
        assert float((edited.sum(1) - 1).abs().max()) <= 1e-5
        distances.append(float((edited - maps).abs().mean()))
    assert distances[0] < 1e-5
    assert distances[0] < distances[1] < distances[2]
    with pytest.raises(ValueError, match="strength"):
        fitted.edit(maps, labels, strength=1.5)


def test_edit_reads_stored_maps_as_fit_does(fitted: AbundanceGenerator) -> None:
    if not fitted.can_edit:
        pytest.skip("this generator does not edit")
    maps, labels = two_classes(4)
    stored = (255 * maps).round().to(torch.uint8)
    options = DRAW.get(fitted.name, {}) | {"strength": 0.4}
    from_stored, from_float = (
        fitted.edit(m, labels, generator=per_sample(0, range(4)), **options)
        for m in (stored, as_abundances(stored))
    )
    torch.testing.assert_close(from_stored, from_float)


@pytest.mark.parametrize("name", list_generators())
def test_gradients_reach_every_parameter(name: str) -> None:
    generator = build(name)
    maps, labels = two_classes(8)
    generator.loss(maps, labels, torch.Generator().manual_seed(0)).backward()
    dead = [k for k, p in generator.named_parameters() if p.grad is None or not bool(p.grad.abs().sum() > 0)]
    assert not dead


@pytest.mark.parametrize("name", list_generators())
def test_bad_requests_are_refused(name: str) -> None:
    generator = build(name)
    with pytest.raises(MissingLabelError, match="2 classes"):
        generator.sample(n=2)
    with pytest.raises(LabelError, match="label 2 at position 1"):
        generator.sample([0, 2])
    with pytest.raises(LabelError, match="-1"):
        generator.sample(torch.tensor([-1]))
    with pytest.raises(LabelError, match="integers"):
        generator.sample(torch.tensor([0.5]))
    with pytest.raises(ShapeError, match="n=3"):
        generator.sample([0, 1], n=3)
    with pytest.raises(ValueError, match="1 generators for 2"):
        generator.sample([0, 1], generator=per_sample(0, [0]))
    with pytest.raises(ValueError, match="batch_size"):
        generator.sample([0, 1], batch_size=0)


@pytest.mark.parametrize("name", list_generators())
def test_bad_training_data_is_refused(name: str) -> None:
    generator = build(name)
    maps, labels = two_classes(4)
    with pytest.raises(ShapeError, match="endmember count"):
        generator.fit(maps[:, :2], labels=labels, steps=1)
    with pytest.raises(ShapeError, match="size"):
        generator.fit(maps[..., :4], labels=labels, steps=1)
    with pytest.raises(ShapeError):
        generator.fit(maps[0], labels=labels, steps=1)
    with pytest.raises(SimplexError):
        generator.fit(2 * maps, labels=labels, steps=1)
    with pytest.raises(SimplexError):
        generator.fit(torch.zeros(1, P, *SIZE, dtype=torch.uint8), labels=labels[:1], steps=1)
    with pytest.raises(MissingLabelError):
        generator.fit(maps, steps=1)
    with pytest.raises(ShapeError, match="labels for 4 maps"):
        generator.fit(maps, labels=labels[:3], steps=1)
    with pytest.raises(LabelError):
        generator.fit(maps, labels=labels + 1, steps=1)


@pytest.mark.parametrize("name", list_generators())
def test_without_classes(name: str) -> None:
    generator = build(name, num_classes=None)
    assert draw(generator, None, n=3).shape == (3, P, *SIZE)
    assert draw(generator, None).shape == (1, P, *SIZE)
    assert draw(generator, None, n=0).shape == (0, P, *SIZE)
    with pytest.raises(LabelError, match="no classes"):
        generator.sample([0])


@pytest.mark.parametrize("name", list_generators())
def test_one_class_can_be_repeated(name: str) -> None:
    generator = build(name)
    assert draw(generator, 1, n=2).shape == (2, P, *SIZE)
    assert draw(generator, 1).shape == (1, P, *SIZE)
    assert draw(generator, []).shape == (0, P, *SIZE)


def test_the_registry_refuses_unknown_and_taken_names() -> None:
    with pytest.raises(ValueError, match="ddpm"):
        get_generator("gan9")
    with pytest.raises(ValueError, match="registered already"):
        register("ddpm")(AbundanceGenerator)


def test_damaged_directories_are_refused(tmp_path: Path) -> None:
    directory = build("ddpm").save(tmp_path)
    (directory / "config.json").write_text('{"name": "gan9", "config": {}}')
    with pytest.raises(BundleError, match="gan9"):
        load_generator(directory)
    (directory / "model.safetensors").unlink()
    with pytest.raises(BundleError, match=r"model\.safetensors is missing"):
        load_generator(directory)


def test_stored_maps_are_closed() -> None:
    a = torch.softmax(torch.randn(2, 5, 4, 4), 1)
    read = as_abundances((255 * a).round().to(torch.uint8))
    assert float((read.sum(1) - 1).abs().max()) < 1e-6
    assert float((read - a).abs().max()) < 0.01
    assert as_abundances(a) is a
    with pytest.raises(ShapeError, match="int64"):
        as_abundances(torch.ones(1, 2, 1, 1, dtype=torch.int64))


def test_symmetries_are_the_eight_of_the_square() -> None:
    x = torch.arange(9.0).view(1, 1, 3, 3)
    turned = dihedral(x.repeat(8, 1, 1, 1), torch.arange(8))
    assert len(turned.flatten(1).unique(dim=0)) == 8
    assert torch.equal(turned.flatten(1).sort(1).values, x.flatten(1).repeat(8, 1))
    assert (turned[:, 0, 1, 1] == 4).all()  # the centre stays
    quarters = {tuple(torch.rot90(x, k, (-2, -1)).flatten().tolist()) for k in range(4)}
    assert quarters <= {tuple(t.flatten().tolist()) for t in turned}
    assert num_symmetries((8, 8)) == 8
    assert num_symmetries((8, 16)) == 4
