"""Numbers hold out: in mixed and half precision, after many evaluations and many batches, and in every gradient."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest
import torch
from test_ddpm import SMALL as DENOISER
from test_ddpm import GaussianDenoiser
from test_flow import GaussianVelocity
from test_generators import P, build, draw, two_classes
from tiny import CLASSES, NM, E, real_batch, tiny_synth
from torch import Tensor, nn

from ubf_augment import HSISynthesizer, UBFAugment, losses, simplex, strategies
from ubf_augment.generators import (
    DDPM,
    AbundanceGenerator,
    FlowMatching,
    _count_likelihood,
    _vdvae_net,
    codec,
    list_generators,
)
from ubf_augment.generators.noise import flow_times, sampling_times
from ubf_augment.labels import ClassIndex
from ubf_augment.metrics.reconstruction import spectral_angles
from ubf_augment.mixing import ResidualModel, decode, mix
from ubf_augment.seeding import derive_seed, per_sample
from ubf_augment.sources import AbundanceBank, Live, Pool
from ubf_augment.sources.abundances import closed
from ubf_augment.spectra import resample
from ubf_augment.synthesis.maps import quantise
from ubf_augment.unmixing import RGBRegression, UnmixingModel, fcls, sunsal
from ubf_augment.unmixing.fitting import _Objective

HALF = [torch.bfloat16, torch.float16]
ROUNDING = (
    1e-6  # of a sum of up to eight float32 abundances: eight half units of 2⁻²³, and those of their closure
)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def maps(n: int = 4, p: int = 3, size: int = 8, sharpness: float = 3.0, **more: Any) -> Tensor:
    return simplex.from_logits(sharpness * torch.randn(n, p, size, size, generator=rng(), **more))


def on_the_simplex(a: Tensor, tolerance: float = ROUNDING) -> bool:
    return float(a.min()) >= 0 and float((a.double().sum(1) - 1).abs().max()) <= tolerance


# ---- mixed precision ----

VARIANTS: list[tuple[str, dict[str, Any]]] = [(name, {}) for name in list_generators()] + [
    ("ddpm", {"codec": "unshuffle"}), ("flow", {"codec": "unshuffle"}), ("gmm", {"spatial": True}),
    ("stylegan3", {"variant": "r"}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "config"), VARIANTS)
def test_samples_are_the_same_whatever_autocast_is_around(name: str, config: dict[str, Any]) -> None:
    model, (a, y) = build(name, **config), two_classes(4)

    def everything() -> list[Tensor]:
        made = [draw(model, y, generator=per_sample(0, range(4)))]
        if model.can_edit:
            made.append(model.edit(a, y, generator=per_sample(0, range(4)), strength=0.5))
        return made

    plain = everything()
    assert all(map(on_the_simplex, plain))
    for dtype in HALF:
        with torch.autocast("cpu", dtype=dtype):
            found = everything()
        assert all(torch.equal(x, z) for x, z in zip(found, plain, strict=True))


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("name", list_generators())
def test_networks_cast_to_half_precision_sample_on_the_simplex_or_not_at_all(
    name: str, dtype: torch.dtype
) -> None:
    """Casting is not how to ask for half precision (``precision="bf16"`` is), but must not give wrong maps silently."""
    model = build(name).to(dtype)
    if name in ("ddpm", "flow", "gmm", "stylegan3"):  # torch refuses noise in single precision
        with pytest.raises(RuntimeError, match=r"should be the same|same dtype|scalar type"):
            draw(model, [0, 1, 0], generator=per_sample(0, range(3)))
        return
    a = draw(model, [0, 1, 0], generator=per_sample(0, range(3)))
    assert a.dtype == torch.float32
    assert on_the_simplex(a)
    # What the weights lose, 2⁻⁹ of themselves, may not change a map by more than some tens of that.
    assert float((a - draw(build(name), [0, 1, 0], generator=per_sample(0, range(3)))).abs().max()) < 0.05


@pytest.mark.parametrize("name", ["ddpm", "flow"])
def test_half_precision_that_is_asked_for_stays_on_the_simplex(name: str) -> None:
    model = build(name)
    for y in ([0, 1], [1, 0]):
        a = draw(model, y, generator=per_sample(0, range(2)), precision="bf16")
        assert a.dtype == torch.float32
        assert on_the_simplex(a)


def closed_forms() -> dict[str, Callable[[], Tensor]]:
    a, r = maps(), 0.5 * torch.rand(4, 3, 8, 8, generator=rng())
    x, model = (
        mix(a, E),
        ResidualModel(torch.zeros(5), 0.01 * torch.eye(5)[:, :2], torch.full((5,), 0.01), 1.0),
    )
    regression = RGBRegression(E, rgb_index=(2, 1, 0)).fit(list(x[:, [2, 1, 0]]), list(a))
    return {
        "mix": lambda: mix(a, E),
        "decode": lambda: decode(a, E),
        "decode, own": lambda: decode(a, E.spectra.expand(4, -1, -1), model, rng()),
        "residual": lambda: model.sample(2, 8, 8, rng()),
        "resample": lambda: resample(x, NM, [500.0, 700.0]),
        "fcls": lambda: fcls(x, E),
        "sunsal": lambda: sunsal(x, E),
        "regression": lambda: regression.unmix_rgb(r),
        "regression, drawn": lambda: regression.unmix_rgb(r, generator=rng()),
        "move": lambda: simplex.move(a, simplex.draw_motions(4, rng())),
        "resize": lambda: simplex.resize(a, (5, 11)),
        "project": lambda: simplex.project(3 * a - 1),
        "unmixed": lambda: tiny_synth().unmix(x, fast=True),
        "sampled": lambda: tiny_synth().sample([0, 1], seed=0),
        "lifted": lambda: tiny_synth().lift(r, seed=0),
    }  # fmt: skip


@pytest.mark.parametrize("name", closed_forms())
@pytest.mark.parametrize("dtype", HALF)
def test_what_is_solved_or_decoded_keeps_its_precision_under_autocast(name: str, dtype: torch.dtype) -> None:
    run = closed_forms()[name]
    plain = run()
    with torch.autocast("cpu", dtype=dtype):
        found = run()
    assert found.dtype == plain.dtype == torch.float32
    # Exact solutions that start elsewhere (`fcls` under autocast) end within their own tolerance, 1e-5.
    torch.testing.assert_close(found, plain, rtol=0, atol=1e-5)


@pytest.mark.parametrize("around", [None, torch.bfloat16])
@pytest.mark.parametrize("dtype", [torch.float32, *HALF])
@pytest.mark.parametrize("strategy", ["generate", "live", "bank", "vary", "fuse", "edit"])
def test_every_strategy_decodes_abundances_of_the_simplex(
    strategy: Any, dtype: torch.dtype, around: torch.dtype | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    synth, seen = tiny_synth(), []

    def watched(name: str) -> None:
        method = getattr(synth, name)

        def call(*args: Any, **options: Any) -> Tensor:
            made: Tensor = method(*args, **options)
            seen.append(made if name == "unmix" else args[0])
            return made

        monkeypatch.setattr(synth, name, call)

    for name in ("mix", "unmix"):
        watched(name)
    bank = {c: torch.randint(40, 200, (2, 3, 8, 8), dtype=torch.uint8, generator=rng()) for c in CLASSES}
    augment = UBFAugment(
        synth, 1.0, strategy="generate" if strategy == "live" else strategy, seed=0, bank=bank,
        source="live" if strategy == "live" else "pool",
    )  # fmt: skip
    x, y = real_batch(6, 11)
    with torch.autocast("cpu", dtype=around or torch.bfloat16, enabled=around is not None):
        out = augment({"image": x.to(dtype), "label": y})
    assert out["is_synthetic"].all()
    assert out["image"].dtype == dtype
    assert torch.isfinite(out["image"]).all()
    assert seen or strategy == "fuse"  # which needs no abundances
    for a in seen:
        assert a.dtype == torch.float32
        assert on_the_simplex(a)


@pytest.mark.parametrize("dtype", HALF)
def test_simplex_maps_round_once_in_half_precision(dtype: torch.dtype) -> None:
    """All is computed in single precision; what is left is that each of P abundances is rounded: P half units at most."""
    a = maps(6, 5, 9)
    half, motions = a.to(dtype), simplex.draw_motions(6, rng())
    unit = torch.finfo(dtype).eps / 2
    for f in (
        lambda v: simplex.project(4 * v - 1),
        lambda v: simplex.resize(v, (4, 13)),
        lambda v: simplex.move(v, motions),
    ):
        found = f(half)
        assert found.dtype == dtype
        torch.testing.assert_close(found.float(), f(half.float()), rtol=unit, atol=1e-7)


# ---- storage in half precision and eight bits ----

BUNDLES = ["indian-pines", "aid-chikusei"]
ANGLE = 0.1  # degrees


def angles(x: Tensor, y: Tensor) -> Tensor:
    return spectral_angles(x.double(), y.double()).flatten()


@pytest.fixture(scope="module", params=BUNDLES)
def bundle(request: pytest.FixtureRequest) -> HSISynthesizer:
    return HSISynthesizer.from_pretrained(request.param)


def lit(synth: HSISynthesizer, n: int = 4, size: int = 64) -> Iterator[Tensor]:
    """Maps from all over the simplex, even and nearly pure, dark pixels among them; a hundredth at least is no shade."""
    for sharpness in (1.0, 3.0, 6.0):
        a = maps(n, synth.num_endmembers, size, sharpness)
        seen = nn.functional.pad(simplex.closure(a[:, :-1].clamp_min(1e-9)), (0, 0, 0, 0, 0, 1))
        yield 0.99 * a + 0.01 * seen


@pytest.mark.parametrize(
    ("dtype", "worst", "mean"), [(torch.float16, 0.02, 0.002), (torch.bfloat16, ANGLE, 0.02)]
)
def test_maps_in_half_precision_keep_the_spectrum_of_every_pixel(
    bundle: HSISynthesizer, dtype: torch.dtype, worst: float, mean: float
) -> None:
    """Every abundance is off by a share of itself, 2⁻¹¹ or 2⁻⁸ at most, so a spectrum turns by little however dark it is.

    Measured: float16 0.010° at worst, 0.0016° on average; bfloat16 0.087° and 0.013° (of many more pixels 0.10° at worst).
    """
    for a in lit(bundle):
        turned = angles(bundle.mix(simplex.closure(a.to(dtype).float())), bundle.mix(a))
        assert float(turned.max()) < worst
        assert float(turned.mean()) < mean


def test_maps_in_eight_bits_keep_spectra_on_average_only(bundle: HSISynthesizer) -> None:
    """What a generator learns from. Abundances are off by up to 1/255, which in a dark pixel is a large part of all that is seen.

    Measured: 0.08 to 0.28° on average, up to 21° in pixels of which a hundredth is seen and the rest is shade.
    """
    for a in lit(bundle):
        turned = angles(bundle.mix(quantise(a).float() / 255), bundle.mix(a))
        assert float(turned.mean()) < 0.4
        assert float(turned.max()) > ANGLE  # why pools and banks are not kept so


@pytest.mark.parametrize("what", ["pool", "bank"])
def test_pools_and_banks_give_the_spectra_of_what_they_hold(bundle: HSISynthesizer, what: str) -> None:
    y = torch.tensor([0, 1])
    if what == "pool":
        options: dict[str, Any] = {"steps": 2}
        pool = Pool(bundle, 1, first=1, refresh=0, move=False, options=options, progress=False)
        found = pool.sample(y, rng())
        numbers = [
            g for k in y.tolist() for g in per_sample(derive_seed(0, 0, k), [0])
        ]  # seed, process, class
        exact = Live(bundle, options).sample(y, numbers)
    else:
        pictures = torch.randint(0, 256, (1, 3, *bundle.size), dtype=torch.uint8, generator=rng())
        pictures[..., ::2, :] //= 8  # dark rows
        index = ClassIndex.match(bundle.classes)
        bank = AbundanceBank({bundle.classes[0]: pictures}, index, bundle.classes)
        found = bank.draw(torch.tensor([0]), bundle.size, bundle, rng())
        exact = bundle.unmix_rgb(pictures, [0], generator=rng(), fast=True)
    assert on_the_simplex(found)
    shown = bundle.mix(exact).norm(dim=1).flatten() > 1e-3  # a pixel that is all shade has no direction
    assert shown.float().mean() > 0.9
    assert float(angles(bundle.mix(found), bundle.mix(exact))[shown].max()) < 0.02


@pytest.mark.parametrize(
    ("dtype", "worst", "mean"), [(torch.float16, 0.03, 0.013), (torch.bfloat16, 0.23, ANGLE)]
)
def test_images_in_half_precision_turn_by_their_own_rounding(
    bundle: HSISynthesizer, dtype: torch.dtype, worst: float, mean: float
) -> None:
    """A value is off by 2⁻¹¹ or 2⁻⁸ of itself at most, a spectrum by that in radians: 0.028° or 0.224°.

    Measured: float16 0.017° at worst, 0.012° on average; bfloat16 0.16° and 0.094°: it keeps 0.1° on average, not in every pixel.
    """
    for a in lit(bundle):
        x = bundle.mix(a)
        turned = angles(x.to(dtype), x)
        assert float(turned.max()) < worst
        assert float(turned.mean()) < mean


# ---- long loops ----


def gaussian(name: str, std: float) -> tuple[Any, Callable[[int], list[float]]]:
    """A generator whose codes are independent normal numbers, with their exact denoiser, and its times."""
    if name == "flow":
        flow = FlowMatching(3, (32, 32), None, **DENOISER)
        flow.denoiser = GaussianVelocity(std)  # type: ignore[assignment]
        return flow, flow_times
    model = DDPM(3, (32, 32), None, **DENOISER)
    model.denoiser = GaussianDenoiser(model, std)  # type: ignore[assignment]
    return model, lambda steps: sampling_times(model.alpha_bar, steps)


def ancestral_std(model: DDPM, times: list[float], std: float) -> float:
    """Deviation of what ancestral sampling ends with, in closed form: each step is z ← A z + B z₀(z) + C n, z₀ = c z."""
    signal = model.alpha_bar.double()
    variance = 1.0
    for t, s in pairwise(times):
        a, b = float(signal[int(t)]), float(signal[int(s)])
        shrink = math.exp(
            -0.5 * math.log(b / (1 - b)) + 0.5 * math.log(a / (1 - a))
        )  # e⁻ʰ, h the step in log α/σ
        clean = math.sqrt(a) * std**2 / (a * std**2 + 1 - a)
        keep = math.sqrt((1 - b) / (1 - a)) * shrink + math.sqrt(b) * (1 - shrink**2) * clean
        variance = keep**2 * variance + (1 - b) * (1 - shrink**2)
    last = float(signal[int(times[-1])])
    return math.sqrt(variance) * math.sqrt(last) * std**2 / (last * std**2 + 1 - last)


@pytest.mark.parametrize("steps", [20, 250, 1000])
@pytest.mark.parametrize("std", [0.5, 15.0])
def test_ancestral_sampling_ends_with_its_moments_however_many_evaluations(
    std: float, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, times_of = gaussian("ddpm", std)
    monkeypatch.setattr(model.codec, "decode", lambda z: z)
    times = times_of(steps)
    z = torch.randn(12, 6, 16, 16, generator=rng())
    with torch.no_grad():
        out = model._decode(z, times, None, per_sample(1, range(12)), sampler="ddpm", project=False)
    expected, n = ancestral_std(model, times, std), out.numel()
    # Normal numbers: standard errors of mean and deviation are σ/√n and σ/√2n. Four of them: one run in 16,000 lies outside.
    assert abs(float(out.mean())) < 4 * expected / math.sqrt(n)
    assert abs(float(out.std()) / expected - 1) < 4 / math.sqrt(2 * n)
    if (
        steps == 1000
    ):  # what the number of steps costs has gone, but for the jump to z₀ at σ/α = 0.05: half of 0.05² / std²
        assert expected == pytest.approx(std, rel=0.01 + 0.5 * 0.05**2 / std**2)


@pytest.mark.parametrize(
    ("name", "options"),
    [("ddpm", {"sampler": "ddim"}), ("ddpm", {"sampler": "dpm-solver++"}), ("flow", {"solver": "euler"}),
     ("flow", {"solver": "heun"})],
)  # fmt: skip
def test_deterministic_sampling_converges_and_does_not_drift(
    name: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A solver turns noise n into f·n, and the exact path into std·n: f may only come nearer as evaluations grow."""
    std = 2.0
    model, times_of = gaussian(name, std)
    monkeypatch.setattr(model.codec, "decode", lambda z: z)
    z = torch.randn(2, 6, 4, 4, generator=rng()).double()
    factors = {}
    for steps in (20, 250, 1000):
        with torch.no_grad():
            out = model._decode(z, times_of(steps), None, per_sample(0, range(2)), project=False, **options)
        factor = out / z
        assert (
            float((factor / factor.mean() - 1).abs().max()) < 1e-4
        )  # the same for all: rounding does not pile up
        factors[steps] = float(factor.mean())
    # The path begins at σ/α = 80 and ends at 0.05: what lies beyond is worth (1 ± 0.05² / std²), and 1.3 % for `flow`,
    # which begins as wide as a code of unit variance.
    assert factors[1000] == pytest.approx(std, rel=0.015)
    assert abs(factors[1000] - factors[250]) <= abs(factors[250] - factors[20]) + 1e-4 * std


