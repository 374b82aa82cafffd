"""Synthetic images as a map-style data set, and real data sets filled up with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, Dataset, Subset, get_worker_info

from ubf_augment.errors import BandCountError, LabelError, RadiometryError, ShapeError, UnknownClassError
from ubf_augment.labels import ClassIndex
from ubf_augment.seeding import derive_seed, per_sample
from ubf_augment.strategies import resize_maps
from ubf_augment.synthesis import HSISynthesizer

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
        index = ClassIndex.match(synth.classes, classes, class_map)
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
        a = resize_maps(self._abundances(items, y), self.size)
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

    def materialize(self, batch_size: int = 64, progress: bool = True) -> SyntheticHSIDataset:
        """Draw all abundance maps now, on the synthesizer's device, and keep them; returns the data set.

        Afterwards the synthesizer is on the CPU, so that DataLoader workers can decode the maps.

        Args:
            batch_size: maps drawn at once.
            progress: show a progress bar.
        """
        from tqdm import tqdm

        if self._cache is None:
            self._cache = {}
        with torch.no_grad():
            for start in tqdm(range(0, len(self), batch_size), "drawing abundances", disable=not progress):
                items = list(range(start, min(start + batch_size, len(self))))
                self._abundances(items, torch.tensor([self._source[self.targets[i]] for i in items]))
        self.synth.cpu()
        return self


class _Labelled(Dataset[Any]):
    """A real data set whose dict samples are cut to image, label and ``is_synthetic`` False."""

    def __init__(self, dataset: Dataset[Any], image_key: str, label_key: str) -> None:
        self.dataset, self.image_key, self.label_key = dataset, image_key, label_key

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def __getitem__(self, i: int) -> Sample:
        sample = self.dataset[i]
        label = sample[self.label_key]
        return {
            self.image_key: sample[self.image_key],
            self.label_key: int(label) if isinstance(label, Tensor) else label,
            "is_synthetic": False,
        }


class _Renamed:
    """Synthetic items in the form of the real ones: a dict with its keys, or a pair; its types of image and label."""

    def __init__(
        self, keys: tuple[str, str] | None, image: Tensor, label: Any, after: Callable[[Any], Any] | None
    ) -> None:
        self.keys, self.after, self.image_dtype = keys, after, image.dtype
        self.label_dtype = label.dtype if keys is None and isinstance(label, Tensor) else None

    def __call__(self, sample: Sample) -> Any:
        image, label = sample["image"].to(self.image_dtype), sample["label"]
        if self.label_dtype is not None:
            label = torch.tensor(label, dtype=self.label_dtype)
        if self.keys is None:
            out: Any = (image, label)
        else:
            out = {self.keys[0]: image, self.keys[1]: label, "is_synthetic": True}
        return out if self.after is None else self.after(out)


class _Concat(ConcatDataset[Any]):
    """ConcatDataset that passes ``__getitems__`` on, so that batches are drawn at once."""

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        out: list[Any] = [None] * len(indices)
        start = 0
        for dataset, end in zip(self.datasets, self.cumulative_sizes, strict=True):
            mine = [(k, i % len(self) - start) for k, i in enumerate(indices) if start <= i % len(self) < end]
            if hasattr(dataset, "__getitems__") and mine:
                found = dataset.__getitems__([i for _, i in mine])
            else:
                found = [dataset[i] for _, i in mine]
            for (k, _), item in zip(mine, found, strict=True):
                out[k] = item
            start = end
        return out


def balance(
    dataset: Dataset[Any],
    synth: HSISynthesizer,
    *,
    classes: Sequence[str] | None = None,
    class_map: Mapping[str, str] | None = None,
    to: Literal["max"] | int = "max",
    seed: int = 0,
    strict: bool = True,
    transform: Callable[[Any], Any] | None = None,
    residual: bool = True,
    cache: bool = True,
    options: Mapping[str, Any] | None = None,
    image_key: str = "image",
    label_key: str = "label",
) -> ConcatDataset[Any]:
    """Fill every class of a real data set up with synthetic images; real items come first.

    Real dict samples are cut to image, label and ``is_synthetic`` (False), so that a default collate takes
    both kinds; a data set of pairs (image, label) stays one of pairs.

    Args:
        dataset: real images, as dicts or pairs, on the bands of ``synth``.
        synth: the source of images.
        classes: class names in label order; by default ``dataset.classes``, else the synthesizer's.
        class_map: name in ``classes`` → the synthesizer's name, where they differ.
        to: ``"max"``, the size of the largest class, or a number. Larger classes are left as they are.
        seed: of the synthetic items.
        strict: raise if a class needs images that the synthesizer cannot make; else that class stays as it
            is.
        transform: applied to synthetic items: repeat here what ``dataset`` does to its own (a normalisation,
            say).
        residual: see `SyntheticHSIDataset`.
        cache: see `SyntheticHSIDataset`.
        options: see `SyntheticHSIDataset`.
        image_key: of dict samples.
        label_key: of dict samples.

    Raises:
        UnknownClassError: (strict) for a class that the synthesizer cannot make.
        LabelError: if a label lies outside ``classes``.
        BandCountError: if the images have other bands than ``synth``.
        RadiometryError: if they are integers.
        ShapeError: if they are not (C, H, W).
    """
    if not len(dataset):  # type: ignore[arg-type]
        raise ValueError("the data set is empty: there is nothing to balance")
    names = classes if classes is not None else _inherited(dataset, "classes")
    if names is None and class_map:
        raise ValueError("class_map needs classes=[…], the names of your classes in label order")
    index = ClassIndex.match(synth.classes, names, class_map)
    counts = _count(labels_of(dataset, label_key), index.num_classes)
    goal = max(counts) if to == "max" else int(to)
    wanted = {name: max(goal - n, 0) for name, n in zip(index.names, counts, strict=True)}
    if strict and (bad := [k for k in index.unknown if wanted[k]]):
        raise UnknownClassError(
            f"the synthesizer cannot make {', '.join(bad)}: give class_map={{'your class': 'its class'}}, or "
            "strict=False to leave these classes as they are"
        )
    wanted = {k: 0 if k in index.unknown else n for k, n in wanted.items()}
    first = dataset[0]
    pair = not isinstance(first, Mapping)
    image, label = (first[0], first[1]) if pair else (first[image_key], first[label_key])
    _check_image(image := torch.as_tensor(image), synth)
    extra = SyntheticHSIDataset(
        synth,
        wanted,
        seed,
        classes=names,
        class_map=class_map,
        transform=_Renamed(None if pair else (image_key, label_key), image, label, transform),
        residual=residual,
        size=(image.shape[1], image.shape[2]),
        cache=cache,
        options=options,
    )
    return _Concat([dataset if pair else _Labelled(dataset, image_key, label_key), extra])


def _check_image(image: Tensor, synth: HSISynthesizer) -> None:
    if image.ndim != 3:
        raise ShapeError(f"images must be (C, H, W), the first one has shape {tuple(image.shape)}")
    if not image.is_floating_point():
        raise RadiometryError(f"images are {image.dtype}: make the data set give float reflectance")
    if image.shape[0] != synth.num_bands:
        raise BandCountError(
            f"the images have {image.shape[0]} bands, the synthesizer {synth.num_bands}: see synth.adapt"
        )


def _inherited(dataset: Any, name: str) -> Any:
    """An attribute of a data set, looked for inside Subset too."""
    while isinstance(dataset, Subset):
        dataset = dataset.dataset
    return getattr(dataset, name, None)


def labels_of(dataset: Any, label_key: str = "label") -> list[int]:
    """All labels of a data set: ``targets`` or ``labels``, through Subset and ConcatDataset, or by iterating.

    Args:
        dataset: of dicts or pairs.
        label_key: of dict samples.
    """
    if isinstance(dataset, Subset):
        known = _stated(dataset.dataset)
        if known is not None:
            return [known[i] for i in dataset.indices]
    if isinstance(dataset, ConcatDataset):
        return [y for part in dataset.datasets for y in labels_of(part, label_key)]
    known = _stated(dataset)
    if known is not None:
        return known
    from tqdm import tqdm

    found = []
    for i in tqdm(range(len(dataset)), "counting labels"):
        sample = dataset[i]
        found.append(int(sample[label_key] if isinstance(sample, Mapping) else sample[1]))
    return found


def _stated(dataset: Any) -> list[int] | None:
    """Labels that a data set states itself, if they are one integer per item."""
    if isinstance(dataset, Subset | ConcatDataset):
        return labels_of(dataset)
    for name in ("targets", "labels"):
        value = getattr(dataset, name, None)
        if value is None or callable(value):
            continue
        try:
            tensor = torch.as_tensor(value)
        except (TypeError, ValueError, RuntimeError):
            continue
        if tensor.shape == (len(dataset),) and not tensor.is_floating_point():
            return [int(v) for v in tensor]
    return None


def _count(labels: list[int], num_classes: int) -> list[int]:
    if bad := [y for y in labels if not 0 <= y < num_classes]:
        raise LabelError(
            f"label {bad[0]} is outside 0..{num_classes - 1}: give classes=[…] in label order if the "
            "data set has other classes than the synthesizer"
        )
    return torch.bincount(torch.tensor(labels), minlength=num_classes).tolist()
