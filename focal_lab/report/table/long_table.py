"""All runs as one long table: one row per run, everything that is known about it.

`long_rows` is plain Python, so that the command line need not wait 0.8 s for pandas; `results_frame` is the
same rows as a DataFrame, for notebooks and statistics.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from focal_lab.errors import UserError
from focal_lab.report.table.test_sets import test_set_name
from focal_lab.sweep.run_folder.outcome import Outcome, read_outcome, run_folders
from focal_lab.sweep.spec.columns import COLUMNS

if TYPE_CHECKING:
    import pandas as pd

    from focal_lab.sweep.plan.plan import Plan

LongRow = dict[str, Any]

# Metrics come between FIRST and COSTS, the flattened model (`model.*`) between COSTS and LAST.
FIRST = ("run", "task", "seed", "state")
COSTS = ("params", "gmacs", "train_seconds", "images_per_second", "peak_memory_mb")
LAST = (
    *("config_hash", "test_images", "test_set", "commit", "dirty", "hardware"),
    *("started", "finished", "reason", "last_line"),
)
# Missing values would turn these whole numbers and flags into floats.
_DTYPES = {"seed": "Int64", "params": "Int64", "test_images": "Int64", "dirty": "boolean"}


def results_frame(out: Path) -> "pd.DataFrame":
    """All runs in `out`, sorted by run id; folders that are no runs are ignored.

    Columns: `run, task, seed, state`, one per metric, `params, gmacs, train_seconds, images_per_second,
    peak_memory_mb`, one per setting of the model (`model.backbone`, lists as "2-2-6-2"), then provenance, and
    `reason` and `last_line` of what did not finish. `params` is a count, not millions; runs of equal
    `test_set` were tested on the same images, labels and classes.
    """
    import pandas as pd

    rows = all_rows(out)
    return pd.DataFrame(rows, columns=long_columns(rows)).astype(_DTYPES)


def parquet(rows: Sequence[LongRow], columns: Sequence[str] | None = None) -> bytes:
    """Rows as a Parquet file, with the types of their columns.

    Args:
        rows: one a line; keys that a row lacks are null.
        columns: their order; None: those of the first row.

    Raises:
        UserError: pyarrow, which writes it, is not installed.
    """
    import io

    import pandas as pd

    frame = pd.DataFrame(rows, columns=list(columns) if columns is not None else None)
    frame = frame.astype({name: kind for name, kind in _DTYPES.items() if name in frame.columns})
    mixed = [
        name
        for name in frame.columns
        if frame[name].dtype == object and len({type(value) for value in frame[name].dropna()}) > 1
    ]
    frame = frame.astype(dict.fromkeys(mixed, "str"))  # a setting that is a number here and a word there
    stream = io.BytesIO()
    try:
        frame.to_parquet(stream, engine="pyarrow", index=False)
    except ImportError as error:
        raise UserError(
            "parquet needs pyarrow (pip install 'focal-lab[parquet]'; or --format csv)", key="--format"
        ) from error
    return stream.getvalue()


def all_rows(out: Path) -> list[LongRow]:
    """One row per run in `out`, sorted by run id."""
    # By name: comparing ten thousand paths costs a tenth of the report.
    folders = sorted(run_folders(out), key=lambda folder: folder.name)
    return long_rows(read_outcome(folder) for folder in folders)


def sweep_rows(plan: "Plan", out: Path) -> list[LongRow]:
    """One row per planned run, in the plan's order: its labels first, then what is known about it.

    A run that serves two cells has a row for each.
    """
    rows = []
    for run in plan.runs:
        known = long_row(read_outcome(out / run.id))
        known |= {"task": run.task, "seed": run.seed}
        labels = {label_column(factor): label for factor, label in run.cell.labels.items()}
        rows.append(labels | known)
    return rows


def label_column(factor: str) -> str:
    """The long table's column for a factor: its name, unless a column of every run has that name."""
    return f"factor.{factor}" if factor in {*FIRST, *COSTS, *LAST, *COLUMNS} else factor


def long_rows(outcomes: Iterable[Outcome]) -> list[LongRow]:
    """One row per outcome; a row holds the keys that its run knows."""
    return [long_row(outcome) for outcome in outcomes]


def long_row(outcome: Outcome) -> LongRow:
    """What is known about a run; keys as `long_columns` orders them."""
    row: LongRow = {"run": outcome.run, "state": str(outcome.state)}
    result = outcome.result
    if result is None:
        ended = outcome.failure.when if outcome.failure else None
        if outcome.failure:
            row |= {"task": outcome.failure.task, "seed": outcome.failure.seed}
        return row | {"finished": ended, "reason": outcome.reason, "last_line": outcome.last_line}
    row |= result.metrics
    row |= {name: getattr(result, name) for name in COSTS}
    row |= flatten(result.config.get("model", {}).get("init_args", {}), "model")
    row |= {"test_images": result.tested_on.get("count"), "test_set": test_set_name(result.tested_on)}
    row |= {"commit": result.git.get("commit"), "dirty": result.git.get("dirty")}
    names = ("task", "seed", "config_hash", "hardware", "started", "finished")
    return row | {name: getattr(result, name) for name in names}


def long_columns(rows: Iterable[LongRow], labels: Iterable[str] = ()) -> list[str]:
    """The columns of these rows: labels, what every run has, and between those what only some know."""
    found = dict.fromkeys(key for row in rows for key in row)
    labels = list(labels)
    model = [key for key in found if key.startswith("model.")]
    others = set(found) - {*labels, *FIRST, *COSTS, *LAST, *model}
    metrics = [key for key in COLUMNS if key in others] + sorted(others - COLUMNS.keys())
    return [*labels, *FIRST, *metrics, *COSTS, *model, *LAST]


def flatten(value: Any, name: str) -> dict[str, Any]:
    """Nested settings as dotted keys: `{"a": {"b": [2, 2]}}` named m is `{"m.a.b": "2-2"}`."""
    if isinstance(value, Mapping):
        return {key: leaf for part in value for key, leaf in flatten(value[part], f"{name}.{part}").items()}
    if isinstance(value, list | tuple):
        plain = not any(isinstance(item, Mapping | list | tuple) for item in value)
        return {name: "-".join(map(str, value)) if plain else json.dumps(value)}
    return {name: value}
