"""Paired comparisons over splits: plain, corrected and bootstrap intervals.

Two rows of a table are trained on the same splits with the same seeds, so their difference is taken split by split. Splits that
reuse the same scenes are not independent, so the plain t interval is too narrow. Nadeau and Bengio (2003,
doi:10.1023/A:1024068626366) replace the variance s²/n of the mean by s² (1/n + n_test/n_train). Where all splits share one test
set and only the training scenes change, the two-way bootstrap over splits and test scenes says what other training scenes and
other test scenes would have given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Paired:
    """Differences of two rows, in points.

    Attributes:
        mean: of the differences.
        sd: their standard deviation.
        n: number of splits.
        plain: 95 % t interval of independent splits; None for fewer than two.
        corrected: by Nadeau and Bengio.
        bootstrap: percentile interval over splits and test scenes; None where test sets differ.
    """

    mean: float
    sd: float
    n: int
    plain: tuple[float, float] | None
    corrected: tuple[float, float] | None
    bootstrap: tuple[float, float] | None = None

    def record(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)


def compare(
    ours: Sequence[float],
    theirs: Sequence[float],
    shared: float,
    right: tuple[Sequence[str], Sequence[str]] | None = None,
    level: float = 0.95,
) -> Paired:
    """Compare two rows that were run on the same splits.

    Args:
        ours: a figure of each split, such as accuracy in percent.
        theirs: of the row to compare with, in the same order.
        shared: n_test / n_train.
        right: which test scenes each run got right, as `pack` writes them, for both rows, if all splits have one test set.
        level: of the intervals.

    >>> found = compare([3.0, 5.0, 4.0], [1.0, 2.0, 3.0], shared=0.0)
    >>> found.mean, found.sd, [round(v, 3) for v in found.plain], found.plain == found.corrected
    (2.0, 1.0, [-0.484, 4.484], True)
    """
    from scipy.stats import t

    if len(ours) != len(theirs) or not len(ours):
        raise ValueError(
            f"{len(ours)} and {len(theirs)} runs cannot be paired: both rows need the same splits"
        )
    d = np.asarray(ours, float) - np.asarray(theirs, float)
    n, mean = len(d), float(d.mean())
    if n < 2:
        return Paired(mean, 0.0, n, None, None)
    sd = float(d.std(ddof=1))
    factor = float(t.ppf(0.5 + level / 2, n - 1)) * sd
    plain, corrected = factor * n**-0.5, factor * (1 / n + shared) ** 0.5
    found = None if right is None else _bootstrap(right, level)
    return Paired(mean, sd, n, (mean - plain, mean + plain), (mean - corrected, mean + corrected), found)


def _bootstrap(
    right: tuple[Sequence[str], Sequence[str]], level: float, draws: int = 4000
) -> tuple[float, float] | None:
    """Percentile interval of the mean difference under resampling of splits and of test scenes."""
    a, b = (np.stack([unpack(r) for r in side]).astype(float) for side in right)
    if a.shape != b.shape:
        return None
    d, rng = 100 * (a - b), np.random.default_rng(0)
    means = np.empty(draws)
    for i in range(draws):
        rows = d[rng.integers(0, len(d), len(d))].mean(0)
        means[i] = rows[rng.integers(0, d.shape[1], d.shape[1])].mean()
    low, high = np.quantile(means, [0.5 - level / 2, 0.5 + level / 2])
    return float(low), float(high)


def pack(right: Sequence[bool]) -> str:
    """Which scenes were right, as ``<count>:<hex digits>``.

    >>> pack([True, False, True]), unpack("3:a0").tolist()
    ('3:a0', [True, False, True])
    """
    bits = np.asarray(right, bool)
    return f"{len(bits)}:{np.packbits(bits).tobytes().hex()}"


def unpack(text: str) -> NDArray[np.bool_]:
    """The inverse of `pack`."""
    count, digits = text.split(":")
    return np.unpackbits(np.frombuffer(bytes.fromhex(digits), np.uint8))[: int(count)].astype(bool)
