"""Samples that depend on seed, class and number alone, and sheets of them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from ubf_augment.plotting import Display, sheet
from ubf_augment.seeding import derive_seed
from ubf_augment.spectra import rgb_bands

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ubf_augment.synthesis.base import Labels
    from ubf_augment.synthesis.model import HSISynthesizer


def sample_seed(seed: int, name: str, i: int) -> int:
    """A seed of (seed, class name, i): other classes, and other bundles' orders of classes, do not matter."""
    return derive_seed(seed, int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "big"), i)


def draw_numbered(
    synth: HSISynthesizer,
    items: Sequence[tuple[str, int]],
    seed: int = 0,
    *,
    residual: bool = True,
    **options: Any,
) -> tuple[Float[Tensor, "b p h w"], Float[Tensor, "b c h w"]]:
    """Draw image number i of a class for each (class, i), as ``ubf sample`` numbers them.

    Args:
        synth: the synthesizer.
        items: class names and numbers; for a synthesizer without classes the name is only hashed.
        seed: of all of them, see `sample_seed`.
        residual: add ε, if there is a residual model.
        options: of the generator, such as ``steps=10``.

    Returns:
        Abundances (B, P, H, W) and reflectance (B, C, H, W), on the CPU.
    """
    y = [name for name, _ in items] if synth.classes else None
    generators = [torch.Generator().manual_seed(sample_seed(seed, name, i)) for name, i in items]
    with torch.no_grad():
        a = synth.sample_abundances(y, n=None if y else len(items), generator=generators, **options)
        return a.cpu(), synth.mix(a, y, residual=residual, generator=generators).cpu()


def sample_sheet(
    synth: HSISynthesizer,
    y: Labels | None = None,
    *,
    per_class: int = 5,
    seed: int = 0,
    display: Display | None = None,
    title: str = "",
    path: Path | str | None = None,
    dpi: int = 110,
    **options: Any,
) -> Figure:
    """Draw samples of classes and show all about them: pseudo-RGB, abundances of the first, spectra, E.

    Args:
        synth: the synthesizer.
        y: classes, a row each; all of them by default.
        per_class: samples per class.
        seed: of the samples, see `HSISynthesizer.sample`.
        display: the stretch; by default that of the pictures the synthesizer was fitted with, else one for
            all samples.
        title: of the figure; by default the bundle's name and its bands.
        path: file to write.
        dpi: of the file.
        options: of the generator, such as ``steps=10``.

    Raises:
        LabelError, UnknownClassError: for classes that the synthesizer does not have.
    """
    rows, labels = None, None
    if synth.classes:
        rows = synth.labels(list(range(synth.num_classes)) if y is None else y)
        labels = rows.repeat_interleave(per_class)
    n = per_class if labels is None else None
    a = synth.sample_abundances(labels, n=n, seed=seed, **options)
    x = synth.mix(a, labels, residual=True, seed=seed).cpu()
    names = [""] if rows is None else [synth.classes[k] for k in rows.tolist()]
    return draw_sheet(
        synth, a.cpu(), x, names, display=display, title=title, path=path, dpi=dpi, note=f"seed {seed}"
    )


def draw_sheet(
    synth: HSISynthesizer,
    a: Float[Tensor, "b p h w"],
    x: Float[Tensor, "b c h w"],
    names: Sequence[str],
    *,
    display: Display | None = None,
    title: str = "",
    note: str = "",
    path: Path | str | None = None,
    dpi: int = 110,
) -> Figure:
    """Draw a sheet of given abundances and images: equally many per row, rows in order.

    Args:
        synth: where endmembers, bands and stretch come from.
        a: abundances (B, P, H, W).
        x: the same images, reflectance (B, C, H, W).
        names: of the rows; B must be a multiple of their number.
        display: see `sample_sheet`.
        title: see `sample_sheet`.
        note: stands beside the stretch.
        path: file to write.
        dpi: of the file.

    Raises:
        ShapeError: if the images cannot be laid out in as many rows as there are names.
    """
    about = str(synth.card.get("name") or synth.card.get("sensor") or "samples")
    if not title:
        title = about if "bands" in about else f"{about}: {synth.num_bands} bands"
    display = display or display_of(synth, x)
    e = synth.endmembers.to("cpu")
    return sheet(e, a, x, names, display=display, title=title, note=note, path=path, dpi=dpi)


def display_of(synth: HSISynthesizer, x: Float[Tensor, "b c h w"]) -> Display:
    """The stretch of the pictures that the synthesizer was fitted with, else one for all these images."""
    if synth.rgb_scale != 1:
        return Display(synth.rgb_scale, synth.rgb_gamma)
    return Display.of(x[:, list(rgb_bands(synth.wavelengths))])
