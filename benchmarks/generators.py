"""Every generator at the same training time: quality of its samples, and what they cost.

    python benchmarks/generators.py                       # quick
    python benchmarks/generators.py --preset full         # for a GPU
    python benchmarks/generators.py --minutes 8           # minutes of training for each generator

GMM (every pixel on its own, and with spatial correlation), VDVAE, StyleGAN3, DDPM and flow matching learn the same
abundance maps of the sources of `study.py` (P = 5 with shade); each trains for the same time, so a costly step means
fewer steps. Learning rates: 1e-3 for diffusion and flow, the default of the others; nothing was tuned on these sources.
MST++ learns from the training HSI and makes no scenes: it reconstructs training pictures of the classes asked for; it is
listed for comparison. Sampling is timed on one CPU thread; GFLOP count convolutions and matrix products. Judged as in
`study.py`; besides: how well a logistic regression tells samples from real pictures (0.5 is chance), whether a classifier
of real pictures recognises the class, and the share of near copies of training maps (2% of unseen maps count as such).
"""

from __future__ import annotations

import statistics
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from common import Journal, Result, arguments, mean
from study import (
    CODED,
    DECODER_STEPS,
    Judge,
    Sources,
    Unmixed,
    contact_sheet,
    device,
    drawer,
    fabric,
    fit,
    load,
    options,
    unmix,
    workplace,
)
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from ubf_augment import get_generator, metrics, mix
from ubf_augment.baselines import MSTPlusPlus
from ubf_augment.seeding import derive_seed
from ubf_augment.training.loop import save_atomic

