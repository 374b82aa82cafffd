"""The page: one HTML file with its style, its script, its pictures and its spectra inside."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np
from torch import Tensor

from ubf_augment.plotting import Display, pseudo_rgb
from ubf_augment.plotting.parts import band_gaps
from ubf_augment.report import packing, sections
from ubf_augment.report.contents import Contents
from ubf_augment.report.judging import Judgement
from ubf_augment.report.markup import Html, el, join, script_json
from ubf_augment.report.packing import Packed
from ubf_augment.report.provenance import Source
from ubf_augment.report.real import RealImages

_STYLE = ("style.css",)
_SCRIPTS = ("spectra.js", "chart.js", "explorer.js")


@dataclass(frozen=True, eq=False)
class Page:
    """Everything that a page is made of.

    Attributes:
        title: heading.
        wavelengths: (C,) nm.
        rgb: indices of the red, green and blue band.
        display: the stretch of all pictures.
        source: the bundle, if there is one.
        real: real images, if there are some.
        contents: what is shown.
        judgement: the metrics, if they were asked for and there are real images.
        facts: provenance.
        megabytes: size not to exceed.
    """

    title: str
    wavelengths: Tensor
    rgb: Sequence[int]
    display: Display
    source: Source | None
    real: RealImages | None
    contents: Contents
    judgement: Judgement | None
    facts: Mapping[str, str]
    megabytes: float


def render(page: Page) -> str:
    """The text of the HTML file."""
    style, script = (_joined(names) for names in (_STYLE, _SCRIPTS))
    if page.source is not None:
        style += f"table.maps {{ width: {132 + 100 * page.source.synth.num_endmembers}px; }}\n"
    addresses = _pictures(page)
    strips = _strips(page)
    pictures = page.contents.pictures
    spent = sum(map(len, addresses)) + sum(map(len, strips.values())) + len(style) + len(script) + 60_000
    packed = packing.pack(
        [p.image for p in pictures], [p.abundances for p in pictures], page.megabytes * 1e6 - spent
    )
    body = join(
        [
            sections.header(page.title, page.wavelengths, page.source, page.real, page.contents),
            el(
                "main",
                sections.explorer(page.contents, addresses, page.display, packed, page.real is not None),
                sections.abundances(page.contents, strips, page.source),
                sections.endmembers(page.source),
                sections.metrics(page.judgement, page.contents, page.real is not None, page.source),
                sections.provenance(page.facts, page.source),
            ),
            sections.footer(),
            el("script", script_json(_data(page, packed)), type="application/json", id="data"),
            *(
                el("script", Html(text), type="text/plain", id=name)
                for name, text in (("low", packed.low), ("high", packed.high), ("shares", packed.abundances))
            ),
        ]
    )
    return _document(page.title, style, script, body)


def _document(title: str, style: str, script: str, body: Html) -> str:
    """The frame; its policy lets nothing run but this very script and load nothing from anywhere."""
    policy = (
        f"default-src 'none'; img-src data:; style-src 'sha256-{_hash(style)}'; script-src 'sha256-{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", http_equiv="Content-Security-Policy", content=policy),
        el("meta", name="generator", content="ubf_augment report"),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="color-scheme", content="light dark"),
        el("title", f"{title} · ubf_augment report"),
        el("style", Html(style)),
    )
    code = el("script", Html(script))
    return "<!DOCTYPE html>\n" + el("html", head, el("body", body, code), lang="en")


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _joined(names: Sequence[str]) -> str:
    folder = resources.files("ubf_augment.report") / "template"
    return "\n".join((folder / name).read_text(encoding="utf-8") for name in names)


def _pictures(page: Page) -> list[str]:
    """Pseudo-RGB of each picture."""
    bands = list(page.rgb)
    return [
        packing.picture(pseudo_rgb(p.image[bands][None], None, page.display)[0])
        for p in page.contents.pictures
    ]


def _strips(page: Page) -> dict[int, str]:
    """Abundance maps of the first picture of each row, samples before real images."""
    found: dict[int, str] = {}
    for wanted in ("synthetic", "real"):
        for p in page.contents.pictures:
            if p.kind == wanted and p.row not in found and p.abundances is not None:
                found[p.row] = packing.map_strip(p.abundances)
    return found


def _data(page: Page, packed: Packed) -> dict[str, Any]:
    """What the script needs to know."""
    nm = page.wavelengths.numpy()
    values = np.concatenate([p.image[:, ::2, ::2].numpy().ravel() for p in page.contents.pictures])
    data: dict[str, Any] = {
        "wavelengths": np.round(nm, 3).tolist(),
        "gaps": band_gaps(nm).tolist(),
        "step": packed.step,
        "stride": packed.grid.stride,
        "top": round(float(np.percentile(values, 99.8)), 4),
        "rows": [row.name for row in page.contents.rows],
        "pictures": [
            {
                "kind": p.kind,
                "row": p.row,
                "number": p.number,
                "origin": p.origin,
                "size": list(p.image.shape[1:]),
                "grid": list(packed.grid.shape(*p.image.shape[1:])),
            }
            for p in page.contents.pictures
        ],
    }
    if page.source is not None:
        e = page.source.synth.endmembers
        data["endmembers"] = {
            "names": list(e.names),
            "spectra": np.round(e.spectra.cpu().double().numpy(), 5).tolist(),
        }
        data["viridis"] = packing.viridis().tobytes().hex()
    return data
