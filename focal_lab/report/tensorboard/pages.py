"""A sweep's table as text and its plots as pictures."""

import io
import re
import struct
from pathlib import Path
from typing import TYPE_CHECKING

from focal_lab.report.table.model import Table
from focal_lab.report.tensorboard.events import Record, event_file, picture, text

if TYPE_CHECKING:
    from focal_lab.report.plots.plot import Plot

_DOTS_PER_INCH = 110
# GitHub knows more escapes than the Markdown that TensorBoard renders
_UNKNOWN_ESCAPES = {"<": "&lt;", "&": "&amp;", "$": "$", "~": "~"}


def table_event(table: Table, time: float) -> bytes:
    """An event file with the table under the tag `table`; `time`: of the last result, seconds since 1970."""
    from focal_lab.report.formats.render import table_markdown

    markdown = table_markdown(table)
    simpler = re.sub(r"\\(.)", lambda found: _UNKNOWN_ESCAPES.get(found[1], found[0]), markdown)
    return event_file([Record(text("table", simpler), time=time)])


def plots_event(table: Table, out: Path, time: float) -> bytes:
    """An event file with each plot for which there is data under `plots/<title>`; drawing takes seconds."""
    from focal_lab.report.plots import sweep_plots

    return event_file([Record(_drawn(plot), time=time) for plot in sweep_plots(table, out)])


def _drawn(plot: "Plot") -> object:
    figure, stream = plot.draw(), io.BytesIO()
    figure.savefig(stream, format="png", dpi=_DOTS_PER_INCH)
    png = stream.getvalue()
    width, height = struct.unpack(">II", png[16:24])  # the header's; figures come to fractions of pixels
    return picture(f"plots/{plot.title}", png, width, height)
