"""Pretraining on RGB pictures, of the benchmarks: what a step decodes, and that a run resumes to the same weights."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from synthesis_toys import NM, materials, residual, synthesizer
from torch import Tensor, nn

from ubf_augment.classification import LabelledImages, Recipe, predict, train_classifier
from ubf_augment.mixing import mix
from ubf_augment.strategies import SpectralVariation
from ubf_augment.training import make_fabric

FOLDER = Path(__file__).resolve().parent.parent / "benchmarks"
if not (FOLDER / "pretraining.py").exists():
    pytest.skip("the benchmarks are not part of this installation", allow_module_level=True)
with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(str(FOLDER))
    from pretraining import Decoder, pretrain, unmixed

CPU = torch.device("cpu")
TEST = Recipe("test_resnet", steps=4, batch_size=6)


def pictures(n: int = 8, size: int = 32, seed: int = 0) -> dict[str, Tensor]:
    """Green and grey scenes: two classes that any network tells apart."""
    g = torch.Generator().manual_seed(seed)
    base = {"wood": (40, 90, 40), "road": (110, 105, 100)}
    noise = torch.randint(-15, 16, (n, 3, size, size), generator=g)
    return {
        k: (torch.tensor(v)[:, None, None] + noise).clamp(0, 255).to(torch.uint8) for k, v in base.items()
    }


def quick(synth: Any, recipe: Recipe = TEST, **options: Any) -> Any:
    options = {"size": 32, "progress": False, "fabric": make_fabric(accelerator="cpu"), **options}
    return pretrain(synth, pictures(), recipe, **options)


def same(a: nn.Module, b: nn.Module) -> bool:
    other = b.state_dict()
    return all(torch.equal(v, other[k]) for k, v in a.state_dict().items())


# ---- what is decoded ----


def test_without_variation_and_residual_a_picture_is_mixed_as_it_was_unmixed() -> None:
    synth = synthesizer(residual=None)
    rgb = torch.cat(list(pictures(2).values()))
    a = unmixed(synth, rgb)
    assert a.dtype == torch.uint8
    assert bool((a.sum(1, dtype=torch.int64) == 255).all())
    torch.testing.assert_close(a / 255, synth.unmix_rgb(rgb, fast=True), atol=1 / 255, rtol=0)
    decode = Decoder(synth, SpectralVariation(NM, 0.0, 0.0), CPU)
    x = decode(a, torch.Generator().manual_seed(0))
    torch.testing.assert_close(x, mix(a / 255, materials().spectra.float()))


def test_variation_multiplies_each_endmember_by_one_smooth_gain() -> None:
    """Pure pixels of one material: image over spectrum is a gain, the same in the whole image, and another image has another."""
    synth = synthesizer(residual=None)
    a = torch.zeros(3, 4, 2, 2, dtype=torch.uint8)
    a[:, 0] = 255
    x = Decoder(synth, SpectralVariation(NM, 0.3, 0.1), CPU)(a, torch.Generator().manual_seed(0))
    gain = x / materials().spectra[0].float()[:, None, None]
    torch.testing.assert_close(gain, gain[:, :, :1, :1].expand_as(gain))
    assert bool((gain > 0).all())
    assert float((gain[0] - gain[1]).abs().min()) > 1e-3
    dark = torch.zeros_like(a)
    dark[:, 3] = 255  # shade stays dark under any gain
    assert not Decoder(synth, SpectralVariation(NM, 0.3, 0.1), CPU)(dark, torch.Generator()).any()


def test_the_residual_is_that_of_the_sensor() -> None:
    """Shade alone: what is left is the residual; its mean and deviation are the model's."""
    synth, model = synthesizer(), residual()
    a = torch.zeros(64, 4, 16, 16, dtype=torch.uint8)
    a[:, 3] = 255
    x = Decoder(synth, SpectralVariation(NM, 0.2, 0.2), CPU)(a, torch.Generator().manual_seed(0))
    deviation = torch.diagonal(model.covariance()).sqrt()
    torch.testing.assert_close(x.mean((0, 2, 3)), model.mean, atol=2e-3, rtol=0)
    torch.testing.assert_close(x.std((0, 2, 3)), deviation, rtol=0.15, atol=0)


def test_no_image_is_seen_twice() -> None:
    seen: list[Tensor] = []

    class Watch(nn.Module):
        def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
            seen.extend(batch["image"])
            return batch

    quick(synthesizer(residual=None), Recipe("test_resnet", steps=6, batch_size=8), after=Watch)
    assert len(seen) == 48
    means = torch.stack([x.mean() for x in seen])
    assert len(means.unique()) == 48  # of 16 pictures


# ---- the training ----


def test_bands_are_standardised_by_what_is_decoded() -> None:
    synth = synthesizer()
    net = quick(synth)
    decode = Decoder(synth, SpectralVariation(NM), CPU)
    a = unmixed(synth, torch.cat(list(pictures().values())))
    x = torch.cat([decode(a, torch.Generator().manual_seed(i)) for i in range(100)])
    torch.testing.assert_close(net.mean.flatten(), x.mean((0, 2, 3)), rtol=0.1, atol=0)
    torch.testing.assert_close(net.std.flatten(), x.std((0, 2, 3)), rtol=0.2, atol=0)
    assert not net.training


def test_the_seed_decides_everything(tmp_path: Path) -> None:
    first = quick(synthesizer(), seed=3)
    torch.randn(5)  # whatever happens elsewhere
    assert same(first, quick(synthesizer(), seed=3))
    assert not same(first, quick(synthesizer(), seed=4))


def test_an_interrupted_run_ends_with_the_same_weights(tmp_path: Path) -> None:
    class Stop(nn.Module):
        """Asks to stop during the third step."""

        count = 0

        def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
            Stop.count += 1
            if Stop.count == 3:
                os.kill(os.getpid(), signal.SIGINT)
            return batch

    path = tmp_path / "run.pt"
    with pytest.raises(KeyboardInterrupt):
        quick(synthesizer(), after=Stop, checkpoint=path)
    assert torch.load(path, weights_only=True)["step"] == 3
    resumed = quick(synthesizer(), after=Stop, checkpoint=path)
    assert Stop.count == 4
    assert same(resumed, quick(synthesizer()))
    for changed in ({"endmember_std": 0.1}, {"size": 48}):
        with pytest.raises(ValueError, match="belongs to another run"):
            quick(synthesizer(), checkpoint=path, **changed)


def test_it_learns_the_pictures() -> None:
    synth = synthesizer()
    net = quick(synth, Recipe("test_resnet", steps=60, batch_size=8, lr=3e-3))
    new = pictures(16, seed=9)
    x = torch.cat([synth.lift(v, seed=i) for i, v in enumerate(new.values())])
    y = torch.arange(2).repeat_interleave(16)
    assert float((predict(net, x).argmax(1) == y).float().mean()) > 0.9


def test_a_training_starts_from_the_backbone() -> None:
    """After one step of (almost) no length the network is the pretrained one, but for its new last layer."""
    synth = synthesizer()
    net, x = quick(synth), synth.lift(torch.cat(list(pictures().values())), seed=0)
    few = LabelledImages(x, torch.arange(16) % 3, ("a", "b", "c"), NM)
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
    "change", [{"imbalance": "weights"}, {"synthetic_weight": 0.5}, {"split_batch_norm": True}]
)
def test_what_has_no_meaning_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(change))} has no meaning in pretraining"):
        quick(synthesizer(), Recipe("test_resnet", steps=2, batch_size=4, **change))
