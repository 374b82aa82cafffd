"""Timing for benchmarks of speed: tasks that take turns, and the training step before which an augmentation stands."""

from __future__ import annotations

import statistics
import time
from argparse import ArgumentParser
from collections.abc import Callable, Mapping
from typing import Any

import torch
from common import bundle_option, device_option, median
from torch import Tensor

from ubf_augment import HSISynthesizer, UBFAugment


def options(parser: ArgumentParser) -> None:
    """Add what to measure, and where."""
    bundle_option(parser)
    device_option(parser)


def now(device: str) -> float:
    """Seconds, after the device has finished what it was asked."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter()


def interleaved(
    tasks: Mapping[str, Callable[[], Any]], rounds: int, device: str, warmup: int = 1
) -> dict[str, list[tuple[float, Any]]]:
    """Seconds and result of each task; they take turns, so that what else the machine does falls on all alike."""
    found: dict[str, list[tuple[float, Any]]] = {name: [] for name in tasks}
    for turn in range(warmup + rounds):
        for name, task in tasks.items():
            start = now(device)
            result = task()
            if turn >= warmup:
                found[name].append((now(device) - start, result))
    return found


def seconds(
    tasks: Mapping[str, Callable[[], Any]], rounds: int, device: str, warmup: int = 1
) -> dict[str, list[float]]:
    """As `interleaved`, without the results."""
    found = interleaved(tasks, rounds, device, warmup)
    return {name: [t for t, _ in times] for name, times in found.items()}


class Step:
    """A training step of ResNet-18 on images of a synthesizer.

    Args:
        synth: makes the images.
        size: height and width of the images.
        batch: images.
        device: where.
        classes: how many of the synthesizer's classes stand in the batch, in turn.
    """

    def __init__(self, synth: HSISynthesizer, size: int, batch: int, device: str, classes: int) -> None:
        import timm

        torch.manual_seed(0)
        self.device = device
        self.model = timm.create_model(
            "resnet18", in_chans=synth.num_bands, num_classes=synth.num_classes
        ).to(device)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=1e-3, momentum=0.9)
        self.y = torch.arange(batch, device=device) % classes
        a = synth.sample_abundances(self.y, seed=0)
        self.x: Tensor = synth.mix(torch.nn.functional.interpolate(a, (size, size), mode="bilinear"))

    def __call__(self, augment: UBFAugment | None) -> float:
        """Make one step; seconds of the augmentation in it."""
        start = now(self.device)
        x, y = (self.x, self.y) if augment is None else augment(self.x, self.y)
        between = now(self.device)
        loss = torch.nn.functional.cross_entropy(self.model(x), y)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return between - start

    def table(
        self, augments: Mapping[str, UBFAugment | None], rounds: int
    ) -> tuple[list[list[Any]], list[dict[str, Any]]]:
        """Rows of a table, the first of ``augments`` being the plain step, and every single time.

        A row: name, milliseconds of the whole step and of the augmentation in it, ratio to the plain step by medians and by
        means.
        """
        tasks = {name: (lambda a=augment: self(a)) for name, augment in augments.items()}
        found = interleaved(tasks, rounds, self.device)
        whole = {name: [1000 * t for t, _ in times] for name, times in found.items()}
        added = {name: [1000 * t for _, t in times] for name, times in found.items()}
        plain = next(iter(whole.values()))
        rows = [
            [
                name, median(whole[name]), median(added[name]),
                median(whole[name])["centre"] / median(plain)["centre"],
                statistics.fmean(whole[name]) / statistics.fmean(plain),
            ]
            for name in whole
        ]  # fmt: skip
        runs = [{"step": name, "whole_ms": whole[name], "augmentation_ms": added[name]} for name in whole]
        return rows, runs


STEP_COLUMNS = ["step", "whole", "augmentation alone", "× plain", "× plain, by means"]
STEP_DIGITS = [1, 1, 2, 2]
