"""How long runs are expected to take."""

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from support.fake_processes import MACHINE, MEASURED, FakeProcesses
from support.small_project import write, write_sweep

from focal_lab.sweep.engine.slots import DeviceSlots
from focal_lab.sweep.estimate.run_time import Estimates, estimate_runs
from focal_lab.sweep.plan.plan import Plan, make_plan
from focal_lab.sweep.plan.runs import Run
from focal_lab.sweep.run_folder.result import Result, write_record
from focal_lab.sweep.worker.processes import WarmProcesses

pytestmark = pytest.mark.usefixtures("project")

OUT = Path("runs")
# 5 to start, 2 epochs of 100 steps and a validation, the test
TWO_EPOCHS = 5.0 + 2 * (100 * 0.1 + 1.0) + 2.0


def estimate(
    plan: Plan,
    processes: FakeProcesses | None = None,
    results: dict[str, Result] | None = None,
    slots: DeviceSlots | None = None,
) -> Estimates:
    return estimate_runs(
        plan.distinct_runs,
        results or {},
        slots or DeviceSlots(1, 2),
        MACHINE,
        OUT,
        cast(WarmProcesses, processes),
    )


def result_of(run: Run, seconds: int, **changes: Any) -> Result:
    result = Result(
        run=run.id,
        task=run.task,
        seed=run.seed,
        metrics={"top1": 50.0},
        params=1,
        gmacs=1.0,
        train_seconds=1.0,
        images_per_second=1.0,
        peak_memory_mb=555.0,
        config_hash=run.config_hash,
        config=run.config,
        identity=run.identity,
        versions={},
        git={},
        hardware=MACHINE.hardware,
        started="2026-01-01T00:00:00+00:00",
        finished=f"2026-01-01T00:{seconds // 60:02d}:{seconds % 60:02d}+00:00",
    )
    return replace(result, **changes)


def test_a_run_takes_what_its_measured_parts_add_up_to() -> None:
    plan = make_plan(write_sweep())
    found = estimate(plan, FakeProcesses())
    assert found.seconds == {run.id: pytest.approx(TWO_EPOCHS) for run in plan.runs}
    assert {one.memory_mb for one in found.runs.values()} == {700.0}
    assert not found.problems


def test_steps_count_their_accumulated_batches_and_bring_validations_with_them() -> None:
    assert MEASURED.seconds("epochs", 3) - MEASURED.seconds("epochs", 2) == pytest.approx(11.0)
    assert MEASURED.seconds("steps", 200) == pytest.approx(TWO_EPOCHS)
    assert replace(MEASURED, accumulated=2).seconds("steps", 100) == pytest.approx(TWO_EPOCHS)
    endless = replace(MEASURED, batches=float("inf"))
    assert endless.seconds("steps", 100) == pytest.approx(5.0 + 10.0 + 2.0)


@pytest.mark.parametrize(
    ("setting", "seconds"),
    [
        ("trainer.max_epochs=0", 5.0 + 2.0),
        ("trainer.max_steps=0", 5.0 + 2.0),
        ("trainer.max_steps=100000", TWO_EPOCHS),  # two epochs are fewer
        ("trainer.max_time={seconds: 3}", 5.0 + 3.0 + 2.0),
    ],
)
def test_whichever_limit_comes_first_decides_the_time(setting: str, seconds: float) -> None:
    plan = make_plan(write_sweep(factors={"window_size": [7]}, seeds=1), overrides=[setting])
    assert list(estimate(plan, FakeProcesses()).seconds.values()) == [pytest.approx(seconds)]


def test_each_shape_is_measured_once(capsys: pytest.CaptureFixture[str]) -> None:
    path = write_sweep(factors={"window_size": [7, 14], "lr": {"a": {}, "b": {"model.lr": 0.2}}})
    processes = FakeProcesses()
    estimate(make_plan(path), processes)
    assert len(processes.measured) == 2
    assert capsys.readouterr().err == "measuring a few steps of 2 kinds of runs\n"
    again = estimate(make_plan(path), processes)
    assert len(processes.measured) == 2
    assert capsys.readouterr().err == ""
    assert len(again.runs) == 8
    assert len(estimate(make_plan(path)).runs) == 8
    assert estimate(make_plan(path), slots=DeviceSlots(2, 1)).runs == {}


