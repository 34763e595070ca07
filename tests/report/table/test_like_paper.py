"""Differences from the paper are shown for its data and networks only, and other networks say so."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from support.finished_runs import TESTED_ON, FakePlan, finish, make_plan, run_id

from focal_lab.report.formats.grid import table_grid, table_sections
from focal_lab.report.formats.latex import table_latex
from focal_lab.report.formats.render import flat_table, table_json, table_markdown, table_text
from focal_lab.report.table.build import build_table
from focal_lab.report.table.records import Table, shown_name
from focal_lab.sweep.spec.sweep_file import Level

FACTORS = {"backbone": ["Swin-Tiny", "Focal-Tiny"], "window_size": ["7", "14"]}
BACKBONES = {"Swin-Tiny": "focal_swin_tiny", "Focal-Tiny": "focal_tiny"}
LEVELS = {
    "backbone": tuple(Level(label, {"backbone": name}) for label, name in BACKBONES.items()),
    "window_size": tuple(Level(label, {"window_size": int(label)}) for label in ("7", "14")),
}


def table_8(**factors: tuple[Level, ...]) -> FakePlan:
    plan = make_plan(
        FACTORS, paper="table8_window_size", columns=("params", "top1"), baseline={"window_size": "7"}
    )
    return replace(plan, sweep=replace(plan.sweep, factors=factors or LEVELS))


def micro(plan: FakePlan) -> FakePlan:
    """The plan on a suite that replaces its networks, as that of the digits does."""
    runs = tuple(
        replace(
            run,
            stands_for=BACKBONES[run.cell.labels["backbone"]],
            backbone=BACKBONES[run.cell.labels["backbone"]].replace("tiny", "micro") + "_patch2_window7_28",
        )
        for run in plan.runs
    )
    return replace(plan, runs=runs)


def reported(plan: FakePlan, out: Path, **changes: object) -> Table:
    for cell in range(4):
        for seed in range(3):
            finish(out, run_id(cell, seed), **changes)
    return build_table(plan, out)


def headings(table: Table) -> list[str]:
    return [strip.heading for strip in table_grid(table)]


def test_the_papers_data_and_networks_are_compared_with_its_numbers(out: Path) -> None:
    table = reported(table_8(), out)
    assert headings(table)[-4:] == ["Top-1 (%)", "paper", "diff", "Runs"]
    assert table.rows[0].entries["top1"].difference == pytest.approx(87.5 - 81.2)
    section = table_sections(table)[0]
    assert "paper" in [strip.heading for strip in section.strips]
    assert (table.rows[0].variant, table.rows[0].network) == ("", "focal_tiny_patch4_window7_224")
    assert not any("not the paper's" in note or "not shown" in note for note in table.notes)


def test_a_network_that_the_suite_replaces_is_called_what_it_is(out: Path) -> None:
    table = reported(micro(table_8()), out, params=590_000)
    assert list(table_grid(table)[0].cells) == [
        "Swin-Tiny (micro)",
        "Swin-Tiny (micro)",
        "Focal-Tiny (micro)",
        "Focal-Tiny (micro)",
    ]
    # other factors do not name the network
    assert list(table_grid(table)[1].cells) == ["7", "14", "7", "14"]
    section, effects = table_sections(table)
    assert "Focal-Tiny (micro) / 7" in section.strips[2].cells
    assert effects.strips[2].cells[0] == "Swin-Tiny (micro) to Focal-Tiny (micro)"
    assert "Networks: focal_swin_micro, focal_micro (0.59 M parameters); not the paper's." in table.notes


def test_every_format_names_a_replaced_network_and_keeps_the_labels_as_identifiers(out: Path) -> None:
    table = reported(micro(table_8()), out, params=590_000)
    for text in (table_text(table), table_markdown(table), table_latex(table)):
        assert "Focal-Tiny (micro)" in text
        assert "not the paper's" in text
    flat = flat_table(table)
    assert flat["backbone"].tolist() == ["Swin-Tiny", "Swin-Tiny", "Focal-Tiny", "Focal-Tiny"]
    assert flat["variant"].tolist() == ["micro"] * 4
    assert flat["network"][2] == "focal_micro_patch2_window7_28"
    row = json.loads(table_json(table))["rows"][3]
    assert row["labels"] == {"backbone": "Focal-Tiny", "window_size": "14"}
    assert row["shown"] == {"backbone": "Focal-Tiny (micro)", "window_size": "14"}
    assert (row["network"], row["variant"]) == ("focal_micro_patch2_window7_28", "micro")


def test_another_network_has_the_papers_number_beside_it_and_no_difference(out: Path) -> None:
    table = reported(micro(table_8()), out, params=590_000)
    assert headings(table)[-3:] == ["Top-1 (%)", "paper", "Runs"]
    entry = table.rows[0].entries["top1"]
    assert (entry.published, entry.difference, entry.unlike_paper) == (81.2, None, ("network",))
    assert flat_table(table)["top1_diff"].isna().all()
    # nor is the paper's difference shown beside that of two other networks
    section = table_sections(table)[0]
    assert "paper" not in [strip.heading for strip in section.strips]
    assert table.frame["top1", "delta_paper"].isna().all()
    assert "Differences from the paper are not shown: its networks are different." in table.notes


def test_other_data_have_the_papers_number_beside_them_and_no_difference(out: Path) -> None:
    table = reported(replace(table_8(), paper_images={"detection": 5000}), out)
    assert headings(table)[-3:] == ["Top-1 (%)", "paper", "Runs"]
    assert table.rows[0].entries["top1"].unlike_paper == ("data",)
    # counts of parameters need no data
    assert table.rows[0].entries["params"].unlike_paper == ()
    assert table_grid(table)[0].cells[0] == "Swin-Tiny"
    assert "Differences from the paper are not shown: its data are different." in table.notes


def test_runs_that_were_tested_on_another_number_of_images_are_not_of_the_papers_data(out: Path) -> None:
    finish(out, run_id(0, 0), tested_on=TESTED_ON | {"count": 1999})
    finish(out, run_id(1, 0))
    table = build_table(table_8(), out)
    assert [row.entries["top1"].unlike_paper for row in table.rows[:2]] == [("data",), ()]
    assert "Differences from the paper are not shown everywhere: its data are different." in table.notes


def test_results_that_do_not_say_what_they_were_tested_on_are_of_the_suites_data(out: Path) -> None:
    table = reported(table_8(), out, tested_on={})
    assert table.rows[0].entries["top1"].unlike_paper == ()


@pytest.mark.parametrize(("params", "variant"), [(27_400_000, "27.4 M"), (27_500_000, ""), (29_970_000, "")])
def test_a_network_of_another_size_than_the_published_one_says_its_size(
    out: Path, params: int, variant: str
) -> None:
    table = reported(table_8(), out, params=params)
    assert {row.variant for row in table.rows} == {variant}
    assert shown_name(table.rows[2]) == f"Focal-Tiny{f' ({variant})' if variant else ''} / 7"
    assert (table.rows[2].entries["top1"].difference is None) == bool(variant)


def test_a_row_that_the_paper_prints_the_size_of_is_held_against_that(out: Path) -> None:
    factors = {"backbone": ["Swin-Tiny", "Focal-Tiny"], "depths": ["2-2-2-2"]}
    plan = make_plan(factors, paper="table10_depth", columns=("params", "top1"))
    for cell in range(2):
        finish(out, run_id(cell, 0), params=21_300_000)
    swin, focal = build_table(plan, out).rows
    assert (swin.variant, focal.variant) == ("", "")
    for cell in range(2):
        finish(out, run_id(cell, 0), params=28_300_000)
    assert [row.variant for row in build_table(plan, out).rows] == ["28.3 M", "28.3 M"]


def test_labels_of_a_factor_that_does_not_choose_the_network_stay_and_a_note_names_it(out: Path) -> None:
    plan = make_plan({"interactions": ["Window", "+Local"]}, paper="figure5_local_global", columns=("top1",))
    levels = (
        Level("Window", {"backbone": "focal_tiny", "focal_levels": 1, "expand_sizes": 0}),
        Level("+Local", {"backbone": "focal_tiny", "focal_levels": 1}),
    )
    runs = tuple(
        replace(run, stands_for="focal_tiny", backbone="focal_micro_patch2_window7_28") for run in plan.runs
    )
    plan = replace(plan, runs=runs, sweep=replace(plan.sweep, factors={"interactions": levels}))
    table = build_table(plan, out)
    assert list(table_grid(table)[0].cells) == ["Window", "+Local"]
    assert "Networks: focal_micro; not the paper's." in table.notes


def test_a_backbone_of_another_family_is_named_in_full(out: Path) -> None:
    plan = table_8()
    runs = tuple(replace(run, stands_for="focal_tiny", backbone="swin_nano_patch4") for run in plan.runs)
    assert {row.variant for row in build_table(replace(plan, runs=runs), out).rows} == {"swin_nano"}
