"""The augmentation table: scene classification with and without synthetic images.

    python benchmarks/augmentation_table.py --dataset aid-few --models resnet18 --rows none affine ubf --seeds 3

For each split, network and row (see `rows.py`): one training with the same number of optimiser steps, scored once on the test
side. Rows are paired: initial weights, the order of the real images and the split are the same for all. Every row has the same
number of plans, and the one to use is chosen on inner splits of the training side (preset full; quick takes the first plan of
each row, and says so). All that is learned, endmembers and generators too, sees the training side of the split only.

Where all splits share one test side (aid-few, hsrs-sc), a plan is chosen once, on the training side of split 0; elsewhere for
each split, since one split's training scenes are another's test scenes.

Finished trainings are kept in runs/benchmarks, one JSON line each; the same command goes on after an interruption, and more
seeds, rows or networks are added to what is there.
"""

from __future__ import annotations

import hashlib
import json
import statistics
import sys
import time
from argparse import ArgumentParser, Namespace
from dataclasses import asdict, dataclass, replace
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import torch
from common import Journal, Result, arguments
from gains import figure, tables
from paired import pack
from protocols import PROTOCOLS, Protocol, open_protocol
from rows import (
    AUTOMATIC,
    BANKS,
    BASELINE,
    LEARNED,
    NEEDS_GENERATOR,
    ROWS,
    Plan,
    augmentation,
    pretrain_bands,
)
from study import CODED

from ubf_augment import HSISynthesizer
from ubf_augment.classification import (
    LabelledImages,
    Recipe,
    choose,
    decide,
    imagenet_weights,
    predict,
    score,
    train_classifier,
)
from ubf_augment.pretraining import pretrain
from ubf_augment.seeding import derive_seed
from ubf_augment.training import make_fabric
from ubf_augment.training.loop import save_atomic

IMAGENET = ("tf_efficientnet_lite0",)  # where users start from pretrained weights
SMALL_CODE = {"codec": "unshuffle", "factor": 2, "widths": (48, 80), "layers": 1, "attention": (1,)}
SETTINGS: dict[str, Any] = {
    "steps": {"quick": 300, "full": 1500}, "batch_size": 32, "lr": 1e-3, "weight_decay": 0.05,
    "tuning": {"quick": 0, "full": 2}, "seeds": {"quick": 2, "full": None},
    "endmembers": 8, "refinements": 40, "generator steps": {"quick": 300, "full": 6000},
    "tuning steps": {"quick": 100, "full": 1000},
    "pretraining steps": {"quick": 1000, "full": 6000},
}  # fmt: skip
OPTIONS: dict[str, dict[str, Any]] = {  # of the networks; from scratch but for EfficientNet-Lite0
    "alexnet": {}, "resnet18": {}, "vgg16": {"drop_rate": 0.5}, "tf_efficientnet_lite0": {},
}  # fmt: skip


def mark(*parts: Any) -> str:
    """Twelve letters that change with the parts: what was done by another plan is not taken for this one."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:12]


def options(parser: ArgumentParser) -> None:
    """Add this benchmark's options."""
    parser.add_argument("--dataset", choices=PROTOCOLS, default="aid-few")
    parser.add_argument(
        "--root", type=Path, help="the data set's own folder, for hsrs-sc, eurosat and folder"
    )
    parser.add_argument("--models", nargs="+", default=["resnet18"], help="timm names")
    parser.add_argument(
        "--rows", nargs="+", choices=sorted(ROWS), default=["none", "affine", "spectral-gain", "ubf"]
    )
    parser.add_argument(
        "--steps", type=int, help="optimiser steps of each training; by the preset if not given"
    )
    parser.add_argument("--size", type=int, help="side that the networks see")
    parser.add_argument(
        "--per-class", type=int, nargs="+", help="training images per class, given to the classes in turn"
    )
    parser.add_argument(
        "--tuning", type=int, help="inner splits on which a plan is chosen; 0: the first plan"
    )
    parser.add_argument("--download", action="store_true", help="fetch eurosat if it is not there")
    parser.add_argument("--tag", help="added to the result's name: another table of the same data set")
    parser.add_argument("--accelerator", default="auto", help="auto, cpu, cuda")
    parser.add_argument("--precision", default="32-true", help="32-true, bf16-mixed")


