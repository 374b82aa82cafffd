"""The training of `StyleGAN3`: generator against critic, in one loop."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from ubf_augment import seeding
from ubf_augment.files import OnDisk
from ubf_augment.generators._batches import Batches
from ubf_augment.generators._critic import AdaptiveAugment, Critic, gradient_penalty
from ubf_augment.training import EMA, History, fit_loop, launch, make_fabric, warmup_constant

if TYPE_CHECKING:
    from lightning.fabric import Fabric

    from ubf_augment.generators.stylegan3 import StyleGAN3


class Players(nn.Module):
    """Generator, critic and augmentation as one module whose output is the sum of both players' losses.

    With s(x) = softplus(x) the loss is s(−D*(G(z))) + s(D(G(z)*)) + s(−D(a)) + γ R₁, where * stops the
    gradient: the first term moves the generator alone, the others the critic alone, in one backward pass
    (non-saturating loss, Goodfellow et al. 2014, arXiv:1406.2661; R₁ on every ``interval``-th step, ``interval``
    times as strong).
    """

    step: Tensor

    def __init__(
        self, generator: StyleGAN3, critic: Critic, augment: AdaptiveAugment | None = None,
        gamma: float = 1.0, interval: int = 1,
    ) -> None:  # fmt: skip
        """Join the players; no augmentation if None."""
        super().__init__()
        self.generator, self.critic, self.augment = generator, critic, augment
        self.gamma, self.interval = gamma, interval
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def forward(self, real: Tensor, y: Tensor | None, generator: torch.Generator) -> Tensor:
        """Give the loss of one batch of real maps and as many generated ones of the same classes."""
        z = seeding.randn((len(real), self.generator.z_dim), generator, real.device)
        fake = self._seen(self.generator(z, y), generator)
        real = self._seen(real, generator).detach()
        penalise = int(self.step) % self.interval == 0
        self.step += 1
        fixed = {k: v.detach() for k, v in self.critic.named_parameters()}
        loss = F.softplus(-functional_call(self.critic, fixed, (fake, y))).mean()
        loss = loss + F.softplus(self.critic(fake.detach(), y)).mean()
        scores = self.critic(real.requires_grad_(penalise), y)
        if self.augment is not None and self.training:
            self.augment.update(scores)
        loss = loss + F.softplus(-scores).mean()
        if penalise:
            loss = loss + self.interval * self.gamma * gradient_penalty(scores, real)
        return loss

    def _seen(self, a: Tensor, generator: torch.Generator) -> Tensor:
        return a if self.augment is None else cast(Tensor, self.augment(a, generator))


class _GeneratorEMA(EMA):
    """The average of the generator alone."""

    def update(self, module: nn.Module) -> None:
        super().update(cast(Players, module).generator)


def fit_stylegan3(
    model: StyleGAN3,
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
    critic_lr: float | None = None,
    gamma: float | None = None,
    penalty_interval: int = 16,
    ada_target: float | None = 0.6,
    ada_images: float = 100_000,
    warmup: int = 0,
    ema_decay: float = 0.998,
    save_every_s: float = 120.0,
) -> History:
    """Train generator and critic together; leave the averaged generator in ``model``.

    Options of ``fit``:
        lr, critic_lr: constant learning rates; 2.5e-3, and 0.8 of the generator's for the critic.
        gamma: weight of the gradient penalty; None: 8e-4·H·W / batch_size.
        penalty_interval: steps from one gradient penalty to the next.
        ada_target: r_t of the adaptive augmentation (`AdaptiveAugment`); None: no augmentation.
        ada_images: maps for its strength to go from 0 to 1.
        warmup: steps of rising learning rate.
        ema_decay: of the generator's average.
        save_every_s: seconds between checkpoints.
    """
    fabric = launch(make_fabric() if fabric is None else fabric)
    lr = 2.5e-3 if lr is None else lr
    gamma = 8e-4 * math.prod(model.size) / batch_size if gamma is None else gamma
    ada = None if ada_target is None else AdaptiveAugment(ada_target, ada_images)
    players = Players(model, model.critic(), ada, gamma, penalty_interval)
    batches = Batches(model, maps, labels, fabric.device, augment)

    def loss_fn(module: nn.Module, indices: Tensor, generator: torch.Generator) -> Tensor:
        real = batches(indices, generator)
        return cast(Tensor, module(real, batches.classes(indices), generator))

    groups: list[dict[str, Any]] = [
        {"params": list(model.parameters()), "lr": lr},
        {"params": list(players.critic.parameters()), "lr": 0.8 * lr if critic_lr is None else critic_lr},
    ]
    optimizer = torch.optim.Adam(groups, betas=(0.0, 0.99), eps=1e-8, fused=True)
    ema = _GeneratorEMA(model, ema_decay)
    history = fit_loop(
        players, optimizer, loss_fn, num_items=len(maps), steps=steps, batch_size=batch_size, seed=seed,
        fabric=fabric, ema=ema, schedule=warmup_constant(warmup), grad_clip=math.inf, checkpoint=checkpoint,
        save_every_s=save_every_s, progress=progress, description="generator and critic",
        identity=model._identity(maps, labels),
    )  # fmt: skip
    ema.copy_to(model)
    if ada is not None:
        history.extra.update(ada_p=float(ada.p), ada_r=float(ada.r))
    return history
