"""Sheets: all about some images in one picture, and real images beside what was made of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ubf_augment.errors import ShapeError
from ubf_augment.metrics import rmse, sad
from ubf_augment.plotting.display import Display, rgb_of
from ubf_augment.plotting.parts import (
    COLOURS,
    INK,
    Array,
    PathLike,
    finish,
    new_figure,
    plot_endmembers,
    plot_spread,
    quiet,
    row_name,
    show,
    with_gaps,
)
from ubf_augment.spectra import Endmembers, Wavelengths, check_wavelengths, rgb_bands

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def sheet(
    endmembers: Endmembers,
    a: Float[Tensor, "b p h w"],
    x: Float[Tensor, "b c h w"],
    names: Sequence[str],
    *,
    display: Display | None = None,
    title: str = "",
    note: str = "",
    path: PathLike | None = None,
    dpi: int = 110,
) -> Figure:
    """Endmembers above rows of images: pseudo-RGB, abundances of the first, mean spectrum and spread.

    Args:
        endmembers: E.
        a: abundances (B, P, H, W).
        x: the same images, reflectance (B, C, H, W), equally many per row, rows in order.
        names: of the rows; B must be a multiple of their number.
        display: the stretch; by default one for all images.
        title: of the figure.
        note: stands beside the stretch.
        path: file to write.
        dpi: of the file.

    Raises:
        ShapeError: if the images cannot be laid out in as many rows as there are names.
    """
    if len(a) != len(x) or not len(names) or len(x) % len(names):
        raise ShapeError(f"{len(a)} maps and {len(x)} images cannot fill {len(names)} rows equally")
    rgb, count = rgb_of(x, endmembers.wavelengths), len(x) // len(names)
    display = display or Display.of(rgb)
    nm = endmembers.wavelengths.numpy()
    figure, cells = _sheet(len(names), count, endmembers.num_endmembers, title)
    plot_endmembers(cells.header, endmembers)
    shown = display(rgb).movedim(1, -1).numpy()
    top = 1.05 * float(np.percentile(x.detach().cpu().movedim(1, -1).flatten(0, -2).numpy(), 99.5))
    for i, name in enumerate(names):
        mine = slice(i * count, (i + 1) * count)
        for ax, image in zip(cells.images[i], shown[mine], strict=True):
            show(ax, image)
        for ax, values in zip(cells.maps[i], a[mine][0].detach().cpu().numpy(), strict=True):
            drawn = show(ax, values, cmap="viridis", vmin=0, vmax=1)
        row_name(cells.images[i][0], name)
        plot_spread(cells.spectra[i], nm, x[mine], COLOURS[2])
        cells.spectra[i].set(ylim=(0, top), xlim=(nm[0], nm[-1]))
        quiet(cells.spectra[i], ticks=i == len(names) - 1)
    for ax, name in zip(cells.maps[0], endmembers.names, strict=True):
        ax.set_title(name, fontsize=7)
    cells.images[0][0].set_title(f"pseudo-RGB\n{display}{', ' * bool(note)}{note}", fontsize=7, loc="left")
    cells.spectra[0].set_title("reflectance: mean, 10–90 % of pixels", fontsize=7)
    cells.spectra[-1].set_xlabel("wavelength in nm", fontsize=7)
    bar = figure.colorbar(drawn, cax=cells.bar, orientation="horizontal")
    bar.ax.tick_params(labelsize=6, length=2)
    bar.ax.set_title("abundances of the first image of each row", fontsize=7, loc="left", pad=3)
    return finish(figure, path, dpi)


def comparison_sheet(
    real: Float[Tensor, "b c h w"],
    made: Float[Tensor, "b d h w"],
    wavelengths: Wavelengths,
    titles: Sequence[str] = (),
    *,
    display: Display | None = None,
    names: tuple[str, str] = ("real", "reconstructed"),
    title: str = "",
    path: PathLike | None = None,
    dpi: int = 130,
) -> Figure:
    """Show real images above what was made of them, their difference, and the spectra of both.

    Args:
        real: reflectance (B, C, H, W), or red, green, blue reflectance (B, 3, H, W).
        made: reflectance (B, C, H, W) at ``wavelengths``.
        wavelengths: band centres of ``made`` in nm.
        titles: one per image.
        display: the stretch of both; by default one for both.
        names: of the two rows.
        title: of the figure.
        path: file to write.
        dpi: of the file.

    Raises:
        ShapeError: if the two do not belong together.
    """
    nm = check_wavelengths(wavelengths, made.shape[1], "the made images")
    pictures = real.shape[1] == 3 and made.shape[1] != 3
    paired = len(real) == len(made) and real.shape[2:] == made.shape[2:]
    if not paired or not (pictures or real.shape == made.shape):
        raise ShapeError(f"{tuple(real.shape)} and {tuple(made.shape)} are no pairs of the same scenes")
    rgb, again = rgb_of(real, None if pictures else nm), rgb_of(made, nm)
    display = display or Display.of(torch.cat([rgb, again]))
    x, z = (rgb, again) if pictures else (real.detach().cpu().float(), made.detach().cpu().float())
    error = (x - z).square().mean(1).sqrt()
    high = Display.of(error[:, None]).scale
    figure = new_figure(1.45 * len(x) + 1.4, 6.2)
    axes = figure.subplots(4, len(x), squeeze=False, height_ratios=(1, 1, 1, 0.9))
    for i in range(len(x)):
        show(axes[0, i], display(rgb[i]).movedim(0, -1).numpy())
        show(axes[1, i], display(again[i]).movedim(0, -1).numpy())
        drawn = show(axes[2, i], error[i].numpy(), cmap="magma", vmin=0, vmax=high)
        found = float(rmse(z[i : i + 1], x[i : i + 1])), float(sad(z[i : i + 1], x[i : i + 1]))
        axes[2, i].set_xlabel(f"RMSE {found[0]:.4f}\nangle {found[1]:.1f}°", fontsize=7)
        axes[0, i].set_title(titles[i] if i < len(titles) else "", fontsize=8)
        plot_spread(axes[3, i], nm.numpy(), made[i : i + 1], COLOURS[0], names[1])
        _plot_real(axes[3, i], nm.numpy(), (rgb if pictures else x)[i].mean((1, 2)).numpy(), names[0])
    for row, name in enumerate((*names, "difference")):
        row_name(axes[row, 0], name)
    bar = figure.colorbar(drawn, ax=axes, fraction=0.02, pad=0.01, shrink=0.25, anchor=(0.0, 0.35))
    bar.ax.tick_params(labelsize=6, length=2)
    bar.set_label("RMSE of a pixel", fontsize=7)
    handles, labels = axes[3, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    figure.suptitle(f"{title}\n{display}" if title else str(display), fontsize=9)
    return finish(figure, path, dpi)


def _plot_real(ax: Axes, nm: Array, mean: Array, name: str) -> None:
    """Mean spectrum of a real image, or its mean red, green and blue, over what was made of it."""
    if len(mean) == len(nm):
        ax.plot(*with_gaps(nm, mean), color=INK, lw=1, ls="--", label=name)
    else:
        ax.plot(nm[list(rgb_bands(torch.from_numpy(nm)))], mean, "o", ms=3.5, color=INK, label=name)
    ax.set_ylim(bottom=0)
    quiet(ax)


@dataclass(frozen=True)
class _Cells:
    header: Axes
    bar: Axes
    images: list[list[Axes]]
    maps: list[list[Axes]]
    spectra: list[Axes]


def _sheet(rows: int, samples: int, endmembers: int, title: str) -> tuple[Figure, _Cells]:
    """Place a header (endmembers) above rows of images, maps and a spectrum; all in inches."""
    cell, gap, left, wide, top = 0.95, 0.05, 1.25, 2.4, 3.2
    maps_at = left + samples * (cell + gap) + 0.25
    spectra_at = maps_at + endmembers * (cell + gap) + 0.4
    width, height = spectra_at + wide + 0.15, top + rows * (cell + gap) + 0.4
    figure = new_figure(width, height, layout=None)

    def axes(x: float, y: float, w: float, h: float) -> Axes:
        return figure.add_axes((x / width, 1 - (y + h) / height, w / width, h / height))

    tops = [top + i * (cell + gap) for i in range(rows)]
    cells = _Cells(
        axes(left, 0.5, maps_at + endmembers * (cell + gap) - left - 1.2, 1.55),
        axes(maps_at, top - 0.45, min(3.0, endmembers * (cell + gap)), 0.08),
        [[axes(left + j * (cell + gap), t, cell, cell) for j in range(samples)] for t in tops],
        [[axes(maps_at + p * (cell + gap), t, cell, cell) for p in range(endmembers)] for t in tops],
        [axes(spectra_at, t, wide, cell - 0.06) for t in tops],
    )
    figure.text(left / width, 1 - 0.32 / height, title, fontsize=12, color=INK, weight="bold")
    return figure, cells
