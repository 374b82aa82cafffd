"""Abundances to images: `mix`, and `decode` with the residual and a place to write to."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ubf_augment.errors import ShapeError
from ubf_augment.mixing.blending import blend
from ubf_augment.mixing.residual import ResidualModel
from ubf_augment.precision import full_precision
from ubf_augment.seeding import Generators
from ubf_augment.spectra import Endmembers


def mix(a: Float[Tensor, "b p h w"], E: Endmembers | Float[Tensor, "*batch p c"]) -> Float[Tensor, "b c h w"]:
    """Mix endmembers by their abundances: x[b, c, h, w] = Σₚ a[b, p, h, w] · E[p, c].

    Args:
        a: abundances (B, P, H, W).
        E: `Endmembers`, spectra (P, C), or one set of spectra per image (B, P, C); reflectance.

    Returns:
        Reflectance (B, C, H, W), differentiable in both arguments.

    Raises:
        ShapeError: if ``a`` is not (B, P, H, W) or the endmember counts differ.

    Source: Keshava and Mustard 2002, doi:10.1109/79.974727.

    >>> a = torch.tensor([0.25, 0.75]).view(1, 2, 1, 1)
    >>> mix(a, torch.tensor([[0.4, 0.0], [0.0, 0.4]])).flatten().tolist()
    [0.10000000149011612, 0.30000001192092896]
    """
    spectra = _spectra(a, E)
    b, _, h, w = a.shape
    with full_precision(a):
        return torch.matmul(spectra.transpose(-2, -1), a.flatten(2)).view(b, spectra.shape[-1], h, w)


def decode(
    a: Float[Tensor, "b p h w"],
    E: Endmembers | Float[Tensor, "*batch p c"],
    residual: ResidualModel | None = None,
    generator: Generators = None,
    *,
    out: Float[Tensor, "n c h w"] | None = None,
    rows: Int64[Tensor, " b"] | None = None,
) -> Float[Tensor, "n c h w"]:
    """Mix endmembers by their abundances and add a residual, x = Eᵀa + ε: `mix` plus `ResidualModel.sample`.

    All that is smooth is one product, [E; Lᵀ; μᵀ]ᵀ [a; z; 1], on top of the white noise (see `ResidualModel`). With ``out`` the
    images are written once, in its type and layout, for instance into a part of a batch; fresh memory can cost more time
    than the values.

    Args:
        a: abundances (B, P, H, W).
        E: as for `mix`.
        residual: model of ε, on any device; without one ε = 0.
        generator: of ε; one, or one per image.
        out: images (N, C, H, W) of any floating type and layout to write into.
        rows: (B,) which of them; by default N = B and all.

    Returns:
        Reflectance: ``out``, or new images (B, C, H, W), differentiable in a; values are not clipped.

    Raises:
        ShapeError: as `mix`, or if ``out`` does not fit.

    >>> model = ResidualModel(torch.full((3,), 0.01), torch.zeros(3, 1), torch.zeros(3), 0.0)
    >>> decode(torch.ones(1, 1, 2, 2), torch.tensor([[0.1, 0.2, 0.3]]), model)[0, :, 0, 0]
    tensor([0.1100, 0.2100, 0.3100])
    """
    spectra, noise = _spectra(a, E), None
    kind = a.dtype if a.dtype == torch.float64 else torch.float32
    spectra = spectra.to(kind)
    if residual is not None:
        own, noise = residual.draw(len(a), a.shape[2], a.shape[3], generator, a.device)
        spectra = torch.cat([spectra, own.to(kind).expand(*spectra.shape[:-2], -1, -1)], -2)
    x = blend(a.to(kind), spectra, noise, out, rows)
    return x if out is not None else x.to(a.dtype)


def _spectra(a: Tensor, E: Endmembers | Tensor) -> Tensor:
    """Endmember spectra (P, C) or (B, P, C) that fit the abundances."""
    spectra = (E.spectra if isinstance(E, Endmembers) else E).to(a.device, a.dtype)
    if a.ndim != 4:
        raise ShapeError(
            f"abundances must be (B, P, H, W), got {tuple(a.shape)}: add a batch axis with a[None]"
        )
    if spectra.ndim not in (2, 3) or spectra.shape[-2] != a.shape[1]:
        raise ShapeError(f"{a.shape[1]} abundance maps for endmember spectra of shape {tuple(spectra.shape)}")
    if spectra.ndim == 3 and spectra.shape[0] != a.shape[0]:
        raise ShapeError(f"{spectra.shape[0]} sets of endmembers for a batch of {a.shape[0]}")
    return spectra
