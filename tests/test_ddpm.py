"""The diffusion generator: its codecs, schedule, samplers, and training stages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ubf_augment import simplex
from ubf_augment.errors import SimplexError
from ubf_augment.generators import DDPM, get_generator
from ubf_augment.generators.codec import AbundanceAutoencoder, l1_and_gradients
from ubf_augment.generators.noise import sampling_times
from ubf_augment.seeding import per_sample
from ubf_augment.training import make_fabric

SMALL: dict[str, Any] = {
    "factor": 2,
    "latent_channels": 6,
    "codec_widths": (16, 16),
    "widths": (16, 32),
    "head_dim": 16,
}


def smooth_maps(n: int = 32, p: int = 4, size: int = 16) -> Tensor:
    g = torch.Generator().manual_seed(0)
    logits = torch.nn.functional.interpolate(torch.randn(n, p, 4, 4, generator=g), size, mode="bicubic")
    return torch.softmax(3 * logits, 1)


def small(num_classes: int | None = 2, **config: Any) -> DDPM:
    return DDPM(3, (8, 8), num_classes, **(SMALL | config))


class GaussianDenoiser(nn.Module):
    """The exact prediction for independent codes of zero mean and standard deviation ``std``."""

    def __init__(self, model: DDPM, std: float) -> None:
        super().__init__()
        self.model, self.std = [model], std

    def forward(self, z: Tensor, t: Tensor, y: Tensor | None) -> Tensor:
        alpha, sigma = self.model[0].alpha_sigma(t)
        clean = alpha * self.std**2 / (alpha**2 * self.std**2 + sigma**2) * z
        noise = (z - alpha * clean) / sigma
        kind = self.model[0].prediction
        return {"sample": clean, "epsilon": noise, "v_prediction": alpha * noise - sigma * clean}[kind]


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize(
    ("sampler", "steps", "tolerance"), [("dpm-solver++", 12, 0.04), ("ddim", 100, 0.04), ("ddpm", 100, 0.06)]
)
@pytest.mark.parametrize("std", [0.5, 2.0, 15.0])
def test_samplers_draw_the_right_spread(
    monkeypatch: pytest.MonkeyPatch, prediction: str, sampler: str, steps: int, tolerance: float, std: float
) -> None:
    """Also for a code far larger than the noise: such is the overall composition of a smooth map."""
    model = DDPM(3, (32, 32), None, **(SMALL | {"prediction": prediction}))
    monkeypatch.setattr(model.codec, "decode", lambda z: z)
    monkeypatch.setattr(model, "denoiser", GaussianDenoiser(model, std))
    z = torch.randn(12, 6, 16, 16)
    times = sampling_times(model.alpha_bar, steps)
    out = model._decode(z, times, None, per_sample(0, range(12)), sampler=sampler, project=False)  # type: ignore[arg-type]
    assert float(out.std()) == pytest.approx(std, rel=tolerance)
    assert abs(float(out.mean())) < 0.05 * std


@pytest.mark.parametrize(("ours", "theirs"), [("ddim", "DDIMScheduler"), ("ddpm", "DDPMScheduler")])
def test_first_order_solvers_are_ddim_and_ancestral_sampling(ours: str, theirs: str) -> None:
    import diffusers

    model = small()
    scheduler = getattr(diffusers, theirs)(
        1000,
        trained_betas=model._betas,
        prediction_type="sample",
        clip_sample=False,
        timestep_spacing="trailing",
    )
    scheduler.set_timesteps(10)
    mine = model._scheduler(ours)  # type: ignore[arg-type]
    mine.set_timesteps(timesteps=scheduler.timesteps.tolist())
    z = torch.randn(2, 3, 4, 4)
    other = z
    for t in scheduler.timesteps[:-1]:
        clean = torch.tanh(z)
        noise = torch.randn(z.shape, generator=torch.Generator().manual_seed(int(t)))
        z = mine.step(clean, int(t), z, variance_noise=noise, return_dict=False)[0]
        other = scheduler.step(
            torch.tanh(other),
            int(t),
            other,
            generator=torch.Generator().manual_seed(int(t)),
            return_dict=False,
        )[0]
        torch.testing.assert_close(z, other, atol=2e-3, rtol=2e-3)


@pytest.mark.parametrize("codec", ["latent", "unshuffle"])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpm-solver++"])
@pytest.mark.parametrize("project", [True, False])
def test_each_setting_gives_abundances(codec: str, prediction: str, sampler: str, project: bool) -> None:
    model = small(codec=codec, prediction=prediction, schedule="linear" if sampler == "ddim" else "cosine")
    a = model.sample([0, 1], sampler=sampler, steps=3, project=project, guidance=2.0)
    simplex.check(a, atol=1e-5)
    assert float(a.min()) >= 0


@pytest.mark.parametrize("codec", ["latent", "unshuffle"])
def test_clean_predictions_are_projected(codec: str) -> None:
    model = small(codec=codec)
    z = 4 * torch.randn(2, model.codec.channels, 4, 4)
    free = model.codec.linear(model.predict_clean(z, 500, torch.tensor([0, 1]), 1.5, project=False))
    with pytest.raises(SimplexError):
        simplex.check(free)
    clean = model.predict_clean(z, 500, torch.tensor([0, 1]), 1.5, project=True)
    expected = model.codec.encode(simplex.project(free))
    torch.testing.assert_close(clean, expected, atol=1e-5, rtol=0)


def test_guidance_extrapolates_from_no_class_to_the_class() -> None:
    model = small(prediction="sample")
    z, y, null = torch.randn(2, 6, 4, 4), torch.tensor([0, 1]), torch.tensor([2, 2])
    with torch.no_grad():
        t = torch.full((2,), 300)
        with_class, without = model.denoiser(z, t, y), model.denoiser(z, t, null)
        guided = model.predict_clean(z, 300, y, 2.5, project=False)
        torch.testing.assert_close(guided, without + 2.5 * (with_class - without), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(model.predict_clean(z, 300, y, 1.0, False), with_class, atol=1e-5, rtol=0)
        torch.testing.assert_close(model.predict_clean(z, 300, y, 0.0, False), without, atol=1e-5, rtol=0)


# ---- training


def test_training_the_decoder_sharpens_and_leaves_the_code_alone() -> None:
    maps = smooth_maps(64)
    model = DDPM(
        4, (16, 16), factor=4, latent_channels=6, codec_widths=(24, 24), widths=(16, 16), head_dim=16
    )
    fabric = make_fabric(accelerator="cpu")
    model.fit(maps, steps=1, codec_steps=0, fabric=fabric, progress=False)
    z = model.codec.encode(maps)
    before = l1_and_gradients(model.codec.decode(z), maps)
    model.fit(maps, steps=1, codec_steps=150, codec_batch_size=16, fabric=fabric, progress=False)
    assert torch.equal(model.codec.encode(maps), z)
    assert float(l1_and_gradients(model.codec.decode(z), maps)) < 0.8 * float(before)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_the_loss_is_zero_for_the_exact_prediction(prediction: str) -> None:
    model, z = small(prediction=prediction), 0.5 * torch.ones(4, 6, 4, 4)

    class Exact(nn.Module):
        def forward(self, noisy: Tensor, t: Tensor, y: Tensor | None) -> Tensor:
            alpha, sigma = model.alpha_sigma(t)
            noise = (noisy - alpha * z) / sigma
            return {"epsilon": noise, "sample": z, "v_prediction": alpha * noise - sigma * z}[prediction]

    y = torch.zeros(4, dtype=torch.long)
    assert float(model.denoising_loss(Exact(), z, y, torch.Generator().manual_seed(0))) < 1e-6


def test_labels_are_dropped_at_the_given_rate() -> None:
    model = small(label_dropout=0.25)
    seen: list[Tensor] = []

    class Recorder(nn.Module):
        def forward(self, z: Tensor, t: Tensor, y: Tensor) -> Tensor:
            seen.append(y)
            return z

    z, y = torch.zeros(2000, 6, 1, 1), torch.arange(2000) % 2
    model.denoising_loss(Recorder(), z, y, torch.Generator().manual_seed(0))
    dropped = seen[0] == 2
    assert float(dropped.float().mean()) == pytest.approx(0.25, abs=0.03)
    assert torch.equal(seen[0][~dropped], y[~dropped])


def test_min_snr_weights() -> None:
    t = torch.tensor([10, 500, 990])
    weights = {
        p: small(prediction=p, min_snr_gamma=5.0)._weight(t) for p in ("epsilon", "sample", "v_prediction")
    }
    a = small().alpha_bar[t]
    snr = a / (1 - a)
    assert weights["sample"].tolist() == pytest.approx(snr.clamp_max(5.0).tolist())
    assert weights["epsilon"].tolist() == pytest.approx((snr.clamp_max(5.0) / snr).tolist())
    assert weights["v_prediction"].tolist() == pytest.approx((snr.clamp_max(5.0) / (snr + 1)).tolist())
    assert small()._weight(t).tolist() == [1.0, 1.0, 1.0]


class StopError(Exception):
    pass


@pytest.mark.parametrize("stage", ["codec", "denoiser"])
def test_an_interrupted_fit_ends_with_the_same_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    maps = smooth_maps(20, 3, 8)
    labels = torch.arange(20) % 2

    def fit(checkpoint: Path | None) -> DDPM:
        model = small(dropout=0.1)
        model.fit(
            maps, labels=labels, steps=8, codec_steps=6, batch_size=5, codec_batch_size=5, progress=False,
            checkpoint=checkpoint, save_every_s=0.0, fabric=make_fabric(accelerator="cpu"),
        )  # fmt: skip
        return model

    whole = fit(None)
    kind, name = (AbundanceAutoencoder, "forward") if stage == "codec" else (DDPM, "denoising_loss")
    original, left = getattr(kind, name), 4

    def stopping(*args: Any, **kwargs: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise StopError
        return original(*args, **kwargs)

    monkeypatch.setattr(kind, name, stopping)
    with pytest.raises(StopError):
        fit(tmp_path / "run.pt")
    assert (tmp_path / "run.pt").exists() == (stage == "denoiser")
    monkeypatch.undo()
    resumed = fit(tmp_path / "run.pt")
    for (key, a), b in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b), key


def test_a_running_fit_can_be_looked_at(tmp_path: Path) -> None:
    maps, path = smooth_maps(8, 3, 8), tmp_path / "run.pt"
    options: dict[str, Any] = {"codec_steps": 2, "batch_size": 4, "progress": False, "ema_decay": 0.5}
    model = small(None)
    model.fit(maps, steps=3, checkpoint=path, **options)
    other = small(None, init_seed=1)
    assert other.load_checkpoint(path) == 3
    for (key, a), b in zip(model.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.equal(a, b), key
    with pytest.raises(ValueError, match="not a denoiser checkpoint"):
        other.load_checkpoint(tmp_path / "run.codec.pt")
    with pytest.raises(ValueError, match="not a denoiser checkpoint"):
        small(2).load_checkpoint(path)


def test_a_resumed_fit_keeps_the_encoder_it_began_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Components of equal variance may come out rotated on another machine: they are not computed anew."""
    maps, path = smooth_maps(16, 3, 8), tmp_path / "run.pt"
    first = small(None)
    options: dict[str, Any] = {"batch_size": 4, "checkpoint": path, "codec_steps": 0, "progress": False}
    first.fit(maps, steps=2, **options)
    monkeypatch.setattr(AbundanceAutoencoder, "fit_linear", lambda *_: pytest.fail("computed anew"))
    second = small(None)
    second.fit(maps, steps=4, **options)
    assert torch.equal(first.codec.basis, second.codec.basis)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="another configuration"):
        small(None, latent_channels=5).fit(maps, steps=4, **options)


