"""Images to abundances, with the encoders of a synthesizer or by exact least squares."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor

from ubf_augment.errors import NoDataError, ShapeError
from ubf_augment.radiometry import check_reflectance, to_reflectance
from ubf_augment.seeding import Generators
from ubf_augment.spectra import Wavelengths, check_wavelengths, resample
from ubf_augment.synthesis.base import Labels, SynthesizerParts
from ubf_augment.synthesis.encoding import encode
from ubf_augment.unmixing import AbundanceEncoder, UnmixingModel, fcls, fcls_rgb, sunsal

if TYPE_CHECKING:
    from ubf_augment.synthesis.scene_parts import UnmixedScene


class Unmixer(SynthesizerParts):
    """The way from images to abundances of an `HSISynthesizer`."""

    @torch.no_grad()
    def unmix(
        self,
        x: Float[Tensor, "b c h w"],
        y: Labels | None = None,
        wavelengths: Wavelengths | None = None,
        *,
        fast: bool = False,
    ) -> Float[Tensor, "b p h w"]:
        """Abundances of hyperspectral images, by the HSI encoder if it was trained for E, else by `fcls`.

        Args:
            x: reflectance (B, C, H, W).
            y: classes; images of a class with its own endmembers are unmixed with those.
            wavelengths: band centres of x in nm, if they differ from the synthesizer's: x is resampled.
            fast: take `unmixing.sunsal` for all, which is meant for training steps: the quickest.

        Raises:
            ShapeError: if x is not a batch of images.
            BandCountError: for another number of bands.
            WavelengthError: if ``wavelengths`` do not cover the synthesizer's.
            NoDataError: for NaN or infinite pixels.
            RadiometryError: for integer or unscaled images.
        """
        _check_batch(x)
        nm = None if wavelengths is None else check_wavelengths(wavelengths, x.shape[1], "the image")
        expected = (
            f" ({float(self._nm[0]):g}–{float(self._nm[-1]):g} nm): give wavelengths=… of the image to "
            "have it resampled, or use synth.adapt(images, wavelengths=…) for another sensor"
        )
        check_reflectance(x, self.num_bands if nm is None else len(nm), where="batch", expected=expected)
        x = self.to_own_bands(x.to(self.device, torch.float32), nm)
        slot = (
            torch.full((len(x),), -1, device=self.device)
            if y is None
            else self._class_slot[self._paired(y, x)]
        )
        out = x.new_empty(len(x), self.num_endmembers, *x.shape[2:])
        for s in sorted(set(slot.tolist())):
            rows = slot == s
            if s < 0 and self._own_encoder and self.unmixing is not None and not fast:
                out[rows] = self.unmixing.unmix(x[rows])
            else:
                solve = sunsal if fast else fcls
                out[rows] = solve(x[rows], self._spectra if s < 0 else self._class_spectra[s])
        return out

    @property
    def hsi_encoder(self) -> AbundanceEncoder | None:
        """The encoder that `unmix` takes, if one was trained for E."""
        if isinstance(self.unmixing, UnmixingModel) and self._own_encoder:
            return self.unmixing.hsi_encoder
        return None

    def unmix_scene(
        self,
        path: str | os.PathLike[str],
        out: str | os.PathLike[str],
        *,
        method: Literal["auto", "encoder", "fcls", "sunsal"] = "auto",
        scale: float | None = None,
        rmse: bool = False,
        overwrite: bool = False,
        workdir: str | os.PathLike[str] | None = None,
        progress: bool = True,
        read: Mapping[str, Any] | None = None,
    ) -> UnmixedScene:
        """Unmix a scene of any size into a GeoTIFF of abundances, in bounded memory.

        The scene is read and unmixed window by window; what comes out is what `unmix` gives for the whole image, to
        rounding: an encoder sees the pixels around each window. Bands are named after the endmembers; CRS, transform,
        ground control points and RPCs are those of the scene. A pixel with missing data in any band has no data in all
        bands of the result. Finished windows lie in ``<out>.work`` until the end: after an interruption (Ctrl-C, kill) the
        same call goes on from there.

        Args:
            path: GeoTIFF, ENVI file or other raster, see `open_scene`.
            out: ``.tif``, tiled and compressed, with overviews.
            method: ``"encoder"``, the network that was trained for E; ``"fcls"``, exact least squares; ``"sunsal"``, its
                approximation, the quickest; ``"auto"``, the encoder if there is one, else `fcls`.
            scale: None writes float32, no data being -9999; a number such as ``1e-4`` writes int16 with that scale, no data
                being -32768.
            rmse: add a band ``RMSE``, the root-mean-square of x − Eᵀa over the bands of the synthesizer, in reflectance.
            overwrite: replace a file that is there, and unfinished work of another scene or bundle.
            workdir: folder for finished windows, instead of ``<out>.work``.
            progress: show a progress bar, on a terminal.
            read: options of `open_scene`, such as ``{"scale": 1e-4}``, the factor from stored values to reflectance.

        Raises:
            FileExistsError: if ``out`` is there.
            WavelengthError: if the scene's bands are not the synthesizer's and cannot be resampled to them.
            NoDataError: if no pixel holds data.
            ValueError: if the work directory belongs to another scene, bundle or method.
            OSError: if there is too little room on the disk.
            HSIReadError: and others, as `read_hsi`.
        """
        from ubf_augment.synthesis.scene import unmix_scene

        return unmix_scene(
            self, Path(path).expanduser(), Path(out).expanduser(), method=method, scale=scale, rmse=rmse,
            overwrite=overwrite, workdir=None if workdir is None else Path(workdir).expanduser(), progress=progress,
            read=dict(read or {}),
        )  # fmt: skip

    def has_bands(self, wavelengths: Wavelengths) -> bool:
        """Whether an image with these band centres in nm has the synthesizer's bands, to 0.01 nm."""
        nm = torch.as_tensor(wavelengths, dtype=torch.float64).cpu()
        return len(nm) == self.num_bands and torch.allclose(nm, self._nm, rtol=0, atol=0.01)

    def to_own_bands(
        self, x: Float[Tensor, "b c h w"], wavelengths: Wavelengths | None
    ) -> Float[Tensor, "b c2 h w"]:
        """Images on the synthesizer's bands: resampled, unless ``wavelengths`` are its own or None.

        Raises:
            WavelengthError: if they do not cover the synthesizer's.
        """
        if wavelengths is None or self.has_bands(wavelengths):
            return x
        return resample(x, wavelengths, self._nm, self._fwhm)

    @torch.no_grad()
    def unmix_rgb(
        self,
        rgb: Shaped[Tensor, "b 3 h w"],
        y: Labels | None = None,
        *,
        generator: Generators = None,
        fast: bool = False,
    ) -> Float[Tensor, "b p h w"]:
        """Abundances of displayed RGB pictures.

        Args:
            rgb: (B, 3, H, W), channels red, green, blue; uint8, or float in [0, 1]. Reflectance is
                rgb_scale · v^rgb_gamma.
            y: classes, for an RGB encoder or a regression that takes them.
            generator: draw from the distribution that a regression or a probabilistic encoder predicts, instead of its mean.
            fast: without an RGB encoder, take `unmixing.sunsal`: the quickest for many pictures.

        Raises:
            ShapeError, NoDataError, RadiometryError: for pictures that do not fit.
        """
        _check_batch(rgb)
        if rgb.shape[1] != 3:
            raise ShapeError(
                f"RGB pictures have 3 channels (red, green, blue), got {rgb.shape[1]}: drop the alpha channel"
            )
        if not torch.isfinite(rgb).all():
            bad = int((~torch.isfinite(rgb)).any(1).sum())
            raise NoDataError(f"{bad} pixels of the pictures are NaN or infinite: fill or crop them")
        index = None if y is None else self._paired(y, rgb)
        reflectance = to_reflectance(rgb.to(self.device), self.rgb_scale, self.rgb_gamma)
        return self.unmix_rgb_reflectance(reflectance, index, generator, fast=fast, pictures=True)

    def _paired(self, y: Labels, x: Tensor) -> Tensor:
        index = self.labels(y)
        if len(index) != len(x):
            raise ShapeError(f"{len(index)} labels for {len(x)} images")
        return index

    @torch.no_grad()
    def unmix_rgb_reflectance(
        self,
        r: Float[Tensor, "b 3 h w"],
        y: Int64[Tensor, " b"] | None = None,
        generator: Generators = None,
        *,
        fast: bool = False,
        pictures: bool = False,
    ) -> Float[Tensor, "b p h w"]:
        """Abundances from reflectance at red, green and blue: `unmix_rgb` without the display curve.

        The regression gives them; without one, the RGB encoder, and without that, `unmixing.fcls_rgb`.

        Args:
            r: reflectance.
            y: class indices.
            generator: as for `unmix_rgb`.
            fast: as for `unmix_rgb`.
            pictures: r is of pictures, or of generated maps, and not of the sensor's own RGB bands: only for a regression, which
                knows how the colours of both are distributed.
        """
        if self.regression is None:
            return self.encode_rgb(r, y, generator, fast=fast, pictures=pictures)
        return encode(self.regression, r, y, generator, pictures=pictures)

    @torch.no_grad()
    def encode_rgb(
        self,
        r: Float[Tensor, "b 3 h w"],
        y: Int64[Tensor, " b"] | None = None,
        generator: Generators = None,
        *,
        fast: bool = False,
        pictures: bool = False,
    ) -> Float[Tensor, "b p h w"]:
        """As `unmix_rgb_reflectance`, but never by the sensor's regression: abundances as the generator makes them."""
        if not len(r):
            return r.new_empty(0, self.num_endmembers, *r.shape[2:])
        if self.unmixing is None:
            return fcls_rgb(r, self.rgb_endmembers, fast=fast)
        return encode(self.unmixing, r, y, generator, pictures=pictures)


def _check_batch(x: Tensor) -> None:
    if x.ndim != 4:
        raise ShapeError(f"images must be (B, C, H, W), got {tuple(x.shape)}: add a batch axis with x[None]")
