"""What was made of pictures, kept in files that are read where they are needed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from itertools import chain
from pathlib import Path

from jaxtyping import Shaped
from torch import Tensor, nn

from ubf_augment.files import OnDisk, replacing

_FORMAT = 2  # of what is kept; another number makes all files anew


def kept_in(path: Path, count: int, parts: Iterable[Shaped[Tensor, "n m h w"]]) -> OnDisk:
    """The rows of ``parts``, ``count`` in all, from a file that is made if it is missing or not whole.

    Several processes may ask at once: each writes a file of its own aside, and all files are the same.
    """
    try:
        found = OnDisk(path)
        if len(found) == count:
            return found
    except (FileNotFoundError, ValueError, EOFError):  # none, or cut off
        pass
    rest = iter(parts)
    first = next(rest)
    with replacing(path) as aside:
        file, at = OnDisk.create(aside, (count, *first.shape[1:]), first.dtype), 0
        for part in chain([first], rest):
            file[at : at + len(part)] = part
            at += len(part)
    return OnDisk(path)


def fingerprint(*parts: object) -> str:
    """Digest of modules, tensors and plain values, in order.

    >>> import torch
    >>> fingerprint(torch.zeros(2), "a") == fingerprint(torch.zeros(2), "a") != fingerprint(torch.zeros(3), "a")
    True
    """
    found = hashlib.sha256(str(_FORMAT).encode())
    for part in parts:
        tensors = (
            part.state_dict()
            if isinstance(part, nn.Module)
            else {"": part}
            if isinstance(part, Tensor)
            else {}
        )
        if not tensors:
            found.update(f"{part!r};".encode())
        for name, x in tensors.items():
            found.update(f"{name}{x.dtype}{tuple(x.shape)};".encode())
            found.update(x.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()[:32]
