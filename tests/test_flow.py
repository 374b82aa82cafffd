"""The flow-matching generator: its paths, solvers and projection."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_ddpm import SMALL
from torch import Tensor, nn

from ubf_augment import seeding, simplex
from ubf_augment.errors import SimplexError
from ubf_augment.generators import FlowMatching
from ubf_augment.generators.noise import flow_times
from ubf_augment.seeding import per_sample


class GaussianVelocity(nn.Module):
    """The exact velocity E[n − z₀ | z_t] for independent codes of zero mean and standard deviation ``std``."""

    def __init__(self, std: float) -> None:
        super().__init__()
        self.std, self.calls = std, 0

    def forward(self, z: Tensor, t: Tensor, y: Tensor | None) -> Tensor:
        self.calls += 1
        t = (t / 1000).view(-1, 1, 1, 1)
        variance = ((1 - t) * self.std) ** 2 + t**2
        return (t - (1 - t) * self.std**2) / variance * z


def small(num_classes: int | None = 2, **config: Any) -> FlowMatching:
    return FlowMatching(3, (8, 8), num_classes, **(SMALL | config))


@pytest.mark.parametrize(
    ("solver", "steps", "tolerance"), [("heun", 25, 0.05), ("heun", 24, 0.05), ("euler", 200, 0.04)]
)
@pytest.mark.parametrize("std", [0.5, 2.0, 15.0])
def test_solvers_draw_the_right_spread(
    monkeypatch: pytest.MonkeyPatch, solver: str, steps: int, tolerance: float, std: float
) -> None:
    model = FlowMatching(3, (32, 32), None, **SMALL)
    monkeypatch.setattr(model.codec, "decode", lambda z: z)
    monkeypatch.setattr(model, "denoiser", GaussianVelocity(std))
    z = torch.randn(12, 6, 16, 16, generator=torch.Generator().manual_seed(0))
    out = model._decode(z, flow_times(steps), None, per_sample(0, range(12)), solver=solver, project=False)
    assert float(out.std()) == pytest.approx(std, rel=tolerance)


def test_heun_is_more_exact_than_euler_at_equal_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a Gaussian the flow maps noise by one factor: z₀ = std · n."""
    model = small(None)
    monkeypatch.setattr(model.codec, "decode", lambda z: z)
    monkeypatch.setattr(model, "denoiser", GaussianVelocity(2.0))
    z = torch.randn(4, 6, 4, 4, generator=torch.Generator().manual_seed(0))
    error = {}
    for solver in ("euler", "heun"):
        out = model._decode(z, flow_times(15), None, per_sample(0, range(4)), solver=solver, project=False)
        error[solver] = float((out - 2.0 * z).abs().mean())
    assert error["heun"] < 0.5 * error["euler"]


@pytest.mark.parametrize("solver", ["euler", "heun"])
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5, 10])
def test_steps_count_evaluations(monkeypatch: pytest.MonkeyPatch, solver: str, steps: int) -> None:
    model = small(None)
    counter = GaussianVelocity(1.0)
    monkeypatch.setattr(model, "denoiser", counter)
    model.sample(n=2, steps=steps, solver=solver)
    assert counter.calls == steps


def test_the_loss_of_the_exact_velocity_is_the_smallest(monkeypatch: pytest.MonkeyPatch) -> None:
    """E var(n − z₀ | z_t) for Gaussian codes is what no network can go below."""
    model = small(None)
    z = 1.5 * torch.randn(256, 6, 4, 4, generator=torch.Generator().manual_seed(0))
    losses = [
        float(model.denoising_loss(GaussianVelocity(std), z, None, torch.Generator().manual_seed(1)))
        for std in (1.0, 1.5, 2.5)
    ]
    assert losses[1] < min(losses[0], losses[2])


def test_clean_predictions_are_projected() -> None:
    model = small()
    z, y = 4 * torch.randn(2, model.codec.channels, 4, 4), torch.tensor([0, 1])
    free = model.codec.linear(model.predict_clean(z, 0.5, y, 1.5, project=False))
    with pytest.raises(SimplexError):
        simplex.check(free)
    clean = model.predict_clean(z, 0.5, y, 1.5, project=True)
    torch.testing.assert_close(clean, model.codec.encode(simplex.project(free)), atol=1e-5, rtol=0)


@pytest.mark.parametrize("codec", ["latent", "unshuffle"])
@pytest.mark.parametrize("solver", ["euler", "heun"])
@pytest.mark.parametrize("project", [True, False])
def test_each_setting_gives_abundances(codec: str, solver: str, project: bool) -> None:
    a = small(codec=codec).sample([0, 1], solver=solver, steps=4, project=project, guidance=2.0)
    simplex.check(a, atol=1e-5)


def test_bad_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="time_shift"):
        small(time_shift=0.0)
    with pytest.raises(ValueError, match="not divisible by 4"):
        FlowMatching(3, (10, 10), None, **SMALL)
    with pytest.raises(ValueError, match="unknown codec"):
        small(codec="jpeg")
    with pytest.raises(ValueError, match="unknown solver"):
        small().sample([0], solver="rk4")
    with pytest.raises(ValueError, match="at least one step"):
        small().sample([0], steps=0)


def test_the_path_starts_as_wide_as_it_should(monkeypatch: pytest.MonkeyPatch) -> None:
    """For codes of unit variance the exact flow from the first time to 0 maps noise to itself."""
    model = small(None)
    monkeypatch.setattr(model.codec, "decode", lambda z: z)
    monkeypatch.setattr(model, "denoiser", GaussianVelocity(1.0))
    noise = seeding.randn((4, 6, 4, 4), per_sample(0, range(4)))
    with torch.no_grad():
        out = model._sample(None, 4, per_sample(0, range(4)), steps=401, project=False)
    torch.testing.assert_close(out, noise, rtol=0.004, atol=0.001)


def test_guidance_extrapolates_from_no_class_to_the_class() -> None:
    model, t = small(), torch.full((2,), 0.6)
    z, y, null = torch.randn(2, 6, 4, 4), torch.tensor([0, 1]), torch.tensor([2, 2])
    with torch.no_grad():
        with_class, without = (z - 0.6 * model.denoiser(z, 1000 * t, label) for label in (y, null))
        for g in (0.0, 1.0, 2.5):
            guided = model.predict_clean(z, 0.6, y, g, project=False)
            torch.testing.assert_close(guided, without + g * (with_class - without), atol=1e-4, rtol=1e-4)


def test_a_part_of_the_way_takes_its_part_of_the_evaluations() -> None:
    whole, half = flow_times(20), flow_times(20, start=0.5)
    assert len(half) < len(whole)
    assert half[0] == pytest.approx(0.5)
    assert half[-1] == pytest.approx(whole[-1])
    assert flow_times(20, start=1e-3) == pytest.approx([1e-3])
