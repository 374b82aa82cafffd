"""UBFAugment inside the containers people use: plain loops, kornia, torchvision v2, DataLoader workers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import kornia.augmentation as K
import pytest
import torch
from tiny import real_batch, tiny_synth
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset, default_collate
from torchvision.transforms import v2

from ubf_augment.augment import UBFAugment
from ubf_augment.errors import MissingLabelError


def augmenter(p: float = 0.5, **options: Any) -> UBFAugment:
    return UBFAugment(tiny_synth(), p, **{"seed": 0, **options})


class Scenes(Dataset[dict[str, Any]]):
    def __init__(self, n: int = 24) -> None:
        self.x, self.y = real_batch(n, 8)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int) -> dict[str, Any]:
        return {"image": self.x[i], "label": self.y[i], "index": i}


class Collate:
    """default_collate, then UBFAugment: runs in the DataLoader's workers."""

    def __init__(self, augment: UBFAugment) -> None:
        self.augment = augment

    def __call__(self, items: list[Any]) -> Any:
        return self.augment(default_collate(items))


@pytest.mark.parametrize("strategy", ["generate", "auto"])
def test_plain_loop_learns_from_real_and_synthetic_images(strategy: Any) -> None:
    x, y = real_batch(48, 8)
    augment = augmenter(strategy=strategy)
    model = nn.Sequential(
        nn.Conv2d(5, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)
    )
    optimiser = torch.optim.Adam(model.parameters(), lr=0.05)
    for _ in range(10):
        for images, labels in DataLoader(TensorDataset(x, y), 16, shuffle=True):
            images, labels = augment(images, labels)
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(images), labels).backward()
            optimiser.step()
    assert float((model(real_batch(48, 8, 1)[0]).argmax(1) == y).float().mean()) > 0.9


def test_a_dataloader_of_pairs_gives_lists() -> None:
    loader = DataLoader(TensorDataset(*real_batch(8, 8)), 8)
    for batch in loader:
        out = augmenter()(batch)
        assert isinstance(out, list)
        assert len(out) == 2


def test_sequential_with_kornia() -> None:
    x, y = real_batch(12, 8)
    chain = nn.Sequential(
        augmenter(),
        K.AugmentationSequential(
            K.RandomHorizontalFlip(p=1.0), K.Normalize(torch.zeros(5), torch.full((5,), 2.0)), data_keys=None
        ),
    )
    out = chain({"image": x, "label": y, "name": ["a"] * 12})
    alone = augmenter()({"image": x, "label": y})
    assert torch.equal(out["is_synthetic"], alone["is_synthetic"])
    assert torch.equal(out["label"], y)
    assert out["name"] == ["a"] * 12
    torch.testing.assert_close(out["image"], alone["image"].flip(-1) / 2)


def test_inside_a_kornia_container_it_says_what_to_write_instead() -> None:
    x, y = real_batch(4, 8)
    with pytest.raises(MissingLabelError, match=r"nn\.Sequential\(augment, AugmentationSequential"):
        K.ImageSequential(augmenter())(x)
    with pytest.raises(TypeError, match="data_keys=None"):
        K.AugmentationSequential(augmenter(), data_keys=None)({"image": x, "label": y})


@pytest.mark.parametrize("mixed", [v2.MixUp, v2.CutMix])
def test_compose_with_mixup_and_cutmix(mixed: type[Any]) -> None:
    x, y = real_batch(12, 8)
    chain = v2.Compose([augmenter(), mixed(num_classes=3)])
    image, label = chain(x, y)
    assert image.shape == x.shape
    assert label.shape == (12, 3)
    torch.testing.assert_close(label.sum(1), torch.ones(12))
    out = chain({"image": x, "label": y})
    assert out["label"].shape == (12, 3)
    assert out["is_synthetic"].dtype == torch.bool
    pair = chain((x, y))
    assert pair[1].shape == (12, 3)


def test_after_mixup_soft_labels_are_accepted() -> None:
    x, y = real_batch(12, 8)
    image, label = v2.Compose([v2.MixUp(num_classes=3), augmenter(1.0)])(x, y)
    assert image.shape == x.shape
    torch.testing.assert_close(label.sum(1), torch.ones(12))


@pytest.mark.parametrize("workers", [0, 2])
def test_collate_step(workers: int) -> None:
    data = Scenes()
    loader = DataLoader(data, 6, num_workers=workers, collate_fn=Collate(augmenter()))
    torch.manual_seed(0)
    batches = list(loader)
    assert len(batches) == 4
    for batch in batches:
        real = ~batch["is_synthetic"]
        assert torch.equal(batch["image"][real], data.x[batch["index"][real]])
        assert torch.equal(batch["label"], data.y[batch["index"]])
    again = [b["image"] for b in loader]  # the next epoch is another one
    assert not any(torch.equal(a, b["image"]) for a, b in zip(again, batches, strict=True))


def _collated(seed: int) -> Iterator[Tensor]:
    torch.manual_seed(seed)
    loader = DataLoader(Scenes(), 6, num_workers=2, collate_fn=Collate(augmenter(1.0, strategy="generate")))
    return (b["image"] for b in loader)


def test_workers_differ_from_each_other_and_repeat_with_the_global_seed() -> None:
    first, second, other = list(_collated(0)), list(_collated(0)), list(_collated(1))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, other, strict=True))
    assert not torch.equal(first[0], first[1])  # first batch of worker 0, first batch of worker 1
