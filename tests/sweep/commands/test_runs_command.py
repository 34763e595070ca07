"""`focal-lab runs` lists what is there, and removes nothing that anybody needs."""

import errno
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from support.finished_runs import corrupt, fail, finish, start
from support.small_project import write_sweep

from focal_lab.errors import UserError
from focal_lab.sweep.commands.runs_command import main
from focal_lab.sweep.engine.conflicts import present
from focal_lab.sweep.plan.manifest import Manifest, write_manifest
from focal_lab.sweep.plan.plan import Plan, make_plan
from focal_lab.sweep.plan.recall import remember
from focal_lab.sweep.plan.runs import Run
from focal_lab.sweep.run_folder.layout import LOCK_FILE, is_running
from focal_lab.sweep.run_folder.outcome import State, read_outcome
from focal_lab.sweep.run_folder.result import Failure, read_failure, write_record, write_result_once
from focal_lab.utils.file_lock import FileLock

OUT = Path("runs")


@pytest.fixture
def swept(project: None) -> Plan:
    """A sweep of four runs: two finished, one failed, one not begun; and a run that nobody needs."""
    plan = make_plan(write_sweep())
    note(plan)
    first, second, third, _ = plan.distinct_runs
    for run in (first, second):
        finished(run)
    write_record(
        OUT / third.id, Failure(third.id, third.task, third.seed, "out of luck", [], 2, "2026-01-02")
    )
    finish(OUT, "0ld00000000", seed=0)
    return plan


def finished(run: Run) -> Path:
    """Leave a run's result and checkpoints behind; the run's folder."""
    result = finish(OUT.with_name("scratch"), "run0")
    write_record(OUT / run.id, replace(result, run=run.id, task=run.task, seed=run.seed))
    (OUT / run.id / "checkpoints").mkdir()
    for kind in ("best", "last"):
        (OUT / run.id / "checkpoints" / f"{kind}.ckpt").write_bytes(bytes(10_000))
    return OUT / run.id


def note(plan: Plan) -> None:
    """Leave behind what `focal-lab sweep` notes of a plan."""
    remember(plan, OUT, ())
    write_manifest(
        OUT, Manifest(plan.study, plan.sweep.name, plan.suite, plan.sweep.title, plan.distinct_runs)
    )


def listed(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, object]]:
    assert main([*arguments, "--json"]) == 0
    entries: list[dict[str, object]] = json.loads(capsys.readouterr().out)
    return entries


def test_runs_are_listed_with_state_labels_and_who_needs_them(
    swept: Plan, capsys: pytest.CaptureFixture[str]
) -> None:
    start(OUT, "1nterrupted0")
    corrupt(OUT, "2damaged0000")
    lock = FileLock(OUT / "3running0000" / LOCK_FILE)
    start(OUT, "3running0000")
    assert lock.acquire()
    entries = {str(entry["run"]): entry for entry in listed(capsys)}
    lock.release()
    first, _, third, fourth = swept.distinct_runs
    assert entries[first.id]["state"] == "finished"
    assert entries[first.id]["labels"] == first.cell.labels
    assert entries[first.id]["sweeps"] == ["small"]
    assert int(str(entries[first.id]["size"])) > 20_000
    assert entries[third.id]["state"] == "failed"
    assert entries[third.id]["reason"] == "out of luck"
    assert fourth.id not in entries
    assert entries["0ld00000000"]["sweeps"] == []
    states = [entries[name]["state"] for name in ("1nterrupted0", "2damaged0000", "3running0000")]
    assert states == ["missing", "corrupt", "running"]
    assert [entry["run"] for entry in listed(capsys, "--failed")] == [third.id]
    assert len(listed(capsys, "--sweep", "small")) == 3
    with pytest.raises(UserError, match=r"'large' is not a sweep in runs .use small"):
        main(["--sweep", "large"])
    assert main([]) == 0
    assert "7 runs: 3 finished" in capsys.readouterr().out


@pytest.mark.parametrize("action", [["rm"], ["retry"]])
def test_ids_may_be_cut_short_but_not_be_ambiguous(swept: Plan, action: list[str]) -> None:
    finish(OUT, "0ld11111111", seed=0)
    with pytest.raises(UserError, match=r"0ld matches 2 runs .use 0ld00000000 or 0ld11111111"):
        main([*action, "0ld"])
    with pytest.raises(UserError, match="there is no run zzz in runs"):
        main([*action, "zzz"])
    with pytest.raises(UserError, match="name runs, or use --failed"):
        main(action)


