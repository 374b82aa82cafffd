"""Data sets: synthetic images, real ones filled up with them, Indian Pines, folders of files."""

from ubf_augment.datasets.balancing import balance
from ubf_augment.datasets.chikusei import Chikusei
from ubf_augment.datasets.folder import HSIFolder
from ubf_augment.datasets.hsrs_sc import HSRSSC
from ubf_augment.datasets.indian_pines import IndianPines
from ubf_augment.datasets.synthetic import SyntheticHSIDataset

__all__ = ["HSRSSC", "Chikusei", "HSIFolder", "IndianPines", "SyntheticHSIDataset", "balance"]
