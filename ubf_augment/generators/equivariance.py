"""How well the maps of an alias-free generator follow its input when that is moved or turned."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from ubf_augment import simplex
from ubf_augment.generators._synthesis import rotation
from ubf_augment.generators.base import _eval_mode

if TYPE_CHECKING:
    from ubf_augment.generators.stylegan3 import StyleGAN3


def equivariance_translation(
    model: StyleGAN3, y: Tensor | None = None, *, n: int = 16, furthest: float = 0.125, logits: bool = False,
    seed: int = 0,
) -> float:  # fmt: skip
    """Measure EQ-T = 10 log₁₀(R² / E[(g(t(z₀)) − t(g(z₀)))²]) in dB: maps of moved waves against moved maps.

    Shifts are whole pixels, uniform up to ``furthest`` in both directions; the mean is over styles, shifts,
    channels, and the pixels that both have (Karras et al. 2021, arXiv:2106.12423, section 3.1 and appendix E.1).

    Args:
        model: the generator.
        y: (n,) classes; if None, all classes in turn.
        n: number of styles.
        furthest: largest shift, in image sides.
        logits: compare before the softmax, R being the range (largest less smallest) of the unmoved
            logits; else compare maps, R = 1.
        seed: of styles and shifts.

    >>> from ubf_augment.generators import StyleGAN3
    >>> gan = StyleGAN3(3, (16, 16), channels=8, layers=3, w_dim=16)
    >>> equivariance_translation(gan, n=4) > 20
    True
    """
    side, g = model.size[0], torch.Generator().manual_seed(seed)
    far = round(furthest * side)
    shift = torch.randint(-far, far + 1, (n, 2), generator=g)
    base, moved = _pair(model, y, n, g, logits, shift=shift.float())
    errors = []
    for a, b, (down, right) in zip(base, moved, shift.tolist(), strict=True):
        h, w = side - abs(down), side - abs(right)
        before = a[:, max(-down, 0) : max(-down, 0) + h, max(-right, 0) : max(-right, 0) + w]
        after = b[:, max(down, 0) : max(down, 0) + h, max(right, 0) : max(right, 0) + w]
        errors.append((after - before).square().mean())
    return _decibel(torch.stack(errors).mean(), base if logits else None)


def equivariance_rotation(
    model: StyleGAN3, y: Tensor | None = None, *, n: int = 16, logits: bool = False, seed: int = 0
) -> float:
    """Measure EQ-R in dB: maps of turned waves against turned maps, any angle, inside the inscribed circle.

    Maps are turned by bicubic interpolation, whose own error bounds the value for maps with fine detail (the
    paper's windowed sinc bounds it less): compare generators, not papers.

    Args:
        model: the generator.
        y: (n,) classes; if None, all classes in turn.
        n: number of styles.
        logits: compare before the softmax, see `equivariance_translation`.
        seed: of styles and angles.
    """
    side, g = model.size[0], torch.Generator().manual_seed(seed)
    angle = 360 * torch.rand(n, generator=g)
    base, turned = _pair(model, y, n, g, logits, angle=angle)
    at = (torch.arange(side) + 0.5) * 2 / side - 1
    plane = torch.stack(torch.meshgrid(at, at, indexing="ij"), -1)  # (row, column) in [−1, 1]
    radian = torch.deg2rad(angle)
    source = torch.einsum("bij,hwj->bhwi", rotation(radian.cos(), -radian.sin()), plane).flip(-1)
    expected = F.grid_sample(base, source.to(base.device), mode="bicubic", align_corners=False)
    inside = (plane.square().sum(-1) < (1 - 4 / side) ** 2).to(base.device)
    return _decibel((turned - expected)[..., inside].square().mean(), base if logits else None)


def _pair(
    model: StyleGAN3, y: Tensor | None, n: int, g: torch.Generator, logits: bool, **change: Tensor
) -> tuple[Tensor, Tensor]:
    """Logits or maps of n styles, unchanged and changed, in eval mode."""
    device = model.device
    z = torch.randn(n, model.z_dim, generator=g).to(device)
    if y is None and model.num_classes is not None:
        y = torch.arange(n) % model.num_classes
    with _eval_mode(model), torch.no_grad():
        w = model.style(z, None if y is None else y.to(device))
        both = model.logits(w), model.logits(w, **{k: v.to(device) for k, v in change.items()})
    return both if logits else (simplex.from_logits(both[0]), simplex.from_logits(both[1]))


def _decibel(error: Tensor, logits: Tensor | None) -> float:
    peak = 1.0 if logits is None else float(logits.max() - logits.min())
    return 10 * math.log10(peak**2 / max(float(error), 1e-20))