def test_many_evaluations_of_a_network_stay_on_the_simplex_and_do_not_know_their_batch() -> None:
    """Sums in another order round otherwise; that may not grow from step to step (measured: 2e-7 after 20, 250 and 1,000)."""
    compare_batches(250, {"sampler": "ddpm"}, "ddpm")


@pytest.mark.slow
def test_a_thousand_evaluations_neither() -> None:
    compare_batches(1000, {"sampler": "ddpm"}, "ddpm")


def compare_batches(steps: int, options: dict[str, Any], name: str) -> None:
    model = build(name, widths=(16, 16), guidance=1.0)
    whole, alone = (
        model.sample([0, 1], generator=per_sample(0, range(2)), steps=steps, batch_size=size, **options)
        for size in (2, 1)
    )
    assert on_the_simplex(whole)
    assert on_the_simplex(alone)
    torch.testing.assert_close(alone, whole, rtol=0, atol=2e-6)


@pytest.mark.parametrize("kind", ["pool", "live"])
def test_thousands_of_batches_stay_on_the_simplex(kind: str) -> None:
    synth = tiny_synth()
    source = Pool(synth, 8, first=2, seed=1, progress=False) if kind == "pool" else Live(synth)
    y, worst, total = torch.tensor([0, 1, 2, 2]), 0.0, torch.zeros(4, 3, dtype=torch.float64)
    calls = 2000 if kind == "pool" else 1000
    for i in range(calls):
        a = source.sample(y, rng(i))
        assert float(a.min()) >= 0
        worst = max(worst, float((a.sum(1) - 1).abs().max()))
        total += a.double().mean((2, 3))
    assert worst <= ROUNDING
    assert torch.equal((total / calls).argmax(1), y)  # class k is still mostly endmember k


