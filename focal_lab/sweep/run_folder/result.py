"""What a run leaves behind: `result.json` when it ended, `failure.json` when it did not.

Standard library only, so that a report reads thousands of them without importing torch.
"""

import json
import math
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Self, get_origin

from focal_lab.data.option_names import recorded_config
from focal_lab.errors import UserError
from focal_lab.sweep.spec.columns import MAIN
from focal_lab.training.history_file import read_history
from focal_lab.utils.atomic_files import sync_folder, write_atomic, write_temporary
from focal_lab.utils.file_lock import FileLock

RESULT_FILE = "result.json"
FAILURE_FILE = "failure.json"
CONFIG_FILE = "config.yaml"
SCHEMA = 1
COSTS = ("params", "gmacs", "train_seconds", "images_per_second", "peak_memory_mb")


class CorruptRecordError(UserError):
    """A record of an earlier run that cannot be read; `set_aside` moves it out of the way."""


@dataclass(frozen=True)
class Result:
    """A finished run. Its file is the only proof that the run ended.

    Attributes:
        run: the run's id, also its folder's name.
        metrics: name -> value on the test split; accuracies in percent.
        params: parameters of the whole model.
        gmacs: billions of multiply-accumulates for one image of `image_size`.
        image_size: height and width in px that the network is fed when it is evaluated; empty in results of
            versions that did not write it.
        image_size_from: what says so: "options", "images", or nothing: "assumed"; empty where it is unknown.
        train_seconds: wall time of the fit, validation included.
        images_per_second: training pictures per second of fitting, validation left out.
        peak_memory_mb: highest resident memory of the process (CPU) or allocated on the device, in MB.
        config: the LightningCLI configuration that ran, but for paths.
        identity: what the id is a hash of.
        validation: the metrics on the validation split after the epoch tested; searches compare them.
        evaluated: what the metrics are of: `checkpoint`, best or last, and `split`, test or val; empty in
            older files.
        tested_on: which images, labels and classes that were: `count`, and the digests `images`, `labels`,
            `classes` and `class_names` (`focal_lab.data.test_set`), as far as they are known; empty in older
            files.
        git: `commit` and `dirty` of focal_lab's code that ran, both None outside a checkout; `user_code`: the
            same for each repository, by its `folder`, of the user's own code, if there is any.
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
        """Check and build; raises ValueError naming what is missing or wrong."""
        if not isinstance(raw, dict):
            raise ValueError("is not a JSON object")
        if raw.get("schema") != SCHEMA:
            raise ValueError(f"has schema {raw.get('schema')!r}, this version reads {SCHEMA}")
        older = {"validation": {}, "evaluated": {}, "image_size": [], "image_size_from": "", "tested_on": {}}
        raw = older | raw
        missing = [name for name, _ in _KINDS[cls.__name__] if name not in raw]
        if missing:
            raise ValueError(f"lacks {', '.join(missing)}")
        if not isinstance(raw["metrics"], dict) or not all(map(_is_number, raw["metrics"].values())):
            raise ValueError("has metrics that are no numbers")
        values = {name: raw[name] for name, _ in _KINDS[cls.__name__]}
        _check_types(cls, values)
        return cls(**values | {"config": recorded_config(values["config"])})


@dataclass(frozen=True)
class Failure:
    """A run that did not end: why, and the last lines it printed. The next sweep tries it again."""

    run: str
    task: str
    seed: int
    reason: str
    last_lines: list[str]
    attempts: int
    when: str
    pruned: bool = False


# fields with their types, which a report asks for ten thousand times
_KINDS: dict[str, tuple[tuple[str, Any], ...]] = {
    record.__name__: tuple((one.name, get_origin(one.type) or one.type) for one in fields(record))
    for record in (Result, Failure)
}


def known_values(result: Result) -> dict[str, float]:
    """A result's metrics, those of validation as `val_top1` and so on, and its costs."""
    validation = {f"val_{name}": value for name, value in result.validation.items()}
    return result.metrics | validation | {name: float(getattr(result, name)) for name in COSTS}


