"""``ubf report``: a page about a bundle, real images, or both."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any

from ubf_augment import bundle as bundles
from ubf_augment.cli.device import find_device
from ubf_augment.cli.inputs import ReadOptions, read_images, split_names
from ubf_augment.cli.output import command, say
from ubf_augment.export.job import MANIFEST
from ubf_augment.files import locked, refuse_existing

POSITIONAL: dict[str, dict[str, Any]] = {
    "what": {
        "type": str,
        "help": "bundle (packaged name, directory, or Hugging Face Hub id), or folder of hyperspectral images",
    }
}


def run(
    what: str,
    out: Path = Path("report"),
    *,
    real: Path | None = None,
    classes: list[str] | str | None = None,
    class_map: dict[str, str] | None = None,
    per_class: int = 2,
    evaluate: int = 100,
    seed: int = 0,
    residual: bool = True,
    options: dict[str, Any] | None = None,
    rgb_bands: tuple[int, int, int] | None = None,
    megabytes: float = 6.0,
    title: str = "",
    overwrite: bool = False,
    device: str = "auto",
    read: ReadOptions = ReadOptions(),  # noqa: B008 - frozen
) -> None:
    """Write a page with images, spectra, abundance maps, endmembers, metrics and provenance, which needs no network.

    A bundle of other bands than the real images is adapted to them.

    Args:
        what: bundle, or folder of hyperspectral images.
        out: folder of the page, index.html; -o for short.
        real: folder of class folders of real images, folder of images, or image to set beside the bundle's samples.
        classes: those to show, such as Forest,Meadow; by default up to 32, those on both sides first.
        class_map: class folder → class of the bundle, where the names differ.
        per_class: real images, and samples, of each class.
        evaluate: samples that are compared with real images; 0 leaves the metrics out.
        seed: of the samples, numbered as in ubf sample, and of the choice of real images.
        residual: add the residual model to samples.
        options: of the generator, such as '{"steps": 10}'.
        rgb_bands: 0-based bands of red, green and blue; by wavelength if not given.
        megabytes: size that the page should not exceed; only every 2nd, 3rd, … pixel then carries its spectrum.
        title: heading.
        overwrite: replace a page that is there.
        device: auto, cpu, cuda, cuda:1, mps.
        read: how real images are read.
    """
    from ubf_augment.report import write_report

    refuse_existing(out / "index.html", overwrite)
    bundle, folder = (None, Path(what)) if _is_folder_of_images(what) else (what, real)
    if bundle is None and real is not None:
        raise ValueError(f"{what} is no bundle: give one, and the images as --real {what}")
    images, nm = None, None
    if folder is not None:
        _check_real(folder)
        images, nm, _ = read_images(folder, read)
        say(f"{len(images)} real images, {len(nm)} bands, {nm[0]:g}–{nm[-1]:g} nm")
    with locked(out):
        refuse_existing(out / "index.html", overwrite)  # once more: another process may have been quicker
        page = write_report(
            bundle, out, real=images, wavelengths=nm, class_map=class_map, rgb_bands=rgb_bands,
            classes=split_names(classes), per_class=per_class, evaluate=evaluate, seed=seed, residual=residual,
            megabytes=megabytes, title=title, device=find_device(device), real_name="" if folder is None else str(folder),
            command=shlex.join(command), progress=sys.stderr.isatty(), options=options,
        )  # fmt: skip
    say(f"{page}: {page.stat().st_size / 1e6:.1f} MB, open it in a browser")


def _check_real(folder: Path) -> None:
    """Raise if this is what ``ubf sample`` wrote.

    Raises:
        ValueError: if it is.
    """
    manifest = folder.expanduser() / MANIFEST
    content = json.loads(manifest.read_text(encoding="utf-8")) if manifest.is_file() else None
    if isinstance(content, dict) and "fingerprint" in content:
        bundle = content.get("bundle")
        raise ValueError(
            f"{folder} holds samples of {bundle}, not real images: ubf report {bundle} shows them"
        )


def _is_folder_of_images(what: str) -> bool:
    """Whether this names a folder or a file that is no bundle, not even an incomplete one."""
    path = Path(what).expanduser()
    parts = (path / bundles.INDEX, path / bundles.ENDMEMBERS)
    return what not in bundles.packaged() and path.exists() and not any(part.is_file() for part in parts)
