"""One labelled sample of a data set: its picture, and spectra of some of its pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from ubf_augment.plotting.display import Display, rgb_of
from ubf_augment.plotting.parts import COLOURS, label_axes, new_figure, show, with_gaps
from ubf_augment.spectra import Wavelengths, check_wavelengths

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_ACROSS, _DOWN = 3, 2  # pixels whose spectra are shown


def plot_sample(
    sample: Mapping[str, Any],
    wavelengths: Wavelengths,
    classes: Sequence[str] | None = None,
    suptitle: str | None = None,
    *,
    display: Display | None = None,
) -> Figure:
    """Show a sample in pseudo-RGB, and spectra of six pixels, which are marked in the picture.

    Args:
        sample: with ``"image"`` (C, H, W) reflectance, and perhaps ``"label"`` and ``"prediction"``.
        wavelengths: (C,) band centres in nm.
        classes: names for the title; none if None.
        suptitle: title of the figure.
        display: the stretch, which is written below the picture; by default one for this image.

    Raises:
        WavelengthError: if no band is near red, green or blue.
        BandCountError: if there is not one wavelength per band.
    """
    image = sample["image"].detach().cpu().float()
    nm = check_wavelengths(wavelengths, len(image), "the sample").numpy()
    rgb = rgb_of(image[None], wavelengths)
    display = display or Display.of(rgb)
    figure = new_figure(8, 3.2)
    left, right = figure.subplots(1, 2, width_ratios=(1, 2))
    show(left, display(rgb)[0].movedim(0, -1).numpy())
    left.set_xlabel(str(display), fontsize=6)
    h, w = image.shape[1:]
    rows, columns = ((torch.arange(n) + 0.5) / n * side for n, side in ((_DOWN, h), (_ACROSS, w)))
    for i, (r, c) in enumerate(torch.cartesian_prod(rows.long(), columns.long()).tolist()):
        left.plot(c, r, "s", ms=5, mfc="none", mec="white", mew=2.2)
        left.plot(c, r, "s", ms=5, mfc="none", mec=COLOURS[i], mew=1.2)
        right.plot(*with_gaps(nm, image[:, r, c].numpy()), color=COLOURS[i], lw=1)
    label_axes(right)
    right.set_ylim(bottom=min(0.0, float(image.min())))
    if classes is not None and "label" in sample:
        left.set_title(sample_title(sample, classes), fontsize=9)
    if suptitle is not None:
        figure.suptitle(suptitle)
    return figure


def sample_title(sample: Mapping[str, Any], classes: Sequence[str]) -> str:
    """Name of a sample's class, and of the one predicted."""
    title = classes[int(sample["label"])]
    if sample.get("is_synthetic"):
        title += " (synthetic)"
    return f"{title}\npredicted: {classes[int(sample['prediction'])]}" if "prediction" in sample else title
