"""Laws of `HSISynthesizer`: sampling, decoding, unmixing, classes, and what each bad input raises."""

from __future__ import annotations

import pytest
import torch
from synthesis_toys import NM, WIDE_NM, Toy, abundances, images, materials, synthesizer

from ubf_augment import simplex
from ubf_augment.errors import (
    BandCountError,
    LabelError,
    MissingLabelError,
    NoDataError,
    RadiometryError,
    ShapeError,
    UnknownClassError,
    WavelengthError,
)
from ubf_augment.mixing import ResidualModel, mix
from ubf_augment.seeding import per_sample
from ubf_augment.spectra import Endmembers
from ubf_augment.unmixing import UnmixingModel, fcls


def test_sample_is_mix_of_its_abundances_and_residual() -> None:
    synth, y = synthesizer(), ["forest", "field", "town"]
    a = synth.sample_abundances(y, seed=5)
    simplex.check(a)
    x = synth.sample(y, seed=5)
    assert torch.equal(x, synth.mix(a, y, residual=True, seed=5))
    assert torch.equal(synth.sample(y, seed=5, residual=False), mix(a, materials()))
    assert x.shape == (3, 5, 8, 8)


@pytest.mark.parametrize("batch", [1, 3, 7])
def test_a_seeded_sample_is_the_same_in_every_batch(batch: int) -> None:
    synth = synthesizer()
    y = torch.tensor([0, 1, 2, 0, 1, 2, 0])
    torch.testing.assert_close(
        synth.sample(y[:batch], seed=3), synth.sample(y, seed=3)[:batch], rtol=0, atol=1e-6
    )
    assert not torch.equal(synth.sample(y, seed=3), synth.sample(y, seed=4))


def test_a_sample_depends_on_its_own_generator_alone() -> None:
    synth = synthesizer()
    x = synth.sample(["field"] * 3, generator=per_sample(0, [7, 8, 9]))
    alone = synth.sample(["field"], generator=per_sample(0, [8]))
    torch.testing.assert_close(x[1:2], alone, rtol=0, atol=1e-6)


def test_one_generator_repeats_and_advances() -> None:
    synth = synthesizer()
    g = torch.Generator().manual_seed(0)
    first, second = (synth.sample(["field"], generator=g) for _ in range(2))
    assert torch.equal(first, synth.sample(["field"], generator=torch.Generator().manual_seed(0)))
    assert not torch.equal(first, second)


def test_abundances_and_residual_use_independent_streams() -> None:
    """The residual of a seed does not change with what the sampler draws."""
    synth, y = synthesizer(), ["field", "town"]
    a = abundances(2, 8)
    eps = synth.mix(a, residual=True, seed=1) - synth.mix(a)
    torch.testing.assert_close(
        eps, synth.sample(y, seed=1) - synth.sample(y, seed=1, residual=False), rtol=0, atol=1e-6
    )
    z = torch.randn(2, 8, 8, generator=per_sample(1, [0])[0])
    assert not torch.allclose(eps[0, :2], z)


def test_seed_and_generator_together_are_refused() -> None:
    with pytest.raises(ValueError, match="seed or a generator"):
        synthesizer().sample(["field"], seed=0, generator=torch.Generator())
    with pytest.raises(ValueError, match="2 generators for 1"):
        synthesizer().sample(["field"], generator=per_sample(0, [0, 1]))


def test_n_repeats_a_single_class_and_an_empty_batch_is_empty() -> None:
    synth = synthesizer()
    assert torch.equal(synth.sample("town", n=3, seed=2), synth.sample(["town"] * 3, seed=2))
    assert synth.sample([], seed=0).shape == (0, 5, 8, 8)


def test_a_generator_without_classes() -> None:
    synth = synthesizer(generator=Toy(num_classes=None), classes=())
    assert synth.sample(n=2, seed=0).shape == (2, 5, 8, 8)
    assert synth.num_classes == 0
    with pytest.raises(LabelError, match="no classes"):
        synth.sample([0])
    with pytest.raises(UnknownClassError, match="no class"):
        synth.sample(["field"])


def test_labels_from_names_indices_and_tensors() -> None:
    synth = synthesizer()
    for y in (["town", "field"], [2, 0], torch.tensor([2, 0], dtype=torch.int32), ("town", 0)):
        got = synth.labels(y)
        assert got.tolist() == [2, 0]
        assert got.dtype == torch.int64
    assert synth.labels("forest").tolist() == [1]
    assert synth.labels(torch.tensor(1)).tolist() == [1]


