"""TensorBoard's HParams: a row a run, with the labels of its cell beside its final metrics.

The plugin takes every folder with a `session_start_info` for a row, and the first description of a tag in a
folder for the only one. Lightning's event file has a row of its own, of the model's arguments: a file that
comes before it in the folder takes its place. Which columns there are is said once, in a folder of its own;
the columns that each of Lightning's files asks for are hidden behind a tag of the same name.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from tensorboard.plugins.hparams import api_pb2, plugin_data_pb2

from focal_lab.report.tensorboard.events import Record, plugin_value, scalar
from focal_lab.report.tensorboard.naming import ShownRun, ShownSweep
from focal_lab.sweep.run_folder.outcome import State
from focal_lab.sweep.run_folder.result import Result
from focal_lab.sweep.spec.columns import COLUMNS

_PLUGIN, _NOBODYS_PLUGIN = "hparams", "focal_lab"
_EXPERIMENT = "_hparams_/experiment"
_START, _END = "_hparams_/session_start_info", "_hparams_/session_end_info"
# what a factor may be called, too
_OWN = ("sweep", "run", "task", "seed")
_COSTS = ("params", "gmacs", "train_seconds", "images_per_second", "peak_memory_mb")
_STATUS = {
    State.FINISHED: api_pb2.STATUS_SUCCESS,
    State.FAILED: api_pb2.STATUS_FAILURE,
    State.CORRUPT: api_pb2.STATUS_FAILURE,
    State.PRUNED: api_pb2.STATUS_FAILURE,
}


def session_values(sweep: str, run: ShownRun) -> dict[str, str]:
    """The hyperparameters of a row: sweep, labels, seed, task and id of a run."""
    values = {"sweep": sweep} | {_factor(name): label for name, label in run.factors.items()}
    known = {"seed": run.seed, "task": run.task, "run": run.id}
    return values | {name: str(value) for name, value in known.items() if value is not None}


def session_start(name: str, values: Mapping[str, str], began: float) -> list[Record]:
    """What has to come first in a run's folder.

    Args:
        name: of the row; rows of one name would be averaged.
        values: the hyperparameters.
        began: seconds since 1970.
    """
    info = plugin_data_pb2.SessionStartInfo(group_name=name, start_time_secs=began)
    for factor, value in values.items():
        info.hparams[factor].string_value = value
    return [
        Record(_plugin_value(_START, plugin_data_pb2.HParamsPluginData(session_start_info=info)), time=began),
        Record(plugin_value(_EXPERIMENT, _NOBODYS_PLUGIN, b""), time=began),
    ]


def session_end(state: State, result: Result | None, step: int, ended: float) -> list[Record]:
    """How a run ended: `test/<metric>` and `usage/<cost>`, if it has a result.

    Args:
        state: what became of it.
        result: its numbers.
        step: optimizer steps that it was trained for.
        ended: seconds since 1970.
    """
    info = plugin_data_pb2.SessionEndInfo(status=_STATUS[state], end_time_secs=ended)
    end = _plugin_value(_END, plugin_data_pb2.HParamsPluginData(session_end_info=info))
    records = [Record(end, step, ended)]
    if result is not None:
        numbers = {f"test/{name}": value for name, value in result.metrics.items()}
        numbers |= {_cost_tag(name): getattr(result, name) * COLUMNS[name].scale for name in _COSTS}
        records += [Record(scalar(tag, value), step, ended) for tag, value in numbers.items()]
    return records


def has_ended(state: State) -> bool:
    """Whether there is an end to tell of."""
    return state in _STATUS


def experiment(sweeps: Sequence[ShownSweep]) -> Any:
    """Which columns the table of all these sweeps has: what they vary, then metrics and costs."""
    rows = [session_values(sweep.name, run) for sweep in sweeps for run in sweep.runs]
    names = dict.fromkeys(name for row in rows for name in row)
    tasks = {run.task for sweep in sweeps for run in sweep.runs}
    made = api_pb2.Experiment()
    for name in names:
        made.hparam_infos.append(_column(name, [row[name] for row in rows if name in row]))
    for column in COLUMNS.values():
        if column.task in tasks:
            made.metric_infos.append(_metric(f"test/{column.key}", column.title))
    for name in _COSTS:
        made.metric_infos.append(_metric(_cost_tag(name), COLUMNS[name].title))
    return made


def experiment_record(made: Any) -> Record:
    """The columns, for the one folder that tells them."""
    return Record(_plugin_value(_EXPERIMENT, plugin_data_pb2.HParamsPluginData(experiment=made)))


def _column(name: str, values: Sequence[str]) -> Any:
    # the plugin sorts columns by whether they differ, and shows the first five
    info = api_pb2.HParamInfo(name=name, type=api_pb2.DATA_TYPE_STRING)
    info.differs = len(set(values)) > 1 and name not in ("sweep", "run")
    info.domain_discrete.extend(sorted(set(values), key=lambda value: (len(value), value)))
    return info


def _metric(tag: str, title: str) -> Any:
    return api_pb2.MetricInfo(name=api_pb2.MetricName(tag=tag), display_name=title)


def _factor(name: str) -> str:
    return f"factor.{name}" if name in _OWN else name


def _cost_tag(name: str) -> str:
    """Sorted behind `test/` and `train/`: costs are points, not curves."""
    return f"usage/{name}" if COLUMNS[name].scale == 1 else f"usage/{name}_m"


def _plugin_value(tag: str, data: Any) -> Any:
    return plugin_value(tag, _PLUGIN, data.SerializeToString(deterministic=True))
