"""How many endmembers? Reconstruction and generation over the dimension of the space in which scenes are generated.

    python benchmarks/endmembers.py                       # quick
    python benchmarks/endmembers.py --preset full         # for a GPU
    python benchmarks/endmembers.py --sources eurosat-aid

The ablation of the paper's generation space: P = 3, 5, 8, 15 (shade is one of them) and the raw cube, see `spaces.py`.
"""

from __future__ import annotations

from collections.abc import Callable

from common import Result
from spaces import Space, compare, title

NUMBERS = (3, 5, 8, 15)
ABUNDANCES: list[Space] = [("abundances", p) for p in NUMBERS]
CUBE: Space = ("HSI cube", 0)


def claims(result: Result, average: Callable[[Space, str], float]) -> None:
    """The paper's orderings."""
    errors = [average(s, "rmse") for s in ABUNDANCES]
    result.claim(
        "more endmembers reconstruct better", errors == sorted(errors, reverse=True),
        ", ".join(f"P = {p}: RMSE {e:.4f}" for p, e in zip(NUMBERS, errors, strict=True)),
    )  # fmt: skip
    distances = {s: average(s, "frechet_distance") for s in (*ABUNDANCES, CUBE)}
    text = "Fréchet distance: " + ", ".join(f"{title(s)} {d:.1f}" for s, d in distances.items())
    few, many = ABUNDANCES[:2], ABUNDANCES[2:]
    result.claim(
        "three and five endmembers generate better than eight and fifteen",
        max(distances[s] for s in few) < min(distances[s] for s in many), text,
    )  # fmt: skip
    result.claim(
        "every abundance space generates better than the cube",
        max(distances[s] for s in ABUNDANCES) < distances[CUBE], text,
    )  # fmt: skip


if __name__ == "__main__":
    compare("endmembers", "The dimension of the generation space", __doc__ or "", [*ABUNDANCES, CUBE], claims)
