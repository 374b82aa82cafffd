"""``ubf adapt``: bring a bundle to another sensor."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch

from ubf_augment.bundle import check_target
from ubf_augment.cli.inputs import ReadOptions, read_images
from ubf_augment.cli.output import say
from ubf_augment.synthesis import HSISynthesizer

POSITIONAL: dict[str, dict[str, Any]] = {
    "bundle": {"type": str, "help": "packaged name, directory, or Hugging Face Hub id"},
    "images": {"type": Path, "help": "image, folder of images, or folder of class folders"},
}
_SHOWN = 6


def run(
    bundle: str,
    images: Path,
    out: Path,
    *,
    wavelengths: str | list[float] | None = None,
    read: ReadOptions = ReadOptions(),  # noqa: B008 - frozen
    rgb_bands: tuple[int, int, int] | None = None,
    class_map: dict[str, str] | None = None,
    rgb_scale: float | None = None,
    ridge: float = 1e-2,
    rank: int = 8,
    max_pixels: int = 200_000,
    seed: int = 0,
    sensor: str = "",
    regression: bool | None = None,
    dtype: Literal["float32", "float16", "bfloat16"] = "float16",
    overwrite: bool = False,
    sheet: bool = True,
) -> None:
    """Bring a bundle to a new sensor, in seconds: new endmembers and residuals, the same generator.

    Args:
        bundle: packaged name, directory, or Hugging Face Hub id.
        images: image, folder of images, or folder of class folders. Classes of the bundle's names (or those
            given by class_map) tell more of the infrared than colours do.
        out: directory of the new bundle.
        wavelengths: short for read.wavelengths: band centres in nm, a list or a text file.
        read: how the images are read.
        rgb_bands: 0-based bands of red, green and blue; by wavelength if not given.
        class_map: class folder → class of the bundle, where the names differ.
        rgb_scale: reflectance of white in RGB pictures.
        ridge: weight of the present spectra in the new ones.
        rank: of the residual model.
        max_pixels: how many pixels to use.
        seed: chooses them.
        sensor: name for the model card.
        regression: learn what red, green and blue leave open, and draw it; by default where the sensor sees beyond 750 nm.
        dtype: how weights are stored.
        overwrite: replace a bundle that is there.
        sheet: write adaptation.png, images beside their reconstruction.
    """
    check_target(out, overwrite=overwrite)
    synth = HSISynthesizer.from_pretrained(bundle)
    if wavelengths is not None:
        if read.wavelengths is not None:
            raise ValueError("give --wavelengths or --read.wavelengths, not both")
        from dataclasses import replace

        read = replace(read, wavelengths=wavelengths)
    data, nm, fwhm = read_images(images, read)
    say(f"{len(data)} images, {len(nm)} bands, {nm[0]:g}–{nm[-1]:g} nm")
    new = synth.adapt(
        data, wavelengths=nm, rgb_bands=rgb_bands, fwhm=fwhm, class_map=class_map, rgb_scale=rgb_scale, rank=rank,
        ridge=ridge, max_pixels=max_pixels, seed=seed, sensor=sensor, regression=regression,
    )  # fmt: skip
    new.save_pretrained(out, dtype=dtype, overwrite=overwrite)
    if sheet:
        _draw(new, data, out)
    found = new.card["adaptation"]
    before, after = found["rmse_before"], found.get("rmse_regression", found["rmse_after"])
    say(
        f"adapted in {found['seconds']:.1f} s. RMSE from red, green and blue: {after:.4f} over all bands "
        f"(before, over the bands that the bundle covers: {before:.4f}); from all bands: {found['rmse_unmixed']:.4f}"
    )
    if new.regression is None:
        own = found["classes_with_own_endmembers"]
        say(f"classes with endmembers of their own: {', '.join(own) if own else 'none'}")
    else:
        say("what colours leave open is drawn, see card.adaptation.rmse_per_band_regression")
    say(f"bundle in {out}")


def _draw(synth: HSISynthesizer, data: Any, out: Path) -> None:
    """Images of the new sensor beside what their abundances give."""
    from ubf_augment.report import comparison_sheet

    chosen = range(0, len(data), max(1, len(data) // _SHOWN))[:_SHOWN]
    items = [data[i] for i in chosen]
    images = [item["image"] if isinstance(item, dict) else item for item in items]
    side = min(128, *(min(x.shape[1:]) for x in images))
    real = torch.stack([x[:, :side, :side] for x in images])
    made = synth.mix(synth.unmix(real)).cpu()
    comparison_sheet(
        real, made, synth.wavelengths, title="unmixed and mixed again", path=out / "adaptation.png"
    )
