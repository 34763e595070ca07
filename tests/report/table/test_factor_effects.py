import json
from dataclasses import replace
from itertools import product
from math import sqrt
from pathlib import Path
from random import Random
from statistics import fmean, variance
from typing import Any

import numpy as np
import pytest
from support.finished_runs import TESTED_ON, FakePlan, config, finish, make_plan, run_id

from focal_lab.report.formats.grid import table_sections
from focal_lab.report.formats.render import table_json, table_latex, table_markdown, table_text
from focal_lab.report.html.page import page
from focal_lab.report.statistics.crossed import ALPHA, Estimate, critical_value
from focal_lab.report.table.build import build_table
from focal_lab.report.table.records import Effect, Table
from focal_lab.training.predictions_file import write_predictions

TWO = {"backbone": ["Swin-Tiny", "Focal-Tiny"], "window_size": ["7", "14"]}
THREE = {"a": ["0", "1"], "b": ["x", "y", "z"], "c": ["off", "on"]}
IMAGES = 40


def train(plan: FakePlan, out: Path, gain: float = 6.0) -> dict[tuple[str, ...], list[list[bool]]]:
    """Finish all runs with predictions; cell -> seed -> image -> whether it is right."""
    noise = Random(7)
    hard = [noise.gauss(0, 1) for _ in range(IMAGES)]
    found: dict[tuple[str, ...], list[list[bool]]] = {}
    for number, cell in enumerate(plan.cells):
        found[tuple(cell.labels.values())] = []
        for seed in range(3):
            right = [hardness + gain / 10 * number + noise.gauss(0, 0.6) > 0 for hardness in hard]
            found[tuple(cell.labels.values())].append(right)
            top1 = 100 * sum(right) / IMAGES
            finish(out, run_id(number, seed), metrics={"top1": top1})
            label = np.zeros(IMAGES, np.int64)
            write_predictions(
                out / run_id(number, seed), {"label": label, "prediction": 1 - np.array(right, np.int64)}
            )
    return found


def one(effects: tuple[Effect, ...], kind: str, **levels: str) -> Effect:
    (found,) = [effect for effect in effects if effect.kind == kind and effect.levels == levels]
    return found


def crossed_by_hand(values: list[list[float]]) -> tuple[float, float]:
    """Mean of seed x image values, and half of its interval, by the textbook's sums of squares."""
    seeds, images = len(values), len(values[0])
    mean = fmean(map(fmean, values))
    of_seed = [fmean(row) for row in values]
    of_image = [fmean(row[place] for row in values) for place in range(images)]
    rest = sum(
        (values[s][i] - of_seed[s] - of_image[i] + mean) ** 2 for s in range(seeds) for i in range(images)
    ) / ((seeds - 1) * (images - 1))
    images_square = seeds * variance(of_image)
    from_images = max(0.0, images_square - rest) / (seeds * images)
    from_seeds = variance(of_seed) / seeds
    estimate = Estimate(seeds, mean, 1.0, from_seeds, from_images, images)
    return mean, critical_value(ALPHA, estimate) * sqrt(from_seeds + from_images)


def test_effects_have_crossed_intervals_as_recomputed_by_loops(out: Path) -> None:
    plan = make_plan(TWO, columns=("top1",))
    right = train(plan, out)
    effects = build_table(plan, out).effects
    signs = {
        "main effect": lambda backbone, size: 0.5 if size == "14" else -0.5,
        "interaction": lambda backbone, size: (
            (1 if size == "14" else -1) * (1 if backbone == "Focal-Tiny" else -1)
        ),
        "whole difference": lambda backbone, size: {("Focal-Tiny", "14"): 1, ("Swin-Tiny", "7"): -1}.get(
            (backbone, size), 0
        ),
    }
    for kind, sign in signs.items():
        levels = {"window_size": "14"} | ({} if kind == "main effect" else {"backbone": "Focal-Tiny"})
        found = one(effects, kind, **levels)
        contrast = [
            [100 * sum(sign(*cell) * right[cell][seed][image] for cell in right) for image in range(IMAGES)]
            for seed in range(3)
        ]
        mean, half_width = crossed_by_hand(contrast)
        assert found.difference == pytest.approx(mean, abs=1e-6)
        assert found.half_width == pytest.approx(half_width, rel=1e-4)
        assert (found.n, found.images) == (3, IMAGES)


def test_shares_add_up_to_the_whole_difference_even_if_cells_lack_seeds(out: Path) -> None:
    plan = make_plan(THREE, columns=("top1",), seeds=range(5))
    noise = Random(1)
    for number, seed in product(range(len(plan.cells)), range(5)):
        if (number, seed) not in {(3, 1), (11, 3)}:
            finish(out, run_id(number, seed), metrics={"top1": noise.gauss(80 + number, 1)})
    effects = build_table(plan, out).effects
    whole = one(effects, "whole difference", a="1", b="z", c="on")
    shares = [effect for effect in effects if effect.kind == "share"]
    assert [effect.levels for effect in shares] == [{"a": "1"}, {"b": "z"}, {"c": "on"}]
    assert sum(effect.difference for effect in shares) == pytest.approx(whole.difference, rel=1e-12)
    assert sum(effect.percent or 0 for effect in shares) == pytest.approx(100, rel=1e-12)
    assert {effect.n for effect in effects} == {3}


def test_a_claim_about_a_share_has_the_numbers_of_the_table(out: Path) -> None:
    plan = make_plan(TWO, columns=("top1",), expect=("shapley(window_size) > 0", "14 > 7"))
    train(plan, out)
    table = build_table(plan, out)
    share, claim = one(table.effects, "share", window_size="14"), table.answers[0]
    assert claim.difference == pytest.approx(share.difference)
    assert claim.half_width == pytest.approx(share.half_width)
    main = one(table.effects, "main effect", window_size="14")
    assert table.answers[1].difference == pytest.approx(main.difference)


