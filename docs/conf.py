"""Settings of the documentation site: python -m sphinx docs docs/_build."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import mocme_jax

project = "mocme_jax"
author = "the mocme_jax authors"
copyright = author
release = version = mocme_jax.__version__
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "site_pages",
]
html_theme = "furo"
html_title = f"mocme_jax {release}"
exclude_patterns = ["_build", "studies/*/*"]
# site_pages shows notebooks with the outputs that they keep; tests run them.
source_suffix = {".md": "markdown", ".ipynb": "markdown"}
myst_heading_anchors = 4
autodoc_member_order = "bysource"
autodoc_typehints = "none"
autodoc_preserve_defaults = True
napoleon_use_rtype = False
napoleon_use_ivar = True
default_role = "py:obj"
