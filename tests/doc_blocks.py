"""Code blocks of the README and of the documentation, as one finds them in the files."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_FENCE = re.compile(
    r"^(?P<indent> *)```(?P<info>[^\n`]*)\n(?P<body>.*?)^(?P=indent)```[ ]*$", re.MULTILINE | re.DOTALL
)


@dataclass(frozen=True)
class Block:
    """One fenced block.

    Attributes:
        line: of its fence, from 1.
        language: the first word after the fence, "" if there is none.
        code: what stands in it.
    """

    line: int
    language: str
    code: str


def pages() -> list[Path]:
    """The README, the pages, and the tutorials (Python scripts whose text stands in comments)."""
    docs = ROOT / "docs"
    return [ROOT / "README.md", *sorted(docs.rglob("*.md")), *sorted((docs / "tutorials").glob("*.py"))]


def blocks(page: Path) -> list[Block]:
    """Fenced blocks of a page; directives such as ``{include}`` are left out, code cells are Python."""
    text = page.read_text(encoding="utf-8")
    if page.suffix == ".py":
        text = "\n".join(line[2:] if line.startswith("# ") else "" for line in text.splitlines())
    found = []
    for match in _FENCE.finditer(text):
        language, body = match["info"].strip(), match["body"]
        if language.startswith("{code-cell}"):
            language = "python"
            body = re.sub(r"^(:.*|%.*)$", "", body, flags=re.MULTILINE)  # options of the cell, magics
        elif language.startswith("{"):
            continue
        found.append(Block(text[: match.start()].count("\n") + 1, language.split(" ")[0], body))
    return found
