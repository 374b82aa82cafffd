"""The registry of generators, and reading one back from a directory."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from ubf_augment.errors import BundleError
from ubf_augment.generators.base import AbundanceGenerator

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
    from safetensors.torch import load_file

    directory = Path(directory)
    paths = directory / "config.json", directory / "model.safetensors"
    for path in paths:
        if not path.is_file():
            raise BundleError(f"{path} is missing: copy the whole directory, or save the generator again")
    try:
        described = json.loads(paths[0].read_text(encoding="utf-8"))
        generator = get_generator(described["name"], **described["config"])
        generator.load_state_dict(load_file(paths[1]))
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise BundleError(f"{directory} does not hold a generator of this version: {error}") from error
    return generator