def test_bad_labels() -> None:
    synth = synthesizer()
    with pytest.raises(UnknownClassError, match=r"'forrest'.*nearest.*'forest'"):
        synth.labels(["forrest"])
    with pytest.raises(LabelError, match=r"label 3 at position 1.*0\.\.2"):
        synth.labels([0, 3])
    with pytest.raises(LabelError, match="label -1"):
        synth.labels(torch.tensor([-1]))
    with pytest.raises(LabelError, match=r"float32.*long"):
        synth.labels(torch.tensor([0.0]))
    with pytest.raises(LabelError, match=r"\(B,\)"):
        synth.labels(torch.zeros(2, 3, dtype=torch.int64))
    with pytest.raises(MissingLabelError):
        synth.sample(seed=0)


def test_classes_decode_with_their_own_endmembers() -> None:
    other = materials().spectra * torch.tensor([1.5, 1.0, 0.5, 0.0])[:, None]
    synth = synthesizer(class_endmembers={1: other})
    a = abundances(3, 8)
    x = synth.mix(a, ["field", "forest", "forest"])
    torch.testing.assert_close(x[0], mix(a[:1], materials())[0])
    torch.testing.assert_close(x[1:], mix(a[1:], other))
    assert torch.equal(synth.mix(a), mix(a, materials()))  # no class, no own endmembers
    assert list(synth.class_endmembers) == [1]
    back = synth.unmix(x, ["field", "forest", "forest"])
    torch.testing.assert_close(back, a, rtol=0, atol=1e-3)
    with pytest.raises(ShapeError, match="2 sets"):
        synth.mix(a, [0, 1])
    with pytest.raises(ShapeError, match="2 labels for 3"):
        synth.unmix(x, [0, 1])


def test_mix_is_differentiable_and_not_clipped() -> None:
    negative = ResidualModel(torch.full((5,), -1.0), torch.zeros(5, 1), torch.zeros(5), 0.0)
    synth = synthesizer(residual=negative)
    a = abundances(1, 8).requires_grad_()
    x = synth.mix(a, residual=True, seed=0)
    assert bool((x < 0).any())
    x.sum().backward()
    assert a.grad is not None
    assert bool(a.grad.abs().sum() > 0)


def test_networks_stay_in_eval_mode_and_buffers_follow() -> None:
    synth = synthesizer(class_endmembers={0: materials().spectra})
    assert not synth.train().training
    synth.generator.train()
    synth.sample(["field"], seed=0)
    assert not synth.generator.training
    moved = {name for name, _ in synth.named_buffers()}
    assert {"_spectra", "_class_spectra", "_class_slot", "_mean", "_factors", "_noise_std"} <= moved
    assert synth.endmembers.names == ("soil", "leaf", "roof", "shade")
    assert torch.equal(synth.wavelengths, NM)
    assert not synth.endmembers.spectra.requires_grad


@pytest.mark.gpu
def test_on_a_gpu() -> None:
    synth = synthesizer(class_endmembers={0: materials().spectra})
    y = ["field", "town"]
    here = synth.sample(y, seed=0)
    there = synth.to("cuda").sample(y, seed=0)
    assert there.is_cuda
    torch.testing.assert_close(there.cpu(), here, rtol=0, atol=1e-5)
    assert synth.unmix(there.clamp_min(0), y).is_cuda


def test_parts_that_disagree() -> None:
    five = ResidualModel(torch.zeros(4), torch.zeros(4, 1), torch.zeros(4), 0.0)
    for change, error, match in (
        ({"generator": Toy(5)}, ShapeError, "4 endmembers, but the generator makes maps of 5"),
        ({"residual": five}, ShapeError, "4 bands, the endmembers 5"),
        ({"classes": ["a", "b"]}, LabelError, "2 different class names for a generator of 3"),
        ({"classes": ["a", "b", "a"]}, LabelError, "2 different"),
        ({"class_endmembers": {3: materials().spectra}}, LabelError, r"outside 0\.\.2"),
        ({"class_endmembers": {0: materials().spectra[:, :2]}}, ShapeError, "class 0"),
        ({"rgb_endmembers": torch.zeros(3, 3)}, ShapeError, r"\(4, 3\)"),
        ({"rgb_scale": 0.0}, ValueError, "positive"),
        ({"unmixing": UnmixingModel(materials(), width=8, blocks=1, num_classes=2)}, LabelError, "2 classes"),
    ):
        with pytest.raises(error, match=match):
            synthesizer(**change)


