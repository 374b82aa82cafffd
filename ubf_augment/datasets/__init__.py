"""Data sets: synthetic images, real ones filled up with them, published ones, folders of files."""

from ubf_augment.datasets.balancing import balance
from ubf_augment.datasets.chikusei import Chikusei
from ubf_augment.datasets.folder import HSIFolder
from ubf_augment.datasets.hsrs_sc import HSRSSC
from ubf_augment.datasets.indian_pines import IndianPines
from ubf_augment.datasets.natural import ARAD1K, HarvardHSI
from ubf_augment.datasets.pictures import AID, PictureFolder
from ubf_augment.datasets.synthetic import SyntheticHSIDataset

__all__ = [
    "AID",
    "ARAD1K",
    "HSRSSC",
    "Chikusei",
    "HSIFolder",
    "HarvardHSI",
    "IndianPines",
    "PictureFolder",
    "SyntheticHSIDataset",
    "balance",
]
