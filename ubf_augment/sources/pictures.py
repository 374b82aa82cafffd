"""Banks of labelled RGB pictures, each prepared once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from os import PathLike
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor, nn

from ubf_augment import simplex
from ubf_augment.errors import BandCountError, SimplexError, UnknownClassError, WavelengthError
from ubf_augment.files import OnDisk
from ubf_augment.labels import ClassIndex
from ubf_augment.radiometry import to_reflectance
from ubf_augment.sources.abundances import closed
from ubf_augment.sources.albums import Album, Bank, open_albums
from ubf_augment.sources.cache import fingerprint, kept_in
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
        pictures: class → uint8 (N, 3, H, W), channels R, G, B, where a class is one of the user's names, its label, or the
            synthesizer's name for it; or a data set of pictures with ``classes`` and ``targets``
            (`datasets.PictureFolder`, torchvision's ``ImageFolder``), read once and brought to the synthesizer's size.
        index: the user's classes.
        known: the synthesizer's class names.
        cache: folder for what is prepared; in memory without one. Memory then does not grow with the number of pictures, other
            processes and later runs find the files, and whatever they were made of is part of their names. A file that is cut
            off is made anew. Files that are no longer needed stay: delete the folder.

    Raises:
        UnknownClassError: if a key is none of these, or a data set has no class that is.
        RadiometryError: if pictures are not uint8.
        ShapeError: if pictures are not (N, 3, H, W) with N ≥ 1, or a data set has no ``classes`` or ``targets``.
    """

    def __init__(
        self,
        pictures: Bank,
        index: ClassIndex,
        known: tuple[str, ...],
        cache: str | PathLike[str] | None = None,
    ) -> None:
        self._albums: dict[int, Album] = {}
        self._prepared: dict[int, Tensor | OnDisk] = {}
        self._source = index.source.tolist()
        self._cache = None if cache is None else Path(cache).expanduser()
        albums = open_albums(pictures)
        for key, album in albums.items():
            labels = self._labels_of(key, index, known)
            if not labels and isinstance(pictures, Mapping):
                raise UnknownClassError(
                    f"bank has {key!r}, which is neither one of your classes ({', '.join(index.names)}) nor "
                    "one that the synthesizer gives to them"
                )
            for label in labels:
                self._albums.setdefault(label, album)
        if albums and not self._albums:
            raise UnknownClassError(
                f"none of the classes of the bank ({', '.join(map(str, albums))}) is one of yours ({', '.join(index.names)})"
            )

    @staticmethod
    def _labels_of(key: str | int, index: ClassIndex, known: tuple[str, ...]) -> list[int]:
        if isinstance(key, int):
            return [key] if 0 <= key < index.num_classes else []
        if key in index.names:
            return [index.names.index(key)]
        return [k for k, s in enumerate(index.source.tolist()) if s >= 0 and known[s] == key]

    def holds(self, num_classes: int) -> Tensor:
        """(K,) bool: the classes that have pictures."""
        return torch.tensor([k in self._albums for k in range(num_classes)], dtype=torch.bool)

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
                self._prepared[label] = self._keep(label, synth)
            held = self._prepared[label]
            drawn.append(held[int(torch.randint(len(held), (), generator=generator))])
        together = len({x.shape for x in drawn}) == 1  # pictures of several sizes are resized one by one
        groups = [torch.stack(drawn)] if together else [x[None] for x in drawn]
        return torch.cat([simplex.resize(self._read(to_device(x, synth.device)), size) for x in groups])

    def _keep(self, label: int, synth: HSISynthesizer) -> Tensor | OnDisk:
        """What is made of the pictures of a class, from memory or file."""
        album, source = self._albums[label], self._source[label]
        parts = self._prepare(album.parts(synth.size), source, synth)
        if self._cache is None:
            return torch.cat(list(parts))
        mark = fingerprint(*self._made_by(source, synth), list(synth.size), album.mark())
        return kept_in(self._cache / f"{mark}.npy", len(album), parts)

    @abstractmethod
    def _prepare(
        self, chunks: Iterable[Tensor], source: int, synth: HSISynthesizer
    ) -> Iterable[Shaped[Tensor, "n m h w"]]:
        """What is kept of the pictures of a class (``source``: the synthesizer's, or -1), on the CPU."""

    @abstractmethod
    def _made_by(self, source: int, synth: HSISynthesizer) -> list[object]:
        """All that decides what `_prepare` makes of a picture."""

    @abstractmethod
    def _read(self, kept: Shaped[Tensor, "n m h w"]) -> Float[Tensor, "n m h w"]:
        """What was kept, as it is drawn."""


