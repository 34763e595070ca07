"""What a planned sweep can detect."""

from math import sqrt
from pathlib import Path

import pytest
from scipy import stats
from support import ROOT
from support.finished_runs import finish

from focal_lab.report.power_plan import ASSUMED_SD, metric_powers, power_text
from focal_lab.sweep.plan.plan import Plan, make_plan

SWEEP = ROOT / "sweeps" / "window_size.yaml"


def planned(seeds: int = 3) -> Plan:
    return make_plan(SWEEP, seeds=seeds)


def finish_with(plan: Plan, out: Path, top1s: dict[str, tuple[float, ...]]) -> None:
    for run in plan.runs:
        if run.cell.name in top1s:
            metrics = {"top1": top1s[run.cell.name][run.seed]}
            finish(out, run.id, seed=run.seed, metrics=metrics, identity=run.identity)


def test_without_runs_the_spread_is_assumed_and_the_text_says_so(tmp_path: Path) -> None:
    (power,) = metric_powers(planned(), tmp_path)
    assert (power.metric, power.seed_sd, power.image_error, power.seeds) == ("top1", ASSUMED_SD, None, 3)
    assert power.difference == 0.5
    # two rows and three parts of the claim, of which two are the same tests as the rows
    assert power.level == pytest.approx(0.05 / 3)
    assert "assumed" in power_text([power], None)


def test_the_seeds_that_are_needed_are_those_of_the_t_test(tmp_path: Path) -> None:
    (power,) = metric_powers(planned(), tmp_path, 1.0)
    needed = power.seeds_needed
    assert needed is not None

    def found(seeds: int) -> float:
        critical = stats.t.ppf(1 - power.level / 2, seeds - 1)
        return float(stats.nct.sf(critical, seeds - 1, sqrt(seeds) / ASSUMED_SD))

    assert found(needed) >= 0.795
    assert found(needed - 1) < 0.805


def test_the_sweeps_own_runs_tell_the_spread(tmp_path: Path) -> None:
    plan = planned()
    finish_with(plan, tmp_path, {"Swin-Tiny, 7": (80.0, 81.0, 82.0), "Swin-Tiny, 14": (80.5, 80.5, 83.0)})
    (power,) = metric_powers(plan, tmp_path)
    assert power.seed_sd == pytest.approx(stats.tstd([0.5, -0.5, 1.0]))


def test_other_runs_on_the_same_data_tell_it_too(tmp_path: Path) -> None:
    plan = planned()
    finish_with(plan, tmp_path, {"Focal-Tiny, 14": (80.0, 81.0, 82.0)})
    (power,) = metric_powers(plan, tmp_path)
    assert power.seed_sd == pytest.approx(sqrt(2))
    assert "not paired" in power.source


def test_one_seed_detects_nothing(tmp_path: Path) -> None:
    (power,) = metric_powers(planned(1), tmp_path)
    assert power.detectable is None
    assert "1 seed detects" in power_text([power], None)


def test_cells_without_spread_tell_nothing(tmp_path: Path) -> None:
    plan = planned()
    finish_with(plan, tmp_path, {"Swin-Tiny, 7": (80.0,) * 3, "Swin-Tiny, 14": (80.5,) * 3})
    (power,) = metric_powers(plan, tmp_path)
    assert (power.seed_sd, power.source) == (ASSUMED_SD, "assumed: no run tells")


def test_sums_of_more_than_two_cells_do_not_tell_the_spread_of_two(tmp_path: Path) -> None:
    sweep = tmp_path / "sums.yaml"
    text = SWEEP.read_text().replace(
        "- Focal-Tiny/7 >= Swin-Tiny/14", "- Focal-Tiny/14 - Focal-Tiny/7 > Swin-Tiny/14 - Swin-Tiny/7"
    )
    sweep.write_text(text)
    plan = make_plan(sweep)
    top1s: dict[str, tuple[float, ...]] = {
        "Swin-Tiny, 7": (80.0, 81.0, 82.0),
        "Swin-Tiny, 14": (81.0, 81.0, 82.5),
        "Focal-Tiny, 7": (84.0, 84.0, 82.0),
        "Focal-Tiny, 14": (84.0, 85.0, 80.0),
    }
    finish_with(plan, tmp_path, top1s)
    (power,) = metric_powers(plan, tmp_path)
    variances = [stats.tvar([1.0, 0.0, 0.5]), stats.tvar([0.0, 1.0, -2.0])]
    assert power.seed_sd == pytest.approx(sqrt(sum(variances) / 2))
    assert power.source == "2 comparisons of this sweep"


def test_looks_cost_power(tmp_path: Path) -> None:
    (fixed,) = metric_powers(planned(10), tmp_path)
    (sequential,) = metric_powers(make_plan(SWEEP, max_seeds=10), tmp_path)
    assert fixed.detectable is not None
    assert sequential.detectable is not None
    assert fixed.seeds == sequential.seeds == 10
    assert fixed.detectable < sequential.detectable < 1.3 * fixed.detectable
    assert "10 seeds detect " in power_text([sequential], None)
    assert "for 3 comparisons" in power_text([sequential], None)
    assert "last look" in power_text([sequential], None)
    assert "last look" not in power_text([fixed], None)


def test_a_sweep_that_compares_nothing_says_so() -> None:
    assert power_text([], None) == "Power: the sweep compares nothing\n"
