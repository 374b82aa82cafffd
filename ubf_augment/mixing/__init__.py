"""The linear mixing model x = Σₚ aₚ Eₚ + ε: THE place where abundances become hyperspectral images."""

from ubf_augment.mixing.decoding import decode, mix
from ubf_augment.mixing.residual import ResidualModel

__all__ = ["ResidualModel", "decode", "mix"]
