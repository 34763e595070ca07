"""`focal-lab dashboard`: TensorBoard, grouped by sweep and named by cell, while runs come in."""

import argparse
import hashlib
import shlex
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from focal_lab.command_line import CommandParser, add_out
from focal_lab.report.tensorboard.naming import FOLDER, OTHERS, ShownSweep, Sweeps, fingerprint

ALL = "all"
# Seconds between two looks at the folder of runs.
_INTERVAL = 3.0
# As often as it took to look it waits before it looks again.
_RESTS = 5
_LONGEST_NAME = 100
# Of more folders than these TensorBoard's older tabs select none.
_MOST_SELECTED = 40
_CROWDED = (
    "More than 40 are not selected by themselves in some tabs: filter them there (window_size/), "
    "or name sweeps (focal-lab dashboard window_size)."
)
_EPILOG = """examples:
  focal-lab dashboard                         all sweeps in runs/, and new runs as they come in
  focal-lab dashboard window_size depth       two sweeps
  focal-lab dashboard --no-serve --out runs   only make the folder that tensorboard --logdir shows"""


def main(argv: list[str]) -> int:
    """Make the tree, then serve it until Ctrl-C; the exit status.

    Args:
        argv: what follows `focal-lab dashboard`.

    Raises:
        UserError: no runs, no such sweep, the port is taken, or the tree cannot be written.
    """
    options = _parser().parse_args(argv)
    dashboard = Dashboard(options.out, options.sweeps)
    dashboard.refresh(slow=options.no_serve)
    if options.no_serve:
        dashboard.say_doubts()
        print(f"{dashboard.summary} in {dashboard.root}")
        print(f"tensorboard --logdir {shlex.quote(str(dashboard.root))}")
        return 0
    from focal_lab.report.tensorboard.server import start_tensorboard

    keeper = threading.Thread(target=dashboard.keep_fresh, name="dashboard", daemon=True)
    with _terminated_like_interrupted():
        with suppress(KeyboardInterrupt):
            address = start_tensorboard(dashboard.root, options.host, options.port)
            print(f"{dashboard.summary}: {address} (Ctrl-C ends it)", flush=True)
            if dashboard.crowded:
                print(_CROWDED, flush=True)
            keeper.start()
            # not join: one that is interrupted takes the thread for dead (bpo-45274)
            dashboard.wait()
        dashboard.stop()
        if keeper.is_alive():  # the interpreter must not end below a thread that draws
            keeper.join()
    return 0


class Dashboard:
    """The tree of a folder of runs, kept up to date.

    Args:
        out: the folder of the runs.
        wanted: sweep files or names; none: all.

    Attributes:
        root: the tree; one for each choice of sweeps, so that two dashboards do not undo each other's.

    Raises:
        UserError: no runs, or no such sweep.
    """

    def __init__(self, out: Path, wanted: Sequence[str] = ()) -> None:
        from focal_lab.report.tensorboard.build import Board

        self.out = out
        self.root = out / FOLDER / _choice(wanted)
        self._sweeps = Sweeps(out, wanted)
        self._board = Board(out)
        self._shown: list[ShownSweep] = []
        self._seen: object = None
        self._said: set[str] = set()
        self._stopped = threading.Event()

    @property
    def summary(self) -> str:
        """`18 runs of 2 sweeps`."""
        runs = len({run.id for sweep in self._shown for run in sweep.runs})
        sweeps = sum(sweep.name != OTHERS for sweep in self._shown)
        of = f" of {_count(sweeps, 'sweep')}" if sweeps else ""
        return f"{_count(runs, 'run')}{of}"

    @property
    def crowded(self) -> bool:
        """Whether there is more than TensorBoard selects by itself."""
        return sum(len(sweep.runs) for sweep in self._shown) > _MOST_SELECTED

    def refresh(self, *, slow: bool = True) -> bool:
        """Bring the tree up to date; whether anything had changed.

        Args:
            slow: whether to draw plots.

        Raises:
            UserError: as `Sweeps.read`, or the tree cannot be written.
        """
        from focal_lab.report.tensorboard.log_dir import make_tree

        seen = (fingerprint(self.out), slow)
        if seen == self._seen:
            return False
        self._shown = self._sweeps.read()
        tree = self._board.tree(self._shown)
        make_tree(self.root, tree, slow=lambda: slow and not self._stopped.is_set())
        self._seen = seen
        return True

    def say_doubts(self) -> None:
        """What could not be shown, and why; each once, on stderr."""
        for doubt in (*self._sweeps.doubts, *self._board.doubts):
            self._say(doubt)

    def keep_fresh(self, interval: float = _INTERVAL) -> None:
        """Refresh every so many seconds until `stop`; what goes wrong is said once and tried again."""
        while True:
            began = time.monotonic()
            try:
                self.refresh()
                self.say_doubts()
            except Exception as error:  # a server outlives a sweep file that is being edited
                self._say(f"not up to date: {error or type(error).__name__}")
            # thousands of runs take seconds, which whoever trains them wants, too
            if self._stopped.wait(max(interval, _RESTS * (time.monotonic() - began))):
                return

    def wait(self) -> None:
        """Until `stop`."""
        self._stopped.wait()

    def stop(self) -> None:
        """End `keep_fresh` after its current refresh."""
        self._stopped.set()

    def _say(self, problem: str) -> None:
        if problem not in self._said:
            self._said.add(problem)
            print(f"focal-lab: dashboard: {' '.join(problem.split())}", file=sys.stderr, flush=True)


@contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """SIGTERM ends the server as Ctrl-C does."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _choice(wanted: Sequence[str]) -> str:
    names = sorted({Path(name).stem for name in wanted})
    chosen = "+".join(names)
    if len(chosen) > _LONGEST_NAME:
        return f"{len(names)}-sweeps-{hashlib.sha256(chosen.encode()).hexdigest()[:8]}"
    return chosen or ALL


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="focal-lab dashboard",
        description="TensorBoard of all runs: curves by sweep and cell, HParams, pictures, tables and plots.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "sweeps", nargs="*", metavar="SWEEP", help="sweep files or their names (default: all)"
    )
    add_out(parser)
    parser.add_argument("--port", type=int, help="default: the first free one from 6006")
    parser.add_argument(
        "--host", default="localhost", help="0.0.0.0: reachable from elsewhere (default: localhost)"
    )
    parser.add_argument("--no-serve", action="store_true", help="only make the tree, and say how to show it")
    return parser
