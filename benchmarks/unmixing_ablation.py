"""With and without unmixing: diffusion of abundances, of an unconstrained latent of the same dimension, of the cube.

    python benchmarks/unmixing_ablation.py                # quick
    python benchmarks/unmixing_ablation.py --preset full  # for a GPU
    python benchmarks/unmixing_ablation.py --sources eurosat-aid

All at one training budget, see `spaces.py`. The latent is that of a pixel-wise autoencoder without any constraint.
"""

from __future__ import annotations

from collections.abc import Callable

from common import Result
from spaces import Space, compare, title

UNMIXED: Space = ("abundances", 5)
LATENT: Space = ("free latent", 5)
CUBE: Space = ("HSI cube", 0)


def claims(result: Result, average: Callable[[Space, str], float]) -> None:
    """The paper's orderings."""
    for column, what in (
        ("frechet_distance", "Fréchet distance"), ("kernel_distance", "kernel distance"),
        ("sliced_wasserstein", "sliced Wasserstein distance of spectra"), ("nearest_angle", "angle to the nearest real spectrum"),
    ):  # fmt: skip
        found = {s: average(s, column) for s in (UNMIXED, LATENT, CUBE)}
        text = ", ".join(f"{title(s)} {v:.4g}" for s, v in found.items())
        for other in (LATENT, CUBE):
            result.claim(f"{what}: abundances beat the {other[0]}", found[UNMIXED] < found[other], text)


if __name__ == "__main__":
    compare("unmixing_ablation", "With and without unmixing", __doc__ or "", [UNMIXED, LATENT, CUBE], claims)
