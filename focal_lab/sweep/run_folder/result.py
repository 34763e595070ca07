"""The records of a run: `result.json` when it finished, `failure.json` when it did not.

Standard library only, so that a report reads thousands of them without importing torch.
"""

import json
import math
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Self, get_origin

from focal_lab.data.option_names import recorded_config
from focal_lab.errors import UserError
from focal_lab.sweep.run_folder.layout import FAILURE_FILE, RESULT_FILE
from focal_lab.sweep.spec.columns import MAIN
from focal_lab.training.history_file import read_history
from focal_lab.utils.atomic_files import sync_folder, write_atomic, write_temporary
from focal_lab.utils.file_lock import FileLock
from focal_lab.utils.read_file import read_file

SCHEMA = 1
COSTS = ("params", "gmacs", "train_seconds", "images_per_second", "peak_memory_mb")


class CorruptRecordError(UserError):
    """A damaged record of an earlier run; `set_aside` moves it out of the way."""


@dataclass(frozen=True)
class Result:
    """A finished run. Its file is the only proof that the run has finished.

    Fields that older files lack are empty.

    Attributes:
        run: ID of the run, and name of its folder.
        metrics: name -> value on the test split; accuracies in percent.
        params: parameters of the whole model.
        gmacs: billions of multiply-accumulates for one image of `image_size`.
        image_size: height and width in px that the network gets in evaluation.
        image_size_from: where that size is from: "options", "images", or "assumed".
        train_seconds: wall time of the fit, validation included.
        images_per_second: training images per second of the fit, without validation.
        peak_memory_mb: highest resident memory of the process (CPU) or allocation on the device, in MB.
        config: the LightningCLI configuration of the run, without paths to other runs.
        identity: what the ID is a hash of.
        validation: metrics on the validation split after the epoch that was tested; searches compare them.
        evaluated: what the metrics are of: `checkpoint`, best or last, and `split`, test or val.
        tested_on: number of test images (`count`), and digests of `images`, `labels`, `classes` and
            `class_names`, as far as they are known.
        git: `commit` and `dirty` of focal_lab's checkout, None outside one; `user_code`: the same for each
            repository of the user's own code, by its `folder`.
    """

    run: str
    task: str
    seed: int
    metrics: dict[str, float]
    params: int
    gmacs: float
    train_seconds: float
    images_per_second: float
    peak_memory_mb: float
    config_hash: str
    config: dict[str, Any]
    identity: dict[str, Any]
    versions: dict[str, str]
    git: dict[str, Any]
    hardware: str
    started: str
    finished: str
    validation: dict[str, float] = field(default_factory=dict)
    evaluated: dict[str, str] = field(default_factory=dict)
    image_size: list[int] = field(default_factory=list)
    tested_on: dict[str, Any] = field(default_factory=dict)
    image_size_from: str = ""
    schema: int = SCHEMA

    @classmethod
    def from_dict(cls, raw: Any) -> Self:
        """Check and build.

        Raises:
            ValueError: naming what is missing or wrong.
        """
        if not isinstance(raw, dict):
            raise ValueError("is not a JSON object")
        if raw.get("schema") != SCHEMA:
            raise ValueError(f"has schema {raw.get('schema')!r}, this version reads {SCHEMA}")
        missing = [name for name in _REQUIRED if name not in raw]
        if missing:
            raise ValueError(f"lacks {', '.join(missing)}")
        if not isinstance(raw["metrics"], dict) or not all(map(_is_number, raw["metrics"].values())):
            raise ValueError("has metrics that are not numbers")
        _check_types(cls, raw)
        values = {name: raw[name] for name, _ in _KINDS[cls.__name__] if name in raw}
        return cls(**values | {"config": recorded_config(values["config"])})


@dataclass(frozen=True)
class Failure:
    """A run without a result: why, and the last lines of its log. The next sweep tries it again."""

    run: str
    task: str
    seed: int
    reason: str
    last_lines: list[str]
    attempts: int
    when: str
    pruned: bool = False


# fields with their types, which a report needs ten thousand times
_KINDS: dict[str, tuple[tuple[str, Any], ...]] = {
    record.__name__: tuple((one.name, get_origin(one.type) or one.type) for one in fields(record))
    for record in (Result, Failure)
}
_REQUIRED = [one.name for one in fields(Result) if one.default is MISSING and one.default_factory is MISSING]


def known_values(result: Result) -> dict[str, float]:
    """A result's metrics, those of validation as `val_top1` and so on, and its costs."""
    validation = {f"val_{name}": value for name, value in result.validation.items()}
    return result.metrics | validation | {name: float(getattr(result, name)) for name in COSTS}


