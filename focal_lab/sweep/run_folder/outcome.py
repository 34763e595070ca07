"""What became of a run: finished, failed, corrupt or missing, read from its folder."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from focal_lab.sweep.run_folder.result import (
    CONFIG_FILE,
    FAILURE_FILE,
    RESULT_FILE,
    CorruptRecordError,
    Failure,
    Result,
    read_failure,
    read_result,
)

# A run prints what it likes; a report shows words, not cursor movements, and not a screenful of them.
_ESCAPE_CODE = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
_MOST_CHARACTERS = 300
_RUN_FILES = frozenset({RESULT_FILE, FAILURE_FILE, CONFIG_FILE})


class State(StrEnum):
    """FINISHED: has a result. PRUNED: stopped early by a search. FAILED: has a failure of another kind and no
    result. CORRUPT: its result cannot be read.
    MISSING: neither; never started, running, or killed before it could say anything."""

    FINISHED = "finished"
    PRUNED = "pruned"
    FAILED = "failed"
    CORRUPT = "corrupt"
    MISSING = "missing"


@dataclass(frozen=True)
class Outcome:
    """A run's state and what its folder says of it; `problem`: what is wrong with a corrupt result."""

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
        reason = self.failure.reason if self.failure else f"its {FAILURE_FILE} cannot be read"
        return _one_line(reason)

    @property
    def last_line(self) -> str | None:
        """The last words of a failed run that are not blank."""
        lines = self.failure.last_lines if self.failure and self.state is State.FAILED else []
        # A progress bar redraws its line after \r; what it showed last is what counts.
        clean = (_one_line(line.rstrip().rpartition("\r")[2]) for line in reversed(lines))
        return next((line for line in clean if line), None)


def read_outcome(folder: Path) -> Outcome:
    """What became of the run in that folder, which need not exist."""
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


def run_folders(out: Path) -> Iterator[Path]:
    """The folders in `out` that are runs, in no order; an `out` that does not exist has none.

    Hidden ones are no runs: a run that is being removed is called `.trash-...`.
    """
    try:
        entries = os.scandir(out)
    except (FileNotFoundError, NotADirectoryError):
        return
    with entries:
        for entry in entries:
            if not entry.name.startswith(".") and entry.is_dir() and _is_run(entry.path):
                yield Path(entry.path)


def _is_run(folder: str) -> bool:
    try:
        return not _RUN_FILES.isdisjoint(os.listdir(folder))
    except FileNotFoundError:  # somebody has just removed it
        return False


def _one_line(text: str) -> str:
    text = _ESCAPE_CODE.sub("", text)
    text = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    return text if len(text) <= _MOST_CHARACTERS else f"{text[: _MOST_CHARACTERS - 1]}…"
