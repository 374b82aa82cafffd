"""`write_report`: a bundle, real images, or both, as one HTML page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ubf_augment.files import replacing
from ubf_augment.plotting import Display
from ubf_augment.report.contents import Contents, collect
from ubf_augment.report.judging import judge
from ubf_augment.report.page import Page, render
from ubf_augment.report.provenance import Source, load, provenance
from ubf_augment.report.real import RealImages, read_real, same_bands
from ubf_augment.spectra import Wavelengths
from ubf_augment.spectra import rgb_bands as red_green_blue_bands
from ubf_augment.synthesis import HSISynthesizer

GENERATOR = "ubf_augment report"
_SIZE = (64, 64)


def write_report(
    synth: HSISynthesizer | str | Path | None,
    out: str | Path,
    *,
    real: Any = None,
    wavelengths: Wavelengths | None = None,
    labels: Tensor | Sequence[int] | Sequence[str] | None = None,
    class_map: Mapping[str, str] | None = None,
    rgb_bands: tuple[int, int, int] | None = None,
    classes: Sequence[str] | None = None,
    per_class: int = 2,
    evaluate: int = 100,
    seed: int = 0,
    residual: bool = True,
    megabytes: float = 6.0,
    title: str = "",
    real_name: str = "",
    command: str = "",
    device: torch.device | str | None = None,
    progress: bool = True,
    options: Mapping[str, Any] | None = None,
) -> Path:
    """Write a report of a bundle, of real images, or of both: one page that needs no network.

    It shows images by class, abundance maps, endmembers, the spectrum of any pixel beside its nearest real spectrum, and,
    where there are real images, how far the samples are from them. If the real images have other bands than the bundle, it is
    adapted to them (`HSISynthesizer.adapt`).

    Args:
        synth: a synthesizer, or a bundle by packaged name, directory or Hub id; None for real images alone.
        out: directory; the page is ``index.html`` in it.
        real: real images: a data set of ``{"image": …, "label": …}`` such as `HSIFolder`, (N, C, H, W), or a list of (C, H, W),
            in reflectance.
        wavelengths: their band centres in nm; a data set's own by default.
        labels: one per real image, index or name; a data set's items bring theirs.
        class_map: class of the real images → class of the bundle, where the names differ.
        rgb_bands: indices of the red, green and blue band; by wavelength by default.
        classes: those to show; by default up to 32, those that both sides have first.
        per_class: real images, and samples, of each class.
        evaluate: samples that are compared with real images; 0 leaves the metrics out.
        seed: of the samples, which are numbered as in ``ubf sample``, and of the choice of real images.
        residual: add the residual model to samples.
        megabytes: size that the page should not exceed: if need be, only every 2nd, 3rd, … pixel of an image carries its
            spectrum.
        title: heading; the name of the bundle or of the real images by default.
        real_name: what the real images are called; by default the folder of the data set, or its type.
        command: that is named under provenance.
        device: where to draw samples; by default where the synthesizer is, or the CPU.
        progress: show progress bars.
        options: of the generator, such as ``{"steps": 10}``.

    Returns:
        Path of the page.

    Raises:
        ValueError: if there is neither a bundle nor real images, a number is too small, or ``index.html`` is something else.
        BundleError: if the bundle is not found, incomplete or altered.
        WavelengthError, BandCountError, ShapeError, NoDataError, RadiometryError: for images that are no reflectance.
        LabelError, UnknownClassError: for labels or class names that do not fit.

    >>> import tempfile
    >>> nm, x = [490, 560, 665], torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     page = write_report(None, folder, real=x, wavelengths=nm, labels=["field", "field", "lake", "lake"])
    ...     text = page.read_text(encoding="utf-8")
    >>> page.name, "lake" in text, "https://" in text
    ('index.html', True, False)
    """
    if synth is None and real is None:
        raise ValueError("there is nothing to report on: give a bundle, or real images as real=…")
    if per_class < 1 or evaluate < 0 or not megabytes > 0:
        raise ValueError(
            f"per_class must be at least 1, evaluate at least 0 and megabytes positive, got {per_class}, {evaluate} and "
            f"{megabytes}"
        )
    path = _target(Path(out))
    source = None if synth is None else load(synth, device)
    windows = None
    if real is not None:
        size = _SIZE if source is None else source.synth.size
        limit = max(2 * evaluate, 64)
        windows = read_real(real, wavelengths=wavelengths, labels=labels, size=size, limit=limit, seed=seed)
        source = _adapted(source, real, windows, labels, class_map, rgb_bands, seed)
        real_name = real_name or _called(real)
    contents = collect(
        None if source is None else source.synth, windows, classes=classes, class_map=class_map,
        per_class=per_class, evaluate=evaluate, seed=seed, residual=residual, options=options or {}, progress=progress,
    )  # fmt: skip
    nm = source.synth.wavelengths if source is not None else _of(windows).wavelengths
    bands = rgb_bands or red_green_blue_bands(nm)
    display = _display(source, windows, contents, bands)
    judgement = None
    if contents.pair is not None:
        judgement = judge(contents.pair, bands, display, seed=seed, progress=progress)
    made = {
        "Seed": seed,
        "Residual": "added" if residual else "left out",
        "Options of the generator": dict(options or {}),
    }
    facts = provenance(source, windows, real_name, made if source is not None else {"Seed": seed}, command)
    heading = title or (real_name if source is None else source.name)
    page = render(Page(heading, nm, bands, display, source, windows, contents, judgement, facts, megabytes))
    _write(path, page)
    return path


def _target(out: Path) -> Path:
    """The page to write, after checking that no other page stands there."""
    path = out.expanduser() / "index.html"
    if path.exists() and GENERATOR not in path.read_text(encoding="utf-8", errors="replace")[:2000]:
        raise ValueError(f"{path} exists and is no report of this package: give another directory")
    return path


def _adapted(
    source: Source | None,
    real: Any,
    windows: RealImages,
    labels: Any,
    class_map: Mapping[str, str] | None,
    rgb_bands: tuple[int, int, int] | None,
    seed: int,
) -> Source | None:
    """The bundle on the bands of the real images."""
    if source is None or same_bands(source.synth.wavelengths, windows.wavelengths):
        return source
    synth = source.synth.adapt(
        real, wavelengths=windows.wavelengths, rgb_bands=rgb_bands, labels=labels,
        classes=windows.classes or None, class_map=class_map if windows.classes else None, seed=seed,
    )  # fmt: skip
    return Source(synth, source.name, source.facts)


def _of(windows: RealImages | None) -> RealImages:
    assert windows is not None
    return windows


def _called(real: Any) -> str:
    """The folder of a data set, or what it is."""
    at: Any = real
    while at is not None:
        if isinstance(root := getattr(at, "root", None), str | Path):
            return Path(root).name or str(root)
        at = getattr(at, "dataset", None)
    return "images" if isinstance(real, Tensor | list | tuple) else type(real).__name__


def _display(
    source: Source | None, windows: RealImages | None, contents: Contents, bands: Sequence[int]
) -> Display:
    """One stretch for the page: that of the bundle's pictures, or one for all that is shown if there are real images."""
    if source is not None and windows is None and source.synth.rgb_scale != 1:
        return Display(source.synth.rgb_scale, source.synth.rgb_gamma)
    return Display.of(torch.cat([p.image[list(bands)].flatten() for p in contents.pictures])[None, None])


def _write(path: Path, page: str) -> None:
    with replacing(path) as aside:
        aside.write_text(page, encoding="utf-8")
