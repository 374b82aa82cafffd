"""The abundance simplex: abundances are non-negative (ANC) and sum to one (ASC) over the endmember axis."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from ubf_augment.errors import SimplexError
from ubf_augment.seeding import Generators, rand


def check(a: Float[Tensor, "..."], dim: int = 1, atol: float = 1e-5) -> None:
    """Verify ANC (a ≥ −atol) and ASC (abs(Σₚ aₚ − 1) ≤ atol).

    Args:
        a: abundances, any shape, endmembers on axis ``dim``.
        dim: the endmember axis.
        atol: largest violation that is accepted.

    Raises:
        SimplexError: naming the worst violation and its position.

    >>> check(torch.tensor([[0.25, 0.75]]))
    >>> check(torch.tensor([[0.5, 0.6]]))
    Traceback (most recent call last):
    ...
    ubf_augment.errors.SimplexError: abundances sum to 1.1 at index (0,), not to 1: close them with simplex.closure or \
simplex.project
    """
    if a.numel() == 0:
        return
    if not torch.isfinite(a).all():
        raise SimplexError("abundances hold NaN or infinite values: mask nodata pixels before unmixing")
    if (low := a.min().item()) < -atol:
        raise SimplexError(
            f"an abundance is negative ({low:.3g} at index {_where(a, a.argmin())}): use simplex.project"
        )
    total = a.sum(dim)
    error = (total - 1).abs()
    if float(error.max()) > atol:
        flat = error.argmax()
        raise SimplexError(
            f"abundances sum to {float(total.flatten()[flat]):.6g} at index {_where(total, flat)}, not to 1: "
            "close them with simplex.closure or simplex.project"
        )


def _where(x: Tensor, flat: Tensor) -> tuple[int, ...]:
    return tuple(int(i) for i in torch.unravel_index(flat, x.shape))


def closure(a: Float[Tensor, "..."], dim: int = 1) -> Float[Tensor, "..."]:
    """Divide by the sum: aₚ / Σ_q a_q, for non-negative input (Aitchison 1986, doi:10.1007/978-94-009-4109-0).

    Raises:
        SimplexError: if a value is negative or not finite, or a pixel sums to zero (its composition is undefined).

    >>> closure(torch.tensor([[1.0, 3.0]]))
    tensor([[0.2500, 0.7500]])
    """
    total = a.sum(dim, keepdim=True)
    if a.numel() and not (
        a.min().item() >= 0 and 0 < total.min().item() <= total.max().item() < float("inf")
    ):
        raise SimplexError(
            "closure needs finite non-negative parts with a positive sum: use simplex.project instead"
        )
    return a / total


def project(v: Float[Tensor, "..."], dim: int = 1) -> Float[Tensor, "..."]:
    """Project onto the simplex exactly: argmin over a of ‖a − v‖² with a ≥ 0 and Σₚ aₚ = 1.

    The solution is a = max(v − τ, 0), τ found by sorting (Held et al. 1974, doi:10.1007/BF01580223;
    Duchi et al. 2008, doi:10.1145/1390156.1390191). A pixel with NaN or +∞ becomes NaN, which `check` reports; −∞ is
    an abundance of zero.

    >>> project(torch.tensor([[2.0, 0.0, -1.0]]))
    tensor([[1., 0., 0.]])
    >>> project(torch.tensor([[0.5, 0.5, 0.5]])).sum().item()
    1.0
    """
    u = _wide(v).movedim(dim, -1)
    u = u - u.amax(-1, keepdim=True)  # the projection ignores a common shift; this keeps rounding small
    ordered, _ = u.sort(dim=-1, descending=True)
    excess = ordered.cumsum(-1) - 1
    rank = torch.arange(1, u.shape[-1] + 1, device=u.device, dtype=u.dtype)
    support = (ordered * rank > excess).sum(-1, keepdim=True).clamp_min(1)  # 0 only where NaN compares false
    tau = excess.gather(-1, support - 1) / support.to(u.dtype)
    return (u - tau).clamp_min(0).movedim(-1, dim).to(v.dtype)


def from_logits(z: Float[Tensor, "..."], dim: int = 1) -> Float[Tensor, "..."]:
    """Softmax parametrisation: aₚ = exp(zₚ) / Σ_q exp(z_q), always inside the simplex.

    >>> from_logits(torch.zeros(1, 4))
    tensor([[0.2500, 0.2500, 0.2500, 0.2500]])
    """
    return torch.softmax(z, dim)


def to_logits(a: Float[Tensor, "..."], dim: int = 1, eps: float = 1e-6) -> Float[Tensor, "..."]:
    """Centred log-ratio zₚ = log aₚ − mean_q log a_q, the inverse of `from_logits` up to a shift.

    Args:
        a: abundances.
        dim: the endmember axis.
        eps: floor under each abundance, since log 0 is not finite.

    >>> a = torch.tensor([[0.1, 0.2, 0.7]])
    >>> bool(torch.allclose(from_logits(to_logits(a)), a))
    True
    """
    log = a.clamp_min(eps).log()
    return log - log.mean(dim, keepdim=True)


def resize(a: Float[Tensor, "b p h w"], size: tuple[int, int]) -> Float[Tensor, "b p h2 w2"]:
    """Resize abundance maps; bilinear with antialiasing is a convex combination, so the simplex is kept.

    Args:
        a: abundances.
        size: (H, W) wanted.

    >>> resize(torch.tensor([0.25, 0.75]).view(1, 2, 1, 1), (4, 4)).sum(1).unique().tolist()
    [1.0]
    """
    if tuple(a.shape[-2:]) == tuple(size):
        return a
    return F.interpolate(_wide(a), size, mode="bilinear", align_corners=False, antialias=True).to(a.dtype)


def draw_motions(
    n: int,
    generator: Generators = None,
    *,
    p: float = 0.5,
    degrees: float = 10.0,
    shift: float = 0.1,
    zoom: float = 0.1,
) -> Float[Tensor, "n 2 3"]:
    """Draw flips and quarter turns, and for a share of the maps a small rotation, shift and scaling, for `move`.

    Args:
        n: number of motions.
        generator: one, or one per motion.
        p: share that also gets a small motion.
        degrees: it turns by up to so much.
        shift: it shifts by up to this share of a side.
        zoom: it scales by a factor from 1 − zoom to 1 + zoom.

    Returns:
        Maps of coordinates in −1 … 1, where a pixel goes to where it comes from, on the CPU.

    >>> draw_motions(2, torch.Generator().manual_seed(0), p=0.0)[1]
    tensor([[0., 1., 0.],
            [1., 0., 0.]])
    """
    u = rand((n, 7), generator)
    small = u[:, 2] < p
    angle = torch.where(small, (2 * u[:, 3] - 1) * math.radians(degrees), 0.0)
    scale = torch.where(small, 1 / (1 + zoom * (2 * u[:, 4] - 1)), 1.0)
    cos, sin = angle.cos() * scale, angle.sin() * scale
    tilt = torch.stack([torch.stack([cos, -sin], 1), torch.stack([sin, cos], 1)], 1)
    quarter = (4 * u[:, 1]).long() % 4
    turns = torch.tensor([[[1.0, 0], [0, 1]], [[0, -1], [1, 0]], [[-1, 0], [0, -1]], [[0, 1], [-1, 0]]])[
        quarter
    ]
    turns[:, 0] *= torch.where(u[:, 0] < 0.5, 1.0, -1.0)[:, None]
    offset = torch.where(small[:, None], 2 * shift * (2 * u[:, 5:] - 1), 0.0)
    linear = (turns.double() @ tilt.double()).float()  # a product of doubles is none for autocast
    return torch.cat([linear, offset[:, :, None]], 2)


def move(a: Float[Tensor, "b p h w"], motions: Float[Tensor, "b 2 3"]) -> Float[Tensor, "b p h w"]:
    """Flip, turn, shift and scale abundance maps; bilinear resampling is a convex combination, so the simplex is kept.

    What comes from beyond the edge is its mirror image. A quarter turn of a map that is no square stretches it.

    Args:
        a: abundances.
        motions: from `draw_motions`.

    >>> a = torch.tensor([[1.0, 0.25], [0.0, 0.75]])
    >>> flip = torch.tensor([[[-1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]])
    >>> move(torch.stack([a, 1 - a])[None], flip)[0, 0]
    tensor([[0.2500, 1.0000],
            [0.7500, 0.0000]])
    """
    if not a.numel():
        return a
    size, wide = [len(a), 1, a.shape[2], a.shape[3]], _wide(a)
    grid = F.affine_grid(motions.to(a.device, torch.float64), size, align_corners=False)
    return F.grid_sample(
        wide, grid.to(wide.dtype), mode="bilinear", padding_mode="reflection", align_corners=False
    ).to(a.dtype)


def _wide(a: Tensor) -> Tensor:
    """At least single precision: half precision rounds once, at the end."""
    return a.to(torch.promote_types(a.dtype, torch.float32))
