"""Generators of abundance maps, behind one contract (`AbundanceGenerator`) and one registry."""

from ubf_augment.generators.base import AbundanceGenerator
from ubf_augment.generators.ddpm import DDPM
from ubf_augment.generators.flow import FlowMatching
from ubf_augment.generators.registry import get_generator, list_generators, load_generator, register

__all__ = [
    "DDPM",
    "AbundanceGenerator",
    "FlowMatching",
    "get_generator",
    "list_generators",
    "load_generator",
    "register",
]
