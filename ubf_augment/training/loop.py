"""The resumable loop itself, and its checkpoints."""

from __future__ import annotations

import hashlib
import json
import math
import pickle
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ubf_augment.errors import OtherProcessError
from ubf_augment.files import OnDisk, replacing
from ubf_augment.seeding import derive_seed
from ubf_augment.training.control import Interrupt, shown
from ubf_augment.training.parts import EMA, DataOrder, History, Schedule
from ubf_augment.training.processes import launch, make_fabric

if TYPE_CHECKING:
    from lightning.fabric import Fabric

LossFn = Callable[[nn.Module, Tensor, torch.Generator], Tensor]
_FORMAT = 1


def save_atomic(state: Any, path: Path) -> None:
    """Write ``state`` with `torch.save` aside, then rename: a crash leaves the old file whole."""
    with replacing(path) as aside, aside.open("wb") as file:
        try:
            torch.save(state, file)
        except RuntimeError as error:  # "unexpected pos": what the file said stands behind it
            raise (error.__context__ if isinstance(error.__context__, OSError) else error) from None


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read what `save_atomic` wrote, onto the CPU.

    Raises:
        ValueError: if the file is truncated or no checkpoint.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, KeyError, pickle.UnpicklingError) as error:
        raise ValueError(
            f"{path} cannot be read as a checkpoint ({str(error).partition('. ')[0]}): it is truncated or "
            "something else; delete it, and this stage starts anew"
        ) from error
    if not isinstance(state, dict):
        raise ValueError(f"{path} holds no checkpoint: delete it, and this stage starts anew")
    return state


