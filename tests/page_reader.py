"""Reads a report as a browser does: its elements, its JSON, its spectra."""

from __future__ import annotations

import base64
import json
import zlib
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass
class Element:
    """A start tag and the text inside it, that of its children included."""

    tag: str
    attributes: dict[str, str | None]
    text: str = ""


@dataclass
class PageReader(HTMLParser):
    """Elements in order; scripts and styles are text, as in a browser."""

    elements: list[Element] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self._open: list[Element] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, dict(attrs))
        self.elements.append(element)
        if tag not in ("br", "img", "input", "meta"):
            self._open.append(element)

    def handle_endtag(self, tag: str) -> None:
        assert self._open, f"</{tag}> closes nothing"
        assert self._open.pop().tag == tag

    def handle_data(self, data: str) -> None:
        for element in self._open:
            element.text += data

    def all(self, tag: str, **attributes: str) -> list[Element]:
        """Elements of a tag with these attributes (``class_`` has to hold the word)."""
        wanted = {key.rstrip("_").replace("_", "-"): value for key, value in attributes.items()}

        def fits(element: Element) -> bool:
            return all(
                value in (element.attributes.get(key) or "").split()
                if key == "class"
                else element.attributes.get(key) == value
                for key, value in wanted.items()
            )

        return [e for e in self.elements if e.tag == tag and fits(e)]

    def by_id(self, name: str) -> Element:
        """The only element of this id."""
        (found,) = [e for e in self.elements if e.attributes.get("id") == name]
        return found


def read_page(path: Path) -> PageReader:
    """Parse a page; every element must be closed."""
    reader = PageReader()
    reader.feed(path.read_text(encoding="utf-8"))
    reader.close()
    assert not reader._open
    return reader


@dataclass
class Spectra:
    """The JSON of a page, and for each picture the embedded spectra (C, rows, columns) and abundances (P, rows, columns)."""

    data: dict[str, Any]
    images: list[NDArray[np.float64]]
    abundances: list[NDArray[np.float64]]

    def grid(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """The pixels of (…, H, W) that are embedded."""
        s = self.data["stride"]
        return x[..., s // 2 :: s, s // 2 :: s]


def read_spectra(page: PageReader) -> Spectra:
    """Unpack what `ubf_augment.report.packing.pack` describes, from its description."""
    data = json.loads(page.by_id("data").text)
    low, high, shares = (_bytes(page.by_id(name).text) for name in ("low", "high", "shares"))
    folded = low.astype(np.int64) | (high.astype(np.int64) << 8)
    change = np.where(folded % 2 == 0, folded // 2, -(folded + 1) // 2)
    bands, materials = len(data["wavelengths"]), len(data.get("endmembers", {}).get("names", []))
    images, abundances, at, at_share = [], [], 0, 0
    for picture in data["pictures"]:
        rows, columns = picture["grid"]
        size = bands * rows * columns
        images.append(np.cumsum(change[at : at + size].reshape(bands, rows, columns), axis=0) * data["step"])
        at += size
        size = materials * rows * columns
        abundances.append(shares[at_share : at_share + size].reshape(materials, rows, columns) / 255)
        at_share += size
    assert at == len(change)
    assert at_share == len(shares)
    return Spectra(data, images, abundances)


def _bytes(text: str) -> NDArray[np.uint8]:
    return np.frombuffer(zlib.decompress(base64.b64decode(text)) if text else b"", dtype=np.uint8)
