"""`--until-decided` with simulated runs: which seeds are added, when it stops, and what is printed."""

import random
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from support.finished_runs import fail, finish
from support.small_project import write_sweep

from focal_lab.errors import UserError
from focal_lab.report.table.build import build_table, recall_sweep
from focal_lab.report.table.progress import comparisons
from focal_lab.report.table.records import Table
from focal_lab.sweep.commands.command_options import plan_of, sweep_parser
from focal_lab.sweep.commands.until_decided import add_seeds
from focal_lab.sweep.plan.plan import Plan, make_plan
from focal_lab.sweep.plan.recall import remember, with_looks
from focal_lab.sweep.plan.runs import Run
from focal_lab.sweep.plan.sequential import (
    FIRST_SEEDS,
    Comparison,
    labels_of,
    needed_so_far,
    with_next_seeds,
)

OUT = Path("runs")
pytestmark = pytest.mark.usefixtures("project")


@dataclass
class Trainer:
    """Leaves results of simulated runs behind.

    Attributes:
        effects: label of a cell -> its true accuracy.
        sd: of the noise between seeds.
        broken: (labels, seed) of runs that fail.
        stop_after: number of rounds after which the command is interrupted.
    """

    effects: Mapping[str, float]
    sd: float = 0.5
    broken: Sequence[tuple[tuple[str, ...], int]] = ()
    stop_after: int = 1000
    rounds: list[list[Run]] = field(default_factory=list)

    def train(self, plan: Plan, added: Sequence[Run]) -> int:
        """As `focal-lab sweep` does."""
        remember(plan, OUT, [])
        if len(self.rounds) >= self.stop_after:
            return 130
        self.rounds.append(list(added))
        for run in added:
            if (labels_of(run), run.seed) in self.broken:
                fail(OUT, run.id, seed=run.seed)
                continue
            noise = random.Random(f"{labels_of(run)} {run.seed}").gauss(0.0, self.sd)
            metrics = {"top1": self.effects[run.cell.labels["lr"]] + noise, "top5": 99.0, "loss": 0.4}
            finish(OUT, run.id, seed=run.seed, metrics=metrics)
        return int(any((labels_of(run), run.seed) in self.broken for run in added))


def sweep_file(*expect: str) -> Path:
    return write_sweep(
        factors={"lr": {label: {"model.lr": int(label) * 1e-4} for label in ("7", "14", "28")}},
        columns=["top1"],
        **({"expect": list(expect)} if expect else {}),
    )


def until_decided(trainer: Trainer, path: Path, most: int = 20, workers: int = 1) -> tuple[int, Plan]:
    plan = needed_so_far(make_plan(path, max_seeds=most, out=OUT), OUT)
    status = trainer.train(plan, [run for run in plan.distinct_runs if not (OUT / run.id).exists()])
    return add_seeds(plan, OUT, status, comparisons, trainer.train, workers)


def seeds_of(plan: Plan) -> dict[str, int]:
    return {label: sum(run.cell.labels["lr"] == label for run in plan.runs) for label in ("7", "14", "28")}


def table_of(path: Path) -> Table:
    return build_table(recall_sweep(path, OUT), OUT)


CLEAR = {"7": 80.0, "14": 90.0, "28": 81.0}


def test_a_clear_difference_gets_three_seeds_and_a_small_one_more() -> None:
    trainer = Trainer(CLEAR)
    status, plan = until_decided(trainer, sweep_file())
    assert status == 0
    seeds = seeds_of(plan)
    assert seeds["14"] < seeds["28"] == seeds["7"]  # the baseline goes along
    assert seeds["14"] >= FIRST_SEEDS
    # seeds are added one by one
    assert all(len(added) <= 3 for added in trainer.rounds[1:])
    assert [comparison.verdict for comparison in comparisons(plan, OUT)] == ["better", "better"]


