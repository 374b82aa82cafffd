"""Stored abundance maps: reading them, and their geometric symmetries."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor

from ubf_augment import simplex
from ubf_augment.errors import ShapeError


def as_abundances(maps: Shaped[Tensor, "n p h w"], check: bool = False) -> Float[Tensor, "n p h w"]:
    """Read stored maps: uint8 values are closed to sum one, floats are taken as they are.

    Raises:
        SimplexError: if ``check`` and the maps are not on the simplex, or a stored pixel is zero everywhere.

    >>> as_abundances(torch.tensor([51, 204], dtype=torch.uint8).view(1, 2, 1, 1)).flatten()
    tensor([0.2000, 0.8000])
    """
    if maps.dtype == torch.uint8:
        return simplex.closure(maps.float())
    if not maps.is_floating_point():
        raise ShapeError(f"maps are {maps.dtype}: give float abundances, or uint8 holding 255·a")
    if check:
        simplex.check(maps, atol=1e-3)
    return maps.float()


def dihedral(x: Float[Tensor, "b c h w"], op: Int64[Tensor, "b"]) -> Float[Tensor, "b c h w"]:
    """Flip and turn each map by its own symmetry: bit 0 left-right, bit 1 up-down, bit 2 transpose.

    >>> x = torch.arange(4.0).view(1, 1, 2, 2)
    >>> dihedral(x, torch.tensor([1])).flatten().tolist()
    [1.0, 0.0, 3.0, 2.0]
    """
    out = torch.empty_like(x)
    for value in sorted(set(op.tolist())):
        chosen = (op == value).to(x.device)
        v = x[chosen]
        if value & 1:
            v = v.flip(-1)
        if value & 2:
            v = v.flip(-2)
        if value & 4:
            v = v.transpose(-1, -2)
        out[chosen] = v
    return out


def num_symmetries(size: tuple[int, int]) -> int:
    """Count the symmetries that `dihedral` may use: 8 for a square, 4 (no transpose) for a rectangle."""
    return 8 if size[0] == size[1] else 4