SETTINGS: dict[str, Any] = {
    "endmembers": 5, "seeds": {"quick": 1, "full": 3}, "size": {"quick": 32, "full": 64},
    "pictures per class": {"quick": 100, "full": 420}, "unmixing steps": {"quick": 300, "full": 1500},
    "minutes": {"quick": 1.5, "full": 30.0}, "batch_size": {"quick": 32, "full": 128},
}  # fmt: skip
TRAINING = {"lr": 1e-3, "warmup": 100, "ema_decay": 0.998}
# row: registered name, configuration for quick and full, options of fit, options of sample
ROWS: dict[str, tuple[str, dict[str, Any], dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "GMM, pixels on their own": ("gmm", {"spatial": False}, {"spatial": False}, {}, {}),
    "GMM, spatial": ("gmm", {"spatial": True}, {"spatial": True}, {}, {}),
    "VDVAE": ("vdvae", {}, {}, {}, {}),
    "StyleGAN3": ("stylegan3", {}, {}, {}, {}),
    "DDPM": ("ddpm", CODED["quick"], CODED["full"], TRAINING, {"steps": 20, "guidance": 1.0}),
    "flow matching": ("flow", CODED["quick"], CODED["full"], TRAINING, {"steps": 20, "guidance": 1.0}),
}
MST = "MST++ (reconstructs)"
STEPS_OF_EM = 60
QUALITY = {
    "frechet_distance": ("Fréchet distance", 1), "kernel_distance": ("kernel distance", 3), "precision": ("precision", 2),
    "recall": ("recall", 2), "density": ("density", 2), "coverage": ("coverage", 2),
    "sliced_wasserstein": ("spectra: sliced Wasserstein", 4), "nearest_angle": ("spectra: nearest angle (°)", 2),
    "discriminator": ("told from real", 2), "fidelity": ("class recognised", 2), "near_copies": ("near copies", 3),
}  # fmt: skip
COST = {
    "parameters": ("parameters (M)", 2), "gflop": ("GFLOP per sample", 2), "seconds_per_sample": ("s per sample", 3),
    "train_steps": ("training steps", 0), "train_seconds": ("training (s)", 0),
}  # fmt: skip


def more(parser: ArgumentParser) -> None:
    """Add the time of training."""
    options(parser)
    parser.add_argument(
        "--minutes", type=float, help="of training for each generator; by the preset if not given"
    )


def main() -> None:
    """Train, sample and judge every generator for every seed."""
    args = arguments(__doc__ or "", more)
    minutes = args.minutes or SETTINGS["minutes"][args.preset]
    seeds = list(range(args.seeds or SETTINGS["seeds"][args.preset]))
    sources = load(args, SETTINGS["size"][args.preset], SETTINGS["pictures per class"][args.preset])
    settings = SETTINGS | {
        "minutes": minutes,
        "steps": args.steps,
        "sources": sources.name,
        "rows": {r: list(v[1:]) for r, v in ROWS.items()},
    }
    name = "generators" if sources.name == "chikusei-aid" else f"generators-{sources.name}"
    result = Result(
        name, "Generators at equal training time", sources.text, args, seeds, settings, device(args)
    )
    journal, judge = Journal(name, args, settings), Judge(sources)
    result.journal = journal
    found: dict[str, list[dict[str, Any]]] = {}
    sheet: dict[str, Tensor] = {"unseen AID": sources.held_out}
    for seed in seeds:
        home = workplace(journal) / f"seed-{seed}"
        data = unmix(
            sources, SETTINGS["endmembers"], SETTINGS["unmixing steps"][args.preset], seed, args, home
        )
        for row in (*ROWS, MST):
            folder = home / row.replace(" ", "-")
            folder.mkdir(exist_ok=True)
            run = Run(sources, data, judge, seed, minutes, args, journal, folder)
            figures = journal.run(
                f"{row}/{seed}", lambda r=row, u=run: u.mst() if r == MST else u.generator(r)
            )
            found.setdefault(row, []).append(figures)
            result.runs.append({"generator": row, "seed": seed} | figures)
            sheet.setdefault(row, torch.load(folder / "scenes.pt"))
        figures = journal.run(f"real/{seed}", lambda d=data: floor(sources, judge, d))
        found.setdefault("unseen AID pictures, unmixed and mixed", []).append(figures)
        result.runs.append({"generator": "real", "seed": seed} | figures)
    tabulate(result, found, judge)
    result.write()
    suffix = "" if args.preset == "full" else "-quick"
    contact_sheet(args.out / f"{name}{suffix}.png", sheet, sources, sources.held_out_labels)


class Run:
    """One seed of one row."""

    def __init__(
        self, sources: Sources, data: Unmixed, judge: Judge, seed: int, minutes: float, args: Namespace, journal: Journal,
        folder: Path,
    ) -> None:  # fmt: skip
        """Keep what it needs."""
        self.sources, self.data, self.judge, self.seed = sources, data, judge, seed
        self.minutes, self.args, self.journal, self.folder = minutes, args, journal, folder

    def generator(self, row: str) -> dict[str, Any]:
        """Train for the time given, sample, judge."""
        name, quick, full, fit_options, sample_options = ROWS[row]
        config = (quick if self.args.preset == "quick" else full) | {"init_seed": self.seed}
        fit_options = {"batch_size": SETTINGS["batch_size"][self.args.preset]} | fit_options
        if name in ("ddpm", "flow"):
            fit_options["codec_steps"] = DECODER_STEPS[self.args.preset]
        key = f"steps/{row}/{self.seed}"
        steps = self.args.steps or int(
            self.journal.run(key, lambda: self.affordable(name, config, fit_options))
        )
        model, seconds = fit(name, config, self.data, steps, self.seed, self.args, self.folder, **fit_options)
        model.cpu()
        draw = drawer(model, self.data, **sample_options)
        y = None if model.num_classes is None else [0]
        with FlopCounterMode(display=False) as counter:
            model.sample(y, generator=torch.Generator().manual_seed(0), **sample_options)
        figures = {
            "parameters": sum(p.numel() for p in model.parameters()) / 1e6, "gflop": counter.get_total_flops() / 1e9,
            "seconds_per_sample": clock(lambda: model.sample(0, n=16, **sample_options)) / 16,
            "train_steps": steps, "train_seconds": seconds,
        }  # fmt: skip
        return figures | self.judged(draw)

    def affordable(self, name: str, config: dict[str, Any], fit_options: dict[str, Any]) -> int:
        """Steps that fit into the training time, from a short trial (EM converges by itself)."""
        if name == "gmm":
            return STEPS_OF_EM
        trial = get_generator(
            name,
            num_endmembers=self.data.maps.shape[1],
            size=self.sources.size,
            num_classes=len(self.data.classes),
            **config,
        )

        left = 60 * self.minutes
        if steps := fit_options.get("codec_steps"):  # the decoder is part of the training
            tried = trial.fit(
                self.data.maps, labels=self.data.labels, steps=1, fabric=fabric(self.args), progress=False,
                **fit_options | {"codec_steps": 10},
            )  # fmt: skip
            left -= steps * tried.extra["codec"]["seconds"] / 10
            fit_options = fit_options | {"codec_steps": 0}

        def timed(steps: int) -> float:
            return trial.fit(
                self.data.maps, labels=self.data.labels, steps=steps, fabric=fabric(self.args), progress=False,
                **fit_options,
            ).seconds  # fmt: skip

        timed(4)
        return max(10, round(left * 20 / timed(20)))

    def judged(self, draw: Callable[[Sequence[str], int], Tensor]) -> dict[str, Any]:
        """All figures of quality."""
        found, scenes = self.judge.both(draw, self.seed)
        save_atomic(scenes.half(), self.folder / "scenes.pt")
        return found | checks(self.sources, self.data, self.judge, scenes)

    def mst(self) -> dict[str, Any]:
        """Train MST++ on the HSIs, and reconstruct training pictures of the classes asked for."""
        s = self.sources
        model = MSTPlusPlus(s.wavelengths, rgb_scale=s.scale, rgb_gamma=s.gamma, init_seed=self.seed)
        images = [x for x, _ in s.hsis]
        common: dict[str, Any] = {"seed": self.seed, "progress": False, "fabric": fabric(self.args)}
        trial = MSTPlusPlus(s.wavelengths, init_seed=self.seed)
        trial.fit(images, steps=2, **common)
        rate = trial.fit(images, steps=8, **common).seconds / 8
        steps = self.args.steps or int(
            self.journal.run(f"steps/{MST}/{self.seed}", lambda: round(60 * self.minutes / rate))
        )
        seconds = model.fit(images, steps=steps, checkpoint=self.folder / "mst.pt", **common).seconds
        model.cpu().eval()

        def draw(names: Sequence[str], seed: int) -> Tensor:
            chosen = []
            for i, name in enumerate(names):
                g = torch.Generator().manual_seed(derive_seed(seed, i))
                if name in s.pictures:
                    pool = s.pictures[name]
                    chosen.append(
                        model.reconstruct(pool[int(torch.randint(len(pool), (), generator=g))][None])
                    )
                else:  # an HSI class: windows of the training HSIs, from their red, green, blue
                    same = [x for (x, _), own in zip(s.hsis, s.hsi_labels, strict=True) if own == name]
                    x = same[int(torch.randint(len(same), (), generator=g))]
                    r, c = (
                        int(torch.randint(n - m + 1, (), generator=g))
                        for n, m in zip(x.shape[1:], s.size, strict=True)
                    )
                    window = x[None, :, r : r + s.size[0], c : c + s.size[1]]
                    chosen.append(model.reconstruct(model.rgb(window)))
            return torch.cat(chosen)

        one = next(iter(s.pictures.values()))[:1]
        with FlopCounterMode(display=False) as counter:
            model.reconstruct(one)
        figures = {
            "parameters": sum(p.numel() for p in model.parameters()) / 1e6, "gflop": counter.get_total_flops() / 1e9,
            "seconds_per_sample": clock(lambda: model.reconstruct(one.expand(16, -1, -1, -1))) / 16,
            "train_steps": steps, "train_seconds": seconds,
        }  # fmt: skip
        return figures | self.judged(draw)


def clock(work: Callable[[], object], repeats: int = 3) -> float:
    """Median seconds after one warm-up."""
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def checks(sources: Sources, data: Unmixed, judge: Judge, scenes: Tensor) -> dict[str, float]:
    """Discriminator, class fidelity, and near copies (in red, green, blue reflectance)."""
    names = sorted(set(sources.held_out_labels))
    y = torch.tensor([names.index(n) for n in sources.held_out_labels])
    features = judge.features(scenes)
    told = metrics.discriminator_accuracy(judge.real, features)
    fidelity = metrics.class_fidelity(judge.real, y, features, y)
    e = data.endmembers
    bands = list(e.rgb_bands)
    training = []
    for k, name in enumerate(data.classes):
        if name in sources.pictures:
            a = data.maps[data.labels == k].float()
            training.append(mix(a / a.sum(1, keepdim=True), e)[:, bands])
    held_out = unmixed_scenes(sources, data)[:, bands]
    copies = metrics.memorisation(scenes[:, bands], torch.cat(training), held_out=held_out)
    return {
        "discriminator": told.mean, "fidelity": fidelity.accuracy.mean, "real_accuracy": fidelity.real_accuracy.mean,
        "near_copies": copies.share,
    }  # fmt: skip


@torch.no_grad()
def unmixed_scenes(sources: Sources, data: Unmixed) -> Tensor:
    """The unseen pictures, unmixed and mixed again."""
    from ubf_augment.radiometry import to_reflectance

    r = to_reflectance(sources.held_out, sources.scale, sources.gamma)
    return torch.cat([mix(data.model.unmix_rgb(x), data.endmembers) for x in r.split(64)])


def floor(sources: Sources, judge: Judge, data: Unmixed) -> dict[str, Any]:
    """The unseen side itself through unmixing and mixing: what a perfect generator would be given."""
    with torch.no_grad():
        hsis = mix(data.model.unmix(sources.unseen), data.endmembers)
    return judge.scenes(unmixed_scenes(sources, data)) | judge.spectral(hsis)


def tabulate(result: Result, found: dict[str, list[dict[str, Any]]], judge: Judge) -> None:
    """Both tables, and the paper's ordering."""
    for heading, columns in (("Quality of samples", QUALITY), ("Cost", COST)):
        rows = [
            [row, *(mean([v[c] for v in values]) if c in values[0] else None for c in columns)]
            for row, values in found.items()
            if any(c in values[0] for c in columns)
        ]
        result.table(
            heading, ["generator", *(t for t, _ in columns.values())], rows, [d for _, d in columns.values()]
        )

    def average(row: str, column: str) -> float:
        return statistics.fmean(v[column] for v in found[row])

    for column, what in (("frechet_distance", "Fréchet distance"), ("kernel_distance", "kernel distance")):
        values = {row: average(row, column) for row in ROWS}
        text = ", ".join(f"{r} {v:.3g}" for r, v in values.items())
        weak = ("VDVAE", "GMM, pixels on their own", "GMM, spatial")
        for good in ("DDPM", "flow matching", "StyleGAN3"):
            result.claim(
                f"{what}: {good} beats VDVAE and both mixtures",
                values[good] < min(values[w] for w in weak),
                text,
            )
    result.notes.append(
        f"Features: EfficientNet-Lite0 of pseudo-RGB, {len(judge.real)} unseen pictures and as many samples of the same "
        "classes; compare within this table only. The last row has the same pictures on both sides, after unmixing and mixing."
    )
    accuracy = statistics.fmean(
        v["real_accuracy"] for values in found.values() for v in values if "real_accuracy" in v
    )
    result.notes.append(
        f"The classifier of “class recognised” has an accuracy of {accuracy:.2f} on real pictures."
    )


if __name__ == "__main__":
    main()