def test_fitting_again_keeps_the_code() -> None:
    maps = smooth_maps(16, 3, 8)
    model = small(None)
    model.fit(maps, steps=2, codec_steps=2, batch_size=4, progress=False)
    basis = model.codec.basis.clone()  # type: ignore[union-attr]
    history = model.fit(maps.flip(1), steps=2, batch_size=4, progress=False)
    assert torch.equal(model.codec.basis, basis)  # type: ignore[union-attr]
    assert "codec" not in history.extra


def test_symmetries_are_used_only_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    from ubf_augment.generators import _batches

    seen: list[int] = []
    original = _batches.dihedral
    monkeypatch.setattr(_batches, "dihedral", lambda x, op: (seen.extend(op.tolist()), original(x, op))[1])
    maps = smooth_maps(32, 3, 8)
    small(None).fit(maps, steps=3, codec_steps=1, batch_size=16, augment=False, progress=False)
    assert set(seen) == {0}
    small(None).fit(maps, steps=3, codec_steps=1, batch_size=16, augment=True, progress=False)
    assert set(seen) == set(range(8))
    seen.clear()
    DDPM(3, (8, 16), **SMALL).fit(
        maps.repeat(1, 1, 1, 2), steps=3, codec_steps=1, batch_size=16, progress=False
    )
    assert set(seen) == set(range(4))


