"""Runs of a sweep with event files as Lightning writes them, and TensorBoard's own readers."""

import base64
import json
from pathlib import Path
from typing import Any

from support.finished_runs import FakePlan, finish, make_plan
from tensorboard import context
from tensorboard.backend.event_processing import data_provider, plugin_event_multiplexer
from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader
from tensorboard.compat.proto import summary_pb2
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.plugins import base_plugin
from tensorboard.plugins.hparams import (
    api_pb2,
    backend_context,
    list_session_groups,
    metadata,
    plugin_data_pb2,
)

from focal_lab.report.tensorboard.log_dir import event, scalar, write_events
from focal_lab.sweep.plan.manifest import Manifest, write_manifest
from focal_lab.training.history_file import Point, write_history

STEPS = (5, 10)
# one grey pixel
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg=="
)


def train(out: Path, run: str, top1: float = 87.5, *, finished: bool = True, **changes: Any) -> None:
    """Write a run's event file with Lightning's own HParams entry, its curves and its result."""
    folder = out / run
    folder.mkdir(parents=True, exist_ok=True)
    events = [scalar("train/loss", 1 / step, step) for step in STEPS]
    events += [scalar("val/top1", 8 * step, step - 1) for step in STEPS]
    image = summary_pb2.Summary.Image(width=1, height=1, colorspace=4, encoded_image_string=PNG)
    events.append(event(summary_pb2.Summary.Value(tag="val/picture_0", image=image), STEPS[-1]))
    if finished:
        events += [scalar("test/top1", top1, STEPS[-1]), *lightnings_entry()]
    with open(folder / "events.out.tfevents.1700000000.machine.1.0", "wb") as stream:
        write_events(stream, events)
    (folder / "config.yaml").write_text("seed_everything: 0\n")
    points = [
        Point(step / 5, step, {"train/loss": 1 / step, "val/top1": top1 - 10 + step, "lr": 0.1})
        for step in STEPS
    ]
    write_history(folder, points)
    if finished:
        finish(out, run, metrics={"top1": top1, "top5": 99.0, "loss": 0.4}, **changes)


def lightnings_entry() -> list[Event]:
    """The HParams row and columns that Lightning writes to every event file."""
    row = plugin_data_pb2.SessionStartInfo()
    row.hparams["backbone"].string_value = "focal_micro"
    row.hparams["lr"].number_value = 0.003
    columns = api_pb2.Experiment(hparam_infos=[api_pb2.HParamInfo(name="lr")])
    data = {
        "_hparams_/experiment": plugin_data_pb2.HParamsPluginData(experiment=columns),
        "_hparams_/session_start_info": plugin_data_pb2.HParamsPluginData(session_start_info=row),
    }
    return [
        event(summary_pb2.Summary.Value(tag=tag, metadata=metadata.create_summary_metadata(part)))
        for tag, part in data.items()
    ]


def swept(out: Path, name: str = "window_size", seeds: int = 2, **factors: list[str]) -> FakePlan:
    """A sweep that was run in `out`: manifest, record and all runs."""
    plan = make_plan(factors or {"window_size": ["7", "14"]}, seeds=range(seeds), name=name)
    note(out, plan)
    for place, run in enumerate(plan.runs):
        train(out, run.id, 80.0 + place, seed=run.seed)
    return plan


def note(out: Path, plan: FakePlan, path: str = "gone.yaml") -> None:
    """Write the record of a sweep; its file does not exist, so that it has no table."""
    from focal_lab.sweep.plan.cells import Cell
    from focal_lab.sweep.plan.runs import Run

    runs = tuple(
        Run(run.id, Cell(run.cell.labels, {}), run.task, run.seed, {"seed_everything": run.seed}, {})
        for run in plan.runs
    )
    name = plan.sweep.name
    write_manifest(out, Manifest(f"{name}-digits-1", name, "digits", name, runs))
    (out / "sweeps").mkdir(exist_ok=True)
    noted = {"path": path, "study": f"{name}-digits-1", "suite": "digits", "seeds": [0, 1], "set": []}
    (out / "sweeps" / f"{name}.json").write_text(json.dumps(noted))


def read_tree(root: Path) -> dict[str, dict[str, list[tuple[int, Any]]]]:
    """Run -> tag -> (step, value), as TensorBoard reads a folder: files by name, links followed."""
    found: dict[str, dict[str, list[tuple[int, Any]]]] = {}
    for path in sorted(root.rglob("events.out.tfevents.*")):
        tags = found.setdefault(str(path.parent.relative_to(root)), {})
        for one in LegacyEventFileLoader(str(path)).Load():
            for value in one.summary.value:
                tags.setdefault(value.tag, []).append((one.step, content(value)))
    return found


def content(value: summary_pb2.Summary.Value) -> Any:
    """The number, the text, or the whole message."""
    kind = value.WhichOneof("value")
    if kind == "simple_value":
        return value.simple_value
    if kind == "tensor" and value.tensor.string_val:
        return value.tensor.string_val[0]
    return value


def hparams_rows(root: Path) -> tuple[Any, dict[str, tuple[dict[str, str], dict[str, float]]]]:
    """Columns, and row -> (hyperparameters, metrics), as TensorBoard's plugin reads them."""
    reader = plugin_event_multiplexer.EventMultiplexer(
        size_guidance={"tensors": 10, "scalars": 0}, tensor_size_guidance={"scalars": 1000, "hparams": 0}
    )
    reader.AddRunsFromDirectory(str(root))
    reader.Reload()
    provider = data_provider.MultiplexerDataProvider(reader, str(root))
    backend = backend_context.Context(base_plugin.TBContext(data_provider=provider))
    asking = context.RequestContext()
    described = backend.hparams_metadata(asking, "")
    columns = backend.experiment_from_metadata(asking, "", True, described, None)
    request = api_pb2.ListSessionGroupsRequest(allowed_statuses=range(4), slice_size=1000)
    groups = list_session_groups.Handler(asking, backend, "", request).run().session_groups
    rows = {}
    for group in groups:
        values = {name: value.string_value for name, value in group.hparams.items()}
        rows[group.name] = (values, {value.name.tag: value.value for value in group.metric_values})
        assert len(group.sessions) == 1
    return columns, rows
