"""Class-conditional flow matching of abundance maps: straight paths, few evaluations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from ubf_augment.generators.base import AbundanceGenerator
from ubf_augment.generators.denoising import (
    CodecName,
    DenoisingGenerator,
    check_choice,
    make_codec,
)
from ubf_augment.generators.noise import flow_times, spread_times
from ubf_augment.generators.registry import register
from ubf_augment.seeding import seeded

Solver = Literal["euler", "heun"]
_TIME_SCALE = 1000.0  # the U-Net's time embedding is made for 0…1000


@register("flow")
class FlowMatching(DenoisingGenerator, AbundanceGenerator):
    """Flow along straight paths between codes of abundance maps and noise, with classifier-free guidance.

    A codec packs maps into codes z₀ (see `codec`); on the path z_t = (1 − t) z₀ + t n a U-Net learns the
    velocity v = n − z₀ by E ‖u(z_t, t, y) − v‖², t logit-normal. Sampling integrates dz/dt = u from noise
    (t = 1) to a code (t = 0) by Euler's or Heun's method; the estimate z₀ = z_t − t u is projected so that
    its maps lie on the simplex, before every step. Times are evenly spaced in log t/(1 − t), as in `DDPM`.

    Options of `sample`: ``steps`` evaluations (20 unless built otherwise) of the network, ``solver="heun"`` (two evaluations per
    step) or "euler", ``guidance`` (1.5), ``project=True``, ``precision="32"`` ("bf16"). Options of `fit`: see
    ``_denoiser_fit.fit_denoiser``.

    If you use this, please cite: Lipman et al. 2023 (flow matching, arXiv:2210.02747); Liu et al. 2023
    (rectified flow, arXiv:2209.03003); Esser et al. 2024 (logit-normal times, arXiv:2403.03206);
    Ho & Salimans 2022 (classifier-free guidance, arXiv:2207.12598); Yu et al. 2024 (Unmixing Before
    Fusion, CVPR, pp. 9297-9306).

    >>> flow = FlowMatching(3, (8, 8), num_classes=2, codec="unshuffle", factor=2, widths=(16, 16))
    >>> a = flow.sample([0, 1], generator=torch.Generator().manual_seed(0), steps=3)
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
        time_shift: float = 2.0,
        time_spread: float = 1.8,
        label_dropout: float = 0.1,
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
            time_shift: median of t/(1 − t) in training.
            time_spread: standard deviation of log t/(1 − t) in training.
            label_dropout: share of training samples that see no class.
            init_seed: of the initial weights.
            steps: evaluations of a sample where none are asked for.
            guidance: of a sample where none is asked for.
            times: the only times that a distilled network knows (see `distill`).

        Raises:
            ValueError: if sizes are not divisible, a name is unknown, or shift or spread is not positive.
        """
        super().__init__(num_endmembers, size, num_classes)
        self._keep(locals())
        self._preset(steps, guidance, times)
        if min(time_shift, time_spread) <= 0:
            raise ValueError(
                f"time_shift and time_spread must be positive, got {time_shift} and {time_spread}"
            )
        self.time_shift, self.time_spread = time_shift, time_spread
        with seeded(init_seed):
            self._build(
                make_codec(codec, num_endmembers, factor, latent_channels, codec_widths, whiten),
                widths, layers, attention, head_dim, dropout, label_dropout,
            )  # fmt: skip

    def alpha_sigma(
        self, t: Shaped[Tensor, "b"]
    ) -> tuple[Float[Tensor, "b 1 1 1"], Float[Tensor, "b 1 1 1"]]:
        """Give 1 − t and t."""
        t = t.view(-1, 1, 1, 1)
        return 1 - t, t

    def _training_times(self, u: Tensor) -> Tensor:
        normal = torch.special.ndtri(u.clamp(1e-4, 1 - 1e-4))
        return torch.sigmoid(math.log(self.time_shift) + self.time_spread * normal)

    def _target(self, z: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        return noise - z

    def _predict(self, denoiser: nn.Module, z: Tensor, t: Tensor, y: Tensor | None) -> Tensor:
        return super()._predict(denoiser, z, _TIME_SCALE * t, y)

    def _clean(self, z: Tensor, out: Tensor, t: Tensor) -> Tensor:
        return z - t.view(-1, 1, 1, 1) * out

    def _times(self, steps: int, start: float = 1.0) -> Sequence[float]:
        return flow_times(steps, start)

    def _denoise(
        self, z: Tensor, times: Sequence[float], y: Tensor | None, generator: list[torch.Generator], *,
        guidance: float, project: bool, solver: Solver = "heun",
    ) -> Tensor:  # fmt: skip
        """Integrate to t = 0; the last step, where the path is straight, is Euler's: z₀ itself."""
        check_choice("solver", solver, ("euler", "heun"))
        count = len(times)
        nodes = list(times) if solver == "euler" else spread_times(times, count // 2 + 1)
        second_order = (
            0 if solver == "euler" else (count - 1) // 2
        )  # the last so many steps before the jump to 0
        clean = z
        for i, t in enumerate(nodes):
            clean = self.predict_clean(z, t, y, guidance, project)
            if i + 1 == len(nodes):
                break
            s = nodes[i + 1]
            velocity = (z - clean) / t
            if i + 1 >= len(nodes) - second_order:
                ahead = z + (s - t) * velocity
                velocity = (velocity + (ahead - self.predict_clean(ahead, s, y, guidance, project)) / s) / 2
            z = z + (s - t) * velocity
        return clean
