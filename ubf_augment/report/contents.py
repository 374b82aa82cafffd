"""What a report shows: rows of classes, their real and synthetic images, and the sets that are compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ubf_augment.errors import UnknownClassError
from ubf_augment.labels import ClassIndex
from ubf_augment.report.real import RealImages, middle
from ubf_augment.synthesis import HSISynthesizer
from ubf_augment.synthesis.drawing import draw_numbered

MAX_ROWS = 32
_UNNAMED = "scenes"


@dataclass(frozen=True)
class Row:
    """A class: its index in the real data set and in the synthesizer, None where one does not have it."""

    name: str
    real: int | None = None
    made: int | None = None


@dataclass(frozen=True, eq=False)
class Picture:
    """An image of the report.

    Attributes:
        kind: where it comes from.
        row: number of its class.
        number: its number within kind and row, from 1.
        image: reflectance (C, H, W).
        abundances: (P, H, W), where there is a synthesizer.
        origin: name of the file, or seed and number of the sample.
    """

    kind: Literal["real", "synthetic"]
    row: int
    number: int
    image: Float[Tensor, "c h w"]
    abundances: Float[Tensor, "p h w"] | None
    origin: str


@dataclass(frozen=True, eq=False)
class Pair:
    """Equal numbers of real and synthetic images of the same classes, to be compared.

    Attributes:
        real, made: reflectance (N, C, h, w) and (M, C, h, w), of equal size.
        real_labels, made_labels: row of each; -1 where the real image has no class.
        matched: whether the classes correspond.
    """

    real: Float[Tensor, "n c h w"]
    made: Float[Tensor, "m c h w"]
    real_labels: Int64[Tensor, " n"]
    made_labels: Int64[Tensor, " m"]
    matched: bool


@dataclass(frozen=True, eq=False)
class Contents:
    """Everything that is shown.

    Attributes:
        rows: the classes shown.
        names: all classes, in the order of the labels of ``pair``.
        pictures: by row, real ones first.
        pair: what is compared, or None.
    """

    rows: tuple[Row, ...]
    names: tuple[str, ...]
    pictures: tuple[Picture, ...]
    pair: Pair | None


@dataclass
class _Samples:
    """Samples by class and number, each drawn once."""

    synth: HSISynthesizer
    seed: int
    residual: bool
    options: Mapping[str, Any]
    drawn: dict[tuple[str, int], tuple[Tensor, Tensor]] = field(default_factory=dict)

    def name(self, row: Row) -> str:
        return self.synth.classes[row.made or 0] if self.synth.classes else "scene"

    def draw(self, items: Sequence[tuple[str, int]], progress: bool, batch_size: int = 16) -> None:
        todo = [item for item in dict.fromkeys(items) if item not in self.drawn]
        for batch in _batches(todo, batch_size, "drawing samples", progress):
            a, x = draw_numbered(self.synth, batch, self.seed, residual=self.residual, **self.options)
            self.drawn |= {item: (a[i], x[i]) for i, item in enumerate(batch)}


def collect(
    synth: HSISynthesizer | None,
    real: RealImages | None,
    *,
    classes: Sequence[str] | None,
    class_map: Mapping[str, str] | None,
    per_class: int,
    evaluate: int,
    seed: int,
    residual: bool,
    options: Mapping[str, Any],
    progress: bool,
) -> Contents:
    """Choose classes and images, draw the samples, unmix the real images that are shown.

    Raises:
        UnknownClassError: for a class that neither side has.
    """
    everything = _rows(synth, real, class_map)
    rows = _chosen(everything, classes)
    samples = None if synth is None else _Samples(synth, seed, residual, options)
    shown = [(row, n) for row in rows if row.made is not None for n in range(per_class)]
    compared = _compared(everything, real, evaluate) if samples and real else None
    if samples is not None:
        wanted = shown + (compared[1] if compared else [])
        samples.draw([(samples.name(row), n) for row, n in wanted], progress)
    pictures: list[Picture] = []
    for k, row in enumerate(rows):
        pictures += _real_pictures(k, row, real, per_class)
        pictures += _made_pictures(k, row, samples, per_class, seed)
    pictures = _unmixed(pictures, synth, progress)
    pair = None
    if compared and real is not None and samples is not None:
        pair = _pair(everything, real, samples, *compared)
    return Contents(rows, tuple(row.name for row in everything), tuple(pictures), pair)


def _rows(
    synth: HSISynthesizer | None, real: RealImages | None, class_map: Mapping[str, str] | None
) -> list[Row]:
    """Classes of both sides first, then those of one side, taking turns."""
    known = () if synth is None else synth.classes
    mine = () if real is None else real.classes
    source = ClassIndex.match(known, mine, class_map).source.tolist() if mine else []
    both = [
        Row(_both(name, known[s]), k, s)
        for k, (name, s) in enumerate(zip(mine, source, strict=True))
        if s >= 0
    ]
    only_real = [Row(name, k) for k, (name, s) in enumerate(zip(mine, source, strict=True)) if s < 0]
    if real is not None and None in real.labels:
        only_real.append(Row("unlabelled images" if mine else "images"))
    only_made = [Row(name, None, k) for k, name in enumerate(known) if k not in source]
    if synth is not None and not known:
        only_made = [Row(_UNNAMED, None, 0)]
    rest = [row for two in zip(only_made, only_real, strict=False) for row in two]
    n = min(len(only_made), len(only_real))
    return both + rest + only_made[n:] + only_real[n:]


def _both(mine: str, theirs: str) -> str:
    return mine if mine == theirs else f"{mine} (as {theirs})"


def _chosen(rows: Sequence[Row], classes: Sequence[str] | None) -> tuple[Row, ...]:
    if classes is None:
        return tuple(rows[:MAX_ROWS])
    names = {row.name.partition(" (as ")[0]: row for row in rows} | {row.name: row for row in rows}
    if missing := [name for name in classes if name not in names]:
        raise UnknownClassError(
            f"there is no class {missing[0]!r} to show; there are {', '.join(r.name for r in rows)}"
        )
    return tuple(dict.fromkeys(names[name] for name in classes))


def _compared(
    rows: Sequence[Row], real: RealImages, evaluate: int
) -> tuple[list[int], list[tuple[Row, int]], bool] | None:
    """Windows and samples that are compared: of the common classes, in equal shares, if there are some."""
    if not evaluate:
        return None
    both: dict[int | None, Row] = {row.real: row for row in rows if None not in (row.real, row.made)}
    makes = [row for row in rows if row.made is not None]
    chosen = [i for i, k in enumerate(real.labels) if not both or k in both]
    turns = [both[real.labels[i]] for i in chosen] if both else makes
    counts: dict[Row, int] = {}
    items = []
    for j in range(evaluate):
        row = turns[j % len(turns)]
        items.append((row, counts.setdefault(row, 0)))
        counts[row] += 1
    return chosen, items, bool(both)


def _pair(
    rows: Sequence[Row],
    real: RealImages,
    samples: _Samples,
    chosen: Sequence[int],
    items: Sequence[tuple[Row, int]],
    matched: bool,
) -> Pair:
    place: dict[int | None, int] = {row.real: k for k, row in enumerate(rows) if row.real is not None}
    made = torch.stack([samples.drawn[samples.name(row), n][1] for row, n in items])
    h, w = (min(a, b) for a, b in zip(real.images.shape[2:], made.shape[2:], strict=True))
    return Pair(
        middle(real.images[list(chosen)], h, w),
        middle(made, h, w),
        torch.tensor([place.get(real.labels[i], -1) for i in chosen]),
        torch.tensor([rows.index(row) for row, _ in items]),
        matched,
    )


def _real_pictures(k: int, row: Row, real: RealImages | None, count: int) -> list[Picture]:
    unlabelled = row.real is None and row.made is None
    if real is None or (row.real is None and not unlabelled):
        return []
    found = real.of_class(row.real)[:count]
    return [Picture("real", k, n, real.images[i], None, real.origins[i]) for n, i in enumerate(found, 1)]


def _made_pictures(k: int, row: Row, samples: _Samples | None, count: int, seed: int) -> list[Picture]:
    if samples is None or row.made is None:
        return []
    found = [samples.drawn[samples.name(row), n] for n in range(count)]
    return [
        Picture("synthetic", k, n, x, a, f"seed {seed}, number {n - 1}") for n, (a, x) in enumerate(found, 1)
    ]


def _unmixed(pictures: Sequence[Picture], synth: HSISynthesizer | None, progress: bool) -> list[Picture]:
    """Real pictures with their abundances."""
    if synth is None:
        return list(pictures)
    todo = [p for p in pictures if p.abundances is None]
    found: dict[int, Tensor] = {}
    for batch in _batches(todo, 8, "unmixing", progress):
        with torch.no_grad():
            a = synth.unmix(torch.stack([p.image for p in batch])).cpu()
        found |= {id(p): a[i] for i, p in enumerate(batch)}
    return [replace(p, abundances=found.get(id(p), p.abundances)) for p in pictures]


def _batches(items: Sequence[Any], size: int, title: str, progress: bool) -> Iterator[list[Any]]:
    from tqdm.auto import tqdm

    with tqdm(total=len(items), desc=title, disable=not progress or len(items) <= size) as bar:
        for start in range(0, len(items), size):
            batch = list(items[start : start + size])
            yield batch
            bar.update(len(batch))
