"""Banks of labelled RGB pictures, each prepared once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int64, Shaped, UInt8
from torch import Tensor, nn

from ubf_augment import simplex
from ubf_augment.errors import (
    BandCountError,
    RadiometryError,
    ShapeError,
    UnknownClassError,
    WavelengthError,
)
from ubf_augment.labels import ClassIndex
from ubf_augment.radiometry import to_reflectance
from ubf_augment.synthesis import HSISynthesizer


@runtime_checkable
class Reconstructor(Protocol):
    """What turns RGB pictures into images without unmixing, such as `baselines.MSTPlusPlus`.

    Attributes:
        wavelengths: (C,) band centres of its images in nm.
    """

    wavelengths: Tensor

    def reconstruct(self, pictures: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c h w"]:
        """Give images of pictures, which are reflectance at red, green and blue."""


class PictureBank(ABC):
    """Labelled RGB pictures: prepared once per class when first needed, then drawn at random.

    Args:
        pictures: class → uint8 (N, 3, H, W), channels R, G, B. A class is one of the user's names, its label,
            or the synthesizer's name for it.
        index: the user's classes.
        known: the synthesizer's class names.

    Raises:
        UnknownClassError: if a key is none of these.
        RadiometryError: if pictures are not uint8.
        ShapeError: if pictures are not (N, 3, H, W) with N ≥ 1.
    """

    def __init__(
        self, pictures: Mapping[str, Tensor] | Mapping[int, Tensor], index: ClassIndex, known: tuple[str, ...]
    ) -> None:
        self._pictures: dict[int, UInt8[Tensor, "n 3 h w"]] = {}
        self._prepared: dict[int, Tensor] = {}
        self._source = index.source.tolist()
        for key, value in pictures.items():
            if not isinstance(value, Tensor) or value.ndim != 4 or value.shape[1] != 3 or not len(value):
                raise ShapeError(f"bank[{key!r}] must be a uint8 tensor (N, 3, H, W) with N ≥ 1")
            if value.dtype != torch.uint8:
                raise RadiometryError(f"bank[{key!r}] is {value.dtype}: give pictures as uint8, 0 to 255")
            labels = self._labels_of(key, index, known)
            if not labels:
                raise UnknownClassError(
                    f"bank has {key!r}, which is neither one of your classes ({', '.join(index.names)}) nor "
                    "one that the synthesizer gives to them"
                )
            for label in labels:
                self._pictures.setdefault(label, value.detach().cpu())

    @staticmethod
    def _labels_of(key: str | int, index: ClassIndex, known: tuple[str, ...]) -> list[int]:
        if isinstance(key, int):
            return [key] if 0 <= key < index.num_classes else []
        if key in index.names:
            return [index.names.index(key)]
        return [k for k, s in enumerate(index.source.tolist()) if s >= 0 and known[s] == key]

    def holds(self, num_classes: int) -> Tensor:
        """(K,) bool: the classes that have pictures."""
        return torch.tensor([k in self._pictures for k in range(num_classes)], dtype=torch.bool)

    def draw(
        self,
        labels: Int64[Tensor, " b"],
        size: tuple[int, int],
        synth: HSISynthesizer,
        generator: torch.Generator,
    ) -> Float[Tensor, "b m h w"]:
        """Draw what was made of one picture per label, resized to ``size``, on the device of ``synth``."""
        drawn = []
        for label in labels.tolist():
            if label not in self._prepared:
                parts = self._prepare(torch.split(self._pictures[label], 32), self._source[label], synth)
                self._prepared[label] = torch.cat(list(parts))
            prepared = self._prepared[label]
            i = int(torch.randint(len(prepared), (), generator=generator))
            drawn.append(simplex.resize(self._read(prepared[i : i + 1].to(synth.device)), size))
        return torch.cat(drawn)

    @abstractmethod
    def _prepare(
        self, chunks: Sequence[Tensor], source: int, synth: HSISynthesizer
    ) -> Iterable[Shaped[Tensor, "n m h w"]]:
        """What is kept of the pictures of a class (``source``: the synthesizer's, or -1), on the CPU."""

    @abstractmethod
    def _read(self, kept: Shaped[Tensor, "n m h w"]) -> Float[Tensor, "n m h w"]:
        """What was kept, as it is drawn."""


class AbundanceBank(PictureBank):
    """Abundance maps of labelled RGB pictures, unmixed and kept as uint8. Args and Raises as `PictureBank`."""

    def _prepare(self, chunks: Sequence[Tensor], source: int, synth: HSISynthesizer) -> Iterable[Tensor]:
        fixed = torch.Generator().manual_seed(0)  # a probabilistic encoder draws once, the same everywhere
        for chunk in chunks:
            y = None if source < 0 else torch.full((len(chunk),), source)
            a = synth.unmix_rgb(chunk.to(synth.device), y, generator=fixed, fast=True)
            yield (a * 255).round().to("cpu", torch.uint8)

    def _read(self, kept: Tensor) -> Tensor:
        return simplex.closure(kept.float())


class ReconstructionBank(PictureBank):
    """Images reconstructed from labelled RGB pictures by a `Reconstructor`, and kept as float16.

    Pictures become reflectance as for `HSISynthesizer.unmix_rgb`. The images take 2·C·H·W bytes per picture; float16
    rounds reflectance to 0.05 %. Images are resized to the batch as they are, band by band.

    Args:
        pictures, index, known: as for `PictureBank`.
        reconstructor: gives images on the bands of the synthesizer.
        wavelengths: the synthesizer's, in nm.

    Raises:
        BandCountError: if the reconstructor gives another number of bands.
        WavelengthError: if it gives other wavelengths (by more than 1 nm).
        UnknownClassError, RadiometryError, ShapeError: as `PictureBank`.
    """

    def __init__(
        self, pictures: Mapping[str, Tensor] | Mapping[int, Tensor], index: ClassIndex, known: tuple[str, ...],
        reconstructor: Reconstructor, wavelengths: Tensor,
    ) -> None:  # fmt: skip
        super().__init__(pictures, index, known)
        made, wanted = reconstructor.wavelengths.cpu().double(), wavelengths.cpu().double()
        if len(made) != len(wanted):
            raise BandCountError(
                f"the reconstructor gives {len(made)} bands, the synthesizer has {len(wanted)}: train it on images of "
                "that sensor"
            )
        if not torch.allclose(made, wanted, rtol=0, atol=1.0):
            i = int((made - wanted).abs().argmax())
            raise WavelengthError(
                f"band {i} of the reconstructor is at {float(made[i]):g} nm, of the synthesizer at {float(wanted[i]):g} "
                "nm: train it on images of that sensor"
            )
        self._reconstructor = reconstructor

    @torch.no_grad()
    def _prepare(self, chunks: Sequence[Tensor], source: int, synth: HSISynthesizer) -> Iterable[Tensor]:
        model = self._reconstructor
        if isinstance(model, nn.Module):
            model.to(synth.device).eval()
        rgb = (to_reflectance(c.to(synth.device), synth.rgb_scale, synth.rgb_gamma) for c in chunks)
        return [model.reconstruct(r).to("cpu", torch.float16) for r in rgb]

    def _read(self, kept: Tensor) -> Tensor:
        return kept.float()


def open_bank(
    pictures: Mapping[str, Tensor] | Mapping[int, Tensor] | None,
    index: ClassIndex,
    synth: HSISynthesizer,
    reconstructor: Reconstructor | None,
) -> PictureBank | None:
    """The bank of these pictures for a synthesizer; None without pictures.

    Raises:
        ValueError: if there is a reconstructor, but nothing to reconstruct.
        TypeError: if ``reconstructor`` is none.
    """
    if reconstructor is None:
        return None if pictures is None else AbundanceBank(pictures, index, synth.classes)
    if not isinstance(reconstructor, Reconstructor):
        raise TypeError(
            f"reconstructor must have reconstruct(pictures) and wavelengths, got {type(reconstructor).__name__}"
        )
    if pictures is None:
        raise ValueError("a reconstructor needs bank={class: RGB pictures} to make images of")
    return ReconstructionBank(pictures, index, synth.classes, reconstructor, synth.wavelengths)
