"""Wavelengths, band widths and scales out of the metadata dialects found in the wild."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from decimal import Decimal, Overflow
from typing import Any

import numpy as np

from ubf_augment.errors import BandCountError, WavelengthError
from ubf_augment.io.stored import Array, some

_WAVELENGTH = (
    "wavelength",
    "wavelengths",
    "wavelength_nm",
    "wavelengths_nm",
    "center_wavelength",
    "centre_wavelength",
    "central_wavelength",
    "band_wavelength",
    "wavelength_um",
)
_UNITS = ("wavelength_units", "wavelength_unit", "wavelengths_units", "wavelengths_unit")
_FWHM = ("fwhm", "fwhm_nm", "bandwidth")
_PER_NM = {"nm": "1", "nanomet": "1", "um": "1000", "micromet": "1000", "micron": "1000", "angstrom": "0.1"}
_NO_UNIT = {"", "unknown", "none"}
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_WITH_UNIT = re.compile(rf"({_NUMBER})\s*(nm|nanomet\w*|[uµμ]m|micromet\w*|microns?)\b", re.IGNORECASE)


def normalise(tags: Mapping[str, str]) -> dict[str, str]:
    """Tags with keys in lower case and underscores: ``Wavelength Units`` becomes ``wavelength_units``."""
    return {re.sub(r"[\s\-]+", "_", key.strip().lower()): str(value) for key, value in tags.items()}


def band_centres(dataset: Any, where: str) -> tuple[Array | None, Array | None, WavelengthError | None]:
    """Wavelengths and widths (FWHM) of a rasterio dataset in nm, in file order; None where nothing is said.

    Looked at in this order, the first dialect that describes any band wins: the ENVI header, band tags, tags
    of the data set, GDAL's IMAGERY domain, band descriptions such as ``"560 nm"`` or ``"band 1 (418.24
    Nanometers)"``. Widths that are no positive numbers are as good as none.

    Returns:
        Wavelengths, widths, and if no dialect gives wavelengths, what is wrong with those that try.
    """
    bands = [normalise(dataset.tags(i)) for i in dataset.indexes]
    shared, envi = normalise(dataset.tags()), normalise(dataset.tags(ns="ENVI"))
    imagery = [normalise(dataset.tags(i, ns="IMAGERY")) for i in dataset.indexes]
    common_unit = _first(envi, _UNITS) or _first(shared, _UNITS)

    def per_band(keys: tuple[str, ...]) -> list[float]:
        return [
            _length(
                _first(tags, keys), _first(tags, _UNITS) or common_unit or _unit_of_key(tags, keys), where
            )
            for tags in bands
        ]

    def listed(tags: Mapping[str, str], keys: tuple[str, ...]) -> list[float] | None:
        items = numbers(_first(tags, keys))
        unit = common_unit or _unit_of_key(tags, keys)
        if items and len(items) != dataset.count:
            raise (_OtherListError if tags is envi else BandCountError)(
                f"{where} lists {len(items)} wavelengths or widths for its {dataset.count} bands: correct its header, or "
                "pass wavelengths=[…]"
            )
        return [_length(item, unit, where) for item in items]

    descriptions = [_WITH_UNIT.findall(text or "") for text in dataset.descriptions]
    centres, problem = _first_given(
        lambda: listed(envi, _WAVELENGTH),
        lambda: per_band(_WAVELENGTH),
        lambda: listed(shared, _WAVELENGTH),
        lambda: [_length(tags.get("central_wavelength_um"), "um", where) for tags in imagery],
        lambda: [_length(found[-1][0], found[-1][1], where) if found else np.nan for found in descriptions],
    )
    widths, _ = _first_given(
        lambda: listed(envi, _FWHM),
        lambda: per_band(_FWHM),
        lambda: listed(shared, _FWHM),
        lambda: [_length(tags.get("fwhm_um"), "um", where) for tags in imagery],
    )
    usable = widths is not None and bool((np.isfinite(widths) & (widths > 0)).all())
    return centres, widths if usable else None, problem


class _OtherListError(BandCountError):
    """The list of an ENVI header has another length."""


def _first_given(
    *dialects: Callable[[], list[float] | None],
) -> tuple[Array | None, WavelengthError | None]:
    """What the first dialect says that says anything; else the first problem."""
    problem: WavelengthError | None = None
    for dialect in dialects:
        try:
            if (values := some(dialect())) is not None:
                return values, None
        except (
            _OtherListError
        ) as error:  # GDAL gives the bands what it finds in the list, as far as that goes
            return None, BandCountError(str(error))
        except WavelengthError as error:
            problem = problem or error
    return None, problem


def bad_bands(dataset: Any) -> list[int] | None:
    """0-based bands that a bad band list (``bbl``, 0 means bad) excludes; None where there is no list."""
    flags: list[str | None] = list(numbers(normalise(dataset.tags(ns="ENVI")).get("bbl")))
    if len(flags) != dataset.count:
        flags = [normalise(dataset.tags(i)).get("bbl") for i in dataset.indexes]
    if all(flag is None for flag in flags):
        return None
    return [i for i, flag in enumerate(flags) if numbers(flag) and float(numbers(flag)[0]) == 0]


def gains(dataset: Any) -> tuple[Array | None, Array | None]:
    """Factor and offset per band from stored values to reflectance; None where the file names none."""
    gain, offset = np.asarray(dataset.scales, np.float64), np.asarray(dataset.offsets, np.float64)
    if (gain != 1).any() or (offset != 0).any():
        return gain, offset
    for tags in (normalise(dataset.tags(ns="ENVI")), normalise(dataset.tags())):
        if factor := numbers(tags.get("reflectance_scale_factor")):
            with np.errstate(divide="ignore"):  # `gain_of` refuses what comes of a zero
                return 1 / np.full(dataset.count, float(factor[0])), np.zeros(dataset.count)
    return None, None


def band_names(dataset: Any) -> tuple[str, ...]:
    """Band descriptions, without the wavelengths that GDAL appends to the band names of an ENVI header."""
    envi = normalise(dataset.tags(ns="ENVI")).get("band_names", "").strip("{}")
    names = [name.strip() for name in envi.split(",")]
    return tuple(names) if len(names) == dataset.count else tuple(text or "" for text in dataset.descriptions)


def numbers(text: str | None) -> list[str]:
    """The numbers of a list such as ``{400.0, 410.5}`` or ``[400 410.5]``, as they are written."""
    return re.findall(_NUMBER, text) if text else []


def _first(tags: Mapping[str, str], keys: tuple[str, ...]) -> str | None:
    return next((tags[key] for key in keys if key in tags), None)


def _unit_of_key(tags: Mapping[str, str], keys: tuple[str, ...]) -> str | None:
    found = next((key for key in keys if key in tags), "")
    return found.rsplit("_", 1)[-1] if found.endswith(("_nm", "_um")) else None


def _length(text: str | None, unit: str | None, where: str) -> float:
    """A length such as ``560``, ``"0.56"`` with unit µm, or ``"560 nm"``, in nm; NaN if missing."""
    if text is None or not text.strip():
        return float("nan")
    if own := _WITH_UNIT.fullmatch(text.strip()):
        text, unit = own[1], own[2]
    name = (unit or "").strip().lower().replace("µ", "u").replace("μ", "u")
    if name == "index":  # ENVI: the list holds band numbers
        return float("nan")
    known = (factor for start, factor in _PER_NM.items() if name.startswith(start))
    factor = "1" if name in _NO_UNIT else next(known, None)
    if factor is None:
        raise WavelengthError(
            f"the wavelengths of {where} are in {unit!r}, which is not understood: pass wavelengths=[…] in nm"
        )
    try:
        length = float(Decimal(text.strip()) * Decimal(factor))  # decimal, so that 0.56 µm is 560 nm exactly
    except Overflow:
        return math.inf
    except ArithmeticError:
        raise WavelengthError(
            f"a wavelength of {where} reads {text!r}, which is not a number: pass wavelengths=[…]"
        ) from None
    return length if length > 0 else float("nan")