def digest(*tensors: Tensor | OnDisk | None) -> str:
    """Fingerprint of data by shape, type and some ten thousand evenly spaced values.

    >>> x = torch.arange(6.0)
    >>> digest(x) == digest(x.clone()), digest(x) == digest(x + 1), digest(x, None) == digest(x)
    (True, False, False)
    """
    found = hashlib.sha256()
    for x in tensors:
        if x is None:
            found.update(b"none")
            continue
        found.update(f"{x.dtype}{tuple(x.shape)}".encode())
        step = max(1, math.prod(x.shape) // 10_007)
        values = x.strided(step) if isinstance(x, OnDisk) else x.detach().flatten()[::step]
        found.update(values.double().cpu().numpy().tobytes())
    return found.hexdigest()[:16]


class _Run:
    """State of one run: everything a checkpoint holds."""

    def __init__(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, ema: EMA | None, path: Path | None,
        mark: dict[str, Any], frozen: nn.Module | None,
    ) -> None:  # fmt: skip
        self.model, self.optimizer, self.ema, self.path = model, optimizer, ema, path
        self.mark, self.frozen = mark, frozen
        self.step, self.history, self.window = 0, History(), (0.0, 0)

    def load(self) -> None:
        if self.path is None or not self.path.exists():
            return
        state = read_checkpoint(self.path)
        saved: dict[str, Any] = state.get("mark", {})
        differs = {k: (saved.get(k), v) for k, v in self.mark.items() if saved.get(k, v) != v}
        if state.get("format") != _FORMAT or not saved or differs:
            raise ValueError(
                f"checkpoint {self.path} belongs to another run (saved, asked): {differs}; give another "
                "path, delete the file, or call with the settings it was started with"
            )
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.ema is not None:
            self.ema.load_state_dict(state["ema"])
        self.step, self.window = int(state["step"]), tuple(state["window"])
        self.history = History(**state["history"])

    def save(self) -> None:
        if self.path is None:
            return
        state = {
            "format": _FORMAT, "mark": self.mark, "step": self.step, "window": list(self.window),
            "model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(),
            "ema": None if self.ema is None else self.ema.state_dict(), "history": self.history.to_dict(),
            "frozen": None if self.frozen is None else self.frozen.state_dict(),
        }  # fmt: skip
        save_atomic(state, self.path)

    @property
    def recent_loss(self) -> float:
        """Mean loss of the running window, or of the last one."""
        total, count = self.window
        return total / count if count else (self.history.loss or [math.nan])[-1]

    def record(self, loss: float, every: int, last: int) -> None:
        total, count = self.window[0] + loss, self.window[1] + 1
        if self.step % every == 0 or self.step == last:
            self.history.steps.append(self.step)
            self.history.loss.append(total / count)
            total, count = 0.0, 0
        self.window = (total, count)


def fit_loop(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss_fn: LossFn,
    *,
    num_items: int,
    steps: int,
    batch_size: int = 32,
    seed: int = 0,
    fabric: Fabric | None = None,
    ema: EMA | None = None,
    schedule: Schedule | None = None,
    grad_clip: float | None = 1.0,
    checkpoint: Path | str | None = None,
    frozen: nn.Module | None = None,
    identity: Mapping[str, Any] | None = None,
    save_every_s: float = 60.0,
    progress: bool = True,
    description: str = "training",
) -> History:
    """Train ``model`` for ``steps`` optimiser steps; go on from ``checkpoint`` if that file exists.

    ``loss_fn(model, indices, generator)`` computes the loss of one batch: ``model`` is the module as wrapped
    by Fabric (call it, so that precision and DDP apply), ``indices`` (b,) int64 on the CPU are the items of
    this device, ``generator`` is a CPU generator for all noise of the step. SIGTERM and SIGINT let the
    running step end, save, and are then raised again.

    Args:
        model: the module to train; it is moved to Fabric's device and left there, in eval mode.
        optimizer: over the parameters of ``model``; its learning rates are the peak rates.
        loss_fn: the loss of a batch.
        num_items: how many items there are to draw from.
        steps: total number of steps, those before an interruption included.
        batch_size: global batch, split evenly over the devices.
        seed: of data order and noise.
        fabric: devices and precision; one automatic device if None.
        ema: average to keep up; it is *not* copied into the model.
        schedule: learning-rate factor of a step.
        grad_clip: largest gradient norm; a norm that is not finite raises a RuntimeError.
        checkpoint: file to resume from and save to.
        frozen: a module of the run that is not trained; its state is written into the checkpoint too.
        identity: what else a checkpoint must agree on, as JSON-able values: the model's configuration, `digest` of
            its data. Learning rates and ``steps`` may change: a run can be prolonged.
        save_every_s: seconds between saves (0: after each step).
        progress: show progress on stderr.
        description: its title.

    Raises:
        ValueError: if the checkpoint belongs to other settings, or the batch cannot be split over devices.
    """
    fabric = launch(make_fabric() if fabric is None else fabric)
    if batch_size % fabric.world_size:
        raise ValueError(
            f"batch_size {batch_size} cannot be split over {fabric.world_size} devices: use a multiple"
        )
    order = DataOrder(num_items, batch_size, seed)
    shapes = [f"{k}:{tuple(v.shape)}" for k, v in model.named_parameters()]
    mark = {"num_items": num_items, "batch_size": batch_size, "seed": seed, "parameters": shapes}
    mark |= json.loads(json.dumps(dict(identity or {})))
    run = _Run(model, optimizer, ema, None if checkpoint is None else Path(checkpoint), mark, frozen)
    peaks = [float(group["lr"]) for group in optimizer.param_groups]
    fabric.to_device(model)
    run.load()
    if run.step < steps:
        factor = (lambda _: 1.0) if schedule is None else schedule
        step = _stepper(fabric, run, loss_fn, order, seed, peaks, factor, grad_clip)
        _drive(fabric, run, step, steps, save_every_s, progress, description)
    model.eval()
    return run.history


def _stepper(
    fabric: Fabric, run: _Run, loss_fn: LossFn, order: DataOrder, seed: int, peaks: list[float],
    factor: Schedule, grad_clip: float | None,
) -> Callable[[], float]:  # fmt: skip
    """Build the function that does one optimiser step and gives its loss."""
    model, optimizer = fabric.setup(run.model, run.optimizer)
    model.train()

    def step() -> float:
        for group, peak in zip(run.optimizer.param_groups, peaks, strict=True):
            group["lr"] = peak * factor(run.step)
        noise_seed = derive_seed(seed, 2, run.step, fabric.global_rank)
        torch.manual_seed(noise_seed)
        indices = order(run.step)[fabric.global_rank :: fabric.world_size]
        loss = loss_fn(model, indices, torch.Generator().manual_seed(noise_seed))
        fabric.backward(loss)
        if grad_clip is not None:
            fabric.clip_gradients(model, optimizer, max_norm=grad_clip)
        optimizer.step()
        optimizer.zero_grad()
        if run.ema is not None:
            run.ema.update(run.model)
        return float(loss.detach())

    return step


def _drive(
    fabric: Fabric, run: _Run, step: Callable[[], float], steps: int, save_every_s: float, progress: bool,
    description: str,
) -> None:  # fmt: skip
    """Repeat ``step``; record, show, save, and stop when asked."""
    devices = [fabric.device] if fabric.device.type == "cuda" else []
    every, start, before = max(1, steps // 500), time.monotonic(), run.history.seconds
    saved = start
    show = progress and fabric.is_global_zero
    with (
        Interrupt.watch() as interrupt,
        torch.random.fork_rng(devices),
        shown(show, run, steps, description) as update,
    ):
        stop = False
        while run.step < steps and not stop:
            loss = step()
            run.step += 1
            run.record(loss, every, steps)
            update()
            now = time.monotonic()
            run.history.seconds = before + now - start
            stop = interrupt.asked(fabric)
            if fabric.is_global_zero and (stop or run.step == steps or now - saved >= save_every_s):
                run.save()
                saved = time.monotonic()
        if stop and show and run.path is not None:
            print(
                f"{description}: stopped after step {run.step} of {steps}, saved in {run.path}",
                file=sys.stderr,
            )
        fabric.barrier()
        if stop and interrupt.signal is None:
            raise OtherProcessError("another process was asked to stop")
