"""One process or several: how they start, do something once for all, and fail together."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ubf_augment.errors import OtherProcessError, UBFError
from ubf_augment.files import locked

if TYPE_CHECKING:
    from lightning.fabric import Fabric

T = TypeVar("T")
_PATIENCE = timedelta(days=7)


def make_fabric(**options: Any) -> Fabric:
    """Build a Lightning Fabric; by default one device, chosen automatically, in float32.

    Several devices or nodes train with DDP, and wait a week for each other instead of half an hour: the first may be
    reading a large data set.

    Args:
        options: as for ``lightning.fabric.Fabric`` (accelerator, devices, num_nodes, strategy, precision, ...).

    >>> make_fabric(accelerator="cpu").world_size
    1
    """
    from lightning.fabric import Fabric
    from lightning.fabric.strategies.ddp import DDPStrategy

    options = {"accelerator": "auto", "devices": 1, "num_nodes": 1, **options}
    if options["num_nodes"] > 1 or (isinstance(options["devices"], int) and options["devices"] > 1):
        options.setdefault("strategy", DDPStrategy(timeout=_PATIENCE))
    return Fabric(**options)


def launch(fabric: Fabric, threads: int | None = None) -> Fabric:
    """Start Fabric's processes, unless it or ``fabric run`` did already.

    Args:
        fabric: what to start.
        threads: CPU threads of each process; None leaves the choice to Fabric (of several processes on one machine, each
            gets its share of the cores).
    """
    if os.environ.get("LT_CLI_USED", "0") != "1":
        fabric.launch()
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    return fabric


def together(fabric: Fabric | None, work: Callable[[], T]) -> T:
    """Do ``work`` in every process; go on only if it succeeded in all, and wait for the last.

    Args:
        fabric: launched; None is a single process.
        work: what to do.

    Raises:
        UBFError: in the first process, if another one failed; its own error, if it failed itself.
        OtherProcessError: in the others, so that an error is told once.

    >>> together(None, lambda: 3)
    3
    """
    if fabric is None or fabric.world_size == 1:
        return work()
    result, failed = None, None
    try:
        result = work()
    except Exception as error:
        failed = error
    told = [
        fabric.broadcast(f"{type(failed).__name__}: {failed}" if failed else None, src=rank)
        for rank in range(fabric.world_size)
    ]
    if not any(told):
        return result  # type: ignore[return-value]
    rank = next(rank for rank, text in enumerate(told) if text)
    text = f"process {rank} of {fabric.world_size} failed: {told[rank]}"
    if not fabric.is_global_zero:
        raise OtherProcessError(text) from failed
    raise failed or UBFError(text)


def once(fabric: Fabric | None, work: Callable[[], T]) -> T:
    """Let the first process do ``work``, and give every process its result.

    Raises:
        UBFError, OtherProcessError: as `together`.

    >>> once(None, lambda: 3)
    3
    """
    if fabric is None or fabric.world_size == 1:
        return work()
    result = together(fabric, lambda: work() if fabric.is_global_zero else None)
    return fabric.broadcast(result)  # type: ignore[return-value]


@contextmanager
def alone(fabric: Fabric | None, folder: Path | None) -> Iterator[None]:
    """Keep other jobs out of a work folder, for all processes of this one; None keeps nothing out.

    Raises:
        UBFError: in the first process, if another job is at work there.
        OSError: if the folder cannot be written.
    """
    with ExitStack() as held:
        if folder is not None:
            once(fabric, lambda: held.enter_context(locked(folder)))
        yield


def share(fabric: Fabric | None) -> tuple[int, int]:
    """Number of this process, and how many there are; `slice` it as ``items[rank::world]``.

    >>> share(None)
    (0, 1)
    """
    return (0, 1) if fabric is None else (fabric.global_rank, fabric.world_size)
