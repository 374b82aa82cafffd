"""What figures are drawn with; its names are public as those of `ubf_augment.report`.

This room lies below the synthesizer and the data sets, so that ``plot()`` of both can use it.
"""

from ubf_augment.plotting.display import Display, pseudo_rgb
from ubf_augment.plotting.figures import abundance_grid, endmember_plot, image_grid, spectra_plot
from ubf_augment.plotting.samples import plot_sample, sample_title
from ubf_augment.plotting.sheets import comparison_sheet, sheet

__all__ = [
    "Display",
    "abundance_grid",
    "comparison_sheet",
    "endmember_plot",
    "image_grid",
    "plot_sample",
    "pseudo_rgb",
    "sample_title",
    "sheet",
    "spectra_plot",
]