class AbundanceBank(PictureBank):
    """Abundance maps of labelled RGB pictures, unmixed and kept as float16. Args and Raises as `PictureBank`."""

    def _prepare(self, chunks: Iterable[Tensor], source: int, synth: HSISynthesizer) -> Iterable[Tensor]:
        fixed = torch.Generator().manual_seed(0)  # a probabilistic encoder draws once, the same everywhere
        for chunk in chunks:
            y = None if source < 0 else torch.full((len(chunk),), source)
            yield synth.unmix_rgb(chunk.to(synth.device), y, generator=fixed, fast=True).to(
                "cpu", torch.float16
            )

    def _made_by(self, source: int, synth: HSISynthesizer) -> list[object]:
        by = synth.rgb_endmembers if synth.unmixing is None else synth.unmixing
        return ["abundances", by, synth.regression, synth.rgb_scale, synth.rgb_gamma, source]

    def _read(self, kept: Tensor) -> Tensor:
        if float((kept.sum(1, dtype=torch.float32) - 1).abs().max()) > 1e-3:
            raise SimplexError(
                f"abundances of the bank do not sum to 1: a file in {self._cache} is damaged, delete the folder to have it "
                "made anew"
            )
        return closed(kept)


class ReconstructionBank(PictureBank):
    """Images reconstructed from labelled RGB pictures by a `Reconstructor`, and kept as float16.

    Pictures become reflectance as for `HSISynthesizer.unmix_rgb`. The images take 2·C·H·W bytes per picture; float16
    rounds reflectance to 0.05 %. Images are resized to the batch as they are, band by band.

    Args:
        pictures, index, known, cache: as for `PictureBank`.
        reconstructor: gives images on the bands of the synthesizer.
        wavelengths: the synthesizer's, in nm.

    Raises:
        BandCountError: if the reconstructor gives another number of bands.
        WavelengthError: if it gives other wavelengths (by more than 1 nm).
        TypeError: if there is a cache, and the reconstructor is no ``nn.Module``.
        UnknownClassError, RadiometryError, ShapeError: as `PictureBank`.
    """

    def __init__(
        self, pictures: Bank, index: ClassIndex, known: tuple[str, ...], reconstructor: Reconstructor, wavelengths: Tensor,
        cache: str | PathLike[str] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(pictures, index, known, cache)
        if cache is not None and not isinstance(reconstructor, nn.Module):
            raise TypeError(
                f"a cache must know what made it, and {type(reconstructor).__name__} has no weights to tell by: make it an "
                "nn.Module, or leave bank_cache out"
            )
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
    def _prepare(self, chunks: Iterable[Tensor], source: int, synth: HSISynthesizer) -> Iterable[Tensor]:
        model = self._reconstructor
        if isinstance(model, nn.Module):
            model.to(synth.device).eval()
        for chunk in chunks:
            rgb = to_reflectance(chunk.to(synth.device), synth.rgb_scale, synth.rgb_gamma)
            yield model.reconstruct(rgb).to("cpu", torch.float16)

    def _made_by(self, source: int, synth: HSISynthesizer) -> list[object]:
        return ["images", self._reconstructor, synth.rgb_scale, synth.rgb_gamma]

    def _read(self, kept: Tensor) -> Tensor:
        return kept.float()


def open_bank(
    pictures: Bank | None,
    index: ClassIndex,
    synth: HSISynthesizer,
    reconstructor: Reconstructor | None,
    cache: str | PathLike[str] | None = None,
) -> PictureBank | None:
    """The bank of these pictures for a synthesizer; None without pictures.

    Raises:
        ValueError: if there is a reconstructor or a cache, but no pictures.
        TypeError: if ``reconstructor`` is none.
    """
    if pictures is None and (reconstructor is not None or cache is not None):
        what = "bank_cache" if reconstructor is None else "a reconstructor"
        raise ValueError(f"{what} needs bank={{class: RGB pictures}} to make images of")
    if reconstructor is None:
        return None if pictures is None else AbundanceBank(pictures, index, synth.classes, cache)
    if not isinstance(reconstructor, Reconstructor):
        raise TypeError(
            f"reconstructor must have reconstruct(pictures) and wavelengths, got {type(reconstructor).__name__}"
        )
    return ReconstructionBank(pictures, index, synth.classes, reconstructor, synth.wavelengths, cache)


def to_device(x: Tensor, device: torch.device) -> Tensor:
    """Move from the CPU; to a GPU from pinned memory, without waiting for it."""
    return x.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else x.to(device)