def objective_values(values: Mapping[str, float], objectives: Iterable[str]) -> list[float] | None:
    """What a search compares: costs and validation metrics, never those of the test split.

    Args:
        values: of `known_values`.
        objectives: columns.

    Returns:
        One a column; None if the run, an older one, has no validation.
    """
    names = [name if name in COSTS else f"val_{name}" for name in objectives]
    return [values[name] for name in names] if values.keys() >= set(names) else None


def read_result(folder: Path) -> Result | None:
    """The result in a run's folder; None if there is none yet.

    Raises:
        CorruptRecordError: the file exists but is damaged, or belongs to another run.
    """
    try:
        raw = _read_json(f"{folder}/{RESULT_FILE}")
    except FileNotFoundError:
        return None
    try:
        if isinstance(raw, dict) and "validation" not in raw:
            raw["validation"] = _best_validation(folder, str(raw.get("task")))
        result = Result.from_dict(raw)
    except ValueError as error:
        raise CorruptRecordError(str(error), file=folder / RESULT_FILE) from error
    if result.run != folder.name:
        raise CorruptRecordError(f"belongs to run {result.run}", file=folder / RESULT_FILE)
    return result


def _best_validation(folder: Path, task: str) -> dict[str, float]:
    """Validation metrics of an older result, which tested the best epoch, from its curves."""
    main = f"val/{MAIN.get(task)}"
    found = [point.values for point in read_history(folder) if main in point.values]
    best = max(found, key=lambda values: values[main], default={})
    return {name.removeprefix("val/"): value for name, value in best.items() if name.startswith("val/")}


def read_failure(folder: Path) -> Failure | None:
    """The failure in a run's folder; None if there is none or it is damaged."""
    try:
        raw = _read_json(f"{folder}/{FAILURE_FILE}")
        _check_types(Failure, raw)
        return Failure(**raw)
    except (FileNotFoundError, TypeError, ValueError):
        return None


def write_record(folder: Path, record: Result | Failure) -> None:
    """Write `result.json` or `failure.json`, so that a reader sees all of it or nothing.

    Raises:
        OSError: the disk is full or the folder is not writable; an older record is untouched.
    """
    write_atomic(folder / (RESULT_FILE if isinstance(record, Result) else FAILURE_FILE), _as_json(record))


def write_result_once(folder: Path, result: Result) -> bool:
    """Write `result.json` unless there is one: a result is never replaced.

    Returns:
        Whether it was written; False if another process was first.

    Raises:
        OSError: the disk is full or the folder is not writable.
    """
    temporary = write_temporary(folder / RESULT_FILE, _as_json(result))
    try:
        written = _name_once(temporary, folder / RESULT_FILE)
    finally:
        temporary.unlink(missing_ok=True)
    if written:
        sync_folder(folder)
    return written


def _name_once(temporary: Path, target: Path) -> bool:
    """Give a file a name unless the name is taken; returns whether it has it."""
    try:
        os.link(temporary, target)
    except FileExistsError:
        # NFS repeats a request whose answer was lost, and then finds its own link (open(2), O_EXCL)
        return temporary.stat().st_nlink > 1
    except OSError:  # a file system without links
        with FileLock(target.with_name(f".{target.name}.lock")):
            if target.exists():
                return False
            os.replace(temporary, target)
    return True


def set_aside(path: Path) -> Path:
    """Rename a damaged file to `<name>.corrupt-<time>` beside it; returns the new path."""
    base = f"{path.name}.corrupt-{time.strftime('%Y%m%d-%H%M%S')}"
    target, number = path.with_name(base), 1
    while target.exists():
        number += 1
        target = path.with_name(f"{base}-{number}")
    path.rename(target)
    return target


def _as_json(record: Result | Failure) -> str:
    return json.dumps(asdict(record), indent=1, sort_keys=True, allow_nan=False) + "\n"


def _check_types(record: type[Result] | type[Failure], raw: Any) -> None:
    if not isinstance(raw, dict):
        raise ValueError("is not a JSON object")
    for name, kind in _KINDS[record.__name__]:
        value = raw.get(name)
        if type(value) is kind and kind is not float:
            continue
        right = _is_number(value) if kind in (int, float) else isinstance(value, kind)
        if name in raw and not right:
            raise ValueError(f"has {value!r:.60} as {name}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _read_json(path: str) -> Any:
    try:
        return json.loads(read_file(path).decode("utf-8"))
    except FileNotFoundError:
        raise
    except (ValueError, OSError) as error:
        raise CorruptRecordError(f"is not readable as JSON ({error})", file=path) from error