def test_a_run_that_a_sweep_needs_is_removed_by_force_only(swept: Plan) -> None:
    needed = swept.distinct_runs[0].id
    with pytest.raises(UserError, match=f"{needed} is needed by the sweep small"):
        main(["rm", "0ld0", needed])
    assert (OUT / "0ld00000000").exists()  # all or nothing
    assert main(["rm", "0ld0"]) == 0
    assert not (OUT / "0ld00000000").exists()
    assert main(["rm", needed[:6], "--force"]) == 0
    assert not (OUT / needed).exists()
    assert not list(OUT.glob(".trash-*"))


def test_a_run_in_training_is_never_removed(swept: Plan) -> None:
    folder = OUT / swept.distinct_runs[0].id
    lock = FileLock(folder / LOCK_FILE)
    assert lock.acquire()
    with pytest.raises(UserError, match="is being trained; stop the sweep first"):
        main(["rm", folder.name, "--force"])
    lock.release()
    assert (folder / "result.json").exists()


def test_failed_runs_are_tried_again_from_their_checkpoints_or_from_scratch(swept: Plan) -> None:
    first, _, third, _ = swept.distinct_runs
    (OUT / third.id / "checkpoints").mkdir()
    assert main(["retry", "--failed"]) == 0
    assert read_outcome(OUT / third.id).state is State.MISSING
    assert (OUT / third.id / "checkpoints").exists()
    write_record(OUT / third.id, Failure(third.id, third.task, third.seed, "again", [], 3, "2026-01-02"))
    assert main(["retry", third.id, "--from-scratch"]) == 0
    assert not (OUT / third.id / "checkpoints").exists()
    with pytest.raises(UserError, match="is finished; remove it to train it again"):
        main(["retry", first.id])


def test_gc_removes_unneeded_runs_and_files_of_killed_processes(
    swept: Plan, capsys: pytest.CaptureFixture[str]
) -> None:
    first = OUT / swept.distinct_runs[0].id
    left = [first / ".config.yaml.999999", first / "result.json.corrupt-20260101-000000"]
    left.append(first / "checkpoints" / ".last.ckpt.999999")
    for path in left:
        path.write_text("half")
    (OUT / ".trash-4bc-999999").mkdir()
    alive = first / f".config.yaml.{os.getpid()}"
    alive.write_text("being written")
    assert main(["gc", "--dry-run", "--keep", "best"]) == 0
    assert "would remove 1 run, 4 leftover files and 2 checkpoints" in capsys.readouterr().out
    assert all(path.exists() for path in left)
    assert main(["gc", "--keep", "best"]) == 0
    assert not any(path.exists() for path in left)
    assert not (OUT / ".trash-4bc-999999").exists()
    assert alive.exists()
    assert not (OUT / "0ld00000000").exists()
    kept = {path.name for path in OUT.glob("*/checkpoints/*")}
    assert kept == {"best.ckpt"}
    assert all(read_outcome(OUT / run.id).result for run in swept.distinct_runs[:2])


def test_the_best_checkpoint_stays_where_other_runs_start_from_it(project: None) -> None:
    plan = make_plan(
        write_sweep(factors={"window_size": [7]}, seeds=1), tasks=["classification", "detection"]
    )
    parent, _ = plan.distinct_runs
    note(plan)
    finished(parent)
    assert main(["gc", "--keep", "none"]) == 0
    assert [path.name for path in (OUT / parent.id / "checkpoints").iterdir()] == ["best.ckpt"]


def test_a_finished_result_is_never_replaced(out: Path) -> None:
    first = finish(out, "run0")
    assert not write_result_once(out / "run0", first)
    assert not list((out / "run0").glob(".*"))


def test_a_failure_of_an_older_version_is_still_read(out: Path) -> None:
    fail(out, "run0")
    path = out / "run0" / "failure.json"
    raw = json.loads(path.read_text())
    del raw["pruned"]
    path.write_text(json.dumps(raw))
    failure = read_failure(out / "run0")
    assert failure is not None
    assert not failure.pruned


