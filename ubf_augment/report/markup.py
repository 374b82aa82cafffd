"""HTML built from elements: text is escaped unless it is HTML already, so no name can become code."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

from ubf_augment.synthesis.card import text_of, title_of

_VOID = frozenset({"br", "img", "input", "meta"})


class Html(str):
    """Text that is HTML: made by `el` and `join` alone."""

    __slots__ = ()


def el(name: str, /, *children: Any, **attributes: Any) -> Html:
    """An element; children that are not `Html` are escaped, None and False attributes are left out.

    A trailing underscore of an attribute is dropped (``class_``), others become hyphens (``aria_label``).

    >>> el("p", "a < b", el("b", "!"), class_="x", hidden=False, data_n=3)
    '<p class="x" data-n="3">a &lt; b<b>!</b></p>'
    """
    parts = [f"<{name}"]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        key = key.rstrip("_").replace("_", "-")
        parts.append(f" {key}" if value is True else f' {key}="{escape(str(value))}"')
    parts.append(">")
    if name not in _VOID:
        parts += [join(children), f"</{name}>"]
    return Html("".join(parts))


def join(children: Iterable[Any]) -> Html:
    """Children one after the other, escaped where they are not HTML; None is left out."""
    return Html("".join(c if isinstance(c, Html) else escape(str(c)) for c in children if c is not None))


def script_json(value: Any) -> Html:
    r"""JSON that can stand in a script element: no ``<``, ``>`` or ``&`` in it ends the element or begins another.

    >>> script_json({"name": "</script>"})
    '{"name":"\\u003c/script\\u003e"}'
    """
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for mark in "<>&":
        text = text.replace(mark, f"\\u{ord(mark):04x}")
    return Html(text)


def table(head: Iterable[Any], rows: Iterable[Iterable[Any]], **attributes: Any) -> Html:
    """A table, the first cell of each row being its name."""
    columns = [el("th", cell, scope="col") for cell in head]
    body = []
    for first, *others in rows:
        body.append(el("tr", el("th", first, scope="row"), *(el("td", cell) for cell in others)))
    top = el("thead", el("tr", *columns)) if columns else None
    return el("div", el("table", top, el("tbody", *body), **attributes), class_="scroll", tabindex=0)


def described(value: Any) -> Html:
    """An entry of a model card: a table of rows, a table of two columns, a list, or a paragraph."""
    if isinstance(value, Mapping) and value:
        rows = list(value.values())
        if all(isinstance(row, Mapping) and row for row in rows):
            columns = list(dict.fromkeys(column for row in rows for column in row))
            return table(
                ["", *map(title_of, columns)],
                ([key, *(text_of(row.get(c)) for c in columns)] for key, row in value.items()),
            )
        return table([], ([title_of(k), text_of(v)] for k, v in value.items()))
    if isinstance(value, list | tuple) and value and all(isinstance(v, str) for v in value):
        return el("ul", *(el("li", v) for v in value))
    return el("p", text_of(value))
