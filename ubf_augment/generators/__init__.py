"""Generators of abundance maps, behind one contract (`AbundanceGenerator`) and one registry."""

from ubf_augment.generators.base import AbundanceGenerator
from ubf_augment.generators.ddpm import DDPM
from ubf_augment.generators.flow import FlowMatching
from ubf_augment.generators.gmm import GMM
from ubf_augment.generators.registry import get_generator, list_generators, load_generator, register
from ubf_augment.generators.stylegan3 import StyleGAN3
from ubf_augment.generators.vdvae import VDVAE

__all__ = [
    "DDPM",
    "GMM",
    "VDVAE",
    "AbundanceGenerator",
    "FlowMatching",
    "StyleGAN3",
    "get_generator",
    "list_generators",
    "load_generator",
    "register",
]
