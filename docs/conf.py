"""Sphinx configuration. Tutorials are Python scripts (percent format) that are executed at every build."""

import importlib
import logging
import operator
import os
import re
import tempfile
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

project = "ubf_augment"
author = "The ubf_augment developers"
release = version = installed_version("ubf_augment")

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx-mathjax-offline",  # formulas without a network
]
nitpicky = True  # a name in backticks that leads nowhere is an error
nitpick_ignore_regex = [
    # Types in signatures that are described elsewhere, or are names for unions of them.
    (r"py:class", r"(argparse|collections|contextlib|jaxtyping|lightning|nn|numpy|os|pathlib|torch)\..*"),
    (r"py:class", r"ArgumentParser|Bool|Fabric|Figure|Float|Int64|Path|PathLike|Shaped|Tensor|ndarray"),
    (
        r"py:class",
        r"Factory|Labels|Loss|Maps|OnDisk|PictureSet|Pictures|Sample|Share|UnmixedScene|Wavelengths",
    ),
    (r"py:class", r"ubf_augment\.(files|generators\._critic|io\.(raster|stored)|mixing\.noise)\..*"),
    (r"py:class", r"ubf_augment\.synthesis\.(imagery|pictures)\..*|(.*\.)?_?[FGST]"),
    (r"py:(class|obj)", r".*[\['].*"),  # parts of a type that napoleon cuts at its commas
    # What other packages document, and what a subclass writes, which is private to callers.
    (r"py:obj", r"torch\..*|AugmentationSequential|(.*\.)?_[a-z]\w*"),
    (r"py:exc", r"DatasetNotFoundError"),
]
exclude_patterns = ["_build", "conf.py", "figures", "jupyter_execute"]

# Pages and tutorials
myst_enable_extensions = ["colon_fence", "dollarmath"]
nb_custom_formats = {".py": ["jupytext.reads", {"fmt": "py:percent"}]}
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 600
nb_merge_streams = True
logging.getLogger("traitlets").setLevel(logging.WARNING)  # every execution is announced there
# The networks of the tutorials are small: more threads stand in each other's way.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Kernels warn of their unencrypted port on this machine at every start.
os.environ["IPYTHONDIR"] = tempfile.mkdtemp()
_profile = Path(os.environ["IPYTHONDIR"], "profile_default", "ipython_kernel_config.py")
_profile.parent.mkdir()
_profile.write_text("get_config().IPKernelApp.log_level = 40\n")
# tqdm, about a widget that pages cannot use
os.environ.setdefault("PYTHONWARNINGS", "ignore:IProgress not found")

# Reference
default_role = "py:obj"  # `read_hsi` in a docstring links to it
autodoc_member_order = "bysource"
autoclass_content = "both"  # arguments stand in the docstring of the class or of its __init__
autodoc_inherit_docstrings = False
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
python_use_unqualified_type_names = True
maximum_signature_line_length = 88

html_theme = "furo"
html_show_copyright = False
html_title = f"ubf_augment {release}"


def _resolve_short_name(app: Any, env: Any, node: Any, contnode: Any) -> Any:
    """Link `fcls`, `UBFAugment` or `radiometry.to_display`, written without their package, from any module."""
    if node.get("refdomain") != "py":
        return None
    domain, target = env.get_domain("py"), node["reftarget"]
    found = domain.find_obj(env, None, None, target, None, searchmode=1)
    own = {name: entry for name, entry in found if not entry.aliased}
    if len(own) != 1:
        own = _method(domain.objects, node.get("py:module"), node.get("py:class"), target)
    if len(own) != 1:
        return None
    name, entry = own.popitem()
    return _reference(app, node["refdoc"], entry, contnode, name)


def _method(objects: Any, module: str | None, name: str | None, target: str) -> dict[str, Any]:
    """A method or attribute that a docstring of a class calls by its bare name, inherited ones too."""
    try:
        described = operator.attrgetter(name or "")(importlib.import_module(module or ""))
        bases = [base.__qualname__ for base in described.__mro__]
    except (AttributeError, ImportError, ValueError):
        return {}
    for base in bases:
        ends = f".{base}.{target}"
        found = {full: e for full, e in objects.items() if full.endswith(ends) and not e.aliased}
        if found:
            return dict([found.popitem()])
    return {}


def _reference(app: Any, page: str, entry: Any, contnode: Any, title: str) -> Any:
    from sphinx.util.nodes import make_refnode

    return make_refnode(app.builder, page, entry.docname, entry.node_id, contnode, title)


def _keep_single_letters(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """``P.`` alone is a symbol here; reStructuredText would take it for the head of a list."""
    lines[:] = [re.sub(r"(^|: )([A-Z])\.$", r"\1\2", line) for line in lines]


def setup(app: Any) -> None:
    """Register what this file adds."""
    app.connect("autodoc-process-docstring", _keep_single_letters, priority=400)  # before napoleon
    app.connect("missing-reference", _resolve_short_name)
