"""The parts of a training loop: history, averaged weights, learning rates, order of the data."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor, nn

from ubf_augment.seeding import derive_seed

Schedule = Callable[[int], float]


@dataclass
class History:
    """What a fit did: mean loss over windows of steps, and the time it took (interruptions excluded).

    >>> History(steps=[10], loss=[0.5], seconds=2.0).to_dict()
    {'steps': [10], 'loss': [0.5], 'seconds': 2.0, 'extra': {}}
    """

    steps: list[int] = field(default_factory=list)
    loss: list[float] = field(default_factory=list)
    seconds: float = 0.0
    extra: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Give a JSON-able dictionary."""
        return asdict(self)


class EMA:
    """Exponential moving average of a module's parameters, kept in float32.

    After update number n the average moves by θ̄ ← d θ̄ + (1 − d) θ with d = min(decay, (1 + n) / (10 + n)), so
    that a short run is not dominated by its random start.

    >>> layer = nn.Linear(1, 1, bias=False)
    >>> ema = EMA(layer, decay=0.5)
    >>> _ = layer.weight.data.add_(1.0)
    >>> ema.update(layer)
    """

    def __init__(self, module: nn.Module, decay: float = 0.999) -> None:
        """Start the average at the present parameters.

        Args:
            module: the module to follow.
            decay: the largest decay d, in [0, 1).

        Raises:
            ValueError: if ``decay`` is outside [0, 1).
        """
        if not 0.0 <= decay < 1.0:
            raise ValueError(f"the EMA decay must lie in [0, 1), got {decay}")
        self.decay = decay
        self.updates = 0
        self.average = {k: v.detach().float().clone() for k, v in module.named_parameters()}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Move the average towards the present parameters of ``module``."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        parameters = dict(module.named_parameters())
        for k in self.average:
            if self.average[k].device != parameters[k].device:
                self.average[k] = self.average[k].to(parameters[k].device)
        average = list(self.average.values())
        torch._foreach_lerp_(average, [parameters[k].detach().float() for k in self.average], 1 - decay)

    @torch.no_grad()
    def copy_to(self, module: nn.Module) -> None:
        """Write the average into the parameters of ``module``."""
        for k, v in module.named_parameters():
            v.copy_(self.average[k])

    def state_dict(self) -> dict[str, Any]:
        """Give the state for a checkpoint."""
        return {"updates": self.updates, "average": self.average}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take the state of a checkpoint."""
        self.updates = int(state["updates"])
        self.average = {k: v.clone() for k, v in state["average"].items()}


def warmup_cosine(steps: int, warmup: int = 0, final: float = 0.0) -> Schedule:
    """Learning-rate factor: linear rise over ``warmup`` steps, then half a cosine to ``final`` at ``steps``.

    Loshchilov & Hutter 2017, arXiv:1608.03983.

    >>> factor = warmup_cosine(100, warmup=10)
    >>> round(factor(0), 3), round(factor(9), 3), round(factor(100), 3)
    (0.1, 1.0, 0.0)
    """

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        x = min(1.0, (step - warmup) / max(1, steps - warmup))
        return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * x))

    return factor


def warmup_constant(warmup: int = 0) -> Schedule:
    """Learning-rate factor: linear rise over ``warmup`` steps, then one.

    >>> warmup_constant(4)(1), warmup_constant(4)(1000)
    (0.5, 1.0)
    """
    return lambda step: min(1.0, (step + 1) / max(1, warmup))


class DataOrder:
    """Endless shuffled epochs as a function of the step, so that nothing must be stored to resume.

    >>> order = DataOrder(num_items=5, batch_size=2, seed=0)
    >>> sorted(torch.cat([order(0), order(1), order(2)])[:5].tolist())
    [0, 1, 2, 3, 4]
    """

    def __init__(self, num_items: int, batch_size: int, seed: int) -> None:
        """Shuffle ``num_items`` items anew in each epoch, cut into batches across epoch borders.

        Raises:
            ValueError: if there is nothing to draw, or the batch size is not positive.
        """
        if num_items < 1 or batch_size < 1:
            raise ValueError(f"need items and a positive batch size, got {num_items} and {batch_size}")
        self.num_items, self.batch_size, self.seed = num_items, batch_size, seed
        self._epochs: dict[int, Tensor] = {}

    def _epoch(self, epoch: int) -> Tensor:
        if epoch not in self._epochs:
            if len(self._epochs) > 2:
                self._epochs.clear()
            g = torch.Generator().manual_seed(derive_seed(self.seed, 1, epoch))
            self._epochs[epoch] = torch.randperm(self.num_items, generator=g)
        return self._epochs[epoch]

    def __call__(self, step: int) -> Int64[Tensor, "b"]:
        """Give the item numbers of the global batch of ``step``."""
        parts, position, end = [], step * self.batch_size, (step + 1) * self.batch_size
        while position < end:
            epoch, start = divmod(position, self.num_items)
            part = self._epoch(epoch)[start : start + end - position]
            parts.append(part)
            position += len(part)
        return torch.cat(parts)
