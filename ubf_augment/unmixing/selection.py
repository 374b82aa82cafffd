"""Which spectra of a library the pixels of images are made of."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from ubf_augment.errors import BandCountError, NoDataError, ShapeError
from ubf_augment.mixing import mix
from ubf_augment.spectra import Endmembers
from ubf_augment.unmixing.initialise import with_shade
from ubf_augment.unmixing.solver import fcls

_TRIED, _ROUNDS = 8, 3


@torch.no_grad()
def select(library: Endmembers, pixels: Float[Tensor, "n c"], count: int) -> Endmembers:
    """Choose endmembers from a library: the spectra that, with shade, reproduce the pixels best.

    One is taken after the other; then each is exchanged for a better one, until no exchange lowers the squared error by more
    than a millionth of the pixels' squares.

    Each time the library's spectra e are ranked by what the best step from the present mixture x̂ towards e alone gains,
    Σₙ maxₜ ‖x − x̂‖² − ‖x − x̂ − t (e − x̂)‖² with 0 ≤ t ≤ 1 per pixel; of the eight best the one is taken with which `fcls`
    leaves the least error.

    Args:
        library: spectra on the bands of the pixels (`Endmembers.resample`).
        pixels: reflectance (N, C); some hundred of all kinds are enough.
        count: number of spectra to choose.

    Returns:
        ``count`` endmembers with their names in the library, and ``"shade"``.

    Raises:
        ShapeError: if pixels are not (N, C), or ``count`` is not from 1 to the size of the library.
        BandCountError: if they have other bands.
        NoDataError: if a pixel is NaN or infinite.

    Source: sparse unmixing with spectral libraries, Iordache et al. 2011, doi:10.1109/TGRS.2010.2098413; the ranking is a step
    of the Frank–Wolfe method (1956, doi:10.1002/nav.3800030109).

    >>> library = Endmembers(torch.eye(4) * 0.5, [450, 550, 650, 850], ("a", "b", "c", "d"))
    >>> pixels = torch.tensor([[0.5, 0.0, 0.0, 0.0], [0.25, 0.0, 0.0, 0.25], [0.0, 0.0, 0.0, 0.1]])
    >>> select(library, pixels, 2).names
    ('a', 'd', 'shade')
    """
    if pixels.ndim != 2 or not len(pixels):
        raise ShapeError(f"pixels must be (N, C), got {tuple(pixels.shape)}")
    if not 1 <= count <= library.num_endmembers:
        raise ShapeError(
            f"{count} endmembers cannot be chosen from a library of {library.num_endmembers} spectra"
        )
    if pixels.shape[1] != library.num_bands:
        raise BandCountError(
            f"the pixels have {pixels.shape[1]} bands, the library {library.num_bands}: library.resample(wavelengths) brings "
            "it to theirs"
        )
    if not torch.isfinite(pixels).all():
        raise NoDataError("pixels hold NaN or infinite values: leave them out")
    x, spectra = pixels.float(), library.spectra.to(pixels.device)
    chosen: list[int] = []
    error, least = torch.inf, 1e-6 * float(x.square().mean())
    for _ in range(count):
        chosen, error = _extended(x, spectra, chosen)
    for _ in range(_ROUNDS):
        before = error
        for k in list(chosen):
            other, found = _extended(x, spectra, [c for c in chosen if c != k])
            if found < error - least:
                chosen, error = other, found
        if error == before:
            break
    names = [library.names[k] for k in chosen]
    return Endmembers(with_shade(spectra[chosen]), library.wavelengths, (*names, "shade"), library.fwhm)


def _extended(x: Tensor, spectra: Tensor, chosen: list[int]) -> tuple[list[int], float]:
    """One spectrum more than those chosen, and the mean squared error of all of them with shade."""

    def mixed(rows: list[int]) -> Tensor:
        e = with_shade(spectra[rows])
        return mix(fcls(x.T[None, :, :, None], e), e)[0, :, :, 0].T

    gain = _gains(x, mixed(chosen) if chosen else torch.zeros_like(x), spectra)
    gain[chosen] = -1
    found = []
    for k in gain.topk(min(_TRIED, len(gain) - len(chosen))).indices.tolist():
        found.append((float((mixed([*chosen, k]) - x).square().mean()), k))
    error, best = min(found)
    return [*chosen, best], error


def _gains(x: Tensor, made: Tensor, spectra: Tensor) -> Tensor:
    """What the best step towards each spectrum lowers the squared error by, summed over pixels: (N of the library,)."""
    left = x - made
    along = left @ spectra.T - (left * made).sum(1, keepdim=True)  # (x − x̂)·d with d = e − x̂
    length = spectra.square().sum(1) - 2 * made @ spectra.T + made.square().sum(1, keepdim=True)
    step = (along / length.clamp_min(1e-12)).clamp(0, 1)
    return (step * (2 * along - step * length)).sum(0)
