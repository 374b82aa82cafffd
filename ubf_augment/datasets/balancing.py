"""Real data sets filled up with synthetic images, so that every class has the same number."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, Dataset, Subset

from ubf_augment.datasets.synthetic import Sample, SyntheticHSIDataset, match_classes
from ubf_augment.errors import (
    BandCountError,
    LabelError,
    MissingLabelError,
    RadiometryError,
    ShapeError,
    UnknownClassError,
)
from ubf_augment.radiometry import check_reflectance
from ubf_augment.synthesis import HSISynthesizer


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
            self.image_key: torch.as_tensor(sample[self.image_key]),
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
    """ConcatDataset that knows its classes and passes ``__getitems__`` on, so that batches are drawn at once."""

    classes: tuple[str, ...]
    targets: list[int]

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        n, start = len(self), 0
        if bad := [i for i in indices if not -n <= i < n]:
            raise IndexError(f"item {bad[0]} of a data set of {n}")
        out: list[Any] = [None] * len(indices)
        for dataset, end in zip(self.datasets, self.cumulative_sizes, strict=True):
            mine = [(k, i % n - start) for k, i in enumerate(indices) if start <= i % n < end]
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
        LabelError: if a label lies outside ``classes``, or is not one integer.
        BandCountError: if the images have other bands than ``synth``.
        RadiometryError: if they are integers, or (without ``transform``) no reflectance.
        NoDataError: (without ``transform``) if the first one holds NaN.
        ShapeError: if they are not (C, H, W).
        MissingLabelError: if items have no label, or the generator of ``synth`` takes no class.
        ValueError: if there are no items, or the parts of a ConcatDataset name different classes.
    """
    if not len(dataset):  # type: ignore[arg-type]
        raise ValueError("the data set is empty: there is nothing to balance")
    first = dataset[0]
    _label_of(first, label_key, 0)
    if pair := not isinstance(first, Mapping):
        image, label = first[0], first[1]
    elif image_key in first:
        image, label = first[image_key], first[label_key]
    else:
        raise ShapeError(f"items have no {image_key!r}: set image_key to one of {', '.join(map(str, first))}")
    _check_image(image := torch.as_tensor(image), synth, raw=transform is None)
    names = classes if classes is not None else _inherited(dataset, "classes")
    if names is None and class_map:
        raise ValueError("class_map needs classes=[…], the names of your classes in label order")
    index = match_classes(synth, names, class_map)
    real = labels_of(dataset, label_key)
    counts = _count(real, index.num_classes)
    goal = max(counts) if to == "max" else int(to)
    wanted = {name: max(goal - n, 0) for name, n in zip(index.names, counts, strict=True)}
    if strict and (bad := [k for k in index.unknown if wanted[k]]):
        raise UnknownClassError(
            f"the synthesizer cannot make {', '.join(bad)}: give class_map={{'your class': 'its class'}}, or "
            "strict=False to leave these classes as they are"
        )
    wanted = {k: 0 if k in index.unknown else n for k, n in wanted.items()}
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
    joined = _Concat([dataset if pair else _Labelled(dataset, image_key, label_key), extra])
    joined.classes, joined.targets = index.names, [*real, *extra.targets]
    return joined


def _check_image(image: Tensor, synth: HSISynthesizer, raw: bool) -> None:
    """Raises for an image of other bands; for ``raw`` ones, which no transform changed, also for other units."""
    if image.ndim != 3:
        raise ShapeError(f"images must be (C, H, W), the first one has shape {tuple(image.shape)}")
    if not image.is_floating_point():
        raise RadiometryError(f"images are {image.dtype}: make the data set give float reflectance")
    if image.shape[0] != synth.num_bands:
        raise BandCountError(
            f"the images have {image.shape[0]} bands, the synthesizer {synth.num_bands}: see synth.adapt"
        )
    if raw:
        check_reflectance(image, synth.num_bands, where="first image of the data set")


def _inherited(dataset: Any, name: str) -> Any:
    """An attribute of a data set, looked for inside Subset and ConcatDataset too."""
    while isinstance(dataset, Subset | _Labelled):
        dataset = dataset.dataset
    if (own := getattr(dataset, name, None)) is not None or not isinstance(dataset, ConcatDataset):
        return own
    found = [_inherited(part, name) for part in dataset.datasets]
    if all(f is None for f in found):
        return None
    if any(f is None or list(f) != list(found[0]) for f in found):
        raise ValueError(
            f"the parts of the ConcatDataset do not agree on their {name}: give {name}=[…] in label order"
        )
    return found[0]


def labels_of(dataset: Any, label_key: str = "label") -> list[int]:
    """All labels of a data set: ``targets`` or ``labels``, through Subset and ConcatDataset, or by iterating.

    Args:
        dataset: of dicts or pairs.
        label_key: of dict samples.

    Raises:
        MissingLabelError: if an item has no label.
        LabelError: if a label is not one integer.
    """
    known = _stated(dataset)
    if known is not None:
        return known
    if isinstance(dataset, ConcatDataset):
        return [y for part in dataset.datasets for y in labels_of(part, label_key)]
    from tqdm.auto import tqdm

    found = []
    for i in tqdm(range(len(dataset)), "counting labels"):
        found.append(_label_of(dataset[i], label_key, i))
    return found


def _label_of(sample: Any, label_key: str, i: int) -> int:
    if isinstance(sample, Mapping) and label_key in sample:
        label = sample[label_key]
    elif isinstance(sample, tuple | list) and len(sample) > 1:
        label = sample[1]
    else:
        keys = f" with {', '.join(map(str, sample))}" if isinstance(sample, Mapping) else ""
        raise MissingLabelError(
            f"item {i} of the data set is a {type(sample).__name__}{keys}, without a label: items must be "
            f"{{'image': …, {label_key!r}: …}} or (image, label)"
        )
    try:
        return operator.index(label)
    except (TypeError, ValueError, RuntimeError) as error:
        raise LabelError(
            f"the label of item {i} is no class index ({label!r}): give one integer per image"
        ) from error


def _stated(dataset: Any) -> list[int] | None:
    """Labels that a data set states itself, if they are one integer per item."""
    if isinstance(dataset, Subset):
        whole = _stated(dataset.dataset)
        return None if whole is None else [whole[i] for i in dataset.indices]
    if isinstance(dataset, ConcatDataset) and not hasattr(dataset, "targets"):
        parts = [_stated(part) for part in dataset.datasets]
        return None if None in parts else [y for part in parts for y in part or ()]
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
