"""Synthetic images as a map-style data set."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from ubf_augment import simplex
from ubf_augment.errors import MissingLabelError, UnknownClassError
from ubf_augment.labels import ClassIndex
from ubf_augment.plotting import plot_sample
from ubf_augment.seeding import derive_seed, per_sample
from ubf_augment.synthesis import HSISynthesizer
from ubf_augment.synthesis.drawing import display_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Sample = dict[str, Any]


class SyntheticHSIDataset(Dataset[Any]):
    """Labelled synthetic images: item i depends on ``(seed, i)`` alone, whatever the batch size or worker.

    Items are ``{"image": (C, H, W) float32 reflectance, "label": int, "is_synthetic": True}``, ordered by
    class. A DataLoader asks for whole batches (``__getitems__``), which the generator then draws at once.

    Args:
        synth: the source of images. In DataLoader workers it must be on the CPU.
        samples_per_class: one number for every class, or class name → number.
        seed: of all items.
        classes: class names in label order; by default the synthesizer's.
        class_map: name in ``classes`` → the synthesizer's name, where they differ.
        transform: applied to each item.
        residual: add the residual model, so that images are not tell-tale smooth.
        size: (H, W) of the images; by default the synthesizer's.
        cache: keep abundance maps in memory once drawn (4·P·H·W bytes each at the synthesizer's size): later
            epochs then only decode. Each worker keeps its own; see `materialize`.
        options: of the generator, such as ``{"steps": 10}``.

    Attributes:
        classes: class names in label order.
        targets: the label of each item.
        wavelengths: (C,) band centres in nm.

    Raises:
        UnknownClassError: if a class that is wanted is unknown to the synthesizer.
        MissingLabelError: if its generator takes no class.
        ValueError: if a number is negative.

    >>> from ubf_augment import Endmembers, get_generator
    >>> E = Endmembers(torch.tensor([[0.1, 0.2, 0.4], [0.0, 0.0, 0.0]]), [490, 560, 665], ("soil", "shade"))
    >>> g = get_generator("ddpm", num_endmembers=2, size=(8, 8), num_classes=2, widths=(16, 16))
    >>> data = SyntheticHSIDataset(HSISynthesizer(E, g, classes=["field", "forest"]), {"forest": 3}, seed=0)
    >>> len(data), data[0]["image"].shape, data[0]["label"]
    (3, torch.Size([3, 8, 8]), 1)
    """

    def __init__(
        self,
        synth: HSISynthesizer,
        samples_per_class: int | Mapping[str, int],
        seed: int = 0,
        *,
        classes: Sequence[str] | None = None,
        class_map: Mapping[str, str] | None = None,
        transform: Callable[[Sample], Any] | None = None,
        residual: bool = True,
        size: tuple[int, int] | None = None,
        cache: bool = True,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.synth, self.seed, self.transform = synth.eval(), seed, transform
        self.residual, self.size = residual, size or synth.size
        self.options = dict(options or {})
        index = match_classes(synth, classes, class_map)
        self.classes = index.names
        if isinstance(samples_per_class, Mapping):
            numbers = {str(k): int(v) for k, v in samples_per_class.items()}
            if missing := [k for k in numbers if k not in self.classes]:
                raise UnknownClassError(
                    f"samples_per_class has {missing[0]!r}; there are {', '.join(self.classes)}"
                )
        else:
            numbers = dict.fromkeys(self.classes, int(samples_per_class))
        if any(v < 0 for v in numbers.values()):
            raise ValueError(f"the number of samples must not be negative, got {numbers}")
        if bad := [k for k in index.unknown if numbers.get(k)]:
            raise UnknownClassError(
                f"the synthesizer cannot make {', '.join(bad)}: give class_map={{'yours': 'its'}} or "
                f"leave it out of samples_per_class; it knows {', '.join(synth.classes) or 'no classes'}"
            )
        counts = torch.tensor([numbers.get(k, 0) for k in self.classes], dtype=torch.int64)
        self.targets: list[int] = torch.arange(len(counts)).repeat_interleave(counts).tolist()
        self._source: list[int] = index.source.tolist()
        self._cache: dict[int, Tensor] | None = {} if cache else None

    @property
    def wavelengths(self) -> Tensor:
        """(C,) band centres in nm."""
        return self.synth.wavelengths

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, i: int) -> Any:
        """One item; draw batches with ``__getitems__`` where you can."""
        return self.__getitems__([i])[0]

    @torch.no_grad()
    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        """Several items, drawn together.

        Raises:
            IndexError: if an index is out of range.
            RuntimeError: in a DataLoader worker whose synthesizer is on an accelerator.
        """
        n = len(self)
        items = [int(i) + n if i < 0 else int(i) for i in indices]
        if bad := [i for i in items if not 0 <= i < n]:
            raise IndexError(f"item {bad[0]} of a data set of {n}")
        if not items:
            return []
        if get_worker_info() is not None and self.synth.device.type != "cpu":
            raise RuntimeError(
                f"the synthesizer is on {self.synth.device}, which DataLoader workers cannot use: call "
                "synth.cpu(), or draw everything first with dataset.materialize(), or set num_workers=0"
            )
        y = torch.tensor([self._source[self.targets[i]] for i in items])
        a = simplex.resize(self._abundances(items, y), self.size)
        noise = per_sample(derive_seed(self.seed, 1), items)
        images = self.synth.mix(a, y, residual=self.residual, generator=noise).float().cpu()
        found = [
            {"image": image, "label": self.targets[i], "is_synthetic": True}
            for i, image in zip(items, images.unbind(), strict=True)
        ]
        return found if self.transform is None else [self.transform(s) for s in found]

    def _abundances(self, items: list[int], y: Tensor) -> Tensor:
        cache = self._cache if self._cache is not None else {}
        new = [j for j, i in enumerate(items) if i not in cache]
        drawn = {}
        if new:
            generators = per_sample(derive_seed(self.seed, 0), [items[j] for j in new])
            a = self.synth.sample_abundances(y[new], generator=generators, **self.options).cpu()
            drawn = {items[j]: a[k].clone() for k, j in enumerate(new)}
            if self._cache is not None:
                self._cache.update(drawn)
        return torch.stack([drawn[i] if i in drawn else cache[i] for i in items]).to(self.synth.device)

    def plot(self, sample: Sample, show_titles: bool = True, suptitle: str | None = None) -> Figure:
        """Show a sample in pseudo-RGB and some of its spectra, see `report.plot_sample`.

        Args:
            sample: of this data set; a ``"prediction"`` in it is named too.
            show_titles: show class names.
            suptitle: title of the figure.
        """
        display = display_of(self.synth, sample["image"][None])
        classes = self.classes if show_titles else None
        return plot_sample(sample, self.wavelengths, classes, suptitle, display=display)

    def materialize(self, batch_size: int = 64, progress: bool = True) -> SyntheticHSIDataset:
        """Draw all abundance maps now, on the synthesizer's device, and keep them; returns the data set.

        Afterwards the synthesizer is on the CPU, so that DataLoader workers can decode the maps.

        Args:
            batch_size: maps drawn at once.
            progress: show a progress bar.
        """
        from tqdm.auto import tqdm

        if self._cache is None:
            self._cache = {}
        with torch.no_grad():
            for start in tqdm(range(0, len(self), batch_size), "drawing abundances", disable=not progress):
                items = list(range(start, min(start + batch_size, len(self))))
                self._abundances(items, torch.tensor([self._source[self.targets[i]] for i in items]))
        self.synth.cpu()
        return self


def match_classes(
    synth: HSISynthesizer, classes: Sequence[str] | None, class_map: Mapping[str, str] | None
) -> ClassIndex:
    """Match the user's classes with the synthesizer's, see `ClassIndex.match`.

    Raises:
        MissingLabelError: if the generator takes no class.
    """
    if not synth.classes:
        raise MissingLabelError(
            "the generator takes no class, so its scenes would have no label: use a synthesizer with classes "
            "(list_pretrained() names some), or synth.sample(n=…) for images without labels"
        )
    return ClassIndex.match(synth.classes, classes, class_map)
