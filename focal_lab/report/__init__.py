"""Results of runs as tables, pages and plots, without torch.

from focal_lab import report

runs = report.runs_table("runs")                  # DataFrame: a row a run, with everything known about it
table = report.sweep_table("window_size", "runs")  # DataFrame: a row a cell, measured beside published
"""

from typing import TYPE_CHECKING

from focal_lab.utils.lazy_imports import lazy_imports

if TYPE_CHECKING:
    from focal_lab.report.table.build import sweep_table
    from focal_lab.report.table.long_table import runs_table

__all__ = ["runs_table", "sweep_table"]
__getattr__ = lazy_imports(__name__, {"runs_table": "table.long_table", "sweep_table": "table.build"})
