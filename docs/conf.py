"""The documentation site, built by `make docs` from the whole checkout: links lead from page to page here as they do in the repository."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import proxyds
from proxyds.section import Section

if TYPE_CHECKING:
    from sphinx.application import Sphinx

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS))  # for `generated`

from generated import fill_in  # noqa: E402

project = "proxyds"
version = release = proxyds.__version__
project_copyright = "the authors of proxyds, Apache-2.0"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_click", "sphinx_copybutton"]

# The source is the checkout, so that `docs`, `cards` and what lies at the top link to each other.
root_doc = "docs/index"
include_patterns = ["docs/**", "cards/**", "CHANGELOG.md", "CONTRIBUTING.md"]
exclude_patterns = ["**/.*", ".*", "build", "docs/notebooks/**"]
nitpicky = True
nitpick_ignore_regex = [
    ("py:.*", ".*")
]  # types in signatures: what other libraries call theirs is not here to be linked
default_role = "literal"  # docstrings put code between single backticks
show_warning_types = True

myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence", "deflist"]
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
napoleon_google_docstring = True
copybutton_exclude = ".linenos, .gp, .go"

html_theme = "furo"
smartquotes = False  # `--set` is no dash
html_title = f"proxyds {version}"
html_baseurl = ""
html_show_sourcelink = False


def setup(app: Sphinx) -> None:
    """Fills in what pages take from the code, and leads from the site's root to its first page."""
    app.connect("source-read", _fill_in)
    app.connect("autodoc-process-signature", _leave_out_sections)
    app.connect("sphinx-click-process-description", _mark_versions)
    app.connect("build-finished", _lead_to_first_page)


LISTED = {
    "docs/decisions/README": ("*",),
    "cards/README": ("fidelity/**", "*/README"),
}
"""Pages that list others for people, and which pages the site sorts below them."""


def _fill_in(_app: Sphinx, name: str, source: list[str]) -> None:
    if name.startswith("docs/"):
        source[0] = fill_in(source[0])
    if name in LISTED:
        source[0] += "\n\n```{toctree}\n:hidden:\n:glob:\n\n" + "\n".join(LISTED[name]) + "\n```\n"


def _leave_out_sections(_app: Sphinx, what: str, _name: str, of: type, *_rest: object) -> tuple[str, None] | None:
    """Leaves out the signature of a recipe, which pydantic writes over a page: the reference of recipes lists its keys."""
    return ("", None) if what == "class" and issubclass(of, Section) else None


def _mark_versions(_app: Sphinx, _context: object, lines: list[str]) -> None:
    """Marks `user/name@v1.0.0` in help texts as code, which would be taken for an address to send mail to."""
    lines[:] = [re.sub(r"\S+/\S+@v[\d.]*\d", r"``\g<0>``", line) for line in lines]


def _lead_to_first_page(app: Sphinx, error: Exception | None) -> None:
    if error is None:
        page = '<!doctype html><meta charset="utf-8"><title>proxyds</title><meta http-equiv="refresh" content="0; url=docs/index.html">\n'
        Path(app.outdir, "index.html").write_text(page, encoding="utf-8")