def test_levels_are_compared_with_the_baselines(out: Path) -> None:
    plan = make_plan(TWO, columns=("top1",), baseline={"window_size": "14"})
    train(plan, out)
    assert one(build_table(plan, out).effects, "main effect", window_size="7").references == {
        "window_size": "14"
    }


def without_effects(out: Path, plan: FakePlan, **changes: Any) -> Table:
    """The table after one run was finished in another way than the others."""
    for number, seed in product(range(len(plan.cells)), range(3)):
        differs = number == len(plan.cells) - 1
        finish(out, run_id(number, seed), metrics={"top1": 80.0 + seed}, **(changes if differs else {}))
    table = build_table(plan, out)
    assert table.effects == ()
    assert not any(section.name.startswith("effects") for section in table_sections(table))
    return table


def test_one_factor_has_no_effects_of_factors(out: Path) -> None:
    without_effects(out, make_plan({"window_size": ["7", "14"], "only": ["x"]}, columns=("top1",)))


def test_rows_that_are_not_all_combinations_have_no_effects(out: Path) -> None:
    plan = make_plan(TWO, columns=("top1",))
    without_effects(out, replace(plan, cells=plan.cells[:3], runs=plan.runs[:9]))


def test_runs_that_were_tested_on_different_images_have_no_effects(out: Path) -> None:
    without_effects(out, make_plan(TWO, columns=("top1",)), tested_on=TESTED_ON | {"images": "99"})


def test_a_cell_without_results_leaves_no_effects(out: Path) -> None:
    plan = make_plan(TWO, columns=("top1",))
    for number in range(3):
        finish(out, run_id(number, 0))
    assert build_table(plan, out).effects == ()


def test_other_data_has_effects_only_with_a_baseline(out: Path) -> None:
    other = config({"window_size": 7})
    other["data"] = {"class_path": "EmbeddedDigits", "init_args": {"img_size": 112}}
    table = without_effects(out, make_plan(TWO, columns=("top1",)), config=other)
    assert any(row.data for row in table.rows)
    named = make_plan(TWO, columns=("top1",), baseline={"window_size": "7"})
    assert build_table(named, out).effects


def test_percentages_need_a_whole_difference_that_is_not_zero(out: Path) -> None:
    plan = make_plan(TWO, columns=("top1",))
    train(plan, out, gain=0.0)
    table = build_table(plan, out)
    assert all(effect.percent is None for effect in table.effects)
    assert "Shares have no percentage" in " ".join(table.notes)
    (section,) = [section for section in table_sections(table) if section.name == "effects-top1"]
    assert "share" not in [strip.heading for strip in section.strips]


def test_two_factors_of_two_levels_show_each_share_once(out: Path) -> None:
    plan = make_plan(TWO, columns=("top1",))
    train(plan, out)
    table = build_table(plan, out)
    (section,) = [section for section in table_sections(table) if section.name == "effects-top1"]
    cells = {strip.heading: strip.cells for strip in section.strips}
    assert cells["effect"] == ("main effect", "main effect", "interaction", "whole difference")
    assert cells["factor"] == ("backbone", "window size", "backbone, window size", "all")
    assert cells["levels"][2:] == (
        "Swin-Tiny to Focal-Tiny, 7 to 14",
        "Swin-Tiny / 7 to Focal-Tiny / 14",
    )
    percents = [one(table.effects, "share", **levels).percent for levels in shares_of(table)]
    assert cells["share"] == (f"{percents[0]:.0f} %", f"{percents[1]:.0f} %", cells["share"][2], "100 %")


def shares_of(table: Table) -> list[dict[str, str]]:
    return [effect.levels for effect in table.effects if effect.kind == "share"]


def test_all_formats_show_the_effects(out: Path) -> None:
    plan = make_plan(TWO, columns=("top1",))
    train(plan, out)
    table = build_table(plan, out)
    difference = f"{one(table.effects, 'main effect', window_size='14').difference:+.1f}"
    for shown in (table_text(table), table_markdown(table), table_latex(table), page(table, plan, out)):
        assert "Effects of the factors on" in shown
        assert "Swin-Tiny to Focal-Tiny" in shown
        assert difference in shown.replace("\\", "")
    read = json.loads(table_json(table))["effects"]
    assert len(read) == 6
    assert read[0] | {"levels": {"backbone": "Focal-Tiny"}, "metric": "top1", "n": 3} == read[0]
    assert table.frame.attrs["effects"] == read


def test_many_levels_are_shortened_and_the_notes_say_so(out: Path) -> None:
    factors = {"a": [f"a{n}" for n in range(5)], "b": [f"b{n}" for n in range(4)]}
    plan = make_plan(factors, columns=("top1",))
    train(plan, out, gain=1.0)
    table = build_table(plan, out)
    (section,) = [section for section in table_sections(table) if section.name == "effects-top1"]
    (kinds,) = [strip.cells for strip in section.strips if strip.heading == "effect"]
    assert kinds == (*["main effect"] * 7, "share", "share", "whole difference")
    assert "12 more effects, such as interactions of many levels: --format json." in table.notes
    assert sum(effect.kind == "interaction" for effect in table.effects) == 12


def test_intervals_are_said_to_be_uncorrected(out: Path) -> None:
    plan = make_plan(TWO, columns=("top1",))
    train(plan, out)
    table = build_table(plan, out)
    assert "not corrected for several comparisons" in " ".join(table.notes)
    one_factor = make_plan({"window_size": ["7", "14"]}, columns=("top1",))
    assert "not corrected" not in " ".join(build_table(one_factor, out).notes)
