"""`RGBRegression`: what colours tell of abundances, on made data whose distribution is known."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import Tensor

from ubf_augment import simplex
from ubf_augment.errors import BandCountError, LabelError, NoDataError, ShapeError, SimplexError
from ubf_augment.mixing import mix
from ubf_augment.seeding import per_sample
from ubf_augment.spectra import Endmembers
from ubf_augment.unmixing import RGBRegression, fcls
from ubf_augment.unmixing.regression import describe
from ubf_augment.unmixing.ridge import Moments, calibrate, cut_windows, folds, spread

NM = [490.0, 560.0, 665.0, 842.0, 1610.0]
RGB = [2, 1, 0]
# Two plants of one colour that differ in the infrared, soil, shade.
SPECTRA = torch.tensor(
    [
        [0.06, 0.12, 0.05, 0.60, 0.30],
        [0.06, 0.12, 0.05, 0.20, 0.15],
        [0.15, 0.20, 0.30, 0.35, 0.40],
        [0.00, 0.00, 0.00, 0.00, 0.00],
    ]
)
E = Endmembers(SPECTRA, NM, ("lush", "dry", "soil", "shade"))


def scenes(n: int, lush: Tensor, size: int = 12, seed: int = 0) -> Tensor:
    """Maps (N, 4, size, size) whose plants are lush by the share ``lush`` (N,) of each scene, which no colour tells."""
    g = torch.Generator().manual_seed(seed)
    b = torch.softmax(2 * torch.randn(n, 3, 4, 4, generator=g), 1)
    b = simplex.resize(b, (size, size))
    share = lush.view(-1, 1, 1, 1)
    return torch.cat([share * b[:, :1], (1 - share) * b[:, :1], b[:, 1:]], 1)


def uncertain(n: int, seed: int = 0) -> Tensor:
    """Maps of scenes whose share of lush plants is between 0.3 and 0.7."""
    return scenes(
        n, 0.3 + 0.4 * torch.rand(n, generator=torch.Generator().manual_seed(seed + 100)), seed=seed
    )


def colours(a: Tensor) -> Tensor:
    return mix(a, E)[:, RGB]


def learned(a: Tensor, labels: Tensor | None = None, **options: Any) -> RGBRegression:
    return RGBRegression(E, **options).fit(list(colours(a)), list(a), labels)


@pytest.fixture(scope="module")
def model() -> RGBRegression:
    return learned(uncertain(40))


def rms(x: Tensor) -> float:
    return float(x.square().mean().sqrt())


# ---- laws


def test_what_colours_determine_is_recovered() -> None:
    """Scenes whose plants are all half lush: colours leave nothing open, on scenes never seen either."""
    model = learned(scenes(30, torch.full((30,), 0.5)))
    a = scenes(5, torch.full((5,), 0.5), seed=9)
    found = model.unmix_rgb(colours(a))
    assert rms(found - a) < 0.03
    assert rms(mix(found, E) - mix(a, E)) < 0.01
    draw = model.unmix_rgb(colours(a), generator=per_sample(0, range(5)))
    assert rms(draw - a) < 0.06  # and hardly any spread is left


def test_a_model_that_holds_exactly_is_solved_exactly() -> None:
    """Abundances that are linear in the features: ridge regression with a vanishing penalty returns the weights."""
    g = torch.Generator().manual_seed(0)
    phi = [torch.cat([torch.ones(1, 6, 6), torch.randn(3, 6, 6, generator=g)]) for _ in range(8)]
    y = torch.tensor([0, 1] * 4)
    shared, own = torch.randn(4, 2, generator=g), torch.randn(2, 2, 2, generator=g)
    own[1] = -own[0]
    truth = [
        torch.einsum("fp,fhw->phw", shared, f) + torch.einsum("fp,fhw->phw", own[k], f[:2])
        for f, k in zip(phi, y, strict=True)
    ]
    w, left_out = Moments.of(phi, truth).solve(y, 2, 2, folds(range(8)), torch.eye(2).double())
    for k in range(2):
        want = shared.clone()
        want[:2] += own[k]
        assert float((w[k] - want).abs().max()) < 0.02
    assert left_out.shape == (8, 3, 4, 2)
    torch.testing.assert_close(w[0][2:], w[1][2:])  # features that all classes share
    torch.testing.assert_close(w[2][2:].float(), shared[2:], rtol=0, atol=0.02)


def test_abundances_stay_on_the_simplex(model: RGBRegression) -> None:
    wild = torch.cat(
        [
            torch.zeros(1, 3, 8, 8),
            torch.ones(1, 3, 8, 8),
            torch.rand(2, 3, 8, 8) ** 4,
            -0.02 * torch.ones(1, 3, 8, 8),
        ]
    )
    for generator in (None, torch.Generator().manual_seed(0)):
        for pictures in (False, True):
            simplex.check(model.unmix_rgb(wild, generator=generator, pictures=pictures))


def test_draws_average_to_the_centre(model: RGBRegression) -> None:
    """Up to the projection, which moves draws beyond an edge of the simplex back: looked at where that is far away."""
    r = colours(torch.tensor([0.25, 0.25, 0.25, 0.25]).view(1, 4, 1, 1).expand(1, 4, 16, 16))
    draws = torch.cat(
        [model.unmix_rgb(r.repeat(50, 1, 1, 1), generator=per_sample(s, range(50))) for s in range(8)]
    )
    centre, spread_ = model.unmix_rgb(r), draws.std(0)
    assert float(spread_.amax()) > 0.02
    assert float((draws.mean(0) - centre[0]).abs().max()) < 4 * float(spread_.amax()) / 400**0.5 + 0.01


def test_the_central_90_percent_hold_90_percent() -> None:
    """On scenes of the same kind that were never seen, in the band that colours leave open."""
    model = learned(uncertain(60))
    a = uncertain(60, seed=5)
    r, x = colours(a), mix(a, E)
    draws = torch.stack(
        [mix(model.unmix_rgb(r, generator=per_sample(s, range(60))), E)[:, 3] for s in range(59)]
    )
    rank = (draws < x[:, 3]).sum(0)
    covered = float(((rank >= 3) & (rank <= 56)).double().mean())
    assert 0.82 < covered < 0.97
    assert float(draws.std(0).mean()) > 0.01  # not by being right, but by knowing what is open


def test_one_draw_per_scene_is_shared_by_its_pixels(model: RGBRegression) -> None:
    """The share of lush plants belongs to a scene: draws of its pixels differ together."""
    r = colours(uncertain(1, seed=3)).repeat(40, 1, 1, 1)
    nir = mix(model.unmix_rgb(r, generator=per_sample(0, range(40))), E)[:, 3]
    assert float(nir.mean((1, 2)).std()) > 0.5 * float(nir.std(0).mean())


def test_class_matters() -> None:
    y = torch.arange(40) % 2
    a = scenes(40, torch.where(y == 0, 0.9, 0.1))
    model = learned(a, y, num_classes=2)
    seen = scenes(6, torch.full((6,), 0.9), seed=7)
    r, x = colours(seen), mix(seen, E)
    right, wrong, unknown = (
        rms((mix(model.unmix_rgb(r, k), E) - x)[:, 3])
        for k in (torch.zeros(6, dtype=torch.int64), torch.ones(6, dtype=torch.int64), None)
    )
    assert right < 0.5 * unknown < unknown < wrong
    spread_ = [float(model.between[k].norm()) for k in (0, 2)]
    assert spread_[0] < 0.5 * spread_[1]  # a class leaves less open


def test_a_class_without_images_is_as_an_unknown_one() -> None:
    y = torch.arange(12) % 2
    model = learned(scenes(12, torch.where(y == 0, 0.9, 0.1)), y, num_classes=3)
    r = colours(uncertain(2))
    for generator in (None, torch.Generator().manual_seed(1)):
        state = None if generator is None else generator.get_state()
        missing = model.unmix_rgb(r, torch.tensor([2, 2]), generator)
        if generator is not None and state is not None:
            generator.set_state(state)
        assert torch.equal(missing, model.unmix_rgb(r, None, generator))


def test_unlabelled_images_help_the_others() -> None:
    """Class K says unknown: such an image enters what all classes share."""
    y = torch.tensor([0, 1] * 6 + [2] * 12)
    a = scenes(24, torch.tensor([0.9, 0.1] * 6 + [0.5] * 12))
    model = learned(a, y, num_classes=2)
    assert not torch.equal(model.weight[0], learned(a[:12], y[:12], num_classes=2).weight[0])
    with pytest.raises(LabelError, match="from 0 to 2"):
        learned(a, y + 1, num_classes=2)


def test_pictures_are_read_by_their_own_colours(model: RGBRegression) -> None:
    """A source whose colours are another affine function of the logarithm gives the same abundances."""
    r = colours(uncertain(3, seed=2))

    def fade(r: Tensor) -> Tensor:
        return (0.7 * (r + 0.01).log() + torch.tensor([0.4, -0.1, -0.6]).view(1, 3, 1, 1)).exp() - 0.01

    dull, known = fade(r), describe(fade(colours(uncertain(40)))).movedim(1, -1).reshape(-1, 6)
    assert rms(model.unmix_rgb(dull) - model.unmix_rgb(r)) > 0.05
    same = (model.unmix_rgb(r, pictures=True) - model.unmix_rgb(r)).abs()  # nothing said: the same colours
    assert float((same > 1e-3).float().mean()) < 0.03  # but for pixels beyond the limits
    told = RGBRegression.from_config(model.config)
    told.load_state_dict(model.state_dict())
    told.set_pictures(known.mean(0), known.std(0))
    other = (told.unmix_rgb(dull, pictures=True) - model.unmix_rgb(r)).abs()
    assert float((other > 2e-2).float().mean()) < 0.03
    assert torch.equal(told.unmix_rgb(r), model.unmix_rgb(r))  # the sensor's own bands are read as before


# ---- randomness


def test_a_sample_depends_on_its_own_generator(model: RGBRegression) -> None:
    r = colours(uncertain(5, seed=4))
    both = model.unmix_rgb(r, generator=per_sample(3, range(5)))
    alone = model.unmix_rgb(r[3:4], generator=per_sample(3, [3]))
    torch.testing.assert_close(both[3:4], alone, rtol=0, atol=1e-6)
    assert torch.equal(both, model.unmix_rgb(r, generator=per_sample(3, range(5))))
    assert rms(both - model.unmix_rgb(r, generator=per_sample(4, range(5)))) > 0.01
    assert torch.equal(model.unmix_rgb(r), model.unmix_rgb(r))


def test_learning_repeats() -> None:
    a = uncertain(10)
    first, again = learned(a), learned(a)
    for name, buffer in first.state_dict().items():
        assert torch.equal(buffer, again.state_dict()[name]), name


# ---- parts


def test_windows_cover_images_and_scenes_share_a_fold() -> None:
    images = [torch.arange(100.0 * 70).view(1, 100, 70), torch.zeros(1, 10, 12)]
    windows, image = cut_windows(images)
    assert sum(w.numel() for w, i in zip(windows, image, strict=True) if i == 0) == 7000
    assert torch.equal(
        torch.cat([w.flatten() for w, i in zip(windows, image, strict=True) if i == 0]).sort()[0],
        images[0].flatten(),
    )
    assert len(cut_windows([torch.zeros(1, 90, 90)])[0]) == 9
    assert len(cut_windows(images, most=2)[0]) == 2
    fold = folds([5, 5, 7, 5, 8])
    assert len(fold[[0, 1, 3]].unique()) == 1
    assert len(fold.unique()) == 3
    assert len(folds([1, 1, 1]).unique()) == 3
    assert int(folds(range(100)).max()) == 19


def test_spread_returns_the_covariances_that_made_the_errors() -> None:
    g = torch.Generator().manual_seed(0)
    truth = [torch.zeros(2, 30, 30)] * 300
    u = torch.tensor([0.2, 0.1]).view(2, 1, 1)
    expected = [
        u * torch.randn(2, 1, 1, generator=g) + 0.05 * torch.randn(2, 30, 30, generator=g) for _ in truth
    ]
    between, within, length, left = spread(
        truth, expected, torch.zeros(300, dtype=torch.int64), 0, torch.arange(300) % 20
    )
    torch.testing.assert_close(
        between[0] @ between[0].T, torch.diag(torch.tensor([0.04, 0.01])), rtol=0, atol=5e-3
    )
    torch.testing.assert_close(within[0] @ within[0].T, 0.0025 * torch.eye(2), rtol=0, atol=1e-4)
    assert length < 0.5  # white
    # What a window is measured by does not know it: an error of its own alone does not widen it.
    expected[0] = expected[0] + 5
    left_again = spread(truth, expected, torch.zeros(300, dtype=torch.int64), 0, torch.arange(300) % 20)[3]
    for one, again in zip(left, left_again, strict=True):
        assert torch.equal(one[0], again[0])
    assert float(left_again[0][1].norm()) > 2 * float(left[0][1].norm())


def test_calibration_undoes_a_wrong_size() -> None:
    """Draws twice too narrow need a factor of two."""
    g = torch.Generator().manual_seed(0)
    centre = [torch.full((2, 8, 8), 0.5) for _ in range(200)]
    truth = [
        c + 0.08 * torch.randn(1, 8, 8, generator=g) * torch.tensor([1.0, -1.0]).view(2, 1, 1) for c in centre
    ]
    root = 0.04 * torch.tensor([[1.0, 0.0], [-1.0, 0.0]]).expand(200, 2, 2)
    found = calibrate(truth, centre, torch.zeros(200, 2, 2), root, torch.tensor([[1.0], [0.0]]))
    assert 1.6 < found < 2.4


# ---- storing and errors


def test_config_and_state_rebuild_the_same_model() -> None:
    y = torch.arange(12) % 2
    model = learned(scenes(12, torch.where(y == 0, 0.9, 0.1)), y, num_classes=2)
    again = RGBRegression.from_config(json.loads(json.dumps(model.config)))
    again.load_state_dict(model.state_dict())
    assert again.config == model.config
    assert torch.equal(again.endmembers.spectra, SPECTRA)
    r = colours(uncertain(2))
    for k in (None, torch.tensor([0, 1])):
        rng = per_sample(0, range(2)), per_sample(0, range(2))
        assert torch.equal(again.unmix_rgb(r, k, rng[0]), model.unmix_rgb(r, k, rng[1]))
    x = mix(uncertain(1), E)
    assert torch.equal(again.unmix(x), fcls(x, E))


def test_other_classes_take_over_what_is_known() -> None:
    y = torch.arange(12) % 2
    model = learned(scenes(12, torch.where(y == 0, 0.9, 0.1)), y, num_classes=2)
    other = model.for_classes([1, None, 0])
    r = colours(uncertain(1))
    for new, old in ((0, 1), (1, 2), (2, 0), (3, 2)):
        assert torch.equal(other.unmix_rgb(r, torch.tensor([new])), model.unmix_rgb(r, torch.tensor([old])))


def test_bad_input(model: RGBRegression) -> None:
    a = uncertain(3)
    r = list(colours(a))
    with pytest.raises(ShapeError, match="0 pictures"):
        RGBRegression(E).fit([], [])
    with pytest.raises(ShapeError, match="too little"):
        RGBRegression(E).fit([r[0][:, :8, :8]], [a[0][:, :8, :8]])
    with pytest.raises(ShapeError, match="3 pictures, 2 maps"):
        RGBRegression(E).fit(r, list(a[:2]))
    with pytest.raises(ShapeError, match="1 scenes"):
        RGBRegression(E).fit(r, list(a), scenes=[0])
    with pytest.raises(ShapeError, match="map 0 is"):
        RGBRegression(E).fit(r, list(a[:, :3]))
    with pytest.raises(SimplexError, match=r"negative|sum to"):
        RGBRegression(E).fit(r, list(2 * a))
    with pytest.raises(NoDataError):
        RGBRegression(E).fit([r[0] * torch.nan, *r[1:]], list(a))
    with pytest.raises(LabelError, match=r"\(3,\) integers"):
        RGBRegression(E).fit(r, list(a), torch.zeros(2, dtype=torch.int64))
    with pytest.raises(LabelError, match="from 0 to 0"):
        model.unmix_rgb(r[0][None], torch.tensor([1]))
    with pytest.raises(BandCountError):
        model.unmix_rgb(torch.rand(1, 4, 8, 8))
    with pytest.raises(ShapeError, match="batch axis"):
        model.unmix_rgb(torch.rand(3, 8, 8))
    with pytest.raises(NoDataError):
        model.unmix_rgb(torch.full((1, 3, 8, 8), torch.nan))
    assert model.unmix_rgb(torch.zeros(0, 3, 4, 4)).shape == (0, 4, 4, 4)