def test_motions_one_after_the_other_lose_no_mass() -> None:
    """Weights of four neighbours sum to one to 2⁻²³ or so each time: 1,000 motions may add up to 1,000 of these."""
    a = maps(4, 3, 16)
    low, high = a.amin((2, 3)), a.amax((2, 3))
    b = a
    for i in range(1000):
        b = simplex.move(b, simplex.draw_motions(4, rng(i), p=1.0))
    slack = 1000 * 2.0**-23
    assert on_the_simplex(b, slack)
    assert bool((b.amin((2, 3)) >= low - slack).all())
    assert bool((b.amax((2, 3)) <= high + slack).all())
    square = simplex.move(a, turned := simplex.draw_motions(4, rng(), p=0.0))
    for _ in range(3):
        square = simplex.move(square, turned)
    for _ in range(996):  # quarter turns and flips come back, a thousand times over
        square = simplex.move(square, turned)
    # each coordinate is off by a unit of rounding of a position of up to 16, against neighbours that differ by up to one
    torch.testing.assert_close(square, a, rtol=0, atol=1000 * 16 * 2.0**-23)


# ---- gradients ----


def double(*shape: int, low: float = 0.1, seed: int = 0) -> Tensor:
    return (low + torch.rand(*shape, dtype=torch.float64, generator=rng(seed))).requires_grad_()


