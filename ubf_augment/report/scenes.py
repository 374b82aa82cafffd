"""A quick look at an unmixed scene: pseudo-RGB and abundance maps."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from ubf_augment.plotting.display import Display
from ubf_augment.plotting.parts import INK, PathLike, finish, new_figure, show
from ubf_augment.synthesis.scene_parts import UnmixedScene

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_NOTHING = "#e8e8e8"
_WIDTH = 11.0


def scene_sheet(
    scene: UnmixedScene, *, title: str = "", path: PathLike | None = None, dpi: int = 130
) -> Figure:
    """Show a scene in pseudo-RGB and the map of each endmember, on the fixed colour scale 0 to 1; no data is grey.

    Args:
        scene: from `HSISynthesizer.unmix_scene`.
        title: of the figure.
        path: file to write.
        dpi: of the file.
    """
    from matplotlib import colormaps

    colours = colormaps["viridis"].with_extremes(bad=_NOTHING)
    maps, rgb = scene.abundances, scene.rgb
    count = len(maps) + (rgb is not None)
    height, width = maps.shape[1:]
    columns = min(count, max(2, round(math.sqrt(count * height / width * 1.6))))
    rows = -(-count // columns)
    side = _WIDTH / columns
    figure = new_figure(_WIDTH + 0.8, rows * (side * height / width + 0.3) + 0.6)
    axes = figure.subplots(rows, columns, squeeze=False)
    for ax in axes.flat:
        ax.set_axis_off()
    panels = list(axes.flat)
    note = ""
    if rgb is not None:
        valid = torch.isfinite(rgb[0])
        display = Display.of(rgb[:, valid][:, :, None]) if bool(valid.any()) else Display()
        shown = torch.where(valid, display(rgb), 0.91).movedim(0, -1)
        show(panels[0], shown.numpy())
        panels[0].set_title("red, green, blue", fontsize=8)
        panels, note = panels[1:], f", {display}"
    for ax, values, name, mean in zip(panels, maps, scene.names, scene.mean.tolist(), strict=False):
        drawn = show(ax, values.numpy(), cmap=colours, vmin=0, vmax=1)
        ax.set_title(f"{name}, mean {mean:.2f}", fontsize=8)
    figure.colorbar(drawn, ax=axes, fraction=0.02, pad=0.01).set_label("abundance", fontsize=8)
    size = f"{scene.size[0]}×{scene.size[1]} pixels, RMSE {scene.rmse:.4f}{note}"
    figure.suptitle(f"{title}\n{size}" if title else size, fontsize=9, color=INK)
    return finish(figure, path, dpi)
