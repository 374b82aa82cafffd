"""The same seed gives the same images, whatever the workers, the order, the batches and processes; what should differ does."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import pytest
import torch
from test_augment_containers import Collate, Scenes, augmenter
from test_generators import build
from tiny import CLASSES, E, real_batch, tiny_synth
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset

from ubf_augment import HSISynthesizer, UBFAugment
from ubf_augment.datasets import SyntheticHSIDataset, balance
from ubf_augment.seeding import process_rank
from ubf_augment.sources import Pool
from ubf_augment.training import launch, make_fabric


def images(loader: Any) -> Tensor:
    return torch.cat([batch["image"] for batch in loader])


def synthetic(seed: int = 3, **options: Any) -> SyntheticHSIDataset:
    return SyntheticHSIDataset(tiny_synth(), 6, seed, **options)


def balanced(seed: int = 3) -> Dataset[Any]:
    return balance(Scenes(7), tiny_synth(), to=6, seed=seed, classes=CLASSES)


pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create 4 worker")
MAKERS = {"synthetic": synthetic, "uncached": lambda: synthetic(cache=False), "balanced": balanced}


# ---- data sets ----


@pytest.mark.parametrize("made", MAKERS)
def test_a_data_set_is_the_same_for_all_workers_and_batches(made: str) -> None:
    make: Any = MAKERS[made]
    expected = torch.stack([make()[i]["image"] for i in range(18)])
    for workers, size in ((0, 18), (0, 5), (2, 4), (4, 1)):
        start = "fork" if workers else None
        loader = DataLoader(make(), size, num_workers=workers, multiprocessing_context=start)
        assert torch.equal(images(loader), expected)  # bit for bit: this generator works sample by sample


def test_iterating_twice_or_in_any_order_gives_the_same_items() -> None:
    for make in MAKERS.values():
        data: Any = make()
        first = images(DataLoader(data, 4))
        assert torch.equal(images(DataLoader(data, 7)), first)
        order = torch.randperm(18, generator=torch.Generator().manual_seed(1)).tolist()
        fresh: Any = make()
        assert torch.equal(torch.stack([fresh[i]["image"] for i in order]), first[order])
        assert torch.equal(images(DataLoader(make(), 3, sampler=order)), first[order])
        assert torch.equal(images(DataLoader(Subset(make(), order[:5]), 2)), first[order[:5]])
        assert torch.equal(
            torch.stack([s["image"] for s in data.__getitems__([-1, 0, -18])]), first[[17, 0, 0]]
        )
        for bad in (18, -19):
            with pytest.raises(IndexError, match="of a data set of 18"):
                data.__getitems__([0, bad])


def test_another_seed_gives_other_items_and_no_two_are_alike() -> None:
    first, other = (images(DataLoader(synthetic(seed), 9)).flatten(1) for seed in (3, 4))
    assert len(torch.cat([first, other]).unique(dim=0)) == 36
    filled, again = (images(DataLoader(balanced(seed), 9)) for seed in (3, 4))
    real = 7
    assert torch.equal(filled[:real], again[:real])
    assert not (filled[real:] == again[real:]).flatten(1).all(1).any()


@pytest.mark.parametrize("name", ["ddpm", "stylegan3", "vdvae", "gmm"])
def test_networks_round_alike_to_a_millionth_in_any_batch(name: str) -> None:
    """Sums in another order: some units of 2⁻²⁴ of an abundance of one after a few layers, times reflectance below one."""
    generator = build(name)
    synth = HSISynthesizer(E, generator, classes=["a", "b"])
    options = {"steps": 3} if name == "ddpm" else {}
    whole, single = (
        images(DataLoader(SyntheticHSIDataset(synth, 4, seed=1, options=options), n)) for n in (8, 1)
    )
    torch.testing.assert_close(single, whole, rtol=0, atol=5e-6)


# ---- UBFAugment in workers ----


def collated(workers: int, start: str | None = None, **options: Any) -> DataLoader[Any]:
    """Batches of six, augmented where they are collated."""
    return DataLoader(
        Scenes(24), 6, num_workers=workers, collate_fn=Collate(augmenter(1.0, **options)),
        multiprocessing_context=start if workers else None,
    )  # fmt: skip


@pytest.mark.parametrize("workers", [0, 2, 4])
@pytest.mark.parametrize("strategy", ["generate", "auto"])
def test_an_augmented_loader_repeats_with_its_seeds(strategy: str, workers: int) -> None:
    found = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        found.append(images(collated(workers, "fork", strategy=strategy, seed=5)))
    assert torch.equal(found[0], found[1])
    # In workers the global seed counts too, see the class; without them the module's seed alone does.
    assert torch.equal(found[0], found[2]) == (workers == 0)


@pytest.mark.slow
def test_spawned_workers_make_what_forked_ones_do() -> None:
    """Slow: a spawned worker takes seconds to import everything anew."""
    found = []
    for start in ("fork", "spawn"):
        torch.manual_seed(0)
        items = DataLoader(balanced(), 4, num_workers=2, multiprocessing_context=start)
        found.append(torch.cat([images(items), images(collated(2, start, strategy="auto", seed=5))]))
    assert torch.equal(*found)


@pytest.mark.parametrize("seed", [None, 7])
def test_no_two_workers_and_no_two_epochs_make_the_same_image(seed: int | None) -> None:
    """Without the residual model, which would hide that two scenes have the same abundances."""
    torch.manual_seed(0)
    loader = collated(4, "fork", strategy="generate", seed=seed, residual=False, source="live")
    epochs = torch.cat([images(loader), images(loader)]).flatten(1)
    assert len(epochs.unique(dim=0)) == 48


def test_copies_in_shared_memory_do_not_write_into_each_other() -> None:
    """What `spawn` hands to a worker: tensors whose memory is that of the process that started it, and of every other worker."""
    augment = augmenter(1.0, strategy="generate", labels="balance", seed=5)
    x, y = real_batch(6, 8)
    augment(x, y)
    before = augment.get_extra_state()
    there: UBFAugment = pickle.loads(ForkingPickler.dumps(augment))
    pools: Any = augment.source.scenes, there.source.scenes
    held = [ring.clone() for ring in pools[0]._rings.values()]
    assert pools[0].made.is_shared()  # else this tests nothing
    for _ in range(40):
        there(x, torch.zeros(6, dtype=torch.int64))
    assert pools[1].made.sum() > pools[0].made.sum()
    after = augment.get_extra_state()
    assert torch.equal(after["pool"]["made"], before["pool"]["made"])
    assert torch.equal(after["counts"], before["counts"])
    assert all(torch.equal(a, b) for a, b in zip(pools[0]._rings.values(), held, strict=True))


class Still(Pool):
    """A pool whose maps are drawn as they are, so that they can be told apart."""

    def __init__(self, **options: Any) -> None:
        super().__init__(tiny_synth(), 4, first=4, seed=1, move=False, progress=False, **options)


def scenes_of_epochs(source: Pool, workers: int) -> list[set[Any]]:
    """The different scenes of each class 0 image of three epochs."""
    torch.manual_seed(0)
    loader = collated(workers, "fork", strategy="generate", residual=False, source=source)
    return [
        {tuple(x.flatten().tolist()) for b in loader for x in b["image"][b["label"] == 0]} for _ in range(3)
    ]


def test_pools_of_workers_hold_maps_of_their_own_in_every_epoch() -> None:
    """A worker starts with an empty copy of the pool; with the same maps in each, more workers and epochs would add no scenes."""
    epochs = scenes_of_epochs(Still(refresh=0.1), workers=4)
    assert all(len(a & b) == 0 for i, a in enumerate(epochs) for b in epochs[:i])
    assert len(set.union(*epochs)) > 8  # two images a batch, four of twelve pools of four each: most differ


def test_a_pool_that_is_never_refreshed_is_one_fixed_set_for_all_workers() -> None:
    assert len(set.union(*scenes_of_epochs(Still(refresh=0), workers=4))) <= 4


def test_an_unseeded_augmentation_follows_the_global_seed() -> None:
    def run(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return images(collated(2, "fork", strategy="auto", seed=None))

    assert torch.equal(run(0), run(0))
    assert not (run(0) == run(1)).flatten(1).all(1).any()


# ---- state ----


@pytest.mark.parametrize("strategy", ["generate", "vary", "fuse", "edit", "auto"])
@pytest.mark.parametrize("placement", ["replace", "append"])
def test_a_resumed_augmentation_goes_on_as_the_uninterrupted_one(
    strategy: Any, placement: Any, tmp_path: Path
) -> None:
    """Through a file, as in a checkpoint, into a module that has already been used for something else."""
    options: dict[str, Any] = {"strategy": strategy, "placement": placement, "seed": 4}
    if strategy in ("generate", "auto"):
        options["labels"] = "balance"
    batches = [real_batch(7, 8, i) for i in range(9)]
    whole = UBFAugment(tiny_synth(), 0.6, **options)
    expected = [whole(*b) for b in batches]
    first, second = (UBFAugment(tiny_synth(), 0.6, **options) for _ in range(2))
    for b in batches[:4]:
        first(*b)
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second(*batches[8])
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for b, (image, label) in zip(batches[4:], expected[4:], strict=True):
        found = second(*b)
        assert torch.equal(found[0], image)
        assert torch.equal(found[1], label)


# ---- processes ----


def test_a_process_knows_its_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "3")
    assert process_rank() is None  # set for other purposes
    monkeypatch.setattr(torch.utils.data, "get_worker_info", lambda: object())
    assert process_rank() == 3  # of a spawned worker, where no process group is
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 1)
    assert process_rank() == 1


def in_one_process_of_many(folder: str, devices: int) -> None:
    """What each process of the next test does."""
    fabric = launch(make_fabric(accelerator="cpu", devices=devices))
    rank, world = fabric.global_rank, fabric.world_size
    data: Any = synthetic()
    mine = list(range(rank, 18, world))
    torch.manual_seed(0)  # the same in every process
    out = {
        "items": (mine, images(DataLoader(Subset(data, mine), 4))),
        "unseeded": images(collated(0, strategy="generate", seed=None, residual=False)),
        "seeded": images(collated(0, strategy="generate", seed=5, residual=False)),
        "workers": images(collated(2, "fork", strategy="generate", seed=5, residual=False)),
    }
    torch.save(out, Path(folder) / f"{devices}-{rank}.pt")


@pytest.mark.slow
def test_two_processes_share_a_data_set_and_augment_differently(tmp_path: Path) -> None:
    here = str(Path(__file__).parent)
    script = (
        "import sys\n"
        f"sys.path[:0] = [{here!r}]\n"
        "import test_determinism\n"
        "test_determinism.in_one_process_of_many(sys.argv[1], int(sys.argv[2]))\n"
    )
    (tmp_path / "script.py").write_text(script)
    environment = {**os.environ, "UBF_TYPECHECK": "0", "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = str(Path(__file__).parent.parent)
    for devices in ("1", "2"):
        command = [sys.executable, str(tmp_path / "script.py"), str(tmp_path), devices]
        subprocess.run(command, env=environment, check=True, timeout=300)
    one, *two = (torch.load(tmp_path / f"{n}.pt") for n in ("1-0", "2-0", "2-1"))
    shared = torch.empty_like(one["items"][1])
    for part in two:
        rows, x = part["items"]
        shared[rows] = x
    assert torch.equal(shared, one["items"][1])
    for kind in ("unseeded", "seeded", "workers"):
        first, second = ({tuple(x.flatten().tolist()) for x in part[kind]} for part in two)
        assert not first & second, kind
