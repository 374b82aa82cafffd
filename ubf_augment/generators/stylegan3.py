"""Class-conditional, alias-free adversarial generator of abundance maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, cast

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ubf_augment import seeding, simplex
from ubf_augment.files import OnDisk
from ubf_augment.generators._critic import Critic
from ubf_augment.generators._synthesis import Mapping, Synthesis
from ubf_augment.generators.base import AbundanceGenerator
from ubf_augment.generators.registry import register
from ubf_augment.seeding import seeded
from ubf_augment.training import History

_CENTRE_DRAWS = 1024


@register("stylegan3")
class StyleGAN3(AbundanceGenerator):
    """Alias-free generative adversarial network: one pass from noise z to maps a = softmax(G(z, y)).

    Fourier features, modulated convolutions and low-pass filtered non-linearities make the maps a function of
    the plane rather than of the pixel grid: shifting the input waves by t shifts the maps by t (config "t"),
    and turning them turns the maps (config "r"). The critic that trains it is not part of the saved model.
    P channels come out of the last layer; the softmax puts every pixel on the simplex.

    If you use this, please cite: Karras et al. 2021 (StyleGAN3, arXiv:2106.12423); Karras et al. 2020
    (StyleGAN2, arXiv:1912.04958); Karras et al. 2020 (ADA, arXiv:2006.06676); Miyato & Koyama 2018
    (projection critic, arXiv:1802.05637); Mescheder et al. 2018 (R1, arXiv:1801.04406); Yu et al. 2024
    (Unmixing Before Fusion, CVPR, pp. 9297-9306).

    Options of `sample`: ``truncation`` ψ (default 1): styles w̄_y + ψ (w − w̄_y) with the class's mean style w̄_y;
    below 1 more typical and less varied, at 0 one map per class.

    Options of `fit`: ``critic_lr`` (0.8·lr; lr is 2.5e-3 by default), ``gamma`` (weight of the gradient penalty;
    8e-4·H·W / batch_size), ``penalty_interval`` (16 steps), ``ada_target`` (0.6; None: no adaptive
    augmentation), ``ada_images`` (100,000), ``warmup`` (0 steps), ``ema_decay`` (0.998), ``save_every_s``
    (120). The learning rate is constant, so a run can be prolonged; ``History.extra`` holds the last strength
    ``ada_p`` of the augmentation and ``ada_r``, the mean sign of the critic's scores of real maps.

    >>> gan = StyleGAN3(3, (8, 8), num_classes=2, channels=8, layers=3, w_dim=16)
    >>> a = gan.sample([0, 1], generator=torch.Generator().manual_seed(0), truncation=0.7)
    >>> a.shape, bool(((a.sum(1) - 1).abs() <= 1e-5).all())
    (torch.Size([2, 3, 8, 8]), True)
    """

    networks = ("mapping.forward", "synthesis.forward")

    def __init__(
        self,
        num_endmembers: int,
        size: Sequence[int] = (64, 64),
        num_classes: int | None = None,
        *,
        variant: Literal["t", "r"] = "t",
        layers: int = 8,
        channels: int = 16,
        max_channels: int = 160,
        margin: int = 6,
        z_dim: int = 128,
        w_dim: int = 512,
        mapping_speed: float = 0.01,
        magnitude_decay: float = 0.999,
        filtered: bool = True,
        critic_channels: int = 32,
        critic_max_channels: int = 128,
        minibatch_std: bool = True,
        init_seed: int = 0,
    ) -> None:
        """Build the generator.

        Args:
            num_endmembers: P.
            size: (H, W), equal, at least 8; powers of two cost least.
            num_classes: K, or None for an unconditional model.
            variant: "t" (3×3 convolutions, separable filters: equivariant to translation) or "r" (1×1
                convolutions, radial filters: to rotation too; wants about twice the ``channels``).
            layers: filtered layers, at least 3, the last two at full band.
            channels: width at full band; it doubles as the band halves.
            max_channels: limit of the width.
            margin: samples around the image at every layer, so that its border is nothing special.
            z_dim: length of z.
            w_dim: length of the styles w.
            mapping_speed: learning rate of the mapping network relative to the others.
            magnitude_decay: of the moving power that layers divide their input by, per step.
            filtered: False replaces the filters by bilinear up-sampling and a pointwise non-linearity
                (for comparison: not alias-free).
            critic_channels: width of the critic at full size; it doubles as the size halves.
            critic_max_channels: limit of that width.
            minibatch_std: show the critic how much the samples of a batch differ.
            init_seed: of the initial weights.

        Raises:
            ValueError: if the size is not square or below 8, there are fewer than 3 layers, or the variant
                is unknown.
        """
        super().__init__(num_endmembers, size, num_classes)
        self._keep(locals())
        if self.size[0] != self.size[1] or self.size[0] < 8:
            raise ValueError(
                f"StyleGAN3 makes square maps of at least 8 pixels a side (its filters and rotations know one "
                f"sampling rate), got size {self.size}: crop the maps to a square, or use 'ddpm'"
            )
        if layers < 3 or variant not in ("t", "r"):
            raise ValueError(
                f"need at least 3 layers and variant 't' or 'r', got layers={layers}, variant={variant!r}"
            )
        self.z_dim = z_dim
        with seeded(init_seed):
            self.mapping = Mapping(z_dim, w_dim, num_classes, mapping_speed)
            self.synthesis = Synthesis(
                num_endmembers, self.size[0], w_dim, layers, channels, max_channels, margin,
                variant == "r", filtered, magnitude_decay,
            )  # fmt: skip
        self._critic: list[Critic] = []  # in a list: no part of the module's state

    def critic(self) -> Critic:
        """Give the critic of the last training, or a new one; it is not saved with the generator."""
        if not self._critic:
            c = self._config
            with seeded(seeding.derive_seed(c["init_seed"], 1)):
                self._critic.append(
                    Critic(
                        self.num_endmembers, self.size, self.num_classes, c["critic_channels"],
                        c["critic_max_channels"], c["minibatch_std"],
                    )
                )  # fmt: skip
        return self._critic[0].to(self.device)

    def style(
        self,
        z: Float[Tensor, "b z"],
        y: Int64[Tensor, "b"] | None = None,
        truncation: float = 1.0,
    ) -> Float[Tensor, "b w"]:
        """Map noise and class to styles w, drawn towards the class's mean style by ``truncation``."""
        w: Tensor = self.mapping(z, y)
        if truncation == 1.0:
            return w
        g = torch.Generator().manual_seed(0)
        draws = torch.randn(_CENTRE_DRAWS, self.z_dim, generator=g).to(w.device)
        if y is None:
            return torch.lerp(self.mapping(draws, None).mean(0), w, truncation)
        classes, which = torch.unique(y, return_inverse=True)
        centres = torch.stack([self.mapping(draws, k.expand(len(draws))).mean(0) for k in classes])
        return torch.lerp(centres[which], w, truncation)

    def logits(
        self,
        w: Float[Tensor, "b w"],
        shift: Float[Tensor, "b 2"] | None = None,
        angle: Float[Tensor, "b"] | None = None,
    ) -> Float[Tensor, "b p n n"]:
        """Synthesise what the softmax turns into maps.

        Args:
            w: styles, see `style`.
            shift: (rows down, columns right) in pixels to move the input waves by; none if None.
            angle: degrees to turn them by about the middle, anticlockwise, before the shift; none if None.
        """
        shift = w.new_zeros(len(w), 2) if shift is None else shift / self.size[0]
        angle = w.new_zeros(len(w)) if angle is None else torch.deg2rad(angle)
        return cast(Tensor, self.synthesis(w, shift, angle))

    def forward(self, z: Float[Tensor, "b z"], y: Int64[Tensor, "b"] | None) -> Float[Tensor, "b p n n"]:
        """Give maps on the simplex for noise z and classes y."""
        return simplex.from_logits(self.logits(self.style(z, y)))

    def _fit(self, maps: Tensor | OnDisk, labels: Tensor | None, **options: Any) -> History:
        from ubf_augment.generators._stylegan3_fit import fit_stylegan3

        return fit_stylegan3(self, maps, labels, **options)

    def loss(
        self, maps: Float[Tensor, "b p h w"], labels: Int64[Tensor, "b"] | None, generator: torch.Generator
    ) -> Float[Tensor, ""]:
        """Both players' loss with the gradient penalty, against `critic`; each gets its own gradient."""
        from ubf_augment.generators._stylegan3_fit import Players

        labels = None if labels is None else labels.to(self.device)
        players = Players(self, self.critic())
        return cast(Tensor, players(maps.to(self.device), labels, generator))

    def _sample(self, y: Tensor | None, n: int, generator: list[torch.Generator], **options: Any) -> Tensor:
        """Options: truncation=1.0."""
        truncation = float(options.pop("truncation", 1.0))
        if options:
            raise TypeError(f"unknown options of sample: {sorted(options)}; there is: truncation")
        z = seeding.randn((n, self.z_dim), generator, self.device)
        return simplex.from_logits(self.logits(self.style(z, y, truncation)))
