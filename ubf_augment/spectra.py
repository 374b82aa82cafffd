"""Spectra and their wavelengths: endmembers, Gaussian spectral responses, resampling, RGB bands. Wavelengths in nm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

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


def spectral_response(
    source: Wavelengths, target: Wavelengths, fwhm: Wavelengths | float | None = None
) -> Tensor:
    """Response matrix R (C_target, C_source) that turns source spectra into target bands: x_target = R x_source.

    The source spectrum is taken as piecewise linear between its band centres and averaged under a Gaussian of the
    given full width at half maximum, σ = FWHM / (2 √(2 ln 2)), in closed form; beyond the outermost centres it is taken as
    constant. Every row is ≥ 0 and sums to one.

    Args:
        source: band centres of the source in nm.
        target: band centres wanted in nm.
        fwhm: widths of the target bands in nm; by default the spacing of the target bands.

    Raises:
        WavelengthError: if a target centre lies outside the source range by more than half a source step, or a width is
            not positive.
        BandCountError: if the number of widths is not that of the target bands.

    >>> spectral_response([400, 500, 600], [450], fwhm=1e-3).tolist()
    [[0.5, 0.5, 0.0]]
    """
    src = check_wavelengths(source, where="the source")
    dst = check_wavelengths(target, where="the target")
    _check_range(src, dst)
    if fwhm is None:
        width = torch.gradient(dst)[0] if dst.numel() > 1 else torch.full_like(dst, 10.0)
    else:
        width = _widths(fwhm, dst.numel())
    if src.numel() == 1:
        return torch.ones(dst.numel(), 1)
    sigma = width[:, None] / 2.3548200450309493
    u = (src[None] - dst[:, None]) / sigma
    below = 0.5 * (1 + torch.erf(u / 2**0.5))
    density = torch.exp(-0.5 * u.square()) / (2 * torch.pi) ** 0.5
    # Between two centres the spectrum is a line: the mass there, and how much of it falls to the right-hand centre.
    mass = below.diff(dim=1)
    right = (-u[:, :-1] * mass - density.diff(dim=1)) * sigma / src.diff()
    right = torch.minimum(right.clamp_min(0), mass)
    response = torch.zeros(dst.numel(), src.numel(), dtype=torch.float64)
    response[:, 1:] += right
    response[:, :-1] += mass - right
    response[:, 0] += below[:, 0]
    response[:, -1] += 1 - below[:, -1]
    return response.float()


def _widths(fwhm: Wavelengths | float, bands: int) -> Tensor:
    width = torch.as_tensor(fwhm, dtype=torch.float64).detach().cpu()
    if width.ndim > 1 or (width.ndim == 1 and len(width) != bands):
        raise BandCountError(
            f"FWHM of shape {tuple(width.shape)} for {bands} bands: give one number, or one for each band"
        )
    if not bool((torch.isfinite(width) & (width > 0)).all()):
        raise WavelengthError("the FWHM of a band must be a positive number of nm")
    return width.expand(bands)


def _check_range(src: Tensor, dst: Tensor) -> None:
    steps = src.diff()
    low = float(src[0] - (steps[0] / 2 if steps.numel() else 5))
    high = float(src[-1] + (steps[-1] / 2 if steps.numel() else 5))
    outside = dst[(dst < low) | (dst > high)]
    if outside.numel():
        raise WavelengthError(
            f"{outside.numel()} of {dst.numel()} target bands ({float(outside.min()):g}–{float(outside.max()):g} nm) lie "
            f"outside the source range {float(src[0]):g}–{float(src[-1]):g} nm: drop them, or use "
            "HSISynthesizer.adapt, which estimates the spectra of a new sensor from its images"
        )


def resample(
    cube: Float[Tensor, "..."],
    source: Wavelengths,
    target: Wavelengths,
    fwhm: Wavelengths | float | None = None,
    dim: int = -3,
) -> Float[Tensor, "..."]:
    """Resample a cube (…, C, H, W) to other bands with `spectral_response`.

    Raises:
        BandCountError: if axis ``dim`` does not have one entry per source wavelength.
        WavelengthError: as `spectral_response`.

    >>> resample(torch.ones(3, 2, 2), [400, 500, 600], [450, 550]).shape
    torch.Size([2, 2, 2])
    """
    response = spectral_response(source, target, fwhm).to(cube.device, cube.dtype)
    if cube.shape[dim] != response.shape[1]:
        raise BandCountError(
            f"the cube has {cube.shape[dim]} bands, {response.shape[1]} wavelengths were given"
        )
    resampled: Tensor = torch.tensordot(response, cube.movedim(dim, 0), dims=1)
    return resampled.movedim(0, dim)


@dataclass(frozen=True, eq=False, init=False)
class Endmembers:
    """Material spectra E (P, C): non-negative reflectance on a wavelength grid.

    Attributes:
        spectra: (P, C) float32 reflectance ≥ 0.
        wavelengths: (C,) float64 band centres in nm, ascending.
        names: one per endmember; ``"endmember 1"``… by default.
        fwhm: (C,) full widths at half maximum in nm, if known.

    Raises:
        ShapeError, WavelengthError, ValueError: for a wrong shape, unusable wavelengths, negative or non-finite spectra.

    >>> e = Endmembers(torch.tensor([[0.1, 0.2, 0.4], [0.0, 0.0, 0.0]]), [490, 560, 665], ("soil", "shade"))
    >>> e.num_endmembers, e.num_bands, e.rgb()[0].tolist() == [e.spectra[0, 2], e.spectra[0, 1], e.spectra[0, 0]]
    (2, 3, True)
    """

    spectra: Tensor
    wavelengths: Tensor
    names: tuple[str, ...]
    fwhm: Tensor | None

    def __init__(
        self,
        spectra: Float[Tensor, "p c"],
        wavelengths: Wavelengths,
        names: Sequence[str] = (),
        fwhm: Wavelengths | float | None = None,
    ) -> None:
        spectra = torch.as_tensor(spectra, dtype=torch.float32)
        if spectra.ndim != 2 or spectra.numel() == 0:
            raise ShapeError(
                f"endmember spectra must be (P, C), both at least one, got shape {tuple(spectra.shape)}"
            )
        if not torch.isfinite(spectra).all() or float(spectra.min()) < 0:
            raise ValueError("endmember spectra must be finite and non-negative reflectance")
        p, c = spectra.shape
        names = tuple(names) or tuple(f"endmember {i + 1}" for i in range(p))
        if len(names) != p:
            raise ValueError(f"{len(names)} names for {p} endmembers")
        object.__setattr__(self, "spectra", spectra)
        object.__setattr__(self, "wavelengths", check_wavelengths(wavelengths, c, "the endmembers"))
        object.__setattr__(self, "names", names)
        object.__setattr__(self, "fwhm", None if fwhm is None else _widths(fwhm, c))

    @property
    def num_endmembers(self) -> int:
        """P."""
        return self.spectra.shape[0]

    @property
    def num_bands(self) -> int:
        """C."""
        return self.spectra.shape[1]

    @property
    def rgb_bands(self) -> tuple[int, int, int]:
        """Indices of the red, green and blue band, see `rgb_bands`."""
        return rgb_bands(self.wavelengths)

    def rgb(self) -> Float[Tensor, "p 3"]:
        """Spectra at red, green, blue: (P, 3)."""
        return self.spectra[:, list(self.rgb_bands)]

    def resample(self, wavelengths: Wavelengths, fwhm: Wavelengths | float | None = None) -> Endmembers:
        """The same materials on another wavelength grid, see `spectral_response`."""
        response = spectral_response(self.wavelengths, wavelengths, fwhm).to(self.spectra.device)
        width = None if fwhm is None else _widths(fwhm, len(response))
        return Endmembers(self.spectra @ response.T, wavelengths, self.names, width)

    def to(self, device: torch.device | str) -> Endmembers:
        """The same endmembers with spectra on ``device`` (wavelengths stay on the CPU)."""
        return replace(self, spectra=self.spectra.to(device))

    def replace(self, spectra: Float[Tensor, "p c"]) -> Endmembers:
        """The same wavelengths and names with other spectra."""
        return replace(self, spectra=spectra)