def test_what_cannot_be_decided_stops_as_futile_and_what_it_cost_is_printed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    trainer = Trainer({"7": 80.0, "14": 80.0, "28": 90.0}, sd=4.0)
    status, plan = until_decided(trainer, sweep_file())
    assert status == 0
    assert max(seeds_of(plan).values()) < 20
    printed = capsys.readouterr().err
    assert f"{len(plan.distinct_runs)} runs of 60 that 20 seeds of all cells need" in printed
    assert (
        "14 against 7, Top-1 (%): inconclusive, stopped (decided by seed 20 with a probability of" in printed
    )
    notes = " ".join(table_of(plan.sweep.path).notes)
    assert "looks after every seed from 3 to 20" in notes
    assert "1 comparison got no more seeds" in notes


def test_the_largest_number_of_seeds_is_a_limit() -> None:
    trainer = Trainer({"7": 80.0, "14": 80.6, "28": 80.6}, sd=0.3)
    _, plan = until_decided(trainer, sweep_file(), most=8)
    assert max(seeds_of(plan).values()) == 8
    last = [comparison for comparison in comparisons(plan, OUT) if comparison.seeds == 8]
    assert not any(comparison.is_open for comparison in last)


def test_equal_cells_end_as_equivalent() -> None:
    trainer = Trainer({"7": 80.0, "14": 80.0, "28": 80.0}, sd=0.1)
    _, plan = until_decided(trainer, sweep_file())
    assert {comparison.verdict for comparison in comparisons(plan, OUT)} == {"equivalent within 0.5"}


def test_a_part_of_the_claim_is_decided_too() -> None:
    trainer = Trainer({"7": 70.0, "14": 90.0, "28": 91.0}, sd=0.5)
    _, plan = until_decided(trainer, sweep_file("28 > 14"))
    seeds = seeds_of(plan)
    assert seeds["14"] == seeds["28"] > FIRST_SEEDS == seeds["7"]


def test_an_interrupted_sweep_goes_on_as_if_nothing_had_happened() -> None:
    path = sweep_file()
    _, whole = until_decided(Trainer(CLEAR, sd=1.0), path)
    shutil.rmtree(OUT)
    interrupted = Trainer(CLEAR, sd=1.0, stop_after=2)
    status, _ = until_decided(interrupted, path)
    assert status == 130
    status, resumed = until_decided(Trainer(CLEAR, sd=1.0), path)
    assert status == 0
    assert resumed.runs == whole.runs


def test_finished_runs_of_a_fixed_number_of_seeds_are_used() -> None:
    path = sweep_file()
    trainer = Trainer(CLEAR)
    fixed = make_plan(path, seeds=5)
    trainer.train(fixed, fixed.distinct_runs)
    _, plan = until_decided(trainer, path)
    assert min(seeds_of(plan).values()) == 5
    assert table_of(path).looked_at == ()  # the looks are corrected


def test_a_failed_seed_is_passed_over_and_a_cell_that_fails_twice_gets_no_more() -> None:
    close = {"7": 80.0, "14": 80.7, "28": 95.0}
    once = Trainer(close, broken=[(("14",), 1)])
    status, plan = until_decided(once, sweep_file())
    assert status == 1
    assert seeds_of(plan)["14"] > 4
    shutil.rmtree(OUT)
    twice = Trainer(close, broken=[(("14",), seed) for seed in range(20)])
    status, plan = until_decided(twice, sweep_file())
    assert status == 1
    assert seeds_of(plan)["14"] == FIRST_SEEDS


def test_several_workers_get_several_seeds_at_once() -> None:
    trainer = Trainer({"7": 80.0, "14": 80.6, "28": 99.0}, sd=0.6)
    until_decided(trainer, sweep_file(), workers=8)
    assert all(len(added) >= 8 for added in trainer.rounds[1:-1])


def test_a_report_of_fewer_seeds_stays_sequential() -> None:
    path = sweep_file()
    until_decided(Trainer(CLEAR), path)
    table = build_table(recall_sweep(path, OUT, seeds=3), OUT)
    assert table.max_seeds == 20
    assert {len(row.runs) for row in table.rows} == {3}


