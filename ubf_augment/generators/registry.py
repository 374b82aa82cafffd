"""The registry of generators, and reading one back from a directory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from ubf_augment.generators.base import AbundanceGenerator
from ubf_augment.generators.stored import read_network

_REGISTRY: dict[str, type[AbundanceGenerator]] = {}
_G = TypeVar("_G", bound=type[AbundanceGenerator])


def register(name: str) -> Callable[[_G], _G]:
    """Class decorator: make a generator known by ``name``.

    Raises:
        ValueError: if the name is taken.
    """

    def add(cls: _G) -> _G:
        if name in _REGISTRY:
            raise ValueError(f"a generator named {name!r} is registered already: {_REGISTRY[name].__name__}")
        cls.name = name
        _REGISTRY[name] = cls
        return cls

    return add


def list_generators() -> list[str]:
    """Name the registered generators.

    >>> "ddpm" in list_generators()
    True
    """
    return sorted(_REGISTRY)


def get_generator(name: str, **config: Any) -> AbundanceGenerator:
    """Build a generator by name.

    Args:
        name: one of `list_generators`.
        config: its constructor's arguments.

    Raises:
        ValueError: if the name is unknown.
    """
    if name not in _REGISTRY:
        raise ValueError(f"no generator named {name!r}; there are: {', '.join(list_generators())}")
    return _REGISTRY[name](**config)


def load_generator(directory: Path | str) -> AbundanceGenerator:
    """Read what `AbundanceGenerator.save` wrote (safetensors and JSON: no code is run).

    Raises:
        BundleError: if a file is missing or does not fit.
    """
    return read_network(directory, lambda name, config: get_generator(name, **config), "a generator")
