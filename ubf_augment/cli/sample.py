"""``ubf sample``: labelled synthetic images as GeoTIFFs."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ubf_augment.cli.device import find_device
from ubf_augment.cli.inputs import split_names
from ubf_augment.cli.output import bar, say
from ubf_augment.errors import UnknownClassError
from ubf_augment.io import write_hsi
from ubf_augment.synthesis import HSISynthesizer
from ubf_augment.synthesis.drawing import draw_numbered, draw_sheet, sample_seed
from ubf_augment.synthesis.storage import fingerprint

POSITIONAL: dict[str, dict[str, Any]] = {
    "bundle": {"type": str, "help": "packaged name, directory, or Hugging Face Hub id"}
}
MANIFEST = "manifest.json"


def run(
    bundle: str,
    out: Path,
    *,
    num: int = 10,
    classes: list[str] | str | None = None,
    seed: int = 0,
    residual: bool = True,
    options: dict[str, Any] | None = None,
    scale: float | None = None,
    batch_size: int = 16,
    device: str = "auto",
    sheet: bool = True,
) -> None:
    """Draw labelled images and write them as out/<class>/<class>-<number>.tif, with the wavelengths in the bands.

    Image i of a class depends on seed, class and i alone. Files that are there already are kept, so an
    interrupted call goes on, and a larger num adds to what there is.

    Args:
        bundle: packaged name, directory, or Hugging Face Hub id.
        out: directory for the images, manifest.json and samples.png.
        num: images of each class.
        classes: names, such as Forest,Meadow; all by default.
        seed: of the images.
        residual: add the residual model.
        options: of the generator, such as '{"steps": 10}'.
        scale: None writes float32; a number such as 0.0001 writes int16 with that scale.
        batch_size: images drawn at once.
        device: auto, cpu, cuda, cuda:1, mps.
        sheet: write samples.png.
    """
    if num < 1 or batch_size < 1:
        raise ValueError(f"num and batch_size must be at least 1, got {num} and {batch_size}")
    synth = HSISynthesizer.from_pretrained(bundle, device=find_device(device))
    names = _check_classes(synth, split_names(classes))
    facts = {
        "bundle": str(bundle), "fingerprint": fingerprint(synth), "seed": seed, "residual": residual,
        "options": options or {}, "scale": scale, "wavelengths": synth.wavelengths.tolist(), "size": list(synth.size),
    }  # fmt: skip
    wanted = [(name, i) for name in names for i in range(num)]
    entries = _previous(out, facts)
    todo = [(name, i) for name, i in wanted if not (out / _file(name, i)).is_file()]
    if len(todo) < len(wanted):
        say(f"{len(wanted) - len(todo)} of {len(wanted)} images are there already")
    batches = [todo[k : k + batch_size] for k in range(0, len(todo), batch_size)]
    _write_manifest(out, facts, entries)
    with bar(batches, len(batches), "drawing") as shown:
        for batch in shown:
            _, x = draw_numbered(synth, batch, seed, residual=residual, **(options or {}))
            for (name, i), image in zip(batch, x, strict=True):
                write_hsi(out / _file(name, i), image, synth.wavelengths, scale=scale)
    entries |= {_file(n, i): {"class": n, "index": i, "seed": sample_seed(seed, n, i)} for n, i in wanted}
    _write_manifest(out, facts, {file: e for file, e in entries.items() if (out / file).is_file()})
    if sheet:
        _draw_sheet(synth, names[:12], min(num, 5), seed, residual, options or {}, out)
    say(f"{len(wanted)} images of {len(names)} classes in {out}")


def _draw_sheet(
    synth: HSISynthesizer,
    names: list[str],
    count: int,
    seed: int,
    residual: bool,
    options: Mapping[str, Any],
    out: Path,
) -> None:
    """The first images of the classes, abundances and spectra."""
    items = [(name, i) for name in names for i in range(count)]
    a, x = draw_numbered(synth, items, seed, residual=residual, **options)
    draw_sheet(synth, a, x, names, note=f"seed {seed}", path=out / "samples.png")


def _check_classes(synth: HSISynthesizer, classes: list[str] | None) -> list[str]:
    if not synth.classes:
        if classes:
            raise UnknownClassError("this bundle has no classes: leave --classes out")
        return ["scene"]
    chosen = list(synth.classes) if classes is None else classes
    synth.labels(chosen)
    return list(dict.fromkeys(chosen))


def _file(name: str, i: int) -> str:
    """Path below the output directory; a class may be called AID/Forest."""
    flat = name.replace("/", "_").replace("\\", "_")
    return f"{flat}/{flat}-{i:05d}.tif"


def _previous(out: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Entries of the manifest that is there.

    Raises:
        ValueError: if it belongs to other settings.
    """
    path = out / MANIFEST
    if not path.is_file():
        if out.is_dir() and any(out.rglob("*.tif")):
            raise ValueError(f"{out} holds images but no {MANIFEST}: give another --out")
        return {}
    content = json.loads(path.read_text(encoding="utf-8"))
    changed = [k for k, v in facts.items() if k != "bundle" and content.get(k) != v]
    if changed:
        raise ValueError(
            f"{out} holds images of another {', '.join(changed)}: give another --out, or delete it"
        )
    return dict(content["files"])


def _write_manifest(out: Path, facts: Mapping[str, Any], files: Mapping[str, Any]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    aside = out / f".{MANIFEST}.{os.getpid()}"
    text = json.dumps({**facts, "files": dict(sorted(files.items()))}, indent=1, ensure_ascii=False)
    aside.write_text(text + "\n", encoding="utf-8")
    os.replace(aside, out / MANIFEST)
