"""Formulas as MathML, made when the documentation is built: no script and no network to read them."""

from __future__ import annotations

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxTranslator


def markup(tex: str, display: str) -> str:
    """MathML of a formula.

    Raises ValueError where a command is left that the converter does not know: it would stand there as text.
    """
    found = str(convert(tex.strip(), display=display))
    if "\\" in found:
        raise ValueError(f"a command is not known to latex2mathml in {tex!r}.")
    return found


def inline(self: SphinxTranslator, node: nodes.math) -> None:
    self.body.append(markup(node.astext(), "inline"))
    raise nodes.SkipNode


def block(self: SphinxTranslator, node: nodes.math_block) -> None:
    self.body.append(f'<div class="math">{markup(node.astext(), "block")}</div>\n')
    raise nodes.SkipNode


def register(app: Sphinx) -> None:
    """Make it the renderer of HTML pages."""
    app.add_html_math_renderer("mathml", inline_renderers=(inline, None), block_renderers=(block, None))
