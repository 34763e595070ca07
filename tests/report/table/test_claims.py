import io
import json
import random
from pathlib import Path

import pandas as pd
import pytest
from scipy import stats
from support.finished_runs import FakePlan, finish, make_plan, run_id

from focal_lab.report.formats.grid import claim_words
from focal_lab.report.formats.render import (
    csv,
    flat_table,
    parquet,
    table_json,
    table_markdown,
    table_text,
)
from focal_lab.report.table.build import build_table
from focal_lab.report.table.claims import overall

SWIN7, SWIN14, FOCAL7, FOCAL14 = range(4)


def finished_sweep(out: Path, top1s: dict[int, tuple[float, ...]], *expect: str) -> FakePlan:
    factors = {"backbone": ["Swin-Tiny", "Focal-Tiny"], "window_size": ["7", "14"]}
    plan = make_plan(
        factors, paper="table8_window_size", claim="Focal wins.", expect=expect, columns=("top1",)
    )
    for cell, values in top1s.items():
        for seed, top1 in enumerate(values):
            finish(out, run_id(cell, seed), metrics={"top1": top1})
    return plan


def test_a_part_has_the_p_value_of_the_paired_test_corrected_for_all_comparisons(out: Path) -> None:
    focal, swin = (84.0, 86.5, 84.5), (83.5, 84.0, 83.0)
    plan = finished_sweep(out, {FOCAL7: focal, SWIN14: swin}, "Focal-Tiny/7 >= Swin-Tiny/14")
    (answer,) = build_table(plan, out).answers
    assert answer.p == pytest.approx(stats.ttest_rel(focal, swin).pvalue)
    assert answer.p_holm == pytest.approx(answer.p)  # the only comparison: the first row has no runs
    assert (answer.n, answer.published) == (3, pytest.approx(0.1))
    assert answer.difference == pytest.approx(1.5)
    assert answer.verdict == "inconclusive"


@pytest.mark.parametrize(
    ("focal", "verdict"),
    [
        ((90.0, 91.5, 90.5), "supported"),
        ((70.0, 71.5, 70.5), "contradicted"),
        ((80.0, 82.5, 79.9), "inconclusive"),
        ((80.0, 82.5), "too few seeds"),
        ((80.0,), "too few seeds"),
        ((), "too few seeds"),
        ((80.0, 81.0, 80.5), "no spread"),
        ((90.0, 91.0, 90.5), "no spread"),
    ],
)
def test_verdicts(focal: tuple[float, ...], verdict: str, out: Path) -> None:
    swin = (80.0, 81.0, 80.5)
    plan = finished_sweep(out, {FOCAL7: focal, SWIN7: swin}, "Focal-Tiny/7 > Swin-Tiny/7")
    (answer,) = build_table(plan, out).answers
    assert answer.verdict == verdict
    assert (answer.p is None) == (len(focal) < 2 or verdict == "no spread")


def test_a_margin_and_its_direction_count(out: Path) -> None:
    values = {FOCAL7: (84.0, 84.55, 84.25), SWIN7: (80.0, 80.5, 80.3)}
    plan = finished_sweep(out, values, "Focal-Tiny/7 > Swin-Tiny/7 + 5", "Swin-Tiny/7 < Focal-Tiny/7 - 3")
    first, second = build_table(plan, out).answers
    assert first.difference == pytest.approx(-1.0)
    assert first.verdict == "contradicted"
    assert second.difference == pytest.approx(1.0)
    assert second.verdict == "supported"


def test_a_factor_that_is_not_named_is_averaged_over(out: Path) -> None:
    values = {
        SWIN7: (80.0, 81.0, 82.0),
        SWIN14: (82.0, 83.0, 84.0),
        FOCAL7: (84.0, 85.0, 86.5),
        FOCAL14: (86.0, 86.0, 87.0),
    }
    (answer,) = build_table(finished_sweep(out, values, "Focal-Tiny > Swin-Tiny"), out).answers
    contrasts = [(84 + 86 - 80 - 82) / 2, (85 + 86 - 81 - 83) / 2, (86.5 + 87 - 82 - 84) / 2]
    assert answer.difference == pytest.approx(sum(contrasts) / 3)
    assert answer.published == pytest.approx((82.2 + 82.3 - 81.2 - 82.1) / 2)


