"""Sphinx configuration. Tutorials are Python scripts (percent format) that are executed at every build."""

from importlib.metadata import version as installed_version

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

# Reference
default_role = "py:obj"  # `read_hsi` in a docstring links to it
autodoc_member_order = "bysource"
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
