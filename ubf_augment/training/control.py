"""What surrounds a training loop: signals that ask it to stop, and the progress it shows."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol, cast

import torch
from torch import Tensor

if TYPE_CHECKING:
    from lightning.fabric import Fabric


class Progress(Protocol):
    """What the display needs to know of a run."""

    step: int

    @property
    def recent_loss(self) -> float:
        """Mean loss of the last steps."""


class Interrupt:
    """The signal that asked the loop to stop, if any; a second one acts at once."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._old: dict[int, Any] = {}

    def _ask(self, number: int, frame: Any) -> None:
        self.signal = number
        self.restore()

    def restore(self) -> None:
        """Put the former handlers back."""
        for number, old in self._old.items():
            signal.signal(number, old)
        self._old = {}

    def asked(self, fabric: Fabric) -> bool:
        """Whether any process was asked to stop (all must leave the loop at the same step)."""
        asked = self.signal is not None
        if fabric.world_size == 1:
            return asked
        flag = torch.tensor(float(asked), device=fabric.device)
        return float(cast(Tensor, fabric.all_reduce(flag, reduce_op="sum"))) > 0

    @classmethod
    @contextmanager
    def watch(cls) -> Iterator[Interrupt]:
        """Turn SIGTERM and SIGINT into a request (main thread only, where Python allows it).

        A signal that the process ignores, as a background job ignores SIGINT, stays ignored.
        """
        self = cls()
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                if signal.getsignal(number) != signal.SIG_IGN:
                    self._old[number] = signal.signal(number, self._ask)
        try:
            yield self
        finally:
            self.restore()
        if self.signal is not None:
            signal.raise_signal(self.signal)


@contextmanager
def shown(show: bool, run: Progress, steps: int, description: str) -> Iterator[Callable[[], None]]:
    """Show progress: a bar on a terminal and in a notebook, a line per minute on stderr elsewhere (log files)."""
    if not show:
        yield lambda: None
        return
    if not sys.stderr.isatty() and "ipykernel.zmqshell" not in sys.modules:
        yield _log_lines(run, steps, description)
        return
    from tqdm.auto import tqdm

    with tqdm(total=steps, initial=run.step, desc=description) as bar:

        def update() -> None:
            bar.set_postfix_str(f"loss {run.recent_loss:.4g}", refresh=False)
            bar.update(run.step - bar.n)

        yield update


def _log_lines(run: Progress, steps: int, description: str, every_s: float = 60.0) -> Callable[[], None]:
    first, start, last = run.step, time.monotonic(), time.monotonic()

    def update() -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= every_s or run.step == steps:
            rate = (run.step - first) / max(now - start, 1e-9)
            text = f"{description}: step {run.step}/{steps}, loss {run.recent_loss:.4g}, {rate:.2f} steps/s"
            print(text, file=sys.stderr, flush=True)
            last = now

    return update
