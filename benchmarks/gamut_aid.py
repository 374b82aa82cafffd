"""RGB pictures through a bundle: unmixed, decoded to all bands, and looked at in red, green and blue again.

    python benchmarks/gamut_aid.py --preset full --bundle aid-chikusei

Per class of AID: the relative error Σ‖r̂ − r‖ / Σ‖r‖ and the mean spectral angle of red, green and blue (pixels darker than
‖r‖ = 0.001 have no angle), the share of pixels within 5%, and what the best possible abundances would reach: where that
is low, the class shows colours that no mixture of the endmembers has.
"""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

import torch
from common import Result, arguments, bundle_option
from scenes import aid
from torch import Tensor

from ubf_augment import HSISynthesizer
from ubf_augment.plotting.parts import finish
from ubf_augment.radiometry import to_display, to_reflectance
from ubf_augment.spectra import rgb_bands
from ubf_augment.unmixing import gamut_report, reproduction

SETTINGS = {"pictures per class": {"quick": 10, "full": 60}, "worst error": 0.10, "worst angle": 3.0}
_CHUNK = 16


def main() -> None:
    """Measure every class."""
    args = arguments(__doc__ or "", bundle_option)
    synth = HSISynthesizer.from_pretrained(args.bundle)
    name = Path(args.bundle).name
    result = Result(
        "gamut_aid" if name == "aid-chikusei" else f"gamut_aid-{name}", f"AID pictures through the bundle {name}",
        "AID scenes (150×150), shrunk to the size of the bundle's maps.", args, [0], SETTINGS | {"bundle": name},
    )  # fmt: skip
    rows, pairs = [], []
    for kind, pictures in aid(args.data, synth.size, SETTINGS["pictures per class"][args.preset]):
        found, pair = measure(synth, kind, pictures)
        result.runs.append({"class": kind, "pictures": len(pictures)} | found)
        rows.append([kind, *found.values()])
        pairs.append((kind, *pair))
    rows.append(["all classes (mean)", *(sum(r[i] for r in rows) / len(rows) for i in range(1, 6))])
    columns = ["class", "relative error", "angle (°)", "within 5%", "best relative error", "best within 5%"]
    result.table("Red, green and blue of the decoded pictures", columns, rows, [4, 2, 3, 4, 3])
    for column, limit, what in (
        (1, SETTINGS["worst error"], "relative error"),
        (2, SETTINGS["worst angle"], "angle"),
    ):
        worst = max(rows[:-1], key=lambda r: r[column])
        text = f"{what} at most {limit:g} in every class"
        result.claim(text, worst[column] <= limit, f"worst {worst[0]}: {worst[column]:.3g}")
    result.write()
    picture(args, result, pairs)


@torch.no_grad()
def measure(
    synth: HSISynthesizer, kind: str, pictures: Tensor
) -> tuple[dict[str, float], tuple[Tensor, Tensor]]:
    """Figures of one class, and its first picture beside what it is decoded to."""
    bands = list(rgb_bands(synth.wavelengths))
    known = kind in synth.classes
    made, true = [], []
    for part in pictures.split(_CHUNK):
        y = [kind] * len(part) if known else None
        made.append(synth.mix(synth.unmix_rgb(part, y), y)[:, bands])
        true.append(to_reflectance(part, synth.rgb_scale, synth.rgb_gamma))
    decoded, reflectance = torch.cat(made), torch.cat(true)
    found: dict[str, Any] = reproduction(decoded, reflectance)
    best = gamut_report(reflectance, synth.endmembers.rgb())
    figures = {
        "relative_error": found["relative_error"], "angle": found["angle"], "coverage": found["coverage"],
        "best_relative_error": best["relative_error"], "best_coverage": best["coverage"],
    }  # fmt: skip
    return figures, (pictures[0] / 255, to_display(decoded[0], synth.rgb_scale, synth.rgb_gamma))


def picture(args: Namespace, result: Result, pairs: list[tuple[str, Tensor, Tensor]]) -> None:
    """One picture per class: the original above, decoded below."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    columns = 10
    lines = -(-len(pairs) // columns)
    figure, axes = plt.subplots(
        2 * lines, columns, figsize=(12, 2.55 * lines), layout="constrained", squeeze=False
    )
    for axis in axes.flat:
        axis.set_axis_off()
    for i, (kind, original, decoded) in enumerate(pairs):
        line, column = divmod(i, columns)
        axes[2 * line][column].imshow(original.movedim(0, -1))
        axes[2 * line + 1][column].imshow(decoded.movedim(0, -1))
        axes[2 * line][column].set_title(kind, fontsize=7)
        axes[2 * line + 1][column].set_title("decoded", fontsize=6)
    suffix = "" if args.preset == "full" else "-quick"
    finish(figure, args.out / f"{result.name}{suffix}.png", 110)
    plt.close(figure)


if __name__ == "__main__":
    main()
