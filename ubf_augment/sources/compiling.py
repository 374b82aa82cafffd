"""What `torch.compile` may take of a synthesizer, and what it must leave alone."""

from __future__ import annotations

import copy
import functools
import sys
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor

from ubf_augment.synthesis import HSISynthesizer

_F = TypeVar("_F", bound=Callable[..., Any])
Compile = bool | str | Mapping[str, Any]
"""True, a mode of `torch.compile`, or its arguments."""


def compiled(synth: HSISynthesizer, how: Compile) -> HSISynthesizer:
    """A synthesizer whose generator runs the functions named by its ``networks`` compiled.

    It shares every weight with ``synth`` and goes with it to other devices; ``synth`` itself stays as it is. Batch sizes are
    dynamic, so that not every number of scenes compiles anew. What CUDA graphs return is copied before the next call
    overwrites it.
    """
    names = synth.generator.networks
    if not how or not names:
        return synth
    options = {
        "dynamic": True,
        **(how if isinstance(how, Mapping) else {"mode": how} if isinstance(how, str) else {}),
    }
    generator = _twin(synth.generator)
    for name in names:
        child, _, method = name.rpartition(".")
        if getattr(generator, child) is getattr(synth.generator, child):
            setattr(generator, child, _twin(getattr(generator, child)))
        function = torch.compile(getattr(getattr(synth.generator, child), method), **options)
        setattr(getattr(generator, child), method, _copied(function) if uses_graphs(how) else function)
    made: HSISynthesizer = _twin(synth)
    made.generator = generator
    return made


def uses_graphs(how: Compile) -> bool:
    """Whether CUDA graphs are recorded, which a batch size of its own costs anew.

    >>> uses_graphs("reduce-overhead"), uses_graphs({"mode": "max-autotune"}), uses_graphs(True)
    (True, True, False)
    """
    mode = how.get("mode") if isinstance(how, Mapping) else how
    return mode in ("reduce-overhead", "max-autotune")


def uncompiled(method: _F) -> _F:
    """Decorator: run a method as it is where a caller is compiled, its graph ends before and goes on after the call.

    `torch.compiler.disable`, called at the first use after the compiler was imported, which takes seconds.
    """

    @functools.wraps(method)
    def outside(*args: Any) -> Any:
        if "torch._dynamo" not in sys.modules:
            return method(*args)
        if "run" not in found:
            found["run"] = torch.compiler.disable(method)  # type: ignore[no-untyped-call]
        return found["run"](*args)

    found: dict[str, Callable[..., Any]] = {}
    return outside  # type: ignore[return-value]


def _twin(module: Any) -> Any:
    """A copy that shares parameters and buffers, but not the list of its parts."""
    made = copy.copy(module)
    made.__dict__["_modules"] = dict(module._modules)
    return made


def _copied(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **options: Any) -> Any:
        torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        out = function(*args, **options)
        return out.clone() if isinstance(out, Tensor) else tuple(v.clone() for v in out)

    return call
