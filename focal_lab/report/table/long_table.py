"""All runs as one long DataFrame: one row a run, with everything known about it."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from focal_lab.report.table.test_sets import test_set_name
from focal_lab.sweep.run_folder.layout import run_folders
from focal_lab.sweep.run_folder.outcome import Outcome, read_outcome
from focal_lab.sweep.run_folder.result import COSTS
from focal_lab.sweep.spec.columns import COLUMNS

if TYPE_CHECKING:
    import pandas as pd

    from focal_lab.sweep.plan.plan import Plan

# Metrics come between FIRST and COSTS, the flattened model (`model.*`) between COSTS and LAST.
FIRST = ("run", "task", "seed", "state")
LAST = (
    *("config_hash", "test_images", "test_set", "commit", "dirty", "hardware"),
    *("started", "finished", "reason", "last_line"),
)
# Types that keep whole numbers, flags and words what they are beside missing values.
_DTYPES: dict[type, Any] = {int: "Int64", bool: "boolean", float: "float64", str: "str"}


def runs_table(out: str | Path = "runs") -> "pd.DataFrame":
    """All runs in `out`, one a row, sorted by run ID; folders that are not runs are ignored.

    Columns: `run, task, seed, state`, one per metric, `params, gmacs, train_seconds, images_per_second,
    peak_memory_mb`, one per setting of the model (`model.backbone`, lists as "2-2-6-2"), then provenance, and
    `reason` and `last_line` of what did not finish. `params` is a count, not millions; runs of equal
    `test_set` were tested on the same images, labels and classes. `attrs["units"]` has the units.
    """
    # By name: comparing ten thousand paths costs a tenth of the report.
    folders = sorted(run_folders(Path(out)), key=lambda folder: folder.name)
    return _frame([_row(read_outcome(folder)) for folder in folders])


def sweep_runs_table(plan: "Plan", out: Path) -> "pd.DataFrame":
    """The same for the runs of a plan, in its order; their labels come first, named in `attrs["labels"]`.

    A run that serves two cells has a row for each.
    """
    rows = []
    for run in plan.runs:
        labels = {_label_column(factor): label for factor, label in run.cell.labels.items()}
        rows.append(labels | _row(read_outcome(out / run.id)) | {"task": run.task, "seed": run.seed})
    return _frame(rows, dict.fromkeys(_label_column(name) for cell in plan.cells for name in cell.labels))


def _label_column(factor: str) -> str:
    """A factor's column: its name, unless every run has a column of that name."""
    return f"factor.{factor}" if factor in {*FIRST, *COSTS, *LAST, *COLUMNS} else factor


def _frame(rows: list[dict[str, Any]], labels: Iterable[str] = ()) -> "pd.DataFrame":
    import pandas as pd

    labels = list(labels)
    found = dict.fromkeys(key for row in rows for key in row)
    model = [key for key in found if key.startswith("model.")]
    others = set(found) - {*labels, *FIRST, *COSTS, *LAST, *model}
    metrics = [key for key in COLUMNS if key in others] + sorted(others - COLUMNS.keys())
    order = dict.fromkeys([*labels, *FIRST, *metrics, *COSTS, *model, *LAST])
    columns = {key: _series([row.get(key) for row in rows], key) for key in order}
    frame = pd.DataFrame(columns)
    frame.attrs = {"labels": labels, "units": {key: COLUMNS[key].unit for key in order if key in COLUMNS}}
    return frame


def _series(values: list[Any], key: str) -> "pd.Series[Any]":
    """The column with the type of its values; a setting with numbers and words keeps both."""
    import pandas as pd

    kinds = {type(value) for value in values if value is not None}
    if not kinds:
        kinds = {{"seed": int, "params": int, "test_images": int, "dirty": bool}.get(key, object)}
    return pd.Series(values, dtype=_DTYPES.get(kinds.pop(), object) if len(kinds) == 1 else object)


def _row(outcome: Outcome) -> dict[str, Any]:
    row: dict[str, Any] = {"run": outcome.run, "state": str(outcome.state)}
    result, failure = outcome.result, outcome.failure
    if result is None:
        if failure:
            row |= {"task": failure.task, "seed": failure.seed, "finished": failure.when}
        return row | {"reason": outcome.reason, "last_line": outcome.last_line}
    row |= result.metrics
    row |= {name: getattr(result, name) for name in COSTS}
    row |= flatten(result.config.get("model", {}).get("init_args", {}), "model")
    row |= {"test_images": result.tested_on.get("count"), "test_set": test_set_name(result.tested_on)}
    row |= {"commit": result.git.get("commit"), "dirty": result.git.get("dirty")}
    names = ("task", "seed", "config_hash", "hardware", "started", "finished")
    return row | {name: getattr(result, name) for name in names}


def flat_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a configuration under the names that a sweep file has for them."""
    flat = {key: leaf for part in config for key, leaf in flatten(config[part], str(part)).items()}
    return {key.replace(".init_args.", "."): leaf for key, leaf in flat.items()}


def flatten(value: Any, name: str) -> dict[str, Any]:
    """Nested settings as dotted keys: `{"a": {"b": [2, 2]}}` named m is `{"m.a.b": "2-2"}`."""
    if isinstance(value, Mapping):
        return {key: leaf for part in value for key, leaf in flatten(value[part], f"{name}.{part}").items()}
    if isinstance(value, list | tuple):
        plain = not any(isinstance(item, Mapping | list | tuple) for item in value)
        return {name: "-".join(map(str, value)) if plain else json.dumps(value)}
    return {name: value}