@dataclass
class Study:
    """What one call works with."""

    args: Namespace
    settings: dict[str, Any]
    protocol: Protocol
    journal: Journal

    def __post_init__(self) -> None:
        self.fabric = make_fabric(accelerator=self.args.accelerator, precision=self.args.precision)
        self.split = lru_cache(maxsize=2)(self.protocol.load)  # a split of the twin takes a gigabyte
        self.synth = cache(self._synth)
        self.bank = cache(self._bank)
        self.recognised = cache(self._recognised)

    def recipe(self, model: str, plan: Plan) -> Recipe:
        """How a network is trained."""
        s = self.settings
        base = Recipe(
            model, s["steps"], s["batch_size"], s["lr"], s["weight_decay"], size=self.protocol.size,
            model_options=OPTIONS.get(model, {}),
        )  # fmt: skip
        longer = s["pretraining steps"] if plan.pretrain == "longer" else 0
        return replace(base, **{**plan.recipe, "steps": base.steps + longer})

    def _synth(self, number: int, generator: bool) -> HSISynthesizer:
        """Endmembers, residuals and a generator of the training side of a split."""
        train, s = self.split(number).train, self.settings
        scale, gamma = self.protocol.radiometry
        side = (train.x.shape[2], train.x.shape[3])
        kind: dict[str, Any] = {"generator": "gmm", "generator_steps": 1}
        if generator and self.protocol.pretrained:
            return self._tuned(train)
        if generator:
            code = CODED[self.args.preset] if min(side) >= 32 else SMALL_CODE
            kind = {"generator": "ddpm", "generator_steps": s["generator steps"], "generator_config": code}
        return HSISynthesizer.fit(
            [(x, train.wavelengths) for x in train.x], None, hsi_labels=[train.classes[k] for k in train.y.tolist()],
            num_endmembers=min(s["endmembers"], len(train.wavelengths) + 1), size=side, unmixing_steps=0, restarts=2,
            refine_iterations=s["refinements"], rgb_scale=scale, rgb_gamma=gamma, seed=number, progress=False,
            fabric=self.fabric, **kind,
        )  # fmt: skip

    def _tuned(self, train: LabelledImages) -> HSISynthesizer:
        """The packaged bundle for the sensor and the classes of a training side."""
        names = self.protocol.class_map
        synth = HSISynthesizer.from_pretrained(self.protocol.pretrained).adapt(
            train.x, wavelengths=train.wavelengths, labels=train.y, classes=train.classes, class_map=names
        )
        return synth.finetune(
            train.x, train.y, classes=train.classes, class_map=names, steps=self.settings["tuning steps"],
            batch_size=16, warmup=20, fabric=self.fabric, progress=False,
        )  # fmt: skip

    def _bank(self) -> dict[str, torch.Tensor] | None:
        """Labelled pictures under the protocol's class names."""
        if self.protocol.pictures is None:
            return None
        found, names = self.protocol.pictures(), self.protocol.class_map
        return {ours: found[theirs] for ours, theirs in names.items() if theirs in found}

    def start(self, model: str, plan: Plan, number: int) -> tuple[dict[str, torch.Tensor] | None, float]:
        """Pretrained weights for a split, and the seconds that they took; kept beside the journal."""
        train = self.split(number).train
        if plan.pretrain not in LEARNED:
            return (imagenet_weights(model, len(train.wavelengths)) if model in IMAGENET else None), 0.0
        path = self.journal.path.with_suffix("") / f"{model}-{plan.pretrain}-{number}.pt"
        if not path.exists():
            begin, resume = time.monotonic(), path.with_suffix(".resume")
            recipe = replace(self.recipe(model, Plan()), steps=self.settings["pretraining steps"])
            same: dict[str, Any] = {
                "checkpoint": resume,
                "seed": derive_seed(number, 5),
                "fabric": self.fabric,
            }
            if plan.pretrain == "abundances":
                done = pretrain(self.synth(number, False), train.x, recipe, progress=False, **same)
            else:
                done = pretrain_bands(train.x, train.wavelengths, recipe, **same)
            save_atomic({"weights": done.backbone(), "seconds": time.monotonic() - begin}, path)
            resume.unlink()
        found = torch.load(path, weights_only=True)
        return found["weights"], float(found["seconds"])

    def augment(self, model: str, row: str, plan: Plan, number: int) -> Any:
        """The augmentation of a plan, made for the training side of a split."""
        train = self.split(number).train
        synth = self.synth(number, row in NEEDS_GENERATOR) if plan.ubf is not None else None
        bank = (self.recognised(model, number) if plan.kept else self.bank()) if row in BANKS else None
        return augmentation(plan, train.wavelengths, train.classes, synth, bank, self.settings["steps"])

    def _recognised(self, model: str, number: int) -> dict[str, torch.Tensor]:
        """Labelled pictures whose class a network trained as ``affine`` recognises, lifted to the sensor."""
        split, synth, plan = self.split(number), self.synth(number, False), ROWS[BASELINE][0]
        judge = train_classifier(
            split.train, self.recipe(model, plan), self.augment(model, BASELINE, plan, number),
            seed=derive_seed(number, 9), fabric=self.fabric,
        ).model  # fmt: skip
        found = {}
        for name, pictures in (self.bank() or {}).items():
            parts = enumerate(torch.split(pictures, 64))
            x = torch.cat([synth.lift(part.to(synth.device), seed=i).cpu() for i, part in parts])
            found[name] = pictures[predict(judge, x).argmax(1) == split.train.classes.index(name)]
        print({name: len(kept) for name, kept in found.items()}, file=sys.stderr)
        return {name: kept for name, kept in found.items() if len(kept)}

    def plan(self, model: str, row: str, number: int) -> int:
        """Which plan of a row to use for a split; chosen on inner splits of its training side."""
        repeats = self.settings["tuning"]
        if not repeats:
            return 1 if row in AUTOMATIC else 0
        where = 0 if self.protocol.fixed_test else number
        found = self.journal.run(
            f"tune/{model}/{row}/{where}/{mark(self.plans(model, row, number))}",
            lambda: self._tune(model, row, where, repeats),
        )
        return int(found["chosen"])

    def plans(self, model: str, row: str, number: int) -> list[Plan]:
        """The plans of a row; the automatic row's are built on the plan that ``affine`` was tuned to."""
        plans = list(ROWS[row])
        if row not in AUTOMATIC:
            return plans
        base = ROWS[BASELINE][self.plan(model, BASELINE, number)]
        return [replace(p, affine=base.affine, recipe={**base.recipe, **p.recipe}) for p in plans]

    def _tune(self, model: str, row: str, number: int, repeats: int) -> dict[str, Any]:
        split, scores = self.split(number), {}
        for i, plan in enumerate(self.plans(model, row, number)):
            found = choose(
                split.train, {str(i): self.augment(model, row, plan, number)}, str(i), self.recipe(model, plan),
                groups=split.groups, repeats=repeats, seed=derive_seed(number, 11),
                start=self.start(model, plan, number)[0], fabric=self.fabric,
            )  # fmt: skip
            scores[str(i)] = found.scores[str(i)]
        if row in AUTOMATIC:
            choice = decide(scores, "0")
            return {"chosen": choice.name, **choice.record()}
        return {"chosen": max(scores, key=lambda k: statistics.fmean(scores[k])), "scores": scores}

    def run(self, model: str, row: str, number: int) -> dict[str, Any]:
        """One training and its scores on the test side."""
        chosen = self.plan(model, row, number)
        plan = self.plans(model, row, number)[chosen]
        found: dict[str, Any] = self.journal.run(
            f"{model}/{row}/{number}/{mark(plan)}", lambda: self._run(model, row, number, chosen)
        )
        return found

    def _run(self, model: str, row: str, number: int, chosen: int) -> dict[str, Any]:
        split, plan = self.split(number), self.plans(model, row, number)[chosen]
        recipe = self.recipe(model, plan)
        start, before = self.start(model, plan, number)
        done = train_classifier(
            split.train, recipe, self.augment(model, row, plan, number), seed=derive_seed(number, 7), start=start,
            fabric=self.fabric,
        )  # fmt: skip
        logits = predict(done.model, split.test.x)
        scores, seen = score(logits, split.test.y), score(predict(done.model, split.train.x), split.train.y)
        print(
            f"{model} {row} split {number}: {scores.accuracy:.1f} % (train {seen.accuracy:.1f} %)",
            file=sys.stderr,
        )
        return {
            "model": model, "row": row, "split": number, "plan": chosen, **asdict(scores), "train_accuracy": seen.accuracy,
            "loss": done.loss, "synthetic": done.synthetic, "seconds": round(done.seconds + before, 1),
            "steps": recipe.steps + (self.settings["pretraining steps"] if plan.pretrain in LEARNED else 0),
            "right": pack((logits.argmax(1) == split.test.y).tolist()),
        }  # fmt: skip


