"""What unmixing is compared with: methods that make hyperspectral images without abundances."""

from ubf_augment.baselines.cube import CubeDiffusion, SpectralAutoencoder
from ubf_augment.baselines.mstpp import MSTPlusPlus, mrae
from ubf_augment.baselines.transformer import SpectralAttention, SpectralTransformer

__all__ = [
    "CubeDiffusion",
    "MSTPlusPlus",
    "SpectralAttention",
    "SpectralAutoencoder",
    "SpectralTransformer",
    "mrae",
]
