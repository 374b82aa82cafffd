"""From displayed RGB values to reflectance and back: one scale and one gamma per source, never per image."""

from __future__ import annotations

import torch
from jaxtyping import Shaped
from torch import Tensor

from ubf_augment.errors import RadiometryError


def to_reflectance(rgb: Shaped[Tensor, "..."], scale: float = 1.0, gamma: float = 1.0) -> Tensor:
    """Reflectance of displayed values: r = scale · v^gamma, v in [0, 1] (uint8 is divided by 255).

    Pictures are stored with a display curve; without undoing a part of it, forests come out as bright as fields.

    Args:
        rgb: displayed values, uint8 or float in [0, 1], any shape.
        scale: reflectance of white, one for the whole source.
        gamma: exponent of the display curve, one for the whole source.

    Raises:
        RadiometryError: for other integer types, or floats outside [0, 1].

    >>> to_reflectance(torch.tensor([0, 255], dtype=torch.uint8), scale=0.5).tolist()
    [0.0, 0.5]
    """
    if rgb.dtype == torch.uint8:
        v = rgb.float() / 255
    elif rgb.is_floating_point():
        v = rgb
        if v.numel() and (float(v.min()) < -1e-6 or float(v.max()) > 1 + 1e-6):
            raise RadiometryError(
                f"displayed RGB values must lie in [0, 1], got {float(v.min()):.3g} to {float(v.max()):.3g}: divide by the "
                "largest value of the format"
            )
        v = v.clamp(0, 1)
    else:
        raise RadiometryError(
            f"RGB pictures of type {rgb.dtype} have no known scale: give uint8, or floats in [0, 1]"
        )
    return scale * v**gamma


def to_display(reflectance: Shaped[Tensor, "..."], scale: float = 1.0, gamma: float = 1.0) -> Tensor:
    """Displayed values in [0, 1] of reflectance: v = clip(r / scale)^(1/gamma), for pictures only.

    >>> to_display(torch.tensor([0.125]), scale=0.5, gamma=2.0).tolist()
    [0.5]
    """
    return (reflectance / scale).clamp(0, 1) ** (1 / gamma)