def gradients() -> dict[str, tuple[Callable[..., Any], tuple[Tensor, ...]]]:
    z = torch.randn(2, 4, 3, 3, dtype=torch.float64, generator=rng()).requires_grad_()
    a = maps(2, 4, 3, 1.0, dtype=torch.float64).requires_grad_()  # far from the floor of logarithms
    x, y, e = double(2, 5, 3, 3), double(2, 5, 3, 3, seed=1), double(4, 5, seed=2)
    motions = simplex.draw_motions(2, rng(3), p=1.0).double()
    model = ResidualModel(torch.zeros(5), 0.01 * torch.eye(5)[:, :2], torch.full((5,), 0.01), 1.0)
    gains, light = double(2, 4, 5, low=0.5, seed=4), double(2, 5, low=0.5, seed=5)
    mask = double(2, 1, 3, 3, low=0.0, seed=6)
    chain = _count_likelihood.CountChain(4, 2)
    raw = torch.randn(2, chain.channels, 2, 2, dtype=torch.float64, generator=rng(7)).requires_grad_()
    counts = _count_likelihood.to_counts(maps(2, 4, 2)).double()
    m, log_s = (torch.randn(2, 3, dtype=torch.float64, generator=rng(s)).requires_grad_() for s in (8, 9))
    return {
        "charbonnier": (losses.charbonnier, (x, y)),
        "endmember_tv": (losses.endmember_tv, (e,)),
        "project": (simplex.project, (z,)),
        "from_logits": (simplex.from_logits, (z,)),
        "to_logits": (simplex.to_logits, (a,)),
        "closure": (simplex.closure, (x,)),
        "resize": (lambda v: simplex.resize(v, (2, 5)), (a,)),
        "move": (lambda v: simplex.move(v, motions), (a,)),
        "decode": (lambda v, w: decode(v, w, model, rng()), (a, e)),
        "resample": (lambda v: resample(v, NM, [500.0, 700.0, 900.0]), (x,)),
        "vary": (strategies.vary, (x.detach(), a, e, gains, light)),
        "fuse": (strategies.fuse, (x, y, mask)),
        "edit": (lambda v, w: strategies.edit(x.detach(), v, v, w, e), (a, a.detach().flip(0).requires_grad_())),
        "codec": (codec.l1_and_gradients, (x, y)),
        "counts, log_prob": (lambda v: chain.log_prob(v, counts), (raw,)),
        "counts, mean": (chain.mean, (raw,)),
        "divergence": (_vdvae_net._gaussian_kl, (m, 0.3 * log_s, 0.5 * m.flip(0), 0.3 * log_s.flip(0))),
    }  # fmt: skip


