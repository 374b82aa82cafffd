"""Unmixing: images to abundances and endmembers, by exact least squares and by networks that share one decoder."""

from ubf_augment.unmixing.admm import sunsal
from ubf_augment.unmixing.gamut import gamut_report, reproduction, scale_materials
from ubf_augment.unmixing.initialise import refine, vca, with_shade
from ubf_augment.unmixing.least_squares import LeastSquares, fcls_rgb
from ubf_augment.unmixing.model import UnmixingModel
from ubf_augment.unmixing.network import AbundanceEncoder
from ubf_augment.unmixing.regression import RGBRegression
from ubf_augment.unmixing.selection import select
from ubf_augment.unmixing.solver import fcls, nnls

__all__ = [
    "AbundanceEncoder",
    "LeastSquares",
    "RGBRegression",
    "UnmixingModel",
    "fcls",
    "fcls_rgb",
    "gamut_report",
    "nnls",
    "refine",
    "reproduction",
    "scale_materials",
    "select",
    "sunsal",
    "vca",
    "with_shade",
]
