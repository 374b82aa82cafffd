"""The parts of the page, from top to bottom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version

from torch import Tensor

from ubf_augment.plotting import Display
from ubf_augment.report.contents import Contents, Picture
from ubf_augment.report.judging import GROUPS, Judgement, Measure
from ubf_augment.report.markup import Html, described, el, join, table
from ubf_augment.report.packing import Packed
from ubf_augment.report.provenance import Source
from ubf_augment.report.real import RealImages
from ubf_augment.synthesis.card import title_of


def header(
    title: str, wavelengths: Tensor, source: Source | None, real: RealImages | None, contents: Contents
) -> Html:
    """Name and key facts."""
    nm = wavelengths
    facts = [("Bands", f"{len(nm)}"), ("Wavelengths", f"{float(nm[0]):.0f}–{float(nm[-1]):.0f} nm")]
    if source is not None:
        synth = source.synth
        facts += [
            ("Classes", f"{synth.num_classes or 'none'}"),
            ("Endmembers", f"{synth.num_endmembers}"),
            ("Generated", "{} × {} pixels".format(*synth.size)),
        ]
    if real is not None:
        facts.append(("Real images", f"{real.total}"))
    summary = source.synth.card.get("summary") if source is not None else None
    kind = "Synthetic and real images" if source and real else "Synthetic images" if source else "Real images"
    links = [("images", "Images and spectra")]
    if source is not None:
        links += [("abundances", "Abundance maps"), ("endmembers", "Endmembers")]
    links += [("metrics", "Metrics")] * bool(source) + [("provenance", "Provenance")]
    return el(
        "header",
        el("a", "Skip the images", href=f"#{links[1][0]}", class_="skip"),
        el("p", f"ubf_augment report · {kind}", class_="over"),
        el("h1", title),
        el("p", str(summary), class_="lead") if isinstance(summary, str) else None,
        el("dl", *(el("div", el("dt", name), el("dd", value)) for name, value in facts), class_="facts"),
        el(
            "nav",
            *(el("a", text, href=f"#{target}") for target, text in links),
            aria_label="Parts of this page",
        ),
    )


def section(name: str, title: str, lead: str, *children: Html | None) -> Html:
    """A part with its heading and one sentence about it."""
    return el(
        "section",
        el("h2", title, id=f"{name}-title"),
        el("p", lead, class_="lead"),
        *children,
        id=name,
        aria_labelledby=f"{name}-title",
    )


def explorer(
    contents: Contents, addresses: Sequence[str], display: Display, packed: Packed, real: bool
) -> Html:
    """Images by class, and beside them the pixel that is chosen, its spectrum and its materials."""
    stride = packed.grid.stride
    which = "Every pixel" if stride == 1 else f"Every {_ordinal(stride)} pixel, across and down,"
    nearest = (
        "the nearest spectrum of a real image"
        if real
        else "the nearest endmember (no real images were given)"
    )
    lead = (
        "Click a pixel, or choose an image with Tab and Enter and move with the arrow keys: its spectrum appears beside "
        f"{nearest}."
    )
    note = (
        f"Pseudo-RGB, one stretch for the whole page: {display}. {which} carries its spectrum, to within "
        f"{packed.step / 2:.2g} of reflectance."
    )
    if more := len(contents.names) - len(contents.rows):
        note += f" {more} more classes are not shown."
    both = len({p.kind for p in contents.pictures}) > 1
    gallery = el("div", *_rows(contents, addresses, both), class_="gallery both" if both else "gallery")
    return section(
        "images",
        "Images and spectra",
        lead,
        el("div", el("div", gallery, el("p", note, class_="note")), _inspector(), class_="explorer"),
        el(
            "noscript",
            el("p", "Spectra of single pixels need JavaScript, which is switched off.", class_="note"),
        ),
    )


def _ordinal(n: int) -> str:
    return {2: "second", 3: "third"}.get(n, f"{n}th")


def _rows(contents: Contents, addresses: Sequence[str], both: bool) -> list[Html]:
    rows = []
    for k, row in enumerate(contents.rows):
        strips = []
        for kind in ("real", "synthetic"):
            mine = [(i, p) for i, p in enumerate(contents.pictures) if p.row == k and p.kind == kind]
            if mine:
                tiles = (_tile(i, p, row.name, addresses[i]) for i, p in mine)
                caption = el("p", kind, class_=f"kind {kind}") if both else None
                strips.append(el("div", caption, el("div", *tiles, class_="strip")))
        rows.append(
            el(
                "section",
                el("h3", row.name),
                el("div", *strips, class_="strips"),
                class_="row pair" if len(strips) > 1 else "row",
                aria_label=row.name,
            )
        )
    return rows


def _tile(i: int, p: Picture, name: str, address: str) -> Html:
    label = f"{name}, {p.kind} image {p.number}"
    h, w = p.image.shape[1:]
    image = el("img", src=address, alt=f"{label}, pseudo-RGB", width=w, height=h, draggable="false")
    return el(
        "button", image, type="button", class_="tile", data_picture=i, aria_pressed="false",
        aria_label=f"{label}. Enter shows its spectra, arrow keys move the pixel.",
    )  # fmt: skip


def _inspector() -> Html:
    """Filled by the script."""
    chart = el(
        "div",
        el("h3", "", id="chosen"),
        el("p", "", id="where", class_="note"),
        el("div", id="chart", class_="chart"),
        el("ul", id="legend", class_="legend"),
        el(
            "p",
            el("label", el("input", type="checkbox", id="even"), " same brightness"),
            el("label", el("input", type="checkbox", id="fit"), " fit the axis"),
            class_="options",
        ),
        el("p", "", id="said", class_="hidden", aria_live="polite"),
        class_="card spectrum",
    )
    view = el(
        "div",
        el(
            "div",
            id="view",
            class_="view",
            tabindex=0,
            role="application",
            aria_roledescription="pixel picker",
        ),
        el(
            "p",
            "Arrow keys move, with Shift in larger steps; Page Up and Page Down change the image.",
            class_="note",
        ),
        class_="zoom",
    )
    pixel = el("div", view, el("ul", id="materials", class_="materials"), class_="card pixel")
    return el(
        "aside", chart, pixel, class_="inspector", aria_label="Spectrum of the chosen pixel", hidden=True
    )


def abundances(contents: Contents, strips: Mapping[int, str], source: Source | None) -> Html | None:
    """One strip of maps per class."""
    if source is None or not strips:
        return None
    names = source.synth.endmembers.names
    first: dict[int, Picture] = {}
    for p in contents.pictures:
        if p.row not in first or (first[p.row].kind == "real" and p.kind == "synthetic"):
            first[p.row] = p
    rows = []
    for k, address in sorted(strips.items()):
        p, name = first[k], contents.rows[k].name
        assert p.abundances is not None
        means = ", ".join(
            f"{n} {m:.2f}" for n, m in zip(names, p.abundances.mean((1, 2)).tolist(), strict=True)
        )
        label = f"{name}, {p.kind} image {p.number}"
        image = el("img", src=address, alt=f"Abundance maps of {label}. Means: {means}")
        rows.append(
            el("tr", el("th", name, el("small", p.kind), scope="row"), el("td", image, colspan=len(names)))
        )
    head = el("tr", el("th", "Class", scope="col"), *(el("th", name, scope="col") for name in names))
    scale = el("div", el("span", "0"), el("i", aria_hidden="true"), el("span", "1"), class_="scale")
    return section(
        "abundances",
        "Abundance maps",
        "The share of each material in every pixel, of the first image of each class. Shares are never negative and sum to one.",
        scale,
        el(
            "div",
            el("table", el("thead", head), el("tbody", *rows), class_="maps"),
            class_="scroll",
            tabindex=0,
        ),
    )


def endmembers(source: Source | None) -> Html | None:
    """Drawn by the script."""
    if source is None:
        return None
    return section(
        "endmembers",
        "Endmembers",
        "Spectra of the materials that every image is mixed from. Choose a name to bring its spectrum forward.",
        el(
            "div",
            el("div", id="materials-chart", class_="chart tall"),
            el("ul", id="materials-legend", class_="keys"),
            class_="card",
        ),
    )


def metrics(
    judgement: Judgement | None, contents: Contents, real: bool, source: Source | None
) -> Html | None:
    """Each number beside that of real images; without real images what the model card says."""
    if source is None:
        return None
    if judgement is None:
        why = (
            "They were not asked for (evaluate = 0)."
            if real
            else "No real images were given: with some (--real DIR), their distance from the samples is measured here."
        )
        known = {k: source.synth.card[k] for k in ("reconstruction", "generation") if k in source.synth.card}
        tables = [
            join([el("h3", f"{title_of(k)}, from the model card"), described(v)]) for k, v in known.items()
        ]
        return section("metrics", "Metrics", why, *tables)
    parts: list[Html] = []
    for group in GROUPS:
        rows = [m for m in judgement.measures if m.group == group]
        if rows:
            parts.append(_measures(group, rows))
    if judgement.recall:
        share = (
            [contents.names[k], f"{100 * a:.0f} %", f"{100 * b:.0f} %"]
            for k, (a, b) in judgement.recall.items()
        )
        recognised = table(["Recognised as its class", "samples", "real"], share)
        parts.append(el("details", el("summary", "Class by class"), recognised))
    lead = (
        "Samples against real images, and other real images against the same ones. The nearer the two columns, the less the "
        "samples differ from reality."
    )
    notes = [
        el("p", text[:1].upper() + text[1:] + ".", class_="note")
        for text in judgement.basis + judgement.left_out
    ]
    return section("metrics", "Metrics", lead, *parts, *notes)


def _measures(group: str, measures: Sequence[Measure]) -> Html:
    """A table of one group: a measure has a line for each thing that it is measured on."""
    head = (el("th", name, scope="col") for name in (group, "measured on", "samples", "real"))
    rows = []
    for m in measures:
        name = el("th", m.name, el("small", m.says), scope="rowgroup", rowspan=len(m.values))
        for i, cells in enumerate(m.values):
            rows.append(el("tr", None if i else name, *(el("td", cell) for cell in cells)))
    body = el("table", el("thead", el("tr", *head)), el("tbody", *rows), class_="metrics")
    return el("div", body, class_="scroll", tabindex=0)


def provenance(facts: Mapping[str, str], source: Source | None) -> Html:
    """What the page was made from, and the whole model card."""
    rows = [el("div", el("dt", name), el("dd", value)) for name, value in facts.items()]
    card = None
    if source is not None and source.synth.card:
        entries = source.synth.card.items()
        parts = (join([el("h3", title_of(key)), described(value)]) for key, value in entries)
        card = el("details", el("summary", "Model card"), *parts)
    return section(
        "provenance",
        "Provenance",
        "What this page was made from, and how.",
        el("dl", *rows, class_="sources"),
        card,
    )


def footer() -> Html:
    """The last line."""
    return el(
        "footer",
        el("p", f"Made with ubf_augment {version('ubf_augment')}. This page loads nothing from anywhere."),
    )
