"""Class-conditional diffusion model of abundance maps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, cast

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from ubf_augment import seeding, simplex
from ubf_augment.generators.base import AbundanceGenerator
from ubf_augment.generators.codec import AbundanceAutoencoder, Codec, UnshuffleCodec
from ubf_augment.generators.noise import sampling_times, schedule_betas
from ubf_augment.generators.registry import register
from ubf_augment.training import History

Prediction = Literal["epsilon", "v_prediction", "sample"]
Sampler = Literal["ddpm", "ddim", "dpm-solver++"]


class Denoiser(nn.Module):
    """diffusers' U-Net as a plain function (z_t, t, y) → prediction, channels last inside."""

    def __init__(
        self, channels: int, size: tuple[int, int], widths: Sequence[int], layers: int,
        attention: Sequence[int], head_dim: int, dropout: float, num_classes: int | None,
    ) -> None:  # fmt: skip
        """Build the U-Net with attention at the given levels (0 is the full latent) and in the middle."""
        super().__init__()
        from diffusers import UNet2DModel

        build: Any = UNet2DModel
        levels = range(len(widths))
        groups = max(g for g in range(1, 33) if all(w % g == 0 for w in widths))
        heads = math.gcd(head_dim, *(widths[i] for i in levels if i in attention), widths[-1])
        self.unet: nn.Module = build(
            sample_size=size,
            in_channels=channels,
            out_channels=channels,
            down_block_types=tuple("AttnDownBlock2D" if i in attention else "DownBlock2D" for i in levels),
            up_block_types=tuple(
                "AttnUpBlock2D" if i in attention else "UpBlock2D" for i in reversed(levels)
            ),
            block_out_channels=tuple(widths),
            layers_per_block=layers,
            attention_head_dim=heads,
            norm_num_groups=groups,
            attn_norm_num_groups=groups,
            resnet_time_scale_shift="scale_shift",
            dropout=dropout,
            num_class_embeds=None if num_classes is None else num_classes + 1,
        )
        self.to(memory_format=torch.channels_last)

    def forward(self, z: Tensor, t: Tensor, y: Tensor | None) -> Tensor:
        """Predict for noisy codes z (B,c,h,w) at steps t (B,) and classes y (B,)."""
        z = z.contiguous(memory_format=torch.channels_last)
        return cast(Tensor, self.unet(z, t, class_labels=y, return_dict=False)[0])


