import statistics
from dataclasses import replace
from pathlib import Path

import pytest
from support.finished_runs import FakePlan, corrupt, fail, finish, make_plan, run_id

from focal_lab.errors import UserError
from focal_lab.report.table.build import build_table


def test_entries_are_made_of_the_raw_numbers_of_their_seeds(out: Path) -> None:
    plan = make_plan({"window_size": ["7", "14"]}, columns=("top1", "train_seconds"))
    raw = {0: 84.1, 1: 86.7, 2: 85.05}
    for seed, top1 in raw.items():
        finish(out, run_id(0, seed), metrics={"top1": top1}, train_seconds=60.0 + seed)
    table = build_table(plan, out)
    entry = table.rows[0].entries["top1"]
    assert entry.values == raw
    assert entry.mean == pytest.approx(statistics.mean(raw.values()))
    assert entry.sd == pytest.approx(statistics.stdev(raw.values()))
    assert (entry.n, entry.planned, entry.status) == (3, 3, "measured")
    assert table.rows[0].entries["train_seconds"].mean == 61.0


def test_states_are_counted_and_a_cell_without_value_shows_the_most_severe(
    out: Path, mixed: FakePlan
) -> None:
    table = build_table(mixed, out)
    states = [tuple(row.states.values()) for row in table.rows]  # finished, pruned, failed, corrupt, missing
    counts = [
        (3, 0, 0, 0, 0),
        (2, 0, 0, 0, 1),
        (1, 0, 1, 1, 0),
        (0, 0, 3, 0, 0),
        (0, 0, 0, 1, 2),
        (0, 0, 0, 0, 3),
    ]
    assert states == counts
    status = [row.entries["top1"].status for row in table.rows]
    assert status == ["measured", "measured", "measured", "failed", "corrupt", "missing"]
    one_seed = table.rows[2].entries["top1"]
    assert (one_seed.mean, one_seed.sd, one_seed.n, one_seed.planned) == (88.5, None, 1, 3)


def test_parameters_are_in_millions_without_spread(out: Path) -> None:
    plan = make_plan({"window_size": ["7"]}, columns=("params", "gmacs"))
    for seed in range(3):
        finish(out, run_id(0, seed))
    params = build_table(plan, out).rows[0].entries["params"]
    assert (params.mean, params.sd, params.n) == (28.288354, None, 3)


def test_a_task_that_the_sweep_does_not_run_has_only_the_papers_number(out: Path) -> None:
    plan = make_plan({"backbone": ["Swin-Tiny"], "window_size": ["7"]}, paper="table8_window_size")
    entry = build_table(plan, out).rows[0].entries["ap_box"]
    assert (entry.mean, entry.planned, entry.status, entry.published) == (None, 0, "not planned", 43.7)


def test_costs_are_those_of_the_first_task_and_metrics_of_their_own(out: Path) -> None:
    tasks = ("classification", "detection")
    plan = make_plan({"window_size": ["7"]}, tasks=tasks, columns=("params", "top1", "ap_box"), seeds=(0, 1))
    for seed in (0, 1):
        finish(out, run_id(0, seed))
        detection = {"task": "detection", "params": 47_800_000, "metrics": {"ap_box": 40.0 + seed}}
        finish(out, run_id(0, seed, "detection"), **detection)
    table = build_table(plan, out)
    entries = table.rows[0].entries
    assert entries["params"].mean == 28.288354
    assert entries["ap_box"].mean == 40.5
    assert table.rows[0].states["finished"] == 4
    assert "#Params (M): of the classification runs." in table.notes


def test_the_papers_classifier_cost_is_not_put_beside_a_detectors(out: Path) -> None:
    factors = {"backbone": ["Swin-Tiny"], "window_size": ["7"]}
    plan = make_plan(factors, paper="table8_window_size", tasks=("detection",))
    entries = build_table(plan, out).rows[0].entries
    assert entries["gmacs"].published is None
    assert entries["ap_box"].published == 43.7


def test_a_metric_that_finished_runs_do_not_report_is_noted(out: Path) -> None:
    plan = make_plan({"window_size": ["7"]}, columns=("top5",), seeds=(0,))
    finish(out, run_id(0, 0), metrics={"top1": 80.0})
    table = build_table(plan, out)
    assert table.rows[0].entries["top5"].status == "not reported"
    assert "Top-5 (%): finished runs do not report it." in table.notes


def test_cells_that_share_their_runs_say_so(out: Path) -> None:
    plan = make_plan({"window_size": ["7", "14"]}, columns=("top1",), seeds=(0, 1))
    runs = [replace(run, id=run_id(0, run.seed)) for run in plan.runs]
    for seed in (0, 1):
        finish(out, run_id(0, seed))
    table = build_table(replace(plan, runs=tuple(runs)), out)
    assert [row.same_as for row in table.rows] == [None, 0]
    assert "14 shares its runs with 7: same effective configuration." in table.notes
    assert not any("missing" in note for note in table.notes)


