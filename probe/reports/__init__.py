"""What a run found, to be looked at: a page that stands alone, figures for Jupyter, a table for the terminal.

Everything here reads the run folder's files (``results.json`` is the contract) and computes nothing of its own.
"""

from probe.reports.figures import arms_figure, gap_figure
from probe.reports.page import write_report
from probe.reports.table import arms_table

__all__ = ["arms_figure", "arms_table", "gap_figure", "write_report"]