@register("ddpm")
class DDPM(AbundanceGenerator):
    """Denoising diffusion in the code space of abundance maps, with classifier-free guidance.

    A codec packs maps into codes z (see `codec`); the forward process is z_t = √ᾱ_t z₀ + √(1 − ᾱ_t) n; a
    U-Net predicts n, z₀ or v = √ᾱ_t n − √(1 − ᾱ_t) z₀. In sampling every prediction is turned into z₀,
    projected so that its maps lie on the simplex, and handed to the sampler, whose times are evenly spaced
    in log σ/α. All three samplers are cases of one solver: DDIM is DPM-Solver++ of first order, ancestral
    DDPM sampling its stochastic form (Lu et al. 2022, section 4).

    If you use this, please cite: Ho et al. 2020 (DDPM, arXiv:2006.11239); Song et al. 2021 (DDIM,
    arXiv:2010.02502); Lu et al. 2022 (DPM-Solver++, arXiv:2211.01095); Ho & Salimans 2022
    (classifier-free guidance, arXiv:2207.12598); Salimans & Ho 2022 (v-prediction, arXiv:2202.00512);
    Rombach et al. 2022 (latent diffusion, arXiv:2112.10752); Yu et al. 2024 (Unmixing Before Fusion,
    CVPR, pp. 9297-9306).

    >>> ddpm = DDPM(3, (8, 8), num_classes=2, codec="unshuffle", factor=2, widths=(16, 16), attention=())
    >>> a = ddpm.sample([0, 1], generator=torch.Generator().manual_seed(0), steps=2)
    >>> a.shape, bool(((a.sum(1) - 1).abs() <= 1e-5).all())
    (torch.Size([2, 3, 8, 8]), True)
    """

    can_edit = True

    def __init__(
        self,
        num_endmembers: int,
        size: Sequence[int] = (64, 64),
        num_classes: int | None = None,
        *,
        codec: Literal["latent", "unshuffle"] = "latent",
        factor: int = 4,
        latent_channels: int = 16,
        codec_widths: Sequence[int] = (48, 96),
        whiten: float = 0.5,
        widths: Sequence[int] = (64, 128, 192),
        layers: int = 1,
        attention: Sequence[int] = (),
        head_dim: int = 64,
        dropout: float = 0.0,
        prediction: Prediction = "v_prediction",
        schedule: Literal["cosine", "linear"] = "cosine",
        shift: float = 2.0,
        train_timesteps: int = 1000,
        label_dropout: float = 0.1,
        min_snr_gamma: float | None = None,
        init_seed: int = 0,
    ) -> None:
        """Build codec and U-Net.

        Args:
            num_endmembers: P.
            size: (H, W).
            num_classes: K, or None for an unconditional model.
            codec: "latent" (learned autoencoder) or "unshuffle" (fixed pixel-unshuffle).
            factor: f of the codec; H and W must be divisible by f·2^(len(widths) − 1).
            latent_channels: code channels of the latent codec.
            codec_widths: widths of the latent codec.
            whiten: how far the latent codec evens out its components, 0 (natural) to 1 (white).
            widths: widths of the U-Net's levels.
            layers: residual blocks per level.
            attention: levels with self-attention, 0 being the full code; the middle block always has it.
            head_dim: channels per attention head.
            dropout: dropout in the U-Net.
            prediction: what the U-Net predicts.
            schedule: "cosine" or "linear" (`noise.schedule_betas`).
            shift: factor on the noise of the schedule.
            train_timesteps: T.
            label_dropout: share of training samples that see no class.
            min_snr_gamma: γ of min-SNR weighting (Hang et al. 2023, arXiv:2303.09556), or None.
            init_seed: of the initial weights.

        Raises:
            ValueError: if sizes are not divisible, or a name is unknown.
        """
        super().__init__(num_endmembers, size, num_classes)
        self._config: dict[str, Any] = {
            "num_endmembers": num_endmembers,
            "size": list(self.size),
            "num_classes": num_classes,
            "codec": codec,
            "factor": factor,
            "latent_channels": latent_channels,
            "codec_widths": list(codec_widths),
            "whiten": whiten,
            "widths": list(widths),
            "layers": layers,
            "attention": list(attention),
            "head_dim": head_dim,
            "dropout": dropout,
            "prediction": prediction,
            "schedule": schedule,
            "shift": shift,
            "train_timesteps": train_timesteps,
            "label_dropout": label_dropout,
            "min_snr_gamma": min_snr_gamma,
            "init_seed": init_seed,
        }
        _check_choice("codec", codec, ("latent", "unshuffle"))
        _check_choice("prediction", prediction, ("epsilon", "v_prediction", "sample"))
        _check_choice("schedule", schedule, ("cosine", "linear"))
        need = factor * 2 ** (len(widths) - 1)
        if any(s % need for s in self.size):
            raise ValueError(
                f"size {self.size} is not divisible by {need} (factor {factor} × 2^{len(widths) - 1} for "
                f"{len(widths)} levels): choose another size, a smaller factor, or fewer widths"
            )
        self.prediction, self.train_timesteps = prediction, train_timesteps
        self.label_dropout, self.min_snr_gamma = label_dropout, min_snr_gamma
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(init_seed)
            self.codec: Codec = (
                UnshuffleCodec(num_endmembers, factor)
                if codec == "unshuffle"
                else AbundanceAutoencoder(
                    num_endmembers, factor, latent_channels, codec_widths, whiten=whiten
                )
            )
            self.code_size = (self.size[0] // factor, self.size[1] // factor)
            self.denoiser = Denoiser(
                self.codec.channels, self.code_size, widths, layers, attention, head_dim, dropout, num_classes
            )
        self.codec.to(memory_format=torch.channels_last)
        betas = schedule_betas(schedule, train_timesteps, shift, zero_snr=prediction != "epsilon")
        self._betas: list[float] = betas.tolist()
        self.alpha_bar: Tensor
        self.register_buffer("alpha_bar", (1 - betas).cumprod(0).float(), persistent=False)

    @property
    def config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return dict(self._config)

    def _fit(self, maps: Tensor, labels: Tensor | None, **options: Any) -> History:
        from ubf_augment.generators._ddpm_fit import fit_ddpm

        return fit_ddpm(self, maps, labels, **options)

    def loss(
        self, maps: Float[Tensor, "b p h w"], labels: Int64[Tensor, "b"] | None, generator: torch.Generator
    ) -> Float[Tensor, ""]:
        """Diffusion loss plus, for a learned codec, the codec's loss."""
        z = self.codec.encode(maps)
        loss = self.denoising_loss(self.denoiser, z, labels, generator)
        if isinstance(self.codec, AbundanceAutoencoder):
            loss = loss + cast(Tensor, self.codec(maps, seeding.randn(z.shape, generator, z.device)))
        return loss

    def denoising_loss(
        self,
        denoiser: nn.Module,
        z: Float[Tensor, "b c hf wf"],
        labels: Int64[Tensor, "b"] | None,
        generator: torch.Generator,
    ) -> Float[Tensor, ""]:
        """Mean squared error of the prediction at stratified random times, some classes dropped."""
        b, device = len(z), z.device
        u = (torch.arange(b) + torch.rand(b, generator=generator)) / b
        t = (u[torch.randperm(b, generator=generator)] * self.train_timesteps).long().to(device)
        noise = seeding.randn(z.shape, generator, device)
        dropped = torch.rand(b, generator=generator) < self.label_dropout
        y = None if labels is None else self._with_null(labels.to(device), dropped.to(device))
        alpha, sigma = self._alpha_sigma(t)
        out: Tensor = denoiser(alpha * z + sigma * noise, t, y).float()
        target = {"epsilon": noise, "sample": z, "v_prediction": alpha * noise - sigma * z}[self.prediction]
        error = (out - target).square().mean((1, 2, 3))
        return (error * self._weight(t)).mean()

    def _with_null(self, y: Tensor, dropped: Tensor) -> Tensor:
        return torch.where(dropped, torch.full_like(y, cast(int, self.num_classes)), y)

    def _alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        a = self.alpha_bar.to(t.device)[t].view(-1, 1, 1, 1)
        return a.sqrt(), (1 - a).sqrt()

    def _weight(self, t: Tensor) -> Tensor:
        if self.min_snr_gamma is None:
            return torch.ones_like(t, dtype=torch.float32)
        a = self.alpha_bar.to(t.device)[t]
        snr = a / (1 - a)
        clipped = torch.clamp(snr, max=self.min_snr_gamma)
        if self.prediction == "sample":
            return clipped
        return clipped / (snr if self.prediction == "epsilon" else snr + 1)

    def load_checkpoint(self, path: Path | str) -> int:
        """Take codec and averaged denoiser of a checkpoint of a running `fit`; returns its step.

        Raises:
            ValueError: if the checkpoint is of another configuration.
        """
        from ubf_augment.generators._ddpm_fit import load_average

        return load_average(self, Path(path))

    def _scheduler(self, sampler: Sampler) -> Any:
        from diffusers import DPMSolverMultistepScheduler

        _check_choice("sampler", sampler, ("ddpm", "ddim", "dpm-solver++"))
        build: Any = DPMSolverMultistepScheduler
        return build(
            num_train_timesteps=self.train_timesteps,
            trained_betas=self._betas,
            algorithm_type="sde-dpmsolver++" if sampler == "ddpm" else "dpmsolver++",
            solver_order=2 if sampler == "dpm-solver++" else 1,
            prediction_type="sample",
        )

    def predict_clean(
        self,
        z: Float[Tensor, "b c hf wf"],
        t: int,
        y: Int64[Tensor, "b"] | None,
        guidance: float,
        project: bool,
    ) -> Float[Tensor, "b c hf wf"]:
        """Estimate z₀ from z_t with guidance, u(∅) + g (u(y) − u(∅)) for predictions u; then project."""
        if y is None or guidance == 1.0:
            out = self.denoiser(z, torch.full((len(z),), t, device=z.device), y).float()
        else:
            null = torch.full_like(y, cast(int, self.num_classes))
            times = torch.full((2 * len(z),), t, device=z.device)
            both = self.denoiser(torch.cat([z, z]), times, torch.cat([y, null])).float()
            with_class, without = both.chunk(2)
            out = without + guidance * (with_class - without)
        alpha, sigma = self._alpha_sigma(torch.full((1,), t, device=z.device))
        if self.prediction == "epsilon":
            out = (z - sigma * out) / alpha
        elif self.prediction == "v_prediction":
            out = alpha * z - sigma * out
        return self.codec.project(out) if project else out

    def _denoise(
        self, z: Tensor, times: list[int], y: Tensor | None, generator: list[torch.Generator], *,
        sampler: Sampler = "dpm-solver++", guidance: float = 1.5, project: bool = True, precision: str = "32",
    ) -> Tensor:  # fmt: skip
        """Run the sampler from z at ``times[0]`` down; gives maps on the simplex."""
        _check_choice("precision", precision, ("32", "bf16"))
        scheduler = self._scheduler(sampler)
        scheduler.set_timesteps(timesteps=times)
        clean = z
        with torch.autocast(z.device.type, torch.bfloat16, enabled=precision == "bf16"):
            for i, t in enumerate(times):
                clean = self.predict_clean(z, t, y, guidance, project)
                if i + 1 < len(times):
                    noise = seeding.randn(z.shape, generator, z.device) if sampler == "ddpm" else None
                    z = scheduler.step(clean, t, z, variance_noise=noise, return_dict=False)[0]
            return self.codec.decode(clean)

    def _sample(self, y: Tensor | None, n: int, generator: list[torch.Generator], **options: Any) -> Tensor:
        """Options: steps=20, sampler="dpm-solver++", guidance=1.5, project=True, precision="32" or "bf16"."""
        times = sampling_times(self.alpha_bar.cpu(), int(options.pop("steps", 20)))
        z = seeding.randn((n, self.codec.channels, *self.code_size), generator, self.device)
        return self._denoise(z, times, y, generator, **options)

    def _edit(
        self, a: Tensor, y: Tensor | None, strength: float, generator: list[torch.Generator], **options: Any
    ) -> Tensor:
        """Noise to strength·T, then denoise with the class.

        The codec's error on ``a`` is given back in the share 1 − strength, so that strength → 0 gives ``a``.
        """
        steps = int(options.pop("steps", 20))
        if strength == 0.0:
            return simplex.project(a.float())
        times = sampling_times(self.alpha_bar.cpu(), steps, strength)
        z = self.codec.encode(a.float())
        alpha, sigma = self._alpha_sigma(torch.full((1,), times[0], device=z.device))
        noisy = alpha * z + sigma * seeding.randn(z.shape, generator, z.device)
        new = self._denoise(noisy, times, y, generator, **options)
        return simplex.project(new + (1 - strength) * (a - self.codec.decode(z)))


def _check_choice(what: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"unknown {what} {value!r}: choose one of {', '.join(choices)}")
