"""How the commands talk: plain lines and progress bars on stderr, results on stdout."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rich.table import Table

T = TypeVar("T")
command: list[str] = []
"""The words of the call, for what names the command that made it; `main` sets them."""


def say(text: str) -> None:
    """Tell the user what is going on."""
    print(text, file=sys.stderr, flush=True)


def show(table: Table) -> None:
    """Print a table on stdout."""
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console.width = 120
    console.print(table)


@contextmanager
def bar(items: Iterable[T], total: int, description: str) -> Iterator[Iterable[T]]:
    """Iterate with a progress bar on stderr; silent where stderr is no terminal."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    yield track(items, description, total, console=console, disable=not console.is_terminal, transient=True)
