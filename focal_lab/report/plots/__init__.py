"""Plots of a sweep: only those for which there is data. Matplotlib is imported when one is drawn."""

from collections.abc import Mapping
from pathlib import Path

from focal_lab.report.plots.bars import bar_plots
from focal_lab.report.plots.costs import cost_plots
from focal_lab.report.plots.curves import curve_plots
from focal_lab.report.plots.effects import effect_plots
from focal_lab.report.plots.pareto import front_plots
from focal_lab.report.plots.plot import Plot
from focal_lab.report.plots.saving import FORMATS, save_plots
from focal_lab.report.plots.tradeoff import tradeoff_plots
from focal_lab.report.table.model import Table

__all__ = ["FORMATS", "Plot", "save_plots", "sweep_plots"]


def sweep_plots(table: Table, out: Path, objectives: Mapping[str, str] | None = None) -> list[Plot]:
    """The plots of a sweep, the most telling ones first; none before two cells have results.

    Args:
        table: of the sweep.
        out: where its runs are; curves and costs are read from there.
        objectives: of a search, column -> maximize or minimize; None: the main metric and GMACs.
    """
    return [
        *tradeoff_plots(table),
        *front_plots(table, out, objectives),
        *bar_plots(table),
        *effect_plots(table),
        *curve_plots(table, out),
        *cost_plots(table, out),
    ]
