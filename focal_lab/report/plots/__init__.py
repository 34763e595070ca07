"""Plots of a sweep, each only if there is data for it. Matplotlib is imported when the first one is drawn."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from focal_lab.errors import UserError, one_of
from focal_lab.report.plots.bars import bar_plots
from focal_lab.report.plots.curves import curve_plots
from focal_lab.report.plots.effects import effect_plots
from focal_lab.report.plots.pareto_front import pareto_plots
from focal_lab.report.plots.plot import Plot
from focal_lab.report.plots.tradeoff import tradeoff_plots
from focal_lab.report.table.records import Table

FORMATS = ("png", "svg", "pdf")


def sweep_plots(table: Table, out: Path, objectives: Mapping[str, str] | None = None) -> list[Plot]:
    """The plots of a sweep, the most informative first; none before two cells have results.

    Args:
        table: of the sweep.
        out: folder of its runs.
        objectives: of a search, column -> maximize or minimize; None: the main metric and GMACs.
    """
    return [
        *tradeoff_plots(table),
        *pareto_plots(table, out, objectives),
        *bar_plots(table),
        *effect_plots(table),
        *curve_plots(table, out),
    ]


def save_plots(
    table: Table,
    out: Path,
    folder: Path,
    formats: Sequence[str] = FORMATS,
    objectives: Mapping[str, str] | None = None,
) -> list[Path]:
    """Write every plot of `sweep_plots` as `<folder>/<sweep>-<plot>.<format>`; the files that were written.

    Raises:
        UserError: there is nothing to plot yet, no such format, or the folder cannot be written to.
    """
    for format in formats:
        if format not in FORMATS:
            raise UserError(f"{format!r} is not a format of plots (use {one_of(FORMATS)})")
    plots = sweep_plots(table, out, objectives)
    if not plots:
        raise UserError(
            f"{table.name}: nothing to plot yet: plots need two cells with results ({table.command})"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return [path for plot in plots for path in plot.save(folder / f"{table.name}-{plot.name}", formats)]
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror}", key="--plots") from error
