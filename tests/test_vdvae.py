"""The very deep autoencoder: its likelihood on the simplex, its bound, its sampling and editing."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ubf_augment import simplex
from ubf_augment.errors import MissingLabelError, ShapeError
from ubf_augment.generators import VDVAE
from ubf_augment.generators._count_likelihood import CountChain, to_counts
from ubf_augment.seeding import per_sample
from ubf_augment.training import make_fabric

CPU: dict[str, Any] = {"fabric": make_fabric(accelerator="cpu"), "progress": False}
SMALL: dict[str, Any] = {
    "widths": (16,), "encoder_blocks": (1,), "decoder_blocks": (1,), "latent_channels": 4,
}  # fmt: skip


def small(num_classes: int | None = None, size: tuple[int, int] = (8, 8), **config: Any) -> VDVAE:
    return VDVAE(3, size, num_classes, **(SMALL | config))


def maps_of(n: int = 16, p: int = 3, size: int = 8) -> Tensor:
    g = torch.Generator().manual_seed(0)
    low = torch.randn(n, p, 2, 2, generator=g)
    return torch.softmax(2 * torch.nn.functional.interpolate(low, size, mode="bilinear"), 1)


def grid(p: int, levels: int) -> Tensor:
    """All grid points of a simplex, as maps of one pixel."""
    points = [n for n in itertools.product(range(levels + 1), repeat=p) if sum(n) == levels]
    assert len(points) == math.comb(levels + p - 1, p - 1)
    return torch.tensor(points, dtype=torch.float32)[:, :, None, None]


@pytest.mark.parametrize(("p", "mixtures", "levels"), [(2, 1, 255), (3, 2, 20), (4, 3, 8)])
@pytest.mark.parametrize("spread", [0.0, 1.0, 6.0])
def test_probabilities_of_all_grid_points_sum_to_one(
    p: int, mixtures: int, levels: int, spread: float
) -> None:
    chain = CountChain(p, mixtures, levels)
    points = grid(p, levels)
    for _ in range(3):
        raw = spread * torch.randn(1, chain.channels, 1, 1)
        total = chain.log_prob(raw.expand(len(points), -1, -1, -1), points).double().exp().sum()
        assert float(total) == pytest.approx(1, abs=2e-5)


def test_probabilities_are_differences_of_scipys_logistic() -> None:
    from scipy.stats import logistic

    chain = CountChain(3, 1, 30)
    points = grid(3, 30)
    raw = torch.randn(1, chain.channels, 1, 1)
    location, scale, _ = (v[0, 0, :, 0, 0].double().numpy() for v in chain._parts(raw))
    log_p = 0.0
    left = np.full(len(points), 30.0)
    for k in range(2):
        n = points[:, k, 0, 0].double().numpy()
        with np.errstate(divide="ignore"):
            high, low = np.log((n + 1) / (left - n)), np.log(n / (left + 1 - n))
        dist = logistic(location[k], scale[k])
        log_p = log_p + np.log(dist.cdf(high) - dist.cdf(low))
        left = left - n
    got = chain.log_prob(raw.expand(len(points), -1, -1, -1), points).flatten()
    np.testing.assert_allclose(got.numpy(), log_p, rtol=1e-3, atol=1e-3)


def test_far_tails_stay_finite() -> None:
    chain = CountChain(3, 1, 255)
    raw = torch.zeros(2, chain.channels, 1, 1, requires_grad=True)
    raw.data[:, :2] = torch.tensor([[300.0], [-300.0]])[..., None, None]
    raw.data[:, 2:4] = -100.0  # the smallest scale
    n = torch.tensor([[0.0, 0.0, 255.0], [255.0, 0.0, 0.0]])[:, :, None, None]
    log_p = chain.log_prob(raw, n)
    assert bool((log_p < -1000).all())
    log_p.sum().backward()
    assert bool(torch.isfinite(log_p).all())
    assert bool(torch.isfinite(raw.grad).all())  # type: ignore[arg-type]


def test_the_chain_is_sharper_than_a_multinomial_can_be() -> None:
    from scipy.stats import multinomial

    n = torch.tensor([85.0, 100.0, 70.0])
    chain = CountChain(3, 1, 255)
    raw = torch.full((1, chain.channels, 1, 1), -20.0)
    odds = ((n[0] + 0.5) / (255 - n[0] + 0.5), (n[1] + 0.5) / (n[2] + 0.5))
    raw[0, 0], raw[0, 1] = math.log(odds[0]) + math.log(2), math.log(odds[1])
    log_p = float(chain.log_prob(raw, n.view(1, 3, 1, 1)))
    assert log_p > -0.5
    assert multinomial.logpmf(n.numpy(), 255, n.numpy() / 255) < -5.5


@pytest.mark.parametrize("scale", [0.3, 2.0])
def test_draws_and_mean_belong_to_the_probabilities(scale: float) -> None:
    chain, points = CountChain(3, 2, 12), grid(3, 12)
    raw = scale * torch.randn(1, chain.channels, 1, 1)
    p = chain.log_prob(raw.expand(len(points), -1, -1, -1), points).exp().flatten()
    drawn = 12 * chain.draw(raw.expand(20_000, -1, -1, -1), torch.rand(20_000, 2, 2, 1, 1))
    share = torch.stack([(drawn == n).all(1).float().mean() for n in points])
    torch.testing.assert_close(share, p, atol=0.012, rtol=0)
    mean = chain.mean(raw)
    simplex.check(mean)
    assert float(mean.min()) >= 0
    exact = (p[:, None] * points[:, :, 0, 0]).sum(0)
    torch.testing.assert_close(12 * mean.flatten(), exact, atol=0.5, rtol=0)


def test_raw_zeros_mean_an_even_composition() -> None:
    for p in (2, 3, 6):
        mean = CountChain(p, 1).mean(torch.zeros(1, 3 * (p - 1), 1, 1)).flatten()
        assert float((mean - 1 / p).abs().max()) < 0.35 / p


def test_counts_sum_exactly_and_stay_within_one() -> None:
    a = torch.softmax(3 * torch.randn(4, 6, 8, 8), 1)
    n = to_counts(a)
    assert torch.equal(n, n.round())
    assert torch.equal(n.sum(1), torch.full((4, 8, 8), 255.0))
    assert float((n - 255 * a).abs().max()) < 1
    stored = n.to(torch.uint8)
    assert torch.equal(to_counts(simplex.closure(stored.float())), n)
    even = to_counts(torch.full((1, 3, 1, 1), 1 / 3), levels=4).flatten()
    assert sorted(even.tolist()) == [1, 1, 2]
    outside = torch.tensor([-0.001, 0.5, 0.501]).view(1, 3, 1, 1)  # within the tolerance of `fit`
    assert to_counts(outside).sum() == 255
    assert to_counts(outside).min() >= 0


def test_the_bound_lies_below_the_likelihood_by_the_posteriors_error() -> None:
    """One latent number: log p(n) by quadrature, and log p − ELBO = KL(q ‖ p(z | n)), the same way."""
    model = VDVAE(
        2, (2, 2), widths=(8,), encoder_blocks=(1,), decoder_blocks=(0, 1), latent_channels=1, mixtures=1
    )
    net = model.net
    assert net.latent_shapes == [(1, 1, 1)]
    with torch.no_grad():
        layer: Any = net.levels[0][0]  # type: ignore[index]
        layer.project.weight.mul_(8)
        counts = to_counts(torch.softmax(2 * torch.randn(1, 2, 2, 2), 1))
        a = counts / 255
        e = torch.linspace(-9, 9, 6001)
        raw, _ = net.top_down(None, [e.view(-1, 1, 1, 1)], count=len(e))
        log_likelihood = net.chain.log_prob(raw, counts.expand(len(e), -1, -1, -1)).sum((1, 2)).double()
        log_normal = -0.5 * e.double().square() - 0.5 * math.log(2 * math.pi)
        step = float(e[1] - e[0])
        log_p = torch.logsumexp(log_likelihood + log_normal, 0) + math.log(step)
        x = layer.add_label(net._enter(0, torch.zeros(()), 1), None)
        p_mean, p_log_std, _ = layer.prior_of(x)
        q_mean, q_log_std = layer.posterior_of(x, net.encoder(a)[-1])
        mean = ((q_mean - p_mean) / p_log_std.exp()).double().flatten()  # q, in units of the prior
        log_std = (q_log_std - p_log_std).double().flatten()
        log_q = -0.5 * ((e.double() - mean) / log_std.exp()).square() - log_std - 0.5 * math.log(2 * math.pi)
        posterior = log_likelihood + log_normal - log_p
        gap = float((log_q.exp() * (log_q - posterior)).sum() * step)
        assert gap > 0.001
        bits = model.elbo(a.expand(4000, -1, -1, -1), generator=torch.Generator().manual_seed(0))
        nats = bits.total.double() * math.log(2) * 4  # 2×2 pixels with one free count each
        error = float(nats.std()) / math.sqrt(4000)
    assert float(nats.mean()) == pytest.approx(gap - float(log_p), abs=5 * error + 1e-3)
    assert float(nats.mean()) + 5 * error > -float(log_p)


def test_the_bound_has_two_parts_for_each_map() -> None:
    model, maps, labels = small(2), maps_of(5), torch.arange(5) % 2
    bits = model.elbo(maps, labels, per_sample(0, range(5)))
    assert bits.total.shape == (5,)
    torch.testing.assert_close(bits.total, bits.reconstruction + bits.kl)
    assert bool((bits.kl > 0).all())
    parts = model.elbo(maps, labels, per_sample(0, range(5)), batch_size=2)
    torch.testing.assert_close(parts.total, bits.total, atol=1e-4, rtol=0)
    loss = model.loss(maps, labels, torch.Generator().manual_seed(3))
    whole = model.elbo(maps, labels, torch.Generator().manual_seed(3))
    assert loss.item() == pytest.approx(float(whole.total.mean()), rel=1e-5)
    stored = to_counts(maps).to(torch.uint8)
    again = model.elbo(stored, labels, torch.Generator().manual_seed(3))
    torch.testing.assert_close(again.total, whole.total)
    with pytest.raises(MissingLabelError):
        model.elbo(maps)
    with pytest.raises(ShapeError):
        model.elbo(maps[:, :2], labels)


def test_training_lowers_the_bits_and_uses_the_latents() -> None:
    model, maps = small(), maps_of(64)
    even = math.log2(math.comb(257, 2)) / 2  # an even guess over the compositions of three endmembers
    before = model.elbo(maps, generator=torch.Generator().manual_seed(0)).total.mean()
    model.fit(maps, steps=150, batch_size=16, lr=1e-2, warmup=10, ema_decay=0.95, **CPU)
    after = model.elbo(maps, generator=torch.Generator().manual_seed(0))
    assert float(before) > even - 0.5
    assert float(after.total.mean()) < even - 1.0
    assert float(after.kl.mean()) > 0.1
    a = model.sample(n=100, generator=per_sample(0, range(100)))
    between = a.mean((2, 3)).std(0)
    assert bool(
        (between > 0.3 * maps.mean((2, 3)).std(0)).all()
    )  # maps differ as a whole, not pixel by pixel


def test_an_interrupted_fit_ends_with_the_same_weights(tmp_path: Path) -> None:
    options: dict[str, Any] = {"batch_size": 4, "lr_schedule": "constant", "kl_warmup": 5, **CPU}
    whole, parts = small(), small()
    whole.fit(maps_of(), steps=6, **options)
    parts.fit(maps_of(), steps=3, checkpoint=tmp_path / "v.pt", **options)
    again = small()
    again.fit(maps_of(), steps=6, checkpoint=tmp_path / "v.pt", **options)
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in whole.state_dict().items())


def test_temperature_scales_the_spread() -> None:
    model = small(2)
    cold = model.sample([0] * 6, generator=per_sample(0, range(6)), temperature=0.0)
    torch.testing.assert_close(cold, cold[:1].expand_as(cold))
    spread = [
        float(model.sample([0] * 32, generator=per_sample(0, range(32)), temperature=t).std(0).mean())
        for t in (0.3, 1.0)
    ]
    assert 0 < spread[0] < 0.6 * spread[1]
    with pytest.raises(ValueError, match="temperature"):
        model.sample([0], temperature=-1.0)


def test_maps_can_be_drawn_or_expected() -> None:
    model = small()
    one = [model.sample(n=2, generator=per_sample(0, [7, 8]), observe=o) for o in ("mean", "draw")]
    counts = 255 * one[1]
    torch.testing.assert_close(counts, counts.round(), atol=1e-3, rtol=0)
    assert float((255 * one[0] - (255 * one[0]).round()).abs().mean()) > 0.1
    assert float((one[0] - one[1]).abs().mean()) > 0.01
    with pytest.raises(ValueError, match="mean, draw"):
        model.sample(observe="mode")


def test_full_strength_forgets_the_map_and_less_keeps_its_layout() -> None:
    model, maps = small(), maps_of(32)
    model.fit(maps, steps=120, batch_size=16, lr=1e-2, warmup=10, ema_decay=0.95, **CPU)
    new = [model.edit(m, strength=1.0, generator=per_sample(0, range(16))) for m in maps.split(16)]
    torch.testing.assert_close(new[0], new[1])
    drawn = model.sample(n=16, generator=per_sample(0, range(16)))
    torch.testing.assert_close(new[0], drawn, atol=1e-5, rtol=0)
    fine = model.edit(maps, strength=0.25, generator=per_sample(0, range(32)))  # the finest of four latents
    mean = torch.nn.functional.avg_pool2d
    change, layout = (fine - maps).abs().mean(), (mean(fine, 8) - mean(maps, 8)).abs().mean()
    assert float(layout) < 0.6 * float(change)
    assert float(change) < 0.5 * float((drawn - maps[:16]).abs().mean())


@pytest.mark.parametrize(
    ("size", "levels"), [((8, 8), 4), ((12, 20), 3), ((64, 32), 6), ((9, 9), 1), ((256, 256), 9)]
)
def test_any_size_is_halved_as_far_as_it_goes(size: tuple[int, int], levels: int) -> None:
    model = small(size=size, widths=(4,), latent_channels=1)
    assert len(model.net.latent_shapes) == levels
    assert model.net.latent_shapes[0][1:] == (size[0] >> (levels - 1), size[1] >> (levels - 1))
    assert model.sample(n=1).shape == (1, 3, *size)


def test_impossible_architectures_are_refused() -> None:
    with pytest.raises(ValueError, match=r"1\.\.4, got 5"):
        small(levels=5)
    with pytest.raises(ValueError, match="coarsest"):
        small(decoder_blocks=(1, 0))
    with pytest.raises(ValueError, match="positive"):
        small(latent_channels=0)
    with pytest.raises(ValueError, match="at least one value"):
        small(widths=())


def test_each_level_takes_its_own_settings() -> None:
    model = small(2, levels=3, widths=(4, 8, 12), encoder_blocks=(0, 1), decoder_blocks=(0, 2, 1))
    assert [s[1] for s in model.net.latent_shapes] == [2, 4, 4]
    maps = maps_of(4)
    model.loss(maps, torch.arange(4) % 2, torch.Generator().manual_seed(0)).backward()
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in model.parameters())


def test_extreme_deviations_cannot_blow_up_the_bound() -> None:
    model = small()
    with torch.no_grad():
        for layer in (s for level in model.net.levels for s in level):  # type: ignore[union-attr]
            layer.prior.convs[-1].bias[4:8] = -1e4
            layer.posterior.convs[-1].bias[4:8] = 1e4
    bits = model.elbo(maps_of(4), generator=torch.Generator().manual_seed(0))
    assert bool(torch.isfinite(bits.total).all())
    assert bool((bits.kl > 100).all())  # σ/σ' = e¹⁰: absurd, and still a number


def test_the_default_is_affordable() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    model = VDVAE(6)
    assert 1.5e6 < sum(p.numel() for p in model.parameters()) < 4e6
    with FlopCounterMode(display=False) as counter:
        model.sample()
    assert counter.get_total_flops() < 1e9
