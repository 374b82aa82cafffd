"""Denoising diffusion in any code space: schedule, loss, samplers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from ubf_augment import seeding
from ubf_augment.generators.denoising import DenoisingGenerator, check_choice
from ubf_augment.generators.noise import sampling_times, schedule_betas

Prediction = Literal["epsilon", "v_prediction", "sample"]
Schedule = Literal["cosine", "linear"]
Sampler = Literal["ddpm", "ddim", "dpm-solver++"]


class DiffusionGenerator(DenoisingGenerator):
    """z_t = √ᾱ_t z₀ + √(1 − ᾱ_t) n; the network predicts n, z₀ or v = √ᾱ_t n − √(1 − ᾱ_t) z₀.

    In sampling every prediction is turned into z₀, projected by the codec, and handed to the sampler, whose
    times are evenly spaced in log σ/α. All three samplers are cases of one solver: DDIM is DPM-Solver++ of
    first order, ancestral DDPM sampling its stochastic form (Lu et al. 2022, section 4).

    Attributes:
        prediction: what the network predicts.
        train_timesteps: T.
        alpha_bar: (T,) ᾱ.
    """

    alpha_bar: Tensor

    def _diffuse(
        self, prediction: Prediction, schedule: Schedule, shift: float, train_timesteps: int,
        min_snr_gamma: float | None,
    ) -> None:  # fmt: skip
        """Set up the forward process."""
        check_choice("prediction", prediction, ("epsilon", "v_prediction", "sample"))
        check_choice("schedule", schedule, ("cosine", "linear"))
        self.prediction, self.train_timesteps, self.min_snr_gamma = prediction, train_timesteps, min_snr_gamma
        with torch.device("cpu"):  # its values are needed, also where the network is laid out on "meta" first
            betas = schedule_betas(schedule, train_timesteps, shift, zero_snr=prediction != "epsilon")
        self._betas: list[float] = betas.tolist()
        self.register_buffer("alpha_bar", (1 - betas).cumprod(0).float(), persistent=False)

    def alpha_sigma(
        self, t: Shaped[Tensor, "b"]
    ) -> tuple[Float[Tensor, "b 1 1 1"], Float[Tensor, "b 1 1 1"]]:
        """Give √ᾱ_t and √(1 − ᾱ_t) at steps t (B,)."""
        a = self.alpha_bar.to(t.device)[t.long()].view(-1, 1, 1, 1)
        return a.sqrt(), (1 - a).sqrt()

    def _training_times(self, u: Tensor) -> Tensor:
        return (u * self.train_timesteps).long()

    def _target(self, z: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = self.alpha_sigma(t)
        return {"epsilon": noise, "sample": z, "v_prediction": alpha * noise - sigma * z}[self.prediction]

    def _weight(self, t: Tensor) -> Tensor:
        if self.min_snr_gamma is None:
            return super()._weight(t)
        a = self.alpha_bar.to(t.device)[t]
        snr = a / (1 - a)
        clipped = torch.clamp(snr, max=self.min_snr_gamma)
        if self.prediction == "sample":
            return clipped
        return clipped / (snr if self.prediction == "epsilon" else snr + 1)

    def _clean(self, z: Tensor, out: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = self.alpha_sigma(t)
        if self.prediction == "epsilon":
            return (z - sigma * out) / alpha
        return alpha * z - sigma * out if self.prediction == "v_prediction" else out

    def _scheduler(self, sampler: Sampler) -> Any:
        from diffusers import DPMSolverMultistepScheduler

        check_choice("sampler", sampler, ("ddpm", "ddim", "dpm-solver++"))
        build: Any = DPMSolverMultistepScheduler
        return build(
            num_train_timesteps=self.train_timesteps,
            trained_betas=self._betas,
            algorithm_type="sde-dpmsolver++" if sampler == "ddpm" else "dpmsolver++",
            solver_order=2 if sampler == "dpm-solver++" else 1,
            prediction_type="sample",
        )

    def _times(self, steps: int, start: float = 1.0) -> Sequence[int]:
        return sampling_times(self.alpha_bar.cpu(), steps, start)

    def _denoise(
        self, z: Tensor, times: Sequence[int], y: Tensor | None, generator: list[torch.Generator], *,
        guidance: float, project: bool, sampler: Sampler = "dpm-solver++",
    ) -> Tensor:  # fmt: skip
        scheduler = self._scheduler(sampler)
        scheduler.set_timesteps(timesteps=list(times))
        clean = z
        for i, t in enumerate(times):
            clean = self.predict_clean(z, t, y, guidance, project)
            if i + 1 < len(times):
                noise = seeding.randn(z.shape, generator, z.device) if sampler == "ddpm" else None
                z = scheduler.step(clean, t, z, variance_noise=noise, return_dict=False)[0]
        return clean
