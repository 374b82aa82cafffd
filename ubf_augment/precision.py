"""Computing in the precision of the tensors, also where a training runs in mixed precision."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def full_precision(x: Tensor) -> AbstractContextManager[object]:
    """Switch autocast off for a block that computes on the device of ``x``, a tensor of any shape.

    Products in eight or eleven bits make abundances leave the simplex and turn spectra.

    >>> x = torch.full((1, 1), 1 / 3)
    >>> with torch.autocast("cpu", torch.bfloat16):
    ...     with full_precision(x):
    ...         exact = x @ x
    ...     exact.dtype, (x @ x).dtype
    (torch.float32, torch.bfloat16)
    """
    return nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False)
