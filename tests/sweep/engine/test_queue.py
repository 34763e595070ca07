"""The queue hands out each missing run once, whatever happened to the commands that claimed runs before.

Every test runs on the journal of one machine and on a real PostgreSQL.
"""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest

from focal_lab.sweep.engine import queue
from focal_lab.sweep.engine import slots as machine
from focal_lab.sweep.engine.heartbeat import StaleTrials
from focal_lab.sweep.engine.queue import CRASHED, DROPPED, FAILED, FINISHED, RETURNED, ClaimedRun, RunQueue
from focal_lab.sweep.engine.storage import JOURNAL, open_storage
from focal_lab.sweep.plan.cells import Cell
from focal_lab.sweep.plan.manifest import Manifest, write_manifest
from focal_lab.sweep.plan.runs import Run
from focal_lab.sweep.run_folder.layout import LOCK_FILE
from focal_lab.utils.file_lock import FileLock

LEVELS = {"window_size": [str(number) for number in range(5)]}
Opener = Callable[..., RunQueue]


@pytest.fixture
def opened(tmp_path: Path, storage: str | None) -> Opener:
    """Opens the queue of this test, as often as it likes."""
    study = f"study-{tmp_path.parent.name}-{tmp_path.name}"

    def open_queue(**options: object) -> RunQueue:
        options.setdefault("levels", LEVELS)
        return RunQueue(tmp_path, study, storage=storage, **options)  # type: ignore[arg-type]

    return open_queue


def make_runs(count: int) -> list[Run]:
    cells = [Cell({"window_size": str(number % 5)}, {}) for number in range(count)]
    return [Run(f"run{number}", cell, "classification", 0, {}, {}) for number, cell in enumerate(cells)]


def claimed(queue: RunQueue) -> str | None:
    claim = queue.claim()
    return claim.run if claim else None


def test_runs_are_claimed_once_and_in_order(opened: Opener) -> None:
    queue = opened()
    queue.feed(make_runs(3), 9)
    assert [claimed(queue) for _ in range(4)] == ["run0", "run1", "run2", None]


def test_the_queue_is_kept_short(opened: Opener) -> None:
    queue, runs = opened(), make_runs(20)
    queue.feed(runs, 2)
    queue.feed(runs, 2)
    assert [claimed(queue) for _ in range(3)] == ["run0", "run1", None]
    queue.feed(runs, 2)
    assert [claimed(queue) for _ in range(3)] == ["run2", "run3", None]


def test_two_queues_share_the_runs(opened: Opener) -> None:
    first, second, runs = opened(), opened(), make_runs(4)
    first.feed(runs, 9)
    second.feed(runs, 9)
    taken = [claimed(first), claimed(second), claimed(first), claimed(second)]
    assert sorted(run for run in taken if run) == ["run0", "run1", "run2", "run3"]
    assert first.claim() is None
    assert second.claim() is None


def test_a_run_that_stands_twice_in_the_queue_is_given_out_once(opened: Opener) -> None:
    first, second, (run,) = opened(), opened(), make_runs(1)
    for _ in range(3):  # as two machines do that feed at the same moment
        first._enqueue(run, 1)
    assert claimed(first) == "run0"
    assert second.claim() is None
    assert first.claim() is None
    first.finish("run0", {"top1": 1.0})


def test_a_crashed_run_is_retried_until_its_retries_are_used(opened: Opener) -> None:
    queue, (run,) = opened(retries=1), make_runs(1)
    queue.feed([run], 1)
    assert queue.claim() == ClaimedRun("run0", 1)
    queue.end("run0", CRASHED, "killed by SIGKILL")
    queue.feed([run], 1)
    assert queue.claim() == ClaimedRun("run0", 2)
    queue.end("run0", CRASHED, "killed by SIGSEGV")
    queue.feed([run], 1)
    assert queue.claim() is None
    assert queue.ended_elsewhere([run]) == {"run0": (FAILED, "killed by SIGSEGV")}


def test_a_run_that_was_given_back_has_lost_no_attempt(opened: Opener) -> None:
    queue, (run,) = opened(retries=0), make_runs(1)
    queue.feed([run], 1)
    assert queue.claim() == ClaimedRun("run0", 1)
    queue.end("run0", RETURNED)
    queue.feed([run], 1)
    assert queue.claim() == ClaimedRun("run0", 1)


def test_a_failed_run_is_left_alone_by_those_at_work_and_tried_again_by_the_next(opened: Opener) -> None:
    first, second, (run,) = opened(), opened(), make_runs(1)
    first.feed([run], 1)
    assert claimed(first) == "run0"
    first.end("run0", FAILED, "the loss is nan")
    second.feed([run], 1)
    assert second.claim() is None
    assert second.ended_elsewhere([run]) == {"run0": (FAILED, "the loss is nan")}
    later = opened()
    assert later.ended_elsewhere([run]) == {}
    later.feed([run], 1)
    assert later.claim() == ClaimedRun("run0", 1)


