"""Tables of bands as CSV: the packaged sensors, and the reader of such files."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ubf_augment.errors import HSIReadError, WavelengthError


@dataclass
class Table:
    """A table of bands.

    Attributes:
        name: the file's.
        wavelengths: (C,) nm.
        fwhm: (C,) nm, or None without such a column.
        bands: names, or none.
        bad: 0-based bands marked as bad.
        facts: what the lines with ``#`` say.
    """

    name: str
    wavelengths: Tensor
    fwhm: Tensor | None
    bands: tuple[str, ...]
    bad: tuple[int, ...]
    facts: dict[str, str] = field(default_factory=dict)

    @property
    def also(self) -> tuple[str, ...]:
        """Other names."""
        return tuple(name.strip() for name in self.facts.get("also", "").split(",") if name.strip())

    def arguments(self) -> dict[str, Any]:
        """Arguments of `Sensor`.

        Raises:
            WavelengthError: if a fact that must be a number is none.
        """
        found: dict[str, Any] = {
            "name": self.name,
            "wavelengths": self.wavelengths,
            "fwhm": self.fwhm,
            "bands": self.bands,
            "bad_bands": self.bad,
        }
        for key in ("scale", "offset", "nodata"):
            if key in self.facts:
                found[key] = _number(self.facts[key], f"# {key}: of {self.name}")
        found |= {key: self.facts[key] for key in ("title", "source", "note") if key in self.facts}
        return found | {"nominal": self.facts.get("nominal", "no").lower() in ("yes", "true", "1")}


def read_table(path: Path) -> Table:
    """Read a table of bands, see `Sensor.from_csv`.

    Raises:
        FileNotFoundError: if there is no such file.
        HSIReadError: if it is not text.
        WavelengthError: if a column is missing, or a cell is no number.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise HSIReadError(f"{path} is not a text file: give a table of bands as CSV") from error
    facts = {}
    rows: list[tuple[int, str]] = []
    for number, line in enumerate(lines, 1):
        if line.lstrip().startswith("#"):
            key, colon, value = line.lstrip("# \t").partition(":")
            if colon:
                facts[key.strip().lower()] = value.strip()
        elif line.strip(" \t,;"):
            rows.append((number, line))
    if not rows:
        raise WavelengthError(
            f"{path} holds no bands: the first line names the columns, such as wavelength,fwhm"
        )
    head, *cells = _split([line for _, line in rows])
    columns = {name.strip().lower(): i for i, name in enumerate(head)}
    if "wavelength" not in columns:
        raise WavelengthError(
            f"{path} has no column 'wavelength' (band centres in nm): line {rows[0][0]} must name the columns, it reads "
            f"{rows[0][1]!r}"
        )
    for (number, _), row in zip(rows[1:], cells, strict=True):
        if len(row) != len(head):
            raise WavelengthError(
                f"line {number} of {path} has {len(row)} cells, the columns are {', '.join(columns)}"
            )

    def column(name: str, convert: Callable[[str, str], Any]) -> list[Any] | None:
        if name not in columns:
            return None
        return [
            convert(row[columns[name]].strip(), f"line {number} of {path}, column {name}")
            for (number, _), row in zip(rows[1:], cells, strict=True)
        ]

    centres, widths = column("wavelength", _number), column("fwhm", _number)
    bad = [i for i, flag in enumerate(column("bad", _number) or ()) if flag]
    return Table(
        path.stem,
        torch.tensor(centres, dtype=torch.float64),
        None if widths is None else torch.tensor(widths, dtype=torch.float64),
        tuple(column("band", lambda text, where: text) or ()),
        tuple(bad),
        facts,
    )


def _split(lines: list[str]) -> list[list[str]]:
    """Cells, separated by whichever of comma, semicolon and tab the first line has most of."""
    mark = max(",;\t", key=lines[0].count)
    return list(csv.reader(lines, delimiter=mark))


def _number(text: str, where: str) -> float:
    """A number, or a fraction such as 1/4000."""
    try:
        return float(Fraction(text.replace(" ", "")))
    except (ValueError, ZeroDivisionError):
        raise WavelengthError(f"{where}: {text!r} is no number") from None
