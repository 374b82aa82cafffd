"""Commands that write, and what can happen to them: kills, full disks, folders that cannot be written, two at a time.

    python tests/faults.py unmix          # every fault for one job, or for all

Commands run in processes that are forked from one that has imported everything, so that a kill falls into their work, not
into their start. Training loops save after every step, and scenes are cut into small windows.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import multiprocessing
import os
import random
import re
import runpy
import subprocess
import sys
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
HEAVY = ("diffusers", "lightning.fabric", "matplotlib.figure", "rasterio", "scipy.optimize", "sklearn.cluster", "timm",
         "torchmetrics", "torchgeo.datasets", "ubf_augment.augment", "ubf_augment.cli", "ubf_augment.report",
         "ubf_augment.synthesis.pipeline")  # fmt: skip
FULL = r"No space left|GiB left|of \d+ bytes fit"
CLOSED = r"[Rr]ead-only|cannot write"
COUNTED = (
    "killed",
    "ended equal after kills",
    "full disk",
    "ended equal with room",
    "read-only",
    "two at once",
    "result there",
)
_SKIPPED = re.compile(r"seconds|date|model_index\.json|machine|notes|tables")
"""Of JSON: times, checksums of files that hold times, and tables that show some."""


@dataclass(frozen=True)
class Job:
    """A command.

    Attributes:
        name: what it is called.
        words: the command line, from the folder of the inputs and the path of the output.
        out: name of the output.
        refuses: whether it refuses when its result is there already; else it gives the same once more.
    """

    name: str
    words: Callable[[Path, Path], list[str]]
    out: str = "out"
    refuses: bool = True


def _fit(inputs: Path, out: Path) -> list[str]:
    return ["fit", "--config", str(inputs / "fit.yaml"), "--out", str(out), *CPU, "--settings.generator_steps", "15",
            "--settings.restarts", "1", "--settings.refine_iterations", "5", "--sheet", "true"]  # fmt: skip


def _sample(inputs: Path, out: Path) -> list[str]:
    return ["sample", str(inputs / "bundle"), "--out", str(out), "--num", "60", "--batch_size", "4", "--device", "cpu",
            "--options", '{"steps": 2}']  # fmt: skip


def _table(inputs: Path, out: Path) -> list[str]:
    return ["benchmarks/augmentation_table.py", "--dataset", "folder", "--root", str(inputs / "classes"), "--data",
            str(inputs), "--models", "resnet10t", "--rows", "none", "affine", "vary", "--steps", "2", "--size", "16",
            "--accelerator", "cpu", "--out", str(out)]  # fmt: skip


CPU = ["--accelerator", "cpu", "--threads", "1"]
JOBS = (
    Job("fit", _fit),
    Job("sample", _sample, refuses=False),
    Job("sample in shards", lambda i, o: [*_sample(i, o), "--format", "tar", "--shard_size", "8"], refuses=False),
    Job("unmix", lambda i, o: ["unmix", str(i / "scene.tif"), "--bundle", str(i / "bundle"), "--out", str(o), "--method", "fcls",
                               "--threads", "1"], "out.tif"),
    Job("adapt", lambda i, o: ["adapt", str(i / "bundle"), str(i / "hsi"), "--out", str(o)]),
    Job("pretrain", lambda i, o: ["pretrain", str(i / "bundle"), str(i / "hsi"), "--out", str(o), "--tile", "8", *CPU,
                                  "--recipe.steps", "15", "--recipe.batch_size", "4", "--recipe.model", "resnet10t"],
        "out.safetensors"),
    Job("distill", lambda i, o: ["distill", str(i / "bundle"), "--out", str(o), *CPU, "--scenes", "16", "--steps", "6",
                                 "--batch_size", "4"]),
    Job("report", lambda i, o: ["report", str(i / "bundle"), "--out", str(o), "--evaluate", "0", "--options",
                                '{"steps": 2}', "--device", "cpu"]),
    Job("benchmark", _table, refuses=False),
)  # fmt: skip


# ---------------------------------------------------------------- inputs, processes, what is there


def make_inputs(folder: Path) -> Path:
    """Images, pictures, a bundle of seconds, a scene, and images in classes."""
    import torch
    from test_cli import made_folders

    from ubf_augment import read_hsi, write_hsi

    made_folders(folder)
    first = read_hsi(folder / "hsi" / "0.tif")
    scene = first.image.repeat(1, 8, 8)
    write_hsi(folder / "scene.tif", scene, first.wavelengths)
    g = torch.Generator().manual_seed(0)
    for k, name in enumerate(("field", "water")):
        for i in range(8):
            image = (
                first.image[:, :8, :8] * (0.5 + k) + 0.01 * torch.rand(8, 8, 8, generator=g)
            ).contiguous()
            write_hsi(folder / "classes" / name / f"{i}.tif", image, first.wavelengths)
    code, said = run(_fit(folder, folder / "bundle"), folder)
    assert code == 0, said
    return folder


@cache
def _server() -> Any:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(HEAVY))
    return context


def start(words: list[str], home: Path) -> Any:
    """Run a command in a process of its own, with journals in ``home``; what it says goes into a file beside that."""
    log = home.with_name(f"said-{time.monotonic_ns()}.txt")
    process = _server().Process(target=_command, args=(words, str(log), str(home)))
    process.log = log
    process.start()
    return process


def end(process: Any) -> tuple[int, str]:
    """Wait; its exit code, and what it said."""
    process.join(300)
    if process.exitcode is None:
        process.kill()
        raise TimeoutError(process.log.read_text())
    said = process.log.read_text() if process.log.exists() else ""
    process.log.unlink(missing_ok=True)
    return process.exitcode, said


def run(words: list[str], home: Path) -> tuple[int, str]:
    """Run a command to its end."""
    return end(start(words, home))


def _command(words: list[str], log: str, home: str) -> None:
    """In the new process."""
    with open(log, "wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    import torch

    from ubf_augment.synthesis import windows
    from ubf_augment.training import loop

    torch.set_num_threads(1)
    drive = loop._drive
    loop._drive = lambda f, r, s, n, _, p, d: drive(f, r, s, n, 0.0, p, d)  # type: ignore[assignment] # save after every step
    windows._PIXELS, windows._SMALLEST_STRIP = 192 * 16, 16
    if not words[0].endswith(".py"):
        from ubf_augment.cli import main

        raise SystemExit(main(words))
    sys.path.insert(0, str(ROOT / "benchmarks"))
    common = importlib.import_module("common")
    common.HERE = Path(home) / "benchmarks"  # for the journals
    common.HERE.mkdir(exist_ok=True)
    with contextlib.suppress(FileExistsError):
        (common.HERE / "schema.json").symlink_to(ROOT / "benchmarks" / "schema.json")
    sys.argv = words
    runpy.run_path(str(ROOT / words[0]), run_name="__main__")


def whole(folder: Path) -> None:
    """Verify that every file under a final name can be read to its end; hidden ones, work and journals aside."""
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if path.is_file() and not any(
            part.startswith(".") or part.endswith(".work") or part == "runs" for part in parts
        ):
            try:
                _read(path)
            except Exception as error:
                raise AssertionError(f"{path} is not whole: {type(error).__name__}: {error}") from error


def _read(path: Path) -> Any:
    """The contents of a file, without what differs from run to run."""
    if path.suffix == ".json":
        return _timeless(json.loads(path.read_text()))
    if path.suffix == ".tif":
        import rasterio

        with rasterio.open(path) as dataset:
            return dataset.read().tobytes(), str(dataset.tags()), dataset.descriptions
    if path.suffix == ".tar":
        with tarfile.open(path) as archive:
            return {m.name: archive.extractfile(m).read() for m in archive}  # type: ignore[union-attr]
    if path.suffix == ".safetensors":
        from safetensors import safe_open

        with safe_open(path, "np") as file:
            return {key: file.get_tensor(key).tobytes() for key in file.keys()}  # noqa: SIM118
    if path.suffix == ".png":
        from PIL import Image

        with Image.open(path) as image:
            image.load()
        return None
    text = path.read_text()
    assert text.endswith("\n") or text.rstrip().endswith("</html>"), "cut off"
    return None


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _timeless(v) for k, v in value.items() if not _SKIPPED.search(k)}
    return [_timeless(v) for v in value] if isinstance(value, list) else value


def contents(out: Path) -> dict[str, Any]:
    """What a job left, by file; pictures and pages aside."""
    files = [out] if out.is_file() else sorted(out.rglob("*"))
    return {
        str(f.relative_to(out.parent)): _read(f)
        for f in files
        if f.is_file() and f.suffix in (".json", ".tif", ".tar", ".safetensors", ".html") and f.name[0] != "."
    }


# ---------------------------------------------------------------- faults


@dataclass
class Trial:
    """A job, its inputs, what it gives undisturbed and how long that takes."""

    job: Job
    inputs: Path
    folder: Path

    def __post_init__(self) -> None:
        self.number, self.counts = 0, Counter[str]()
        home = self.home()
        begun = time.monotonic()
        code, said = self.run(home)
        self.seconds = time.monotonic() - begun
        assert code == 0, said
        self.expected = contents(home / self.job.out)
        assert self.expected
        self.done = home

    def home(self) -> Path:
        """A new folder to work in."""
        self.number += 1
        home = self.folder / f"{self.job.name.replace(' ', '-')}-{self.number}"
        home.mkdir(parents=True)
        return home

    def start(self, home: Path, *more: str) -> Any:
        """Begin the job."""
        return start([*self.job.words(self.inputs, home / self.job.out), *more], home)

    def run(self, home: Path, *more: str) -> tuple[int, str]:
        """Do the job."""
        return end(self.start(home, *more))

    def complete(self, home: Path, code: int, said: str) -> None:
        """Verify that the job is done, and its result that of an undisturbed one."""
        there = self.job.refuses and code == 2 and "is there already" in said
        assert code == 0 or there, said
        whole(home)
        assert not [p for p in home.rglob(".*.tmp") if not there and ".work" not in str(p)], "left aside"
        assert contents(home / self.job.out) == self.expected

    def kills(self, count: int, seed: int = 0) -> None:
        """SIGKILL at random moments; the same command goes on each time."""
        rng, home, left = random.Random(seed), self.home(), count
        while left:
            process = self.start(home)
            process.join(self.seconds * rng.random())
            if process.exitcode is None:
                process.kill()
                process.join()
                left -= 1
                self.counts["killed"] += 1
                whole(home)
            else:  # what was done before was kept
                self.complete(home, *end(process))
                self.counts["ended equal after kills"] += 1
                home = self.home()
        self.complete(home, *self.run(home))
        self.counts["ended equal after kills"] += 1

    def two_at_once(self) -> None:
        """The same command twice, at the same time."""
        home = self.home()
        ends = sorted(end(process) for process in [self.start(home), self.start(home)])
        assert ends[0][0] == 0, ends
        if self.job.refuses or ends[1][0]:
            assert ends[1][0] == 2, ends
            assert re.search(r"another process is at work|is there already", ends[1][1]), ends[1][1]
        self.complete(home, 0, "")
        self.counts["two at once"] += 1

    def again(self) -> None:
        """The same command when its result is there: refused, or the same; replaced with ``--overwrite``."""
        home = self.done
        before = {p: p.read_bytes() for p in home.rglob("*") if p.is_file()}
        code, said = self.run(home)
        assert (code == 2 and "is there already" in said and "overwrite" in said) or not self.job.refuses, (
            said
        )
        assert code == 2 or not self.job.refuses
        self.complete(home, code, said)
        if self.job.refuses:
            assert {p: p.read_bytes() for p in home.rglob("*") if p.is_file() and p in before} == before
            self.complete(home, *self.run(home, "--overwrite", "true"))
        self.counts["result there"] += 1

    def disks(self, count: int, seed: int = 0) -> None:
        """A disk that becomes full, `count` sizes; then room is made. In a name space of its own, see `confined`."""
        need = sum(p.stat().st_size for p in self.done.rglob("*") if p.is_file())
        rng = random.Random(seed)
        for _ in range(count):
            home = self.home()
            with mounted(home, f"size={int(need * rng.random()) // 4096 * 4 + 4}k"):
                code, said = self.run(home)
                whole(home)
                if code:
                    assert code in (1, 2), said
                    assert re.search(FULL, said), said
                    assert "Traceback" not in said or self.job.name == "benchmark", (
                        said
                    )  # a script, for developers
                    self.counts["full disk"] += 1
                mount("-o", f"remount,size={4 * need + 2**26}", "tmpfs", str(home))
                self.complete(home, *self.run(home))
                self.counts["ended equal with room"] += 1

    def closed(self) -> None:
        """A folder that cannot be written."""
        home = self.home()
        with mounted(home, "size=64m,ro"):
            code, said = self.run(home)
            assert code in (1, 2), said
            assert re.search(CLOSED, said), said
            assert not list(home.iterdir())
        self.counts["read-only"] += 1


def mount(*words: str) -> None:
    """Run mount."""
    subprocess.run(["mount", *words], check=True)


@contextlib.contextmanager
def mounted(folder: Path, options: str) -> Iterator[None]:
    """A disk of its own at a folder."""
    mount("-t", "tmpfs", "-o", options, "tmpfs", str(folder))
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def confined() -> list[str] | None:
    """A command's first words that let it mount disks of its own; None where this is not allowed."""
    words = ["unshare", "--user", "--map-root-user", "--mount"]
    try:
        tried = subprocess.run([*words, "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True)
    except OSError:
        return None
    return words if tried.returncode == 0 else None


def try_disks(job: Job, inputs: Path, count: int) -> Counter[str]:
    """`Trial.disks` and `Trial.closed` in a name space of its own."""
    words = confined()
    if words is None:
        return Counter()
    command = [*words, sys.executable, __file__, "--disks", str(count), "--inputs", str(inputs), job.name]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    return Counter(json.loads(done.stdout.splitlines()[-1]))


def try_all(job: Job, inputs: Path, folder: Path, kills: int, disks: int) -> Counter[str]:
    """Every fault for a job."""
    trial = Trial(job, inputs, folder)
    trial.kills(kills)
    trial.two_at_once()
    trial.again()
    return trial.counts + try_disks(job, inputs, disks)


def main() -> None:
    """Try, print counts as JSON."""
    import argparse

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("jobs", nargs="*", default=[job.name for job in JOBS])
    parser.add_argument("--disks", type=int, help="only disks: so many full ones and a read-only one")
    parser.add_argument("--inputs", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        inputs = args.inputs or make_inputs(Path(folder) / "inputs")
        for job in (job for job in JOBS if job.name in args.jobs):
            if args.disks is None:
                print(job.name, dict(try_all(job, inputs, Path(folder), 20, 3)), flush=True)
                continue
            trial = Trial(job, inputs, Path(folder))
            trial.disks(args.disks)
            trial.closed()
            print(json.dumps(trial.counts), flush=True)


if __name__ == "__main__":
    main()
