"""`focal-lab dashboard`: all runs in TensorBoard, grouped by sweep and named by cell."""

import argparse
import hashlib
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from focal_lab.command_line import CommandParser, add_out, command
from focal_lab.errors import UserError
from focal_lab.report.tensorboard.fill import fill
from focal_lab.report.tensorboard.log_dir import LogDir
from focal_lab.report.tensorboard.naming import OTHERS, read_sweeps
from focal_lab.report.tensorboard.server import start_tensorboard
from focal_lab.sweep.run_folder.layout import run_folders
from focal_lab.sweep.spec.sweep_file import find_sweep

_FOLDER = "tensorboard"
_INTERVAL = 3.0  # seconds
# Share of the time that may be spent on updates: of thousands of runs, one takes seconds.
_BUSY = 0.2
_LONGEST_NAME = 100
_EPILOG = """examples:
  focal-lab dashboard                         all sweeps in runs/, and new runs as they appear
  focal-lab dashboard window_size depth       two sweeps
  focal-lab dashboard --no-serve --out runs   only write the log directory for tensorboard --logdir"""


def main(argv: list[str]) -> int:
    """Write the log directory and serve it until Ctrl-C; the exit status.

    Raises:
        UserError: no runs, no such sweep, the port is taken, or the log directory cannot be written.
    """
    options = _parser().parse_args(argv)
    dashboard = Dashboard(options.out, options.sweeps)
    if options.no_serve:
        dashboard.refresh()
        print(f"{dashboard.summary} in {dashboard.root}")
        print(f"tensorboard --logdir {shlex.quote(str(dashboard.root))}")
        return 0
    # Blocked, they wait for a safe moment: not while a plot is drawn or a file written.
    signals = {signal.SIGINT, signal.SIGTERM}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        url = start_tensorboard(dashboard.root, options.host, options.port)
        print(f"{dashboard.summary}: {url} (press Ctrl-C to stop)", flush=True)
        seconds = 0.0
        while not _arrives(signals, seconds):
            with suppress(KeyboardInterrupt):
                seconds = dashboard.try_refresh(lambda: bool(signals & signal.sigpending()))
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return 0


class Dashboard:
    """The log directory of a folder of runs; each choice of sweeps (files or names) has one of its own.

    Raises:
        UserError: no runs, or no such sweep.
    """

    def __init__(self, out: Path, wanted: Sequence[str] = ()) -> None:
        self.out = out
        if out.exists() and not out.is_dir():
            raise UserError("is not a folder", file=out)
        if next(run_folders(out), None) is None:
            state = "holds no runs yet" if out.exists() else "does not exist"
            train = command("sweep", "sweeps/window_size.yaml", "--out", out)
            raise UserError(f"{state} (train some: {train})", file=out)
        self._wanted = [find_sweep(name) for name in dict.fromkeys(wanted)]
        self.root = out / _FOLDER / _choice(self._wanted)
        self._log_dir = LogDir(self.root)
        self._reported: set[str] = set()
        self._seen: object = None
        self._sweeps = read_sweeps(out, self._wanted, [])

    @property
    def summary(self) -> str:
        """`18 runs of 2 sweeps`."""
        runs = len({run.id for sweep in self._sweeps for run in sweep.runs})
        sweeps = sum(sweep.name != OTHERS for sweep in self._sweeps)
        return _count(runs, "run") + (f" of {_count(sweeps, 'sweep')}" if sweeps else "")

    def refresh(self, stop: Callable[[], bool] = lambda: False) -> bool:
        """Update the log directory; whether anything had changed.

        Raises:
            UserError: as `read_sweeps` and `LogDir.updating`.
        """
        seen = _fingerprint(self.out)
        if seen == self._seen:
            return False
        warnings: list[str] = []
        self._sweeps = read_sweeps(self.out, self._wanted, warnings)
        with self._log_dir.updating():
            fill(self._log_dir, self._sweeps, self.out, warnings, stop)
        self._seen = seen
        for warning in warnings:
            self._report(warning)
        return True

    def try_refresh(self, stop: Callable[[], bool] = lambda: False) -> float:
        """Refresh, reporting each error once; the seconds to wait before the next time."""
        started = time.monotonic()
        try:
            self.refresh(stop)
        except Exception as error:  # the server survives a sweep file that is being edited
            self._report(f"not up to date: {error or type(error).__name__}")
        return max(_INTERVAL, (time.monotonic() - started) / _BUSY)

    def _report(self, problem: str) -> None:
        if problem not in self._reported:
            self._reported.add(problem)
            print(f"focal-lab: dashboard: {' '.join(problem.split())}", file=sys.stderr, flush=True)


def _arrives(signals: set[signal.Signals], seconds: float) -> bool:
    """Whether one of the blocked signals arrives in time (macOS has no sigtimedwait)."""
    end = time.monotonic() + seconds
    while not signals & signal.sigpending():
        if time.monotonic() >= end:
            return False
        time.sleep(0.1)
    signal.sigwait(signals)
    return True


def _fingerprint(out: Path) -> object:
    """A value that changes whenever a run or a record of a sweep is added, changed or removed."""
    found: list[tuple[str, int]] = []
    for folder in (out, out / "sweeps", out / "plans"):
        with suppress(OSError), os.scandir(folder) as entries:  # missing, or just removed
            for entry in entries:
                # not the log directory itself, and no journal that grows with every step
                hidden = entry.name == _FOLDER or entry.name.startswith(".")
                if folder != out or (entry.is_dir() and not hidden):
                    found.append((entry.path, entry.stat().st_mtime_ns))
    return sorted(found)


def _choice(sweeps: Sequence[Path]) -> str:
    names = sorted({path.stem for path in sweeps})
    chosen = "+".join(names)
    if len(chosen) > _LONGEST_NAME:
        return f"{len(names)}-sweeps-{hashlib.sha256(chosen.encode()).hexdigest()[:8]}"
    return chosen or "all"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="focal-lab dashboard",
        description="Show runs in TensorBoard: curves by sweep and cell, HParams, images, tables and plots.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("sweeps", nargs="*", metavar="SWEEP", help="sweep files or names (default: all)")
    add_out(parser)
    parser.add_argument("--port", type=int, help="default: the first free one from 6006")
    parser.add_argument(
        "--host", default="localhost", help="0.0.0.0: reachable from other machines (default: localhost)"
    )
    parser.add_argument(
        "--no-serve",
        action="store_true",
        help="only write the log directory and print the command to show it",
    )
    return parser
