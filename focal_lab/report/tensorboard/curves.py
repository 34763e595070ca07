"""The curves of a cell: means over its seeds, and a layout that lays the cells side by side."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tensorboard.plugins.custom_scalar import layout_pb2

from focal_lab.report.tensorboard.events import Record, plugin_message, scalar
from focal_lab.report.tensorboard.naming import ShownRun
from focal_lab.sweep.spec.columns import COLUMNS, MAIN
from focal_lab.training.history_file import Point

MEAN = "mean/"
_LOSS, _RATE = "train/loss", "lr"
_LAYOUT_TAG, _LAYOUT_PLUGIN = "custom_scalars__config__", "custom_scalars"


def cells_of(runs: Iterable[ShownRun]) -> Mapping[tuple[str, str], list[ShownRun]]:
    """(cell, task) -> its runs."""
    found: dict[tuple[str, str], list[ShownRun]] = defaultdict(list)
    for run in runs:
        if run.task is not None:
            found[run.cell, run.task].append(run)
    return found


def mean_curves(task: str, seeds: Sequence[Sequence[Point]]) -> list[Record]:
    """`mean/<scalar>` of the main metric, the loss and the rate, at the steps that all seeds have.

    Args:
        task: what was trained.
        seeds: the curves of each seed.
    """
    by_step = [{point.step: point for point in points} for points in seeds]
    common = sorted(set.intersection(*(set(points) for points in by_step))) if by_step else []
    records = []
    for name in (f"val/{MAIN[task]}", _LOSS, _RATE):
        for step in common:
            values = [points[step].values.get(name) for points in by_step]
            known = [value for value in values if value is not None]
            if len(known) == len(values):
                # at the last step before a validation, as Lightning counts
                records.append(Record(scalar(f"{MEAN}{name}", sum(known) / len(known)), max(0, step - 1)))
    return records


def layout(tasks: Sequence[str], *, means: bool) -> Any:
    """What the tab Custom Scalars shows: metrics, loss and rate of all cells, then of all runs.

    Args:
        tasks: what was trained.
        means: whether any cell has a mean over several seeds.
    """
    made = layout_pb2.Layout()
    wanted = [(f"{COLUMNS[MAIN[task]].title}, validation", f"val/{MAIN[task]}") for task in tasks]
    wanted += [("Training loss", _LOSS), ("Learning rate", _RATE)]
    if means:
        _category(made, "Cells: means over seeds", MEAN, wanted)
    _category(made, "Runs", "", wanted)
    return made


def layout_record(made: Any) -> Record:
    """The layout, for the one folder that tells it."""
    message = made.SerializeToString(deterministic=True)
    return Record(plugin_message(_LAYOUT_TAG, _LAYOUT_PLUGIN, message))


def _category(made: Any, title: str, prefix: str, wanted: Sequence[tuple[str, str]]) -> None:
    category = made.category.add(title=title)
    for heading, tag in wanted:
        chart = category.chart.add(title=heading)
        chart.multiline.tag.append(f"^{prefix}{tag}$")