def test_as_many_are_measured_at_a_time_as_will_be_trained() -> None:
    processes = FakeProcesses()
    factors = {"window_size": [7, 14], "border": ["mask", "wrap"]}
    found = estimate(make_plan(write_sweep(factors=factors)), processes, slots=DeviceSlots(3, 4))
    shapes = len({str(order.config["model"]) for order in processes.measured})
    assert len(processes.measured) == 3 * -(-shapes // 3)
    assert {order.threads for order in processes.measured} == {4}
    assert len(found.runs) == len(make_plan(write_sweep(factors=factors)).distinct_runs)


def test_each_measurement_has_a_gpu_of_its_own() -> None:
    processes = FakeProcesses()
    estimate(make_plan(write_sweep()), processes, slots=DeviceSlots(2, 1, ("4", "7")))
    assert [order.devices for order in processes.measured] == ["4", "7"]


def test_a_failed_measurement_is_reported_once_a_reason() -> None:
    plan = make_plan(write_sweep())
    found = estimate(plan, FakeProcesses(failed="data.root: no such folder"))
    assert found.runs == {}
    assert [run.cell.name for run in found.problems["data.root: no such folder"]] == ["7", "14"]
    dead = estimate(plan, FakeProcesses(crashes=True))
    assert list(dead.problems) == ["its process crashed (exit status -9)"]


def test_runs_whose_data_are_not_here_are_not_measured() -> None:
    plan = make_plan(write_sweep())
    processes, first = FakeProcesses(), plan.distinct_runs[0]
    absent = [run.id for run in plan.runs if run.cell == first.cell]
    args: Any = (plan.distinct_runs, {}, DeviceSlots(1, 2), MACHINE, OUT, processes)
    found = estimate_runs(*args, absent=absent)
    assert len(processes.measured) == 1
    assert found.runs.keys() == {run.id for run in plan.runs} - set(absent)
    assert not found.problems


def test_nothing_is_measured_unless_asked_for() -> None:
    plan = make_plan(write_sweep())
    assert estimate(plan).runs == {}
    assert not OUT.exists()


def test_finished_runs_count_more_than_measured_steps_and_are_scaled_by_their_length() -> None:
    plan = make_plan(write_sweep(seeds=3))
    done = plan.distinct_runs[0]
    found = estimate(plan, results={done.id: result_of(done, 70)})
    others = [run.id for run in plan.runs if run.cell == done.cell and run.id != done.id]
    assert found.seconds == dict.fromkeys([done.id, *others], 70.0)
    assert {one.memory_mb for one in found.runs.values()} == {555.0}
    longer = make_plan(write_sweep(seeds=3), overrides=["trainer.max_epochs=4"])
    write_record(OUT / done.id, result_of(done, 70))
    assert set(estimate(longer).seconds.values()) == {140.0}


def test_a_resumed_run_took_as_long_as_all_its_attempts() -> None:
    plan = make_plan(write_sweep(seeds=2))
    done = plan.distinct_runs[0]
    found = estimate(plan, results={done.id: result_of(done, 10, train_seconds=90.0)})
    assert set(found.seconds.values()) == {90.0}


def test_runs_of_other_machines_and_damaged_ones_are_ignored() -> None:
    plan = make_plan(write_sweep(seeds=2))
    done = plan.distinct_runs[0]
    assert list(estimate(plan, results={done.id: result_of(done, 70, hardware="1 x Cray")}).runs) == [done.id]
    write_record(OUT / done.id, result_of(done, 70, identity={}, config={}))
    write("runs/other/result.json", "{")
    assert not estimate(make_plan(write_sweep(seeds=[8]))).runs


@pytest.mark.parametrize("text", ["", "{", '{"schema": 1, "entries": {"x": 7}}'])
def test_a_damaged_file_of_measurements_is_as_good_as_none(text: str) -> None:
    write("runs/measured.json", text)
    processes = FakeProcesses()
    assert len(estimate(make_plan(write_sweep()), processes).runs) == 4
    assert len(processes.measured) == 2
