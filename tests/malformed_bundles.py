"""Bundles that are not what they should be, signed again where checksums alone would give them away: `BUNDLES`.

And pictures (`ubf fit --rgb`): `PICTURES`.
"""

from __future__ import annotations

import functools
import json
import math
import os
import shutil
import struct
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from malformed_files import HTML, TEXT, Case, Make, holds, png
from safetensors.torch import load_file, save, save_file
from tiny import CLASSES, E

from ubf_augment import HSISynthesizer
from ubf_augment.bundle import INDEX, checksum, index_checksum
from ubf_augment.cli.inputs import PictureFolder
from ubf_augment.generators import get_generator
from ubf_augment.unmixing import UnmixingModel

Index = dict[str, Any]
NAN = math.nan
SPECTRA, WEIGHTS = "endmembers.safetensors", "{}/model.safetensors"


@functools.cache
def whole() -> Path:
    """A good bundle with encoder and a small generator."""
    torch.manual_seed(0)
    model = UnmixingModel(E, width=16, blocks=1, rgb_width=16, rgb_blocks=1)
    generator = get_generator("gmm", num_endmembers=3, size=(8, 8), num_classes=3)
    folder = Path(tempfile.mkdtemp()) / "whole"
    synth = HSISynthesizer(model.endmembers, generator, unmixing=model, classes=CLASSES)
    return synth.save_pretrained(folder)


def sign(root: Path) -> Path:
    """Make all checksums right again."""
    index = json.loads((root / INDEX).read_text())
    for name in list(index["sha256"]):
        if name != INDEX and (root / name).is_file():
            index["sha256"][name] = checksum((root / name).read_bytes())
    index["sha256"][INDEX] = index_checksum(index)
    (root / INDEX).write_text(json.dumps(index))
    return root


def spoilt(spoil: Callable[[Path], object], signed: bool = True) -> Make:
    """A copy of the good bundle, something done to it."""

    def make(folder: Path) -> Path:
        root = folder / "bundle"
        shutil.copytree(whole(), root)
        spoil(root)
        return sign(root) if signed else root

    return make


def index(change: Callable[[Index], object], signed: bool = True) -> Make:
    def spoil(root: Path) -> None:
        content = json.loads((root / INDEX).read_text())
        change(content)
        (root / INDEX).write_text(json.dumps(content))

    return spoilt(spoil, signed)


def entry(**values: Any) -> Make:
    return index(lambda content: content.update(values))


def without(name: str) -> Make:
    return index(lambda content: content.pop(name))


def config(part: str, change: Callable[[Any], Any]) -> Make:
    def spoil(root: Path) -> None:
        path = root / part / "config.json"
        content = json.loads(path.read_text())
        result = change(content)
        path.write_text(json.dumps(content if result is None else result))

    return spoilt(spoil)


def setting(part: str, **values: Any) -> Make:
    """Constructor arguments of a network."""
    return config(part, lambda c: (c if part == "unmixing" else c["config"]).update(values))


def tensors(file: str, change: Callable[[dict[str, torch.Tensor]], object]) -> Make:
    def spoil(root: Path) -> None:
        state = load_file(root / file)
        change(state)
        save_file({k: v.contiguous() for k, v in state.items()}, root / file)

    return spoilt(spoil)


def content(file: str, data: bytes, signed: bool = True) -> Make:
    return spoilt(lambda root: (root / file).write_bytes(data), signed)


def instead(file: str, make: Callable[[Path], object]) -> Make:
    """Something else in the place of a file."""

    def spoil(root: Path) -> None:
        (root / file).unlink()
        make(root / file)

    return spoilt(spoil, False)


def load(path: Path) -> bool:
    HSISynthesizer.from_pretrained(path)
    return False


