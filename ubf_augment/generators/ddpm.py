"""Class-conditional diffusion model of abundance maps."""

from __future__ import annotations

from collections.abc import Sequence

from ubf_augment.generators.base import AbundanceGenerator
from ubf_augment.generators.denoising import CodecName, make_codec
from ubf_augment.generators.diffusion import DiffusionGenerator, Prediction, Schedule
from ubf_augment.generators.registry import register
from ubf_augment.seeding import seeded


@register("ddpm")
class DDPM(DiffusionGenerator, AbundanceGenerator):
    """Denoising diffusion in the code space of abundance maps, with classifier-free guidance.

    A codec packs maps into codes z (see `codec`); the forward process is z_t = √ᾱ_t z₀ + √(1 − ᾱ_t) n; a
    U-Net predicts n, z₀ or v = √ᾱ_t n − √(1 − ᾱ_t) z₀. In sampling every prediction is turned into z₀ and
    projected so that its maps lie on the simplex.

    Options of `sample`: ``steps`` evaluations (20 unless built otherwise), ``sampler="dpm-solver++"`` ("ddim", "ddpm"),
    ``guidance`` (1.5), ``project=True``, ``precision="32"`` ("bf16"). Options of `fit`: see
    ``_denoiser_fit.fit_denoiser``.

    If you use this, please cite: Ho et al. 2020 (DDPM, arXiv:2006.11239); Song et al. 2021 (DDIM,
    arXiv:2010.02502); Lu et al. 2022 (DPM-Solver++, arXiv:2211.01095); Ho & Salimans 2022
    (classifier-free guidance, arXiv:2207.12598); Salimans & Ho 2022 (v-prediction, arXiv:2202.00512);
    Rombach et al. 2022 (latent diffusion, arXiv:2112.10752); Yu et al. 2024 (Unmixing Before Fusion,
    CVPR, pp. 9297-9306).

    >>> import torch
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
        codec: CodecName = "latent",
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
        schedule: Schedule = "cosine",
        shift: float = 2.0,
        train_timesteps: int = 1000,
        label_dropout: float = 0.1,
        min_snr_gamma: float | None = None,
        init_seed: int = 0,
        steps: int = 20,
        guidance: float = 1.5,
        times: Sequence[float] | None = None,
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
            steps: evaluations of a sample where none are asked for.
            guidance: of a sample where none is asked for.
            times: the only times that a distilled network knows (see `distill`).

        Raises:
            ValueError: if sizes are not divisible, or a name is unknown.
        """
        super().__init__(num_endmembers, size, num_classes)
        self._keep(locals())
        self._preset(steps, guidance, times)
        self._diffuse(prediction, schedule, shift, train_timesteps, min_snr_gamma)
        with seeded(init_seed):
            self._build(
                make_codec(codec, num_endmembers, factor, latent_channels, codec_widths, whiten),
                widths, layers, attention, head_dim, dropout, label_dropout,
            )  # fmt: skip
