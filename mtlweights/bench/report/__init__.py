"""Results as tables, figures, a page and a list of verdicts."""

from .comparison import verdicts
from .page import write_page
from .study import read_study, without_trials
from .table import markdown_tables, text_tables

__all__ = ["markdown_tables", "read_study", "text_tables", "verdicts", "without_trials", "write_page"]
