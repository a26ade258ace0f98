"""Report: one self-contained HTML page about a run, which opens without a network."""

from gnabm.report.page import render, write_report
from gnabm.report.summary import Summary

__all__ = ["Summary", "render", "write_report"]