def claims(size: int) -> bytes:
    """A safetensors header that promises a tensor of so many bytes."""
    head = json.dumps({"spectra": {"dtype": "F32", "shape": [size // 4], "data_offsets": [0, size]}}).encode()
    return struct.pack("<Q", len(head)) + head + bytes(64)


def _of_index() -> Iterator[tuple[str, Make, str]]:
    for name, data in (
        ("nothing", b""), ("binary", bytes(range(256))), ("text", TEXT), ("html", HTML), ("a list", b"[1, 2]"),
        ("a number", b"7"),
        ("nested deeply", b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
        ("a number of many digits", b'{"a": ' + b"9" * 9000 + b"}"),
        ("UTF-16", '{"a": 1}'.encode("utf-16")), ("cut", b'{"format_version": 1, "name": "x'),
    ):  # fmt: skip
        yield f"index is {name}", content(INDEX, data, False), f"{INDEX}|save_pretrained"
    yield "index is a folder", instead(INDEX, lambda p: p.mkdir()), f"has no {INDEX}"
    yield "index is a broken link", instead(INDEX, lambda p: p.symlink_to("gone")), f"has no {INDEX}"
    yield "index is a pipe", instead(INDEX, os.mkfifo), f"has no {INDEX}"
    for version in ("1", True, 0, -1, None, 1.5):
        yield f"format version {version!r}", entry(format_version=version), "format_version"
    yield "format version 99", entry(format_version=99), "99|upgrade"
    yield "no checksums", index(lambda c: c.update(sha256=None), False), "altered"
    yield "checksums in a list", index(lambda c: c.update(sha256=[1]), False), "altered"
    yield "half a character", index(lambda c: c.update(name="\ud800"), False), "altered"
    for parts in ("generator", ["../generator"], [1], ["generator", "decoder"], {"generator": 1}):
        yield f"components {parts!r}", entry(components=parts), INDEX
    yield "no generator", entry(components=["unmixing"]), "generator"
    for name in ("classes", "endmembers", "rgb_scale", "card"):
        yield f"index without {name}", without(name), name
    yield "a class too few", entry(classes=list(CLASSES[:2])), "class"
    yield "a class twice", entry(classes=[CLASSES[0]] * 3), "class"
    yield "names too few", entry(endmembers=["soil"]), "1 names for 3"
    for value in ("x", NAN, 0, -1, None, [1]):
        yield f"rgb_scale {value!r}", entry(rgb_scale=value), "bundle"


def _of_tensors() -> Iterator[tuple[str, Make, str]]:
    for name, data in (
        ("nothing", b""), ("text", TEXT), ("a promise", claims(1 << 40)),
        ("header of 2⁶³ bytes", struct.pack("<Q", 2**63) + b"{}"),
        ("no tensors", save({})),
    ):  # fmt: skip
        yield f"endmembers are {name}", content(SPECTRA, data), "bundle"
    changes: dict[str, Callable[[dict[str, torch.Tensor]], object]] = {
        "NaN": lambda t: t["spectra"].fill_(NAN), "negative": lambda t: t["spectra"].mul_(-1),
        "without spectra": lambda t: t.pop("spectra"), "without wavelengths": lambda t: t.pop("wavelengths"),
        "of one band less": lambda t: t.update(spectra=t["spectra"][:, :-1]),
        "of one material less": lambda t: t.update(spectra=t["spectra"][:-1]),
        "with four axes": lambda t: t.update(spectra=t["spectra"][None, None]),
        "falling": lambda t: t.update(wavelengths=t["wavelengths"].flip(0)),
        "in µm": lambda t: t["wavelengths"].div_(1000), "at NaN nm": lambda t: t["wavelengths"].fill_(NAN),
        "with widths of zero": lambda t: t.update(fwhm=torch.zeros(5)),
        "with half a residual": lambda t: t.update(residual_mean=torch.zeros(5)),
        "of a class that is not there": lambda t: t.update(
            class_spectra=t["spectra"][None].clone(), class_index=torch.tensor([7])),
    }  # fmt: skip
    for name, change in changes.items():
        yield f"endmembers {name}", tensors(SPECTRA, change), "bundle"
    for part in ("generator", "unmixing"):
        file = WEIGHTS.format(part)

        def first(t: dict[str, torch.Tensor]) -> str:
            return max(t, key=lambda k: (t[k].is_floating_point(), t[k].numel(), k))

        yield f"{part} weights NaN", tensors(file, lambda t: t[first(t)].fill_(NAN)), "NaN"
        yield (
            f"{part} weights of another shape",
            tensors(file, lambda t: t.update({first(t): torch.zeros(2, 2)})),
            "(2, 2)",
        )
        yield f"{part} weights without one", tensors(file, lambda t: t.pop(first(t))), "Missing key"
        yield f"{part} weights with one more", tensors(file, lambda t: t.update(more=torch.zeros(1))), "more"
        yield f"{part} weights cut", spoilt(lambda r, f=file: os.truncate(r / f, 100)), "cannot be read"
        yield f"{part} weights a folder", instead(file, lambda p: p.mkdir()), "is missing"
        yield f"{part} weights a pipe", instead(file, os.mkfifo), "is missing"


def _of_configs() -> Iterator[tuple[str, Make, str]]:
    for part in ("generator", "unmixing"):
        for name, value in (("a list", [1]), ("text", "x")):
            yield f"{part} configuration is {name}", config(part, lambda _, v=value: v), "JSON object"
    yield "unknown generator", config("generator", lambda c: c.update(name="gan")), "'gan'|upgrade"
    yield "generator without a name", config("generator", lambda c: {"config": c["config"]}), "name"
    for name, values in {
        "an unknown option": {"colour": 1}, "10⁹ components": {"components": 10**9}, "a negative size": {"size": [-8, 8]},
        "a size of zero": {"size": [0, 0]}, "a size of 10⁹": {"size": [10**9, 10**9]}, "other classes": {"num_classes": 7},
        "other endmembers": {"num_endmembers": 4}, "words": {"components": "many"},
    }.items():  # fmt: skip
        yield f"generator with {name}", setting("generator", **values), "bundle"
    for name, values in {
        "20,000 channels": {"width": 20_000}, "10⁹ channels": {"width": 10**9}, "10⁸ blocks": {"blocks": 10**8},
        "1000 blocks": {"rgb_blocks": 1000}, "no channels": {"width": 0}, "−1 channels": {"width": -1},
        "words": {"width": "wide"},
        "names too few": {"names": ["soil"]}, "wavelengths falling": {"wavelengths": [5, 4, 3, 2, 1]}, "red at band 99": {
            "rgb_index": [99, 1, 0]}, "an unknown option": {"colour": 1},
    }.items():  # fmt: skip
        yield f"unmixing with {name}", setting("unmixing", **values), "bundle"


def _bundles() -> Iterator[Case]:
    for table in (_of_index, _of_tensors, _of_configs):
        for name, make, words in table():
            yield Case("bundles", name, make, words, read=load)
    yield Case("bundles", "a file", holds("bundle", TEXT), "no bundle directory", read=load)
    yield Case("bundles", "an empty folder", lambda f: _folder(f / "bundle"), f"has no {INDEX}", read=load)


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


def _read_picture(path: Path) -> bool:
    PictureFolder([path.parent.parent])[0]
    return False


def _pictures() -> Iterator[Case]:
    good = png(64, 48)
    for name, file, data in (
        ("nothing", "a.png", b""), ("text", "a.jpg", TEXT), ("html", "a.png", HTML), ("cut", "a.png", good[:-30]),
        ("damaged", "a.png", good[:50] + bytes(9) + good[59:]), ("900 million pixels", "a.png", png(30_000, 30_000, 1)),
        ("no pixels", "a.png", png(0, 0)), ("bmp of text", "a.bmp", b"BM" + TEXT),
        ("webp of text", "a.webp", b"RIFF\0\0\0\0WEBP" + TEXT), ("tif of text", "a.tif", b"II*\0" + TEXT),
    ):  # fmt: skip

        def make(folder: Path, file: str = file, data: bytes = data) -> Path:
            (folder / "Field").mkdir()
            return holds(file, data)(folder / "Field")

        yield Case("pictures", name, make, "Field|replace or remove it", read=_read_picture)


BUNDLES = list(_bundles())
PICTURES = list(_pictures())
