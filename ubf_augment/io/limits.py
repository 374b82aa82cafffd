"""How large an image may be that is read whole: files can claim, or unpack to, any size."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

from ubf_augment.errors import HSIReadError

VARIABLE = "UBF_MAX_GIB"
"""Environment variable with the largest size in GiB, in place of half of the machine's memory."""

_CGROUPS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def max_bytes() -> int:
    """Bytes that stored values and reflectance of one image may take together.

    Raises:
        ValueError: if the environment variable holds no positive number.
    """
    if given := os.environ.get(VARIABLE):
        try:
            gib = float(given)
        except ValueError:
            gib = math.nan
        if not 0 < gib < math.inf:
            raise ValueError(f"{VARIABLE}={given!r} is not a number of GiB, such as 16")
        return int(gib * 2**30)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 2**34
    for file in map(Path, _CGROUPS):  # a container may have less
        if file.is_file() and (text := file.read_text().strip()).isdigit():
            memory = min(memory, int(text))
    return memory // 2


def check_size(shape: Sequence[int], itemsize: int, where: str) -> None:
    """Refuse an array that does not fit into memory, before any of it is allocated.

    Args:
        shape: of the array, as the file states it.
        itemsize: bytes of a stored value; four more are needed for its reflectance.
        where: names the file and the array.

    Raises:
        HSIReadError: if the shape is no shape, or too large.
    """
    if any(n < 0 for n in shape):
        raise HSIReadError(f"{where} claims the shape {tuple(shape)}: the file is damaged; download it again")
    needed, allowed = math.prod(shape) * (itemsize + 4), max_bytes()
    if needed > allowed:
        size = "×".join(map(str, shape))
        raise HSIReadError(
            f"{where} claims {size} values, which take {needed / 2**30:.3g} GiB in memory, more than the "
            f"{allowed / 2**30:.3g} GiB allowed here: if it is truly that large, crop it, unmix it window by window "
            f"(ubf unmix), or set {VARIABLE} to a larger size"
        )
