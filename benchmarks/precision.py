"""What half precision and eight bits do to spectra, and whether many evaluations drift.

    python benchmarks/precision.py --preset full

*Storage*: maps from all over the simplex (even, mixed, nearly pure; up to 99 % of a pixel is shade) and maps drawn by the
generator are kept in a type and read again; then images of them are. The spectral angle is that to single precision.

*Evaluations*: maps drawn by ancestral sampling with so many evaluations, in one batch and one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from common import Result, arguments
from torch import Tensor
from torch.nn import functional as F

from ubf_augment import HSISynthesizer, simplex
from ubf_augment.metrics.reconstruction import spectral_angles
from ubf_augment.seeding import per_sample
from ubf_augment.synthesis.maps import quantise

SETTINGS: dict[str, Any] = {
    "bundles": ["indian-pines", "aid-chikusei"], "sharpness": [1.0, 3.0, 6.0], "size": 64,
    "maps": {"quick": 4, "full": 32}, "drawn": {"quick": 16, "full": 128}, "lit": 0.01,
    "evaluations": {"quick": [20], "full": [20, 250, 1000]}, "batch": 8,
}  # fmt: skip
Kept = Callable[[Tensor], Tensor]
TYPES: dict[str, Kept] = {
    "float16": lambda x: x.half().float(),
    "bfloat16": lambda x: x.bfloat16().float(),
}


def main() -> None:
    """Keep, read, compare."""
    args = arguments(__doc__ or "")
    settings = {k: v[args.preset] if isinstance(v, dict) else v for k, v in SETTINGS.items()}
    result = Result("precision", "Half precision and many evaluations", "none.", args, [0], settings)
    worst = {}
    rows = []
    for name in settings["bundles"]:
        synth = HSISynthesizer.from_pretrained(name)
        y = torch.arange(settings["drawn"]) % synth.num_classes
        drawn = [synth.sample_abundances(y, generator=per_sample(0, range(len(y))))]
        for kind, maps in (("all over the simplex", list(spread(synth, settings))), ("drawn", drawn)):
            for what, turned in angles(synth, maps, settings["lit"]).items():
                worst[name, kind, what] = float(turned.max())
                rows.append(
                    [f"{name}, {kind}: {what}", float(turned.mean()), high(turned), worst[name, kind, what]]
                )
    result.table(
        "Spectral angle to single precision, degrees", ["kept", "mean", "99.9 %", "worst pixel"], rows, [4, 3, 3]
    )  # fmt: skip
    largest = max(v for (*_, what), v in worst.items() if what == "maps in float16")
    result.claim(
        "maps in float16, as pools and banks keep them, turn no spectrum by 0.1°",
        largest < 0.1,
        f"{largest:.3f}°",
    )
    evaluations(result, settings)
    result.notes.append(
        f"Pixels of which at least {100 * settings['lit']:g} % is not shade: the rest has no direction to speak of."
    )
    result.write()


def spread(synth: HSISynthesizer, settings: dict[str, Any]) -> Iterator[Tensor]:
    """Abundances (N, P, S, S), even to nearly pure, of which a hundredth at least is not shade."""
    shape = (settings["maps"], synth.num_endmembers, settings["size"], settings["size"])
    for i, sharpness in enumerate(settings["sharpness"]):
        z = torch.randn(shape, generator=torch.Generator().manual_seed(i))
        a = simplex.from_logits(sharpness * z)
        seen = F.pad(simplex.closure(a[:, :-1].clamp_min(1e-9)), (0, 0, 0, 0, 0, 1))
        yield (1 - settings["lit"]) * a + settings["lit"] * seen


def angles(synth: HSISynthesizer, maps: list[Tensor], lit: float) -> dict[str, Tensor]:
    """Degrees by which each pixel turns, for each way to keep maps or images."""
    ways: dict[str, tuple[Kept, Kept]] = {
        **{f"maps in {t}": (lambda a, f=f: simplex.closure(f(a)), lambda x: x) for t, f in TYPES.items()},  # type: ignore[misc]
        "maps in eight bits": (lambda a: quantise(a).float() / 255, lambda x: x),
        **{f"images in {t}": (lambda a: a, f) for t, f in TYPES.items()},
    }
    found: dict[str, list[Tensor]] = {what: [] for what in ways}
    for a in maps:
        x, shown = synth.mix(a), (a[:, :-1].sum(1) >= lit * 0.999).flatten()
        for what, (keep_maps, keep_images) in ways.items():
            turned = spectral_angles(keep_images(synth.mix(keep_maps(a))).double(), x.double())
            found[what].append(turned.flatten()[shown])
    return {what: torch.cat(parts) for what, parts in found.items()}


def high(x: Tensor) -> float:
    """The value that one in a thousand exceeds."""
    return float(x.kthvalue(max(1, round(0.999 * len(x)))).values)


def evaluations(result: Result, settings: dict[str, Any]) -> None:
    """One batch against one by one, and the constraints."""
    synth, rows = HSISynthesizer.from_pretrained("indian-pines"), []
    n = settings["batch"]
    y = torch.arange(n) % synth.num_classes
    for steps in settings["evaluations"]:
        whole, single = (
            synth.generator.sample(y, generator=per_sample(0, range(n)), steps=steps, sampler="ddpm", batch_size=size)
            for size in (n, 1)
        )  # fmt: skip
        off = float((whole.double().sum(1) - 1).abs().max())
        rows.append(
            [str(steps), 1e7 * float((whole - single).abs().max()), 1e7 * off, 1e7 * float(whole.min())]
        )
    columns = ["evaluations", "one batch against one by one", "sum off one by", "least abundance"]
    result.table(f"indian-pines, ancestral sampling, {n} maps, in 1e-7", columns, rows, [1, 1, 1])
    result.claim(
        "many evaluations stay on the simplex and do not know their batch",
        all(row[1] < 20 and row[2] < 10 and row[3] >= 0 for row in rows), f"differences up to {max(r[1] for r in rows):.1f}e-7",
    )  # fmt: skip


if __name__ == "__main__":
    main()
