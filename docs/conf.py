"""Sphinx's settings. `nox -s docs` builds the site."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
# The packages of this checkout, whatever is installed.
sys.path[:0] = [str(HERE.parent), str(HERE / "_extensions")]

import mtbench  # noqa: E402

project = "mtbench"
version = release = mtbench.__version__
author = "The mtbench authors"
project_copyright = "The mtbench authors, MIT licence"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "equations", "recorded"]
exclude_patterns = ["_extensions"]
suppress_warnings: list[str] = []
show_warning_types = True

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
myst_links_external_new_tab = False

# A docstring's `name` is a name of this package where there is one of it, and code anywhere.
default_role = "py:obj"
autodoc_default_options = {"members": True, "show-inheritance": False}
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_class_signature = "mixed"
napoleon_numpy_docstring = False
python_use_unqualified_type_names = True
add_module_names = False
toc_object_entries_show_parents = "hide"
maximum_signature_line_length = 100

html_theme = "furo"
html_title = "mtbench"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_math_renderer = "mathml"
html_last_updated_fmt = None
pygments_style = "tango"
pygments_dark_style = "monokai"