def test_a_result_that_was_removed_is_trained_again(
    opened: Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, (run,) = opened(), make_runs(1)
    first.feed([run], 1)
    assert claimed(first) == "run0"
    (tmp_path / "run0").mkdir()
    (tmp_path / "run0" / "result.json").write_text("{}")
    first.finish("run0", {"top1": 80.0})
    assert first.ended_elsewhere([run]) == {"run0": (FINISHED, "")}
    (tmp_path / "run0" / "result.json").unlink()
    monkeypatch.setattr(queue, "_FOLDER_DELAY", 0.0)  # a shared folder shows results late
    later = opened()
    later.feed([run], 1)
    assert claimed(later) == "run0"


def test_runs_of_killed_commands_are_handed_out_again(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead, alive, (run,) = opened(), opened(), make_runs(1)
    dead.feed([run], 1)
    assert claimed(dead) == "run0"
    dead.heartbeat.stop()
    alive.end_stale()
    assert alive.claim() is None  # between a claim and the lock there is a moment
    time.sleep(2.1)
    alive.end_stale()
    alive.feed([run], 1)
    assert alive.claim() == ClaimedRun("run0", 2)
    dead.finish("run0", {"top1": 1.0})  # it was not dead after all: no harm


def test_a_run_whose_lock_is_held_is_alive(opened: Opener, tmp_path: Path) -> None:
    other, queue, (run,) = opened(), opened(), make_runs(1)
    other.feed([run], 1)
    assert claimed(other) == "run0"
    lock = FileLock(tmp_path / "run0" / LOCK_FILE)
    assert lock.acquire(wait=False)
    for _ in range(2):
        queue.end_stale()
        time.sleep(2.1)
    queue.end_stale()
    queue.feed([run], 1)
    assert queue.claim() is None
    lock.release()


def test_values_and_labels_can_be_read_by_optuna(opened: Opener, tmp_path: Path, storage: str | None) -> None:
    queue = opened()
    queue.feed(make_runs(1), 1)
    assert claimed(queue) == "run0"
    queue.report("run0", 40.0, step=1)
    queue.finish("run0", {"top1": 81.5, "gmacs": 0.25})
    study = optuna.load_study(study_name=queue.study.study_name, storage=open_storage(tmp_path, storage))
    (trial,) = study.trials
    assert trial.value == 81.5
    assert trial.params == {"window_size": "0"}
    assert trial.intermediate_values == {1: 40.0}
    known = {"run": "run0", "task": "classification", "seed": 0, "attempt": 1, "top1": 81.5, "gmacs": 0.25}
    assert known.items() <= trial.user_attrs.items()


def test_a_seed_that_is_added_goes_into_the_same_study(opened: Opener) -> None:
    first = opened()
    first.feed(make_runs(2), 9)
    assert claimed(first) == "run0"
    second = opened()
    second.feed(make_runs(3), 9)
    assert [claimed(second), claimed(second), claimed(second)] == ["run1", "run2", None]


def test_four_processes_claim_every_run_once(tmp_path: Path, storage: str | None) -> None:
    count, study = 40, f"four-{tmp_path.parent.name}"
    code = (
        "import sys\nfrom pathlib import Path\nfrom focal_lab.sweep.plan.cells import Cell\n"
        "from focal_lab.sweep.engine.queue import RunQueue\nfrom focal_lab.sweep.plan.runs import Run\n"
        "out, storage = Path(sys.argv[1]), sys.argv[3] or None\n"
        "queue = RunQueue(out, sys.argv[2], storage=storage)\n"
        "def run(i): return Run(f'run{i}', Cell({}, {}), 'classification', 0, {}, {})\n"
        f"runs = [run(i) for i in range({count})]\n"
        "while True:\n"
        "    queue.feed(runs, 2)\n"
        "    claim = queue.claim()\n"
        "    if claim is None:\n        break\n"
        "    print(claim.run)\n"
        "    (out / claim.run).mkdir()\n"
        "    (out / claim.run / 'result.json').write_text('{}')\n"
        "    queue.finish(claim.run, {'top1': 1.0})\n"
        "    runs = [run for run in runs if not (out / run.id / 'result.json').exists()]\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path), study, storage or ""]
    workers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    taken = [run for worker in workers for run in worker.communicate()[0].split()]
    assert sorted(taken) == sorted(f"run{number}" for number in range(count))


def test_a_half_written_line_of_a_killed_process_is_cut_off(tmp_path: Path) -> None:
    queue = RunQueue(tmp_path, "study")
    queue.feed(make_runs(2), 9)
    with open(tmp_path / JOURNAL, "ab") as stream:
        stream.write(b'{"op_code": 4, "wor')
    again = RunQueue(tmp_path, "study")
    assert [claimed(again), claimed(again), claimed(again)] == ["run0", "run1", None]
    again.finish("run0", {"top1": 81.5})
    assert RunQueue(tmp_path, "study").claim() is None


def test_a_damaged_journal_is_set_aside_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    RunQueue(tmp_path, "study").feed(make_runs(1), 1)
    journal = tmp_path / JOURNAL
    journal.write_bytes(b"not a journal\n" + journal.read_bytes())
    queue = RunQueue(tmp_path, "study")
    assert str(journal) in capsys.readouterr().err
    assert len(list(tmp_path.glob(f"{JOURNAL}.corrupt-*"))) == 1
    queue.feed(make_runs(1), 1)
    assert claimed(queue) == "run0"


class TestOfSeveralMachines:
    """What only a shared database has."""

    @pytest.fixture(params=["postgres"])
    def storage(self, request: pytest.FixtureRequest) -> str:
        url: str = request.getfixturevalue("postgres").url
        return url

    def test_a_silent_machine_is_taken_for_dead_after_the_grace_period(
        self, opened: Opener, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (run,) = make_runs(1)
        far, near = opened(grace=4), opened(grace=4)
        monkeypatch.setattr(queue, "machine_id", lambda: "another machine")
        far.feed([run], 1)
        assert claimed(far) == "run0"
        monkeypatch.setattr(queue, "machine_id", machine.machine_id)
        time.sleep(5)  # longer than the grace period, but it beats
        near.end_stale()
        near.feed([run], 1)
        assert near.claim() is None
        assert far.heartbeat.lost() == set()
        far.heartbeat.stop()
        time.sleep(6)
        assert far.heartbeat.lost() == {"run0"}  # it stops before the others may go on
        near.end_stale()
        near.feed([run], 1)
        assert near.claim() == ClaimedRun("run0", 2)

    def test_a_late_answer_about_an_earlier_attempt_says_nothing_about_this_one(self, opened: Opener) -> None:
        (run,) = make_runs(1)
        queue = opened()
        queue.feed([run], 1)
        assert claimed(queue) == "run0"
        earlier = queue._held["run0"]._trial_id
        queue.end("run0", RETURNED)
        queue.feed([run], 1)
        assert claimed(queue) == "run0"
        queue.heartbeat._note(
            "run0", earlier, False
        )  # what the thread was reported when the network came back
        assert queue.heartbeat.lost() == set()
        queue.heartbeat._note("run0", queue._held["run0"]._trial_id, False)
        assert queue.heartbeat.lost() == {"run0"}
        queue.close()

    def test_a_run_of_two_studies_is_trained_for_one_of_them_at_a_time(
        self, tmp_path: Path, storage: str
    ) -> None:
        names = [f"{name}-{tmp_path.parent.name}" for name in ("depth", "window")]
        (run,) = make_runs(1)
        for name in names:
            write_manifest(tmp_path, Manifest(name, name, "digits", name, (run,)))
        first, second = (RunQueue(tmp_path, name, storage=storage) for name in names)
        first.feed([run], 1)
        second.feed([run], 1)
        assert claimed(first) == "run0"
        assert second.claim() is None
        first.end("run0", DROPPED)
        second.feed([run], 1)
        assert claimed(second) == "run0"

    def test_a_database_that_is_away_for_a_while_costs_nothing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from support.postgres_server import PostgresServer

        monkeypatch.setattr(queue, "_REST", 0.2)
        runs = make_runs(2)
        with PostgresServer() as server:
            work = RunQueue(tmp_path, "study", storage=server.url)
            work.feed(runs, 2)
            assert claimed(work) == "run0"
            server.stop()
            work.report("run0", 1.0, 1)
            work.finish("run0", {"top1": 80.0})
            assert work.pending
            assert work.claim() is None
            work.feed(runs, 2)
            work.end_stale()
            server.start()
            time.sleep(0.3)
            work.write_pending()
            assert not work.pending
            assert claimed(work) == "run1"
            assert [trial.value for trial in work.study.trials] == [80.0, None]
            work.close()


def test_a_claim_that_never_introduced_itself_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue, runs = RunQueue(tmp_path, "study"), make_runs(1)
    queue.feed(runs, 1)
    queue.study.ask()  # and killed before it could say who it was
    monkeypatch.setattr(StaleTrials, "_name_seconds", 0.1)
    other = RunQueue(tmp_path, "study")
    other.end_stale()
    time.sleep(0.2)
    other.end_stale()
    other.feed(runs, 1)
    assert claimed(other) == "run0"
