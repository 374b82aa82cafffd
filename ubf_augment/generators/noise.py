"""Noise schedules and the times at which a sampler looks: pure functions of a few numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor


def schedule_betas(name: str, steps: int, shift: float = 1.0, zero_snr: bool = True) -> Float[Tensor, "t"]:
    """Betas of a variance-preserving schedule, its noise-to-signal ratio σ/α multiplied by ``shift``.

    - ``cosine``: ᾱ(t) = cos²((t/T + 0.008) / 1.008 · π/2), betas at most 0.999 (Nichol & Dhariwal 2021,
      arXiv:2102.09672); its end has a signal-to-noise ratio of about 2e-9.
    - ``linear``: betas from 1e-4 to 0.02 at T = 1000 (Ho et al. 2020, arXiv:2006.11239), rescaled with
      ``zero_snr`` so that no signal is left at the end (Lin et al. 2023, arXiv:2305.08891).

    The shift follows Hoogeboom et al. 2023, arXiv:2301.11093: smooth, strongly correlated maps keep their
    overall composition visible under much noise, so more noise is needed before it is drawn anew.

    Args:
        name: "cosine" or "linear".
        steps: T.
        shift: factor on σ/α.
        zero_snr: rescale the linear schedule.

    Returns:
        (T,) float64.

    >>> betas = schedule_betas("cosine", 1000)
    >>> bool((betas.diff() >= 0).all()), float((1 - betas).prod()) < 1e-8
    (True, True)
    """
    t = torch.arange(steps + 1, dtype=torch.float64) / steps
    if name == "cosine":
        level = ((t + 0.008) / 1.008 * math.pi / 2).cos().square()
        betas = (1 - level[1:] / level[:-1]).clamp_max(0.999)
        signal = (1 - betas).cumprod(0)
    else:
        scale = 1000 / steps
        betas = torch.linspace(scale * 1e-4, min(0.999, scale * 0.02), steps, dtype=torch.float64)
        signal = (1 - betas).cumprod(0)
        if zero_snr:
            root = signal.sqrt()
            root = (root - root[-1]) * root[0] / (root[0] - root[-1])
            signal = root.square()
            signal[-1] = 0.01 * signal[-2]  # above zero, so that its log exists
    signal = signal / (signal + shift**2 * (1 - signal))
    return 1 - signal / torch.cat([torch.ones(1, dtype=torch.float64), signal[:-1]])


def sampling_times(
    signal: Float[Tensor, "t"], steps: int, start: float = 1.0, first: float = 80.0, last: float = 0.05
) -> list[int]:
    """Times for a sampler, evenly spaced in log σ/α (Lu et al. 2022, arXiv:2211.01095, section 5).

    Even spacing in t would decide the overall composition of a map in its first one or two steps, and
    composition would vary too little between samples.

    Args:
        signal: (T,) signal shares ᾱ_t, falling.
        steps: number of evaluations for the whole way; fewer are returned if times coincide.
        start: share of the way to noise to begin at, in t.
        first: largest σ/α looked at.
        last: smallest σ/α looked at, before the last jump to the clean map.

    Returns:
        Falling times.

    Raises:
        ValueError: if ``steps`` is not positive or above T.

    >>> signal = (1 - schedule_betas("cosine", 1000)).cumprod(0)
    >>> sampling_times(signal, 5)
    [990, 944, 686, 182, 24]
    """
    if not 1 <= steps <= len(signal):
        raise ValueError(f"sampling needs 1 to {len(signal)} steps, got {steps}")
    log_ratio = 0.5 * ((1 - signal) / signal).double().log()
    top = min(int((log_ratio <= math.log(first)).sum()), round(len(signal) * start)) - 1
    top = max(0, top)
    high, low = float(log_ratio[top]), max(float(log_ratio[0]), math.log(last))
    whole = math.log(first) - low
    count = max(1, round(steps * min(1.0, max(0.0, (high - low) / whole))))
    targets = torch.linspace(high, low, count, dtype=torch.float64) if high > low else torch.tensor([high])
    times = (log_ratio[None, :] - targets[:, None]).abs().argmin(1).tolist()
    return sorted(set(times) | {top}, reverse=True)


def flow_times(steps: int, start: float = 1.0, first: float = 80.0, last: float = 0.05) -> list[float]:
    """Times t of straight paths, evenly spaced in log t/(1 − t), for the same noise as `sampling_times`.

    Args:
        steps: number of evaluations for the whole way; fewer are returned for a part of it.
        start: largest t.
        first: largest t/(1 − t) looked at.
        last: smallest t/(1 − t) looked at, before the last jump to t = 0.

    Returns:
        Falling times in (0, 1).

    Raises:
        ValueError: if ``steps`` is not positive.

    >>> [round(t, 3) for t in flow_times(5)]
    [0.988, 0.927, 0.667, 0.24, 0.048]
    """
    if steps < 1:
        raise ValueError(f"sampling needs at least one step, got {steps}")
    low, top = math.log(last), math.log(first)
    high = top if start >= 1 else min(top, math.log(start / (1 - start)))
    count = max(1, round(steps * min(1.0, max(0.0, (high - low) / (top - low)))))
    if count == 1 or high <= low:
        return [1 / (1 + math.exp(-high))]
    return [1 / (1 + math.exp(-high + (high - low) * i / (count - 1))) for i in range(count)]


def spread_times(times: Sequence[float], count: int) -> list[float]:
    """Take ``count`` times between the first and the last of ``times``, evenly spaced in log t/(1 − t).

    >>> [round(t, 3) for t in spread_times(flow_times(5), 3)]
    [0.988, 0.667, 0.048]
    """
    ends = [math.log(t / (1 - t)) for t in (times[0], times[-1])]
    share = [i / max(1, count - 1) for i in range(count)]
    return [1 / (1 + math.exp(-(ends[0] + (ends[1] - ends[0]) * w))) for w in share]
