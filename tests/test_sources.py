"""Sources of abundance maps: motions keep the simplex, and a pool's maps are functions of seed, class and number alone."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import CLASSES, real_batch, tiny_synth
from torch import Tensor

from ubf_augment import UBFAugment, simplex
from ubf_augment.sources import AbundanceSource, Live, Pool, open_source
from ubf_augment.sources.abundances import closed
from ubf_augment.synthesis import HSISynthesizer


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def maps(n: int = 2, p: int = 3, height: int = 6, width: int = 6, seed: int = 0) -> Tensor:
    return simplex.from_logits(3 * torch.randn(n, p, height, width, generator=rng(seed)))


# ---- motions ----


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 999))
def test_motions_keep_the_simplex_and_flat_maps(height: int, width: int, seed: int) -> None:
    a, motions = maps(3, 4, height, width, seed), simplex.draw_motions(3, rng(seed), p=0.8)
    moved = simplex.move(a, motions)
    assert moved.shape == a.shape
    simplex.check(moved)
    flat = a[:, :, :1, :1].expand_as(a)
    torch.testing.assert_close(simplex.move(flat, motions), flat)
    assert float(moved.max()) <= float(a.max()) + 1e-6


def test_without_small_motions_squares_undergo_their_eight_symmetries() -> None:
    a = maps(1, 2, 5, 5)
    eight = [t for k in range(4) for t in (a.rot90(k, (2, 3)), a.flip(3).rot90(k, (2, 3)))]
    moved = simplex.move(a.expand(400, -1, -1, -1), simplex.draw_motions(400, rng(), p=0.0))
    distance = torch.stack([(moved - t).abs().amax((1, 2, 3)) for t in eight], 1)
    assert float(distance.amin(1).max()) < 1e-5
    counts = torch.bincount(distance.argmin(1), minlength=8)
    assert int(counts.min()) > 25  # 50 of each on average


def test_small_motions_stay_small() -> None:
    m = simplex.draw_motions(4000, rng(), p=1.0, degrees=20.0, shift=0.2, zoom=0.25)
    scale = m[:, :, :2].square().sum(1).sqrt()
    torch.testing.assert_close(scale[:, 0], scale[:, 1])
    assert 1 / 1.25 <= float(scale.min()) < 0.82
    assert 1.3 < float(scale.max()) <= 1 / 0.75 + 1e-5
    angle = torch.atan2(m[:, 1, 0], m[:, 0, 0])
    turn = (angle / (math.pi / 2)).round() * math.pi / 2
    assert 0.33 < float((angle - turn).abs().max()) <= math.radians(20) + 1e-5
    assert 0.38 < float(m[:, :, 2].abs().max()) <= 0.4
    alone = simplex.draw_motions(2, [rng(7), rng(8)])
    assert torch.equal(alone[1:], simplex.draw_motions(1, [rng(8)]))


def test_half_of_the_motions_are_small_by_default() -> None:
    offset = simplex.draw_motions(2000, rng())[:, :, 2]
    assert 0.45 < float((offset != 0).any(1).float().mean()) < 0.55


# ---- the pool ----


class Counting:
    """Counts the maps that a synthesizer's generator is asked for."""

    def __init__(self, synth: HSISynthesizer, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[list[int]] = []
        draw = synth.sample_abundances

        def counted(y: Any, **options: Any) -> Tensor:
            self.asked.append(y.tolist())
            return draw(y, **options)

        monkeypatch.setattr(synth, "sample_abundances", counted)


def pool(**options: Any) -> Pool:
    return Pool(
        tiny_synth(), **{"capacity": 4, "first": 2, "refresh": 1, "seed": 3, "progress": False, **options}
    )


def ring(p: Pool, k: int) -> Tensor:
    return p._rings[k][: int(p.made[k])]


def test_what_is_drawn_are_maps_of_the_class() -> None:
    p = pool(move=False)
    y = torch.tensor([0, 1, 1, 0, 1, 1])
    a = p.sample(y, rng())
    simplex.check(a)
    for k, image in zip(y.tolist(), a, strict=True):
        assert any(torch.equal(image, closed(held[None])[0]) for held in ring(p, k))
    moved = pool().sample(y, rng())
    simplex.check(moved)
    assert not torch.equal(moved, a)


def test_map_n_of_a_class_does_not_depend_on_what_else_was_asked_for() -> None:
    one, other = pool(capacity=8), pool(capacity=8, first=1, refresh=0.5)
    for _ in range(6):
        one.sample(torch.tensor([1]), rng())
    for i in range(30):
        other.sample(torch.tensor([0, 1, 1] if i % 3 else [0]), rng(i))
    n = int(min(one.made[1], other.made[1]))
    assert 4 < n <= 8
    assert torch.equal(ring(one, 1)[:n], ring(other, 1)[:n])
    alone = tiny_synth().sample_abundances([1], seed=0)
    assert ring(one, 1)[0].shape == alone[0].shape
    assert len(torch.unique(ring(one, 1).flatten(1), dim=0)) == len(ring(one, 1))  # all differ
    assert not torch.equal(ring(one, 1)[0], ring(other, 0)[0])  # classes differ
    assert not torch.equal(ring(one, 1)[0], ring(_filled(pool(seed=4), [1]), 1)[0])  # and seeds


def _filled(p: Pool, y: list[int]) -> Pool:
    p.sample(torch.tensor(y), rng())
    return p


def test_the_generator_works_as_much_as_the_budget_says(monkeypatch: pytest.MonkeyPatch) -> None:
    p = pool(first=3, refresh=0.25)
    counting = Counting(p._synth, monkeypatch)
    p.sample(torch.tensor([0, 1]), rng())
    assert sorted(k for y in counting.asked for k in y) == [0, 0, 0, 1, 1, 1]
    for _ in range(7):
        p.sample(torch.tensor([0, 1]), rng())
    assert counting.asked[1:] == [[0], [1]]  # one in four calls, in turn for the class that has fewest
    p.sample(torch.tensor([1, 1]), rng())
    assert p.made.tolist() == [4, 4, 0]


def test_new_maps_are_drawn_from_the_next_call_on_and_replace_the_oldest() -> None:
    p = pool(capacity=2, first=2, move=False)
    y = torch.zeros(40, dtype=torch.int64)
    seen = []
    for i in range(4):
        drawn = p.sample(y, rng(i))
        seen.append({tuple(x.flatten().tolist()) for x in drawn})
    assert [len(s) for s in seen] == [2, 2, 2, 2]
    assert [len(a & b) for a, b in pairwise(seen)] == [1, 1, 1]  # one new, the oldest gone
    assert len(seen[0] & seen[2]) == 0


def test_without_refresh_the_set_is_fixed(monkeypatch: pytest.MonkeyPatch) -> None:
    p = pool(refresh=0)
    counting = Counting(p._synth, monkeypatch)
    p.sample(torch.tensor([0]), rng())
    held = ring(p, 0).clone()
    assert len(held) == 4  # capacity
    for i in range(5):
        p.sample(torch.tensor([0, 0]), rng(i))
    assert counting.asked == [[0, 0, 0, 0]]
    assert torch.equal(ring(p, 0), held)
    p.fill()
    assert p.made.tolist() == [4, 4, 4]
    p.fill()
    assert sum(map(len, counting.asked)) == 12


def test_a_resumed_pool_goes_on_as_if_nothing_had_happened() -> None:
    first = pool(capacity=3, refresh=0.7)
    steps = [torch.tensor([0, 1, 1]), torch.tensor([1]), torch.tensor([0, 0])] * 3
    for i, y in enumerate(steps):
        first.sample(y, rng(i))
    second = pool(capacity=3, refresh=0.7)
    second.resume(first.state())
    for i, y in enumerate(steps):
        assert torch.equal(first.sample(y, rng(50 + i)), second.sample(y, rng(50 + i)))
    assert first.made.tolist() == second.made.tolist()
    with pytest.raises(ValueError, match="of 2 classes, this pool has 3"):
        second.resume({"made": torch.zeros(2, dtype=torch.int64), "due": 0.0, "pending": torch.zeros(0)})


def test_an_empty_draw_makes_nothing() -> None:
    p = pool()
    assert p.sample(torch.zeros(0, dtype=torch.int64), rng()).shape == (0, 3, 8, 8)
    assert p.made.tolist() == [0, 0, 0]


@pytest.mark.parametrize("bad", [{"capacity": 0}, {"first": 0}, {"refresh": -1}, {"refresh": math.inf}])
def test_numbers_out_of_range_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="capacity and first must be ≥ 1"):
        pool(**bad)


