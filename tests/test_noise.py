"""Noise schedules and sampling times."""

from __future__ import annotations

import pytest
import torch

from ubf_augment.generators.noise import sampling_times, schedule_betas


@pytest.mark.parametrize("name", ["cosine", "linear"])
@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_schedules_end_without_signal(name: str, shift: float) -> None:
    betas = schedule_betas(name, 1000, shift)
    signal = (1 - betas).cumprod(0)
    assert float(betas.min()) > 0
    assert float(betas.max()) < 1
    assert (signal.diff() < 0).all()
    assert float(signal[0]) > 0.998
    assert float(signal[-1]) < 1e-7


def test_the_shift_multiplies_the_noise() -> None:
    plain = (1 - schedule_betas("cosine", 100)).cumprod(0)
    shifted = (1 - schedule_betas("cosine", 100, 3.0)).cumprod(0)
    torch.testing.assert_close((1 - shifted) / shifted, 9 * (1 - plain) / plain, rtol=1e-6, atol=0)


def test_linear_without_rescaling_is_ho_et_al() -> None:
    torch.testing.assert_close(
        schedule_betas("linear", 1000, zero_snr=False), torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    )


def test_sampling_times_are_even_in_log_noise() -> None:
    signal = (1 - schedule_betas("cosine", 1000, 2.0)).cumprod(0)
    times = sampling_times(signal, 12)
    assert len(times) == 12
    assert times == sorted(times, reverse=True)
    gaps = 0.5 * ((1 - signal) / signal).log()[times].diff()
    assert float(gaps.max() - gaps.min()) < 0.15 * float(gaps.mean().abs())
    assert sampling_times(signal, 12, start=0.3)[0] == 299
    assert len(sampling_times(signal, 12, start=0.3)) < 12
    assert sampling_times(signal, 12, start=0.001) == [0]
    with pytest.raises(ValueError, match="1 to 1000 steps"):
        sampling_times(signal, 0)
