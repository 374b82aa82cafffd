"""Unmixing without training: exact constrained least squares behind the same two calls as `UnmixingModel`."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float, Int64
from torch import Tensor, nn

from ubf_augment.seeding import Generators
from ubf_augment.spectra import Endmembers, rgb_bands
from ubf_augment.unmixing.admm import sunsal
from ubf_augment.unmixing.solver import fcls

_RGB_PRIOR_WEIGHT = 1e-2  # pull towards equal abundances: red, green, blue alone leave them ambiguous


def fcls_rgb(
    r: Float[Tensor, "b 3 h w"], rgb: Float[Tensor, "p 3"], *, fast: bool = False
) -> Float[Tensor, "b p h w"]:
    """`fcls` on red, green and blue, with a weak pull (λ = 0.01) towards equal abundances.

    Args:
        r: reflectance at red, green, blue.
        rgb: the endmembers there.
        fast: take `sunsal` instead.

    Raises:
        ShapeError, BandCountError, NoDataError: as `fcls`.
    """
    if fast:
        return sunsal(r, rgb, prior_weight=_RGB_PRIOR_WEIGHT, iterations=40)
    return fcls(r, rgb, prior_weight=_RGB_PRIOR_WEIGHT)


class LeastSquares(nn.Module):
    """What `UnmixingModel` does, by exact least squares: nothing is trained, and E stays as it is given.

    Args:
        endmembers: E (P, C).
        rgb_index: band indices of red, green, blue; by wavelength if not given.

    >>> import torch
    >>> E = Endmembers(torch.tensor([[0.1, 0.2, 0.4], [0.0, 0.0, 0.0]]), [490, 560, 665], ("soil", "shade"))
    >>> [round(v, 4) for v in LeastSquares(E).unmix(torch.tensor([0.05, 0.1, 0.2]).view(1, 3, 1, 1)).flatten().tolist()]
    [0.5, 0.5]
    """

    spectra: Tensor

    def __init__(self, endmembers: Endmembers, rgb_index: Sequence[int] | None = None) -> None:
        super().__init__()
        self.wavelengths, self._names, self._fwhm = endmembers.wavelengths, endmembers.names, endmembers.fwhm
        red, green, blue = rgb_bands(self.wavelengths) if rgb_index is None else map(int, rgb_index)
        self.rgb_index = red, green, blue
        self.register_buffer("spectra", endmembers.spectra.detach().clone())

    @property
    def endmembers(self) -> Endmembers:
        """E."""
        return Endmembers(self.spectra, self.wavelengths, self._names, self._fwhm)

    def unmix(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b p h w"]:
        """Abundances of images, by `fcls`."""
        return fcls(x, self.spectra)

    def unmix_rgb(
        self,
        r: Float[Tensor, "b 3 h w"],
        y: Int64[Tensor, " b"] | None = None,
        generator: Generators = None,
    ) -> Float[Tensor, "b p h w"]:
        """Abundances of reflectance at red, green, blue, by `fcls_rgb`; the class changes nothing."""
        return fcls_rgb(r, self.spectra[:, list(self.rgb_index)])
