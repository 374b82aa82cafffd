"""`HSISynthesizer.adapt`: from the user's images and labels to a synthesizer for their sensor."""

from __future__ import annotations

import operator
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ubf_augment.errors import LabelError, UnknownClassError, WavelengthError
from ubf_augment.labels import ClassIndex
from ubf_augment.spectra import Endmembers, Wavelengths, check_wavelengths
from ubf_augment.spectra import rgb_bands as find_rgb_bands
from ubf_augment.synthesis.adaptation import estimate_sensor
from ubf_augment.synthesis.imagery import ImageSource, cut_tiles
from ubf_augment.synthesis.infrared import picture_statistics

if TYPE_CHECKING:
    from ubf_augment.synthesis.model import HSISynthesizer

Resolve = Callable[[int | str | None], int | None]


def adapt(
    synth: HSISynthesizer,
    images: Any,
    *,
    wavelengths: Wavelengths,
    rgb_bands: tuple[int, int, int] | None,
    fwhm: Wavelengths | float | None,
    labels: Any,
    classes: Sequence[str] | None,
    class_map: Mapping[str, str] | None,
    rgb_scale: float | None,
    rank: int,
    ridge: float,
    max_pixels: int,
    seed: int,
    sensor: str,
    regression: bool | None,
) -> HSISynthesizer:
    """See `HSISynthesizer.adapt`."""
    start = time.monotonic()
    nm = check_wavelengths(wavelengths, where="the images")
    rgb = find_rgb_bands(nm) if rgb_bands is None else _check_rgb(rgb_bands, len(nm))
    width = None if fwhm is None else torch.as_tensor(fwhm, dtype=torch.float64).expand(nm.shape).clone()
    source = ImageSource(images, labels)
    resolve = label_resolver(synth, source.classes if classes is None else classes, class_map)
    tiles = cut_tiles(source, len(nm), resolve, max_pixels=max_pixels, seed=seed)

    def unmix_rgb(reflectance: Tensor, y: int | None) -> Tensor:
        index = None if y is None else torch.full((len(reflectance),), y, device=synth.device)
        return synth.encode_rgb(reflectance.to(synth.device), index)

    found = estimate_sensor(
        tiles, synth.endmembers, unmix_rgb, wavelengths=nm, rgb=rgb, fwhm=width, rank=rank, ridge=ridge,
        regression=regression, num_classes=synth.num_classes, seed=seed,
    )  # fmt: skip
    if found.regression is not None:
        found.regression.set_pictures(*picture_statistics(synth))
    own = sorted(found.class_spectra)
    report = {
        "sensor": sensor,
        "bands": len(nm),
        "range_nm": [float(nm[0]), float(nm[-1])],
        "images": len(set(tiles.image)),
        "seconds": round(time.monotonic() - start, 3),
        "seed": seed,
        "classes_with_own_endmembers": [synth.classes[k] for k in own],
        **found.report,
    }
    return type(synth)(
        Endmembers(found.spectra, nm, synth.endmembers.names, width),
        synth.generator,
        unmixing=synth.unmixing,
        regression=found.regression,
        residual=found.residual,
        classes=synth.classes,
        class_endmembers=found.class_spectra,
        rgb_endmembers=synth.rgb_endmembers if synth.unmixing is None else None,
        rgb_scale=synth.rgb_scale if rgb_scale is None else rgb_scale,
        rgb_gamma=synth.rgb_gamma,
        card=synth.card
        | {"sensor": sensor or f"{len(nm)} bands, {nm[0]:g}–{nm[-1]:g} nm", "adaptation": report},
    )


def label_resolver(
    synth: HSISynthesizer, classes: Sequence[str] | None, class_map: Mapping[str, str] | None
) -> Resolve:
    """Build the function from the user's label to the synthesizer's class index, None for no class.

    Raises:
        UnknownClassError: if ``class_map`` names a class that does not exist.
    """
    if classes is not None:
        index = ClassIndex.match(synth.classes, classes, class_map)
        position = {name: i for i, name in enumerate(index.names)}

        def by_name(label: int | str | None) -> int | None:
            if label is None:
                return None
            if isinstance(label, str) and label not in position:
                raise UnknownClassError(
                    f"label {label!r} is not one of the classes given: {', '.join(index.names)}"
                )
            i = position[label] if isinstance(label, str) else _index(label)
            if not 0 <= i < index.num_classes:
                raise LabelError(f"label {i} is outside 0..{index.num_classes - 1}, the classes given")
            k = int(index.source[i])
            return None if k < 0 else k

        return by_name
    mapping = dict(class_map or {})
    for theirs in mapping.values():
        synth.labels(theirs)

    def directly(label: int | str | None) -> int | None:
        if label is None or not synth.classes:
            return None
        if isinstance(label, str):
            name = mapping.get(label, label)
            return synth.classes.index(name) if name in synth.classes else None
        if not 0 <= (k := _index(label)) < synth.num_classes:
            raise LabelError(
                f"label {k} is outside 0..{synth.num_classes - 1}, the synthesizer's classes: give "
                "classes=[…], the names of your classes in label order"
            )
        return k

    return directly


def _index(label: Any) -> int:
    """A label as an integer; 0.7, and one label per class, are none."""
    try:
        return operator.index(label)
    except (TypeError, ValueError) as error:
        raise LabelError(
            f"label {label!r} is no class index: give one integer or class name per image"
        ) from error


def _check_rgb(rgb: tuple[int, int, int], bands: int) -> tuple[int, int, int]:
    if len(rgb) != 3 or not all(0 <= int(b) < bands for b in rgb):
        raise WavelengthError(
            f"rgb_bands must be three band indices in 0..{bands - 1} (red, green, blue), got {rgb}"
        )
    return int(rgb[0]), int(rgb[1]), int(rgb[2])
