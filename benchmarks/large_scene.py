"""Unmixing a scene that is larger than memory: time, memory, and whether windows give what the whole image gives.

    python benchmarks/large_scene.py --preset full --threads 1 --scratch /path/with/10/GB

A made scene of 200 bands, int16, tiled and compressed: smooth fields of abundances (a softmax of random numbers on a coarse
grid), mixed with the endmembers of the bundle, noise of 0.005 reflectance, a patch without data. It is written window by
window from a seed, and deleted at the end.

`ubf unmix` runs as a process of its own, whose peak memory (maximum resident set) and time (wall and CPU) are those that the
system reports, interpreter, imports and picture included. The first process is killed (SIGKILL) when half of the windows are
finished, the second goes on; times are sums of both. Afterwards a crop across several windows is read and unmixed in memory
and compared, and compared with the abundances that were mixed.

Least squares runs on the whole scene; the other methods on one of 1,024 × 1,024 pixels, as the encoder takes longer than a
benchmark should. Wall times are for a machine that does nothing else; CPU times say what the work costs.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from common import HERE, Journal, Result, arguments
from rasterio.windows import Window as Part
from torch import Tensor

from ubf_augment import HSISynthesizer
from ubf_augment.io import Window, open_scene
from ubf_augment.unmixing import fcls, sunsal

SETTINGS: dict[str, Any] = {
    "bundle": "indian-pines", "side": {"quick": 512, "full": 4000}, "other_side": {"quick": 384, "full": 1024}, "grid": 64,
    "noise": 0.005, "scale": 1e-4, "crop": 300, "margin": 8, "seed": 0,
}  # fmt: skip
TILE = 256
HOLE = Window(3, 5, 15, 20)


def main() -> None:
    """Make, unmix, compare, write."""
    args = arguments(__doc__ or "", _scratch)
    settings = SETTINGS | {
        "threads": args.threads,
        **{k: SETTINGS[k][args.preset] for k in ("side", "other_side")},
    }
    journal = Journal("large_scene", args, settings)
    result = Result(
        "large_scene", "Unmixing a scene larger than memory", "made scene, see the head of the script.", args,
        [SETTINGS["seed"]], settings, journal=journal,
    )  # fmt: skip
    synth = HSISynthesizer.from_pretrained(SETTINGS["bundle"])
    runs = []
    folder = args.scratch / "ubf-large-scene"
    for method, side in (
        ("fcls", settings["side"]),
        ("sunsal", settings["other_side"]),
        ("encoder", settings["other_side"]),
    ):
        scene = folder / f"made-{side}.tif"
        out = folder / f"{method}.tif"
        made = journal.run(f"{side} made", lambda scene=scene, side=side: make(synth, scene, side))
        for turn in ("first half", "rest"):
            journal.run(
                f"{method} {side} {turn}",
                lambda scene=scene, out=out, method=method, turn=turn: unmix(
                    scene, out, method, args.threads, turn == "first half"
                ),
            )
        checked = journal.run(
            f"{method} {side} compared",
            lambda scene=scene, out=out, method=method, side=side: compare(synth, scene, out, method, side),
        )
        parts = [journal.done[f"{method} {side} {turn}"] for turn in ("first half", "rest")]
        runs.append(
            {"method": method, "side": side, "made": made, "parts": parts, **checked} | _joined(parts, side)
        )
        if method == "fcls":
            args.out.mkdir(parents=True, exist_ok=True)
            name = result.name if args.preset == "full" else f"{result.name}-quick"
            if out.with_suffix(".png").exists():
                shutil.copy(out.with_suffix(".png"), args.out / f"{name}.png")
    report(result, runs)
    result.write()
    shutil.rmtree(folder, ignore_errors=True)


def _scratch(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--scratch",
        type=Path,
        default=Path(tempfile.gettempdir()),
        help="where the scene is made and unmixed: up to 6 GB",
    )


def report(result: Result, runs: list[dict[str, Any]]) -> None:
    """The table and what was hoped for."""
    columns = [
        "method, pixels", "windows", "wall s", "pixels / wall s", "CPU s", "pixels / CPU s", "peak GiB", "difference", "error",
    ]  # fmt: skip
    rows = [
        [f"{r['method']}, {r['side']}×{r['side']}", r["windows"], r["wall"], r["side"] ** 2 / r["wall"], r["cpu"],
         r["side"] ** 2 / r["cpu"], r["peak"], r["difference"], r["error"]] for r in runs
    ]  # fmt: skip
    result.table("`ubf unmix`, 200 bands, 8 endmembers", columns, rows, [0, 0, 0, 0, 0, 2, 8, 4])
    largest = max(r["peak"] for r in runs)
    result.claim("peak memory at most 2 GiB", largest <= 2, f"{largest:.2f} GiB")
    worst = max(r["difference"] for r in runs)
    result.claim("equal to the in-memory result on a crop, to 10⁻⁵", worst <= 1e-5, f"{worst:.2g}")
    result.claim(
        "a killed run goes on, no finished window is done twice", all(r["resumed"] for r in runs),
        ", ".join(f"{r['kept']} of {r['windows']} windows kept" for r in runs),
    )  # fmt: skip
    whole = runs[0]
    minutes = whole["cpu"] / 60 * 4000**2 / whole["side"] ** 2
    result.claim(
        "4,000 × 4,000 × 200 by exact least squares in 10 minutes of one core", minutes <= 10,
        f"{minutes:.1f} CPU minutes" + ("" if whole["side"] == 4000 else ", extrapolated"),
    )  # fmt: skip
    for r in runs[1:]:
        minutes = r["cpu"] / 60 * 4000**2 / r["side"] ** 2
        result.notes.append(
            f"- {r['method']}: 4,000 × 4,000 pixels would take {minutes:.1f} CPU minutes, extrapolated."
        )
    size = whole["made"]
    result.notes += [
        f"- The scene of {whole['side']}×{whole['side']} pixels: {size['bytes'] / 1e9:.1f} GB on disk, "
        f"{2 * 200 * whole['side'] ** 2 / 1e9:.1f} GB as int16, made in {size['cpu']:.0f} CPU seconds.",
        f"- difference: largest, of abundances, on a crop of {SETTINGS['crop']}×{SETTINGS['crop']} pixels; error: mean absolute, "
        "against what was mixed.",
        "- Other processes ran on the machine: wall times are upper bounds.",
    ]
    result.runs += runs


def abundances(window: Window, side: int, endmembers: int) -> Tensor:
    """What is mixed there (P, h, w), from random numbers on a coarse grid, bilinear between."""
    generator = torch.Generator().manual_seed(SETTINGS["seed"])
    nodes = side // SETTINGS["grid"] + 2
    z = 3 * torch.randn(endmembers, nodes, nodes, generator=generator)
    row, column = (
        (start + torch.arange(n)) / SETTINGS["grid"]
        for start, n in ((window.row, window.height), (window.column, window.width))
    )
    i, j = row.long(), column.long()
    u, v = (row - i)[:, None], (column - j)[None]
    top, bottom = z[:, i], z[:, i + 1]
    field = (1 - u) * ((1 - v) * top[:, :, j] + v * top[:, :, j + 1])
    field = field + u * ((1 - v) * bottom[:, :, j] + v * bottom[:, :, j + 1])
    return torch.softmax(field, 0)


def make(synth: HSISynthesizer, path: Path, side: int) -> dict[str, float]:
    """Write the scene tile by tile; the noise of all tiles is one block, shifted."""
    start, wall = time.process_time(), time.monotonic()
    path.parent.mkdir(parents=True, exist_ok=True)
    spectra, bands = synth.endmembers.spectra, synth.num_bands
    generator = torch.Generator().manual_seed(SETTINGS["seed"] + 1)
    noise = SETTINGS["noise"] * torch.randn(bands, TILE, TILE, generator=generator)
    shape = {"count": bands, "height": side, "width": side, "dtype": "int16", "nodata": -32768}
    layout = {"tiled": True, "blockxsize": TILE, "blockysize": TILE, "interleave": "band", "bigtiff": "yes"}
    place = {"crs": "EPSG:32654", "transform": rasterio.Affine(30, 0, 400000, 0, -30, 4000000)}
    aside = path.with_suffix(".new")
    with rasterio.open(
        aside, "w", driver="GTiff", compress="deflate", zlevel=1, predictor=2, **shape, **layout, **place
    ) as dataset:
        for i, nm in enumerate(synth.wavelengths.tolist(), 1):
            dataset.update_tags(i, wavelength=repr(nm), wavelength_units="Nanometers")
        dataset.scales = (SETTINGS["scale"],) * bands
        for row in range(0, side, TILE):
            for column in range(0, side, TILE):
                w = Window(row, column, min(TILE, side - row), min(TILE, side - column))
                x = torch.einsum("phw,pc->chw", abundances(w, side, len(spectra)), spectra)
                shifted = noise.roll((row // TILE * 37, column // TILE * 59), (1, 2))
                stored = ((x + shifted[:, : w.height, : w.width]) / SETTINGS["scale"]).round().to(torch.int16)
                if row == column == 0:
                    stored[(slice(None), *HOLE.within(w))] = -32768
                dataset.write(stored.numpy(), window=Part(column, row, w.width, w.height))
    os.replace(aside, path)
    return {
        "bytes": path.stat().st_size,
        "cpu": time.process_time() - start,
        "wall": time.monotonic() - wall,
    }


def unmix(scene: Path, out: Path, method: str, threads: int, stop_halfway: bool) -> dict[str, Any]:
    """Run the command; what the system says of the process."""
    work = out.with_name(f"{out.name}.work")
    before = _finished(work)
    code = "import sys; from ubf_augment.cli import main; raise SystemExit(main(sys.argv[1:]))"
    words = ["unmix", str(scene), "--bundle", SETTINGS["bundle"], "--out", str(out), "--method", method]
    words += ["--threads", str(threads), "--device", "cpu", *(["--overwrite=true"] if out.exists() else [])]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(HERE.parent)}
    start = time.monotonic()
    process = subprocess.Popen([sys.executable, "-c", code, *words], env=environment, stderr=subprocess.PIPE)
    killed = False
    while (found := os.wait4(process.pid, os.WNOHANG))[0] == 0:
        if stop_halfway and not killed and _finished(work) >= half(scene):
            os.kill(process.pid, signal.SIGKILL)
            killed = True
        time.sleep(0.05)
    process.returncode = os.waitstatus_to_exitcode(found[1])
    if process.returncode != (-signal.SIGKILL if killed else 0):
        raise RuntimeError(process.stderr.read().decode())
    usage = found[2]
    return {
        "wall": time.monotonic() - start, "cpu": usage.ru_utime + usage.ru_stime, "peak": usage.ru_maxrss / 2**20,
        "killed": killed, "before": before, "after": _finished(work), "said": process.stderr.read().decode(),
    }  # fmt: skip


def half(scene: Path) -> int:
    """Half of the number of windows, which are single tiles here."""
    with rasterio.open(scene) as dataset:
        return (-(-dataset.height // TILE)) * (-(-dataset.width // TILE)) // 2


def _finished(work: Path) -> int:
    return len(list(work.glob("[0-9]*.npz"))) if work.exists() else 0


def _joined(parts: list[dict[str, Any]], side: int) -> dict[str, Any]:
    """Both processes together."""
    windows, kept = (-(-side // TILE)) ** 2, parts[0]["after"]
    return {
        "wall": sum(p["wall"] for p in parts), "cpu": sum(p["cpu"] for p in parts), "peak": max(p["peak"] for p in parts),
        "windows": windows, "kept": kept,
        "resumed": parts[0]["killed"] and f"{kept} of {windows} windows were finished before" in parts[1]["said"],
    }  # fmt: skip


@torch.no_grad()
def compare(synth: HSISynthesizer, scene: Path, out: Path, method: str, side: int) -> dict[str, float]:
    """The crop in memory, and what lies in the file."""
    crop = Window(side // 2 - 170, side // 2 - 140, SETTINGS["crop"], SETTINGS["crop"])
    outer = crop.grow(SETTINGS["margin"], (side, side))
    with open_scene(scene) as opened:
        x = opened.read(outer)[0][None]
    solve = {
        "fcls": lambda v: fcls(v, synth.endmembers),
        "sunsal": lambda v: sunsal(v, synth.endmembers),
        "encoder": synth.unmix,
    }[method]
    expected = solve(x)[0][(slice(None), *crop.within(outer))].numpy()
    with rasterio.open(out) as dataset:
        found = dataset.read(window=Part(crop.column, crop.row, crop.width, crop.height))
        hole = dataset.read(window=Part(HOLE.column, HOLE.row, HOLE.width, HOLE.height))
        if not (hole == dataset.nodata).all():
            raise ValueError("the patch without data got abundances")
    truth = abundances(crop, side, len(found)).numpy()
    return {
        "difference": float(np.abs(found - expected).max()),
        "error": float(np.abs(found - truth).mean()),
    }


if __name__ == "__main__":
    main()
