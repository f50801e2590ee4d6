"""Sphinx settings."""

from __future__ import annotations

import sys
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

sys.path.insert(0, str(Path(__file__).parent))

import generate

import mtlweights

project = "mtlweights"
author = "the mtlweights authors"
project_copyright = "2026, the mtlweights authors"
version = release = mtlweights.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax"]
exclude_patterns = ["_build"]
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "none"
myst_heading_anchors = 3
html_theme = "furo"
html_title = "mtlweights"


class Strategies(SphinxDirective):
    """``{strategies} table`` or ``{strategies} sections``: text made from the registry at build time."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        text = {"table": generate.table, "sections": generate.sections}[self.arguments[0]]()
        return self.parse_text_to_nodes(text, allow_section_headings=True)


def setup(app: Sphinx) -> None:
    app.add_directive("strategies", Strategies)
