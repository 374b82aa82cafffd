"""Very deep variational autoencoder of abundance maps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor, nn

from ubf_augment import seeding, simplex
from ubf_augment.files import OnDisk
from ubf_augment.generators._batches import Batches
from ubf_augment.generators._count_likelihood import to_counts
from ubf_augment.generators._vdvae_net import Network
from ubf_augment.generators.base import AbundanceGenerator
from ubf_augment.generators.maps import as_abundances
from ubf_augment.generators.registry import register
from ubf_augment.seeding import Generators, seeded
from ubf_augment.training import (
    EMA,
    History,
    Schedule,
    fit_loop,
    launch,
    make_fabric,
    warmup_constant,
    warmup_cosine,
)

if TYPE_CHECKING:
    from lightning.fabric import Fabric


class Bits(NamedTuple):
    """Negative evidence lower bound of each map in bits per dimension: total = reconstruction + kl."""

    total: Tensor
    reconstruction: Tensor
    kl: Tensor


@register("vdvae")
class VDVAE(AbundanceGenerator):
    """Variational autoencoder with many layers of latents, from 1×1 to full resolution, and a simplex likelihood.

    Top-down layers l = 1 … L draw z_l ~ p(z_l | z_<l, y); a bottom-up encoder of the map n gives
    q(z_l | z_<l, n, y), all diagonal Gaussians. Trained on the evidence lower bound

        log p(n | y) ≥ E_q[log p(n | z, y)] − Σ_l KL(q(z_l | z_<l, n, y) ‖ p(z_l | z_<l, y)).

    Maps are the counts n = 255·a that ``fit`` stores (largest remainder for float maps), and
    p(n | z, y) is a proper distribution on just these grid points of the simplex: stick breaking with an
    interval-discretised mixture of log-logistic odds. So the bound counts in true bits. The dimension is
    H·W·(P − 1), the counts that are free: the last one follows from the others.

    Drawing is one pass. The default at 6 endmembers, 64×64 and 30 classes has 13 latents and 3.4 million
    parameters, and a sample costs 0.68 GFLOP.

    If you use this, please cite: Child 2021 (Very Deep VAEs, arXiv:2011.10650); Kingma & Welling 2014
    (arXiv:1312.6114); Salimans et al. 2017 (discretised logistic mixtures, arXiv:1701.05517); Yu et al. 2024
    (Unmixing Before Fusion, CVPR, pp. 9297-9306).

    >>> vdvae = VDVAE(3, (8, 8), num_classes=2, widths=(8,), latent_channels=2)
    >>> a = vdvae.sample([0, 1], generator=torch.Generator().manual_seed(0), temperature=0.8)
    >>> a.shape, bool(((a.sum(1) - 1).abs() <= 1e-5).all())
    (torch.Size([2, 3, 8, 8]), True)
    """

    networks = ("net.top_down",)
    can_edit = True

    def __init__(
        self,
        num_endmembers: int,
        size: Sequence[int] = (64, 64),
        num_classes: int | None = None,
        *,
        levels: int | None = None,
        widths: Sequence[int] = (32, 64, 128),
        encoder_blocks: Sequence[int] = (1, 2, 2, 2, 1),
        decoder_blocks: Sequence[int] = (1, 2, 3, 3, 2, 1),
        bottleneck: float = 0.5,
        latent_channels: int = 16,
        mixtures: int = 3,
        init_seed: int = 0,
    ) -> None:
        """Build encoder and decoder.

        Settings per level start at full resolution; each level halves it, and the last value given holds for
        all levels below. Values beyond the last level are not used.

        Args:
            num_endmembers: P.
            size: (H, W).
            num_classes: K, or None for an unconditional model.
            levels: resolutions; None halves as long as both sides are even (64 → 1 gives seven).
            widths: feature widths per level.
            encoder_blocks: residual blocks of the encoder per level.
            decoder_blocks: layers with a latent per level; at least one at the coarsest.
            bottleneck: width inside a block over the width of its level.
            latent_channels: channels of each latent.
            mixtures: components of the likelihood's mixture.
            init_seed: of the initial weights.

        Raises:
            ValueError: if a number is not positive, or the size cannot be halved so often.
        """
        super().__init__(num_endmembers, size, num_classes)
        self._keep(locals())
        count = _levels(self.size, levels)
        wide, encoder, decoder = (_per_level(v, count) for v in (widths, encoder_blocks, decoder_blocks))
        if min(*wide, latent_channels, mixtures, decoder[-1]) < 1 or min(encoder + decoder) < 0:
            raise ValueError(
                "widths, latent_channels, mixtures and the coarsest level's decoder_blocks must be positive, and "
                f"no number of blocks negative: got widths={wide}, encoder_blocks={encoder}, "
                f"decoder_blocks={decoder} over {count} levels"
            )
        middle = [max(1, round(bottleneck * w)) for w in wide]
        with seeded(init_seed):
            self.net = Network(
                num_endmembers, self.size, num_classes, wide, middle, encoder, decoder,
                latent_channels, mixtures,
            )  # fmt: skip

    def loss(
        self, maps: Float[Tensor, "b p h w"], labels: Int64[Tensor, "b"] | None, generator: torch.Generator
    ) -> Float[Tensor, ""]:
        """Negative evidence lower bound in bits per dimension, averaged over the maps."""
        return _bound(self.net, to_counts(maps), labels, generator).sum(1).mean()

    def elbo(
        self,
        maps: Shaped[Tensor, "n p h w"],
        labels: Int64[Tensor, "n"] | None = None,
        generator: Generators = None,
        batch_size: int = 64,
    ) -> Bits:
        """Estimate the negative evidence lower bound of each map, with one draw of the latents.

        Divided by H·W·(P − 1)·log 2: bits per free count, an upper bound on the code length of maps of 255
        counts per pixel. An even guess over all compositions of a pixel costs log₂ C(255 + P − 1, P − 1) / (P − 1)
        bits, 6.62 for P = 6.

        Args:
            maps: (N,P,H,W), uint8 counts or float abundances (rounded to 255 counts).
            labels: (N,) classes; needed if the generator has classes.
            generator: of the latents; one, or a list with one per map.
            batch_size: maps at once.

        Returns:
            `Bits`: total, reconstruction and KL, each (N,) on the CPU.

        Raises:
            ShapeError, SimplexError, MissingLabelError, LabelError: as for `fit`.
        """
        self._check_maps(maps)
        labels = self._check_labels(labels, len(maps))
        parts = []
        for start in range(0, len(maps), batch_size):
            part = slice(start, start + batch_size)
            source = generator[part] if isinstance(generator, Sequence) else generator
            with torch.no_grad():
                counts = to_counts(as_abundances(maps[part]).to(self.device))
                y = None if labels is None else labels[part]
                parts.append(_bound(self.net, counts, y, source).cpu())
        bits = torch.cat(parts)
        return Bits(bits.sum(1), bits[:, 0], bits[:, 1])

    def _sample(self, y: Tensor | None, n: int, generator: list[torch.Generator], **options: Any) -> Tensor:
        """Options: temperature=1.0 (factor on the prior's deviations), observe="mean" or "draw" (one outcome)."""
        temperature, observe = _observation(**options)
        noise = [seeding.randn((n, *s), generator, self.device) for s in self.net.latent_shapes]
        raw, _ = self.net.top_down(y, noise, temperature=temperature, count=n)
        return self._observe(raw, generator, observe)

    def _edit(
        self, a: Tensor, y: Tensor | None, strength: float, generator: list[torch.Generator], **options: Any
    ) -> Tensor:
        """Keep the coarse latents of the map, and draw the finest share ``strength`` of them anew.

        The error of the reconstruction from all latents (their posterior means) is given back in the share
        1 − strength, so that strength → 0 gives ``a``. Options as for sampling.
        """
        temperature, observe = _observation(**options)
        if strength == 0.0:
            return simplex.project(a)
        shapes = self.net.latent_shapes
        keep = len(shapes) - math.ceil(strength * len(shapes))
        features = self.net.encoder(a.contiguous(memory_format=torch.channels_last))
        old, _ = self.net.top_down(y, [None] * len(shapes), features, len(shapes), count=len(a))
        noise = [None] * keep + [seeding.randn((len(a), *s), generator, self.device) for s in shapes[keep:]]
        raw, _ = self.net.top_down(y, noise, features, keep, temperature, len(a))
        error = a - self.net.chain.mean(old)
        return simplex.project(self._observe(raw, generator, observe) + (1 - strength) * error)

    def _observe(self, raw: Tensor, generator: list[torch.Generator], observe: str) -> Tensor:
        if observe == "mean":
            return self.net.chain.mean(raw)
        u = seeding.rand((len(raw), 2, self.num_endmembers - 1, *self.size), generator, self.device)
        return self.net.chain.draw(raw, u)

    def _fit(self, maps: Tensor | OnDisk, labels: Tensor | None, **options: Any) -> History:
        return _fit_vdvae(self, maps, labels, **options)


def _bound(net: nn.Module, counts: Tensor, labels: Tensor | None, generator: Generators) -> Tensor:
    """Draw the noise of all latents and give reconstruction and divergence (B,2) in bits per dimension."""
    shapes = cast(Any, net).latent_shapes
    noise = [seeding.randn((len(counts), *s), generator, counts.device) for s in shapes]
    return cast(Tensor, net(counts, None if labels is None else labels.to(counts.device), noise))


def _fit_vdvae(
    model: VDVAE,
    maps: Tensor | OnDisk,
    labels: Tensor | None,
    *,
    steps: int,
    batch_size: int,
    lr: float | None,
    seed: int,
    fabric: Fabric | None,
    checkpoint: Path | None,
    augment: bool,
    progress: bool,
    warmup: int = 100,
    lr_schedule: Literal["cosine", "constant"] = "cosine",
    weight_decay: float = 0.01,
    ema_decay: float = 0.9995,
    kl_warmup: int | None = None,
    grad_clip: float = 1.0,
    save_every_s: float = 120.0,
) -> History:
    """Train by AdamW on the bound; the averaged weights stay in the model.

    Options of `VDVAE.fit`:
        warmup, lr_schedule, weight_decay, ema_decay: lr defaults to 2e-3.
        kl_warmup: steps over which the divergence's weight rises from 0 to 1; None: 1000, at most half of ``steps``;
            0 to go on with a fitted model.
            Without it the decoder learns first to ignore latents that carry nothing yet (Sønderby et al. 2016,
            arXiv:1602.02282). The history holds this weighted bound until then.
        grad_clip: largest norm of the gradient (of bits per dimension): a rare outlier moves the weights no further.
        save_every_s: seconds between checkpoints.
    """
    fabric = launch(make_fabric() if fabric is None else fabric)
    batches = Batches(model, maps, labels, fabric.device, augment)
    net = model.net
    clock = _Clock(warmup_cosine(steps, warmup) if lr_schedule == "cosine" else warmup_constant(warmup))
    rise = max(1, min(1000, steps // 2) if kl_warmup is None else kl_warmup)

    def loss_fn(module: nn.Module, indices: Tensor, generator: torch.Generator) -> Tensor:
        chosen, y = batches(indices, generator), batches.classes(indices)
        noise = [seeding.randn((len(chosen), *s), generator, fabric.device) for s in net.latent_shapes]
        bits: Tensor = module(to_counts(chosen), y, noise).mean(0)
        return bits[0] + min(1.0, (clock.step + 1) / rise) * bits[1]

    optimizer = torch.optim.AdamW(
        net.parameters(),
        lr=2e-3 if lr is None else lr,
        betas=(0.9, 0.99),
        weight_decay=weight_decay,
        fused=True,
    )
    ema = EMA(net, ema_decay)
    history = fit_loop(
        net, optimizer, loss_fn, num_items=len(maps), steps=steps, batch_size=batch_size, seed=seed,
        fabric=fabric, ema=ema, schedule=clock, grad_clip=grad_clip, checkpoint=checkpoint,
        save_every_s=save_every_s, progress=progress, description="vdvae",
        identity=model._identity(maps, labels),
    )  # fmt: skip
    ema.copy_to(net)
    model.eval()
    return history


class _Clock:
    """A learning-rate schedule that remembers which step it was asked for: the loss is computed right after."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule, self.step = schedule, 0

    def __call__(self, step: int) -> float:
        self.step = step
        return self.schedule(step)


def _levels(size: tuple[int, int], levels: int | None) -> int:
    possible = 1
    while all(s % 2**possible == 0 for s in size):
        possible += 1
    if levels is None:
        return possible
    if not 1 <= levels <= possible:
        raise ValueError(
            f"size {size} can be halved {possible - 1} times, so levels must lie in 1..{possible}, got {levels}: "
            f"choose another size, or levels=None for {possible}"
        )
    return levels


def _per_level(values: Sequence[int], levels: int) -> list[int]:
    if not len(values):
        raise ValueError("give widths, encoder_blocks and decoder_blocks at least one value each")
    return [int(values[min(i, len(values) - 1)]) for i in range(levels)]


def _observation(temperature: float = 1.0, observe: str = "mean") -> tuple[float, str]:
    if temperature < 0:
        raise ValueError(
            f"temperature must not be negative, got {temperature}: 1 is the model's own, less is calmer"
        )
    if observe not in ("mean", "draw"):
        raise ValueError(f"unknown observe {observe!r}: choose one of mean, draw")
    return temperature, observe
