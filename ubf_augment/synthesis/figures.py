"""What a fit leaves over and how good it is: residual model, reconstruction, gamut."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor

from ubf_augment.metrics import rmse, sad
from ubf_augment.mixing import ResidualModel, mix
from ubf_augment.radiometry import to_reflectance
from ubf_augment.spectra import Endmembers
from ubf_augment.synthesis.encoding import encode
from ubf_augment.synthesis.pictures import PictureSet, Scene
from ubf_augment.unmixing import LeastSquares, RGBRegression, UnmixingModel, fcls, gamut_report, reproduction


@torch.no_grad()
def residual_model(
    unmixing: UnmixingModel | LeastSquares, scenes: Sequence[Scene], rank: int = 8, *, pictures: bool = True
) -> ResidualModel:
    """Residuals of the HSIs: what images mixed from abundances lack, as the generator learned them.

    Under the HSIs' RGB abundances where there are ``pictures``, else under those of all bands; so too with a regression, whose
    draws have what red, green and blue leave open.
    """
    pictures = pictures and not isinstance(unmixing, RGBRegression)
    rank = min(rank, len(unmixing.wavelengths))
    return ResidualModel.estimate(_Residuals(unmixing, scenes, pictures), rank)


class _Residuals(Iterable[Tensor]):
    """Residuals of windows, made one by one whenever they are needed."""

    def __init__(
        self, unmixing: UnmixingModel | LeastSquares, scenes: Sequence[Scene], pictures: bool
    ) -> None:
        self.unmixing, self.scenes, self.pictures = unmixing, scenes, pictures

    def __iter__(self) -> Iterator[Tensor]:
        m = self.unmixing
        for scene in self.scenes:
            for rows, columns in scene.tiling():
                window = scene.image[:, rows, columns]
                x = window[None]
                a = m.unmix_rgb(x[:, list(m.rgb_index)]) if self.pictures else m.unmix(x)
                yield (window - mix(a, m.endmembers)[0]).cpu()


@torch.no_grad()
def reconstruction(
    unmixing: UnmixingModel | LeastSquares, scenes: Sequence[Scene]
) -> dict[str, dict[str, float]]:
    """RMSE and mean spectral angle (degrees) of the HSIs: by `unmix`, by `unmix_rgb`, by `fcls`.

    These are figures on the training images; valid pixels only.
    """
    e = unmixing.endmembers
    ways: dict[str, Callable[[Tensor], Tensor]] = {
        "hsi_encoder": unmixing.unmix,
        "rgb_encoder": lambda x: unmixing.unmix_rgb(x[:, list(unmixing.rgb_index)]),
        "fcls": lambda x: fcls(x, e),
    }
    return {name: _errors(way, e, scenes) for name, way in ways.items()}


def _errors(
    unmix: Callable[[Tensor], Tensor], endmembers: Endmembers, scenes: Sequence[Scene]
) -> dict[str, float]:
    """Over the valid pixels of all scenes."""
    pixels, square, angle = 0, 0.0, 0.0
    for s in scenes:
        true, count = s.image[:, s.mask][None, :, :, None], int(s.mask.sum())
        if count:
            made = mix(unmix(s.image[None]), endmembers)[0][:, s.mask][None, :, :, None]
            square += float(rmse(made, true)) ** 2 * count
            angle += float(sad(made, true)) * count
            pixels += count
    return {"rmse": (square / max(pixels, 1)) ** 0.5, "angle": angle / max(pixels, 1)}


@torch.no_grad()
def gamut_table(
    unmixing: UnmixingModel | LeastSquares,
    pictures: PictureSet,
    scale: float,
    gamma: float = 1.0,
    *,
    per_class: int = 20,
) -> dict[str, dict[str, float]]:
    """Per class, how well pictures can be (gamut) and are (unmix_rgb) reproduced in red, green and blue.

    Args:
        unmixing: the encoders.
        pictures: labelled pictures.
        scale: reflectance of white.
        gamma: exponent of the display curve.
        per_class: number of pictures looked at.

    Returns:
        class → ``coverage`` (share of pixels within 5%), ``relative_error`` and ``angle`` (degrees) of the
        RGB encoder's abundances, ``best_coverage`` and ``best_relative_error`` of the best possible
        abundances. A low best coverage means that the class shows materials which the HSIs lack.
    """
    e = unmixing.endmembers.spectra[:, list(unmixing.rgb_index)]
    table = {}
    for k, name in enumerate(pictures.classes):
        chosen = (pictures.labels == k).nonzero()[:, 0]
        chosen = chosen[:: max(1, len(chosen) // per_class)][:per_class]
        if len(chosen):
            r = to_reflectance(pictures.images[chosen], scale, gamma)
            a = encode(unmixing, r, pictures.labels[chosen], pictures=True)
            best = gamut_report(r, e)
            table[name] = reproduction(mix(a, e), r) | {
                "best_coverage": best["coverage"],
                "best_relative_error": best["relative_error"],
            }
    return table
