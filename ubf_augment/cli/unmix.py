"""``ubf unmix``: abundances of a scene of any size."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from ubf_augment.cli.device import find_device
from ubf_augment.cli.inputs import ReadOptions
from ubf_augment.cli.output import say
from ubf_augment.synthesis import HSISynthesizer

POSITIONAL: dict[str, dict[str, Any]] = {
    "scene": {"type": Path, "help": "GeoTIFF, ENVI file (.hdr or its data) or other raster"}
}


def run(
    scene: Path,
    bundle: str,
    *,
    out: Path | None = None,
    method: Literal["auto", "encoder", "fcls", "sunsal"] = "auto",
    read: ReadOptions = ReadOptions(),  # noqa: B008 - frozen
    scale: float | None = None,
    rmse: bool = False,
    overwrite: bool = False,
    workdir: Path | None = None,
    device: str = "auto",
    threads: int | None = None,
    sheet: bool = True,
) -> None:
    """Unmix a scene of any size, window by window, into a tiled GeoTIFF with one band per endmember.

    Place on Earth and missing data are kept: a pixel without data in any band has none in the result. Interrupted by
    Ctrl-C or kill, the same command goes on from the finished windows.

    Args:
        scene: GeoTIFF, ENVI file (.hdr or its data) or other raster.
        bundle: of the scene's sensor: packaged name, directory (see ubf adapt), or Hugging Face Hub id.
        out: GeoTIFF to write; <scene>-abundances.tif by default.
        method: encoder (the network of the bundle), fcls (exact least squares), sunsal (its approximation, the quickest), or
            auto: the encoder if the bundle has one for its sensor, else fcls.
        read: how the scene is read (key, layout and size are for other files).
        scale: None writes float32; a number such as 0.0001 writes int16 with that scale, half the size.
        rmse: add a band with what the endmembers do not explain, in reflectance.
        overwrite: replace a result that is there, and unfinished work of another scene or bundle.
        workdir: folder for finished windows; <out>.work by default, removed at the end.
        device: auto, cpu, cuda, cuda:1, mps.
        threads: CPU threads; torch's choice by default.
        sheet: write a picture beside the result, <out without .tif>.png.
    """
    import torch

    if threads is not None:
        torch.set_num_threads(threads)
    target = scene.with_name(f"{scene.stem}-abundances.tif") if out is None else out
    synth = HSISynthesizer.from_pretrained(bundle, device=find_device(device))
    found = synth.unmix_scene(
        scene, target, method=method, scale=scale, rmse=rmse, overwrite=overwrite, workdir=workdir,
        read=_options(read),
    )  # fmt: skip
    if found.windows[1] < found.windows[0]:
        say(f"{found.windows[0] - found.windows[1]} of {found.windows[0]} windows were finished before")
    if sheet:
        from ubf_augment.report import scene_sheet

        scene_sheet(found, title=f"{scene.name}, unmixed with {bundle}", path=target.with_suffix(".png"))
    pixels = found.size[0] * found.size[1]
    say(f"{found.valid} of {pixels} pixels in {found.seconds:.0f} s")
    shares = ", ".join(
        f"{name} {share:.3f}" for name, share in zip(found.names, found.mean.tolist(), strict=False)
    )
    say(f"mean abundances: {shares}")
    say(f"RMSE of the mixtures: {found.rmse:.4f}; abundances in {target}")


def _options(read: ReadOptions) -> dict[str, Any]:
    """Those of `open_scene`.

    Raises:
        ValueError: for one of a file of arrays.
    """
    options, default = read.arguments(), ReadOptions()
    arrays = {name: options.pop(name) for name in ("key", "layout", "size")}
    if wrong := [name for name, value in arrays.items() if value != getattr(default, name)]:
        raise ValueError(
            f"--read.{wrong[0]} is for MATLAB and NumPy files, which are not read window by window"
        )
    if isinstance(options["wavelengths"], str):
        raise ValueError(f"--read.wavelengths {read.wavelengths}: neither numbers nor a file of them")
    return options
