"""Sphinx configuration. Tutorials are Python scripts (percent format) that are executed at every build."""

import os
import re
from importlib.metadata import version as installed_version
from typing import Any

project = "ubf_augment"
author = "The ubf_augment developers"
release = version = installed_version("ubf_augment")

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
exclude_patterns = ["_build", "conf.py", "jupyter_execute"]

# Pages and tutorials
myst_enable_extensions = ["colon_fence", "dollarmath"]
nb_custom_formats = {".py": ["jupytext.reads", {"fmt": "py:percent"}]}
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 600
nb_merge_streams = True
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
html_title = f"ubf_augment {release}"


def _resolve_short_name(app: Any, env: Any, node: Any, contnode: Any) -> Any:
    """Link `fcls`, `UBFAugment` or `radiometry.to_display`, written without their package, from any module."""
    if node.get("refdomain") != "py":
        return None
    domain = env.get_domain("py")
    found = domain.find_obj(env, None, None, node["reftarget"], None, searchmode=1)
    own = {name: entry for name, entry in found if not entry.aliased}
    if len(own) != 1:
        return None
    name, entry = own.popitem()
    return _reference(app, node["refdoc"], entry, contnode, name)


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
