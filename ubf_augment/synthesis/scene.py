"""`HSISynthesizer.unmix_scene`: abundances of a scene that is larger than memory, window by window."""

from __future__ import annotations

import glob
import hashlib
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from ubf_augment.errors import UBFError, WavelengthError
from ubf_augment.files import drop_left, locked, refuse_existing
from ubf_augment.io import Scene, Window, open_scene, write_maps
from ubf_augment.mixing import mix
from ubf_augment.spectra import rgb_bands, spectral_response
from ubf_augment.synthesis.scene_parts import Parts, Summary, UnmixedScene, free_space
from ubf_augment.synthesis.windows import tiles_of, windows_of
from ubf_augment.unmixing import fcls, sunsal

if TYPE_CHECKING:
    from ubf_augment.synthesis.unmixer import Unmixer

Method = Literal["auto", "encoder", "fcls", "sunsal"]
Solve = Callable[[Tensor], Tensor]
_FARTHEST = 15.0
_QUICK_LOOK = 768


def unmix_scene(
    synth: Unmixer, path: Path, out: Path, *, method: Method, scale: float | None, rmse: bool, overwrite: bool,
    workdir: Path | None, progress: bool, read: dict[str, Any],
) -> UnmixedScene:  # fmt: skip
    """See `HSISynthesizer.unmix_scene`."""
    from tqdm.auto import tqdm

    start = time.monotonic()
    _check_target(path, out, overwrite)
    solve, margin = _solver(synth, method)
    names = (*synth.endmembers.names, *(("RMSE",) if rmse else ()))
    with open_scene(path, **read) as scene:
        check_bands(synth, scene)
        scene.check()
        windows = windows_of(scene.size, scene.block, len(scene.wavelengths), margin)
        free_space(out, 2 * 4 * (synth.num_endmembers + 1) * scene.size[0] * scene.size[1])
        work = out.with_name(f"{out.name}.work") if workdir is None else workdir
        with locked(work):
            _check_target(path, out, overwrite)  # once more: another process may have been quicker
            drop_left(out.parent.glob(f".{glob.escape(out.name)}.*"))
            parts = Parts(work, _facts(synth, scene, method), overwrite)
            step = -(-max(scene.size) // _QUICK_LOOK)
            todo = [w for w in windows if w not in parts]
            done = len(windows) - len(todo)
            for window in tqdm(
                todo, "unmixing", len(windows), initial=done, disable=None if progress else True
            ):
                try:
                    parts.save(window, *_unmix_window(synth, scene, window, solve, margin, step))
                except UBFError as error:
                    raise type(error)(f"{window} of {scene.path.name}: {error}") from error
            summary = Summary(synth.num_endmembers, scene.size, step)
            tags = {
                "content": "abundances",
                "scene": scene.path.name,
                "sensor": str(synth.card.get("sensor", "")),
            }
            write_maps(
                out,
                summary.over(parts, windows, rmse),
                scene.size,
                names,
                place=scene.place,
                scale=scale,
                tags=tags,
            )
            shutil.rmtree(work, ignore_errors=True)
    return summary.result(out, names, (len(windows), len(todo)), time.monotonic() - start)


def check_bands(synth: Unmixer, scene: Scene) -> None:
    """Verify that the scene has the synthesizer's bands, or bands near all of them, to be resampled.

    Raises:
        WavelengthError: if a band of the synthesizer lies outside the scene's range, or in a gap: farther from every band of
            the scene than 15 nm, and than 1.5 times the distance to its own neighbours.
    """
    nm, own = scene.wavelengths, synth.wavelengths
    if synth.has_bands(nm):
        return
    advice = "bring the bundle to this sensor with ubf adapt, or choose another bundle"
    try:
        spectral_response(nm, own)
    except WavelengthError as error:
        raise WavelengthError(
            f"{scene.path.name} has bands at {nm[0]:g}–{nm[-1]:g} nm, the bundle at {own[0]:g}–{own[-1]:g} nm, which they "
            f"do not cover: {advice}"
        ) from error
    spacing = torch.gradient(own)[0] if len(own) > 1 else torch.zeros(1)
    distance = (own[:, None] - nm).abs().amin(1)
    if len(far := (distance > (1.5 * spacing).clamp_min(_FARTHEST)).nonzero()):
        i = int(far[0])
        raise WavelengthError(
            f"{len(far)} of the {len(own)} bands of the bundle have no band of {scene.path.name} near them, the first at "
            f"{own[i]:g} nm ({distance[i]:g} nm away): {advice}"
        )


def _check_target(path: Path, out: Path, overwrite: bool) -> None:
    if out.suffix.lower() not in (".tif", ".tiff"):
        raise ValueError(f"abundances are written as GeoTIFF: give out=….tif, not {out.name}")
    if out.is_dir() or (out.exists() and path.exists() and out.samefile(path)):
        what = "a folder" if out.is_dir() else "the scene itself"
        raise ValueError(f"{out} is {what}: give another out=…")
    refuse_existing(out, overwrite)


def _solver(synth: Unmixer, method: Method) -> tuple[Solve, int]:
    """From reflectance on the synthesizer's bands to abundances, and how far beyond a pixel this looks."""
    if method == "fcls":
        return (lambda x: fcls(x, synth.endmembers)), 0
    if method == "sunsal":
        return (lambda x: sunsal(x, synth.endmembers)), 0
    encoder = synth.hsi_encoder
    if method == "encoder" and encoder is None:
        raise ValueError(
            "this bundle has no encoder for its endmembers (an adapted one never has): give method=fcls"
        )
    return synth.unmix, 0 if encoder is None else encoder.receptive_field // 2


@torch.no_grad()
def _unmix_window(
    synth: Unmixer, scene: Scene, window: Window, solve: Solve, margin: int, step: int
) -> tuple[Tensor, Tensor | None]:
    """Abundances and RMSE (P + 1, h, w), NaN without data; red, green and blue of the pixels of the quick look."""
    outer = window.grow(margin, scene.size)
    image, mask = scene.read(outer)
    layers = torch.full((synth.num_endmembers + 1, window.height, window.width), torch.nan)
    for tile in tiles_of(window, margin):
        valid = mask[tile.within(outer)]
        if not bool(valid.any()):
            continue
        around = tile.grow(margin, scene.size)
        x = image[(slice(None), *around.within(outer))]
        if not margin:  # pixel by pixel: those without data need not be looked at
            x = x[:, valid][:, None]
        x = synth.to_own_bands(x[None].to(synth.device), scene.wavelengths)
        a = solve(x)
        error = (mix(a, synth.endmembers.spectra) - x).square().mean(1, keepdim=True).sqrt()
        found = torch.cat([a, error], 1)[0].cpu()
        if margin:
            found = found[(slice(None), *tile.within(around))][:, valid]
        layers[(slice(None), *tile.within(window))][:, valid] = found.flatten(1)
    try:
        bands = list(rgb_bands(scene.wavelengths))
    except WavelengthError:  # nothing visible
        return layers, None
    rgb = torch.where(mask, image[bands], torch.nan)[(slice(None), *window.within(outer))]
    return layers, rgb[:, -window.row % step :: step, -window.column % step :: step].clone()


def _facts(synth: Unmixer, scene: Scene, method: Method) -> dict[str, Any]:
    """What finished windows belong to."""
    digest = hashlib.sha256()
    tensors = [synth.endmembers.spectra, synth.wavelengths]
    if synth.hsi_encoder is not None and method in ("auto", "encoder"):
        tensors += synth.hsi_encoder.state_dict().values()
    for tensor in tensors:
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return {"scene": scene.facts(), "bundle": digest.hexdigest(), "method": method}