def test_compact_maps_train_like_float_ones() -> None:
    maps = smooth_maps(16, 3, 8)
    compact = (255 * maps).round().to(torch.uint8)
    found = []
    for stored in (maps, compact):
        model = small(None)
        model.fit(stored, steps=3, codec_steps=3, batch_size=4, progress=False)
        found.append(model.codec.encode(maps))
    torch.testing.assert_close(found[0], found[1], atol=0.05, rtol=0)


def test_the_same_seed_builds_the_same_model() -> None:
    torch.manual_seed(1)
    first = small().state_dict()
    torch.manual_seed(2)
    assert all(torch.equal(a, b) for a, b in zip(first.values(), small().state_dict().values(), strict=True))


def test_configurations_are_json_able_and_complete() -> None:
    import inspect
    import json

    model = small(attention=(1,), min_snr_gamma=5.0)
    assert set(model.config) == set(inspect.signature(DDPM.__init__).parameters) - {"self"}
    again = get_generator("ddpm", **json.loads(json.dumps(model.config)))
    assert again.config == model.config


def test_bad_configurations_teach() -> None:
    with pytest.raises(ValueError, match=r"not divisible by 16.*3 levels"):
        DDPM(3, (40, 64), 2)
    for setting in ({"codec": "vae"}, {"prediction": "x"}, {"schedule": "sqrt"}):
        with pytest.raises(ValueError, match="choose one of"):
            small(**setting)
    model = small()
    with pytest.raises(ValueError, match=r"unknown sampler 'euler'.*dpm-solver"):
        model.sample([0], sampler="euler")
    with pytest.raises(ValueError, match="precision"):
        model.sample([0], precision="fp8", steps=1)
    with pytest.raises(ValueError, match="at least two endmembers"):
        DDPM(1, (8, 8), **SMALL)


def test_bf16_sampling_stays_close() -> None:
    model = small()
    options: dict[str, Any] = {"steps": 3, "guidance": 1.0}
    a = model.sample([0, 1], generator=per_sample(0, [0, 1]), **options)
    b = model.sample([0, 1], generator=per_sample(0, [0, 1]), precision="bf16", **options)
    assert float((a - b).abs().mean()) < 0.05
    simplex.check(b, atol=1e-5)


@pytest.mark.slow
def test_ten_thousand_samples_lie_on_the_simplex() -> None:
    model = small()
    a = model.sample(torch.arange(10_000) % 2, steps=3, batch_size=500)
    assert float(a.min()) >= 0
    assert float((a.double().sum(1) - 1).abs().max()) <= 1e-5


@pytest.mark.gpu
def test_the_gpu_draws_what_the_cpu_draws() -> None:
    model = small()
    a = model.sample([0, 1], generator=per_sample(0, [0, 1]), steps=4)
    b = model.to("cuda").sample([0, 1], generator=per_sample(0, [0, 1]), steps=4)
    torch.testing.assert_close(a, b.cpu(), atol=5e-3, rtol=0)
