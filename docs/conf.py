"""How the documentation is built: `make docs`, or `sphinx-build -W docs docs/_build`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

# The tree that these pages stand in, also where another natsync is installed.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from natsync._version import __version__

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "natsync"
author = "the natsync authors"
copyright = author
version = release = __version__

extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]

# Docstrings write names of options and arguments in single backticks.
default_role = "literal"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
python_maximum_signature_line_length = 100
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

html_theme = "furo"
html_title = f"natsync {__version__}"


def keep_colons(*args: Any) -> None:
    """Stop napoleon from taking what stands before a colon in an attribute's first line for the attribute's type."""
    _, what, _, _, _, lines = args
    if what in ("attribute", "property"):
        lines[:0] = ["..", ""]  # an empty comment


def setup(app: Sphinx) -> None:
    """Sphinx calls this."""
    app.connect("autodoc-process-docstring", keep_colons, priority=400)