# ---- in UBFAugment ----


def augmenter(**options: Any) -> UBFAugment:
    synth = options.pop("synth", None) or tiny_synth()
    return UBFAugment(synth, 1.0, strategy="generate", classes=CLASSES, seed=5, residual=False, **options)


def test_generate_draws_from_the_source() -> None:
    class Flat:
        def sample(self, y: Tensor, generator: torch.Generator) -> Tensor:
            a = torch.zeros(len(y), 3, 8, 8)
            a[torch.arange(len(y)), y] = 1.0
            return a

    assert isinstance(Flat(), AbundanceSource)
    x, y = real_batch(6)
    augment = augmenter(source=Flat())
    out, _ = augment(x, y)
    expected = augment.synth.spectra()[y][:, :, None, None].expand_as(out)
    torch.testing.assert_close(out, expected)


def test_live_is_the_generator() -> None:
    synth = tiny_synth()
    y = torch.tensor([0, 1, 1])
    found = Live(synth, {"steps": 2}).sample(y, rng(1))
    assert torch.equal(found, synth.sample_abundances(y, generator=rng(1), steps=2))
    live, pooled = augmenter(source="live"), augmenter()
    assert isinstance(live.source.scenes, Live)
    assert isinstance(pooled.source.scenes, Pool)
    assert "pool" not in live.get_extra_state()


def test_a_checkpoint_brings_the_pool_back() -> None:
    x, y = real_batch(6)
    first, second = augmenter(), augmenter()
    for _ in range(5):
        first(x, y)
    second.load_state_dict(first.state_dict())
    for _ in range(5):
        assert torch.equal(first(x, y)[0], second(x, y)[0])


def test_variants_share_the_pool() -> None:
    augment = augmenter()
    assert augment.variant(0.5, "generate", 1).source.scenes is augment.source.scenes


def test_sources_that_are_none_are_refused() -> None:
    with pytest.raises(ValueError, match="'pool', 'live' or a source"):
        augmenter(source="lake")
    with pytest.raises(TypeError, match="sample\\(y, generator\\), got dict"):
        augmenter(source={})
    with pytest.raises(ValueError, match="give them to your own source"):
        augmenter(source=pool(), sample_options={"steps": 2})
    assert augmenter(sample_options={"steps": 2}).variant(0.5, "generate", 1).source.scenes is not None
    assert isinstance(open_source("live", tiny_synth(), 0, None), Live)