def test_the_claim_is_supported_if_all_parts_are(out: Path) -> None:
    values = {SWIN7: (80.0, 81.0, 80.5), FOCAL7: (90.0, 91.1, 90.5), SWIN14: (85.0, 86.1, 85.4)}
    plan = finished_sweep(out, values, "Focal-Tiny/7 > Swin-Tiny/7", "Focal-Tiny/7 > Swin-Tiny/14")
    answers = build_table(plan, out).answers
    assert overall(answers) == "supported"
    assert claim_words(answers) == "Supported: all 2 parts are."


def test_one_open_part_leaves_the_claim_open(out: Path) -> None:
    values = {SWIN7: (80.0, 81.0, 80.5), FOCAL7: (90.0, 91.1, 90.5), SWIN14: (80.0, 81.5, 80.1)}
    plan = finished_sweep(out, values, "Focal-Tiny/7 > Swin-Tiny/7", "Swin-Tiny/14 > Swin-Tiny/7")
    table = build_table(plan, out)
    assert overall(table.answers) == "inconclusive"
    words = claim_words(table.answers)
    assert words == "Inconclusive: 1 of 2 parts is supported."
    assert f"Does the claim hold? {words}" in table_text(table)
    assert "Does the claim hold?" in table_markdown(table)


def test_if_no_part_is_supported_the_headline_counts_none(out: Path) -> None:
    values = {SWIN7: (80.0, 81.0, 80.5), FOCAL7: (80.1, 80.2, 80.9), SWIN14: (80.0, 81.5, 80.1)}
    plan = finished_sweep(out, values, "Focal-Tiny/7 > Swin-Tiny/7", "Swin-Tiny/14 > Swin-Tiny/7")
    assert claim_words(build_table(plan, out).answers) == "Inconclusive: 0 of 2 parts are supported."


def test_one_contradicted_part_contradicts_the_claim(out: Path) -> None:
    values = {SWIN7: (80.0, 81.0, 80.5), FOCAL7: (90.0, 91.1, 90.5), SWIN14: (60.0, 61.1, 60.5)}
    plan = finished_sweep(out, values, "Focal-Tiny/7 > Swin-Tiny/7", "Swin-Tiny/14 > Swin-Tiny/7")
    answers = build_table(plan, out).answers
    assert [answer.verdict for answer in answers] == ["supported", "contradicted"]
    assert overall(answers) == "contradicted"
    assert claim_words(answers) == "Contradicted: 1 of 2 parts is."


def test_a_part_without_seeds_says_so(out: Path) -> None:
    plan = finished_sweep(out, {FOCAL7: (80.0,), SWIN7: (79.0,)}, "Focal-Tiny/7 > Swin-Tiny/7")
    table = build_table(plan, out)
    assert table.answers[0].verdict == "too few seeds"
    assert claim_words(table.answers) == "Inconclusive: too few seeds."


def test_claims_are_rows_of_the_csv_and_the_verdict_is_in_the_json(out: Path) -> None:
    values = {SWIN7: (80.0, 81.0, 80.5), FOCAL7: (90.0, 91.1, 90.5), SWIN14: (60.0, 61.1, 60.5)}
    plan = finished_sweep(out, values, "Focal-Tiny/7 > Swin-Tiny/7", "Swin-Tiny/14 ~ Swin-Tiny/7 within 1")
    table = build_table(plan, out)
    rows = pd.read_csv(io.StringIO(csv(flat_table(table))))
    assert list(rows["claim"].fillna("")) == ["", "", "", "", *(answer.text for answer in table.answers)]
    for row, answer in zip(rows.iloc[4:].to_dict("records"), table.answers, strict=True):
        assert row["top1_verdict"] == answer.verdict
        found = [row[f"top1_{name}"] for name in ("delta", "delta_ci95", "p", "p_holm", "margin", "n")]
        expected = [answer.difference, answer.half_width, answer.p, answer.p_holm, answer.margin, answer.n]
        assert found == pytest.approx(expected)
    assert list(rows["planned"].dropna()) == [3, 3, 3, 3]
    assert flat_table(table)["top1_n"].tolist()[-2:] == [3, 3]
    assert str(flat_table(table)["top1_n"].dtype) == "Int64"  # a CSV has 3, not 3.0
    assert parquet(flat_table(table))
    assert json.loads(table_json(table))["verdict"] == "contradicted"


