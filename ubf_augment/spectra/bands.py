"""Wavelengths of bands: checks, order, and which of them are red, green and blue."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ubf_augment.errors import BandCountError, ShapeError, WavelengthError

RGB_NM = (665.0, 560.0, 490.0)
"""Centres of red, green and blue in nm (Sentinel-2 B4, B3, B2)."""

_INFRARED_NM = 750.0

Wavelengths = Sequence[float] | Tensor


def check_wavelengths(wavelengths: Wavelengths | None, bands: int | None = None, where: str = "") -> Tensor:
    """Return wavelengths as a float64 tensor (C,) after checking that they are usable.

    Args:
        wavelengths: band centres in nm, strictly ascending.
        bands: the number of bands that must be described.
        where: named in the error message.

    Raises:
        BandCountError: if their number is not ``bands``.
        WavelengthError: if missing, not finite, unsorted, or not plausibly in nm.

    >>> check_wavelengths([490, 560, 665]).tolist()
    [490.0, 560.0, 665.0]
    """
    at = f" of {where}" if where else ""
    if wavelengths is None:
        raise WavelengthError(f"the wavelengths{at} are missing: give one band centre in nm for each band")
    nm = torch.as_tensor(wavelengths, dtype=torch.float64).detach().cpu().clone()
    if nm.ndim != 1 or nm.numel() == 0:
        raise WavelengthError(
            f"the wavelengths{at} must be a list of band centres, got shape {tuple(nm.shape)}"
        )
    if bands is not None and nm.numel() != bands:
        raise BandCountError(
            f"{nm.numel()} wavelengths{at} for {bands} bands: give one band centre for each band"
        )
    if not torch.isfinite(nm).all():
        raise WavelengthError(f"the wavelengths{at} hold NaN or infinite values")
    if float(nm.max()) < 100:
        raise WavelengthError(
            f"the wavelengths{at} end at {float(nm.max()):g}: they look like µm, multiply by 1000"
        )
    if float(nm.min()) < 100 or float(nm.max()) > 20000:
        raise WavelengthError(
            f"the wavelengths{at} span {float(nm.min()):g}–{float(nm.max()):g} nm, outside 100–20000 nm"
        )
    if (steps := nm.diff()).numel() and float(steps.min()) <= 0:
        i = int((steps <= 0).nonzero()[0])
        raise WavelengthError(
            f"the wavelengths{at} are not ascending: band {i} is {float(nm[i]):g} nm, band {i + 1} "
            f"{float(nm[i + 1]):g} nm; order the bands with spectra.sort_bands(cube, wavelengths)"
        )
    return nm


def sort_bands(
    cube: Float[Tensor, "..."], wavelengths: Wavelengths | None, dim: int = -3
) -> tuple[Float[Tensor, "..."], Tensor]:
    """Order the bands of a cube (…, C, H, W) by wavelength; returns the cube and the sorted wavelengths.

    Raises:
        BandCountError: if there is not one wavelength per band.
        WavelengthError: if two bands share a wavelength, or as `check_wavelengths`.

    >>> cube, nm = sort_bands(torch.tensor([3.0, 1.0]).view(2, 1, 1), [900.0, 500.0])
    >>> cube.flatten().tolist(), nm.tolist()
    ([1.0, 3.0], [500.0, 900.0])
    """
    nm = torch.as_tensor([] if wavelengths is None else wavelengths, dtype=torch.float64).detach().cpu()
    if cube.shape[dim] != nm.numel():
        raise BandCountError(f"{nm.numel()} wavelengths for {cube.shape[dim]} bands")
    order = nm.argsort(stable=True)
    return cube.index_select(dim, order.to(cube.device)), check_wavelengths(nm[order])


def rgb_bands(wavelengths: Wavelengths, tolerance: float = 40.0) -> tuple[int, int, int]:
    """Indices of the bands nearest to 665, 560 and 490 nm (red, green, blue).

    Raises:
        WavelengthError: if no band lies within ``tolerance`` nm of one of them, or one band would serve two of them.

    >>> rgb_bands([443, 490, 560, 665, 842])
    (3, 2, 1)
    """
    nm = check_wavelengths(wavelengths)
    found = []
    for name, centre in zip(("red", "green", "blue"), RGB_NM, strict=True):
        i = int((nm - centre).abs().argmin())
        if abs(float(nm[i]) - centre) > tolerance:
            raise WavelengthError(
                f"no band within {tolerance:g} nm of {name} ({centre:g} nm); the nearest is {float(nm[i]):g} nm. "
                "Give rgb_bands=(red, green, blue) yourself"
            )
        found.append(i)
    if len(set(found)) < 3:
        raise WavelengthError(
            f"red, green and blue fall on the bands {found}, one of them twice: three different bands are needed; give "
            "rgb_bands=(red, green, blue) yourself"
        )
    return found[0], found[1], found[2]


def sees_infrared(wavelengths: Wavelengths) -> bool:
    """Whether a band lies beyond 750 nm, where the reflectance of plants is high and colours no longer tell it.

    Raises:
        WavelengthError: as `check_wavelengths`.

    >>> sees_infrared([490, 560, 665]), sees_infrared([490, 560, 665, 842])
    (False, True)
    """
    return bool(check_wavelengths(wavelengths)[-1] > _INFRARED_NM)


def red_green_blue(
    x: Float[Tensor, "b c h w"], wavelengths: Wavelengths | None = None
) -> Float[Tensor, "b 3 h w"]:
    """Red, green and blue reflectance of images: the bands nearest to 665, 560 and 490 nm.

    Args:
        x: images (B, C, H, W); already red, green, blue (B, 3, H, W) where ``wavelengths`` is None.
        wavelengths: band centres in nm.

    Raises:
        ShapeError: if x is not (B, C, H, W), or has other than 3 bands without wavelengths.
        WavelengthError: as `check_wavelengths` and `rgb_bands`.

    >>> red_green_blue(torch.arange(4.0).view(1, 4, 1, 1), [490, 560, 665, 842]).flatten().tolist()
    [2.0, 1.0, 0.0]
    """
    if x.ndim != 4:
        raise ShapeError(f"images must be (B, C, H, W), got {tuple(x.shape)}: add a batch axis with x[None]")
    if wavelengths is not None:
        return x[:, list(rgb_bands(check_wavelengths(wavelengths, x.shape[1], "the images")))]
    if x.shape[1] != 3:
        raise ShapeError(
            f"images of {x.shape[1]} bands need wavelengths=… to be shown in red, green and blue"
        )
    return x
