"""Run-time checks of the annotated shapes and types, applied to the whole package while its tests run.

A call that the package *accepts* must agree with its signature: arguments and result are checked once the
function has returned. Bad input is left to the function itself, so that tests see the error a user would see.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from beartype import BeartypeConf, beartype
from beartype.roar import BeartypeDecorHintException
from jaxtyping import install_import_hook

_CONF = BeartypeConf(is_pep484_tower=True)  # an int is a float


def check_accepted(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Type checker for `jaxtyping.jaxtyped`, which asks for one check before the call and one after it."""
    if (
        fn.__annotations__.get("return") is Any
    ):  # the one before the call: only the function's own errors count there
        return fn
    for name, hint in fn.__annotations__.items():
        if isinstance(hint, str):  # a name imported for type checkers alone
            fn.__annotations__[name] = Any
    try:
        return beartype(fn, conf=_CONF)
    except BeartypeDecorHintException:  # a hint that cannot be checked at run time
        return fn


def install() -> None:
    """Check every function and dataclass of `ubf_augment` imported from now on."""
    install_import_hook("ubf_augment", "runtime_checks.check_accepted")
