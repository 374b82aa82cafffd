"""Single figures: grids of images and of abundance maps, endmembers, spectra of classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from jaxtyping import Float
from torch import Tensor

from ubf_augment.errors import ShapeError
from ubf_augment.plotting.display import Display, pseudo_rgb, rgb_of
from ubf_augment.plotting.parts import (
    COLOURS,
    INK,
    PathLike,
    finish,
    label_axes,
    new_figure,
    plot_endmembers,
    plot_spread,
    row_name,
    show,
)
from ubf_augment.spectra import Endmembers, Wavelengths, check_wavelengths

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def image_grid(
    x: Float[Tensor, "b c h w"],
    wavelengths: Wavelengths | None = None,
    titles: Sequence[str] = (),
    *,
    columns: int = 8,
    display: Display | None = None,
    title: str = "",
    path: PathLike | None = None,
    dpi: int = 150,
) -> Figure:
    """Show images in pseudo-RGB, side by side, in one stretch.

    Args:
        x: reflectance (B, C, H, W).
        wavelengths: band centres in nm, see `pseudo_rgb`.
        titles: one per image.
        columns: images per row.
        display: the stretch; by default one for all images.
        title: of the figure.
        path: file to write.
        dpi: of the file.
    """
    display = display or Display.of(rgb_of(x, wavelengths))
    shown = pseudo_rgb(x, wavelengths, display)
    columns = min(columns, len(shown))
    rows = -(-len(shown) // columns)
    figure = new_figure(1.25 * columns, 1.25 * rows * (1.18 if titles else 1.0) + 0.5)
    axes = figure.subplots(rows, columns, squeeze=False).flat
    for i, ax in enumerate(axes):
        ax.set_axis_off()
        if i < len(shown):
            show(ax, shown[i])
            if i < len(titles):
                ax.set_title(titles[i], fontsize=7)
    figure.suptitle(f"{title}\n{display}" if title else str(display), fontsize=8, color=INK)
    return finish(figure, path, dpi)


def abundance_grid(
    a: Float[Tensor, "b p h w"],
    names: Sequence[str] = (),
    titles: Sequence[str] = (),
    *,
    title: str = "",
    path: PathLike | None = None,
    dpi: int = 150,
) -> Figure:
    """Show abundance maps, one row per image, one column per endmember, on the fixed colour scale 0 to 1.

    Args:
        a: abundances (B, P, H, W).
        names: of the endmembers.
        titles: one per image.
        title: of the figure.
        path: file to write.
        dpi: of the file.
    """
    if a.ndim != 4:
        raise ShapeError(
            f"abundances must be (B, P, H, W), got {tuple(a.shape)}: add a batch axis with a[None]"
        )
    values = a.detach().cpu().float().numpy()
    b, p = values.shape[:2]
    figure = new_figure(1.15 * p + 1.3, 1.15 * b + 0.6)
    axes = figure.subplots(b, p, squeeze=False)
    for i in range(b):
        for j in range(p):
            drawn = show(axes[i, j], values[i, j], cmap="viridis", vmin=0, vmax=1)
            if i == 0:
                axes[i, j].set_title(names[j] if j < len(names) else f"endmember {j + 1}", fontsize=8)
        if i < len(titles):
            row_name(axes[i, 0], titles[i])
    figure.colorbar(drawn, ax=axes, fraction=0.02, pad=0.01).set_label("abundance", fontsize=8)
    if title:
        figure.suptitle(title, fontsize=9)
    return finish(figure, path, dpi)


def endmember_plot(
    endmembers: Endmembers, *, title: str = "", path: PathLike | None = None, dpi: int = 150
) -> Figure:
    """Plot endmember spectra with their names; gaps between bands (removed water bands) stay open.

    Args:
        endmembers: E.
        title: of the figure.
        path: file to write.
        dpi: of the file.
    """
    figure = new_figure(6.5, 3.2)
    plot_endmembers(figure.subplots(), endmembers)
    if title:
        figure.suptitle(title, fontsize=9)
    return finish(figure, path, dpi)


def spectra_plot(
    images: Mapping[str, Float[Tensor, "b c h w"]],
    wavelengths: Wavelengths,
    *,
    percentiles: tuple[float, float] = (10.0, 90.0),
    title: str = "",
    path: PathLike | None = None,
    dpi: int = 150,
) -> Figure:
    """Plot mean spectrum and percentile band over all pixels, one colour per class.

    Args:
        images: class name → reflectance (B, C, H, W).
        wavelengths: band centres in nm.
        percentiles: lower and upper edge of the shaded band.
        title: of the figure.
        path: file to write.
        dpi: of the file.
    """
    nm = check_wavelengths(wavelengths).numpy()
    figure = new_figure(7.5, 3.6)
    ax = figure.subplots()
    for i, (name, x) in enumerate(images.items()):
        plot_spread(ax, nm, x, COLOURS[i % len(COLOURS)], name, percentiles)
    label_axes(ax)
    ax.legend(fontsize=7, frameon=False, ncols=2)
    note = f"mean, and {percentiles[0]:g}–{percentiles[1]:g} % of pixels"
    figure.suptitle(f"{title} ({note})" if title else note, fontsize=9)
    return finish(figure, path, dpi)
