"""How the commands talk: plain lines and progress bars on stderr, results on stdout."""

from __future__ import annotations

import sys
import time
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
def bar(
    items: Iterable[T], total: int, description: str, *, quiet: bool = False, every_s: float = 60.0
) -> Iterator[Iterable[T]]:
    """Iterate with a progress bar on stderr, or with a line per minute where stderr is no terminal (log files)."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    if console.is_terminal or quiet:
        yield track(items, description, total, console=console, disable=quiet, transient=True)
    else:
        yield _told(items, total, description, every_s)


def _told(items: Iterable[T], total: int, description: str, every_s: float) -> Iterator[T]:
    start = last = time.monotonic()
    for done, item in enumerate(items):
        if (now := time.monotonic()) - last >= every_s:
            left = (now - start) / done * (total - done) / 60
            say(f"{description}: {done} of {total}, {left:.0f} min left")
            last = now
        yield item
