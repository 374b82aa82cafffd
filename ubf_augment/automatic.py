"""The safe default: try what an `UBFAugment` could do on a part of the training set, keep what helps, or nothing."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxtyping import Int64
from torch import Tensor, nn

from ubf_augment import classification
from ubf_augment.augment import UBFAugment
from ubf_augment.classification import Choice, LabelledImages, Recipe, read_images
from ubf_augment.errors import LabelError
from ubf_augment.strategies import CLASS_STRATEGIES
from ubf_augment.training.loop import digest

if TYPE_CHECKING:
    from lightning.fabric import Fabric

NOTHING = "no replacement"
_SHARES = (0.25, 0.5, 0.75)
Option = tuple[float, Any]  # p and strategy


def options(augment: UBFAugment) -> dict[str, Option]:
    """What `choose` tries: name → (p, strategy).

    For ``strategy="auto"`` every strategy that can work here, and ``vary`` with ``fuse``; else the given one in three shares.
    Where classes are balanced or drawn by probability (``labels``), only those that draw a class.
    """
    possible = augment.possible
    if augment.asked != "auto":
        name = augment.asked if isinstance(augment.asked, str) else " and ".join(possible)
        return {f"{name}, p = {p:g}": (p, augment.asked) for p in _SHARES}
    found: dict[str, Option] = {}
    for s in ("vary", "fuse", "edit", "generate", "bank"):
        if s in possible and (augment.policy.mode == "keep" or s in CLASS_STRATEGIES):
            p = 0.5 if s in ("vary", "fuse") else 0.25
            found[f"{s}, p = {p:g}"] = (p, s)
    if {"vary", "fuse"} <= set(possible) and augment.policy.mode == "keep":
        found["vary and fuse, p = 0.5"] = (0.5, {"vary": 1.0, "fuse": 1.0})
    return found


def choose(
    augment: UBFAugment,
    train: LabelledImages | Any,
    *,
    classes: Sequence[str] | None = None,
    after: Callable[[], nn.Module] | None = None,
    recipe: Recipe | None = None,
    groups: Int64[Tensor, " n"] | None = None,
    repeats: int = 5,
    seed: int = 0,
    fabric: Fabric | None = None,
    progress: bool = True,
    path: Path | str | None = None,
) -> Choice:
    """Decide the strategy and the share of an `UBFAugment` on its training set, and set them.

    A network is trained with every option and without any, on ``repeats`` splits of the training set, and scored on the part
    left out. An option is taken only if its mean paired gain is significant (see `classification.decide`); otherwise nothing
    will be replaced (p = 0). Prints the table. Cost: (options + 1) × repeats trainings by the recipe.

    The synthesizer is used as it is. If it was fitted, adapted or fine-tuned on the same training set, it has seen the parts
    that are left out, and ``generate`` and ``edit`` look better here than they are.

    Args:
        augment: with ``p="auto"``, or any other, whose p and strategy are then replaced.
        train: the training set: `LabelledImages`, or a data set of ``{"image", "label"}`` in reflectance.
        classes: names in label order, for a data set without ``classes``.
        after: makes the augmentation that follows in training, such as flips and rotations: give the one that you use.
        recipe: network and steps; ResNet-18 and 300 steps by default. Take your own network and a good part of your steps.
        groups: (N,) int64: images of one group share pixels or a place, and stay on one side.
        repeats: number of splits.
        seed: of everything.
        fabric: device and precision.
        progress: show a progress bar and the table.
        path: JSON file to keep the choice in; if it is there, it is read instead. It belongs to these images, options, recipe
            and seed.

    Returns:
        The choice, with all scores.

    Raises:
        LabelError: if the data set names no classes, or others than the augmentation.
        ValueError: if ``path`` holds another choice, or no split is possible.
    """
    data = (
        train if isinstance(train, LabelledImages) else read_images(train, augment.synth.wavelengths, classes)
    )
    if augment.index.names and tuple(augment.index.names) != data.classes:
        raise LabelError(
            f"the training set has the classes {', '.join(data.classes)}, the augmentation "
            f"{', '.join(augment.index.names)}: give UBFAugment classes=… in the label order of the training set"
        )
    tried, recipe = options(augment), recipe or Recipe()
    mark = f"{digest(data.x, data.y, groups)} {tried} {recipe} {repeats} {seed}"
    file = None if path is None else Path(path)
    found = None if file is None or not file.exists() else _read(file, mark)
    if found is None:
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
        found = _try(augment, tried, data, after, recipe, groups, repeats, seed, fabric, progress)
        if file is not None:
            aside = file.with_name(f".{file.name}.{os.getpid()}")
            aside.write_text(json.dumps({**found.record(), "of": mark}, indent=1), encoding="utf-8")
            os.replace(aside, file)
    if progress:
        print(found.table())
    p, strategy = tried.get(found.name, (0.0, augment.asked))
    augment.settle(p, strategy)
    return found


def _try(
    augment: UBFAugment, tried: Mapping[str, Option], data: LabelledImages, after: Callable[[], nn.Module] | None,
    recipe: Recipe, groups: Tensor | None, repeats: int, seed: int, fabric: Fabric | None, progress: bool,
) -> Choice:  # fmt: skip
    from tqdm.auto import tqdm

    def then() -> nn.Module:
        return nn.Identity() if after is None else after()

    def made(option: Option, number: int) -> nn.Module:
        return nn.Sequential(augment.variant(*option, seed=number), then())

    candidates: dict[str, classification.Factory] = {NOTHING: lambda _: then()}
    candidates |= {name: partial(made, option) for name, option in tried.items()}
    with tqdm(total=len(candidates) * repeats, desc="choosing", disable=not progress) as bar:
        return classification.choose(
            data, candidates, NOTHING, recipe, groups=groups, repeats=repeats, seed=seed, fabric=fabric,
            tick=bar.update,
        )  # fmt: skip


def _read(file: Path, mark: str) -> Choice:
    try:
        stored = json.loads(file.read_text(encoding="utf-8"))
        if stored.pop("of") != mark:
            raise ValueError("it is of other images, options or settings")
        return Choice(**stored)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{file} cannot be used ({error}): delete it, and the choice is made anew"
        ) from error
