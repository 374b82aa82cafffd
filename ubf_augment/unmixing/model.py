"""`UnmixingModel`: two encoders (full spectrum, RGB) and ONE shared decoder, the mixing model with non-negative endmembers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from ubf_augment import simplex
from ubf_augment.errors import BandCountError, ShapeError
from ubf_augment.seeding import Generators
from ubf_augment.spectra import Endmembers, rgb_bands
from ubf_augment.training import History
from ubf_augment.unmixing.network import AbundanceEncoder
from ubf_augment.unmixing.solver import check_image, fcls

if TYPE_CHECKING:
    from lightning.fabric import Fabric


class UnmixingModel(nn.Module):
    """Unmix hyperspectral images and RGB pictures into abundances of the same endmembers.

        a_HSI = U(x),   a_RGB = U_RGB(rgb | y),   x̂ = mix(a, E),   E = softplus(θ) ≥ 0

    If you use this, please cite Yu et al. 2024, "Unmixing Before Fusion", CVPR, pp. 9297-9306.

    >>> E = Endmembers(torch.tensor([[0.1, 0.2, 0.4], [0.3, 0.2, 0.1], [0, 0, 0]]), [490, 560, 665], ("soil", "water", "shade"))
    >>> model = UnmixingModel(E, width=16, blocks=1)
    >>> model.unmix(torch.rand(2, 3, 8, 8)).shape, model.unmix_rgb(torch.rand(2, 3, 8, 8)).shape
    (torch.Size([2, 3, 8, 8]), torch.Size([2, 3, 8, 8]))
    """

    regression: Tensor

    def __init__(
        self, endmembers: Endmembers, *, width: int = 64, blocks: int = 2, rgb_width: int = 48, rgb_blocks: int = 2,
        rgb_index: Sequence[int] | None = None, num_classes: int | None = None, probabilistic: bool = False,
        prior_weight: float = 1e-2,
    ) -> None:  # fmt: skip
        """Build encoders and decoder.

        Args:
            endmembers: initial E (P, C) in reflectance; a last row of zeros is taken as shade and stays zero.
            width: feature channels of the HSI encoder.
            blocks: residual blocks of the HSI encoder.
            rgb_width: feature channels of the RGB encoder.
            rgb_blocks: residual blocks of the RGB encoder.
            rgb_index: band indices of red, green, blue; by wavelength if not given.
            num_classes: K, if the RGB encoder takes the scene class.
            probabilistic: the RGB encoder predicts a distribution of abundances.
            prior_weight: λ of `fcls` when the RGB encoder's abundances are refined to reproduce the picture.
        """
        super().__init__()
        self.wavelengths = endmembers.wavelengths
        self.names = endmembers.names
        self.shade = bool((endmembers.spectra[-1] == 0).all())
        self.rgb_index = (
            rgb_bands(self.wavelengths) if rgb_index is None else tuple(int(i) for i in rgb_index)
        )
        if len(self.rgb_index) != 3 or not all(0 <= i < len(self.wavelengths) for i in self.rgb_index):
            raise BandCountError(
                f"rgb_index must be three of the {len(self.wavelengths)} bands, got {self.rgb_index}"
            )
        self.prior_weight = prior_weight
        p, c = endmembers.spectra.shape
        self.hsi_encoder = AbundanceEncoder(c, p, width=width, blocks=blocks)
        self.rgb_encoder = AbundanceEncoder(
            3, p, width=rgb_width, blocks=rgb_blocks, num_classes=num_classes, probabilistic=probabilistic
        )
        uniform = torch.zeros(10, p)
        uniform[0] = 1 / p
        self.register_buffer("regression", uniform)
        free = endmembers.spectra[: p - 1] if self.shade else endmembers.spectra
        self.theta = nn.Parameter(_inverse_softplus(free.clamp_min(1e-4)))
        self._widths = {"width": width, "blocks": blocks, "rgb_width": rgb_width, "rgb_blocks": rgb_blocks}

    @property
    def spectra(self) -> Float[Tensor, "p c"]:
        """E (P, C), differentiable."""
        free = nn.functional.softplus(self.theta)
        return torch.cat([free, torch.zeros_like(free[:1])]) if self.shade else free

    @property
    def endmembers(self) -> Endmembers:
        """The current endmembers, detached."""
        return Endmembers(self.spectra.detach().clone(), self.wavelengths, self.names)

    @torch.no_grad()
    def set_spectra(self, spectra: Float[Tensor, "p c"]) -> None:
        """Replace E (the shade row stays zero)."""
        if spectra.shape != self.spectra.shape:
            raise ShapeError(
                f"endmember spectra must be {tuple(self.spectra.shape)}, got {tuple(spectra.shape)}"
            )
        self.theta.copy_(_inverse_softplus(spectra[: len(self.theta)].clamp_min(1e-4)))

    @property
    def config(self) -> dict[str, Any]:
        """JSON-able description from which `from_config` rebuilds the model (weights apart)."""
        return {
            "wavelengths": self.wavelengths.tolist(),
            "names": list(self.names),
            "shade": self.shade,
            "rgb_index": list(self.rgb_index),
            "num_classes": self.rgb_encoder.num_classes,
            "probabilistic": self.rgb_encoder.probabilistic,
            "prior_weight": self.prior_weight,
            **self._widths,
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> UnmixingModel:
        """Build the model that `config` describes; load its weights with ``load_state_dict``."""
        rest = dict(config)
        wavelengths, names, shade = rest.pop("wavelengths"), tuple(rest.pop("names")), rest.pop("shade")
        with torch.device("cpu"):  # they are checked, also where the networks are laid out on "meta" first
            spectra = torch.full((len(names), len(wavelengths)), 0.1)
            if shade:
                spectra[-1] = 0
            endmembers = Endmembers(spectra, torch.as_tensor(wavelengths, dtype=torch.float64), names)
        return cls(endmembers, **rest)

    def unmix(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b p h w"]:
        """Abundances of hyperspectral images (B, C, H, W) in reflectance.

        The encoder predicts what to change in the logarithm of the least-squares abundances (`fcls`), nothing before training.

        Raises:
            BandCountError, ShapeError: if the image does not fit the encoder.
            NoDataError: if it holds NaN or infinite values.
        """
        check_image(x, len(self.wavelengths))
        return cast(Tensor, self.hsi_encoder(x, start=fcls(x, self.spectra)))

    def unmix_rgb(
        self,
        rgb: Float[Tensor, "b 3 h w"],
        y: Int64[Tensor, "b"] | None = None,
        generator: Generators = None,
        refine: bool = True,
    ) -> Float[Tensor, "b p h w"]:
        """Abundances of RGB pictures (B, 3, H, W) in reflectance, channels red, green, blue.

        Args:
            rgb: reflectance at the sensor's RGB bands.
            y: scene classes, for a class-conditional encoder.
            generator: draw from the predicted distribution (probabilistic encoder) instead of taking its mean.
            refine: find the abundances nearest to the prediction that reproduce the picture,
                argmin ‖rgb − E_RGBᵀa‖² + λ s ‖a − a₀‖² on the simplex (see `fcls`).

        Raises:
            ShapeError, BandCountError, NoDataError, LabelError: for input that does not fit.
        """
        check_image(rgb, 3)
        a = cast(Tensor, self.rgb_encoder(rgb, y, generator, start=self.rgb_start(rgb)))
        if not refine:
            return a
        colours = self.spectra.detach()[:, list(self.rgb_index)]
        return fcls(rgb, colours, prior=a.detach(), prior_weight=self.prior_weight)

    def rgb_start(self, rgb: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b p h w"]:
        """Closed-form abundances of RGB pictures, from which the RGB encoder starts.

        A quadratic regression of abundances on red, green and blue, fitted to the training HSIs by `fit` (uniform before),
        projected onto the simplex.
        """
        return simplex.project(torch.einsum("bkhw,kp->bphw", self._quadratic(rgb), self.regression))

    @torch.no_grad()
    def set_regression(self, x: Float[Tensor, "b c h w"]) -> None:
        """Fit the regression behind `rgb_start` by least squares to the abundances (`fcls`) of hyperspectral pixels."""
        features = self._quadratic(x[:, list(self.rgb_index)]).movedim(1, -1).flatten(0, -2).double()
        target = fcls(x, self.spectra).movedim(1, -1).flatten(0, -2).double()
        gram = features.T @ features
        gram += 1e-7 * len(features) * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
        self.regression.copy_(torch.linalg.solve(gram, features.T @ target))

    def _quadratic(self, rgb: Tensor) -> Tensor:
        """1, R, G, B and their products (B, 10, H, W), standardised as the RGB encoder's input."""
        mean, std = (v[:3].view(1, -1, 1, 1) for v in (self.rgb_encoder.mean, self.rgb_encoder.std))
        z = (rgb.float() - mean) / std
        r, g, b = z.chunk(3, 1)
        return torch.cat([torch.ones_like(r), z, z * z, r * g, g * b, b * r], 1)

    def fit(
        self, hsis: Sequence[Float[Tensor, "c _ _"]],
        rgb: Float[Tensor, "n 3 _ _"] | Sequence[Float[Tensor, "3 _ _"]] | None = None, *,
        labels: Int64[Tensor, "m"] | None = None, rgb_labels: Int64[Tensor, "n"] | None = None, steps: int = 1500,
        batch_size: int = 8, crop: int = 32, lr: float = 2e-3, endmember_lr: float = 5e-4, learn_endmembers: bool = True,
        angle_weight: float = 0.1, variation_weight: float = 0.015, seed: int = 0, fabric: Fabric | None = None,
        checkpoint: Path | None = None, progress: bool = True,
    ) -> History:  # fmt: skip
        """Train both encoders, and E with them: Charbonnier + 0.1 spectral angle + 0.015 endmember total variation.

        Args:
            hsis: training images (C, H, W) in reflectance; any sequence, asked for the images of a step alone.
            rgb: unpaired RGB pictures (N, 3, H, W) in reflectance, or a sequence of (3, H, W); the RGB encoder learns to
                reproduce them too.
            labels: class of each HSI, for a class-conditional RGB encoder; a tenth is hidden from it, so that it learns
                to do without, too.
            rgb_labels: class of each picture, in the same numbering; unknown if not given.
            steps: optimiser steps.
            batch_size: crops per step, of each kind.
            crop: side of the crops in pixels.
            lr: peak learning rate of the encoders.
            endmember_lr: peak learning rate of the endmembers.
            learn_endmembers: False keeps E as it is.
            angle_weight: weight of the mean spectral angle (rad).
            variation_weight: weight of the endmember total variation.
            seed: of crops, order and noise.
            fabric: devices and precision.
            checkpoint: file to resume from and save to.
            progress: show a progress bar.

        Raises:
            NoDataError, BandCountError, ShapeError, LabelError: for images that do not fit.
        """
        from ubf_augment.unmixing.fitting import fit_unmixing

        return fit_unmixing(
            self, hsis, rgb, labels, rgb_labels, steps=steps, batch_size=batch_size, crop=crop, lr=lr,
            endmember_lr=endmember_lr, learn_endmembers=learn_endmembers, angle_weight=angle_weight,
            variation_weight=variation_weight, seed=seed, fabric=fabric, checkpoint=checkpoint, progress=progress,
        )  # fmt: skip


def _inverse_softplus(x: Tensor) -> Tensor:
    return x + torch.log(-torch.expm1(-x))
