"""Configurations that come with the package, and the data sets that a configuration names."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any


def packaged_config(words: Sequence[str]) -> list[str]:
    """A configuration of this package, named after ``--config``, becomes its path; a file of that name comes first.

    >>> Path(packaged_config(["fit", "--config", "natural.yaml"])[2]).name
    'natural.yaml'
    """
    shipped = {path.name: str(path) for path in sorted((Path(__file__).parent / "configs").glob("*.yaml"))}

    def found(name: str) -> str:
        return name if Path(name).exists() else shipped.get(name, shipped.get(f"{name}.yaml", name))

    out: list[str] = []
    for word in words:
        if out and out[-1] == "--config":
            word = found(word)
        elif word.startswith("--config="):
            word = f"--config={found(word.partition('=')[2])}"
        out.append(word)
    return out


def data_sets_of(options: Any) -> dict[str, Any]:
    """The data sets among parsed options, which are given by ``class_path`` and ``init_args``, made here and taken out of them.

    Made by the parser, what is wrong with their files would be one line among many about types.
    """

    def named(value: Any) -> bool:
        return hasattr(value, "class_path")

    def built(value: Any) -> Any:
        if not named(value):
            return value
        module, _, name = value.class_path.rpartition(".")
        arguments = value.as_dict().get("init_args", {}) | value.as_dict().get("dict_kwargs", {})
        return getattr(import_module(module), name)(**arguments)

    found = {}
    for key in list(vars(options)):
        value = options[key]
        if named(value) or (isinstance(value, list) and any(map(named, value))):
            found[key] = [built(v) for v in value] if isinstance(value, list) else built(value)
            del options[key]
    return found