def test_a_folder_that_does_not_exist_is_reported(project: None) -> None:
    with pytest.raises(UserError, match="--out: nowhere does not exist"):
        main(["--out", "nowhere"])


def test_runs_that_a_changed_sweep_needs_no_longer_are_free_unless_a_command_still_trains_it(
    swept: Plan,
) -> None:
    changed = make_plan(write_sweep(factors={"window_size": [7]}))
    note(changed)
    dropped = next(run for run in swept.distinct_runs[:3] if run.id not in {r.id for r in changed.runs})
    with present(swept.study, OUT):
        assert main(["gc"]) == 0
        assert (OUT / dropped.id).exists()
    assert main(["gc"]) == 0
    assert not (OUT / dropped.id).exists()
    assert (OUT / changed.runs[0].id).exists()


@pytest.mark.parametrize(
    ("damaged", "text"),
    [("plans", "{half")]
    + [
        ("sweeps/small.json", text)
        for text in ("{half", "3", "[]", "{}", '{"runs": 3}', '{"runs": [1]}', '{"study": 3}')
    ],
)
def test_nothing_is_removed_while_it_cannot_be_read_what_a_sweep_needs(
    swept: Plan, damaged: str, text: str
) -> None:
    path = OUT / damaged if damaged.endswith("json") else OUT / damaged / f"{swept.study}.json"
    path.write_text(text)
    for action in (["gc"], ["gc", "--dry-run"], ["rm", "0ld0"]):
        with pytest.raises(UserError, match=r"json: is damaged; run the sweep again"):
            main(action)
    assert (OUT / "0ld00000000").exists()
    assert main([]) == 0  # looking does no harm
    assert main(["rm", "0ld0", "--force"]) == 0


def test_a_run_named_twice_is_removed_once(swept: Plan, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rm", "0ld0", "0ld00"]) == 0
    assert "removed 1 run," in capsys.readouterr().out
    with pytest.raises(UserError, match="ID: is empty"):
        main(["rm", ""])


def test_a_half_removed_run_is_not_listed_and_is_removed_once_its_remover_has_exited(
    swept: Plan, capsys: pytest.CaptureFixture[str]
) -> None:
    (OUT / "0ld00000000").rename(OUT / ".trash-0ld00000000-999999")
    finish(OUT, "0ld00000001")
    alive = (OUT / "0ld00000001").rename(OUT / f".trash-0ld00000001-{os.getpid()}")
    assert len(listed(capsys)) == 3
    assert main(["gc"]) == 0
    assert "removed 0 runs and 1 leftover file," in capsys.readouterr().out
    assert alive.exists()
    assert not (OUT / ".trash-0ld00000000-999999").exists()


def test_gc_leaves_what_a_run_in_training_writes(swept: Plan) -> None:
    folder = OUT / "0ld00000000"
    lock = FileLock(folder / LOCK_FILE)
    assert lock.acquire()
    (folder / ".config.yaml.999999").write_text("of a process on another machine")
    assert main(["gc", "--keep", "none"]) == 0
    lock.release()
    assert (folder / ".config.yaml.999999").exists()
    assert main(["gc"]) == 0
    assert not folder.exists()


def test_failed_means_not_those_that_are_tried_again_right_now(swept: Plan) -> None:
    folder = OUT / swept.distinct_runs[2].id
    lock = FileLock(folder / LOCK_FILE)
    assert lock.acquire()
    assert main(["retry", "--failed"]) == 0
    with pytest.raises(UserError, match="is being trained"):
        main(["retry", folder.name])
    lock.release()
    assert read_outcome(folder).state is State.FAILED


def test_looking_for_a_lock_takes_no_other_looker_for_a_training(swept: Plan) -> None:
    folder = OUT / swept.distinct_runs[0].id
    looker = FileLock(folder / LOCK_FILE)
    assert looker.acquire(shared=True)
    assert not is_running(folder)
    looker.release()


def test_gc_says_what_it_could_not_remove(
    swept: Plan, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, target: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "rename", refuse)
    assert main(["gc"]) == 1
    reported = capsys.readouterr()
    assert reported.err == "focal-lab: kept: runs/0ld00000000 cannot be changed: Permission denied\n"
    assert reported.out == "removed 0 runs and 0 leftover files, 0 B\n"
