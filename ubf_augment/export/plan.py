"""Which samples there are, what each is drawn from, and which are drawn together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ubf_augment.errors import UnknownClassError
from ubf_augment.synthesis import HSISynthesizer
from ubf_augment.synthesis.drawing import draw_numbered


@dataclass(frozen=True)
class Plan:
    """``num`` samples of each class, in one order, cut into batches of one size.

    Classes take turns: of K classes, sample n is number n // K of class n mod K. It is drawn from a seed of (``seed``, class
    name, its number) alone. Samples are drawn in the batches 0 … B−1, B … 2B−1, …, the last one filled up beyond the end: a
    network rounds its sums differently in batches of other sizes, by about 1e-7, so that only whole batches at fixed places
    give the same bytes whoever draws them, and whatever is there already.

    Attributes:
        classes: names; one without meaning for a synthesizer without classes.
        num: samples of each.
        seed: of all.
        batch_size: B.
        residual: add the residual model.
        options: of the generator.

    >>> plan = Plan(("field", "forest"), num=2)
    >>> [plan.item(n) for n in range(plan.total)]
    [('field', 0), ('forest', 0), ('field', 1), ('forest', 1)]
    """

    classes: tuple[str, ...]
    num: int
    seed: int = 0
    batch_size: int = 16
    residual: bool = True
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what makes no sense.

        Raises:
            ValueError: for numbers below one, no class, or a class that comes twice.
        """
        if self.num < 1 or self.batch_size < 1:
            raise ValueError(f"num and batch_size must be at least 1, got {self.num} and {self.batch_size}")
        if not self.classes or len(set(self.classes)) < len(self.classes):
            raise ValueError(f"give at least one class, and each once, got {', '.join(self.classes)}")

    @property
    def total(self) -> int:
        """Samples in all."""
        return self.num * len(self.classes)

    def item(self, n: int) -> tuple[str, int]:
        """Class and number of sample n."""
        return self.classes[n % len(self.classes)], n // len(self.classes)

    def draw(self, synth: HSISynthesizer, items: Sequence[tuple[str, int]]) -> tuple[Tensor, Tensor]:
        """Abundances (B, P, H, W) and images (B, C, H, W) of these samples, on the CPU."""
        return draw_numbered(synth, items, self.seed, residual=self.residual, **self.options)

    def images(self, synth: HSISynthesizer, wanted: range) -> Iterator[tuple[int, Tensor]]:
        """Samples ``wanted``, in order, as (n, image): every batch that holds one is drawn whole."""
        size = self.batch_size
        for start in range(wanted.start // size * size, wanted.stop, size):
            batch = range(start, start + size)
            _, x = self.draw(synth, [self.item(n) for n in batch])
            yield from ((n, x[n - start]) for n in batch if n in wanted)


def choose_classes(synth: HSISynthesizer, classes: Sequence[str] | None) -> tuple[str, ...]:
    """Names of the classes to draw: those given, all by default, ``scene`` for a synthesizer without classes.

    Raises:
        UnknownClassError: for a name that is no class.
    """
    if not synth.classes:
        if classes:
            raise UnknownClassError("this bundle has no classes: leave them out")
        return ("scene",)
    chosen = synth.classes if classes is None else classes
    synth.labels(list(chosen))
    return tuple(dict.fromkeys(chosen))
