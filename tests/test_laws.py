"""The package's laws under chance: thousands of random shapes, types, layouts and magnitudes."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import NM, tiny_synth
from torch import Tensor

from ubf_augment import UBFAugment, read_hsi, simplex, write_hsi
from ubf_augment.mixing import ResidualModel, decode, mix
from ubf_augment.spectra import Endmembers
from ubf_augment.synthesis.maps import quantise
from ubf_augment.unmixing import fcls

pytestmark = pytest.mark.slow
law = settings(max_examples=500, deadline=None)
seeds = st.integers(0, 2**31)
sides = st.integers(1, 9)
magnitudes = st.sampled_from([1e-6, 1e-3, 0.3, 1.0, 1e3])


def maps(n: int, p: int, h: int, w: int, rng: torch.Generator) -> Tensor:
    """Abundances from all over the simplex, pure pixels among them."""
    z = torch.randn(n, p, h, w, generator=rng) * float(10 ** torch.randn((), generator=rng))
    return simplex.project(z) if torch.rand((), generator=rng) < 0.5 else torch.softmax(z, 1)


def laid_out(x: Tensor, how: str) -> Tensor:
    """The same values in another layout in memory."""
    if how == "channels last":
        return x.to(memory_format=torch.channels_last)
    if how == "every second":
        return x.repeat_interleave(2, -1)[..., ::2]
    if how == "turned":
        return x.transpose(-1, -2).contiguous().transpose(-1, -2)
    return x


layouts = st.sampled_from(["plain", "channels last", "every second", "turned"])


@law
@given(st.integers(0, 3), st.integers(1, 6), st.integers(1, 9), sides, sides, magnitudes, layouts, seeds)
def test_mixtures_lie_between_the_endmembers(
    n: int, p: int, c: int, h: int, w: int, scale: float, layout: str, seed: int
) -> None:
    rng = torch.Generator().manual_seed(seed)
    a, e = maps(n, p, h, w, rng), scale * torch.rand(p, c, generator=rng)
    x = mix(laid_out(a, layout), e)
    exact = torch.einsum("bphw,pc->bchw", a.double(), e.double())
    torch.testing.assert_close(x.double(), exact, rtol=1e-5, atol=1e-6 * scale)
    slack = 1e-5 * scale
    assert bool((x >= e.amin(0)[:, None, None] - slack).all())
    assert bool((x <= e.amax(0)[:, None, None] + slack).all())
    out = laid_out(torch.full_like(x, torch.nan), layout)
    decode(a, e, out=out)
    torch.testing.assert_close(out, x, rtol=1e-5, atol=1e-6 * scale)


@law
@given(st.integers(1, 3), st.integers(1, 6), st.integers(1, 9), sides, sides, magnitudes, seeds)
def test_a_decoded_image_is_its_mixture_and_its_residual(
    n: int, p: int, c: int, h: int, w: int, scale: float, seed: int
) -> None:
    rng = torch.Generator().manual_seed(seed)
    a, e = maps(n, p, h, w, rng), scale * torch.rand(p, c, generator=rng)
    rank = int(torch.randint(c + 1, (), generator=rng))
    model = ResidualModel(
        scale * torch.randn(c, generator=rng), scale * torch.randn(c, rank, generator=rng),
        scale * torch.rand(c, generator=rng), float(torch.randint(3, (), generator=rng)),
    )  # fmt: skip
    twice = (torch.Generator().manual_seed(seed) for _ in range(2))
    whole, parts = decode(a, e, model, next(twice)), model.sample(n, h, w, next(twice))
    torch.testing.assert_close(whole, mix(a, e) + parts, rtol=1e-4, atol=1e-5 * scale)


@law
@given(
    st.integers(1, 8),
    sides,
    sides,
    st.sampled_from([torch.float32, torch.float64]),
    st.floats(-6, 4),
    layouts,
    seeds,
)
def test_projections_lie_on_the_simplex_and_come_back_from_eight_bits(
    p: int, h: int, w: int, dtype: torch.dtype, power: float, layout: str, seed: int
) -> None:
    z = 10**power * torch.randn(2, p, h, w, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    a = simplex.project(laid_out(z, layout))
    assert a.dtype == dtype
    assert float(a.min()) >= 0
    assert float((a.double().sum(1) - 1).abs().max()) < 1e-5
    stored = quantise(a.float())
    assert bool((stored.sum(1, dtype=torch.int64) == 255).all())
    assert float((stored.float() / 255 - a.float()).abs().max()) <= 1 / 255 + 1e-6


@law
@given(st.integers(1, 5), st.integers(0, 6), sides, sides, magnitudes, seeds)
def test_least_squares_is_no_worse_than_the_truth_at_any_brightness(
    p: int, more: int, h: int, w: int, scale: float, seed: int
) -> None:
    rng = torch.Generator().manual_seed(seed)
    a, e = maps(2, p, h, w, rng), torch.rand(p, p + more, generator=rng)
    x = mix(a, e) + 0.01 * torch.randn(2, p + more, h, w, generator=rng)
    found = fcls(scale * x, scale * e)
    assert float(found.min()) >= 0
    torch.testing.assert_close(found.sum(1), torch.ones(2, h, w), atol=1e-5, rtol=0)
    left = (mix(found, e) - x).square().sum(1)
    assert bool((left <= (mix(a, e) - x).square().sum(1) + 1e-4).all())


@law
@given(
    st.sampled_from(["generate", "vary", "fuse", "edit"]),
    st.integers(0, 4),
    st.sampled_from([5, 8, 11]),
    st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64]),
    st.sampled_from([1e-4, 1e-2, 0.3, 1.2]),
    st.booleans(),
    layouts,
    st.floats(0, 1),
    seeds,
)
def test_a_batch_comes_back_as_it_was_but_for_what_was_replaced(
    strategy: Any,
    n: int,
    size: int,
    dtype: torch.dtype,
    scale: float,
    soft: bool,
    layout: str,
    p: float,
    seed: int,
) -> None:
    rng = torch.Generator().manual_seed(seed)
    x = laid_out((scale * torch.rand(n, len(NM), size, size, generator=rng)).to(dtype), layout)
    y = torch.randint(3, (n,), generator=rng)
    if soft:
        y = torch.nn.functional.one_hot(y, 3).float()
    before = x.clone(), y.clone()
    out = UBFAugment(tiny_synth(), p, strategy=strategy, seed=seed % 1000)({"image": x, "label": y})
    new = out["is_synthetic"]
    assert out["image"].shape == x.shape
    assert out["image"].dtype == dtype
    assert new.shape == (n,)
    assert torch.isfinite(out["image"]).all()
    assert torch.equal(out["image"][~new], x[~new])
    assert torch.equal(out["label"], y)
    assert torch.equal(x, before[0])
    assert torch.equal(y, before[1])


@law
@given(st.integers(2, 9), st.integers(1, 4), magnitudes, st.data())
def test_resampled_spectra_stay_in_their_range_and_are_linear(
    c: int, p: int, scale: float, data: st.DataObject
) -> None:
    nm = sorted(data.draw(st.sets(st.integers(400, 2400), min_size=c, max_size=c)))
    low, high = nm[0], nm[-1]
    target = sorted(data.draw(st.sets(st.integers(low, high), min_size=1, max_size=5)))
    rng = torch.Generator().manual_seed(data.draw(seeds))
    spectra = scale * torch.rand(p, c, generator=rng)
    new = Endmembers(spectra, nm).resample(target).spectra
    slack = 1e-5 * scale
    assert bool((new >= spectra.amin(1, keepdim=True) - slack).all())
    assert bool((new <= spectra.amax(1, keepdim=True) + slack).all())
    double = Endmembers(2 * spectra, nm).resample(target).spectra
    torch.testing.assert_close(double, 2 * new, rtol=1e-5, atol=slack)


@settings(max_examples=300, deadline=None)
@given(
    st.integers(1, 12),
    sides,
    sides,
    st.sampled_from(["tif", "tiff", "img", "dat", "bsq", "bil", "bip"]),
    magnitudes,
    layouts,
    seeds,
)
def test_files_give_back_what_was_written(
    c: int, h: int, w: int, suffix: str, scale: float, layout: str, seed: int
) -> None:
    rng = torch.Generator().manual_seed(seed)
    x = laid_out(scale * torch.rand(1, c, h, w, generator=rng), layout)[0]
    nm = 400 + torch.rand(c, generator=rng).cumsum(0) * 100 + torch.arange(c)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"x.{suffix}"
        write_hsi(path, x, nm)
        back = read_hsi(path, scale=1)
    assert torch.equal(back.image, x)
    torch.testing.assert_close(back.wavelengths.double(), nm.double(), rtol=1e-6, atol=1e-3)
