"""Gaussian mixtures of pixels: expectation maximisation, normal scores, correlated fields."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ubf_augment import simplex
from ubf_augment.errors import LabelError
from ubf_augment.generators import GMM, load_generator
from ubf_augment.generators._fields import CorrelatedFields, autocorrelation
from ubf_augment.generators._mixture import Mixture, plane_basis
from ubf_augment.seeding import per_sample
from ubf_augment.training import History, make_fabric

CPU: dict[str, Any] = {"fabric": make_fabric(accelerator="cpu"), "progress": False}
LAGS = [1, 2, 4, 8]


def smooth_maps(n: int = 96, p: int = 4, size: int = 16, factor: int = 4) -> Tensor:
    g = torch.Generator().manual_seed(0)
    low = torch.randn(n, p, size // factor, size // factor, generator=g)
    return torch.softmax(1.5 * torch.nn.functional.interpolate(low, size, mode="bicubic"), 1)


def fit(model: GMM, maps: Tensor, labels: Tensor | None = None, steps: int = 100, **options: Any) -> History:
    return model.fit(maps, labels=labels, steps=steps, **(CPU | options))


def random_mixture(dim: int = 3, components: int = 4) -> Mixture:
    mixture = Mixture(2, components, dim)
    with torch.no_grad():
        mixture.logits.copy_(torch.randn(2, components))
        mixture.means.copy_(torch.randn(2, components, dim))
        factors = 0.4 * torch.randn(2, components, dim, dim).tril()
        mixture.factors.copy_(factors + 0.3 * torch.eye(dim))
    return mixture


def test_coordinates_keep_distances_on_the_simplex() -> None:
    a = torch.softmax(torch.randn(2, 5, 4, 4), 1)
    z = GMM(5, (4, 4)).coordinates(a)
    torch.testing.assert_close((z[0] - z[1]).norm(dim=0), (a[0] - a[1]).norm(dim=0))
    basis = plane_basis(5)
    torch.testing.assert_close(torch.einsum("bdhw,pd->bphw", z, basis) + 0.2, a)


def test_density_is_scipys() -> None:
    from scipy.stats import multivariate_normal

    mixture = random_mixture()
    z = torch.randn(2, 6, 3)
    got = mixture.log_prob(z, torch.tensor([1, 0]))
    for row, k in enumerate((1, 0)):
        cov = mixture.factors[k].detach().tril()
        cov = (cov @ cov.mT).numpy()
        weights, means = mixture.logits[k].softmax(0).detach().numpy(), mixture.means[k].detach().numpy()
        p = sum(
            w * multivariate_normal(m, c).pdf(z[row].numpy())
            for w, m, c in zip(weights, means, cov, strict=True)
        )
        np.testing.assert_allclose(got[row].detach().numpy(), np.log(p), rtol=1e-3, atol=1e-3)


def test_a_known_mixture_is_recovered() -> None:
    truth = GMM(3, (16, 16), components=2)
    factors = torch.tensor([[[0.05, 0.0], [0.02, 0.03]], [[0.02, 0.0], [-0.03, 0.04]]])
    means = torch.tensor([[0.15, 0.10], [-0.15, -0.05]])
    with torch.no_grad():
        truth.mixture.logits[0] = torch.tensor([0.3, 0.7]).log()
        truth.mixture.means[0], truth.mixture.factors[0] = means, factors
    maps = truth.sample(n=80, generator=per_sample(0, range(80)))
    assert float(maps.min()) > 0  # inside the simplex: the projection did nothing
    found = GMM(3, (16, 16), components=2)
    history = fit(found, maps, tol=1e-7)
    order = found.mixture.means[0, :, 0].argsort(descending=True)
    weights = found.mixture.logits[0].softmax(0)[order]
    cov = (found.mixture.factors[0] @ found.mixture.factors[0].mT)[order]
    torch.testing.assert_close(weights, torch.tensor([0.3, 0.7]), atol=0.015, rtol=0)
    torch.testing.assert_close(found.mixture.means[0, order], means, atol=2e-3, rtol=0)
    torch.testing.assert_close(cov, factors @ factors.mT, atol=1.5e-4, rtol=0)
    ours, theirs = (float(m.loss(maps, None, torch.Generator()).detach()) for m in (found, truth))
    assert ours == pytest.approx(theirs, abs=2e-3)
    assert history.loss[-1] == pytest.approx(ours, abs=5e-3)


def test_scores_of_one_gaussian_are_its_whitened_coordinates() -> None:
    mixture = random_mixture(components=1)
    g = torch.randn(50, 3).double()
    z = mixture.from_scores(g, 1)
    cov = (mixture.factors[1, 0].tril() @ mixture.factors[1, 0].tril().mT).double()
    offset = z - mixture.means[1, 0]
    mahalanobis = (offset * torch.linalg.solve(cov, offset.mT).mT).sum(1)
    torch.testing.assert_close(mahalanobis, g.square().sum(1), rtol=1e-5, atol=1e-5)
    first = offset @ torch.linalg.eigh(cov).eigenvectors[:, -1]  # the largest axis follows its score alone
    torch.testing.assert_close(first.abs() / first.std(), g[:, 0].abs() / g[:, 0].std())


def test_normal_scores_become_points_of_the_mixture() -> None:
    mixture = random_mixture()
    axes = mixture.axes(1)
    torch.testing.assert_close(axes.T @ axes, torch.eye(3).double())
    z = mixture.from_scores(torch.randn(40_000, 3), 1)
    drawn = (
        mixture.draw(torch.rand(1, 40_000), torch.randn(1, 40_000, 3), torch.tensor([1]))[0].detach().double()
    )
    q = torch.linspace(0.05, 0.95, 19).double()
    for direction in (*torch.eye(3).double(), *torch.randn(5, 3).double()):
        ours, theirs = (v @ direction for v in (z, drawn))
        share = (ours[:, None] <= theirs.quantile(q)).double().mean(0)
        torch.testing.assert_close(share, q, atol=0.015, rtol=0)
    torch.testing.assert_close(torch.cov(z.T), torch.cov(drawn.T), atol=0.05, rtol=0)


def test_score_correlations_give_points_the_wanted_ones() -> None:
    mixture, wanted = random_mixture(), torch.tensor([[0.9, 0.5, 0.0], [0.7, 0.5, 0.1], [0.6, 0.4, 0.0]])
    rho = mixture.score_correlations(wanted, 1, seed=0)
    g, e = torch.randn(2, 20_000, 3).double()
    v = mixture.from_scores(g, 1) @ mixture.axes(1)

    def achieved(r: Tensor) -> Tensor:
        w = mixture.from_scores(r * g + (1 - r.square()).sqrt() * e, 1) @ mixture.axes(1)
        return torch.stack([torch.corrcoef(torch.stack([v[:, d], w[:, d]]))[0, 1] for d in range(3)])

    for case in range(3):
        torch.testing.assert_close(achieved(rho[:, case]).float(), wanted[:, case], atol=0.13, rtol=0)
    plain = achieved(wanted[:, 0].double()).float()  # scores no stronger than the points
    assert float((wanted[:, 0] - plain).max()) > 0.2


def test_fields_have_their_correlation_and_do_not_wrap() -> None:
    fields = CorrelatedFields(1, 2, (32, 32))
    assert fields.lengths == [1, 2, 4, 8, 16]
    fields.weights.zero_()
    fields.weights[0, 0, [0, 3]] = torch.tensor([0.25, 0.75])  # a nugget and a length of 4 pixels
    fields.weights[0, 1, [1, 11]] = torch.tensor([0.6, 0.4])  # a length of 1 pixel, and a constant
    x = fields.draw([0] * 400, per_sample(0, range(400)))
    assert x.shape == (400, 2, 32, 32)
    torch.testing.assert_close(x.var((0, 2, 3)), torch.ones(2).double(), atol=0.06, rtol=0)
    r = autocorrelation(x)
    for lag, value in [(1, 0.75 * math.exp(-1 / 4)), (4, 0.75 * math.exp(-1)), (8, 0.75 * math.exp(-2))]:
        for axis in (r[0, lag, 0], r[0, 0, lag]):
            assert float(axis) == pytest.approx(value, abs=0.06)  # the torus and pixels change it a little
    assert float(r[1, 0, 31]) == pytest.approx(0.4, abs=0.06)  # opposite edges share the constant alone
    again = CorrelatedFields(1, 2, (32, 32))
    again.fit(0, again.ring_means(r))
    torch.testing.assert_close(again.weights.sum(-1), torch.ones(1, 2))
    assert float(again.weights.min()) >= 0
    spectra = [torch.einsum("dj,jhw->dhw", f.weights[0].double(), f.spectra) for f in (again, fields)]
    rho = [torch.fft.irfft2(s, s=(64, 64))[:, 0, :16] for s in spectra]
    torch.testing.assert_close(rho[0], rho[1], atol=0.06, rtol=0)


def test_a_field_without_variation_counts_as_uncorrelated() -> None:
    r = autocorrelation(torch.ones(3, 1, 4, 4))
    assert float(r[0, 0, 0]) == 1
    assert float(r.abs().sum()) == 1


@pytest.fixture(scope="module", params=[False, True])
def drawn(request: pytest.FixtureRequest) -> tuple[bool, Tensor, Tensor]:
    maps = smooth_maps()
    model = GMM(4, (16, 16), spatial=request.param)
    fit(model, maps)
    return request.param, maps, model.sample(n=300, generator=per_sample(1, range(300)))


def test_pixels_keep_their_distribution(drawn: tuple[bool, Tensor, Tensor]) -> None:
    _, maps, a = drawn
    torch.testing.assert_close(a.mean((0, 2, 3)), maps.mean((0, 2, 3)), atol=0.012, rtol=0)
    torch.testing.assert_close(a.std((0, 2, 3)), maps.std((0, 2, 3)), atol=0.012, rtol=0)
    pixels, ours = maps.movedim(1, -1).flatten(0, 2), a.movedim(1, -1).flatten(0, 2)
    torch.testing.assert_close(torch.cov(ours.T), torch.cov(pixels.T), atol=4e-3, rtol=0)
    q = torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95])
    torch.testing.assert_close(ours.quantile(q, 0), pixels.quantile(q, 0), atol=0.025, rtol=0)


def test_spatial_structure_is_absent_or_that_of_the_data(drawn: tuple[bool, Tensor, Tensor]) -> None:
    spatial, maps, a = drawn
    ours, real = autocorrelation(a), autocorrelation(maps)
    assert float(real[:, 0, 1].min()) > 0.8
    for r in (ours[:, 0, LAGS], ours[:, LAGS, 0]):
        if spatial:
            torch.testing.assert_close(r, real[:, 0, LAGS], atol=0.17, rtol=0)
        else:
            assert float(r.abs().max()) < 0.02


def test_exact_zeros_come_from_the_projection() -> None:
    maps = simplex.project(torch.tensor([0.3, 0.02, 0.68]).view(1, 3, 1, 1) + 0.05 * torch.randn(64, 3, 8, 8))
    model = GMM(3, (8, 8))
    fit(model, maps)
    a = model.sample(n=100, generator=per_sample(0, range(100)))
    real, ours = (float((v[:, 1] < 0.5 / 255).float().mean()) for v in (maps, a))
    assert 0.2 < real < 0.5
    assert ours == pytest.approx(real, abs=0.05)


def test_history_tells_when_it_converged() -> None:
    maps = smooth_maps(8)
    history = fit(GMM(4, (16, 16), components=3), maps, steps=500)
    done = history.extra["iterations"]
    assert done < 500
    assert history.steps == [*range(1, done + 1), 500]
    assert history.loss[-1] == history.loss[-2]
    assert all(b <= a + 1e-9 for a, b in zip(history.loss, history.loss[1:], strict=False))
    endless = fit(GMM(4, (16, 16), components=3), maps, steps=60, tol=0.0)
    assert endless.steps == list(range(1, 61))


def test_a_seed_repeats_a_fit() -> None:
    maps, models = smooth_maps(16), [GMM(4, (16, 16), spatial=True) for _ in range(3)]
    for model, seed in zip(models, (0, 0, 1), strict=True):
        fit(model, maps, steps=3, seed=seed, pixels_per_class=500)
    first, same, other = (m.state_dict() for m in models)
    assert all(torch.equal(first[k], same[k]) for k in first)
    assert not torch.equal(first["mixture.means"], other["mixture.means"])


def test_stored_and_float_maps_fit_alike() -> None:
    counts = (255 * smooth_maps(8)).round().to(torch.uint8)
    models = [GMM(4, (16, 16), components=2) for _ in range(2)]
    fit(models[0], counts, steps=5)
    fit(models[1], simplex.closure(counts.float()), steps=5)
    torch.testing.assert_close(models[0].mixture.means, models[1].mixture.means)


def test_an_interrupted_fit_goes_on_where_it_was(tmp_path: Path) -> None:
    maps, labels = smooth_maps(12), torch.arange(12) % 2
    whole, parts = GMM(4, (16, 16), 2, components=3), GMM(4, (16, 16), 2, components=3)
    want = fit(whole, maps, labels, steps=12, tol=0.0)
    fit(parts, maps, labels, steps=5, tol=0.0, checkpoint=tmp_path / "gmm.pt")
    again = GMM(4, (16, 16), 2, components=3)
    got = fit(again, maps, labels, steps=12, tol=0.0, checkpoint=tmp_path / "gmm.pt")
    assert (got.steps, got.loss) == (want.steps, want.loss)
    assert torch.equal(again.mixture.factors, whole.mixture.factors)
    with pytest.raises(ValueError, match="another run"):
        fit(again, maps, labels, steps=12, seed=1, checkpoint=tmp_path / "gmm.pt")
    (tmp_path / "gmm.pt").write_bytes(b"cut")
    with pytest.raises(ValueError, match=r"gmm\.pt"):
        fit(again, maps, labels, steps=12, checkpoint=tmp_path / "gmm.pt")


def test_a_fitted_model_goes_on_from_its_mixture(tmp_path: Path) -> None:
    maps, model = smooth_maps(16), GMM(4, (16, 16), components=4)
    first = fit(model, maps, steps=10, tol=0.0)
    second = fit(load_generator(model.save(tmp_path)), maps, steps=3, tol=0.0)  # type: ignore[arg-type]
    assert first.loss[-1] - 0.01 < second.loss[0] < first.loss[-1] < first.loss[0]


def test_spatial_models_are_saved_whole(tmp_path: Path) -> None:
    model = GMM(4, (16, 16), components=2, spatial=True)
    fit(model, smooth_maps(8), steps=3)
    loaded = load_generator(model.save(tmp_path))
    assert torch.equal(
        model.sample(generator=per_sample(0, [0])), loaded.sample(generator=per_sample(0, [0]))
    )


def test_classes_keep_to_themselves() -> None:
    maps = smooth_maps(16)
    maps[8:] = maps[8:].roll(1, 1) ** 2
    maps = simplex.closure(maps)
    both = GMM(4, (16, 16), 2, components=2)
    fit(both, maps, torch.arange(16) // 8, steps=5, tol=0.0, seed=4)
    means = [both.sample(k, n=100).mean((0, 2, 3)) for k in range(2)]
    for k in range(2):
        torch.testing.assert_close(means[k], maps[8 * k : 8 * k + 8].mean((0, 2, 3)), atol=0.02, rtol=0)


def test_what_cannot_be_fitted_is_named() -> None:
    maps = smooth_maps(4)
    with pytest.raises(LabelError, match="no map has class 1, 3"):
        fit(GMM(4, (16, 16), 4), maps, torch.tensor([0, 2, 0, 2]))
    with pytest.raises(ValueError, match="5 pixels cannot determine 8"):
        fit(GMM(4, (16, 16)), maps, pixels_per_class=5)
    with pytest.raises(ValueError, match="components"):
        GMM(4, (16, 16), components=0)
    with pytest.raises(TypeError, match="temperature"):
        GMM(4, (16, 16)).sample(temperature=0.5)
