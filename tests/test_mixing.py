"""The mixing model against its formula; the residual model against its own statistics."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from ubf_augment import simplex
from ubf_augment.errors import BandCountError, NoDataError, ShapeError
from ubf_augment.mixing import ResidualModel, decode, mix
from ubf_augment.seeding import per_sample
from ubf_augment.spectra import Endmembers


def model(length: float = 2.0, bands: int = 6, rank: int = 2, noise: float = 0.003) -> ResidualModel:
    g = torch.Generator().manual_seed(1)
    basis, _ = torch.linalg.qr(torch.randn(bands, rank, generator=g))
    scale = torch.tensor([0.05, 0.02, 0.015, 0.01])[:rank]
    return ResidualModel(
        0.1 * torch.randn(bands, generator=g), basis * scale, torch.full((bands,), noise), length
    )


def autocorrelation(x: Tensor, dy: int, dx: int) -> float:
    """Correlation of a zero-mean field (N, H, W) with itself, shifted."""
    h, w = x.shape[1:]
    a, b = x[:, dy:, dx:], x[:, : h - dy, : w - dx]
    return float((a * b).mean() / x.square().mean())


# ---- mix


@pytest.mark.parametrize("batched", [False, True])
def test_mix_is_the_sum_over_endmembers(batched: bool) -> None:
    a = torch.softmax(torch.randn(3, 4, 5, 7, dtype=torch.float64), 1)
    e = torch.rand(*((3,) if batched else ()), 4, 6, dtype=torch.float64)
    x = mix(a, e)
    assert x.shape == (3, 6, 5, 7)
    for b, c, i, j in ((0, 0, 0, 0), (2, 5, 4, 6), (1, 3, 2, 5)):
        spectra = e[b] if batched else e
        by_hand = sum(float(a[b, p, i, j]) * float(spectra[p, c]) for p in range(4))
        assert x[b, c, i, j].item() == pytest.approx(by_hand, rel=1e-12)


def test_mix_of_a_vertex_is_the_endmember() -> None:
    e = Endmembers(torch.rand(3, 4), torch.tensor([450.0, 490.0, 560.0, 665.0]))
    a = torch.zeros(1, 3, 2, 2)
    a[:, 1] = 1
    assert torch.equal(mix(a, e)[0, :, 0, 0], e.spectra[1])


def test_mix_is_linear_and_commutes_with_moving_pixels() -> None:
    a, b = torch.rand(2, 2, 3, 8, 8).unbind(0)
    e = torch.rand(3, 5)
    assert torch.allclose(mix(0.3 * a + 0.7 * b, e), 0.3 * mix(a, e) + 0.7 * mix(b, e), atol=1e-6)
    assert torch.allclose(mix(a.flip(-1), e), mix(a, e).flip(-1))


def test_mix_gradients() -> None:
    a = torch.rand(2, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    e = torch.rand(3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(mix, (a, e))
    each = torch.rand(2, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(mix, (a, each))


def test_mix_keeps_type_and_takes_empty_batches() -> None:
    assert mix(torch.rand(1, 2, 2, 2).half(), torch.rand(2, 5)).dtype == torch.float16
    assert mix(torch.zeros(0, 2, 3, 3), torch.rand(2, 5)).shape == (0, 5, 3, 3)
    assert mix(torch.zeros(0, 2, 3, 3), torch.rand(0, 2, 5)).shape == (0, 5, 3, 3)


@pytest.mark.parametrize(
    ("a", "e"),
    [
        (torch.rand(3, 4, 4), torch.rand(3, 5)),
        (torch.rand(1, 3, 4, 4), torch.rand(4, 5)),
        (torch.rand(1, 3, 4, 4), torch.rand(3)),
        (torch.rand(2, 3, 4, 4), torch.rand(3, 3, 5)),
    ],
)
def test_mix_refuses(a: Tensor, e: Tensor) -> None:
    with pytest.raises(ShapeError):
        mix(a, e)


# ---- residual model: sampling


@pytest.mark.parametrize("length", [0.0, 0.4, 0.8, 2.0, 4.0])
def test_samples_have_the_mean_the_covariance_and_the_autocorrelation(length: float) -> None:
    m = model(length)
    x = m.sample(150, 48, 40, torch.Generator().manual_seed(0)) - m.mean.view(1, -1, 1, 1)
    # Independent pixels, about: one for every 2π·ℓ² of them
    count = 150 * 48 * 40 / max(1.0, 2 * math.pi * length**2)
    covariance = m.covariance()
    variance = covariance.diagonal()
    assert (x.mean((0, 2, 3)).abs() < 5 * (variance / count).sqrt()).all()
    found = torch.einsum("nchw,ndhw->cd", x, x) / (150 * 48 * 40)
    assert ((found - covariance).abs() < 6 * torch.outer(variance, variance).sqrt() / count**0.5).all()
    # Along one factor only: the others and the white noise of the bands are orthogonal to it, or small
    z = torch.einsum("c,nchw->nhw", m.factors[:, 0] / m.factors[:, 0].norm(), x)
    share = float(m.factors[:, 0].square().sum() / (m.factors[:, 0].square().sum() + m.noise_std[0] ** 2))
    for dy, dx in ((0, 1), (1, 0), (1, 1), (0, 3), (4, 2)):
        expected = share * math.exp(-(dy**2 + dx**2) / (2 * length**2)) if length else 0.0
        assert autocorrelation(z, dy, dx) == pytest.approx(expected, abs=0.01 + 5 / count**0.5)


def test_white_noise_is_white() -> None:
    m = ResidualModel(torch.zeros(3), torch.zeros(3, 2), torch.tensor([0.1, 0.2, 0.0]), 3.0)
    x = m.sample(40, 32, 32, torch.Generator().manual_seed(0))
    assert x.std((0, 2, 3)).tolist() == pytest.approx([0.1, 0.2, 0.0], rel=0.03)
    assert abs(autocorrelation(x[:, 0], 0, 1)) < 0.02
    assert abs(float((x[:, 0] * x[:, 1]).mean())) < 5 * 0.02 / 200


def test_a_sample_depends_on_its_own_generator_alone() -> None:
    m = model()
    together = m.sample(4, 9, 7, per_sample(3, range(4)))
    for i in range(4):
        assert torch.allclose(m.sample(1, 9, 7, per_sample(3, [i]))[0], together[i], atol=1e-7)
    assert not torch.allclose(together[0], together[1], atol=1e-3)


@pytest.mark.parametrize(("h", "w"), [(1, 1), (1, 6), (5, 1)])
@pytest.mark.parametrize("length", [0.0, 3.0])
def test_thin_images(h: int, w: int, length: float) -> None:
    x = model(length).sample(2, h, w, torch.Generator().manual_seed(0))
    assert x.shape == (2, 6, h, w)
    assert torch.isfinite(x).all()


def test_rank_zero_and_no_images() -> None:
    m = ResidualModel(torch.ones(3), torch.zeros(3, 0), torch.zeros(3), 2.0)
    assert torch.equal(m.sample(2, 4, 4), torch.ones(2, 3, 4, 4))
    assert m.sample(0, 4, 4, []).shape == (0, 3, 4, 4)


# ---- residual model: estimation


@pytest.mark.parametrize("length", [0.0, 1.5, 3.0])
def test_estimation_recovers_the_model_of_its_samples(length: float) -> None:
    true = model(length, noise=0.002)
    x = true.sample(60, 48, 48, torch.Generator().manual_seed(0))
    found = ResidualModel.estimate(x, rank=2)
    scale = true.covariance().diagonal().mean()
    assert torch.allclose(found.mean, true.mean, atol=0.005)
    assert ((found.covariance() - true.covariance()).abs() < 0.1 * scale).all()
    assert torch.allclose(found.noise_std, true.noise_std, atol=0.0015)
    assert found.correlation_length == pytest.approx(length, abs=0.15)
    overlap = torch.linalg.svdvals(
        torch.linalg.qr(found.factors).Q.T @ torch.linalg.qr(true.factors).Q
    )  # cosines of the principal angles
    assert (overlap > 0.99).all()


def test_estimation_keeps_every_band_variance() -> None:
    x = torch.randn(3, 8, 16, 16) * torch.linspace(0.01, 0.1, 8).view(1, -1, 1, 1)
    x = x + 0.3 * x.roll(1, 1)
    for rank in (0, 1, 4, 8, 20):
        found = ResidualModel.estimate(x, rank=rank)
        assert found.factors.shape == (8, min(rank, 8))
        variance = x.movedim(1, 0).flatten(1).double().var(1).float()
        assert torch.allclose(found.covariance().diagonal(), variance, rtol=1e-4)
    whole = ResidualModel.estimate(x, rank=8)
    pixels = x.movedim(1, 0).flatten(1)
    assert torch.allclose(whole.covariance(), torch.cov(pixels), atol=1e-6)


def test_estimation_from_images_of_different_sizes() -> None:
    m = model(2.0)
    g = torch.Generator().manual_seed(0)
    parts = [m.sample(1, h, w, g)[0] for h, w in ((40, 60), (1, 30), (55, 1), (64, 64))]
    found = ResidualModel.estimate(parts, rank=2)
    assert found.correlation_length == pytest.approx(2.0, abs=0.5)


def test_estimation_of_constants_and_single_rows() -> None:
    found = ResidualModel.estimate(torch.full((2, 3, 4, 4), 0.25), rank=2)
    assert torch.allclose(found.mean, torch.full((3,), 0.25))
    assert torch.allclose(found.covariance(), torch.zeros(3, 3), atol=1e-9)
    assert torch.isfinite(found.sample(1, 3, 3)).all()
    one_band = ResidualModel.estimate(torch.randn(1, 1, 1, 50), rank=3)
    assert one_band.factors.shape == (1, 1)


def test_unusable_residuals() -> None:
    with pytest.raises(ShapeError, match="two pixels"):
        ResidualModel.estimate([])
    with pytest.raises(ShapeError, match="two pixels"):
        ResidualModel.estimate(torch.zeros(1, 3, 1, 1))
    with pytest.raises(NoDataError, match="NaN"):
        ResidualModel.estimate([torch.full((3, 4, 4), float("nan"))])
    with pytest.raises(BandCountError, match=r"\[3, 4\] bands"):
        ResidualModel.estimate([torch.zeros(3, 4, 4), torch.zeros(4, 4, 4)])


def test_moving_a_model() -> None:
    m = model().to("cpu")
    assert m.correlation_length == 2.0
    assert m.sample(1, 2, 2, device="cpu").device.type == "cpu"


def _model(bands: int = 6, rank: int = 2, length: float = 1.5) -> ResidualModel:
    g = torch.Generator().manual_seed(5)
    return ResidualModel(
        0.01 * torch.randn(bands, generator=g), 0.02 * torch.randn(bands, rank, generator=g),
        0.005 + 0.01 * torch.rand(bands, generator=g), length,
    )  # fmt: skip


@pytest.mark.parametrize("own", [False, True])
def test_decode_is_mix_plus_a_residual(own: bool) -> None:
    g = torch.Generator().manual_seed(1)
    a = simplex.from_logits(torch.randn(3, 4, 7, 5, generator=g))
    spectra = torch.rand((3, 4, 6) if own else (4, 6), generator=g)
    model = _model()
    x = decode(a, spectra, model, torch.Generator().manual_seed(2))
    eps = model.sample(3, 7, 5, torch.Generator().manual_seed(2))
    torch.testing.assert_close(x, mix(a, spectra) + eps)
    a.requires_grad_()
    decode(a, spectra, model).sum().backward()
    gradient = torch.autograd.grad(mix(a, spectra).sum(), a)[0]
    torch.testing.assert_close(a.grad, gradient)
    assert decode(a[:0], spectra[:0] if own else spectra, model).shape == (0, 6, 7, 5)


def test_white_noise_is_white_between_pixels_bands_and_images() -> None:
    model = ResidualModel(torch.zeros(8), torch.zeros(8, 1), torch.ones(8), 0.0)
    x = model.sample(40, 32, 32, torch.Generator().manual_seed(0))
    assert abs(float(x.mean())) < 0.01
    assert abs(float(x.std()) - 1) < 0.01
    bands = torch.corrcoef(x.movedim(1, 0).flatten(1)) - torch.eye(8)
    images = torch.corrcoef(x.flatten(1)) - torch.eye(40)
    assert float(bands.abs().max()) < 0.03
    assert float(images.abs().max()) < 0.06
    for lag in (x[..., 1:] * x[..., :-1], x[..., 1:, :] * x[..., :-1, :]):
        assert abs(float(lag.mean())) < 0.01
    assert abs(float(x.pow(4).mean()) - 3) < 0.1  # normal


def test_noise_of_a_large_image_does_not_repeat() -> None:
    model = ResidualModel(torch.zeros(1), torch.zeros(1, 1), torch.ones(1), 0.0)
    x = model.sample(1, 400, 400, torch.Generator().manual_seed(0)).flatten()
    assert len(torch.unique(x)) > 0.98 * len(x)


# ---- decode: one pass, in place


def _reference(a: Tensor, spectra: Tensor, m: ResidualModel, g: torch.Generator) -> Tensor:
    """x = Eᵀa + μ + L z + d n, term by term in float64."""
    n, _, h, w = a.shape
    rows, noise = m.draw(n, h, w, g)
    rows, z, white = rows.double(), noise.smooth(h, w).double(), noise.white(h * w).double()
    sets = spectra.double().expand(n, -1, -1)
    x = torch.einsum("npc,nphw->nchw", sets, a.double()) + rows[-1].view(1, -1, 1, 1)
    return x + torch.einsum("rc,nrhw->nchw", rows[:-1], z) + white.view(n, -1, h, w)


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize(
    "size", [(7, 5), (64, 96), (300, 400)]
)  # at once; image by image; several runs per image
def test_decode_is_the_formula(own: bool, size: tuple[int, int]) -> None:
    g = torch.Generator().manual_seed(3)
    a = simplex.from_logits(torch.randn(3, 4, *size, generator=g, dtype=torch.float64))
    spectra = torch.rand((3, 4, 6) if own else (4, 6), generator=g, dtype=torch.float64)
    m = _model()
    expected = _reference(a, spectra, m, torch.Generator().manual_seed(2))
    exact = decode(a, spectra, m, torch.Generator().manual_seed(2))
    assert exact.dtype == torch.float64
    torch.testing.assert_close(exact, expected, rtol=0, atol=1e-7)  # ε is held in float32
    single = decode(a.float(), spectra.float(), m, torch.Generator().manual_seed(2))
    torch.testing.assert_close(single.double(), expected, rtol=0, atol=2e-6)
    assert torch.equal(single, decode(a.float(), spectra.float(), m, torch.Generator().manual_seed(2)))
    assert not torch.equal(single, decode(a.float(), spectra.float(), m, torch.Generator().manual_seed(1)))


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("size", [(8, 8), (80, 96)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_decode_writes_into_rows_of_any_type_and_layout(
    residual: bool, size: tuple[int, int], dtype: torch.dtype, layout: torch.memory_format
) -> None:
    g = torch.Generator().manual_seed(0)
    a, spectra = simplex.from_logits(torch.randn(2, 3, *size, generator=g)), torch.rand(3, 6, generator=g)
    m = _model() if residual else None
    plain = decode(a, spectra, m, torch.Generator().manual_seed(5))
    out = torch.full((5, 6, *size), 7.0, dtype=dtype).contiguous(memory_format=layout)
    place = out.data_ptr()
    made = decode(a, spectra, m, torch.Generator().manual_seed(5), out=out, rows=torch.tensor([3, 0]))
    assert made is out
    assert out.data_ptr() == place
    assert out.is_contiguous(memory_format=layout)
    torch.testing.assert_close(
        out[[3, 0]], plain.to(dtype), rtol=0, atol=1e-6 if dtype.itemsize > 2 else 1e-2
    )
    assert bool((out[[1, 2, 4]] == 7).all())


def test_an_image_depends_on_its_own_generator_alone() -> None:
    a = simplex.from_logits(torch.randn(3, 2, 80, 80))
    spectra = torch.rand(2, 6)
    together = decode(a, spectra, _model(), per_sample(4, range(3)))
    alone = decode(a[2:], spectra, _model(), per_sample(4, [2]))
    torch.testing.assert_close(together[2:], alone, rtol=0, atol=1e-6)


def test_noise_differs_between_bands_and_images_in_every_run() -> None:
    """600×600 pixels and 3 bands are read in three runs: no band is another one, moved or mirrored in sign."""
    m = ResidualModel(torch.zeros(3), torch.zeros(3, 0), torch.ones(3), 0.0)
    x = m.sample(2, 600, 600, torch.Generator().manual_seed(0)).flatten(2).flatten(0, 1)
    assert float((torch.corrcoef(x) - torch.eye(6)).abs().max()) < 0.01


def test_decode_refuses_places_that_do_not_fit() -> None:
    a, spectra = torch.rand(2, 3, 4, 4), torch.rand(3, 5)
    with pytest.raises(ShapeError, match="room for 3 images"):
        decode(a, spectra, out=torch.zeros(3, 5, 4, 4))
    with pytest.raises(ShapeError, match="room for 2 images \\(4, 4, 4\\)"):
        decode(a, spectra, out=torch.zeros(2, 4, 4, 4))
    with pytest.raises(ShapeError, match="give out"):
        decode(a, spectra, rows=torch.tensor([0, 1]))


@pytest.mark.gpu
def test_decode_on_a_gpu_is_that_of_the_cpu() -> None:
    a, spectra = simplex.from_logits(torch.randn(4, 3, 64, 64)), torch.rand(3, 6)
    here = decode(a, spectra, _model(), torch.Generator().manual_seed(1))
    out = torch.zeros(4, 6, 64, 64, device="cuda", dtype=torch.bfloat16)
    there = decode(a.cuda(), spectra, _model(), torch.Generator().manual_seed(1), out=out)
    torch.testing.assert_close(there.float().cpu(), here, rtol=1e-2, atol=1e-2)
