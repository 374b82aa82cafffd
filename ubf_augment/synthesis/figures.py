"""What a fit leaves over and how good it is: residual model, reconstruction, gamut."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ubf_augment.metrics import rmse, sad
from ubf_augment.mixing import ResidualModel, mix
from ubf_augment.radiometry import to_reflectance
from ubf_augment.synthesis.pictures import PictureSet, Scene
from ubf_augment.unmixing import (
    LeastSquares,
    RGBRegression,
    UnmixingModel,
    fcls,
    gamut_report,
    reproduction,
)


@torch.no_grad()
def residual_model(
    unmixing: UnmixingModel | LeastSquares, scenes: Sequence[Scene], rank: int = 8, *, pictures: bool = True
) -> ResidualModel:
    """Residuals of the HSIs: what images mixed from abundances lack, as the generator learned them.

    Under the HSIs' RGB abundances where there are ``pictures``, else under those of all bands; so too with a regression, whose
    draws have what red, green and blue leave open.
    """
    pictures = pictures and not isinstance(unmixing, RGBRegression)
    parts = []
    for scene in scenes:
        side = min(64, *scene.image.shape[1:])
        for window in scene.windows(side, side):
            x = window[None]
            a = unmixing.unmix_rgb(x[:, list(unmixing.rgb_index)]) if pictures else unmixing.unmix(x)
            parts.append((window - mix(a, unmixing.endmembers)[0]).cpu())
    return ResidualModel.estimate(parts, min(rank, len(unmixing.wavelengths)))


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
    true = torch.cat([s.image[:, s.mask] for s in scenes], 1)[None, :, :, None]
    table = {}
    for name, way in ways.items():
        made = torch.cat([mix(way(s.image[None]), e)[0][:, s.mask] for s in scenes], 1)[None, :, :, None]
        table[name] = {"rmse": float(rmse(made, true)), "angle": float(sad(made, true))}
    return table


@torch.no_grad()
def gamut_table(
    unmixing: UnmixingModel | LeastSquares,
    pictures: PictureSet,
    scale: float,
    gamma: float = 1.0,
    *,
    conditional: bool = False,
    per_class: int = 20,
) -> dict[str, dict[str, float]]:
    """Per class, how well pictures can be (gamut) and are (unmix_rgb) reproduced in red, green and blue.

    Args:
        unmixing: the encoders.
        pictures: labelled pictures.
        scale: reflectance of white.
        gamma: exponent of the display curve.
        conditional: give the class to the RGB encoder.
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
            a = unmixing.unmix_rgb(r, pictures.labels[chosen] if conditional else None)
            best = gamut_report(r, e)
            table[name] = reproduction(mix(a, e), r) | {
                "best_coverage": best["coverage"],
                "best_relative_error": best["relative_error"],
            }
    return table