def main() -> None:
    """Run, compare, write."""
    args = arguments(__doc__ or "", options)
    settings = {k: v[args.preset] if isinstance(v, dict) else v for k, v in SETTINGS.items()}
    if args.steps is not None:
        settings["steps"] = args.steps
    if args.tuning is not None:
        settings["tuning"] = args.tuning
    protocol = open_protocol(
        args.dataset, args.root or args.data, size=args.size, per_class=args.per_class, download=args.download
    )
    settings |= {
        "size": protocol.size,
        "per class": args.per_class,
        "dataset": args.dataset,
        "precision": args.precision,
        "networks": mark(OPTIONS, CODED, SMALL_CODE),
    }
    if args.root is not None:  # a journal belongs to one folder
        settings["root"] = mark(args.root.expanduser().resolve())
    if protocol.pictures is None and (lost := [r for r in args.rows if r in BANKS]):
        raise SystemExit(
            f"{args.dataset} has no labelled pictures of another source: leave out {' '.join(lost)}"
        )
    name = f"augmentation-{args.dataset}" + "-imbalanced" * (len(set(args.per_class or ())) > 1)
    name += f"-{args.tag}" if args.tag else ""
    journal = Journal(name, args, settings)
    study = Study(args, settings, protocol, journal)
    count = args.seeds or settings["seeds"] or protocol.splits
    result = Result(
        name,
        f"Augmentation, {args.dataset}",
        protocol.text,
        args,
        range(count),
        settings,
        str(study.fabric.device),
    )
    result.journal = journal
    rows = [r for r in ROWS if r in args.rows]
    grid = {
        model: {row: [] for row in rows} for model in args.models
    }  # split by split, so that an interruption leaves whole splits
    for number in range(count):
        for model in args.models:
            for row in rows:
                grid[model][row].append(study.run(model, row, number))
    for model in args.models:
        tables(result, model, grid[model], protocol, split_classes(study))
    result.runs = [run for model in grid.values() for row in model.values() for run in row]
    if protocol.simulated:
        result.notes.append(
            "The images are simulated: an instrument to find faults with, no evidence on real data."
        )
    result.notes.append(
        "Seconds are those of the classifiers' trainings, pretraining included, without endmembers and generator."
    )
    if not settings["tuning"]:
        result.notes.append("Nothing is tuned: the first plan of each row (of `ubf`: its second) is taken.")
    figure(json.loads(result.write().read_text()), protocol, args.out)


def split_classes(study: Study) -> tuple[str, ...]:
    """The protocol's class names."""
    return study.split(0).train.classes


if __name__ == "__main__":
    main()
