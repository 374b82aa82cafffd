"""One stretch for all images of a figure, and red, green and blue by wavelength."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from ubf_augment.radiometry import to_display
from ubf_augment.spectra import Wavelengths, red_green_blue


@dataclass(frozen=True)
class Display:
    """The one stretch of a figure: v = clip(r / scale)^(1/gamma), see `radiometry.to_display`.

    Attributes:
        scale: reflectance shown as white.
        gamma: exponent of the display curve.

    >>> str(Display(0.3, 1.6))
    'white = reflectance 0.3, gamma 1.6'
    """

    scale: float = 1.0
    gamma: float = 1.6

    @classmethod
    def of(cls, rgb: Float[Tensor, "*batch h w"], gamma: float = 1.6, quantile: float = 0.99) -> Display:
        """The stretch for all given reflectance together, its scale rounded up to two digits.

        >>> import torch
        >>> Display.of(torch.full((1, 3, 2, 2), 0.123)).scale
        0.13
        """
        values = rgb.detach().float().flatten()
        values = values[:: max(1, len(values) // 1_000_000)]
        high = max(float(values.quantile(quantile)), 1e-4)
        unit = 10.0 ** (math.floor(math.log10(high)) - 1)
        return cls(float(f"{math.ceil(round(high / unit, 6)) * unit:.6g}"), gamma)

    def __str__(self) -> str:
        return f"white = reflectance {self.scale:.3g}, gamma {self.gamma:.3g}"

    def __call__(self, reflectance: Tensor) -> Tensor:
        """Displayed values in [0, 1]."""
        return to_display(reflectance, self.scale, self.gamma)


def pseudo_rgb(
    x: Float[Tensor, "b c h w"], wavelengths: Wavelengths | None = None, display: Display | None = None
) -> NDArray[np.float32]:
    """Displayed red, green and blue in [0, 1] of images, the bands chosen by wavelength.

    Args:
        x: reflectance; or red, green, blue reflectance (B, 3, H, W) where ``wavelengths`` is None.
        wavelengths: band centres in nm.
        display: the stretch; by default one for the whole batch (`Display.of`).

    Returns:
        (B, H, W, 3).

    Raises:
        ShapeError: if x is not (B, C, H, W), or has other than 3 bands without wavelengths.
        WavelengthError: if no band is near red, green or blue.

    >>> import torch
    >>> pseudo_rgb(torch.rand(2, 3, 4, 5), [490, 560, 665]).shape
    (2, 4, 5, 3)
    """
    rgb = rgb_of(x, wavelengths)
    shown = (display or Display.of(rgb))(rgb)
    return np.asarray(shown.movedim(1, -1).numpy(), dtype=np.float32)


def rgb_of(x: Tensor, wavelengths: Wavelengths | None) -> Tensor:
    """Red, green and blue reflectance (B, 3, H, W) on the CPU."""
    return red_green_blue(x.detach().cpu().float(), wavelengths)
