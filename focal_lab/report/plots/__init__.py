"""Plots of a sweep, each only if there is data for it. Matplotlib is imported when the first one is drawn."""

from pathlib import Path
from typing import TYPE_CHECKING

from focal_lab.errors import UserError
from focal_lab.report.plots.bars import bar_plots
from focal_lab.report.plots.by_group import group_plots
from focal_lab.report.plots.curves import curve_plots
from focal_lab.report.plots.effects import effect_plots
from focal_lab.report.plots.pareto_front import pareto_plots
from focal_lab.report.plots.style import Plot, settings
from focal_lab.report.plots.tradeoff import tradeoff_plots
from focal_lab.report.table.records import Table

if TYPE_CHECKING:
    from focal_lab.sweep.plan.plan import Plan

# Formats of files, and what in their metadata would differ between files of the same results.
_FORMATS = {"png": None, "svg": {"Date": None}, "pdf": {"CreationDate": None}}


def sweep_plots(table: Table, plan: "Plan", out: Path) -> list[Plot]:
    """The plots of a sweep, the most informative first; none before two cells have results.

    Args:
        table: of the plan.
        plan: has a search's objectives.
        out: folder of the runs.
    """
    if table.order is not None and plan.space is not None:  # a search, with one run per row
        return pareto_plots(table, out, plan.space.search.objectives)
    plots = [*tradeoff_plots(table), *bar_plots(table), *effect_plots(table), *group_plots(table, out)]
    return [*plots, *curve_plots(table, out)]


def save_plots(table: Table, plan: "Plan", out: Path, folder: Path) -> list[Path]:
    """Write every plot of `sweep_plots` as `<folder>/<sweep>-<plot>.<format>`; the files that were written.

    Raises:
        UserError: there is nothing to plot yet, or the folder cannot be written to.
    """
    from matplotlib import rc_context

    plots = sweep_plots(table, plan, out)
    if not plots:
        raise UserError(
            f"{table.name}: nothing to plot yet: plots need two cells with results ({table.command})"
        )
    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for plot in plots:
            figure = plot.draw()
            for format, metadata in _FORMATS.items():
                written.append(folder / f"{table.name}-{plot.name}.{format}")
                with rc_context(settings()):
                    figure.savefig(written[-1], metadata=metadata)
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror}", key="--plots") from error
    return written
