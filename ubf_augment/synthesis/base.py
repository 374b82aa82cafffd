"""Parts of a synthesizer and what they must agree on: endmembers, residual, generator, unmixing, classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Self

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor, nn

from ubf_augment.errors import LabelError, ShapeError, UnknownClassError
from ubf_augment.generators import AbundanceGenerator
from ubf_augment.mixing import ResidualModel
from ubf_augment.spectra import Endmembers
from ubf_augment.unmixing import RGBRegression, UnmixingModel

Labels = Shaped[Tensor, "..."] | Sequence[str] | Sequence[int] | str | int
"""Classes by index or name: int tensor (B,), list of int or str, or a single one."""


class SynthesizerParts(nn.Module):
    """State of an `HSISynthesizer`, checked: its parts as attributes and buffers, and its classes."""

    generator: AbundanceGenerator
    unmixing: UnmixingModel | RGBRegression | None
    regression: RGBRegression | None
    _spectra: Tensor
    _class_spectra: Tensor
    _class_slot: Tensor
    _rgb_spectra: Tensor | None
    _mean: Tensor | None
    _factors: Tensor | None
    _noise_std: Tensor | None

    def __init__(
        self,
        endmembers: Endmembers,
        generator: AbundanceGenerator,
        *,
        unmixing: UnmixingModel | RGBRegression | None = None,
        regression: RGBRegression | None = None,
        residual: ResidualModel | None = None,
        classes: Sequence[str] = (),
        class_endmembers: Mapping[int, Tensor] | None = None,
        rgb_endmembers: Float[Tensor, "p 3"] | None = None,
        rgb_scale: float = 1.0,
        rgb_gamma: float = 1.0,
        card: Mapping[str, Any] | None = None,
    ) -> None:
        """Put the parts together.

        Args:
            endmembers: E (P, C) with wavelengths.
            generator: of maps with P endmembers and K classes.
            unmixing: encoders for the same P materials, as the generator learned them; their HSI encoder is used where
                their endmembers are E.
            regression: from red, green and blue to abundances of E, for a sensor that sees the infrared: pictures and
                generated maps are carried over by their colours.
            residual: model of ε on the same bands.
            classes: K names, in the generator's label order.
            class_endmembers: class index → (P, C), where a class has its own.
            rgb_endmembers: (P, 3), red, green, blue of the materials in the space that RGB pictures are
                unmixed in, for use without ``unmixing``; E at 665, 560 and 490 nm if not given.
            rgb_scale: reflectance of white in RGB pictures.
            rgb_gamma: exponent of their display curve.
            card: JSON-able description.

        Raises:
            ShapeError: if endmember or band counts disagree.
            LabelError: if classes and the generator's class count disagree, or a class index is out of range.
        """
        super().__init__()
        self.generator, self.unmixing, self.regression = generator, unmixing, regression
        self.classes = tuple(str(c) for c in classes)
        self.rgb_scale, self.rgb_gamma = float(rgb_scale), float(rgb_gamma)
        self.card: dict[str, Any] = dict(card or {})
        self._nm, self._names, self._fwhm = endmembers.wavelengths, endmembers.names, endmembers.fwhm
        own = {int(k): torch.as_tensor(v, dtype=torch.float32) for k, v in (class_endmembers or {}).items()}
        self._check_parts(endmembers, residual, own, rgb_endmembers)
        self.register_buffer("_spectra", endmembers.spectra.detach().clone())
        p, c = endmembers.spectra.shape
        slots = torch.full((self.num_classes,), -1, dtype=torch.int64)
        for slot, k in enumerate(own):
            slots[k] = slot
        stacked = [v.detach().cpu() for v in own.values()]
        self.register_buffer("_class_spectra", torch.stack(stacked) if own else torch.zeros(0, p, c))
        self.register_buffer("_class_slot", slots)
        self.register_buffer(
            "_rgb_spectra", None if rgb_endmembers is None else rgb_endmembers.detach().float().clone()
        )
        self.register_buffer("_mean", None if residual is None else residual.mean.clone())
        self.register_buffer("_factors", None if residual is None else residual.factors.clone())
        self.register_buffer("_noise_std", None if residual is None else residual.noise_std.clone())
        self._correlation_length = 0.0 if residual is None else residual.correlation_length
        encoder = None if unmixing is None else unmixing.endmembers
        self._own_encoder = (
            encoder is not None
            and encoder.num_bands == c
            and torch.allclose(encoder.wavelengths, self._nm, atol=1e-3)
            and torch.allclose(encoder.spectra.cpu(), endmembers.spectra.cpu(), atol=2e-4)
        )
        weight = next(generator.parameters(), self._spectra)
        self.to(weight.device)
        self.eval()

    def _check_parts(
        self,
        endmembers: Endmembers,
        residual: ResidualModel | None,
        own: dict[int, Tensor],
        rgb: Tensor | None,
    ) -> None:
        p, c = endmembers.num_endmembers, endmembers.num_bands
        if self.generator.num_endmembers != p:
            raise ShapeError(
                f"{p} endmembers, but the generator makes maps of {self.generator.num_endmembers}"
            )
        if self.unmixing is not None and self.unmixing.endmembers.num_endmembers != p:
            raise ShapeError(
                f"{p} endmembers, but the unmixing has {self.unmixing.endmembers.num_endmembers}"
            )
        if self.regression is not None and tuple(self.regression.spectra.shape) != (p, c):
            raise ShapeError(
                f"the regression is of endmembers {tuple(self.regression.spectra.shape)}, the synthesizer's are {(p, c)}"
            )
        if residual is not None and len(residual.mean) != c:
            raise ShapeError(f"the residual model has {len(residual.mean)} bands, the endmembers {c}")
        if rgb is not None and tuple(rgb.shape) != (p, 3):
            raise ShapeError(f"rgb_endmembers must be ({p}, 3), got {tuple(rgb.shape)}")
        known = self.generator.num_classes or 0
        if len(self.classes) != known or len(set(self.classes)) != known:
            raise LabelError(
                f"{len(set(self.classes))} different class names for a generator of {known} classes: give "
                "one name for "
                "each label, in label order"
            )
        for name, part in (("encoder", self.unmixing), ("regression", self.regression)):
            encoded = None if part is None else part.config.get("num_classes")
            if encoded is not None and encoded != known:
                raise LabelError(f"the RGB {name} knows {encoded} classes, the generator {known}")
        for k, spectra in own.items():
            if not 0 <= k < known:
                raise LabelError(f"class_endmembers has class {k}, outside 0..{known - 1}")
            if (
                tuple(spectra.shape) != (p, c)
                or not torch.isfinite(spectra).all()
                or float(spectra.min()) < 0
            ):
                raise ShapeError(f"endmembers of class {k} must be ({p}, {c}), finite and ≥ 0")
        if not (self.rgb_scale > 0 and self.rgb_gamma > 0):
            raise ValueError(
                f"rgb_scale and rgb_gamma must be positive, got {self.rgb_scale} and {self.rgb_gamma}"
            )

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode, whatever ``mode`` is: here the networks are used, not trained."""
        return super().train(False)

    # ---- properties

    @property
    def endmembers(self) -> Endmembers:
        """Shared endmembers E, on `device`."""
        return Endmembers(self._spectra, self._nm, self._names, self._fwhm)

    @property
    def class_endmembers(self) -> dict[int, Tensor]:
        """Class index → (P, C), for classes that have their own."""
        return {k: self._class_spectra[s] for k, s in enumerate(self._class_slot.tolist()) if s >= 0}

    @property
    def rgb_endmembers(self) -> Float[Tensor, "p 3"]:
        """Red, green, blue of the materials, for unmixing RGB pictures without an RGB encoder."""
        return self.endmembers.rgb() if self._rgb_spectra is None else self._rgb_spectra

    @property
    def map_colours(self) -> Float[Tensor, "p 3"]:
        """Red, green, blue of the materials in the maps that the generator makes."""
        if self.unmixing is None:
            return self.rgb_endmembers
        return self.unmixing.spectra.detach()[:, list(self.unmixing.rgb_index)]

    @property
    def residual(self) -> ResidualModel | None:
        """Model of ε, on `device`, or None."""
        if self._mean is None or self._factors is None or self._noise_std is None:
            return None
        return ResidualModel(self._mean, self._factors, self._noise_std, self._correlation_length)

    @property
    def wavelengths(self) -> Float[Tensor, " c"]:
        """Band centres in nm, float64, on the CPU."""
        return self._nm

    @property
    def num_endmembers(self) -> int:
        """P."""
        return self._spectra.shape[0]

    @property
    def num_bands(self) -> int:
        """C."""
        return self._spectra.shape[1]

    @property
    def num_classes(self) -> int:
        """K; 0 for a generator without classes."""
        return len(self.classes)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of generated images."""
        return self.generator.size

    @property
    def device(self) -> torch.device:
        """Where the buffers are."""
        return self._spectra.device

    # ---- classes and endmembers

    def labels(self, y: Labels) -> Int64[Tensor, " b"]:
        """Turn class names or indices into indices (B,) on `device`.

        Raises:
            UnknownClassError: for a name that is no class, with the nearest names.
            LabelError: for an index out of range or a tensor that holds no integers.
        """
        if isinstance(y, Tensor):
            if y.is_floating_point() or y.is_complex() or y.dtype == torch.bool:
                raise LabelError(f"labels must be integers or names, got {y.dtype}: use y.long()")
            if y.ndim > 1:
                raise LabelError(f"labels must be (B,), got {tuple(y.shape)}")
            index = y.reshape(-1).to(self.device, torch.int64)
        else:
            given: list[str | int] = [y] if isinstance(y, str | int) else list(y)
            position = {name: i for i, name in enumerate(self.classes)}
            for name in given:
                if isinstance(name, str) and name not in position:
                    close = get_close_matches(name, self.classes, n=3, cutoff=0.4) or list(self.classes[:10])
                    hint = f"the nearest are {', '.join(map(repr, close))}" if close else "it has no classes"
                    raise UnknownClassError(
                        f"the synthesizer has no class {name!r}; {hint} (see synth.classes)"
                    )
            index = torch.tensor(
                [position[v] if isinstance(v, str) else int(v) for v in given], dtype=torch.int64
            )
            index = index.to(self.device)
        bad = (index < 0) | (index >= self.num_classes)
        if bool(bad.any()):
            i = int(bad.nonzero()[0])
            known = f"0..{self.num_classes - 1}" if self.classes else "empty: this synthesizer has no classes"
            raise LabelError(
                f"label {int(index[i])} at position {i} is outside the range of classes, {known}"
            )
        return index

    def spectra(self, y: Labels | None = None) -> Float[Tensor, "*b p c"]:
        """E (P, C), or one per image (B, P, C) if classes are given and some class has its own endmembers."""
        if y is None:
            return self._spectra
        index = self.labels(y)
        if not len(self._class_spectra):
            return self._spectra
        slot = self._class_slot[index]
        own = self._class_spectra[slot.clamp_min(0)]
        return torch.where((slot >= 0)[:, None, None], own, self._spectra)
