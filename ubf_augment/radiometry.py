"""Reflectance: checks, and the way from displayed RGB values and back with one scale and gamma per source."""

from __future__ import annotations

import torch
from jaxtyping import Shaped
from torch import Tensor

from ubf_augment.errors import BandCountError, NoDataError, RadiometryError


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


def check_reflectance(x: Tensor, bands: int, *, where: str = "image", expected: str = "") -> None:
    """Verify that a tensor (…, C, H, W) can be reflectance: float, ``bands`` bands, finite, plausible scale.

    Args:
        x: one image or a batch.
        bands: the number of bands C.
        where: names the tensor in messages.
        expected: says more about the bands wanted.

    Raises:
        RadiometryError: for an integer image, or a median above 2 (reflectance is about 0 to 1).
        BandCountError: for another number of bands.
        NoDataError: for NaN or infinite pixels, saying how many and in which image.

    >>> check_reflectance(torch.full((1, 3, 2, 2), 0.3), 3)
    """
    if not x.is_floating_point():
        raise RadiometryError(
            f"the {where} is {x.dtype}, not reflectance: convert to float and divide by the sensor's scale "
            "(10000 for Sentinel-2 and EnMAP products, for instance)"
        )
    if x.shape[-3] != bands:
        raise BandCountError(f"the {where} has {x.shape[-3]} bands, expected {bands}{expected}")
    if not _all_finite(x):
        bad = (~torch.isfinite(x)).any(-3).flatten(-2).sum(-1)
        first = f" (first in image {int(bad.nonzero()[0])})" if bad.ndim else ""
        raise NoDataError(
            f"{int(bad.sum())} pixels of the {where} hold NaN or infinite values{first}: mask or fill nodata "
            "pixels, "
            "or crop to where the data is complete"
        )
    check_scale(x, where)


def _all_finite(x: Tensor) -> bool:
    """``isfinite(x).all()``, at a tenth of its time: NaN and infinity show in the extremes."""
    if not x.numel():
        return True
    low, high = torch.aminmax(x)
    return bool(torch.isfinite(high - low)) or bool(torch.isfinite(x).all())


def check_scale(x: Tensor, where: str = "image") -> None:
    """Verify by the median of a part of the values that a float tensor can be reflectance.

    Raises:
        RadiometryError: if it exceeds 2: digital numbers that were converted to float, but not scaled.

    >>> check_scale(torch.full((3, 2, 2), 0.3))
    """
    values = x.flatten()[:: max(1, x.numel() // 65536)].float()
    if values.numel() and (middle := float(values.median())) > 2:
        raise RadiometryError(
            f"the {where} has a median of {middle:g}, reflectance lies in about 0–1: divide by the sensor's "
            "scale (10000 for Sentinel-2 and EnMAP products, for instance)"
        )