def objective_values(values: Mapping[str, float], objectives: Iterable[str]) -> list[float] | None:
    """What a search compares: costs, and metrics of the validation, never those of the test split.

    Args:
        values: of `known_values`.
        objectives: columns.

    Returns:
        One a column; None where the run, an older one, has no validation.
    """
    names = [name if name in COSTS else f"val_{name}" for name in objectives]
    return [values[name] for name in names] if values.keys() >= set(names) else None


def read_result(folder: Path) -> Result | None:
    """The result in a run's folder, None when there is none yet.

    Raises:
        CorruptRecordError: the file is there but not readable as a result.
    """
    try:
        raw = _read_json(folder / RESULT_FILE)
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
    """What an older result lacks, from its curves: those runs tested the best epoch."""
    main = f"val/{MAIN.get(task)}"
    found = [point.values for point in read_history(folder) if main in point.values]
    best = max(found, key=lambda values: values[main], default={})
    return {name.removeprefix("val/"): value for name, value in best.items() if name.startswith("val/")}


def read_failure(folder: Path) -> Failure | None:
    """The failure recorded in a run's folder, None when there is none or it cannot be read."""
    try:
        raw = _read_json(folder / FAILURE_FILE)
        if isinstance(raw, dict):
            raw = {"pruned": False} | raw  # older ones
        _check_types(Failure, raw)
        return Failure(**raw)
    except (FileNotFoundError, TypeError, ValueError):
        return None


def write_record(folder: Path, record: Result | Failure) -> None:
    """Write `result.json` or `failure.json` so that a reader sees all of it or nothing.

    Raises:
        OSError: the disk is full or the folder is not writable; an older record is untouched.
    """
    name = RESULT_FILE if isinstance(record, Result) else FAILURE_FILE
    write_atomic(folder / name, json.dumps(asdict(record), indent=1, sort_keys=True, allow_nan=False) + "\n")


def write_result_once(folder: Path, result: Result) -> bool:
    """Write `result.json` unless there is one: a finished result is never replaced.

    Returns:
        Whether it was written; False when another process was first.

    Raises:
        OSError: the disk is full or the folder is not writable.
    """
    text = json.dumps(asdict(result), indent=1, sort_keys=True, allow_nan=False) + "\n"
    temporary = write_temporary(folder / RESULT_FILE, text)
    try:
        written = _name_once(temporary, folder / RESULT_FILE)
    finally:
        temporary.unlink(missing_ok=True)
    if written:
        sync_folder(folder)
    return written


def _name_once(temporary: Path, target: Path) -> bool:
    """Give a file a name that none has; whether it got it."""
    try:
        os.link(temporary, target)
    except FileExistsError:
        # NFS repeats a request whose answer was lost, and then finds its own link (open(2), O_EXCL)
        return temporary.stat().st_nlink > 1
    except OSError:  # a file system without links; the kernel frees the lock of whoever dies here
        with FileLock(target.with_name(f".{target.name}.lock")):
            if target.exists():
                return False
            os.replace(temporary, target)
    return True


def set_aside(path: Path) -> Path:
    """Rename a damaged file to `<name>.corrupt-<time>` beside it, and say where it went."""
    target = path.with_name(f"{path.name}.corrupt-{time.strftime('%Y%m%d-%H%M%S')}")
    number = 1
    while target.exists():
        number += 1
        target = path.with_name(f"{path.name}.corrupt-{time.strftime('%Y%m%d-%H%M%S')}-{number}")
    path.rename(target)
    return target


def _check_types(record: type[Result] | type[Failure], raw: Any) -> None:
    """Raises ValueError naming a value that is not what the record's field says."""
    if not isinstance(raw, dict):
        raise ValueError("is not a JSON object")
    for name, kind in _KINDS[record.__name__]:
        value = raw.get(name)
        right = _is_number(value) if kind in (int, float) else isinstance(value, kind)
        if not right:
            raise ValueError(f"has {value!r:.60} as {name}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise
    except (ValueError, OSError) as error:
        raise CorruptRecordError(f"is not readable as JSON ({error})", file=path) from error
