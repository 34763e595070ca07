"""TensorBoard's HParams: one row per run with the labels of its cell and its final metrics.

The plugin reads only the first value of a tag in a run. Lightning's event file has an HParams entry of its
own, of the model's arguments, and a description of the columns; a file that comes first hides both. The
columns are described once, in a run of their own.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.plugins.hparams import api_pb2, metadata
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo, SessionStartInfo

from focal_lab.report.tensorboard.log_dir import event, scalar
from focal_lab.report.tensorboard.naming import ShownRun, ShownSweep
from focal_lab.sweep.run_folder.outcome import Outcome
from focal_lab.sweep.run_folder.result import COSTS
from focal_lab.sweep.spec.columns import COLUMNS


def start_events(sweep: str, run: ShownRun) -> list[Event]:
    """The row of a run."""
    # rows of the same group name would be averaged
    info = SessionStartInfo(group_name=f"{run.name}, {sweep}")
    for name, value in _hparams(sweep, run).items():
        info.hparams[name].string_value = value
    hidden = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="focal_lab"))
    return [
        event(_value(metadata.SESSION_START_INFO_TAG, session_start_info=info)),
        event(Summary.Value(tag=metadata.EXPERIMENT_TAG, metadata=hidden, tensor=metadata.NULL_TENSOR)),
    ]


def end_events(outcome: Outcome, step: int) -> list[Event]:
    """How a run ended, with `test/<metric>` and `usage/<cost>` if it has a result."""
    result = outcome.result
    status = api_pb2.STATUS_SUCCESS if result else api_pb2.STATUS_FAILURE
    events = [event(_value(metadata.SESSION_END_INFO_TAG, session_end_info=SessionEndInfo(status=status)))]
    if result is not None:
        ended = datetime.fromisoformat(result.finished).timestamp()
        numbers = {f"test/{name}": value for name, value in result.metrics.items()}
        numbers |= {_cost_tag(name): getattr(result, name) * COLUMNS[name].scale for name in COSTS}
        events += [scalar(tag, value, step, ended) for tag, value in numbers.items()]
    return events


def columns_event(sweeps: Sequence[ShownSweep]) -> Event:
    """The columns of all rows: what the sweeps vary, then metrics and costs."""
    rows = [_hparams(sweep.name, run) for sweep in sweeps for run in sweep.runs]
    tasks = {run.task for sweep in sweeps for run in sweep.runs}
    columns = api_pb2.Experiment()
    for name in dict.fromkeys(name for row in rows for name in row):
        values = sorted({row[name] for row in rows if name in row}, key=lambda value: (len(value), value))
        info = columns.hparam_infos.add(name=name, type=api_pb2.DATA_TYPE_STRING)
        info.domain_discrete.extend(values)
        # columns that differ come first, and TensorBoard shows five at first
        info.differs = len(values) > 1 and name not in ("sweep", "run")
    metrics = {f"test/{column.key}": column for column in COLUMNS.values() if column.task in tasks}
    for tag, column in (metrics | {_cost_tag(name): COLUMNS[name] for name in COSTS}).items():
        columns.metric_infos.add(name=api_pb2.MetricName(tag=tag), display_name=column.title)
    return event(_value(metadata.EXPERIMENT_TAG, experiment=columns))


def _hparams(sweep: str, run: ShownRun) -> dict[str, str]:
    own = {"sweep": sweep, "seed": run.seed, "task": run.task, "run": run.id}
    labels = {f"factor.{name}" if name in own else name: label for name, label in run.labels.items()}
    values = {"sweep": sweep} | labels | own
    return {name: str(value) for name, value in values.items() if value is not None}


def _cost_tag(name: str) -> str:
    return f"usage/{name}" if COLUMNS[name].scale == 1 else f"usage/{name}_m"


def _value(tag: str, **data: Any) -> Any:
    content = HParamsPluginData(**data).SerializeToString(deterministic=True)
    plugin_data = SummaryMetadata.PluginData(plugin_name=metadata.PLUGIN_NAME, content=content)
    description = SummaryMetadata(plugin_data=plugin_data)
    return Summary.Value(tag=tag, metadata=description, tensor=metadata.NULL_TENSOR)
