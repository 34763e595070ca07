import json
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from support.finished_runs import fail, finish

from focal_lab.sweep.run_folder.result import (
    SCHEMA,
    CorruptRecordError,
    Result,
    read_failure,
    read_result,
    set_aside,
    write_record,
)


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def corruption(folder: Path) -> str:
    with pytest.raises(CorruptRecordError) as caught:
        read_result(folder)
    return str(caught.value)


def test_a_result_is_read_back_as_it_was_written(out: Path) -> None:
    written = finish(out, "a0", metrics={"top1": 87.5, "loss": 1}, git={"commit": None, "dirty": None})
    assert read_result(out / "a0") == written
    assert json.loads((out / "a0" / "result.json").read_text()) == asdict(written) | {"schema": SCHEMA}


def test_a_failure_is_read_back_as_it_was_written(out: Path) -> None:
    fail(out, "a1", reason="out of memory", last="Killed")
    failure = read_failure(out / "a1")
    assert failure is not None
    assert (failure.run, failure.task, failure.seed) == ("a1", "classification", 1)
    assert (failure.reason, failure.attempts) == ("out of memory", 2)
    assert failure.last_lines == ["epoch 1", "Killed", ""]


def test_a_run_that_left_nothing_has_no_record(out: Path) -> None:
    (out / "a0").mkdir()
    assert read_result(out / "a0") is None
    assert read_failure(out / "a0") is None
    assert read_result(out / "never0") is None


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is not readable as JSON (Expecting value"),
        ('{"run": ', "is not readable as JSON (Expecting value"),
        ("\xff", "is not readable as JSON ('utf-8' codec"),
        ("[1]", "is not a JSON object"),
        ("null", "is not a JSON object"),
        ("{}", f"has schema None, this version reads {SCHEMA}"),
        (f'{{"schema": {SCHEMA}, "run": "a0"}}', "lacks task, seed, metrics, params, "),
    ],
)
def test_what_is_no_result_is_corrupt_and_named(out: Path, text: str, problem: str) -> None:
    finish(out, "a0")
    (out / "a0" / "result.json").write_text(text, encoding="latin-1")
    assert corruption(out / "a0").startswith(f"runs/a0/result.json: {problem}")


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"schema": SCHEMA + 1}, f"has schema {SCHEMA + 1}, this version reads {SCHEMA}"),
        ({"run": "b0"}, "belongs to run b0"),
        ({"metrics": {"top1": float("nan")}}, "has metrics that are not numbers"),
        ({"metrics": {"top1": float("inf")}}, "has metrics that are not numbers"),
        ({"metrics": {"top1": "87.5"}}, "has metrics that are not numbers"),
        ({"metrics": {"top1": True}}, "has metrics that are not numbers"),
        ({"metrics": {"top1": None}}, "has metrics that are not numbers"),
        ({"metrics": [87.5]}, "has metrics that are not numbers"),
        ({"train_seconds": float("nan")}, "has nan as train_seconds"),
        ({"params": "many"}, "has 'many' as params"),
        ({"gmacs": None}, "has None as gmacs"),
        ({"config": None}, "has None as config"),
        ({"git": "0123abc"}, "has '0123abc' as git"),
        ({"finished": 7}, "has 7 as finished"),
    ],
)
def test_a_result_with_a_wrong_value_is_corrupt_and_named(
    out: Path, values: dict[str, Any], problem: str
) -> None:
    finish(out, "a0")
    change(out / "a0" / "result.json", **values)
    assert corruption(out / "a0") == f"runs/a0/result.json: {problem}"


@pytest.mark.parametrize("field", ["config", "identity", "metrics", "seed", "hardware"])
def test_a_result_that_lacks_a_field_is_corrupt_and_says_which(out: Path, field: str) -> None:
    finish(out, "a0")
    path = out / "a0" / "result.json"
    raw = json.loads(path.read_text())
    del raw[field]
    path.write_text(json.dumps(raw))
    assert corruption(out / "a0") == f"runs/a0/result.json: lacks {field}"


def test_a_result_may_hold_more_than_this_version_knows(out: Path) -> None:
    written = finish(out, "a0")
    change(out / "a0" / "result.json", energy_kwh=0.1)
    assert read_result(out / "a0") == written


@pytest.mark.parametrize(
    "values", [{"last_lines": None}, {"last_lines": "Killed"}, {"seed": "0"}, {"reason": 7}, {"more": 1}]
)
def test_a_failure_that_cannot_be_read_is_none(out: Path, values: dict[str, Any]) -> None:
    fail(out, "a0")
    assert read_failure(out / "a0") is not None
    change(out / "a0" / "failure.json", **values)
    assert read_failure(out / "a0") is None


@pytest.mark.parametrize("text", ["{", "[]", "7", '{"run": "a0", "reason": "written by an older version"}'])
def test_a_damaged_failure_is_none(out: Path, text: str) -> None:
    fail(out, "a0")
    (out / "a0" / "failure.json").write_text(text)
    assert read_failure(out / "a0") is None


def test_a_metric_that_is_no_number_is_never_written_and_the_old_result_stays(out: Path) -> None:
    written = finish(out, "a0")
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_record(out / "a0", replace(written, metrics={"top1": float("nan")}))
    assert read_result(out / "a0") == written
    assert os.listdir(out / "a0") == ["result.json"]


def test_damaged_files_are_set_aside_one_by_one_under_names_of_their_own(out: Path) -> None:
    kept = []
    for number in range(3):
        (out / "result.json").write_text(f"damage {number}")
        kept.append(set_aside(out / "result.json"))
    assert not (out / "result.json").exists()
    assert [path.read_text() for path in kept] == ["damage 0", "damage 1", "damage 2"]
    assert all(path.name.startswith("result.json.corrupt-") and path.parent == out for path in kept)


def test_from_dict_builds_what_asdict_took_apart(out: Path) -> None:
    written = finish(out, "a0")
    assert Result.from_dict(asdict(written)) == written