def test_rows_keep_the_plans_order_and_seeds_their_own(out: Path) -> None:
    plan = make_plan({"depths": ["2-2-6-2", "2-2-2-2"]}, seeds=(3, 1), columns=("top1",))
    table = build_table(plan, out)
    assert [row.labels["depths"] for row in table.rows] == ["2-2-6-2", "2-2-2-2"]
    assert table.seeds == (3, 1)


def test_failures_are_listed_once_per_cause_with_their_last_line(out: Path) -> None:
    plan = make_plan({"window_size": ["7"]}, columns=("top1",))
    fail(out, run_id(0, 0), reason="out of memory", last="Killed")
    fail(out, run_id(0, 1), reason="out of memory", last="Killed")
    corrupt(out, run_id(0, 2))
    notes = build_table(plan, out).notes
    failure = f"failed: 7, classification, seeds 0 and 1 ({run_id(0, 0)}, {run_id(0, 1)}): out of memory"
    assert f"{failure}; last line: Killed" in notes
    assert any(note.startswith("corrupt: 7, classification, seed 2") for note in notes)
    command = "focal-lab sweep sweeps/window_size.yaml trains the rest."
    assert f"0 of 3 runs finished, 2 failed, 1 corrupt: {command}" in notes


def test_the_command_names_the_folder_unless_it_is_the_default(out: Path) -> None:
    plan = make_plan({"window_size": ["7"]})
    command = build_table(plan, Path("elsewhere")).command
    assert command == "focal-lab sweep sweeps/window_size.yaml --out elsewhere"


def test_very_many_failures_are_cut_and_counted(out: Path) -> None:
    plan = make_plan({"window_size": [str(size) for size in range(12)]}, seeds=(0,))
    for cell in range(12):
        fail(out, run_id(cell, 0))
    notes = build_table(plan, out).notes
    assert sum(note.startswith("failed:") for note in notes) == 8
    assert notes[-1] == "... and 4 more: focal-lab report with --long."


def test_one_seed_says_that_it_cannot_tell_differences_from_noise(out: Path) -> None:
    plan = make_plan({"window_size": ["7"]}, seeds=(0,))
    finish(out, run_id(0, 0))
    assert any(note.startswith("One seed per cell: no spread") for note in build_table(plan, out).notes)


def test_rows_that_the_paper_lacks_are_named(out: Path, mixed: FakePlan) -> None:
    table = build_table(mixed, out)
    assert [row.in_paper for row in table.rows] == [True] * 4 + [False] * 2
    assert any(note.startswith("Not in the paper's table 8: my_<b>*|[red] / 7") for note in table.notes)


def test_a_sweep_without_paper_has_no_published_numbers(out: Path) -> None:
    table = build_table(make_plan({"focal_levels": ["1", "2"]}), out)
    assert table.cite is None
    assert all(entry.published is None for row in table.rows for entry in row.entries.values())
    assert "Measured on the suite digits; the paper has no such table." in table.notes


def test_an_unknown_paper_key_names_file_key_and_those_that_exist(out: Path) -> None:
    plan = make_plan({"window_size": ["7"]}, paper="table88")
    with pytest.raises(UserError, match=r"^sweeps/window_size.yaml: paper: 'table88' .*table8_window_size"):
        build_table(plan, out)


@pytest.mark.parametrize(
    ("size", "source", "paper", "note"),
    [
        ([28, 28], "options", None, "GMACs: of one input of 28 x 28 px."),
        (
            [28, 28],
            "options",
            "table8_window_size",
            "GMACs: of one input of 28 x 28 px; the paper's of 224 x 224 px: they do not compare.",
        ),
        ([224, 224], "options", "table8_window_size", "GMACs: of one input of 224 x 224 px."),
        (
            [800, 1088],
            "images",
            None,
            "GMACs: of one input of 800 x 1088 px, the size of most images when they are evaluated.",
        ),
        (
            [224, 224],
            "assumed",
            None,
            "GMACs: of one input of 224 x 224 px, assumed because the size of the images is unknown.",
        ),
    ],
)
def test_a_table_says_at_what_size_it_counts_and_whether_the_papers_numbers_compare(
    size: list[int], source: str, paper: str | None, note: str, out: Path
) -> None:
    factors = {"backbone": ["Focal-Tiny"], "window_size": ["7", "14"]}
    plan = make_plan(factors, paper=paper, seeds=(0,))
    finish(out, run_id(0, 0))
    assert not any(note.startswith("GMACs: of") for note in build_table(plan, out).notes)
    finish(out, run_id(1, 0), image_size=size, image_size_from=source)
    assert [found for found in build_table(plan, out).notes if found.startswith("GMACs: of")] == [note]
