"""The outcome of a run, read from its folder: finished, pruned, failed, corrupt or missing."""

import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from focal_lab.sweep.run_folder.layout import FAILURE_FILE, RESULT_FILE
from focal_lab.sweep.run_folder.result import CorruptRecordError, Failure, Result, read_failure, read_result

# A run prints what it likes; a report shows words, not cursor movements, and not a screenful of them.
_ESCAPE_CODE = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
_MOST_CHARACTERS = 300


class State(StrEnum):
    """FINISHED: has a result. PRUNED: stopped early by a search. FAILED: has another failure and no result.
    CORRUPT: its result is damaged. MISSING: never started, running, or killed before it recorded anything."""

    FINISHED = "finished"
    PRUNED = "pruned"
    FAILED = "failed"
    CORRUPT = "corrupt"
    MISSING = "missing"


@dataclass(frozen=True)
class Outcome:
    """State of a run and the records in its folder; `problem` is what is wrong with a corrupt result."""

    run: str
    state: State
    result: Result | None = None
    failure: Failure | None = None
    problem: str | None = None

    @property
    def reason(self) -> str | None:
        """Why there is no result, in one line; None for a finished or missing run."""
        if self.state is State.CORRUPT:
            return self.problem
        if self.state not in (State.FAILED, State.PRUNED):
            return None
        return _one_line(self.failure.reason if self.failure else f"its {FAILURE_FILE} cannot be read")

    @property
    def last_line(self) -> str | None:
        """The last line of a failed run's log that is not blank."""
        lines = self.failure.last_lines if self.failure and self.state is State.FAILED else []
        # a progress bar redraws its line after \r
        clean = (_one_line(line.rstrip().rpartition("\r")[2]) for line in reversed(lines))
        return next((line for line in clean if line), None)


def read_outcome(folder: Path) -> Outcome:
    """Outcome of the run in a folder, which need not exist."""
    try:
        result = read_result(folder)
    except CorruptRecordError as error:
        return Outcome(folder.name, State.CORRUPT, problem=f"{RESULT_FILE} {error.message}")
    if result is not None:
        return Outcome(folder.name, State.FINISHED, result=result)
    if (folder / FAILURE_FILE).exists():
        failure = read_failure(folder)
        state = State.PRUNED if failure is not None and failure.pruned else State.FAILED
        return Outcome(folder.name, state, failure=failure)
    return Outcome(folder.name, State.MISSING)


def _one_line(text: str) -> str:
    text = _ESCAPE_CODE.sub("", text)
    text = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    return text if len(text) <= _MOST_CHARACTERS else f"{text[: _MOST_CHARACTERS - 1]}…"
