"""Images to abundances, with the encoders of a synthesizer or by exact least squares."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor

from ubf_augment.errors import NoDataError, ShapeError
from ubf_augment.radiometry import check_reflectance, to_reflectance
from ubf_augment.seeding import Generators
from ubf_augment.spectra import Wavelengths, check_wavelengths, resample
from ubf_augment.synthesis.base import Labels, SynthesizerParts
from ubf_augment.unmixing import RGBRegression, UnmixingModel, fcls, fcls_rgb, sunsal


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
        x = x.to(self.device, torch.float32)
        if nm is not None and not (len(nm) == self.num_bands and torch.allclose(nm, self._nm, atol=0.01)):
            x = resample(x, nm, self._nm, self._fwhm)
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
        return _encode(self.regression, r, y, generator, pictures)

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
        return _encode(self.unmixing, r, y, generator, pictures)


def _encode(
    part: UnmixingModel | RGBRegression, r: Tensor, y: Tensor | None, generator: Generators, pictures: bool
) -> Tensor:
    y = None if part.config.get("num_classes") is None else y
    if isinstance(part, RGBRegression):
        return part.unmix_rgb(r, y, generator, pictures=pictures)
    return part.unmix_rgb(r, y, generator)


def _check_batch(x: Tensor) -> None:
    if x.ndim != 4:
        raise ShapeError(f"images must be (B, C, H, W), got {tuple(x.shape)}: add a batch axis with x[None]")
