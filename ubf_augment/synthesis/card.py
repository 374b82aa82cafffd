"""Model cards: the index of a bundle as Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_ACRONYMS = frozenset({"rgb", "hsi", "rmse", "psnr", "ssim", "sad", "ema", "cpu", "gpu"})


def model_card(index: Mapping[str, Any]) -> str:
    """Write a model card from an index: bands, classes, and every entry of its ``card``.

    >>> index = {"name": "x", "classes": ["a"], "wavelengths": [400.0, 500.0], "card": {"licence": "MIT"}}
    >>> print(model_card(index))
    # x
    <BLANKLINE>
    Synthesizer of hyperspectral scenes for `ubf_augment`: 2 bands, 400–500 nm, 1 class (a).
    <BLANKLINE>
    ## Licence
    <BLANKLINE>
    MIT
    <BLANKLINE>
    """
    nm, classes, card = index["wavelengths"], index["classes"], index.get("card", {})
    kinds = f"{len(classes)} class{'es'[: 2 * (len(classes) != 1)]} ({', '.join(classes)})"
    lines = [
        f"# {index['name']}",
        "",
        f"Synthesizer of hyperspectral scenes for `ubf_augment`: {len(nm)} bands, {nm[0]:g}–{nm[-1]:g} nm, "
        f"{kinds if classes else 'no classes'}.",
        "",
    ]
    for key, value in card.items():
        lines += [f"## {title_of(key)}", "", *_block(value), ""]
    return "\n".join(lines)


def _block(value: Any) -> list[str]:
    """A table of rows, a table of two columns, a list, or a paragraph."""
    if isinstance(value, Mapping) and value:
        rows = list(value.values())
        if all(isinstance(row, Mapping) and row for row in rows):
            columns = list(dict.fromkeys(column for row in rows for column in row))
            head = ["| | " + " | ".join(map(title_of, columns)) + " |", "|---" * (len(columns) + 1) + "|"]
            return head + [
                f"| {key} | " + " | ".join(text_of(row.get(c)) for c in columns) + " |"
                for key, row in value.items()
            ]
        return ["| | |", "|---|---|", *(f"| {title_of(k)} | {text_of(v)} |" for k, v in value.items())]
    if isinstance(value, list | tuple) and value and all(isinstance(v, str) for v in value):
        return [f"- {v}" for v in value]
    return [text_of(value)]


def title_of(key: Any) -> str:
    """Words of a key, acronyms in capitals.

    >>> title_of("mean_rmse_of_hsis")
    'Mean RMSE of HSIs'
    """
    words = str(key).replace("_", " ").split(" ")
    words = ["HSIs" if w == "hsis" else w.upper() if w in _ACRONYMS else w for w in words]
    text = " ".join(words)
    return text[:1].upper() + text[1:]


def text_of(value: Any) -> str:
    """A value of a card in one line.

    >>> text_of({"lr": 0.00123456, "sizes": [8, 8]})
    'Lr: 0.001235; Sizes: 8, 8'
    """
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(text_of(v) for v in value)
    if isinstance(value, Mapping):
        return "; ".join(f"{title_of(k)}: {text_of(v)}" for k, v in value.items())
    return str(value)
