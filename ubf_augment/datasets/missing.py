"""torchgeo's error for a data set that is not where it was looked for."""

from __future__ import annotations

from typing import Any


def not_found(dataset: Any, wanted: str) -> Exception:
    """Torchgeo's ``DatasetNotFoundError`` for a data set with ``root``, and what was looked for there.

    torchgeo takes seconds to import, so it is only asked for when there is an error to raise.
    """
    from torchgeo.datasets import DatasetNotFoundError

    error = DatasetNotFoundError(dataset)
    error.args = (f"{error.args[0]} {wanted}",)
    return error


def check_choice(value: str, known: tuple[str, ...], name: str = "split") -> None:
    """Raise a ValueError unless ``value`` is one of ``known``."""
    if value not in known:
        raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}")
