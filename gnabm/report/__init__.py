"""Report: one self-contained HTML page about a run or its replicates, and a CSV and PNG of every figure."""

from gnabm.report.summary import Summary, open_run
from gnabm.report.writing import default_page, write_report

__all__ = ["Summary", "default_page", "open_run", "write_report"]