@pytest.mark.parametrize("seed", range(8))
def test_rows_and_claims_about_the_same_contrast_agree(seed: int, out: Path) -> None:
    """On random data, with effects from none to large."""
    draw = random.Random(seed)
    expect = [
        "Swin-Tiny/14 > Swin-Tiny/7",
        "Focal-Tiny/7 >= Swin-Tiny/7",
        "Swin-Tiny/7 > Focal-Tiny/14",
        "Swin-Tiny/7 ~ Swin-Tiny/14 within 0.5",
        "Focal-Tiny/7 ~ Swin-Tiny/7 within 0.5",
    ]
    spread = draw.choice([0.02, 0.1, 0.5])
    values = {}
    for cell in range(4):
        effect = draw.choice([0.0, 0.1, 1.0, 5.0]) * draw.choice([-1, 1])
        values[cell] = tuple(80 + effect + draw.gauss(0, spread) for _ in range(4))
    table = build_table(finished_sweep(out, values, *expect), out)
    rows = [row.entries["top1"].compared for row in table.rows]
    allowed = {
        "better": ("supported", "contradicted"),
        "worse": ("contradicted", "supported"),
        "inconclusive": ("inconclusive", "inconclusive"),
        "equivalent within 0.5": ("equivalent within 0.5", "equivalent within 0.5"),
    }
    for place, row_index, way in ((0, 1, 0), (1, 2, 0), (2, 3, 1)):
        row, answer = rows[row_index], table.answers[place]
        assert row is not None
        assert answer.verdict == allowed[row.verdict][way]
        assert answer.p_holm == row.p_holm
        assert abs(answer.difference or 0) == pytest.approx(abs(row.difference or 0))
    for place, row_index in ((3, 1), (4, 2)):
        row, answer = rows[row_index], table.answers[place]
        assert row is not None
        assert answer.p_equivalent == row.p_equivalent
        assert (answer.verdict == "supported") == ((row.p_equivalent or 0) < 0.05)
        if row.verdict.startswith("equivalent"):
            assert answer.verdict == "supported"
        if answer.verdict == "contradicted":
            assert row.verdict in ("better", "worse")


def test_exaggeration_is_that_of_plain_differences(out: Path) -> None:
    values = {SWIN7: (80.0, 81.0, 80.5), SWIN14: (60.0, 61.1, 60.5)}
    plan = finished_sweep(
        out,
        values,
        "Swin-Tiny/7 > Swin-Tiny/14",
        "Swin-Tiny/14 ~ Swin-Tiny/7 within 1",
        "Swin-Tiny/7 >= Swin-Tiny/14 within 1",
    )
    found = build_table(plan, out).answers
    assert [answer.verdict for answer in found] == ["supported", "contradicted", "supported"]
    assert [answer.exaggeration is None for answer in found] == [False, True, True]


def test_a_claim_not_to_be_worse_by_a_margin_is_another_one_the_other_way_round(out: Path) -> None:
    values = {SWIN7: (80.0, 81.0, 80.5), SWIN14: (80.31, 81.29, 80.8)}
    plan = finished_sweep(
        out, values, "Swin-Tiny/14 >= Swin-Tiny/7 within 0.3", "Swin-Tiny/7 >= Swin-Tiny/14 within 0.3"
    )
    first, second = build_table(plan, out).answers
    assert (first.verdict, second.verdict) == ("supported", "inconclusive")
    assert second.p != first.p


def test_a_part_that_asks_for_a_difference_is_equivalent_if_its_row_is(out: Path) -> None:
    equal, same = (84.0, 86.5, 84.5, 85.0), (84.1, 86.5, 84.5, 84.9)
    plan = finished_sweep(out, {SWIN7: equal, SWIN14: same}, "Swin-Tiny/14 > Swin-Tiny/7")
    table = build_table(plan, out)
    compared = table.rows[SWIN14].entries["top1"].compared
    assert compared is not None
    assert compared.verdict == "equivalent within 0.5"
    assert compared.p_equivalent is not None
    assert table.answers[0].verdict == compared.verdict
    assert table.answers[0].p_equivalent == compared.p_equivalent
    assert claim_words(table.answers) == "Inconclusive: equivalent within 0.5."


def test_a_part_with_a_tolerance_and_one_that_no_row_asks_have_no_test_of_equivalence(out: Path) -> None:
    equal, same = (84.0, 86.5, 84.5, 85.0), (84.1, 86.5, 84.5, 84.9)
    plan = finished_sweep(
        out,
        {SWIN14: equal, FOCAL14: same, SWIN7: (70.0, 71.0, 70.2, 70.5)},
        "Focal-Tiny/14 > Swin-Tiny/14",
        "Swin-Tiny/14 >= Focal-Tiny/14 within 0.05",
    )
    answers = build_table(plan, out).answers
    assert [answer.verdict for answer in answers] == ["inconclusive", "inconclusive"]
    assert [answer.p_equivalent for answer in answers] == [None, None]