def test_no_run_of_a_decided_cell_is_missing() -> None:
    path = sweep_file()
    until_decided(Trainer(CLEAR), path)
    table = table_of(path)
    assert all(row.states["missing"] == 0 for row in table.rows)
    assert "--until-decided --max-seeds 20" in table.command


@pytest.mark.parametrize(
    ("before", "now", "warned"), [((3,), 5, True), ((5,), 5, False), ((1, 2), 5, False), ((3, 4), 6, True)]
)
def test_more_seeds_after_a_table_are_a_warning(before: Sequence[int], now: int, warned: bool) -> None:
    path = sweep_file()
    trainer = Trainer(CLEAR)
    for seeds in (*before, now):
        plan = with_looks(make_plan(path, seeds=seeds), OUT)
        trainer.train(plan, [run for run in plan.distinct_runs if not (OUT / run.id).exists()])
    notes = [note for note in table_of(path).notes if "was extended" in note]
    assert len(notes) == warned
    assert all(str(number) in note for note in notes for number in before)


def test_a_larger_limit_after_the_first_one_is_a_warning() -> None:
    path = sweep_file()
    until_decided(Trainer(CLEAR), path, most=5)
    assert table_of(path).looked_at == ()
    until_decided(Trainer(CLEAR), path, most=10)
    assert table_of(path).looked_at == (5,)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--max-seeds", "20"], "--max-seeds: needs --until-decided"),
        (["--until-decided", "--seeds", "5"], "--seeds: cannot be combined with --until-decided"),
        (["--until-decided", "--max-seeds", "3"], "--max-seeds: 3 is not a number from 4 to 50"),
        (["--until-decided", "--max-seeds", "51"], "--max-seeds: 51 is not a number from 4 to 50"),
    ],
)
def test_wrong_options_are_refused(words: list[str], message: str) -> None:
    options = sweep_parser("sweep", sweep_parser).parse_args([str(sweep_file()), *words])
    with pytest.raises(UserError) as error:
        plan_of(options, [])
    assert str(error.value).startswith(message)


def test_a_search_has_nothing_to_decide() -> None:
    path = write_sweep(factors=None, seeds=1, search={"trials": 2, "ranges": {"window_size": [7, 14]}})
    options = sweep_parser("sweep", sweep_parser).parse_args([str(path), "--until-decided"])
    with pytest.raises(UserError, match="--until-decided: a search"):
        plan_of(options, [])


def test_the_seeds_of_the_file_come_first() -> None:
    path = write_sweep(seeds=[7, 1])
    assert make_plan(path, max_seeds=5).sweep.seeds == (7, 1, 0, 2, 3)


def test_a_sweep_that_compares_nothing_is_refused() -> None:
    factors: dict[str, list[float]] = {"init_seed": [0, 1], "order_seed": [0, 1]}
    with pytest.raises(UserError, match=r"^--until-decided: the sweep compares nothing"):
        make_plan(write_sweep(factors=factors), max_seeds=8)
    assert make_plan(write_sweep(factors=factors | {"model.lr": [0.1, 0.2]}), max_seeds=8).candidates


def test_a_tuned_seed_is_lost_only_if_all_its_settings_failed() -> None:
    path = write_sweep(tune={"trials": 2, "ranges": {"model.lr": [0.1, 0.2]}})
    plan = needed_so_far(make_plan(path, max_seeds=6), OUT)
    diverged = {run.id for run in plan.runs if run.seed < 2 and run.cell.settings["model.lr"] == 0.2}
    assert len(diverged) == 4
    for run in plan.runs:
        (fail if run.id in diverged else finish)(OUT, run.id, seed=run.seed)
    cells = tuple({labels_of(run): None for run in plan.runs})
    undecided = Comparison("windows", FIRST_SEEDS, "inconclusive", cells, chance=0.9, futile=False)
    longer = with_next_seeds(plan, OUT, [undecided], workers=1)
    assert {run.seed for run in longer.runs} == {0, 1, 2, 3}
