"""What diffusion and flow matching share: a codec, a denoising U-Net, guidance, projection, training."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, Self, cast

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor, nn

from ubf_augment import seeding, simplex
from ubf_augment.errors import LabelError
from ubf_augment.files import OnDisk
from ubf_augment.generators.base import MapGenerator
from ubf_augment.generators.codec import AbundanceAutoencoder, Codec, UnshuffleCodec
from ubf_augment.training import History

CodecName = Literal["latent", "unshuffle"]


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


class DenoisingGenerator(MapGenerator):
    """A generator that turns noise into the code of a map, step by step, with classifier-free guidance.

    A codec packs maps into codes z (see `codec`); a U-Net looks at a code mixed with noise, z_t = αₜ z₀ + σₜ n,
    at time t with class y. Subclasses say what αₜ and σₜ are, what the network predicts, and how to go
    from noise to a code; they call `_build` when the sizes are known.

    Attributes:
        codec: packs maps.
        denoiser: the U-Net.
        code_size: (H/f, W/f).
        label_dropout: share of training samples that see no class.
        steps: evaluations of a sample where none are asked for.
        guidance: of a sample where none is asked for.
        times: the times that a distilled network knows, and no others; None for one that knows all.
    """

    networks = ("denoiser.forward", "codec.decode", "codec.project")
    codec: Codec
    denoiser: nn.Module
    code_size: tuple[int, int]
    label_dropout: float
    steps: int = 20
    guidance: float = 1.5
    times: tuple[float, ...] | None = None

    def _build(
        self, codec: Codec, widths: Sequence[int], layers: int, attention: Sequence[int], head_dim: int,
        dropout: float, label_dropout: float,
    ) -> None:  # fmt: skip
        """Take the codec and make the U-Net; call it under the initial seed (`seeded`)."""
        factor = codec.factor
        need = factor * 2 ** (len(widths) - 1)
        if any(s % need for s in self.size):
            raise ValueError(
                f"size {self.size} is not divisible by {need} (factor {factor} × 2^{len(widths) - 1} for "
                f"{len(widths)} levels): choose another size, a smaller factor, or fewer widths"
            )
        self.code_size = (self.size[0] // factor, self.size[1] // factor)
        self.label_dropout = label_dropout
        self.codec = codec
        self.denoiser = Denoiser(
            codec.channels, self.code_size, widths, layers, attention, head_dim, dropout, self.num_classes
        )
        self.codec.to(memory_format=torch.channels_last)

    def _preset(self, steps: int, guidance: float, times: Sequence[float] | None) -> None:
        """Set how samples are drawn where nothing else is asked for; ``times`` are those of a distilled network.

        Raises:
            ValueError: if ``steps`` is not positive, or times do not fall from there to above zero.
        """
        if times is not None:
            falling = all(a > b for a, b in pairwise(times))
            if not times or not falling or min(times) <= 0 or len(times) != steps or guidance != 1:
                raise ValueError(
                    f"a distilled network has as many falling times above 0 as steps, and guidance 1, got {list(times)}, "
                    f"{steps} and {guidance}"
                )
            self.times, self.can_edit = tuple(times), False
        if steps < 1:
            raise ValueError(f"sampling needs at least one step, got {steps}")
        self.steps, self.guidance = int(steps), float(guidance)

    def distill(self, evaluations: int = 2, **options: Any) -> Self:
        """A copy that needs few evaluations; see `_distil.distill` for the method and all options."""
        from ubf_augment.generators._distil import distill

        return cast(Self, distill(self, evaluations, **options))

    def for_classes(self, start: Sequence[int | None]) -> Self:
        """A copy for other classes: each begins with the embedding of the class given for it, or of no class.

        Args and Raises as `MapGenerator.for_classes`; an unconditional generator raises a TypeError.
        """
        if self.num_classes is None:
            raise TypeError("a generator without classes has no class embeddings to carry over")
        if bad := [k for k in start if k is not None and not 0 <= k < self.num_classes]:
            raise LabelError(f"class {bad[0]} is outside 0..{self.num_classes - 1}")
        state, name = dict(self.state_dict()), "denoiser.unet.class_embedding.weight"
        rows = [self.num_classes if k is None else k for k in start]  # the last row stands for "no class"
        state[name] = state[name][[*rows, self.num_classes]]
        other = type(self)(**{**self.config, "num_classes": len(start)})
        other.load_state_dict(state)
        return other.to(self.device).eval()

    @abstractmethod
    def alpha_sigma(
        self, t: Shaped[Tensor, "b"]
    ) -> tuple[Float[Tensor, "b 1 1 1"], Float[Tensor, "b 1 1 1"]]:
        """Give αₜ and σₜ at times t (B,)."""

    @abstractmethod
    def _clean(self, z: Tensor, out: Tensor, t: Tensor) -> Tensor:
        """Turn the network's output at z and t (1,) into an estimate of z₀."""

    @abstractmethod
    def _training_times(self, u: Tensor) -> Tensor:
        """Times of training for quantiles u (B,) in [0, 1)."""

    @abstractmethod
    def _target(self, z: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """What the network should predict."""

    def _weight(self, t: Tensor) -> Tensor:
        """Weights of the samples' errors (B,)."""
        return torch.ones(len(t), device=t.device)

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
        t = self._training_times(u[torch.randperm(b, generator=generator)]).to(device)
        noise = seeding.randn(z.shape, generator, device)
        y = self._drop_labels(labels, generator, device)
        alpha, sigma = self.alpha_sigma(t)
        out = self._predict(denoiser, alpha * z + sigma * noise, t, y)
        error = (out - self._target(z, noise, t)).square().mean((1, 2, 3))
        return (error * self._weight(t)).mean()

    def loss(
        self, maps: Float[Tensor, "b p h w"], labels: Int64[Tensor, "b"] | None, generator: torch.Generator
    ) -> Float[Tensor, ""]:
        """Denoising loss plus, for a learned codec, the codec's loss."""
        z = self.codec.encode(maps)
        loss = self.denoising_loss(self.denoiser, z, labels, generator)
        if isinstance(self.codec, AbundanceAutoencoder):
            loss = loss + cast(Tensor, self.codec(maps, seeding.randn(z.shape, generator, z.device)))
        return loss

    def predict_clean(
        self,
        z: Float[Tensor, "b c hf wf"],
        t: float | Shaped[Tensor, "b"],
        y: Int64[Tensor, "b"] | None,
        guidance: float,
        project: bool,
    ) -> Float[Tensor, "b c hf wf"]:
        """Estimate z₀ from z_t with guidance, u(∅) + g (u(y) − u(∅)) for predictions u; then project."""
        time = torch.as_tensor(t, device=z.device).expand(len(z))
        if y is None or guidance == 1.0:
            out = self._predict(self.denoiser, z, time, y)
        else:
            null = torch.full_like(y, cast(int, self.num_classes))
            both = self._predict(
                self.denoiser, torch.cat([z, z]), torch.cat([time, time]), torch.cat([y, null])
            )
            with_class, without = both.chunk(2)
            out = without + guidance * (with_class - without)
        clean = self._clean(z, out, time)
        return self.codec.project(clean) if project else clean

    def advance(
        self,
        z: Float[Tensor, "b c hf wf"],
        clean: Float[Tensor, "b c hf wf"],
        t: Shaped[Tensor, "b"],
        s: Shaped[Tensor, "b"],
    ) -> Float[Tensor, "b c hf wf"]:
        """From z_t to z_s = αₛ ẑ₀ + σₛ (z_t − αₜ ẑ₀) / σₜ: DDIM's step, and Euler's on straight paths."""
        (alpha, sigma), (alpha_s, sigma_s) = self.alpha_sigma(t), self.alpha_sigma(s)
        return alpha_s * clean + sigma_s / sigma * (z - alpha * clean)

    def _walk(
        self, z: Tensor, times: Sequence[float], y: Tensor | None, *, guidance: float, project: bool
    ) -> Tensor:
        """Advance from time to time, and give the last estimate: how a distilled network is drawn from."""
        clean = z
        for i, t in enumerate(times):
            clean = self.predict_clean(z, t, y, guidance, project)
            if i + 1 < len(times):
                here, there = (torch.as_tensor(v, device=z.device).expand(len(z)) for v in (t, times[i + 1]))
                z = self.advance(z, clean, here, there)
        return clean

    def _predict(self, denoiser: nn.Module, z: Tensor, t: Tensor, y: Tensor | None) -> Tensor:
        """Ask the network, in float32 whatever its precision."""
        return cast(Tensor, denoiser(z, t, y)).float()

    def _drop_labels(
        self, labels: Tensor | None, generator: torch.Generator, device: torch.device
    ) -> Tensor | None:
        """Hide the class of some samples, so that the network also learns p(z)."""
        if labels is None:
            return None
        dropped = (torch.rand(len(labels), generator=generator) < self.label_dropout).to(device)
        y = labels.to(device)
        return torch.where(dropped, torch.full_like(y, cast(int, self.num_classes)), y)

    @abstractmethod
    def _times(self, steps: int, start: float = 1.0) -> Sequence[float]:
        """Falling times for ``steps`` evaluations, from share ``start`` of the way to noise."""

    @abstractmethod
    def _denoise(self, *args: Any, **options: Any) -> Tensor:
        """Go from z at ``times[0]`` to a clean code: (z, times, y, generator, *, guidance, project, …)."""

    def _decode(
        self, z: Tensor, times: Sequence[Any], y: Tensor | None, generator: list[torch.Generator], *,
        guidance: float | None = None, project: bool = True, precision: str = "32", **options: Any,
    ) -> Tensor:  # fmt: skip
        """Denoise and decode."""
        check_choice("precision", precision, ("32", "bf16"))
        guidance = self.guidance if guidance is None else guidance
        if self.times is not None and (options or guidance != 1):
            raise ValueError(
                f"a distilled generator has its guidance and its path built in: leave {', '.join(options) or 'guidance'} out"
            )
        with torch.autocast(z.device.type, torch.bfloat16, enabled=precision == "bf16"):
            if self.times is not None:
                clean = self._walk(z, times, y, guidance=1.0, project=project)
            else:
                clean = self._denoise(z, times, y, generator, guidance=guidance, project=project, **options)
            return self.codec.decode(clean)

    def _asked_times(self, steps: int | None, start: float = 1.0) -> Sequence[float]:
        """The times of so many evaluations; those of a distilled network are fixed."""
        if self.times is None:
            return self._times(self.steps if steps is None else int(steps), start)
        if steps not in (None, self.steps):
            raise ValueError(f"this generator was distilled to {self.steps} evaluations: leave steps out")
        return self.times

    def _sample(self, y: Tensor | None, n: int, generator: list[torch.Generator], **options: Any) -> Tensor:
        """Options: steps (`steps`) evaluations, guidance (`guidance`), project=True, precision="32" or "bf16", the sampler's."""
        times = self._asked_times(options.pop("steps", None))
        noise = seeding.randn((n, self.codec.channels, *self.code_size), generator, self.device)
        alpha, sigma = self.alpha_sigma(torch.full((1,), times[0], device=self.device))
        z = (alpha.square() + sigma.square()).sqrt() * noise  # as wide as a code of unit variance is then
        return self._decode(z, times, y, generator, **options)

    def _edit(
        self, a: Tensor, y: Tensor | None, strength: float, generator: list[torch.Generator], **options: Any
    ) -> Tensor:
        """Add noise as at ``strength`` of the way, then denoise with the class.

        The codec's error on ``a`` is given back in the share 1 − strength, so that strength → 0 gives ``a``.
        """
        times = self._asked_times(options.pop("steps", None), strength) if strength else []
        if not times:
            return simplex.project(a)
        z = self.codec.encode(a)
        alpha, sigma = self.alpha_sigma(torch.full((1,), times[0], device=z.device))
        noisy = alpha * z + sigma * seeding.randn(z.shape, generator, z.device)
        new = self._decode(noisy, times, y, generator, **options)
        return simplex.project(new + (1 - strength) * (a - self.codec.decode(z)))

    def _fit(self, maps: Tensor | OnDisk, labels: Tensor | None, **options: Any) -> History:
        from ubf_augment.generators._denoiser_fit import fit_denoiser

        return fit_denoiser(self, maps, labels, **options)

    def load_checkpoint(self, path: Path | str) -> int:
        """Take codec and averaged denoiser of a checkpoint of a running `fit`; returns its step.

        Raises:
            ValueError: if the checkpoint is of another configuration.
        """
        from ubf_augment.generators._denoiser_fit import load_average

        return load_average(self, Path(path))


def make_codec(
    name: CodecName,
    num_endmembers: int,
    factor: int,
    latent_channels: int,
    widths: Sequence[int],
    whiten: float,
) -> Codec:
    """Build the codec of a given name.

    Raises:
        ValueError: if the name is unknown.
    """
    check_choice("codec", name, ("latent", "unshuffle"))
    if name == "unshuffle":
        return UnshuffleCodec(num_endmembers, factor)
    return AbundanceAutoencoder(num_endmembers, factor, latent_channels, widths, whiten=whiten)


def check_choice(what: str, value: str, choices: tuple[str, ...]) -> None:
    """Refuse a name that is none of ``choices``.

    >>> check_choice("sampler", "ddim", ("ddim", "ddpm"))
    """
    if value not in choices:
        raise ValueError(f"unknown {what} {value!r}: choose one of {', '.join(choices)}")
