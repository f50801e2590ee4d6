"""Results as tables, figures and a page."""

from .page import write_page
from .table import markdown_tables, text_tables

__all__ = ["markdown_tables", "text_tables", "write_page"]
