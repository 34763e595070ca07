"""The queue hands out each missing run once, whatever happened to those who took runs before."""

import subprocess
import sys
from pathlib import Path

import pytest

from focal_lab.ablation.design import Cell
from focal_lab.ablation.engine.locks import LOCK_FILE, FileLock
from focal_lab.ablation.engine.queue import JOURNAL, RunQueue
from focal_lab.ablation.runs import Run


def make_runs(count: int) -> list[Run]:
    cells = [Cell({"window_size": str(number)}, {}) for number in range(count)]
    return [Run(f"run{number}", cell, "classification", 0, {}, {}) for number, cell in enumerate(cells)]


def claim_all(queue: RunQueue) -> list[str]:
    claimed = []
    while (run := queue.claim()) is not None:
        claimed.append(run)
    return claimed


def test_runs_are_claimed_once_and_in_order(tmp_path: Path) -> None:
    queue = RunQueue(tmp_path, "study")
    queue.fill(make_runs(3))
    assert claim_all(queue) == ["run0", "run1", "run2"]
    assert queue.claim() is None


def test_two_queues_share_the_runs(tmp_path: Path) -> None:
    first, second = RunQueue(tmp_path, "study"), RunQueue(tmp_path, "study")
    first.fill(make_runs(4))
    second.fill(make_runs(4))
    claimed = [first.claim(), second.claim(), first.claim(), second.claim()]
    assert sorted(run for run in claimed if run) == ["run0", "run1", "run2", "run3"]
    assert first.claim() is None
    assert second.claim() is None


def test_a_run_taken_for_dead_while_it_was_starting_ends_without_harm(tmp_path: Path) -> None:
    first, second = RunQueue(tmp_path, "study"), RunQueue(tmp_path, "study")
    runs = make_runs(1)
    first.fill(runs)
    assert first.claim() == "run0"
    second.fill(runs)  # between the claim and the child's lock: nobody seems to train it
    assert second.claim() == "run0"
    first.report("run0", 0.5, 0)
    first.finish("run0", 0.5)
    second.finish("run0", None)
    assert first.claim() is None


def test_filling_again_adds_nothing_while_runs_wait(tmp_path: Path) -> None:
    queue = RunQueue(tmp_path, "study")
    queue.fill(make_runs(2))
    queue.fill(make_runs(2))
    assert claim_all(queue) == ["run0", "run1"]


def test_a_failed_run_is_queued_again_by_the_next_fill(tmp_path: Path) -> None:
    queue = RunQueue(tmp_path, "study")
    queue.fill(make_runs(1))
    assert queue.claim() == "run0"
    queue.finish("run0", None)
    assert queue.claim() is None
    queue.fill(make_runs(1))
    assert queue.claim() == "run0"


def test_a_run_whose_holder_died_is_queued_again(tmp_path: Path) -> None:
    dead = RunQueue(tmp_path, "study")
    dead.fill(make_runs(1))
    assert dead.claim() == "run0"
    alive = RunQueue(tmp_path, "study")
    alive.fill(make_runs(1))
    assert alive.claim() == "run0"


def test_a_run_that_another_command_trains_is_left_to_it(tmp_path: Path) -> None:
    other = RunQueue(tmp_path, "study")
    other.fill(make_runs(1))
    assert other.claim() == "run0"
    lock = FileLock(tmp_path / "run0" / LOCK_FILE)
    assert lock.acquire(wait=False)
    queue = RunQueue(tmp_path, "study")
    queue.fill(make_runs(1))
    assert queue.claim() is None
    lock.release()
    queue.fill(make_runs(1))
    assert queue.claim() == "run0"


def test_a_half_written_line_of_a_killed_process_is_cut_off(tmp_path: Path) -> None:
    queue = RunQueue(tmp_path, "study")
    queue.fill(make_runs(2))
    with open(tmp_path / JOURNAL, "ab") as stream:
        stream.write(b'{"op_code": 4, "wor')
    again = RunQueue(tmp_path, "study")
    assert claim_all(again) == ["run0", "run1"]
    again.finish("run0", 81.5)
    assert RunQueue(tmp_path, "study").claim() is None


def test_a_damaged_journal_is_set_aside_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    RunQueue(tmp_path, "study").fill(make_runs(1))
    journal = tmp_path / JOURNAL
    journal.write_bytes(b"not a journal\n" + journal.read_bytes())
    queue = RunQueue(tmp_path, "study")
    assert str(journal) in capsys.readouterr().err
    assert len(list(tmp_path.glob(f"{JOURNAL}.corrupt-*"))) == 1
    queue.fill(make_runs(1))
    assert queue.claim() == "run0"


def test_values_and_labels_can_be_read_by_optuna(tmp_path: Path) -> None:
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    queue = RunQueue(tmp_path, "study")
    queue.fill(make_runs(1))
    assert queue.claim() == "run0"
    queue.report("run0", 40.0, step=10)
    queue.finish("run0", 81.5)
    storage = JournalStorage(JournalFileBackend(str(tmp_path / JOURNAL)))
    (trial,) = optuna.load_study(study_name="study", storage=storage).trials
    assert trial.value == 81.5
    assert trial.intermediate_values == {10: 40.0}
    assert trial.user_attrs == {"run": "run0", "task": "classification", "seed": 0, "window_size": "0"}


def test_four_processes_claim_every_run_once(tmp_path: Path) -> None:
    count = 40
    RunQueue(tmp_path, "study").fill(make_runs(count))
    code = (
        "import sys\nfrom pathlib import Path\nfrom focal_lab.ablation.engine.queue import RunQueue\n"
        "queue = RunQueue(Path(sys.argv[1]), 'study')\n"
        "while (run := queue.claim()) is not None:\n    print(run)\n    queue.finish(run, 1.0)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    workers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    claimed = [run for worker in workers for run in worker.communicate()[0].split()]
    assert sorted(claimed) == sorted(f"run{number}" for number in range(count))
