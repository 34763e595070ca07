import io
from pathlib import Path

import pandas as pd
import pytest
from support.finished_runs import FakePlan, config, corrupt, fail, finish, make_plan, run_id, start

from focal_lab.report.formats.render import csv
from focal_lab.report.table.long_table import flatten, runs_table, sweep_runs_table


def test_the_frame_has_one_row_per_run_and_a_column_for_everything_known(out: Path) -> None:
    finish(out, "a1", metrics={"top1": 80.0, "zeta": 1.5}, git={"commit": "abc", "dirty": True})
    finish(out, "b0", task="detection", metrics={"ap_box": 40.0})
    frame = runs_table(out)
    assert list(frame["run"]) == ["a1", "b0"]
    assert list(frame.columns[:7]) == ["run", "task", "seed", "state", "top1", "ap_box", "zeta"]
    first = frame.iloc[0]
    assert (first["seed"], first["params"], first["dirty"], first["commit"]) == (1, 28288354, True, "abc")
    assert first["model.backbone"] == "focal_micro"
    assert first["model.backbone_options.depths"] == "1-1-2-1"
    assert pd.isna(first["ap_box"])


def test_runs_without_a_result_are_rows_that_say_why(out: Path) -> None:
    finish(out, "a0")
    fail(out, "b0", reason="NaN loss")
    corrupt(out, "c0")
    start(out, "d0")
    frame = runs_table(out).set_index("run")
    assert list(frame["state"]) == ["finished", "failed", "corrupt", "missing"]
    assert frame.loc["b0", "reason"] == "NaN loss"
    assert frame.loc["b0", "finished"] == "2026-01-02T10:00:30"
    assert str(frame.loc["c0", "reason"]).startswith("result.json is not readable")
    assert frame.loc["a0", "seed"] == 0
    assert (frame.loc["b0", "task"], frame.loc["b0", "seed"]) == ("classification", 0)
    assert frame["seed"].isna().sum() == 2


def test_an_empty_folder_is_an_empty_frame_with_the_fixed_columns(out: Path) -> None:
    frame = runs_table(out)
    assert len(frame) == 0
    assert {"run", "state", "params", "reason"} <= set(frame.columns)


def test_the_long_csv_round_trips_through_pandas(out: Path, mixed: FakePlan) -> None:
    frame = runs_table(out)
    kept = dict.fromkeys(("seed", "params"), "Int64") | {"dirty": "boolean"}
    again = pd.read_csv(io.StringIO(csv(frame)), dtype=kept)
    pd.testing.assert_frame_equal(again, frame, check_dtype=False)
    assert list(again["top1"].dropna()) == [84.25, 85.5, 83.0, 86.0, 85.0, 88.5]


def test_a_sweeps_long_rows_follow_the_plan_with_labels_and_seeds_of_what_never_ran(out: Path) -> None:
    plan = make_plan({"backbone": ["A", "B"]}, seeds=(0, 1))
    fail(out, run_id(1, 1))
    frame = sweep_runs_table(plan, out)
    assert list(frame[["backbone", "seed", "state"]].itertuples(index=False, name=None)) == [
        ("A", 0, "missing"),
        ("A", 1, "missing"),
        ("B", 0, "missing"),
        ("B", 1, "failed"),
    ]


def test_a_factor_called_like_a_column_does_not_overwrite_it(out: Path) -> None:
    plan = make_plan({"loss": ["focal"]}, seeds=(0,))
    finish(out, run_id(0, 0))
    frame = sweep_runs_table(plan, out)
    assert frame[["factor.loss", "loss"]].to_numpy().tolist() == [["focal", 0.41]]
    assert frame.columns[0] == "factor.loss"


def test_settings_keep_their_types_beside_missing_and_mixed_values(out: Path) -> None:
    for number, options in enumerate(({"size": 7, "e": 1, "drop": 0.5, "on": True}, {"e": "x"}, {})):
        finish(out, f"r{number}", config=config(options))
    fail(out, "r3")
    frame = runs_table(out)
    found = {name: str(frame[f"model.backbone_options.{name}"].dtype) for name in ("size", "e", "drop", "on")}
    assert found == {"size": "Int64", "e": "object", "drop": "float64", "on": "boolean"}
    assert list(csv(frame[["model.backbone_options.size"]]).splitlines())[1:] == ["7", '""', '""', '""']
    assert frame.attrs["units"]["top1"] == "%"


@pytest.mark.parametrize(
    ("value", "flat"),
    [
        ({"a": {"b": 1}, "c": "x"}, {"m.a.b": 1, "m.c": "x"}),
        ({"depths": [2, 2, 6, 2]}, {"m.depths": "2-2-6-2"}),
        ({"nested": [[1], [2]]}, {"m.nested": "[[1], [2]]"}),
        ({"none": None, "empty": {}}, {"m.none": None}),
    ],
)
def test_settings_flatten_to_dotted_keys(value: object, flat: dict[str, object]) -> None:
    assert flatten(value, "m") == flat
