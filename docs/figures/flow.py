"""Draws ``docs/flow.png``: the flow from pictures and HSIs to a training batch, with what the code makes of a real scene.

Made again by ``python docs/figures/flow.py``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from torch import Tensor

from ubf_augment import HSISynthesizer
from ubf_augment.datasets.indian_pines import load_scene
from ubf_augment.plotting import Display, pseudo_rgb
from ubf_augment.plotting.parts import COLOURS, INK, SHADE, with_gaps
from ubf_augment.radiometry import to_display
from ubf_augment.spectra import rgb_bands

WIDE, HIGH = 13.0, 6.0
CLASSES = ("Stadium", "Beach", "River")
QUIET = "#5c6670"


class Drawing:
    """A figure whose places are given in inches from the lower left corner."""

    def __init__(self) -> None:
        self.figure = Figure(figsize=(WIDE, HIGH), facecolor="white")
        self.page = self.figure.add_axes((0, 0, 1, 1))
        self.page.set(xlim=(0, WIDE), ylim=(0, HIGH))
        self.page.set_axis_off()

    def axes(self, x: float, y: float, width: float, height: float) -> Any:
        return self.figure.add_axes((x / WIDE, y / HIGH, width / WIDE, height / HIGH))

    def picture(self, x: float, y: float, side: float, values: Any, **options: Any) -> None:
        ax = self.axes(x, y, side, side)
        ax.imshow(values, interpolation="nearest", **options)
        ax.set(xticks=[], yticks=[])
        for spine in ax.spines.values():
            spine.set(color="white", linewidth=1.2)

    def stack(self, x: float, y: float, side: float, images: Any, shift: float = 0.16) -> None:
        """Pictures behind each other, the first one in front."""
        for i in reversed(range(len(images))):
            self.picture(x + i * shift, y + i * shift, side, images[i])

    def cube(self, x: float, y: float, side: float, front: Any, depth: int = 9) -> None:
        """An image whose bands are seen from the side."""
        for i in reversed(range(1, depth)):
            shade = 0.82 - 0.05 * (i % 2)
            self.picture(x + 0.045 * i, y + 0.045 * i, side, [[(shade, shade, shade + 0.03)]])
        self.picture(x, y, side, front)

    def maps(self, x: float, y: float, side: float, a: Tensor, columns: int = 3) -> None:
        """Abundance maps in rows."""
        for i, values in enumerate(a):
            at = (x + (i % columns) * (side + 0.06), y - (i // columns) * (side + 0.06))
            self.picture(*at, side, values.numpy(), cmap="viridis", vmin=0, vmax=0.6)

    def text(self, x: float, y: float, text: str, size: float = 10, **options: Any) -> None:
        self.page.text(
            x, y, text, fontsize=size, **({"color": INK, "ha": "center", "va": "center"} | options)
        )

    def arrow(self, start: tuple[float, float], end: tuple[float, float], bend: float = 0.0) -> None:
        style = f"arc3,rad={bend}"
        self.page.add_patch(
            FancyArrowPatch(
                start, end, arrowstyle="-|>", mutation_scale=15, lw=1.6, color=QUIET, connectionstyle=style
            )
        )

    def box(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        colour: str,
        radius: float = 0.12,
        **options: Any,
    ) -> None:
        shape = FancyBboxPatch(
            (x, y), width, height, f"round,pad=0,rounding_size={radius}", facecolor=colour, **options
        )
        self.page.add_patch(shape)


def spectra(drawing: Drawing, place: tuple[float, float, float, float], synth: HSISynthesizer) -> None:
    """The endmembers; shade, which is zero, dashed."""
    ax = drawing.axes(*place)
    nm = synth.wavelengths.numpy()
    for i, values in enumerate(synth.endmembers.spectra):
        zero = float(values.max()) < 1e-6
        ax.plot(
            *with_gaps(nm, values.numpy()),
            lw=1.3,
            color=SHADE if zero else COLOURS[i],
            ls="--" if zero else "-",
        )
    ax.set(xlim=(nm[0], nm[-1]), ylim=(0, None), yticks=[])
    ax.set_xlabel("wavelength in nm", fontsize=8, color=QUIET, labelpad=1)
    ax.tick_params(labelsize=7, length=2, colors=QUIET)
    ax.spines[["top", "right"]].set_visible(False)
    ax.set_facecolor("none")


def contents() -> dict[str, Any]:
    """What is shown: crops of a real scene, their abundances, generated abundances, decoded scenes."""
    scene = load_scene()
    x, nm = scene.image[None], scene.wavelengths
    bundle = HSISynthesizer.from_pretrained("aid-chikusei")
    synth = bundle.adapt(x, wavelengths=nm)
    crops = torch.cat([x[:, :, r : r + 64, c : c + 64] for r, c in ((70, 70), (10, 75), (75, 5), (5, 5))])
    rgb = crops[:, list(rgb_bands(nm))]
    picture = (to_display(rgb, bundle.rgb_scale, bundle.rgb_gamma) * 255).round().to(torch.uint8)
    a = synth.sample_abundances(list(CLASSES), seed=4)
    made = synth.mix(a, residual=True, seed=4)
    return {
        "synth": synth,
        "pictures": picture.movedim(1, -1).numpy(),
        "hsis": pseudo_rgb(crops, nm, Display(0.25, 1.6)),
        "real": synth.unmix_rgb(picture[:1])[0],
        "drawn": a[0],
        "made": pseudo_rgb(made, nm, Display(0.3, 1.6)),
    }


def main() -> None:
    """Draw and write."""
    d, c = Drawing(), contents()
    d.box(0.1, 0.1, 7.95, 5.8, "#f3f5f7", edgecolor="none")
    d.box(8.2, 0.1, 4.7, 5.8, "#fdf3e7", edgecolor="none")
    d.text(0.3, 5.62, "once, offline", 12, ha="left", weight="bold")
    d.text(8.4, 5.62, "while a network trains", 12, ha="left", weight="bold")

    d.stack(0.35, 3.45, 1.2, c["pictures"][:3])
    d.text(1.1, 3.2, "RGB pictures with labels", 9.5)
    d.cube(0.35, 1.1, 1.2, c["hsis"][3])
    d.text(1.1, 0.72, "hyperspectral images (HSIs),\nunpaired, of few scenes", 9.5)

    d.arrow((2.1, 4.25), (3.35, 4.25))
    d.text(2.7, 4.45, "RGB encoder", 9, color=QUIET)
    d.arrow((2.1, 2.1), (3.35, 3.25))
    d.text(2.2, 2.75, "unmixing", 9, color=QUIET)
    d.arrow((2.1, 1.5), (3.35, 1.5))

    d.maps(3.5, 3.95, 0.72, c["real"])
    d.text(4.6, 4.95, "abundances  a", 11, weight="bold")
    d.text(4.6, 2.95, "shares of materials in each pixel,\nthe same for every sensor", 9, color=QUIET)
    spectra(d, (3.5, 0.95, 2.2, 1.3), c["synth"])
    d.text(4.6, 2.42, "endmembers  E,  residual  ε", 11, weight="bold")
    d.text(4.6, 0.4, "spectra: all that belongs to a sensor", 9, color=QUIET)

    d.arrow((5.85, 3.95), (6.4, 3.95))
    d.text(6.1, 4.15, "fit", 9, color=QUIET)
    d.box(6.45, 3.5, 1.35, 0.9, "#2f6fb0", edgecolor="none")
    d.text(7.12, 3.95, "generator\nG(a | y)", 10.5, color="white", weight="bold")

    d.text(7.12, 5.05, f"label  y  =  “{CLASSES[0]}”", 10.5, style="italic")
    d.arrow((7.12, 4.88), (7.12, 4.45))
    d.arrow((7.85, 3.95), (8.4, 3.95))
    d.maps(8.55, 3.95, 0.72, c["drawn"])
    d.text(9.65, 4.95, "new abundances  a′", 11, weight="bold")

    d.arrow((9.65, 3.1), (9.65, 2.5))
    d.arrow((5.85, 1.6), (8.35, 1.6))
    d.text(7.1, 1.78, "x′ = mix(a′, E) + ε", 11, style="italic")
    d.cube(8.6, 0.85, 1.2, c["made"][0])
    d.text(9.3, 0.45, "synthetic HSI  x′,  label  y", 10)
    d.arrow((10.35, 1.6), (10.9, 1.6))

    d.box(11.0, 1.15, 1.7, 0.9, "#c8553d", edgecolor="none")
    d.text(11.85, 1.6, "UBFAugment", 11.5, color="white", weight="bold")
    d.arrow((11.85, 2.15), (11.85, 3.0))
    for i, image in enumerate([c["hsis"][0], c["made"][1], c["hsis"][1], c["made"][2]]):
        d.picture(11.1 + 0.78 * (i % 2), 3.95 - 0.78 * (i // 2), 0.72, image)
    d.text(11.85, 4.95, "training batch", 11, weight="bold")
    d.text(11.85, 0.85, "real images, a share replaced", 9, color=QUIET)
    d.figure.savefig(Path(__file__).resolve().parent.parent / "flow.png", dpi=130)


if __name__ == "__main__":
    main()
