"""Generation in different spaces by one diffusion network: abundances, a free latent, the cube itself.

Used by `endmembers.py` and `unmixing_ablation.py`. Every space gets the same network (but for its number of channels),
steps and batches. The network sees patches of 4×4 pixels as channels, up to 944 of them, more than it is wide; it
predicts the clean code, which such a network can do, not noise or velocity, which are white in all channels. A space
without unmixing has no place for RGB pictures, so they are brought to all bands by the quadratic regression from red,
green, blue, fitted on the training HSIs: what one would do without unmixing. Reconstruction is measured on unseen HSIs.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from common import Journal, Result, arguments, mean
from study import Judge, Sources, contact_sheet, device, drawer, fabric, fit, load, options, unmix, workplace
from torch import Tensor

from ubf_augment import metrics, mix
from ubf_augment.baselines import CubeDiffusion, SpectralAutoencoder
from ubf_augment.radiometry import to_reflectance
from ubf_augment.seeding import per_sample
from ubf_augment.spectra import rgb_bands
from ubf_augment.training.loop import save_atomic

Space = tuple[str, int]  # kind and dimension; 0: as many as there are bands
Draw = Callable[[Sequence[str], int], Tensor]
SETTINGS: dict[str, Any] = {
    "seeds": {"quick": 1, "full": 3}, "size": {"quick": 32, "full": 64}, "pictures per class": {"quick": 100, "full": 420},
    "unmixing steps": {"quick": 300, "full": 1500}, "autoencoder steps": {"quick": 400, "full": 3000},
    "steps": {"quick": 900, "full": 30_000}, "batch_size": {"quick": 32, "full": 128},
    "network": {
        "quick": {"widths": [48, 96], "factor": 4, "prediction": "sample"},
        "full": {"widths": [96, 192, 256], "factor": 4, "prediction": "sample"},
    },
    "sampling": {"steps": 20, "guidance": 1.0}, "lr": 1e-3, "ema_decay": 0.998,
}  # fmt: skip
COLUMNS = {
    "rmse": ("RMSE", 4), "psnr": ("PSNR (dB)", 1), "ssim": ("SSIM", 3), "sad": ("SAD (°)", 2),
    "frechet_distance": ("Fréchet distance", 1), "kernel_distance": ("kernel distance", 3),
    "recall": ("recall", 2), "precision": ("precision", 2), "coverage": ("coverage", 2),
    "sliced_wasserstein": ("spectra: sliced Wasserstein", 4), "nearest_angle": ("spectra: nearest angle (°)", 2),
    "negative_share": ("negative values", 3),
}  # fmt: skip


def title(space: Space) -> str:
    """Row title."""
    return f"{space[0]} ({space[1]})" if space[1] else space[0]


def compare(
    name: str, heading: str, doc: str, spaces: Sequence[Space],
    claims: Callable[[Result, Callable[[Space, str], float]], None],
) -> None:  # fmt: skip
    """Measure every space for every seed; write table, figure and claims."""
    args = arguments(doc, options)
    seeds = list(range(args.seeds or SETTINGS["seeds"][args.preset]))
    steps = args.steps or SETTINGS["steps"][args.preset]
    sources = load(args, SETTINGS["size"][args.preset], SETTINGS["pictures per class"][args.preset])
    settings = SETTINGS | {"spaces": [title(s) for s in spaces], "steps": steps, "sources": sources.name}
    name = name if sources.name == "chikusei-aid" else f"{name}-{sources.name}"
    result = Result(name, heading, sources.text, args, seeds, settings, device(args))
    journal, judge = (
        Journal("spaces", args, SETTINGS | {"steps": steps, "sources": sources.name}),
        Judge(sources),
    )
    result.journal = journal
    found: dict[Space, list[dict[str, Any]]] = {s: [] for s in spaces}
    for seed in seeds:
        for space in spaces:
            key = f"{title(space)}/{seed}"
            folder = workplace(journal) / key.replace("/", "-")
            figures = journal.run(
                key, lambda s=space, k=seed, f=folder: measure(sources, judge, s, k, steps, args, f)
            )
            found[space].append(figures)
            result.runs.append({"space": title(space), "seed": seed} | figures)
    rows = [
        [title(space), *(mean([v[c] for v in values]) if c in values[0] else None for c in COLUMNS)]
        for space, values in found.items()
    ]
    result.table(
        "Spaces of generation",
        ["space", *(t for t, _ in COLUMNS.values())],
        rows,
        [d for _, d in COLUMNS.values()],
    )
    claims(result, lambda space, column: sum(v[column] for v in found[space]) / len(seeds))
    result.notes.append(
        "Fréchet and kernel distance, precision, recall and coverage: EfficientNet-Lite0 features of pseudo-RGB, "
        f"{len(judge.real)} unseen pictures and as many samples of the same classes"
        + (
            ", fewer than the features have dimensions: compare within this table only."
            if len(judge.real) <= 1280
            else "."
        )
    )
    result.write()
    sheet = {"unseen AID": sources.held_out}
    for space in spaces:
        sheet[title(space)] = torch.load(workplace(journal) / f"{title(space)}-{seeds[0]}" / "scenes.pt")
    suffix = "" if args.preset == "full" else "-quick"
    contact_sheet(args.out / f"{name}{suffix}.png", sheet, sources, sources.held_out_labels)


def measure(
    sources: Sources, judge: Judge, space: Space, seed: int, steps: int, args: Namespace, folder: Path
) -> dict[str, Any]:
    """Train in one space, and judge its samples."""
    kind, dimension = space
    network = SETTINGS["network"][args.preset] | {"init_seed": seed}
    training = {
        "batch_size": SETTINGS["batch_size"][args.preset], "lr": SETTINGS["lr"], "warmup": min(100, steps // 10),
        "ema_decay": SETTINGS["ema_decay"],
    }  # fmt: skip
    reconstruct: Callable[[Tensor], Tensor] | None = None
    if kind == "abundances":
        data = unmix(sources, dimension, SETTINGS["unmixing steps"][args.preset], seed, args, folder)
        model, seconds = fit(
            "ddpm", network | {"codec": "unshuffle"}, data, steps, seed, args, folder, **training
        )
        draw, channels = drawer(model, data, **SETTINGS["sampling"]), dimension
        reconstruct = lambda x: mix(data.model.unmix(x), data.endmembers)  # noqa: E731
    else:
        folder.mkdir(parents=True, exist_ok=True)
        maps, labels, classes = lifted(sources)
        decode: Callable[[Tensor], Tensor] = lambda z: z  # noqa: E731
        if kind == "free latent":
            coder = SpectralAutoencoder(maps.shape[1], dimension, init_seed=seed)
            coder.fit(
                evenly(maps, labels, classes), steps=SETTINGS["autoencoder steps"][args.preset], seed=seed, fabric=fabric(args),
                checkpoint=folder / "autoencoder.pt", progress=False,
            )  # fmt: skip
            coder.cpu().eval()
            with torch.no_grad():
                maps = torch.cat([coder.encode(x) for x in maps.split(64)])
            decode, reconstruct = coder.decode, coder
        channels = maps.shape[1]
        free = CubeDiffusion(channels, sources.size, len(classes), **network)
        seconds = free.fit(
            maps, labels=labels, steps=steps, seed=seed, fabric=fabric(args), checkpoint=folder / "cube.pt",
            progress=False, **training,
        ).seconds  # fmt: skip
        draw = free_drawer(free, classes, decode)
    judged, scenes = judge.both(draw, seed)
    save_atomic(scenes.half(), folder / "scenes.pt")
    figures = {"channels": channels, "train_seconds": seconds, **judged}
    return figures if reconstruct is None else figures | reconstruction(sources.unseen, reconstruct)


def evenly(maps: Tensor, labels: Tensor, classes: list[str]) -> Tensor:
    """As many windows of HSIs as pictures, by repetition: `UnmixingModel.fit` sees both alike, too."""
    own = torch.tensor([c.startswith("HSI ") for c in classes])[labels]
    repeats = -(-int((~own).sum()) // int(own.sum()))
    return torch.cat([maps[~own], maps[own].repeat(repeats, 1, 1, 1)])


def lifted(sources: Sources) -> tuple[Tensor, Tensor, list[str]]:
    """The training side as cubes (N, C, S, S): pictures by quadratic regression, HSIs as half-overlapping windows."""
    size, bands = sources.size[0], list(rgb_bands(sources.wavelengths))
    pixels = torch.cat([x.flatten(1).T for x, _ in sources.hsis]).double()
    weights = torch.linalg.lstsq(_quadratic(pixels[:, bands]), pixels).solution.float()
    cubes, labels, classes = [], [], [*sources.pictures, *dict.fromkeys(sources.hsi_labels)]
    for name, pictures in sources.pictures.items():
        r = to_reflectance(pictures, sources.scale, sources.gamma).movedim(1, -1)
        cubes.append((_quadratic(r.reshape(-1, 3)) @ weights).view(*r.shape[:3], -1).movedim(-1, 1))
        labels += [classes.index(name)] * len(pictures)
    for (x, _), name in zip(sources.hsis, sources.hsi_labels, strict=True):
        windows = x.unfold(1, size, size // 2).unfold(2, size, size // 2).flatten(1, 2).movedim(1, 0)
        cubes.append(windows)
        labels += [classes.index(name)] * len(windows)
    return torch.cat(cubes), torch.tensor(labels), classes


def _quadratic(rgb: Tensor) -> Tensor:
    r, g, b = rgb.unbind(-1)
    return torch.stack([torch.ones_like(r), r, g, b, r * r, g * g, b * b, r * g, r * b, g * b], -1)


def free_drawer(model: CubeDiffusion, classes: list[str], decode: Callable[[Tensor], Tensor]) -> Draw:
    """Sampling of HSIs of named classes without unmixing."""

    @torch.no_grad()
    def draw(names: Sequence[str], seed: int) -> Tensor:
        y = torch.tensor([classes.index(n) for n in names])
        made = model.sample(y, generator=per_sample(seed, range(len(y))), **SETTINGS["sampling"]).cpu()
        return torch.cat([decode(x) for x in made.split(64)])

    return draw


@torch.no_grad()
def reconstruction(x: Tensor, through: Callable[[Tensor], Tensor]) -> dict[str, float]:
    """Figures of unseen HSIs through a space."""
    made = through(x)
    return {
        "rmse": float(metrics.rmse(made, x)), "psnr": float(metrics.psnr(made, x, over="cube")),
        "ssim": float(metrics.ssim(made, x)), "sad": float(metrics.sad(made, x)),
    }  # fmt: skip
