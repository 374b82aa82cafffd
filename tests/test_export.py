"""Samples written by several processes, in two formats, after kills: the same bytes, no gaps, no duplicates."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from ubf_augment import HSISynthesizer, read_hsi
from ubf_augment.cli import main
from ubf_augment.export import Plan, SampleExport, TarShards, TiffFolder
from ubf_augment.files import OnDisk, gather, strided

CLASSES = ("AID/Forest", "Woods")  # a name with a slash, and one without
COMMAND = ["sample", "indian-pines", "--options", '{"steps": 2}', "--classes", ",".join(CLASSES), "--batch_size", "4",
           "--device", "cpu", "--sheet", "false"]  # fmt: skip


def files(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, hidden ones aside."""
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_file() and not p.name.startswith(".")
    }


def sample(out: Path, num: int, *more: str) -> int:
    return main([*COMMAND, "--out", str(out), "--num", str(num), *more])


def started(out: Path, num: int, *more: str) -> subprocess.Popen[bytes]:
    """The command in a process group of its own."""
    words = [sys.executable, "-m", "ubf_augment.cli", *COMMAND, "--out", str(out), "--num", str(num), *more]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(
        words, start_new_session=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, **quiet
    )  # type: ignore[call-overload]


@pytest.mark.parametrize("form", ["tif", "tar"])
def test_what_was_lost_is_made_again_to_the_same_bytes(form: str, tmp_path: Path) -> None:
    shards = ("--format", form, "--shard_size", "4")
    assert sample(tmp_path / "a", 5, *shards) == 0
    whole = files(tmp_path / "a")
    lost = [name for name in whole if name.endswith(form)][1::2]
    for name in lost:
        (tmp_path / "a" / name).unlink()
    assert sample(tmp_path / "a", 5, *shards) == 0
    assert files(tmp_path / "a") == whole
    assert json.loads(whole["manifest.json"])["complete"] is True


def test_both_formats_hold_the_same_images(tmp_path: Path) -> None:
    assert sample(tmp_path / "tif", 3) == 0
    assert sample(tmp_path / "tar", 3, "--format", "tar", "--shard_size", "4") == 0
    found = {}
    for shard in sorted((tmp_path / "tar").glob("shard-*.tar")):
        with tarfile.open(shard) as archive:
            for member in archive:
                if member.name.endswith(".json"):
                    facts = json.load(archive.extractfile(member))  # type: ignore[arg-type]
                    array = archive.extractfile(member.name[:-5] + ".npy")
                    assert array is not None
                    path = tmp_path / "array.npy"
                    path.write_bytes(array.read())
                    found[facts["class"], facts["index"]] = np.load(path)
    assert len(found) == 6
    for (name, i), image in found.items():
        [path] = (tmp_path / "tif").rglob(f"*{name.rpartition('/')[2]}-{i:05d}.tif")
        whole = read_hsi(path).image
        assert torch.equal(torch.from_numpy(image), whole)


def test_a_folder_of_other_settings_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sample(tmp_path, 1) == 0
    before = files(tmp_path)
    assert sample(tmp_path, 1, "--seed", "1") == 2
    assert "seed" in capsys.readouterr().err
    assert sample(tmp_path, 1, "--format", "tar") == 2
    assert files(tmp_path) == before


def test_batches_stand_at_fixed_places() -> None:
    synth = HSISynthesizer.from_pretrained("indian-pines")
    plan = Plan(CLASSES, num=4, batch_size=3, options={"steps": 1})
    whole = dict(plan.images(synth, range(plan.total)))
    part = dict(plan.images(synth, range(2, 5)))
    assert sorted(part) == [2, 3, 4]
    assert all(torch.equal(part[n], whole[n]) for n in part)


def test_two_jobs_do_not_write_into_one_folder(tmp_path: Path) -> None:
    from ubf_augment.errors import UBFError
    from ubf_augment.export.job import locked

    with locked(tmp_path), pytest.raises(UBFError, match=r"writ"), locked(tmp_path):
        pass
    with locked(tmp_path):
        pass


def test_rows_in_files_are_those_in_memory(tmp_path: Path) -> None:
    x = torch.arange(60, dtype=torch.float32).view(10, 3, 2)
    file = OnDisk.create(tmp_path / "x.npy", x.shape, x.dtype)
    for start in range(0, 10, 4):
        file[start : start + 4] = x[start : start + 4]
    rows = torch.tensor([7, 0, 7, 3])
    assert torch.equal(file[rows], x[rows])
    assert torch.equal(file[2:5], x[2:5])
    assert torch.equal(gather(torch.split(x, 4), rows), x[rows])
    assert torch.equal(strided(torch.split(x, 3), 4, 10), x[::4])
    with pytest.raises(ValueError, match="for rows"):
        file[0:2] = x[:3]


def test_a_writer_knows_what_is_there(tmp_path: Path) -> None:
    synth = HSISynthesizer.from_pretrained("indian-pines")
    plan = Plan(CLASSES, num=2, batch_size=2, options={"steps": 1})
    labels = {name: k for k, name in enumerate(synth.classes)}
    for writer in (
        TiffFolder(tmp_path / "tif", plan, synth.wavelengths),
        TarShards(tmp_path / "tar", plan, synth.wavelengths, None, labels, 2),
    ):
        assert not writer.present().any()
        SampleExport(synth, plan, writer).run()
        assert writer.present().all()


@pytest.mark.slow
@pytest.mark.parametrize("form", ["tif", "tar"])
def test_two_processes_write_what_one_writes(form: str, tmp_path: Path) -> None:
    more = ("--format", form, "--shard_size", "4")
    assert sample(tmp_path / "one", 9, *more) == 0
    assert started(tmp_path / "two", 9, *more, "--devices", "2").wait(timeout=300) == 0
    one, two = files(tmp_path / "one"), files(tmp_path / "two")
    assert {k: v for k, v in one.items() if k != "manifest.json"} == {
        k: v for k, v in two.items() if k != "manifest.json"
    }


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_complete(tmp_path: Path) -> None:
    assert sample(tmp_path / "whole", 40) == 0
    rng = random.Random(0)
    for attempt in range(5):
        job = started(tmp_path / "killed", 40, "--devices", "1" if attempt % 2 else "2")
        time.sleep(4 + 6 * rng.random())
        os.killpg(job.pid, signal.SIGKILL)
        job.wait()
    assert started(tmp_path / "killed", 40).wait(timeout=300) == 0
    assert files(tmp_path / "killed") == files(tmp_path / "whole")
