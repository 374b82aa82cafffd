"""Data sets: synthetic images, real ones filled up with them, published ones, folders of files.

The data modules need torchgeo and Lightning, which take seconds to import: they are imported when asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ubf_augment.datasets.balancing import balance
from ubf_augment.datasets.chikusei import Chikusei
from ubf_augment.datasets.folder import HSIFolder
from ubf_augment.datasets.hsrs_sc import HSRSSC
from ubf_augment.datasets.indian_pines import IndianPines
from ubf_augment.datasets.natural import ARAD1K, HarvardHSI
from ubf_augment.datasets.pictures import AID, PictureFolder
from ubf_augment.datasets.synthetic import SyntheticHSIDataset

if TYPE_CHECKING:
    from ubf_augment.datasets.datamodules import HSIFolderDataModule, HSRSSCDataModule

__all__ = [
    "AID",
    "ARAD1K",
    "HSRSSC",
    "Chikusei",
    "HSIFolder",
    "HSIFolderDataModule",
    "HSRSSCDataModule",
    "HarvardHSI",
    "IndianPines",
    "PictureFolder",
    "SyntheticHSIDataset",
    "balance",
]


def __getattr__(name: str) -> Any:
    if name in ("HSIFolderDataModule", "HSRSSCDataModule"):
        from ubf_augment.datasets import datamodules

        return getattr(datamodules, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
