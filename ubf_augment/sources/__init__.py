"""Where images come from at training time: the generator or a pool of its maps, a bank of RGB pictures, the real images."""

from ubf_augment.sources.abundances import AbundanceSource, Live, Pool, open_source
from ubf_augment.sources.albums import Bank
from ubf_augment.sources.compiling import uncompiled
from ubf_augment.sources.images import Draw, ImageSource
from ubf_augment.sources.pictures import (
    AbundanceBank,
    PictureBank,
    ReconstructionBank,
    Reconstructor,
    open_bank,
)

__all__ = [
    "AbundanceBank",
    "AbundanceSource",
    "Bank",
    "Draw",
    "ImageSource",
    "Live",
    "PictureBank",
    "Pool",
    "ReconstructionBank",
    "Reconstructor",
    "open_bank",
    "open_source",
    "uncompiled",
]
