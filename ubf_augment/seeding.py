"""Seeded noise: one generator for a batch, or one per sample so that sample *i* never depends on its neighbours."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.utils.data
from torch import Tensor

Generators = torch.Generator | Sequence[torch.Generator] | None
_MASK = (1 << 64) - 1


def _splitmix64(value: int) -> int:
    """One step of the SplitMix64 mixing function (Steele et al. 2014, doi:10.1145/2660193.2660195)."""
    value = (value + 0x9E3779B97F4A7C15) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


def derive_seed(seed: int, *keys: int) -> int:
    """Hash ``seed`` and any number of integer keys into a new 63-bit seed.

    >>> derive_seed(0, 1) == derive_seed(0, 1), derive_seed(0, 1) == derive_seed(1, 0)
    (True, False)
    """
    state = _splitmix64(seed & _MASK)
    for key in keys:
        state = _splitmix64((state * 3 + _splitmix64(key & _MASK)) & _MASK)
    return state >> 1


def per_sample(seed: int, indices: Iterable[int]) -> list[torch.Generator]:
    """Build one CPU generator per index; generator *i* depends on ``(seed, i)`` alone.

    >>> a, b = per_sample(7, [3, 4]), per_sample(7, [4])
    >>> bool(torch.equal(torch.rand(2, generator=a[1]), torch.rand(2, generator=b[0])))
    True
    """
    return [torch.Generator().manual_seed(derive_seed(seed, int(i))) for i in indices]


def process_rank() -> int | None:
    """Number of this process in a distributed training; None where there is none.

    A DataLoader's worker that was spawned, not forked, finds it in the environment where ``torchrun`` put it.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank()
    spawned = torch.utils.data.get_worker_info() is not None and "RANK" in os.environ
    return int(os.environ["RANK"]) if spawned else None


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Run a block, such as one that draws initial weights, from ``seed``; the caller's random state stays as it was.

    >>> before = torch.get_rng_state()
    >>> with seeded(3):
    ...     x = torch.rand(2)
    >>> bool(torch.equal(before, torch.get_rng_state()))
    True
    """
    used = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    devices = range(torch.cuda.device_count()) if used else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


def randn(
    shape: Sequence[int],
    generator: Generators = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Draw standard normal noise of ``shape``; axis 0 is the batch, one generator per sample if a list is given.

    Raises:
        ValueError: if the list of generators does not have one entry per sample.
    """
    return _draw(torch.randn, shape, generator, device, dtype)


def rand(
    shape: Sequence[int],
    generator: Generators = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Draw uniform noise in [0, 1) of ``shape``; same rules as `randn`."""
    return _draw(torch.rand, shape, generator, device, dtype)


def _draw(
    draw: Callable[..., Tensor],
    shape: Sequence[int],
    generator: Generators,
    device: torch.device | str,
    dtype: torch.dtype,
) -> Tensor:
    if generator is None:
        return draw(tuple(shape), device=device, dtype=dtype)
    if isinstance(generator, torch.Generator):
        return draw(tuple(shape), generator=generator, device=generator.device, dtype=dtype).to(device)
    if len(generator) != shape[0]:
        raise ValueError(f"{len(generator)} generators for a batch of {shape[0]}: give one per sample")
    if not generator:
        return torch.empty(tuple(shape), device=device, dtype=dtype)
    rows = [draw(tuple(shape[1:]), generator=g, device=g.device, dtype=dtype).to(device) for g in generator]
    return torch.stack(rows)
