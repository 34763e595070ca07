"""Reports of sweeps that tune every cell: the best run by validation counts, and only that."""

from dataclasses import replace
from pathlib import Path

import pytest
from support.finished_runs import fail, finish

from focal_lab.report.formats.render import flat_table, table_text
from focal_lab.report.table.build import build_table
from focal_lab.report.table.tuned import tuned_notes
from focal_lab.sweep.plan.plan import Plan, make_plan
from focal_lab.sweep.run_folder.outcome import read_outcome

SWEEP = """
seeds: 3
factors:
  window_size: [7, 14]
set: {backbone: focal_tiny}
tune:
  trials: 2
  ranges: {model.lr: {low: 1.0e-3, high: 1.0e-2, log: true}}
"""
# cell -> seed -> (validation, test) of each setting that is tried
FOUND = {
    "7": {0: ((70.0, 60.0), (71.0, 61.0)), 1: ((75.0, 65.0), (74.0, 99.0)), 2: ((70.0, 62.0), (70.0, 1.0))},
    "14": {0: ((72.0, 63.0), (71.0, 90.0)), 1: ((72.0, 67.5), (71.0, 90.0)), 2: ((80.0, 66.0), (81.0, 64.0))},
}


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    path = tmp_path / "tuned.yaml"
    path.write_text(SWEEP)
    return make_plan(path)


def finish_all(plan: Plan, out: Path, *, but: int = 0) -> None:
    tried: dict[tuple[str, int], int] = {}
    for run in plan.runs[: len(plan.runs) - but]:
        key = (run.cell.name, run.seed)
        trial = tried[key] = tried.get(key, -1) + 1
        validation, test = FOUND[run.cell.name][run.seed][trial]
        finish(out, run.id, seed=run.seed, metrics={"top1": test}, validation={"top1": validation})


def test_validation_chooses_and_the_test_metric_of_the_choice_counts(plan: Plan, out: Path) -> None:
    finish_all(plan, out)
    table = build_table(plan, out)
    assert [row.entries["top1"].values for row in table.rows] == [
        {0: 61.0, 1: 65.0, 2: 62.0},  # of equal ones the first
        {0: 63.0, 1: 67.5, 2: 64.0},
    ]
    assert [(row.entries["top1"].n, row.entries["top1"].planned) for row in table.rows] == [(3, 3), (3, 3)]
    compared = table.rows[1].entries["top1"].compared
    assert compared is not None
    assert compared.difference == pytest.approx((2 + 2.5 + 2) / 3)
    assert "6/6" in table_text(table)
    assert len(flat_table(table)) == 2


def test_a_seed_counts_when_all_its_settings_were_tried(plan: Plan, out: Path) -> None:
    finish_all(plan, out, but=1)
    table = build_table(plan, out)
    assert table.rows[1].entries["top1"].values == {0: 63.0, 1: 67.5}
    assert any(note.startswith("1 of 6 cells and seeds have no value yet") for note in table.notes)


def test_a_setting_that_failed_was_tried_and_is_not_chosen(plan: Plan, out: Path) -> None:
    finish_all(plan, out, but=1)
    fail(out, plan.runs[-1].id, seed=2)
    table = build_table(plan, out)
    assert table.rows[1].entries["top1"].values == {0: 63.0, 1: 67.5, 2: 66.0}
    assert "1 run of a setting failed: it counts as tried and is not chosen." in table.notes
    assert not any("have no value yet" in note for note in table.notes)


def test_a_seed_of_which_all_settings_failed_has_no_value(plan: Plan, out: Path) -> None:
    finish_all(plan, out, but=2)
    for run in plan.runs[-2:]:
        fail(out, run.id, seed=2)
    table = build_table(plan, out)
    assert table.rows[1].entries["top1"].values == {0: 63.0, 1: 67.5}
    assert any(note.startswith("1 of 6 cells and seeds have no value yet") for note in table.notes)


def test_a_note_names_the_budget_and_the_choices(plan: Plan, out: Path) -> None:
    finish_all(plan, out)
    notes = build_table(plan, out).notes
    assert any(note.startswith("Tuned: each cell and seed tries 2 settings") for note in notes)
    first = next(run for run in plan.runs if run.cell.name == "14" and run.seed == 0)
    assert any(
        note.startswith(f"Chosen for 14, seed by seed: model.lr {first.cell.settings['model.lr']}")
        for note in notes
    )


def test_runs_without_validation_do_not_count(plan: Plan, out: Path) -> None:
    for run in plan.runs:
        finish(out, run.id, seed=run.seed, metrics={"top1": 80.0}, validation={})
    assert [row.entries["top1"].values for row in build_table(plan, out).rows] == [{}, {}]


def test_the_note_of_choices_names_cells_as_their_rows_do(plan: Plan, out: Path) -> None:
    finish_all(plan, out)
    rows = [
        replace(row, shown={"window_size": f"{row.labels['window_size']} (micro)"})
        for row in build_table(plan, out).rows
    ]
    results = {run.id: read_outcome(out / run.id).result for run in plan.runs}
    known = {name: result for name, result in results.items() if result is not None}
    *_, last = tuned_notes(plan, known, (), rows)
    assert last.startswith("Chosen for 14 (micro), seed by seed: ")
