"""Pictures of hyperspectral images, and a page about a bundle or a data set (`write_report`).

Figures: pseudo-RGB, abundance maps, spectra, and sheets that combine them.

Everything in one figure shares one stretch: a reflectance scale and a display gamma that are written into
the figure. No image is stretched by its own minimum and maximum, so brightness can be compared across a
figure. Figures are matplotlib objects without pyplot's global state; ``path`` writes them as PNG, or whatever
its suffix says.
"""

from ubf_augment.plotting import (
    Display,
    abundance_grid,
    comparison_sheet,
    endmember_plot,
    image_grid,
    plot_sample,
    pseudo_rgb,
    spectra_plot,
)
from ubf_augment.report.scenes import scene_sheet
from ubf_augment.report.writing import write_report
from ubf_augment.synthesis.drawing import draw_sheet, sample_sheet

__all__ = [
    "Display",
    "abundance_grid",
    "comparison_sheet",
    "draw_sheet",
    "endmember_plot",
    "image_grid",
    "plot_sample",
    "pseudo_rgb",
    "sample_sheet",
    "scene_sheet",
    "spectra_plot",
    "write_report",
]
