"""Results as tables, figures, a page and a list of verdicts."""

from .comparison import verdicts
from .page import write_page
from .table import markdown_tables, text_tables

__all__ = ["markdown_tables", "text_tables", "verdicts", "write_page"]
