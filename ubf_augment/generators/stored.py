"""A network in a directory: ``config.json`` and ``model.safetensors``. Reading them runs no code."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from ubf_augment.errors import BundleError
from ubf_augment.files import replacing

_M = TypeVar("_M", bound=nn.Module)


def write_network(directory: Path | str, module: nn.Module, name: str, config: Mapping[str, Any]) -> Path:
    """Write the name and configuration of a network, and its weights.

    Args:
        directory: made if needed.
        module: its ``state_dict`` is written, on the CPU.
        name: tells the reader what it is.
        config: the constructor's arguments, JSON-able.
    """
    from safetensors.torch import save

    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    described = json.dumps({"name": name, "config": dict(config)}, indent=2)
    state = {k: v.detach().cpu().contiguous() for k, v in module.state_dict().items()}
    with replacing(directory / "model.safetensors") as aside:
        aside.write_bytes(save(state))
    with replacing(directory / "config.json") as aside:
        aside.write_text(described + "\n", encoding="utf-8")
    return directory


def read_network(directory: Path | str, build: Callable[[str, dict[str, Any]], _M], what: str) -> _M:
    """Read what `write_network` wrote.

    Args:
        directory: holds both files.
        build: (name, configuration) → the network, its weights still to come.
        what: the kind of network in messages, with its article, such as "a generator".

    Raises:
        BundleError: if a file is missing or does not fit.
    """
    from safetensors.torch import load_file

    directory = Path(directory)
    paths = directory / "config.json", directory / "model.safetensors"
    for path in paths:
        if not path.is_file():
            raise BundleError(f"{path} is missing: copy the whole directory, or save {what} again")
    try:
        described = json.loads(paths[0].read_text(encoding="utf-8"))
        network = build(described["name"], described["config"])
        network.load_state_dict(load_file(paths[1]))
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise BundleError(f"{directory} does not hold {what} of this version: {error}") from error
    return network
