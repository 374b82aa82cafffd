"""Libraries of measured spectra: endmembers that were not found in images."""

from __future__ import annotations

import csv
import re
from collections.abc import Collection
from os import PathLike
from pathlib import Path

import numpy as np
import torch

from ubf_augment.errors import HSIReadError
from ubf_augment.io.image import existing
from ubf_augment.spectra import Endmembers

_TYPES = {"1": "u1", "2": "i2", "3": "i4", "4": "f4", "5": "f8", "12": "u2", "13": "u4"}


def read_library(path: str | PathLike[str]) -> Endmembers:
    """Read the spectra of an ENVI spectral library (``.sli`` with its ``.hdr``), the format of many collections.

    Micrometres become nanometres, and stored values are divided by the header's ``reflectance scale factor``.

    Args:
        path: the library, or its header.

    Returns:
        All N spectra (N, C) in reflectance, with the names that the header gives.

    Raises:
        FileNotFoundError: if there is no such file, or no header beside it.
        HSIReadError: if it is no spectral library, is truncated, or names no wavelengths.
        ValueError: if spectra are negative or not finite.
    """
    header, data = _pair(existing(path))
    text = header.read_text(encoding="utf-8", errors="replace")
    found = re.findall(r"^([\w ]+?)\s*=\s*(\{[^}]*\}|[^\n]*)", text, re.M)
    fields = {key.strip().lower(): value.strip(" {}\r\n") for key, value in found}
    if not fields.get("file type", "").lower().startswith("envi spectral library"):
        raise HSIReadError(f"{header} describes no ENVI spectral library: read images with read_hsi")
    try:
        count, bands = int(fields["lines"]), int(fields["samples"])
        nm = np.array([float(v) for v in fields["wavelength"].split(",")])
        kind = np.dtype(
            {"0": "<", "1": ">"}[fields.get("byte order", "0")] + _TYPES[fields.get("data type", "4")]
        )
        skip, scale = (
            int(fields.get("header offset", "0")),
            float(fields.get("reflectance scale factor", "1")),
        )
    except (KeyError, ValueError) as error:
        raise HSIReadError(
            f"{header} cannot be used ({type(error).__name__}: {error}): it must give lines, samples, wavelength, data type "
            "and byte order"
        ) from error
    needed, size = skip + count * bands * kind.itemsize, data.stat().st_size
    if len(nm) != bands or size < needed:
        raise HSIReadError(
            f"{data} has {size} bytes and its header {len(nm)} wavelengths, for {count} spectra of {bands} bands ({needed} "
            "bytes): copy or download it again"
        )
    values = np.fromfile(data, kind, count * bands, offset=skip).reshape(count, bands) / scale
    micrometres = "micro" in fields.get("wavelength units", "").lower() or nm.max() < 100
    names = [name.strip() for name in fields.get("spectra names", "").split(",")]
    return Endmembers(
        torch.from_numpy(values.astype(np.float32)),
        (nm * (1000 if micrometres else 1)).tolist(),
        names if len(names) == count else (),
    )


def earthlib(kinds: Collection[str] | None = None) -> Endmembers:
    """Measured spectra of the package ``earthlib``: soils, sand, roads, roofs, paint, wood, litter; 180 bands, 400–2450 nm.

    7,261 spectra, of which 2,000 (``canopy``) are simulated (PROSAIL); there is no water among them. The files are read as they
    are, and the package is not imported. Choose a few for images with `unmixing.select`.

    Args:
        kinds: which, such as ``{"soil", "road"}``; all by default.

    Returns:
        Spectra with names such as ``"soil FS15R_FS4275"``.

    Raises:
        ModuleNotFoundError: if earthlib is not installed.
        ValueError: for an unknown kind, with those there are.

    Source: earthlib 1.1 (MIT licence), https://github.com/earth-chris/earthlib.
    """
    from importlib import metadata

    try:
        package = metadata.distribution("earthlib")
    except metadata.PackageNotFoundError as error:
        raise ModuleNotFoundError(
            "the package earthlib with its spectra is not installed: pip install 'ubf_augment[library]', or pip install earthlib"
        ) from error
    folder = Path(str(package.locate_file("earthlib/data")))
    library = read_library(folder / "spectra.sli")
    with (folder / "spectra.csv").open(encoding="utf-8") as file:
        kind = [row["LEVEL_3"] for row in csv.DictReader(file)]
    if unknown := sorted(set(kinds or ()) - set(kind)):
        raise ValueError(
            f"earthlib has no spectra of {', '.join(unknown)}; it has {', '.join(sorted(set(kind)))}"
        )
    rows = [i for i, k in enumerate(kind) if kinds is None or k in kinds]
    names = [f"{kind[i]} {library.names[i]}" for i in rows]
    return Endmembers(library.spectra[rows], library.wavelengths, names)


def _pair(path: Path) -> tuple[Path, Path]:
    """Header and data file of a library, of which one was named."""
    if path.suffix.lower() == ".hdr":
        others = [path.with_suffix(""), path.with_suffix(".sli")]
        header = path
        data = next((p for p in others if p.is_file()), None)
    else:
        data = path
        header = next(
            (p for p in (path.with_name(path.name + ".hdr"), path.with_suffix(".hdr")) if p.is_file()), path
        )
    if data is None or header is data:
        raise FileNotFoundError(
            f"{path} needs a header and a data file, such as a.sli and a.sli.hdr, side by side"
        )
    return header, data
