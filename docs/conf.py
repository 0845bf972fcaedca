"""How Sphinx builds these pages: ``sphinx-build -W docs build/docs``."""

from nst_lightning import __version__

project = "nst_lightning"
author = "the nst_lightning maintainers"
version = release = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"nst_lightning {__version__}"
html_show_copyright = False
templates_path: list[str] = []

# Headings can be linked to, as on a code host: `page.md#a-heading`.
myst_heading_anchors = 3
copybutton_exclude = ".linenos, .gp"

# Docstrings are in Google's style, with names of this package in single backticks.
default_role = "py:obj"
napoleon_numpy_docstring = False
napoleon_use_ivar = True
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