def test_unmix_inverts_mix() -> None:
    synth, a = synthesizer(), abundances(2, 12)
    torch.testing.assert_close(synth.unmix(synth.mix(a)), a, rtol=0, atol=1e-3)


def test_unmix_resamples_other_wavelengths() -> None:
    narrow = Endmembers(materials().spectra, NM, fwhm=torch.full((5,), 2.0))
    synth, a = synthesizer(endmembers=narrow), abundances(1, 8)
    fine = torch.arange(430, 731, 5, dtype=torch.float64)
    x = mix(a, materials(fine))
    assert float((synth.unmix(x, wavelengths=fine) - a).abs().mean()) < 0.01
    assert torch.equal(synth.unmix(synth.mix(a), wavelengths=NM), synth.unmix(synth.mix(a)))


def test_the_encoder_is_used_for_its_own_endmembers_only() -> None:
    model = UnmixingModel(materials(), width=8, blocks=1)
    own = synthesizer(unmixing=model, endmembers=model.endmembers)
    x = own.mix(abundances(1, 8))
    torch.testing.assert_close(own.unmix(x), model.unmix(x))
    brighter = synthesizer(unmixing=model, endmembers=materials().replace(materials().spectra * 1.2))
    torch.testing.assert_close(brighter.unmix(x), fcls(x, brighter.endmembers))


def test_unmix_rgb_reads_displayed_values() -> None:
    synth = synthesizer(rgb_scale=0.5, rgb_gamma=2.0)
    shown = torch.randint(0, 256, (2, 3, 6, 6), dtype=torch.uint8)
    a = synth.unmix_rgb(shown)
    simplex.check(a)
    torch.testing.assert_close(a, synth.unmix_rgb(shown.float() / 255))
    torch.testing.assert_close(a, synth.unmix_rgb_reflectance(0.5 * (shown.float() / 255) ** 2))


def test_unmix_rgb_reproduces_colours_inside_the_gamut() -> None:
    synth, a = synthesizer(), abundances(2, 8)
    rgb = mix(a, synth.rgb_endmembers)
    got = mix(synth.unmix_rgb(rgb), synth.rgb_endmembers)
    assert float((got - rgb).abs().mean()) < 0.02


def test_bad_images() -> None:
    synth = synthesizer()
    x = synth.mix(abundances(2, 8))
    with pytest.raises(ShapeError, match="batch axis"):
        synth.unmix(x[0])
    with pytest.raises(BandCountError, match=r"4 bands, expected 5 \(450–700 nm\).*adapt"):
        synth.unmix(x[:, :4])
    with pytest.raises(RadiometryError, match=r"int64.*divide"):
        synth.unmix((x * 1e4).long())
    with pytest.raises(RadiometryError, match="median"):
        synth.unmix(x * 1e4)
    holes = x.clone()
    holes[1, 0, 2:4, 3] = torch.nan
    with pytest.raises(NoDataError, match=r"2 pixels.*image 1.*mask or fill"):
        synth.unmix(holes)
    with pytest.raises(WavelengthError, match="outside the source range"):
        synth.unmix(x, wavelengths=[500, 520, 560, 665, 700])
    with pytest.raises(WavelengthError, match="not ascending"):
        synth.unmix(x, wavelengths=[490, 450, 560, 665, 700])
    with pytest.raises(BandCountError, match="3 wavelengths"):
        synth.unmix(x, wavelengths=[490, 560, 665])
    with pytest.raises(ShapeError, match="batch axis"):
        synth.mix(abundances(1)[0])


def test_bad_pictures() -> None:
    synth = synthesizer()
    with pytest.raises(ShapeError, match="alpha"):
        synth.unmix_rgb(torch.zeros(1, 4, 4, 4))
    with pytest.raises(RadiometryError, match="int32"):
        synth.unmix_rgb(torch.zeros(1, 3, 4, 4, dtype=torch.int32))
    with pytest.raises(RadiometryError, match=r"\[0, 1\]"):
        synth.unmix_rgb(torch.full((1, 3, 4, 4), 200.0))
    with pytest.raises(NoDataError, match="16 pixels"):
        synth.unmix_rgb(torch.full((1, 3, 4, 4), torch.nan))
    with pytest.raises(ShapeError, match="batch axis"):
        synth.unmix_rgb(torch.zeros(3, 4, 4))


def test_images_helper_is_what_it_says() -> None:
    torch.testing.assert_close(images(2)[:, :5], mix(abundances(2), materials()), rtol=0, atol=1e-6)
    assert images(1).shape[1] == len(WIDE_NM)
