"""The command ``ubf``: fit, adapt, pretrain, distill, sample, unmix, report, list, demo.

Each command lives in a module of its own, which is only imported when that command is asked for.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ubf_augment.cli.configuration import data_sets_of, packaged_config
from ubf_augment.cli.output import command
from ubf_augment.errors import OtherProcessError, UBFError

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

COMMANDS = {
    "fit": "train a bundle from hyperspectral images and folders of RGB pictures",
    "adapt": "bring a bundle to another sensor, from some of its images",
    "pretrain": "train a network to read abundances, without labels, to start a classifier from",
    "distill": "teach a copy of a bundle to draw with few evaluations of its network",
    "sample": "write labelled synthetic images as GeoTIFFs, or as tar shards",
    "unmix": "write the abundances of a scene of any size as a GeoTIFF",
    "report": "write a page about a bundle, real images, or both: pictures, spectra, metrics",
    "list": "list the packaged bundles, or describe one",
    "demo": "samples, and a training with and without augmentation, in a few minutes",
}
"""Name → summary; ``ubf_augment.cli.<name>.run`` does it, and its signature is the command's options,
but for what ``POSITIONAL`` takes from it."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; returns the exit code: 0 done, 2 wrong input, 130 interrupted.

    Args:
        argv: arguments after ``ubf``; those of the process by default.
    """
    words = packaged_config([*(sys.argv[1:] if argv is None else argv)])  # "list" is a submodule here
    debug = "--debug" in words
    words = [re.sub(r"^--[\w.-]+", _underscored, w) for w in words if w != "--debug"]
    words = ["--out" if w == "-o" else w for w in words]
    parser, functions = build_parser(words)
    command[:] = ["ubf", *words]
    try:
        options = parser.parse_args(words)
    except SystemExit as stop:  # --help, --version, or arguments that do not parse: all is said
        return int(stop.code or 0)
    if options.command is None:
        parser.print_help()
        return 0
    chosen: dict[str, Any] = {}
    try:
        built = data_sets_of(options[options.command])
        instantiate = getattr(parser, "instantiate", None) or parser.instantiate_classes  # new in 4.49
        chosen = instantiate(options)[options.command].as_dict() | built
        chosen.pop("config", None)
        functions[options.command](**chosen)
    except KeyboardInterrupt:
        if os.environ.get("LOCAL_RANK", "0") == "0":  # said once by the processes of a machine
            print("ubf: interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    except OtherProcessError:  # said by the first process, which its launcher kills if this code were another
        return 0
    except (UBFError, ValueError, OSError, ModuleNotFoundError, TypeError) as error:
        if debug or (type(error) is TypeError and "unexpected keyword argument" not in str(error)):
            raise
        print(f"ubf {options.command}: {_one_line(error)}{_flags(error, chosen)}", file=sys.stderr)
        return 2
    return 0


def build_parser(words: Sequence[str] = ()) -> tuple[ArgumentParser, dict[str, Callable[..., Any]]]:
    """Build the parser; only the command that ``words`` name gets its options, which keeps ``ubf --help`` quick.

    Returns:
        The parser, and the functions of the commands that are complete.
    """
    from jsonargparse import ArgumentParser

    import ubf_augment

    parser = ArgumentParser(prog="ubf", description=str(ubf_augment.__doc__).splitlines()[0])
    parser.add_argument("--version", action="version", version=f"ubf_augment {ubf_augment.__version__}")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subcommands(dest="command", required=False)
    functions: dict[str, Callable[..., Any]] = {}
    named = next((w for w in words if not w.startswith("-")), None)
    for name, summary in COMMANDS.items():
        child = ArgumentParser(description=summary[:1].upper() + summary[1:] + ".")
        if name == named:
            module = import_module(f"ubf_augment.cli.{name}")
            functions[name] = module.run
            positional: dict[str, dict[str, Any]] = module.POSITIONAL
            for argument, options in positional.items():
                child.add_argument(argument, **options)
            child.add_argument("--config", action="config", help="YAML file with any of the options below")
            child.add_function_arguments(functions[name], skip=set(positional))
        commands.add_subcommand(name, child, help=summary)
    return parser, functions


def _underscored(option: re.Match[str]) -> str:
    """--num-nodes is --num_nodes."""
    return "--" + option[0][2:].replace("-", "_")


def _flags(error: Exception, chosen: Mapping[str, Any]) -> str:
    """Where a message advises ``option=…``: what that option is called on the command line."""
    named = dict.fromkeys(re.findall(r"\b([a-z_]+)=", str(error)))
    read = vars(chosen["read"]) if "read" in chosen else {}
    flags = [f"--read.{n}" if n in read else f"--{n}" for n in named if n in read or n in chosen]
    return f" (on the command line: {', '.join(flags)})" if flags else ""


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text or type(error).__name__
