"""The alias-free generator: its filters, its layers, its training, and what the filters are for."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ubf_augment.generators import StyleGAN3
from ubf_augment.generators._alias_free import (
    bands,
    filtered_leaky_relu,
    kaiser_beta,
    lowpass,
    radial_lowpass,
    upsample,
)
from ubf_augment.generators._critic import AdaptiveAugment, Critic, gradient_penalty, spread, translate
from ubf_augment.generators._stylegan3_fit import Players
from ubf_augment.generators._synthesis import FourierInput, ModulatedConv, rotation
from ubf_augment.generators.equivariance import equivariance_rotation, equivariance_translation
from ubf_augment.training import History, make_fabric

TINY: dict[str, Any] = {
    "layers": 3, "channels": 8, "max_channels": 16, "margin": 2, "z_dim": 8, "w_dim": 16,
    "critic_channels": 8, "critic_max_channels": 8,
}  # fmt: skip


def toy(n: int = 24, size: int = 8, seed: int = 3) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    return torch.softmax(2 * torch.randn(n, 3, size, size, generator=g), 1), torch.arange(n) % 2


def fit(gan: StyleGAN3, steps: int, **options: Any) -> History:
    maps, labels = toy()
    return gan.fit(
        maps, labels=labels if gan.num_classes else None, steps=steps, batch_size=8, progress=False,
        fabric=make_fabric(accelerator="cpu"), **options,
    )  # fmt: skip


def response(h: Tensor, frequency: Tensor, rate: float) -> Tensor:
    """Amplitude of a filter at frequencies in the unit of ``rate``."""
    at = torch.arange(len(h), dtype=torch.float64)
    return (h.double() * torch.exp(-2j * math.pi * frequency[:, None] / rate * at)).sum(1).abs()


# Filters


def test_lowpass_is_the_kaiser_design_of_scipy() -> None:
    from scipy.signal import firwin

    for taps, cutoff, half, rate in ((12, 4.0, 4.0, 32), (24, 8.0, 8.0, 64), (12, 32.0, 7.4, 128)):
        h = lowpass(taps, cutoff, half, rate)
        want = firwin(taps, cutoff, width=2 * half, fs=rate)
        np.testing.assert_allclose(h.numpy(), want, atol=1e-6)


def test_lowpass_passes_and_stops() -> None:
    rate, cutoff, half = 64.0, 8.0, 8.0
    h = lowpass(24, cutoff, half, rate)
    assert torch.equal(h, h.flip(0))
    assert float(h.sum()) == pytest.approx(1, abs=1e-6)
    passed = response(h, torch.linspace(0, cutoff - half, 5), rate)
    stopped = response(h, torch.linspace(cutoff + half, rate / 2, 50), rate)
    attenuation = 2.285 * 23 * math.pi * (2 * half / (rate / 2)) + 7.95
    assert attenuation > 80
    assert float((passed - 1).abs().max()) < 1e-3
    assert 20 * math.log10(float(stopped.max())) < 1 - attenuation
    assert float(response(h, torch.tensor([cutoff]), rate)) == pytest.approx(0.5, abs=0.01)


def test_radial_lowpass_has_one_response_in_all_directions() -> None:
    rate, cutoff, half = 64.0, 8.0, 8.0
    h = radial_lowpass(24, cutoff, half, rate)
    assert float(h.sum()) == pytest.approx(1, abs=1e-5)
    for symmetric in (h.T, h.flip(0), h.flip(1)):
        torch.testing.assert_close(h, symmetric)
    at = torch.arange(24, dtype=torch.float64)
    f = torch.linspace(0, 24, 25, dtype=torch.float64)
    straight = response(h.sum(0), f, rate)
    wave = torch.exp(-2j * math.pi * f[:, None] / math.sqrt(2) / rate * at)
    diagonal = torch.einsum("fi,ij,fj->f", wave, h.to(wave.dtype), wave).abs()
    torch.testing.assert_close(straight, diagonal, atol=0.01, rtol=0)
    assert float(straight[17:].max()) < 0.01
    separable = torch.outer(lowpass(24, cutoff, half, rate), lowpass(24, cutoff, half, rate)).to(wave.dtype)
    unlike = torch.einsum("fi,ij,fj->f", wave, separable, wave).abs() - response(
        lowpass(24, cutoff, half, rate), f, rate
    )
    assert float(unlike.abs().max()) > 0.1


@pytest.mark.parametrize(("attenuation", "beta"), [(10.0, 0.0), (40.0, 3.3953), (60.0, 5.6533)])
def test_kaiser_beta_is_scipys(attenuation: float, beta: float) -> None:
    from scipy.signal import kaiser_atten
    from scipy.signal import kaiser_beta as oracle

    width = (attenuation - 7.95) / (2.285 * 11 * math.pi)
    assert kaiser_atten(12, width) == pytest.approx(attenuation)
    assert kaiser_beta(12, width) == pytest.approx(oracle(attenuation), abs=1e-6)
    assert kaiser_beta(12, width) == pytest.approx(beta, abs=1e-3)


@pytest.mark.parametrize("factor", [2, 4])
def test_upsampling_interpolates_a_wave_in_place(factor: int) -> None:
    n, cycles, rate = 32, 3.0, 32.0
    h = lowpass(6 * factor, 8.0, 8.0, rate * factor, phases=factor)
    gain = float(response(h, torch.tensor([cycles]), rate * factor))  # a little below one
    assert gain > 0.9

    def wave(side: int) -> Tensor:
        return torch.cos(2 * math.pi * cycles * ((torch.arange(side) + 0.5) / side - 0.5) + 0.3)

    x = wave(n).view(1, 1, 1, n).expand(1, 2, n, n)
    for size in (n * factor, n * factor - 8, n * factor + 10):
        y = upsample(x, h, factor, size)
        assert y.shape == (1, 2, size, size)
        skip = (size - n * factor) // 2
        full = F.pad(wave(n * factor), [max(skip, 0)] * 2)
        want = gain * full[max(-skip, 0) : max(-skip, 0) + size]
        middle = slice(size // 4, -size // 4)
        torch.testing.assert_close(
            y[0, 1, size // 2, middle], want[middle], atol=0.01, rtol=0, msg=f"size {size}"
        )


@pytest.mark.parametrize("value", [-1.5, 0.7])
@pytest.mark.parametrize("radial", [False, True])
@pytest.mark.parametrize(("before", "after"), [(16, 16), (16, 32)])
def test_the_nonlinearity_of_a_constant_is_plain(value: float, radial: bool, before: int, after: int) -> None:
    high = 2 * after
    factors = (high // before, 2)
    up = lowpass(6 * factors[0], before / 4, before / 4, high, factors[0])
    down = (radial_lowpass if radial else lowpass)(12, after / 4, after / 4, high)
    y = filtered_leaky_relu(torch.full((2, 3, before + 12, before + 12), value), up, down, factors, after)
    assert y.shape == (2, 3, after, after)
    want = math.sqrt(2) * F.leaky_relu(torch.tensor(value), 0.2)
    torch.testing.assert_close(y, want.expand_as(y), atol=1e-5, rtol=1e-5)


def test_the_nonlinearity_makes_no_new_high_frequencies() -> None:
    n, cycles = 64, 10
    x = torch.cos(2 * math.pi * cycles * (torch.arange(n) + 0.5) / n).view(1, 1, 1, n).repeat(1, 1, n, 1)
    up, down = lowpass(12, 16.0, 16.0, 128, 2), lowpass(12, 16.0, 16.0, 128)
    filtered = filtered_leaky_relu(x, up, down, (2, 2), n)[0, 0, n // 2, 16:48]
    plain = (math.sqrt(2) * F.leaky_relu(x, 0.2))[0, 0, n // 2, 16:48]
    window = torch.hann_window(32)
    shares = []
    for signal in (filtered, plain):  # of 32 samples: harmonic 4, at 40 of 64, folds to 24 and so to bin 12
        power = torch.fft.rfft(signal * window).abs().square()
        shares.append(float(power[12:].sum() / power.sum()))
    assert shares[0] < 1e-6
    assert shares[1] > 1e-3


def test_bands_follow_the_paper() -> None:
    layout = bands(256, 14, 64, 512, margin=10)
    assert [layout[0].cutoff, layout[-1].cutoff, layout[-2].cutoff] == [2.0, 128.0, 128.0]
    cutoffs = torch.tensor([b.cutoff for b in layout[:-1]])
    ratios = (cutoffs[1:] / cutoffs[:-1]).tolist()
    assert ratios == pytest.approx([ratios[0]] * len(ratios))
    assert layout[0].cutoff + layout[0].half_width == pytest.approx(8.0)  # rate 16: the whole band is used
    assert layout[-1].cutoff + layout[-1].half_width == pytest.approx(2**0.3 * 128)
    rates = [b.rate for b in layout]
    assert rates == sorted(rates)
    assert (rates[0], rates[-1]) == (16, 256)
    assert all(b.cutoff < b.rate / 2 for b in layout[:-2])
    assert [b.size - b.rate for b in layout] == [20] * 14 + [0]
    assert {b.rate for b in bands(8, 4, 8, 16, 2)} == {8}
    assert {b.rate for b in bands(48, 8, 8, 16, 2)} == {12, 24, 48}
    assert {b.rate for b in bands(25, 4, 8, 16, 2)} == {25}


# Layers


@pytest.mark.parametrize("kernel", [1, 3])
def test_modulated_convolution_is_one_convolution_per_sample(kernel: int) -> None:
    conv = ModulatedConv(5, 4, kernel, w_dim=7, decay=0.9).eval()
    with torch.no_grad():
        conv.bias.normal_()
        conv.magnitude.fill_(4.0)
    x, w = torch.randn(3, 5, 6, 6), torch.randn(3, 7)
    styles = conv.affine(w)
    for i in range(3):
        weight = conv.weight * styles[i].view(1, -1, 1, 1)
        weight = weight / weight.square().sum((1, 2, 3), keepdim=True).sqrt()
        want = F.conv2d(x[i : i + 1] / 2, weight, conv.bias, padding=kernel // 2)
        torch.testing.assert_close(conv(x, w)[i : i + 1], want, atol=1e-5, rtol=1e-4)


def test_magnitudes_are_measured_in_training_only() -> None:
    conv, w = ModulatedConv(4, 4, 1, w_dim=3, decay=0.5), torch.randn(8, 3)
    with torch.no_grad():
        conv(3 * torch.ones(8, 4, 5, 5), w)
        assert float(conv.magnitude) == pytest.approx(9)
        conv(5 * torch.ones(8, 4, 5, 5), w)
        assert float(conv.magnitude) == pytest.approx((9 + 25) / 2)
        conv(torch.zeros(8, 4, 5, 5), w)
        assert float(conv.magnitude) == pytest.approx(17 / 2)
        conv.eval()(torch.ones(8, 4, 5, 5), w)
        assert float(conv.magnitude) == pytest.approx(17 / 2)


def test_the_input_waves_move_and_turn() -> None:
    band = bands(32, 3, 16, 16, margin=4)[0]
    waves, w = FourierInput(band, w_dim=5), torch.randn(1, 5)
    still, none = torch.zeros(1, 2), torch.zeros(1)
    x = waves(w, still, none)
    assert x.shape == (1, 16, band.size, band.size)
    down = waves(w, torch.tensor([[2.0, 1.0]]) / band.rate, none)
    torch.testing.assert_close(down[..., 2:, 1:], x[..., :-2, :-1], atol=1e-4, rtol=0)
    left = waves(w, still, torch.tensor([math.pi / 2]))
    torch.testing.assert_close(left, torch.rot90(x, 1, (2, 3)), atol=1e-4, rtol=0)
    c, s = torch.tensor([math.cos(0.4)]), torch.tensor([math.sin(0.4)])
    torch.testing.assert_close(rotation(c, s) @ rotation(c, -s), torch.eye(2)[None])
    with torch.no_grad():
        waves.affine.bias.copy_(torch.tensor([0.0, 2.0, 1.0 / band.rate, 0.0]))
    styled = waves(w, still, none)  # a quarter turn and one row, whatever the length of the first two
    torch.testing.assert_close(styled[..., :-1], torch.rot90(x, -1, (2, 3))[..., 1:], atol=1e-4, rtol=0)


def test_the_maps_belong_to_one_plane() -> None:
    """Filtered, maps follow their input by ≥ 10 dB more than without; radially, they follow turns too."""
    scores: dict[str, float] = {}
    turned: dict[str, float] = {}
    for name, settings in {
        "t": {}, "plain": {"filtered": False}, "r": {"variant": "r", "channels": 16, "max_channels": 64},
    }.items():  # fmt: skip
        gan = StyleGAN3(
            4, (32, 32), **{**TINY, "layers": 6, "max_channels": 32, "margin": 10, **settings}, init_seed=1
        )
        with torch.no_grad():
            gan(torch.randn(8, 8, generator=torch.Generator().manual_seed(0)), None)  # measures magnitudes
        gan.requires_grad_(False)
        scores[name] = equivariance_translation(gan, logits=True)
        scores[f"{name} maps"] = equivariance_translation(gan)
        turned[name] = equivariance_rotation(gan, logits=True)
    assert scores["t"] > 60
    assert scores["t"] > scores["plain"] + 10
    assert scores["t maps"] > scores["plain maps"] + 10
    assert scores["r"] > 60
    assert turned["r"] > turned["t"] + 10


def test_equivariance_measures_a_known_error() -> None:
    gan = StyleGAN3(3, (16, 16), num_classes=2, **TINY).eval()

    class Known(nn.Module):
        def forward(self, w: Tensor, shift: Tensor, angle: Tensor) -> Tensor:
            at = torch.arange(16.0)
            rows, columns = at[:, None] - 16 * shift[:, :1, None], at - 16 * shift[:, 1:, None]
            z = torch.stack([rows + 0 * columns, columns + 0 * rows, 0 * (rows + columns)], 1)
            return z + 3 * (shift != 0).any(1).view(-1, 1, 1, 1)

    gan.synthesis = Known()
    value = equivariance_translation(gan, n=64, logits=True)
    moved = 20 * math.log10(15 / 3)
    assert moved - 1e-3 <= value < moved + 0.5  # a few of the 64 shifts may be none
    assert equivariance_translation(gan, n=64) > 100  # the softmax ignores a common shift
    assert not gan.training


# Critic and augmentation


def test_gradient_penalty_of_a_linear_critic() -> None:
    weight = torch.randn(3, 4, 4, requires_grad=True)
    maps = torch.rand(5, 3, 4, 4, requires_grad=True)
    penalty = gradient_penalty((maps * weight).sum((1, 2, 3)), maps)
    torch.testing.assert_close(penalty, 0.5 * weight.square().sum())
    (gradient,) = torch.autograd.grad(penalty, weight)
    torch.testing.assert_close(gradient, weight)


def test_the_critic_sees_classes_by_projection() -> None:
    critic = Critic(3, (16, 16), 2, 8, 16, minibatch_std=False)
    a, y = toy(6, 16)[0], torch.zeros(6, dtype=torch.int64)
    phi: list[Tensor] = []
    critic.score.register_forward_hook(lambda module, inputs, output: phi.append(inputs[0]))
    assert critic.embedding is not None
    difference = critic(a, y + 1) - critic(a, y)
    embedded = critic.embedding.weight[1] - critic.embedding.weight[0]
    torch.testing.assert_close(
        difference, phi[0] @ embedded / math.sqrt(phi[0].shape[1]), atol=1e-5, rtol=1e-4
    )
    torch.testing.assert_close(critic(a[2:3], y[:1]), critic(a, y)[2:3], atol=1e-5, rtol=1e-4)
    assert Critic(3, (25, 25), None, 8, 16, minibatch_std=True)(toy(5, 25)[0], None).shape == (5,)


def test_spread_is_zero_for_copies() -> None:
    x = torch.randn(1, 3, 4, 4).expand(8, 3, 4, 4)
    assert float(spread(x).max()) <= 1.1e-4
    x = torch.randn(6, 3, 4, 4)  # groups of 3
    want = x[:3].std(0, correction=0).mean()
    torch.testing.assert_close(spread(x)[0, 0, 0, 0], want, atol=1e-4, rtol=1e-4)
    assert not torch.isclose(spread(x)[3, 0, 0, 0], want)


def test_augmented_maps_stay_on_the_simplex() -> None:
    a, _ = toy(64, 16)
    ada = AdaptiveAugment()
    assert torch.equal(ada(a, torch.Generator().manual_seed(0)), a)
    ada.p.fill_(0.8)
    b = ada(a, torch.Generator().manual_seed(0))
    assert float(b.min()) >= 0
    assert float((b.sum(1) - 1).abs().max()) < 1e-6
    changed = (b - a).flatten(1).abs().max(1).values > 1e-6
    assert 0.9 < float(changed.float().mean()) <= 1  # 1 − (0.2·(1 − small))⁴
    assert torch.equal(b, ada(a, torch.Generator().manual_seed(0)))
    wide = torch.softmax(torch.randn(8, 3, 8, 16), 1)
    assert ada(wide, torch.Generator().manual_seed(0)).shape == wide.shape


def test_gradients_pass_the_augmentation() -> None:
    a = toy(16, 8)[0].requires_grad_()
    ada = AdaptiveAugment()
    ada.p.fill_(0.8)
    weight = torch.rand(16, 3, 8, 8)
    (gradient,) = torch.autograd.grad((weight * ada(a, torch.Generator().manual_seed(0))).sum(), a)
    assert bool((gradient.flatten(1).abs().sum(1) > 0).all())


def test_translation_moves_whole_pixels() -> None:
    a = toy(3, 8)[0]
    by = torch.tensor([[0, 0], [2, -1], [-1, 1]])
    b = translate(a, by)
    assert torch.equal(b[0], a[0])
    assert torch.equal(b[1, :, 2:, :-1], a[1, :, :-2, 1:])
    assert torch.equal(b[1, :, 0, :-1], a[1, :, 2, 1:])  # reflected
    assert torch.equal(b[2, :, :-1, 1:], a[2, :, 1:, :-1])


def test_augmentation_follows_overfitting() -> None:
    ada = AdaptiveAugment(target=0.6, images=320, highest=0.3)
    sure, unsure = torch.ones(16), torch.tensor([1.0, -1.0]).repeat(8)
    for _ in range(3):
        ada.update(sure)
    assert float(ada.p) == 0  # changes every 4 batches
    ada.update(sure)
    assert float(ada.p) == pytest.approx(64 / 320)
    assert float(ada.r) == 1
    for _ in range(4):
        ada.update(sure)
    assert float(ada.p) == pytest.approx(0.3)  # held
    for _ in range(4):
        ada.update(unsure)
    assert float(ada.p) == pytest.approx(0.1)
    for _ in range(4):
        ada.update(unsure)
    assert float(ada.p) == 0
    assert float(ada.r) == 0


# Training


def test_one_backward_pass_gives_each_player_its_own_gradient() -> None:
    gan = StyleGAN3(3, (8, 8), 2, **{**TINY, "minibatch_std": False})
    critic, (maps, y) = gan.critic(), toy(8)
    players = Players(gan, critic, gamma=0.7)
    given = maps.clone()
    players(maps, y, torch.Generator().manual_seed(0)).backward()
    assert not maps.requires_grad
    assert torch.equal(maps, given)
    got = {k: p.grad.clone() for k, p in players.named_parameters() if p.grad is not None}
    assert len(got) == len(list(players.parameters()))
    players.zero_grad()
    gan.eval()  # magnitudes as the first pass left them
    z = torch.randn(8, gan.z_dim, generator=torch.Generator().manual_seed(0))
    F.softplus(-critic(gan(z, y), y)).mean().backward()
    for k, p in gan.named_parameters():
        torch.testing.assert_close(got[f"generator.{k}"], p.grad, msg=k)
    players.zero_grad()
    real = maps.clone().requires_grad_()
    scores = critic(real, y)
    loss = F.softplus(critic(gan(z, y).detach(), y)).mean() + F.softplus(-scores).mean()
    (loss + 0.7 * gradient_penalty(scores, real)).backward()
    for k, p in critic.named_parameters():
        torch.testing.assert_close(got[f"critic.{k}"], p.grad, msg=k)


def test_the_penalty_is_lazy() -> None:
    gan = StyleGAN3(3, (8, 8), 2, **TINY)
    maps, y = toy(8)
    with_penalty = Players(gan, gan.critic(), gamma=5.0, interval=2)
    without = Players(gan, gan.critic(), gamma=0.0, interval=2)
    gan.eval()
    extra = [
        float(with_penalty(maps, y, torch.Generator().manual_seed(i)).detach())
        - float(without(maps, y, torch.Generator().manual_seed(i)).detach())
        for i in range(4)
    ]
    real = maps.clone().requires_grad_()
    want = 2 * 5.0 * float(gradient_penalty(gan.critic()(real, y), real).detach())
    assert extra == pytest.approx([want, 0, want, 0], rel=1e-3, abs=1e-5)
    assert want > 1e-3


def test_a_resumed_run_is_the_uninterrupted_one(tmp_path: Path) -> None:
    options = {"ada_images": 100, "ada_target": -1.0, "penalty_interval": 3}
    whole, parts = StyleGAN3(3, (8, 8), 2, **TINY), StyleGAN3(3, (8, 8), 2, **TINY)
    first = fit(whole, 11, **options)
    fit(parts, 5, checkpoint=tmp_path / "c.pt", **options)
    parts = StyleGAN3(3, (8, 8), 2, **TINY)
    second = fit(parts, 11, checkpoint=tmp_path / "c.pt", **options)
    assert first.loss == second.loss
    assert first.extra == second.extra
    assert first.extra["ada_p"] == pytest.approx(0.64)
    for k, v in whole.state_dict().items():
        assert torch.equal(v, parts.state_dict()[k]), k
    for k, v in whole.critic().state_dict().items():
        assert torch.equal(v, parts.critic().state_dict()[k]), k


def test_the_critic_stays_out_of_the_saved_generator(tmp_path: Path) -> None:
    gan = StyleGAN3(3, (8, 8), 2, **TINY)
    names = set(gan.state_dict())
    fit(gan, 2, checkpoint=tmp_path / "c.pt", ada_target=None)
    assert set(gan.state_dict()) == names
    assert not [k for k in names if "critic" in k]
    saved = torch.load(tmp_path / "c.pt", weights_only=True)["model"]
    assert {k.split(".")[0] for k in saved} == {"generator", "critic", "step"}
    critic = gan.critic()
    fit(gan, 2)
    assert gan.critic() is critic  # training goes on against the same one


def test_truncation_leads_to_one_map_per_class() -> None:
    gan = StyleGAN3(3, (8, 8), 2, **TINY)
    y = torch.arange(8) % 2

    def varied(truncation: float) -> float:
        a = gan.sample(y, generator=torch.Generator().manual_seed(0), truncation=truncation)
        return float(a[::2].std(0).mean())

    a = gan.sample(y, generator=torch.Generator().manual_seed(0), truncation=0.0)
    torch.testing.assert_close(a[0::2], a[:1].expand(4, -1, -1, -1), atol=1e-5, rtol=0)
    torch.testing.assert_close(a[1::2], a[1:2].expand(4, -1, -1, -1), atol=1e-5, rtol=0)
    assert float((a[0] - a[1]).abs().max()) > 1e-2
    assert varied(0.0) < 1e-6 < varied(0.3) < varied(1.0)
    free = StyleGAN3(3, (8, 8), **TINY).sample(n=3, truncation=0.0)
    torch.testing.assert_close(free[1:], free[:1].expand(2, -1, -1, -1), atol=1e-5, rtol=0)
    with pytest.raises(TypeError, match="steps"):
        gan.sample([0], steps=3)


def test_sizes_that_do_not_fit_are_refused() -> None:
    for size in ((8, 16), (4, 4)):
        with pytest.raises(ValueError, match="square maps of at least 8"):
            StyleGAN3(3, size)
    with pytest.raises(ValueError, match="at least 3 layers"):
        StyleGAN3(3, (8, 8), layers=2)
    with pytest.raises(ValueError, match="variant='x'"):
        StyleGAN3(3, (8, 8), variant="x")


@pytest.mark.parametrize("size", [25, 48])
def test_other_sizes_work(size: int) -> None:
    gan = StyleGAN3(3, (size, size), **TINY)
    assert gan.sample(n=2).shape == (2, 3, size, size)
    assert bool(gan.loss(toy(4, size)[0], None, torch.Generator().manual_seed(0)).isfinite())


def test_default_cost_at_64_pixels() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    gan = StyleGAN3(6, (64, 64), 30).eval()
    assert 1.5e6 < sum(p.numel() for p in gan.parameters()) < 4e6
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        gan(torch.randn(1, gan.z_dim), torch.zeros(1, dtype=torch.int64))
    assert counter.get_total_flops() < 2e9
