"""Synthetic images by the thousand: processes, kills, memory.

    python benchmarks/scale_out.py --preset full --scratch /path/with/8/GB

`ubf sample` draws images (GeoTIFF, float32) with the packaged bundle, as commands of their own:

- with one process, with two (gloo on a CPU), and with one and two in turn, killed (SIGKILL, the whole process group) at random
  moments and started again. Every file must be there, once, with the same bytes.
- a tenth of the images, for the peak memory (maximum resident set of the largest process, as the system reports it, with
  interpreter and imports).

`ubf fit` then trains for a few steps on a tenth of these images and on all of them, with as many pictures, and its peak is
compared likewise. What is written is deleted at the end; finished parts are kept in a journal.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import HERE, Journal, Result, arguments
from PIL import Image

from ubf_augment import read_hsi
from ubf_augment.spectra import rgb_bands

SETTINGS: dict[str, Any] = {
    "bundle": "aid-chikusei", "classes": ["Forest", "Pond"], "per_class": {"quick": 20, "full": 1000}, "kills": 5, "seed": 0,
    "fit": {
        "num_endmembers": 4, "restarts": 1, "refine_iterations": 5, "unmixing_steps": 20, "generator": "ddpm",
        "generator_steps": 10, "generator_batch_size": 8, "generator_config": {"widths": [16, 16, 16]},
        "generator_options": {"codec_steps": 10},
    },
    "growth": 1.1,
}  # fmt: skip


def main() -> None:
    """Draw, kill, compare, train, write."""
    args = arguments(__doc__ or "", _scratch)
    result = Result("scale_out", "Images by the thousand", "made images.", args, [SETTINGS["seed"]], SETTINGS)
    journal = result.journal = Journal("scale_out", args, SETTINGS)
    folder = args.scratch / journal.path.stem
    num = SETTINGS["per_class"][args.preset]
    total = num * len(SETTINGS["classes"])
    threads = args.threads

    one = journal.run("one process", lambda: draw(folder / "one", num, 1, threads))
    two = journal.run("two processes", lambda: draw(folder / "two", num, 2, threads))
    killed = journal.run("killed", lambda: draw_killed(folder / "killed", num, threads, one["seconds"]))
    few = journal.run("a tenth", lambda: draw(folder / "few", max(1, num // 10), 1, threads))
    rows = [
        [name, found["files"], found["seconds"], found["peak"], "yes" if found["digest"] == one["digest"] else "no"]
        for name, found in (("1 process", one), ("2 processes", two), (f"killed {SETTINGS['kills']} times", killed))
    ]  # fmt: skip
    rows.append(["1 process, a tenth", few["files"], few["seconds"], few["peak"], None])
    result.table("ubf sample", ["run", "images", "seconds", "peak MiB", "same bytes"], rows, [0, 1, 0, 0])
    result.claim(
        f"{total} images are the same bytes from one process and from two",
        two["digest"] == one["digest"] and two["files"] == one["files"] == total, f"{two['files']} files",
    )  # fmt: skip
    result.claim(
        f"killed {SETTINGS['kills']} times at random moments it ends complete, with the same bytes",
        killed["digest"] == one["digest"] and killed["files"] == total,
        f"{killed['files']} files; after the kills there were {', '.join(map(str, killed['after']))}",
    )  # fmt: skip
    grown(result, "ubf sample", few, one)

    small = journal.run("fit, a tenth", lambda: fit(folder, "few", threads))
    large = journal.run("fit", lambda: fit(folder, "one", threads))
    result.table(
        "ubf fit, few steps", ["scenes and pictures", "seconds", "peak MiB"],
        [[str(found["images"]), found["seconds"], found["peak"]] for found in (small, large)], [1, 0],
    )  # fmt: skip
    grown(result, "ubf fit", small, large)
    result.notes.append(
        "Peak memory is that of the largest process, interpreter and imports included. Times of the killed job are sums."
    )
    result.runs += [{"run": key, **value} for key, value in journal.done.items()]
    result.write()
    shutil.rmtree(folder)


def _scratch(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--scratch", type=Path, default=Path(tempfile.gettempdir()) / "ubf-scale-out", help="where images are written"
    )  # fmt: skip


def grown(result: Result, command: str, small: dict[str, Any], large: dict[str, Any]) -> None:
    """Compare peaks."""
    ratio = large["peak"] / small["peak"]
    result.claim(
        f"{command}: ten times as many images take no more memory (within 10 %)",
        ratio <= SETTINGS["growth"], f"{small['peak']:.0f} and {large['peak']:.0f} MiB",
    )  # fmt: skip


def words_of(out: Path, num: int, devices: int, threads: int) -> list[str]:
    """The command that draws."""
    return [
        "sample", SETTINGS["bundle"], "--classes", ",".join(SETTINGS["classes"]), "--num", str(num), "--out", str(out),
        "--devices", str(devices), "--threads", str(threads), "--device", "cpu", "--seed", str(SETTINGS["seed"]),
        "--sheet", "false",
    ]  # fmt: skip


def start(words: list[str]) -> subprocess.Popen[bytes]:
    """The command in a process group of its own."""
    environment = os.environ | {"PYTHONPATH": str(HERE.parent)}
    return subprocess.Popen(
        [sys.executable, "-m", "ubf_augment.cli", *words], start_new_session=True, env=environment, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip


def whole(words: list[str]) -> dict[str, float]:
    """Run the command to its end: seconds, and MiB at the peak.

    Raises:
        RuntimeError: if it fails.
    """
    begin, process = time.monotonic(), start(words)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"ubf {' '.join(words)} ended with {process.returncode}")
    return {"seconds": time.monotonic() - begin, "peak": usage.ru_maxrss / 1024}


def draw(out: Path, num: int, devices: int, threads: int) -> dict[str, Any]:
    """Draw into an empty folder."""
    shutil.rmtree(out, ignore_errors=True)
    return {**whole(words_of(out, num, devices, threads)), **written(out)}


def draw_killed(out: Path, num: int, threads: int, usual: float) -> dict[str, Any]:
    """Draw, killed at random moments, one process and two in turn."""
    shutil.rmtree(out, ignore_errors=True)
    rng, begin, after = random.Random(SETTINGS["seed"]), time.monotonic(), []
    for attempt in range(SETTINGS["kills"]):
        job = start(words_of(out, num, 1 + attempt % 2, threads))
        time.sleep(rng.uniform(0, 5 + 2 * usual / SETTINGS["kills"]))  # some while the command still imports
        os.killpg(job.pid, signal.SIGKILL)
        job.wait()
        after.append(len(list(out.rglob("[!.]*.tif"))))
    found = whole(words_of(out, num, 1, threads))
    return {**found, "seconds": time.monotonic() - begin, "after": after, **written(out)}


def written(out: Path) -> dict[str, Any]:
    """How many images, and a digest of every file and its name.

    Raises:
        RuntimeError: if the manifest does not say complete, or other files lie there.
    """
    if not json.loads((out / "manifest.json").read_text())["complete"]:
        raise RuntimeError(f"{out} is not complete")
    digest, images = hashlib.sha256(), 0
    for path in sorted(p for p in out.rglob("*") if p.is_file()):
        if path.name not in ("manifest.json", ".lock"):
            if path.suffix != ".tif":
                raise RuntimeError(f"{path} should not be there")
            images += 1
        if path.name != ".lock":
            digest.update(str(path.relative_to(out)).encode() + path.read_bytes())
    return {"files": images, "digest": digest.hexdigest()}


def fit(folder: Path, name: str, threads: int) -> dict[str, Any]:
    """Train on the images of a folder, and on a picture of each."""
    pictures, images = folder / f"{name}-rgb", sorted((folder / name).rglob("*.tif"))
    for path in images:
        target = pictures / path.parent.name / f"{path.stem}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            image = read_hsi(path)
            x = (image.image[list(rgb_bands(image.wavelengths))] / 0.3).clamp(0, 1).mul(255).byte()
            Image.fromarray(x.permute(1, 2, 0).numpy()).save(target)
    out, work = folder / f"{name}-bundle", folder / f"{name}-work"
    for old in (out, work):
        shutil.rmtree(old, ignore_errors=True)
    words = ["fit", "--hsi", str(folder / name), "--rgb", str(pictures), "--out", str(out), "--workdir", str(work)]  # fmt: skip
    words += ["--accelerator", "cpu", "--threads", str(threads), "--sheet", "false"]
    for key, value in SETTINGS["fit"].items():
        words += [f"--settings.{key}", json.dumps(value) if not isinstance(value, str) else value]
    return {**whole(words), "images": len(images)}


if __name__ == "__main__":
    main()
