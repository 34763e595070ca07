"""The list of runs fits the terminal and is grouped by who needs them."""

import pytest

from focal_lab.sweep.commands.runs_command import runs_text
from focal_lab.sweep.housekeeping.inventory import RunEntry

LONG = "out of memory: 4,096 pictures of 224 px need 31 GB on a device of 24 GB (use a smaller batch_size)"


def entry(run: str, state: str = "finished", sweeps: tuple[str, ...] = ("window_size",)) -> RunEntry:
    """A run of a chain of four factors, as large as they get."""
    return RunEntry(
        run=run,
        state=state,
        task="classification",
        seed=12,
        labels={"a": "7 tokens", "b": "learned", "c": "focal levels 2", "d": "shift"},
        age=3 * 3600,
        size=12_345_678,
        sweeps=sweeps,
        reason=LONG if state == "failed" else None,
    )


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("with_reasons", [False, True])
def test_the_list_fits_the_terminal(width: int, with_reasons: bool) -> None:
    reported = runs_text(
        [entry("0123456789ab", "failed"), entry("ab0123456789")], width, with_reasons=with_reasons
    )
    assert max(map(len, reported.splitlines())) <= width
    assert "0123456789ab" in reported
    assert "3 h" in reported
    assert ("batch_size" if with_reasons else "12.3 MB") in reported


def test_a_pipe_gets_a_line_for_each_run() -> None:
    reported = runs_text([entry("0123456789ab", "failed")], None, with_reasons=True).splitlines()
    assert any(line.startswith("0123456789ab") and line.endswith(LONG) for line in reported)


def test_runs_stand_under_the_sweeps_that_need_them_and_those_of_none_are_last() -> None:
    reported = runs_text([entry("a", sweeps=()), entry("b", sweeps=("one", "two")), entry("c")], 80)
    headings = [line for line in reported.splitlines() if line.startswith("Needed")]
    assert headings == ["Needed by one and two", "Needed by window_size", "Needed by no sweep"]
    assert reported.endswith("3 runs: 3 finished, 37.0 MB\n")


def test_an_empty_list_says_so() -> None:
    assert runs_text([], 80) == "0 runs, 0 B\n"
