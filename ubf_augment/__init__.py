"""Unmixing Before Fusion: synthetic hyperspectral images for training, through a shared abundance space.

HSI and RGB pictures → abundances → generator → mixing → training batch. The names below are the public interface;
the submodules ``metrics``, ``losses``, ``datasets``, ``sources``, ``spectra``, ``simplex``, ``radiometry``, ``baselines``,
``classification`` and ``report`` are public as modules.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ubf_augment.augment import UBFAugment
from ubf_augment.automatic import choose
from ubf_augment.datasets import SyntheticHSIDataset, balance
from ubf_augment.generators import AbundanceGenerator, get_generator, list_generators
from ubf_augment.io import read_hsi, write_hsi
from ubf_augment.mixing import mix
from ubf_augment.pretraining import pretrain
from ubf_augment.spectra import Endmembers
from ubf_augment.synthesis import HSISynthesizer, list_pretrained
from ubf_augment.unmixing import UnmixingModel, fcls

if TYPE_CHECKING:
    from ubf_augment.lightning import UBFCallback

__version__ = "0.1.0"

__all__ = [
    "AbundanceGenerator",
    "Endmembers",
    "HSISynthesizer",
    "SyntheticHSIDataset",
    "UBFAugment",
    "UBFCallback",
    "UnmixingModel",
    "balance",
    "choose",
    "fcls",
    "get_generator",
    "list_generators",
    "list_pretrained",
    "mix",
    "pretrain",
    "read_hsi",
    "write_hsi",
]


def __getattr__(name: str) -> Any:
    """Import what needs Lightning only when it is asked for."""
    if name == "UBFCallback":
        from ubf_augment.lightning import UBFCallback

        return UBFCallback
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
