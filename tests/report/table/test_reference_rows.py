from pathlib import Path

import pytest
from support.finished_runs import finish, make_plan, run_id

from focal_lab.report.formats.grid import table_grid
from focal_lab.report.formats.render import table_markdown
from focal_lab.report.table.build import build_table
from focal_lab.report.table.notes import shortcomings


def test_a_comparison_shows_the_papers_other_networks_in_the_papers_order(out: Path) -> None:
    plan = make_plan(
        {"backbone": ["Focal-Tiny", "Swin-Tiny", "Mine"]},
        paper="table2_imagenet1k",
        columns=("params", "gmacs", "top1"),
    )
    for cell in range(3):
        for seed in range(3):
            finish(out, run_id(cell, seed), metrics={"top1": 80 + cell + (0.1, 0.5, -0.2)[seed] * (1 + cell)})
    table = build_table(plan, out)
    names = [row.labels["backbone"] for row in table.rows]
    assert names[:7] == [
        "ResNet-50",
        "DeiT-Small/16",
        "PVT-Small",
        "ViL-Small",
        "CvT-13",
        "Swin-Tiny",
        "Focal-Tiny",
    ]
    assert names[-1] == "Mine"
    assert len(names) == 21
    swin, focal = table.rows[5], table.rows[6]
    assert (swin.reference, table.rows[0].reference) == (False, True)
    assert (swin.baseline, focal.baseline, table.rows[0].baseline) == (None, 5, None)
    assert table.rows[0].entries["top1"].published == 76.2
    assert table_grid(table)[-1].cells[0] == "paper only"
    assert shortcomings(table) == []
    assert "Not in the paper's table 2: Mine." in table.notes
    assert list(table.frame.index) == names
    assert "| ResNet-50 | " in table_markdown(table)


def test_detectors_stand_side_by_side_and_count_their_own_network(out: Path) -> None:
    factors = {"backbone": ["Swin-Tiny", "Focal-Tiny"], "detector": ["RetinaNet", "Mask R-CNN"]}
    columns = ("params", "gmacs", "ap_box", "ap_mask")
    plan = make_plan(factors, paper="table12_coco_1x_full", tasks=("detection",), columns=columns)
    metrics = {"ap_box": 40.0, "ap_mask": 36.0}
    for cell in range(4):
        for seed in range(3):
            measured = {"ap_box": 40.0 + seed} if cell % 2 == 0 else metrics
            finish(out, run_id(cell, seed, "detection"), task="detection", metrics=measured)
    table = build_table(plan, out)
    row = next(
        row for row in table.rows if row.labels == {"backbone": "Focal-Tiny", "detector": "Mask R-CNN"}
    )
    assert row.entries["gmacs"].published == 291.0
    assert row.entries["ap_mask"].published == 41.0
    before = table.rows[table.rows.index(row) - 1]
    assert before.labels == {"backbone": "Focal-Tiny", "detector": "RetinaNet"}
    assert before.entries["ap_mask"].published is None


def test_a_claim_is_about_the_sweeps_own_rows(out: Path) -> None:
    plan = make_plan(
        {"backbone": ["Swin-Tiny", "Focal-Tiny"], "detector": ["Mask R-CNN"]},
        paper="table12_coco_1x_full",
        tasks=("detection",),
        columns=("ap_box",),
        expect=["Focal-Tiny > Swin-Tiny"],
    )
    for cell, values in enumerate([(40.0, 40.5, 40.2), (43.0, 43.4, 43.3)]):
        for seed, value in enumerate(values):
            finish(out, run_id(cell, seed, "detection"), task="detection", metrics={"ap_box": value})
    table = build_table(plan, out)
    assert any(row.labels == {"backbone": "Swin-Tiny", "detector": "RetinaNet"} for row in table.rows)
    (answer,) = table.answers
    assert (answer.n, answer.verdict) == (3, "supported")
    assert answer.difference == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("paper", "task", "labels", "published"),
    [
        (
            "table4_coco_3x_MS",
            "detection",
            {"backbone": "Focal-Tiny", "detector": "RetinaNet"},
            (39.4, 265.0),
        ),
        (
            "table12_coco_1x_full",
            "detection",
            {"backbone": "Focal-Tiny", "detector": "Mask R-CNN"},
            (48.8, 291.0),
        ),
        ("table7_ade20k", "segmentation", {"backbone": "Focal-Tiny"}, (62.0, 998.0)),
    ],
)
def test_detectors_and_segmenters_are_counted_though_their_sweeps_classify_first(
    paper: str, task: str, labels: dict[str, str], published: tuple[float, float], out: Path
) -> None:
    factors = {factor: [label] for factor, label in labels.items()}
    columns = ("params", "gmacs", "train_seconds", "miou", "ap_box")
    tasks = ("classification", task)
    plan = make_plan(factors, paper=paper, tasks=tasks, columns=columns, seeds=(0,))
    finish(out, run_id(0, 0))
    counts = {"params": 48_800_000, "gmacs": 290.5, "train_seconds": 99.0}
    finish(out, run_id(0, 0, task), task=task, metrics={"miou": 45.0, "ap_box": 40.0}, **counts)
    table = build_table(plan, out)
    (row,) = [row for row in table.rows if not row.reference]
    params, gmacs = row.entries["params"], row.entries["gmacs"]
    assert (params.published, gmacs.published) == published
    assert (params.mean, gmacs.mean, row.entries["train_seconds"].mean) == (48.8, 290.5, 99.0)
    assert f"#Params (M), GMACs and Train (s): of the {task} runs." in table.notes


@pytest.mark.parametrize("factors", [{"backbone": ["Focal-Tiny"], "depths": ["2-2-6-2"]}, {"depths": ["2"]}])
def test_a_sweep_that_varies_something_else_has_its_own_rows_only(
    factors: dict[str, list[str]], out: Path
) -> None:
    table = build_table(make_plan(factors, paper="table2_imagenet1k", columns=("top1",)), out)
    assert len(table.rows) == 1


def test_without_a_comparison_the_papers_other_rows_stay_away(out: Path) -> None:
    plan = make_plan({"backbone": ["Swin-Tiny"], "window_size": ["7"]}, paper="table8_window_size")
    assert len(build_table(plan, out).rows) == 1