@pytest.mark.parametrize("name", gradients())
def test_gradients_are_those_of_differences(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tensor, "float", Tensor.double)  # what is done in single precision whatever comes in
    function, inputs = gradients()[name]
    inputs = tuple(v.detach().requires_grad_(v.requires_grad) for v in inputs)
    assert torch.autograd.gradcheck(function, inputs)


def slope_and_difference(loss: Callable[[], Tensor], parameters: list[nn.Parameter]) -> tuple[float, float]:
    """The derivative of a loss in one random direction: by its gradient, and by a central difference."""
    found = torch.autograd.grad(loss(), parameters, allow_unused=True)
    way = [torch.randn(p.shape, generator=rng(i), dtype=p.dtype) for i, p in enumerate(parameters)]
    slope = sum(float((g * v).sum()) for g, v in zip(found, way, strict=True) if g is not None)
    step, values = 1e-6, []
    with torch.no_grad():
        for sign in (1, -2):
            for p, v in zip(parameters, way, strict=True):
                p += sign * step * v
            values.append(float(loss()))
    return slope, (values[0] - values[1]) / (2 * step)


@pytest.mark.parametrize(
    ("name", "config"), [v for v in VARIANTS if v[0] != "stylegan3" and not v[1].get("spatial")]
)
def test_losses_of_generators_have_the_slope_of_their_gradient(
    name: str, config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In double precision throughout. An adversarial loss is none: each player has a gradient of its own, see test_stylegan3."""
    monkeypatch.setattr(Tensor, "float", Tensor.double)
    model: AbundanceGenerator = build(name, **config).double()
    a, y = two_classes(4)
    parameters = [p for p in model.parameters() if p.requires_grad]
    slope, difference = slope_and_difference(lambda: model.loss(a.double(), y, rng()), parameters)
    assert abs(difference) > 1e-3
    # The difference errs by its step squared (10⁻¹²) times third derivatives, and by rounding, 10⁻¹⁶ of the loss over 10⁻⁶.
    assert slope == pytest.approx(difference, rel=1e-5, abs=1e-7)


def test_maps_of_the_adversarial_generator_have_the_slope_of_their_gradient(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Tensor, "float", Tensor.double)
    model: Any = build("stylegan3").double().eval()
    z, y = torch.randn(2, model.z_dim, dtype=torch.float64, generator=rng()), torch.tensor([0, 1])
    weight = torch.randn(2, P, 8, 8, dtype=torch.float64, generator=rng(1))
    players = [*model.mapping.parameters(), *model.synthesis.parameters()]
    slope, difference = slope_and_difference(lambda: (weight * model(z, y)).sum(), players)
    assert abs(difference) > 1e-3
    assert slope == pytest.approx(
        difference, rel=1e-4
    )  # leaky kinks lie within the step of a few of its values


@pytest.mark.parametrize("probabilistic", [False, True])
def test_losses_of_unmixing_have_the_slope_of_their_gradient(
    probabilistic: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the RGB encoder for the whole objective; by E and abundances for the reconstruction, whose targets are held constant."""
    monkeypatch.setattr(Tensor, "float", Tensor.double)
    torch.manual_seed(0)
    model = UnmixingModel(
        E, width=8, blocks=1, rgb_width=8, rgb_blocks=1, probabilistic=probabilistic
    ).double()
    for p in model.rgb_encoder.head.parameters():
        nn.init.normal_(p, std=0.1)
    x = mix(maps(2, dtype=torch.float64), E.spectra.double()) + 0.02 * double(2, 5, 8, 8, low=0.0).detach()
    objective = _Objective(model, 0.3, 0.1, 0.015)
    parameters = list(model.rgb_encoder.parameters())
    slope, difference = slope_and_difference(lambda: objective(x, None, x[:, [2, 1, 0]], None), parameters)
    assert abs(difference) > 1e-3
    assert slope == pytest.approx(difference, rel=1e-5)
    a, spectra = maps(2, dtype=torch.float64, size=2).requires_grad_(), double(3, 5)
    assert torch.autograd.gradcheck(lambda v, e: objective.reconstruction(v, e, x[..., :2, :2]), (a, spectra))


def test_kept_maps_sum_to_one_again() -> None:
    a = maps(8, 8, 16, sharpness=2.0)
    assert float((a.half().float().sum(1) - 1).abs().max()) > 1e-5  # why they are closed
    assert on_the_simplex(closed(a.half()))
