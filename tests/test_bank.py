"""Banks of RGB pictures: in memory, from data sets, and kept in files that processes and later runs share."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import CLASSES, NM, real_batch, tiny_synth
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ubf_augment import UBFAugment
from ubf_augment.errors import ShapeError, SimplexError, UnknownClassError
from ubf_augment.labels import ClassIndex
from ubf_augment.sources import AbundanceBank, PictureBank, ReconstructionBank
from ubf_augment.synthesis import HSISynthesizer

PICTURES = torch.randint(
    40, 200, (70, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
)
INDEX = ClassIndex.match(CLASSES, None)


def bank(cache: Path | None = None, pictures: Any = None) -> AbundanceBank:
    return AbundanceBank({"Field": PICTURES} if pictures is None else pictures, INDEX, CLASSES, cache)


def drawn(b: PictureBank, synth: HSISynthesizer | None = None, n: int = 12, seed: int = 0) -> Tensor:
    y = torch.zeros(n, dtype=torch.int64)
    return b.draw(y, (8, 8), synth or tiny_synth(), torch.Generator().manual_seed(seed))


class Folder:
    """A data set with ``classes`` and ``targets`` that counts what is read."""

    classes = ("Forest", "Road", "Field")

    def __init__(self) -> None:
        self.targets, self.read = [2] * 40 + [1] * 3 + [0] * 2, 0

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        self.read += 1
        return PICTURES[i], self.targets[i]


def test_what_is_drawn_is_the_unmixed_picture_to_half_precision(tmp_path: Path) -> None:
    a = tiny_synth().unmix_rgb(PICTURES, fast=True)
    for b in (bank(), bank(tmp_path)):
        found = drawn(b)
        assert float((found.sum(1) - 1).abs().max()) < 1e-6
        distance = (found[:, None] - a[None]).abs().amax((2, 3, 4)).amin(1)
        assert float(distance.max()) < 2**-11  # eleven bits
    assert torch.equal(drawn(bank()), drawn(bank(tmp_path)))


def test_files_are_found_again_and_nothing_is_unmixed_twice(tmp_path: Path) -> None:
    first = drawn(bank(tmp_path))
    (file,) = tmp_path.iterdir()
    before = file.stat().st_mtime_ns
    synth = tiny_synth()
    synth.unmix_rgb = None  # type: ignore[assignment, method-assign]
    assert torch.equal(drawn(bank(tmp_path), synth), first)
    assert file.stat().st_mtime_ns == before
    assert [p.name for p in tmp_path.iterdir()] == [file.name]


def test_other_pictures_and_other_synthesizers_have_files_of_their_own(tmp_path: Path) -> None:
    drawn(bank(tmp_path))
    drawn(bank(tmp_path, {"Field": PICTURES.flip(0)}))
    assert len(list(tmp_path.iterdir())) == 2
    brighter = tiny_synth()
    brighter.rgb_scale = 0.5
    assert not torch.equal(drawn(bank(tmp_path), brighter), drawn(bank(tmp_path)))
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("keep", [0, 60, 1000])
def test_a_file_that_is_cut_off_is_made_anew(tmp_path: Path, keep: int) -> None:
    whole = drawn(bank(tmp_path))
    (file,) = tmp_path.iterdir()
    content = file.read_bytes()
    file.write_bytes(content[:keep])
    assert torch.equal(drawn(bank(tmp_path)), whole)
    assert file.read_bytes() == content


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    drawn(bank(tmp_path))
    (file,) = tmp_path.iterdir()
    content = bytearray(file.read_bytes())
    content[200:] = bytes(len(content) - 200)
    file.write_bytes(bytes(content))
    with pytest.raises(SimplexError, match="damaged, delete the folder"):
        drawn(bank(tmp_path))


def test_an_interrupted_preparation_leaves_no_file(tmp_path: Path) -> None:
    synth, calls = tiny_synth(), [0]
    unmix = synth.unmix_rgb

    def fails(*args: Any, **options: Any) -> Tensor:
        calls[0] += 1
        if calls[0] == 2:
            raise KeyboardInterrupt
        return unmix(*args, **options)

    synth.unmix_rgb = fails  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        drawn(bank(tmp_path), synth)
    assert list(tmp_path.iterdir()) == []


def test_memory_holds_no_maps_where_there_is_a_cache(tmp_path: Path) -> None:
    b, plain = bank(tmp_path), bank()
    drawn(b), drawn(plain)
    kept = len(pickle.dumps(b._prepared))
    assert kept < 1000 < 70 * 3 * 64 <= len(pickle.dumps(plain._prepared))


class _Batches(torch.utils.data.Dataset[Any]):
    def __init__(self, augment: UBFAugment) -> None:
        self.augment = augment

    def __len__(self) -> int:
        return 4

    def __getitem__(self, i: int) -> Tensor:
        x, y = real_batch(6)
        out: Tensor = self.augment(x, y)[0]
        return out


def test_worker_processes_share_a_cold_cache(tmp_path: Path) -> None:
    augment = UBFAugment(
        tiny_synth(), 1.0, strategy="bank", bank={k: PICTURES for k in CLASSES}, bank_cache=tmp_path, seed=0
    )
    found = list(DataLoader(_Batches(augment), batch_size=None, num_workers=2))
    assert len(found) == 4
    assert all(bool(torch.isfinite(x).all()) for x in found)
    assert {p.suffix for p in tmp_path.iterdir()} == {".npy"}  # nothing is left aside


def test_a_data_set_serves_the_classes_it_shares(tmp_path: Path) -> None:
    folder = Folder()
    b = bank(tmp_path, folder)
    assert b.holds(3).tolist() == [True, True, False]
    assert folder.read == 0
    assert torch.equal(drawn(b), drawn(bank(None, {"Field": PICTURES[:40]})))
    read = folder.read
    drawn(b, seed=1)
    assert folder.read == read
    with pytest.raises(UnknownClassError, match=r"none of the classes of the bank \(Forest, Road, Field\)"):
        AbundanceBank(folder, ClassIndex.match(CLASSES, ["Acre"], {}), CLASSES)


def test_pictures_in_folders_are_marked_by_their_files(tmp_path: Path) -> None:
    from PIL import Image
    from torchvision.datasets import ImageFolder

    from ubf_augment.datasets import PictureFolder

    def write(picture: Tensor, name: str, file: str) -> None:
        Image.fromarray(picture.movedim(0, -1).numpy()).save(tmp_path / "rgb" / name / file)

    for name in ("Field", "Lake"):
        (tmp_path / "rgb" / name).mkdir(parents=True)
        for i in range(3):
            write(PICTURES[i].repeat_interleave(2, 1), name, f"{i}.png")
    made = [
        drawn(bank(tmp_path / "cache", data))
        for data in (ImageFolder(tmp_path / "rgb"), PictureFolder([tmp_path / "rgb"]))
    ]
    assert torch.equal(made[0], made[1])
    assert len(list((tmp_path / "cache").iterdir())) == 1
    write(PICTURES[9], "Field", "0.png")
    changed = drawn(bank(tmp_path / "cache", PictureFolder([tmp_path / "rgb"])))
    assert not torch.equal(changed, made[0])


def test_data_sets_must_name_classes() -> None:
    with pytest.raises(ShapeError, match="a data set with classes and targets"):
        bank(None, [PICTURES])


class _Spread(nn.Module):
    wavelengths = torch.tensor(NM)

    def __init__(self, gain: float = 1.0) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(gain))

    def reconstruct(self, pictures: Tensor) -> Tensor:
        return self.gain * pictures[:, [2, 1, 0, 0, 0]]


def test_reconstructions_are_kept_too(tmp_path: Path) -> None:
    def opened(model: Any, cache: Path | None) -> ReconstructionBank:
        return ReconstructionBank({"Field": PICTURES}, INDEX, CLASSES, model, torch.tensor(NM), cache)

    plain = drawn(opened(_Spread(), None))
    assert torch.equal(drawn(opened(_Spread(), tmp_path)), plain)
    torch.testing.assert_close(drawn(opened(_Spread(0.5), tmp_path)), 0.5 * plain, rtol=1e-3, atol=0)
    assert len(list(tmp_path.iterdir())) == 2

    class Unknown:
        wavelengths = torch.tensor(NM)

        def reconstruct(self, pictures: Tensor) -> Tensor:
            return pictures

    with pytest.raises(TypeError, match=r"make it an nn\.Module"):
        opened(Unknown(), tmp_path)


def test_a_cache_needs_pictures(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="bank_cache needs bank="):
        UBFAugment(tiny_synth(), bank_cache=tmp_path)
