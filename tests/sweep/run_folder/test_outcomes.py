from pathlib import Path

from support.finished_runs import corrupt, fail, finish, start

from focal_lab.sweep.run_folder.layout import run_folders
from focal_lab.sweep.run_folder.outcome import State, read_outcome
from focal_lab.sweep.run_folder.result import Failure, write_record


def test_the_files_in_the_folder_decide_the_state(out: Path) -> None:
    finish(out, "a0")
    fail(out, "b0")
    corrupt(out, "c0")
    start(out, "d0")
    states = {run: read_outcome(out / run).state for run in ("a0", "b0", "c0", "d0", "never0")}
    assert states == {
        "a0": State.FINISHED,
        "b0": State.FAILED,
        "c0": State.CORRUPT,
        "d0": State.MISSING,
        "never0": State.MISSING,
    }


def test_a_result_outweighs_the_failure_of_an_earlier_attempt(out: Path) -> None:
    fail(out, "a0")
    finish(out, "a0")
    outcome = read_outcome(out / "a0")
    assert outcome.state is State.FINISHED
    assert outcome.reason is None


def test_a_failure_that_cannot_be_read_is_still_a_failure(out: Path) -> None:
    (out / "a0").mkdir()
    (out / "a0" / "failure.json").write_text("{")
    outcome = read_outcome(out / "a0")
    assert (outcome.state, outcome.reason) == (State.FAILED, "its failure.json cannot be read")


def test_a_result_of_another_run_is_corrupt_and_says_whose_it_is(out: Path) -> None:
    finish(out, "a0")
    (out / "a0").rename(out / "b0")
    outcome = read_outcome(out / "b0")
    assert (outcome.state, outcome.reason) == (State.CORRUPT, "result.json belongs to run a0")


def test_the_last_line_is_the_last_one_with_words_without_escape_codes(out: Path) -> None:
    lines = ["first", "\x1b[1mstep 1\r\x1b[2Kstep 2\x1b[0m\x07", "  ", ""]
    write_record(out / "a0", Failure("a0", "classification", 0, "killed\nby 9", lines, 1, "now"))
    outcome = read_outcome(out / "a0")
    assert (outcome.reason, outcome.last_line) == ("killed by 9", "step 2")


def test_an_endless_last_line_is_cut(out: Path) -> None:
    fail(out, "a0", last="x" * 5000)
    last = read_outcome(out / "a0").last_line
    assert last is not None
    assert (len(last), last[-1]) == (300, "…")


def test_folders_and_files_that_are_no_runs_are_ignored(out: Path) -> None:
    finish(out, "a0")
    start(out, "b0")
    (out / "logs").mkdir()
    (out / "logs" / "notes.txt").write_text("hello")
    (out / "result.json").write_text("{}")
    assert sorted(folder.name for folder in run_folders(out)) == ["a0", "b0"]


def test_an_out_that_does_not_exist_has_no_runs(tmp_path: Path) -> None:
    assert list(run_folders(tmp_path / "nowhere")) == []
