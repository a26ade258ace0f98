"""Report: one self-contained HTML page about a run, which opens without a network."""

from gnabm.report.page import render, write_report
from gnabm.report.summary import Summary, open_run

__all__ = ["Summary", "open_run", "render", "write_report"]
