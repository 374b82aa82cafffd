"""A picture of what each strategy of `UBFAugment` makes of real scenes, and of their spectra.

    python benchmarks/strategies_picture.py

EuroSAT scenes (Sentinel-2, 13 bands) of some classes beside their `vary`, `fuse`, `edit`, and beside scenes that `generate`
and `bank` put in their place, with the packaged bundle adapted to the other EuroSAT scenes. One stretch for all. Writes
`results/strategies.png`, the picture of the project's README.
"""

from __future__ import annotations

import torch
from adapt import EUROSAT_TO_AID
from common import arguments
from protocol_sources import aid_pictures
from scenes import eurosat
from torch import Tensor

from ubf_augment import HSISynthesizer, UBFAugment
from ubf_augment.plotting.parts import finish
from ubf_augment.report import Display

SHOWN = ("Forest", "River", "AnnualCrop", "Residential", "Industrial")
STRATEGIES = ("vary", "fuse", "edit", "generate", "bank")
SEED = 3


def main() -> None:
    """Adapt, augment, draw."""
    args = arguments(__doc__ or "")
    scenes, y, nm, names = eurosat(args.data)
    shown = torch.tensor([int((y == names.index(name)).nonzero()[2]) for name in SHOWN])
    rest = torch.ones(len(scenes), dtype=torch.bool)
    rest[shown] = False
    synth = HSISynthesizer.from_pretrained("aid-chikusei").adapt(
        scenes[rest], wavelengths=nm, labels=y[rest], classes=names, class_map=EUROSAT_TO_AID
    )
    found = aid_pictures(args.data)
    bank = {ours: found[theirs][:20] for ours, theirs in EUROSAT_TO_AID.items() if ours in SHOWN}
    columns: dict[str, Tensor] = {"real": scenes[shown]}
    partners = torch.cat([(y == y[i]).nonzero()[3:4, 0] for i in shown])  # for `fuse`
    for strategy in STRATEGIES:
        augment = UBFAugment(
            synth, 1.0, strategy=strategy, classes=names, class_map=EUROSAT_TO_AID, seed=SEED,
            bank=bank if strategy == "bank" else None,
        )  # fmt: skip
        x, _ = augment(torch.cat([scenes[shown], scenes[partners]]), torch.cat([y[shown], y[partners]]))
        columns[strategy] = x[: len(shown)]
    draw(columns, nm, str(args.out / "strategies.png"))


def draw(columns: dict[str, Tensor], nm: Tensor, path: str) -> None:
    """Pseudo-RGB of all, and mean spectra row by row."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    rgb = [int((nm - centre).abs().argmin()) for centre in (665.0, 560.0, 490.0)]
    display = Display.of(torch.cat(list(columns.values()))[:, rgb])
    rows, count = len(SHOWN), len(columns)
    fig, axes = plt.subplots(
        rows, count + 1, figsize=(1.25 * count + 3.0, 1.32 * rows), width_ratios=[1] * count + [2.1], layout="constrained"
    )  # fmt: skip
    for row, name in enumerate(SHOWN):
        *pictures, spectra = axes[row]
        for column, (ax, (title, x)) in enumerate(zip(pictures, columns.items(), strict=True)):
            ax.imshow(display(x[row : row + 1, rgb])[0].movedim(0, -1).numpy())
            ax.set_xticks([])
            ax.set_yticks([])
            if row == 0:
                ax.set_title(title, fontsize=10, family="monospace" if column else None)
            if column == 0:
                ax.set_ylabel(name, fontsize=9)
            style = {"color": "k", "lw": 2.2} if column == 0 else {"lw": 1.1}
            spectra.plot(nm, x[row].mean((1, 2)), label=title, **style)
        spectra.tick_params(labelsize=7)
        spectra.set_ylim(bottom=0)
        if row == 0:
            spectra.set_title("mean reflectance", fontsize=10)
            spectra.legend(fontsize=6, ncols=2)
        if row < rows - 1:
            spectra.set_xticklabels([])
    axes[-1][-1].set_xlabel("wavelength in nm", fontsize=8)
    finish(fig, path, 100)


if __name__ == "__main__":
    main()
