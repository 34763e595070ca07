"""Fills the log directory: `<sweep>/<cell> seed N/` for runs, mean curves, tables and plots."""

import io
import re
import struct
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import DATA_CLASS_TENSOR, Summary, SummaryMetadata
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.util.tensor_util import make_tensor_proto

from focal_lab.errors import UserError
from focal_lab.report.formats.render import table_markdown
from focal_lab.report.plots import sweep_plots
from focal_lab.report.plots.style import settings
from focal_lab.report.table.build import build_table
from focal_lab.report.tensorboard.hparams import columns_event, end_events, start_events
from focal_lab.report.tensorboard.log_dir import LAST, LogDir, digest, event, scalar
from focal_lab.report.tensorboard.naming import ShownRun, ShownSweep, unique_names
from focal_lab.sweep.run_folder.outcome import State, read_outcome
from focal_lab.sweep.spec.columns import COLUMNS, MAIN
from focal_lab.sweep.spec.sweep_file import TASKS
from focal_lab.training.history_file import Point, read_history

if TYPE_CHECKING:
    from focal_lab.sweep.plan.plan import Plan

_MEAN = "mean/"
_LOSS, _RATE = "train/loss", "lr"
_DOTS_PER_INCH = 110
# GitHub's Markdown has more escapes than TensorBoard's.
_ESCAPES = {"<": "&lt;", "&": "&amp;", "$": "$", "~": "~"}


def fill(log_dir: LogDir, sweeps: Sequence[ShownSweep], out: Path, warnings: list[str]) -> None:
    """Add everything that the log directory should have; `warnings` gets a line for each missing table."""
    means = [_add_runs(log_dir, sweep, out) for sweep in sweeps]
    tasks = {run.task for sweep in sweeps for run in sweep.runs}
    layout = _layout_event([task for task in TASKS if task in tasks], means=any(means))
    overview = [columns_event(sweeps), layout]
    # a run is read once, so that its name has to change with its content
    log_dir.write(f"overview {digest(overview)[:6]}", overview)
    for sweep in sweeps:
        if sweep.plan is not None:
            try:
                _add_table(log_dir, sweep.name, sweep.plan, out)
            except UserError as error:
                warnings.append(f"{sweep.name} is shown without its table: {error}")


def _add_runs(log_dir: LogDir, sweep: ShownSweep, out: Path) -> bool:
    """Add the runs, and the mean curves of cells with several finished seeds; whether there are any."""
    several = len({run.task for run in sweep.runs}) > 1
    cells: dict[tuple[str, str], list[list[Point]]] = defaultdict(list)
    for run in sweep.runs:
        points = _add_run(log_dir, sweep.name, run, out / run.id)
        if run.task and points:
            cells[" ".join(run.labels.values()), run.task].append(points)
    cells = {cell: seeds for cell, seeds in cells.items() if len(seeds) > 1}
    names = unique_names(
        f"{cell} mean of {len(seeds)} seeds" + (f" {task}" if several else "")
        for (cell, task), seeds in cells.items()
    )
    for name, ((_, task), seeds) in zip(names, cells.items(), strict=True):
        log_dir.write(f"{sweep.name}/{name}", _mean_curves(task, seeds))
    return bool(cells)


def _add_run(log_dir: LogDir, sweep: str, run: ShownRun, folder: Path) -> list[Point]:
    """Add a run's event files and its row in HParams; its curves if it has finished."""
    outcome, points = read_outcome(folder), read_history(folder)
    files = sorted(folder.glob("events.out.tfevents.*"))
    if files or outcome.result:
        name = f"{sweep}/{run.name}"
        log_dir.write(name, start_events(sweep, run))
        for path in files:
            log_dir.link(name, path)
        if outcome.state is not State.MISSING:
            log_dir.write(name, end_events(outcome, points[-1].step if points else 0), LAST)
    return points if outcome.result else []


def _mean_curves(task: str, seeds: Sequence[Sequence[Point]]) -> list[Event]:
    """The main metric, loss and rate at the steps that all seeds have."""
    by_step = [{point.step: point.values for point in points} for points in seeds]
    events = []
    for name in (f"val/{MAIN[task]}", _LOSS, _RATE):
        for step in sorted(set.intersection(*map(set, by_step))):
            values = [points[step][name] for points in by_step if name in points[step]]
            if len(values) == len(seeds):
                # Lightning's logger counts from 0
                events.append(scalar(f"{_MEAN}{name}", sum(values) / len(values), max(0, step - 1)))
    return events


def _add_table(log_dir: LogDir, sweep: str, plan: "Plan", out: Path) -> None:
    table = build_table(plan, out)
    markdown = re.sub(r"\\(.)", lambda found: _ESCAPES.get(found[1], found[0]), table_markdown(table))
    log_dir.write(sweep, [_text_event("table", "text", markdown.encode())])

    def draw() -> list[Event]:
        from matplotlib import rc_context

        events = []
        for plot in sweep_plots(table, plan, out):
            stream = io.BytesIO()
            with rc_context(settings()):
                plot.draw().savefig(stream, format="png", dpi=_DOTS_PER_INCH)
            png = stream.getvalue()
            width, height = struct.unpack(">II", png[16:24])
            image = Summary.Image(width=width, height=height, colorspace=4, encoded_image_string=png)
            events.append(event(Summary.Value(tag=f"plots/{plot.title}", image=image)))
        return events

    log_dir.write_lazily(sweep, f"plots-{digest(table)}", draw)


def _layout_event(tasks: Sequence[str], *, means: bool) -> Event:
    """The layout of Custom Scalars: metrics, loss and rate of all cells, then of all runs."""
    charts = {f"{COLUMNS[MAIN[task]].title}, validation": f"val/{MAIN[task]}" for task in tasks}
    charts |= {"Training loss": _LOSS, "Learning rate": _RATE}
    layout: Any = layout_pb2.Layout()
    for title, prefix in [*([("Cells: means over seeds", _MEAN)] if means else []), ("Runs", "")]:
        category = layout.category.add(title=title)
        for heading, tag in charts.items():
            category.chart.add(title=heading).multiline.tag.append(f"^{prefix}{tag}$")
    return _text_event("custom_scalars__config__", "custom_scalars", layout.SerializeToString())


def _text_event(tag: str, plugin: str, content: bytes) -> Event:
    """A string for a plugin; TensorBoard's own functions for this need TensorFlow."""
    metadata = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name=plugin))
    metadata.data_class = DATA_CLASS_TENSOR
    return event(Summary.Value(tag=tag, metadata=metadata, tensor=make_tensor_proto(content)))
