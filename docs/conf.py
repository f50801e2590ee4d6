"""Sphinx settings."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.docutils import SphinxDirective

sys.path.insert(0, str(Path(__file__).parent))

import errors
import mathml
import pages

import mtlweights
from mtlweights.strategies.registry import ALIASES, STRATEGIES

project = "mtlweights"
author = "the mtlweights authors"
project_copyright = "2026, the mtlweights authors"
version = release = mtlweights.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "none"
myst_heading_anchors = 3
html_theme = "furo"
html_title = "mtlweights"
html_math_renderer = "mathml"
html_static_path = ["_static"]
html_css_files = ["custom.css"]
html_js_files = ["focusable.js"]
#: strategies whose name is an ordinary word of code, and so no link where it stands alone
WORDS = {"fixed", "random", "config", "validation", "equal"}


class Errors(SphinxDirective):
    """``{errors}``: the index of error texts, read from the source at build time."""

    def run(self) -> list[nodes.Node]:
        return self.parse_text_to_nodes(errors.index(), allow_section_headings=True)


class LinkedNames(SphinxPostTransform):
    """A strategy's name in code is a link to its page, in a table of strategies each of them."""

    default_priority = 5  # before references are resolved

    def run(self, **kwargs: Any) -> None:
        here = self.env.docname
        if here in ("api", "errors", "extending", "benchmark") or here.startswith("strategies/"):
            return
        for literal in list(self.document.findall(nodes.literal)):
            name = ALIASES.get(literal.astext(), literal.astext())
            inside = isinstance(literal.parent, nodes.reference | nodes.title | addnodes.pending_xref)
            tabled = isinstance(literal.parent.parent, nodes.entry) and here in ("strategies", "which", "toy")
            if name in STRATEGIES and not inside and (tabled or name not in WORDS):
                uri = self.app.builder.get_relative_uri(here, f"strategies/{name}")
                link = nodes.reference("", "", literal.deepcopy(), internal=True, refuri=uri)
                literal.parent.replace(literal, link)


def write_pages(app: Sphinx) -> None:
    pages.write()


def write_llms(app: Sphinx, error: Exception | None) -> None:
    if error is None and app.builder.format == "html":
        (Path(app.outdir) / "llms.txt").write_text(pages.llms(), encoding="utf-8")


def setup(app: Sphinx) -> None:
    app.add_directive("errors", Errors)
    mathml.register(app)
    app.add_post_transform(LinkedNames)
    app.connect("builder-inited", write_pages)
    app.connect("build-finished", write_llms)
