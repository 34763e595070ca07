"""Runs that were not tested on the same images, labels and classes are named, and not compared."""

from pathlib import Path
from typing import Any

import pytest
from support.finished_runs import TESTED_ON, finish, make_plan, run_id

from focal_lab.report.command import main as report
from focal_lab.report.diff.command import main as diff
from focal_lab.report.table.build import build_table
from focal_lab.report.table.long_table import runs_table
from focal_lab.report.table.notes import shortcomings

OTHERS: dict[str, tuple[dict[str, Any], str]] = {
    "images": ({"images": "ff", "labels": "ff"}, "other images"),
    "labels": ({"labels": "ff"}, "other labels"),
    "order": ({"classes": "ff"}, "another order of classes"),
    "classes": ({"classes": "ff", "class_names": "ff"}, "other classes"),
    "count": ({"count": 1999}, "another number of images (1999, not 2000)"),
    "limited": (
        {"count": 64, "images": "ff", "labels": "ff"},
        "another number of images (64, not 2000) and other images",
    ),
}


def two_rows(out: Path, other: dict[str, Any] | None, **plan: Any) -> Any:
    """Rows 7 and 14 of three seeds; seed 2 of the latter was tested on something else."""
    for cell, value in enumerate((80.0, 85.0)):
        for seed in range(3):
            apart = other is not None and (cell, seed) == (1, 2)
            tested: Any = {"tested_on": TESTED_ON | (other or {})} if apart else {}
            finish(out, run_id(cell, seed), metrics={"top1": value + seed / 10 * (1 + cell)}, **tested)
    return make_plan({"window_size": ["7", "14"]}, columns=["params", "top1"], **plan)


@pytest.mark.parametrize("kind", OTHERS)
def test_runs_with_another_test_set_are_named_and_not_compared(kind: str, out: Path) -> None:
    other, words = OTHERS[kind]
    table = build_table(two_rows(out, other, expect=["14 > 7"]), out)
    (sentence,) = table.provenance.mixed_tests
    assert sentence.startswith(
        f"classification: 14, seed 2 ({run_id(1, 2)}) was tested on {words} than 7, seed 0 ({run_id(0, 0)}), "
    )
    assert table.notes[0] == sentence
    assert sentence in shortcomings(table)
    compared = table.rows[1].entries["top1"].compared
    assert compared is not None
    assert (compared.verdict, compared.difference, compared.p) == ("other test set", None, None)
    assert (table.answers[0].verdict, table.answers[0].n) == ("other test set", 0)


def test_runs_that_were_tested_on_the_same_are_compared(out: Path) -> None:
    table = build_table(two_rows(out, None, expect=["14 > 7"]), out)
    assert table.provenance.mixed_tests == ()
    compared = table.rows[1].entries["top1"].compared
    assert compared is not None
    assert compared.verdict == "better"
    assert table.answers[0].verdict == "supported"


def test_rows_whose_configured_data_differ_are_left_to_the_rule_for_those(out: Path) -> None:
    for cell, root in enumerate(("a", "b")):
        for seed in range(3):
            data = {"class_path": "Folder", "init_args": {"root": root}}
            finish(
                out,
                run_id(cell, seed),
                metrics={"top1": 80.0 + cell + seed / 10 * (1 + cell)},
                config={"data": data},
                tested_on=TESTED_ON | {"images": root},
            )
    plan = make_plan({"root": ["a", "b"]}, columns=["top1"])
    table = build_table(plan, out)
    assert table.provenance.mixed_tests == ()
    assert table.rows[1].entries["top1"].compared.verdict == "other data"  # type: ignore[union-attr]
    on_purpose = make_plan({"root": ["a", "b"]}, columns=["top1"], baseline={"root": "a"})
    assert build_table(on_purpose, out).rows[1].entries["top1"].compared.verdict == "better"  # type: ignore[union-attr]


def test_older_results_are_reported_with_one_note(out: Path) -> None:
    plan = two_rows(out, None)
    for seed in range(2):
        finish(out, run_id(0, seed), metrics={"top1": 80.0 + seed}, tested_on={})
    table = build_table(plan, out)
    notes = [note for note in table.notes if "do not record which images they were tested on" in note]
    assert len(notes) == 1
    assert notes[0].startswith("2 of 6 finished runs")
    assert table.rows[1].entries["top1"].compared.n == 3  # type: ignore[union-attr]


def test_formats_without_notes_warn_on_stderr_and_have_a_column(
    out: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = two_rows(out, {"labels": "ff"})
    monkeypatch.setattr("focal_lab.report.command._plan", lambda options: plan)
    for options in (["--format", "csv"], ["--long"], ["--long", "--format", "json"]):
        assert report(["window_size", *options]) == 0
        assert capsys.readouterr().err.count("was tested on other labels") == 1
    sets = runs_table(out).set_index("run")["test_set"].to_dict()
    assert len(set(sets.values())) == 2
    assert [run for run, name in sets.items() if name != sets[run_id(0, 0)]] == [run_id(1, 2)]


def test_a_diff_of_two_runs_gives_no_verdict_on_metrics_of_other_images(
    out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    two_rows(out, {"images": "ff"})
    assert diff([run_id(0, 0), run_id(1, 2)]) == 0
    text = capsys.readouterr().out
    assert f"not comparable: {run_id(1, 2)} was tested on other images than {run_id(0, 0)}" in text
    assert "better" not in text
    assert diff([run_id(0, 0), run_id(1, 1)]) == 0
    assert "better" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ({"limit_test_batches": 2}, "trainer.limit_test_batches=2"),
        ({"limit_test_batches": 1}, "trainer.limit_test_batches=1"),
        ({"limit_val_batches": 0.5}, "trainer.limit_val_batches=0.5"),
        ({"overfit_batches": 4}, "trainer.overfit_batches=4"),
        ({"limit_test_batches": 1.0, "limit_val_batches": None, "overfit_batches": 0.0}, ""),
    ],
)
def test_numbers_of_a_part_of_the_images_are_marked(setting: Any, expected: str, out: Path) -> None:
    finish(out, run_id(0, 0), config={"trainer": setting})
    table = build_table(make_plan({"window_size": ["7"]}, columns=["top1"], seeds=[0]), out)
    sentence = f"1 of 1 finished runs were evaluated on a part of their images: {expected}."
    assert (sentence in table.notes) == bool(expected)
    assert any("a part of their images" in line for line in shortcomings(table)) == bool(expected)
