"""`Endmembers`: spectra of materials with their wavelengths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from ubf_augment.errors import ShapeError
from ubf_augment.spectra.bands import Wavelengths, check_wavelengths, rgb_bands
from ubf_augment.spectra.response import check_widths, spectral_response
from ubf_augment.spectra.sensors import Sensor, target_bands


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
        object.__setattr__(self, "fwhm", None if fwhm is None else check_widths(fwhm, c))

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

    def resample(
        self, wavelengths: Wavelengths | Sensor | str, fwhm: Wavelengths | float | None = None
    ) -> Endmembers:
        """The same materials as another sensor sees them, see `spectral_response`.

        Args:
            wavelengths: band centres in nm; or a sensor, or its name, whose good bands and widths are taken.
            fwhm: widths in nm, with a list of centres; by default their spacing.

        >>> e = Endmembers(torch.rand(3, 300), torch.linspace(400, 2500, 300))
        >>> e.resample("landsat-8").num_bands
        7
        """
        centres, fwhm = target_bands(wavelengths, fwhm)
        response = spectral_response(self.wavelengths, centres, fwhm).to(self.spectra.device)
        width = None if fwhm is None else check_widths(fwhm, len(response))
        return Endmembers(self.spectra @ response.T, centres, self.names, width)

    def to(self, device: torch.device | str) -> Endmembers:
        """The same endmembers with spectra on ``device`` (wavelengths stay on the CPU)."""
        return replace(self, spectra=self.spectra.to(device))

    def replace(self, spectra: Float[Tensor, "p c"]) -> Endmembers:
        """The same wavelengths and names with other spectra."""
        return replace(self, spectra=spectra)
