"""What figures are made of: axes without clutter, curves that stay open where bands are missing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ubf_augment.files import replacing
from ubf_augment.spectra import Endmembers

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = NDArray[np.floating[Any]]
PathLike = str | Path
COLOURS = (
    "#c8553d", "#2a9d4a", "#2f6fb0", "#e0a526", "#7b4ea3",
    "#1fa6a6", "#d1609e", "#8a6d3b", "#6b8e23", "#4a4e9a",
)  # fmt: skip
SHADE = "#777777"
INK = "#222222"


def new_figure(width: float, height: float, layout: Any = "constrained") -> Figure:
    """An empty figure of so many inches, outside pyplot."""
    from ubf_augment.plotting.notebook import NotebookFigure

    return NotebookFigure(figsize=(width, height), layout=layout, facecolor="white")


def finish(figure: Figure, path: PathLike | None, dpi: int) -> Figure:
    """Write the figure, if a path is given."""
    if path is not None:
        with replacing(Path(path), sync=False) as aside:
            figure.savefig(aside, dpi=dpi, format=Path(path).suffix[1:] or "png")
    return figure


def show(ax: Axes, values: Any, **options: Any) -> Any:
    """Show an image pixel by pixel, without frame and ticks."""
    ax.set_xticks([])
    ax.set_yticks([])
    for side in ax.spines.values():
        side.set_visible(False)
    return ax.imshow(values, interpolation="nearest", **options)


def row_name(ax: Axes, name: str) -> None:
    """Name a row at the left of its first image; long names break at their joints."""
    text = name.replace("/", "/\n") if len(name) <= 16 else name.replace("/", "/\n").replace("-", "-\n")
    ax.set_ylabel(text, fontsize=8, rotation=0, ha="right", va="center", color=INK)


def plot_endmembers(ax: Axes, endmembers: Endmembers) -> None:
    """Spectra with their names; shade (zero reflectance) is dashed."""
    nm = endmembers.wavelengths.numpy()
    spectra = endmembers.spectra.detach().cpu().numpy()
    for i, (name, values) in enumerate(zip(endmembers.names, spectra, strict=True)):
        zero = bool((values <= 1e-6).all())
        colour = SHADE if zero else COLOURS[i % len(COLOURS)]
        ax.plot(*with_gaps(nm, values), color=colour, lw=1.4, ls="--" if zero else "-", label=name)
    label_axes(ax)
    ax.set_xlim(nm[0], nm[-1])
    ax.legend(fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))


def plot_spread(
    ax: Axes,
    nm: Array,
    x: Tensor,
    colour: str,
    name: str = "",
    percentiles: tuple[float, float] = (10.0, 90.0),
) -> None:
    """Mean spectrum of all pixels of (B, C, H, W), and the band between two percentiles."""
    pixels = x.detach().cpu().float().movedim(1, -1).flatten(0, -2).numpy()
    low, high = np.percentile(pixels, percentiles, axis=0)
    at, low = with_gaps(nm, low)
    ax.fill_between(at, low, with_gaps(nm, high)[1], color=colour, alpha=0.22, lw=0)
    ax.plot(at, with_gaps(nm, pixels.mean(0))[1], color=colour, lw=1.3, label=name)


def band_gaps(nm: Array) -> NDArray[np.intp]:
    """Bands before which others were taken out: after steps over 6 times the median step and over 40 nm."""
    steps = np.diff(nm)
    wide = (steps > 6 * np.median(steps)) & (steps > 40) if len(nm) > 30 else np.zeros(0, dtype=bool)
    return np.flatnonzero(wide) + 1


def with_gaps(nm: Array, values: Any) -> tuple[Array, Array]:
    """Break a curve where bands were taken out, see `band_gaps`."""
    breaks = band_gaps(nm)
    return np.insert(nm, breaks, np.nan), np.insert(np.asarray(values, dtype=np.float64), breaks, np.nan)


def label_axes(ax: Axes) -> None:
    """Axes of spectra."""
    ax.set_xlabel("wavelength in nm", fontsize=8)
    ax.set_ylabel("reflectance", fontsize=8)
    ax.set_ylim(bottom=0)
    quiet(ax)


def quiet(ax: Axes, ticks: bool = True) -> None:
    """Small ticks, light grid, no frame; without ``ticks`` the numbers along x are left out."""
    ax.tick_params(labelsize=6, length=2, labelbottom=ticks)
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(alpha=0.25, lw=0.5)
