"""Plots as files."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from focal_lab.errors import UserError, one_of
from focal_lab.report.plots.plot import Plot
from focal_lab.report.plots.style import settings
from focal_lab.report.table.model import Table

FORMATS = ("png", "svg", "pdf")


def save_plots(
    table: Table,
    out: Path,
    folder: Path,
    formats: Iterable[str] = FORMATS,
    objectives: Mapping[str, str] | None = None,
) -> list[Path]:
    """Write every plot of a sweep as `<sweep>-<plot>.<format>`; the files, in the order of the plots.

    Args:
        table: of the sweep.
        out: where its runs are.
        folder: made if it is not there.
        formats: png (160 dots an inch), svg (texts stay texts), pdf.
        objectives: of a search, column -> maximize or minimize.

    Raises:
        UserError: there is nothing to plot yet, no such format, or the folder cannot be written to.
    """
    from focal_lab.report.plots import sweep_plots

    chosen = list(dict.fromkeys(formats))
    for format in chosen:
        if format not in FORMATS:
            raise UserError(f"{format!r} is not a format of plots (use {one_of(FORMATS)})")
    plots = sweep_plots(table, out, objectives)
    if not plots:
        raise UserError(
            f"{table.name}: nothing to plot yet: plots need two cells with results ({table.command})"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return [path for plot in plots for path in _save(plot, folder / f"{table.name}-{plot.name}", chosen)]
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror}", key="--plots") from error


def _save(plot: Plot, stem: Path, formats: Iterable[str]) -> Iterable[Path]:
    from matplotlib import rc_context

    figure = plot.draw()
    for format in formats:
        path = stem.with_name(f"{stem.name}.{format}")
        # no dates: the same results give the same files
        metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(format)
        with rc_context(settings()):
            figure.savefig(path, format=format, metadata=metadata)
        yield path
