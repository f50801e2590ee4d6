"""Results as tables, figures and a page."""

from .page import write_page
from .study import read_study, without_trials
from .table import markdown_tables, text_tables

__all__ = ["markdown_tables", "read_study", "text_tables", "without_trials", "write_page"]
