"""The package's laws under chance: thousands of random shapes, types, layouts and magnitudes."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import NM, E, tiny_synth
from torch import Tensor

from ubf_augment import UBFAugment, read_hsi, simplex, write_hsi
from ubf_augment.errors import NoDataError
from ubf_augment.mixing import ResidualModel, decode, mix
from ubf_augment.spectra import Endmembers, resample, sort_bands
from ubf_augment.synthesis.maps import quantise
from ubf_augment.unmixing import fcls, sunsal

pytestmark = pytest.mark.slow
law = settings(max_examples=500, deadline=None)
seeds = st.integers(0, 2**31)
sides = st.integers(1, 9)
magnitudes = st.sampled_from([1e-9, 1e-6, 1e-3, 0.3, 1.0, 1e3, 1e6])
dtypes = st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64])


def maps(n: int, p: int, h: int, w: int, rng: torch.Generator) -> Tensor:
    """Abundances from all over the simplex, pure pixels among them."""
    z = torch.randn(n, p, h, w, generator=rng) * float(10 ** torch.randn((), generator=rng))
    return simplex.project(z) if torch.rand((), generator=rng) < 0.5 else torch.softmax(z, 1)


def laid_out(x: Tensor, how: str) -> Tensor:
    """The same values in another layout in memory (but for "expanded")."""
    if how == "channels last":
        return x.to(memory_format=torch.channels_last)
    if how == "every second":
        return x.repeat_interleave(2, -1)[..., ::2]
    if how == "expanded" and len(x):
        return x[:1].expand_as(x)  # all of them the first one
    if how == "turned":
        return x.transpose(-1, -2).contiguous().transpose(-1, -2)
    return x


layouts = st.sampled_from(["plain", "channels last", "every second", "turned"])
any_layout = st.sampled_from(["plain", "channels last", "every second", "turned", "expanded"])


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
    near = sunsal(scale * x, scale * e)
    assert float(near.min()) >= 0
    torch.testing.assert_close(near.sum(1), torch.ones(2, h, w), atol=1e-5, rtol=0)
    # the same iterations, but for rounding, which thirty of them may make a thousand times larger
    torch.testing.assert_close(near, sunsal(x, e), atol=1e-3, rtol=0)


@law
@given(
    st.sampled_from(["generate", "vary", "fuse", "edit"]),
    st.integers(0, 4),
    st.sampled_from([1, 5, 8, 11]),
    dtypes,
    st.sampled_from([1e-9, 1e-4, 1e-2, 0.3, 1.2]),
    st.sampled_from([None, 1e-9, 1e4, -1e4, 1e6]),
    st.sampled_from(["hard", "one-hot", "soft"]),
    any_layout,
    st.floats(0, 1),
    seeds,
)
def test_a_batch_comes_back_as_it_was_but_for_what_was_replaced(
    strategy: Any,
    n: int,
    size: int,
    dtype: torch.dtype,
    scale: float,
    glint: float | None,
    label: str,
    layout: str,
    p: float,
    seed: int,
) -> None:
    rng = torch.Generator().manual_seed(seed)
    values = scale * torch.rand(n, len(NM), size, size, generator=rng)
    if glint is not None and size > 1:  # one pixel of each image far from all reflectance
        values[..., 0, 0] = (
            glint if dtype != torch.float16 else max(-1e4, min(glint, 1e4))
        )  # which ends at 65,504
    x = laid_out(values.to(dtype), layout)
    y = torch.randint(3, (n,), generator=rng)
    if label == "one-hot":
        y = torch.nn.functional.one_hot(y, 3).float()
    elif label == "soft":
        y = torch.softmax(torch.randn(n, 3, generator=rng), 1)
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
    dtypes,
    seeds,
)
def test_files_give_back_what_was_written(
    c: int, h: int, w: int, suffix: str, scale: float, layout: str, dtype: torch.dtype, seed: int
) -> None:
    rng = torch.Generator().manual_seed(seed)
    values = (scale * torch.rand(1, c, h, w, generator=rng)).clamp_max(6e4 if dtype == torch.float16 else 1e9)
    x = laid_out(values.to(dtype), layout)[0]
    nm = 400 + torch.rand(c, generator=rng).cumsum(0) * 100 + torch.arange(c)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"x.{suffix}"
        write_hsi(path, x, nm)
        back = read_hsi(path, scale=1)
    assert torch.equal(back.image, x.float())  # files hold single precision
    torch.testing.assert_close(back.wavelengths.double(), nm.double(), rtol=1e-6, atol=1e-3)


def simplex_maps(motions: Tensor, size: tuple[int, int]) -> dict[str, Any]:
    """What gives abundances, by name."""
    return {
        "project": simplex.project,
        "from_logits": simplex.from_logits,
        "closure": lambda v: simplex.closure(v.abs() + torch.finfo(v.dtype).tiny),
        "logits and back": lambda v: simplex.from_logits(simplex.to_logits(simplex.project(v))),
        "resize": lambda v: simplex.resize(simplex.project(v), size),
        "move": lambda v: simplex.move(simplex.project(v), motions.to(v.device)),
    }


@law
@given(
    st.sampled_from(list(simplex_maps(torch.zeros(0), (1, 1)))),
    st.integers(0, 3), st.integers(1, 8), sides, sides, st.tuples(sides, sides), dtypes,
    st.sampled_from([1e-9, 1e-3, 1.0, 30.0, 1e4, 1e6]), any_layout, seeds,
)  # fmt: skip
def test_what_gives_abundances_gives_them_of_its_type_from_anything(
    name: str, n: int, p: int, h: int, w: int, size: tuple[int, int], dtype: torch.dtype, scale: float, layout: str,
    seed: int,
) -> None:  # fmt: skip
    rng = torch.Generator().manual_seed(seed)
    scale = min(scale, 6e3) if dtype == torch.float16 else scale  # six deviations of it stay below 65,504
    z = laid_out((scale * torch.randn(n, p, h, w, generator=rng)).to(dtype), layout)
    before, make = z.clone(), simplex_maps(simplex.draw_motions(n, rng, p=0.7), size)[name]
    a = make(z)
    assert torch.equal(z, before)
    assert a.dtype == dtype
    assert a.shape == ((n, p, *size) if name == "resize" else z.shape)
    if n:
        # Each abundance is off by half a unit, twice where it was rounded before; in single precision sums of P add as much.
        slack = max(2, p) * torch.finfo(dtype).eps
        assert float(a.min()) >= 0
        assert float((a.double().sum(1) - 1).abs().max()) <= slack


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 3), sides, sides, st.tuples(sides, sides), dtypes, seeds)
def test_shapes_on_the_meta_device_are_those_of_the_cpu(
    n: int, h: int, w: int, size: tuple[int, int], dtype: torch.dtype, seed: int
) -> None:
    """So that a network around them can be laid out before it has memory. `closure` looks at its values, and cannot."""
    rng = torch.Generator().manual_seed(seed)
    a = simplex.project(torch.randn(n, 3, h, w, generator=rng)).to(dtype)
    x = mix(a, E)
    made = {k: f for k, f in simplex_maps(simplex.draw_motions(n, rng), size).items() if k != "closure"}
    made |= {"mix": lambda v: mix(v, E), "decode": lambda v: decode(v, E)}
    for name, f in made.items():
        here, there = f(a), f(a.to("meta"))
        assert there.is_meta, name
        assert (there.shape, there.dtype) == (here.shape, here.dtype), name
    assert resample(x.to("meta"), NM, [500.0, 600.0]).shape == resample(x, NM, [500.0, 600.0]).shape


@law
@given(
    st.sampled_from([float("nan"), float("inf"), -float("inf")]),
    st.integers(1, 3), sides, sides, dtypes, any_layout, seeds,
)  # fmt: skip
def test_a_missing_value_is_refused_or_stays_in_its_pixel(
    value: float, n: int, h: int, w: int, dtype: torch.dtype, layout: str, seed: int
) -> None:
    rng = torch.Generator().manual_seed(seed)
    i, j, k = (int(torch.randint(m, (), generator=rng)) for m in (n, h, w))
    a = maps(n, 3, h, w, rng).to(dtype)
    x = mix(a, E)
    hole = torch.zeros(n, h, w, dtype=torch.bool)
    hole[i if layout != "expanded" else slice(None), j, k] = True
    band = int(torch.randint(5, (), generator=rng))
    for place in range(n) if layout == "expanded" else [i]:
        x[place, band, j, k] = a[place, band % 3, j, k] = value
    a, x, kept = laid_out(a, layout), laid_out(x, layout), ~hole
    synth, y = tiny_synth(), torch.zeros(n, dtype=torch.int64)
    refused: list[Any] = [
        lambda: fcls(x, E),
        lambda: sunsal(x, E),
        lambda: synth.unmix(x),
        lambda: UBFAugment(synth, 1.0, strategy="vary")(x, y),
        lambda: UBFAugment(synth, 0.0, strategy="generate")(x, y),
    ]
    for call in refused:
        with pytest.raises(NoDataError):
            call()
    whole = torch.where(hole[:, None], torch.full_like(a, 1 / 3), a)
    for f in (lambda v: mix(v, E), simplex.project, simplex.from_logits):
        broken, sound = f(a).movedim(1, -1), f(whole).movedim(1, -1)
        assert torch.equal(broken[kept], sound[kept])
    if value != -float("inf"):  # of which a projection makes an abundance of zero
        assert torch.isnan(simplex.project(a).movedim(1, -1)[hole]).all()


def test_read_only_arrays_are_read_and_not_written() -> None:
    rng = np.random.default_rng(0)
    arrays = [rng.random((6, 5, 8, 8), dtype=np.float32), np.arange(6)]
    copies = [a.copy() for a in arrays]
    for a in arrays:
        a.flags.writeable = False
    x, index = arrays
    batch = torch.frombuffer(memoryview(x).toreadonly(), dtype=torch.float32).view(6, 5, 8, 8)
    y = torch.arange(6) % 3
    for strategy in ("generate", "vary", "fuse", "edit"):
        augment = UBFAugment(tiny_synth(), 0.5, strategy=strategy, placement="append", seed=0)
        out = augment({"image": batch, "label": y, "index": index})
        assert len(out["index"]) == len(out["image"]) > 6
    assert resample(batch, NM, NM[1:3]).shape == (6, 2, 8, 8)
    assert torch.equal(sort_bands(batch[0], NM)[0], batch[0])
    with tempfile.TemporaryDirectory() as folder:
        write_hsi(Path(folder) / "x.tif", batch[0], NM)
        assert torch.equal(read_hsi(Path(folder) / "x.tif", scale=1).image, batch[0])
    assert all(np.array_equal(a, b) for a, b in zip(arrays, copies, strict=True))
