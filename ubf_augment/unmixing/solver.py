"""Exact constrained least squares for unmixing: fully constrained (ANC and ASC) or non-negative only."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from ubf_augment import simplex
from ubf_augment.errors import BandCountError, NoDataError, ShapeError
from ubf_augment.spectra import Endmembers
from ubf_augment.unmixing.consensus import Consensus

_CHUNK = 1 << 17
_START_PENALTY, _START_ITERATIONS = 0.02, 15


@torch.no_grad()
def fcls(
    x: Float[Tensor, "b c h w"],
    E: Endmembers | Float[Tensor, "p c"],
    *,
    prior: Float[Tensor, "b p h w"] | None = None,
    prior_weight: float = 0.0,
) -> Float[Tensor, "b p h w"]:
    """Fully constrained least squares abundances of every pixel.

    a = argmin ‖x − Eᵀa‖² + λ s ‖a − a₀‖²  subject to a ≥ 0 and Σₚ aₚ = 1,

    solved exactly by a batched active-set method (all pixels in lockstep, so it runs on a GPU as it is) that starts from
    the supports that some iterations of `sunsal` find. ``s`` is the mean
    squared norm of the endmembers, so that λ = ``prior_weight`` has no unit. With fewer bands than endmembers (red, green,
    blue) the prior makes the solution unique; without one, ties are broken towards equal abundances (λ = 1e-9). Not
    differentiable: the result carries no gradient.

    Args:
        x: reflectance (B, C, H, W).
        E: endmembers (P, C) on the same bands.
        prior: abundances a₀ (B, P, H, W); equal abundances by default.
        prior_weight: λ ≥ 0.

    Returns:
        Abundances (B, P, H, W), a ≥ 0 and Σₚ aₚ = 1.

    Raises:
        ShapeError: if x is not (B, C, H, W) or the prior does not fit.
        BandCountError: if the bands of x and E differ.
        NoDataError: if x holds NaN or infinite values.
        ValueError: if ``prior_weight`` is negative.

    Source: Heinz and Chang 2001, doi:10.1109/36.911111 (problem); Lawson and Hanson 1995, doi:10.1137/1.9781611971217
    (active sets).

    >>> E = torch.tensor([[0.4, 0.1, 0.1], [0.1, 0.1, 0.5]])
    >>> x = (0.3 * E[0] + 0.7 * E[1]).view(1, 3, 1, 1)
    >>> [round(v, 4) for v in fcls(x, E).flatten().tolist()]
    [0.3, 0.7]
    """
    e, readout = unit_endmembers(E, x.device)
    check_image(x, e.shape[1])
    b, _, h, w = x.shape
    p = len(e)
    if not prior_weight >= 0:
        raise ValueError(f"prior_weight must not be negative, got {prior_weight}")
    if prior is not None and prior.shape != (b, p, h, w):
        raise ShapeError(f"the prior is {tuple(prior.shape)}, expected {(b, p, h, w)}")
    ridge = max(prior_weight, 1e-9)
    gram = e @ e.T + ridge * torch.eye(p, dtype=e.dtype, device=e.device)
    rhs = torch.empty(b, p, h * w, dtype=e.dtype, device=x.device)
    for i in range(b):  # image by image: double precision for all bands at once would need much memory
        rhs[i] = readout @ x[i].reshape(x.shape[1], h * w).double()
    rhs += ridge / p if prior is None else ridge * prior.reshape(b, p, h * w).double()
    a = solve_qp(gram, rhs.transpose(1, 2).reshape(b * h * w, p), sum_to_one=True)
    return a.view(b, h * w, p).transpose(1, 2).reshape(b, p, h, w).to(x.dtype)


def unit_endmembers(
    E: Endmembers | Float[Tensor, "p c"], device: torch.device
) -> tuple[Float[Tensor, "p c"], Float[Tensor, "p c"]]:
    """Endmembers e = E / s in double precision, s² their mean squared norm, and e / s, for the products of e with x / s.

    So abundances are the same at any brightness of E and x.
    """
    spectra = (E.spectra if isinstance(E, Endmembers) else E).to(device).double()
    norm = spectra.square().sum(1).mean().sqrt()
    norm = torch.where(norm > 0, norm, torch.ones_like(norm))
    return spectra / norm, spectra / norm / norm


def nnls(gram: Float[Tensor, "p p"], rhs: Float[Tensor, "n p"]) -> Float[Tensor, "n p"]:
    """Non-negative least squares from normal equations: argmin ½ eᵀGe − rᵀe with e ≥ 0, for each row r.

    Args:
        gram: G = AᵀA (P, P), positive definite.
        rhs: rows r = Aᵀx (N, P).

    Source: Lawson and Hanson 1995, doi:10.1137/1.9781611971217.

    >>> nnls(torch.eye(2), torch.tensor([[1.0, -1.0]]))
    tensor([[1., 0.]])
    """
    return solve_qp(gram.double(), rhs.double(), sum_to_one=False).to(rhs.dtype)


@torch.no_grad()
def solve_qp(gram: Tensor, rhs: Tensor, *, sum_to_one: bool) -> Tensor:
    """Solve argmin ½ aᵀGa − rᵀa over a ≥ 0 (and Σa = 1), every row of ``rhs`` at once, in float64."""
    if not len(rhs):
        return rhs
    return torch.cat([_active_set(gram, rows, sum_to_one) for rows in torch.split(rhs, _CHUNK)])


def _active_set(gram: Tensor, rhs: Tensor, sum_to_one: bool) -> Tensor:
    """Primal active-set method in lockstep; pixels that have converged leave the batch."""
    n, p = rhs.shape
    device = rhs.device
    scale = gram.diagonal().max()
    a = _feasible_start(gram, rhs) if sum_to_one else torch.zeros_like(rhs)
    support = a > 0
    todo = torch.arange(n, device=device)
    entering = torch.full((n,), -1, device=device)
    tol = 1e-10 * scale
    for _ in range(12 * p):
        if not len(todo):
            break
        s, old = support[todo], a[todo]
        z, nu = _equality_solve(gram, rhs[todo], s, sum_to_one)
        ratio = torch.where(s & (z < 0), old / (old - z).clamp_min(1e-300), torch.inf)
        step, blocking = ratio.min(1)
        blocked = step < 1
        step = torch.where(blocked, step, 1.0)
        new = torch.where(s, (old + step[:, None] * (z - old)).clamp_min(0), 0.0)
        rows = torch.arange(len(todo), device=device)
        s[rows[blocked], blocking[blocked]] = False
        new = torch.where(s, new, 0.0)
        # A support that is optimal for its equality problem: release the index whose multiplier is most negative.
        gain = rhs[todo] - new @ gram - nu[:, None]
        gain = torch.where(s, -torch.inf, gain)
        value, index = gain.max(1)
        stuck = (
            blocked & (entering[todo] == blocking) & (step <= 1e-14)
        )  # the entering index leaves at once: rounding
        done = (~blocked & (value <= tol)) | stuck
        add = ~blocked & ~done
        s[rows[add], index[add]] = True
        entering[todo] = torch.where(add, index, entering[todo])
        support[todo], a[todo] = s, new
        todo = todo[~done]
    if sum_to_one:
        a = a / a.sum(1, keepdim=True)
    return a


def _feasible_start(gram: Tensor, rhs: Tensor) -> Tensor:
    """Abundances (N, P) on the simplex, most of them with the support of the solution or near it."""
    admm = Consensus(gram, _START_PENALTY)
    near = admm.run(admm.keep_sum.float() @ rhs.T.float(), _START_ITERATIONS)
    return simplex.project(near.T.to(rhs.dtype))


def _equality_solve(gram: Tensor, rhs: Tensor, support: Tensor, sum_to_one: bool) -> tuple[Tensor, Tensor]:
    """Minimise on each support: G_SS z = r_S − ν, and 1ᵀz = 1 if asked; one inverse per distinct support."""
    p = gram.shape[0]
    if p < 63:  # a support is one integer, which sorts much faster than rows
        bits = torch.arange(p, device=gram.device)
        codes, which = torch.unique((support.long() << bits).sum(1), return_inverse=True)
        masks = ((codes[:, None] >> bits) & 1).to(gram.dtype)
    else:
        rows_of, which = torch.unique(support, dim=0, return_inverse=True)
        masks = rows_of.to(gram.dtype)
    size = p + 1 if sum_to_one else p
    kkt = torch.zeros(len(masks), size, size, dtype=gram.dtype, device=gram.device)
    kkt[:, :p, :p] = gram * masks[:, :, None] * masks[:, None, :] + torch.diag_embed(1 - masks)
    right = rhs * support
    if sum_to_one:
        kkt[:, :p, p] = masks
        kkt[:, p, :p] = masks
        right = torch.cat([right, torch.ones_like(right[:, :1])], 1)
    solution = torch.empty_like(right)
    inverse = torch.linalg.inv(kkt)
    if len(masks) <= 4 * p:
        for i in range(len(masks)):
            rows = (which == i).nonzero()[:, 0]
            solution[rows] = right[rows] @ inverse[i].T
    else:
        solution = torch.einsum("nij,nj->ni", inverse[which], right)
    nu = solution[:, p] if sum_to_one else torch.zeros_like(solution[:, 0])
    return solution[:, :p], nu


def check_image(x: Float[Tensor, "b c h w"], bands: int) -> None:
    """Raise the right error unless ``x`` is a finite batch of images (B, ``bands``, H, W)."""
    if x.ndim != 4:
        raise ShapeError(f"images must be (B, C, H, W), got {tuple(x.shape)}: add a batch axis with x[None]")
    if x.shape[1] != bands:
        raise BandCountError(f"the image has {x.shape[1]} bands, the endmembers {bands}")
    if not torch.isfinite(x).all():
        bad = (~torch.isfinite(x)).any(1).sum()
        raise NoDataError(f"{int(bad)} pixels hold NaN or infinite values: mask or fill them before unmixing")
