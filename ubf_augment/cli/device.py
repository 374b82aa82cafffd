"""Where a command computes."""

from __future__ import annotations

import torch


def find_device(name: str) -> str:
    """A device that works here; ``auto`` is the first CUDA device, or else the CPU.

    Raises:
        ValueError: if there is none of that name.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"no device {name!r} on this machine ({reason}): give --device auto or cpu"
        ) from error
    return name
