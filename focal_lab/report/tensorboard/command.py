"""`focal-lab dashboard`: all runs in TensorBoard, grouped by sweep and named by cell."""

import argparse
import os
import shlex
import signal
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from focal_lab.command_line import CommandParser, add_out
from focal_lab.errors import UserError
from focal_lab.report.command import check_has_runs
from focal_lab.report.tensorboard.fill import fill
from focal_lab.report.tensorboard.log_dir import updating
from focal_lab.report.tensorboard.naming import OTHERS, folder_name, read_sweeps
from focal_lab.sweep.run_folder.layout import run_folders
from focal_lab.sweep.spec.sweep_file import find_sweep
from focal_lab.utils.units import many

_INTERVAL, _RELOAD_INTERVAL = 3.0, 5  # seconds
# Share of the time that may be spent on updates: of thousands of runs, one takes seconds.
_BUSY = 0.2
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
    url = _start_tensorboard(dashboard.root, options.host, options.port)
    for word in (signal.SIGINT, signal.SIGTERM):
        # Nothing to clean up: files appear at once, and TensorBoard's data server exits with us.
        signal.signal(word, lambda *_: os._exit(0))
    print(f"{dashboard.summary}: {url} (press Ctrl-C to stop)", flush=True)
    while True:
        started = time.monotonic()
        dashboard.try_refresh()
        time.sleep(max(_INTERVAL, (time.monotonic() - started) / _BUSY))


class Dashboard:
    """The log directory of a folder of runs; each choice of sweeps (files or names) has one of its own.

    Raises:
        UserError: no runs, or no such sweep.
    """

    def __init__(self, out: Path, wanted: Sequence[str] = ()) -> None:
        check_has_runs(out)
        self.out = out
        self._wanted = [find_sweep(name) for name in dict.fromkeys(wanted)]
        chosen = "+".join(sorted({path.stem for path in self._wanted})) or "all"
        self.root = out / "tensorboard" / folder_name(chosen)
        self._reported: set[str] = set()
        self._seen: object = None
        self._sweeps = read_sweeps(out, self._wanted, [])

    @property
    def summary(self) -> str:
        """`18 runs of 2 sweeps`."""
        runs = many(len({run.id for sweep in self._sweeps for run in sweep.runs}), "run")
        sweeps = sum(sweep.name != OTHERS for sweep in self._sweeps)
        return f"{runs} of {many(sweeps, 'sweep')}" if sweeps else runs

    def refresh(self) -> bool:
        """Update the log directory; whether anything had changed.

        Raises:
            UserError: as `read_sweeps` and `updating`.
        """
        # a run, or a record of a sweep, that is added, changed or removed
        paths = [*run_folders(self.out), *self.out.glob("sweeps/*.json"), *self.out.glob("plans/*.json")]
        seen = {path: path.stat().st_mtime_ns for path in paths if path.exists()}
        if seen == self._seen:
            return False
        warnings: list[str] = []
        self._sweeps = read_sweeps(self.out, self._wanted, warnings)
        with updating(self.root) as log_dir:
            fill(log_dir, self._sweeps, self.out, warnings)
        self._seen = seen
        for warning in warnings:
            self._report(warning)
        return True

    def try_refresh(self) -> None:
        """Refresh, reporting each error once: the server survives a sweep file that is being edited."""
        try:
            self.refresh()
        except Exception as error:
            self._report(f"not up to date: {error or type(error).__name__}")

    def _report(self, problem: str) -> None:
        if problem not in self._reported:
            self._reported.add(problem)
            print(f"focal-lab: dashboard: {' '.join(problem.split())}", file=sys.stderr, flush=True)


def _start_tensorboard(log_dir: Path, host: str, port: int | None) -> str:
    """Serve a log directory until this process exits; the URL.

    Port 0 stands for any free port, None for the first free one from 6006.

    Raises:
        UserError: the port is taken or invalid, or nothing can listen on that host.
    """
    if port is not None and not 0 <= port <= 0xFFFF:
        raise UserError(f"{port} is not 0 to 65535", key="--port")
    try:  # TensorBoard would exit with a message that does not name the option
        family, kind, protocol, _, address = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.bind(address)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"cannot listen on {host} ({reason}); use localhost or 0.0.0.0", key="--host"
        ) from error
    from tensorboard import program
    from tensorboard.data import server_ingester

    try:  # `auto` prints a note about the fast data server
        server_ingester.get_server_binary()
        fast = "true"
    except server_ingester.NoDataServerError:
        fast = "false"
    board: Any = program.TensorBoard()
    arguments = [f"--logdir={log_dir}", f"--host={host}", f"--load_fast={fast}", "--reload_multifile=true"]
    arguments += [f"--reload_interval={_RELOAD_INTERVAL}", *([] if port is None else [f"--port={port}"])]
    board.configure(argv=[sys.argv[0], *arguments])
    try:
        url: str = board.launch()
    except program.TensorBoardServerException as error:
        fix = "" if port is None else " (use another --port, or none for the first free one)"
        raise UserError(f"{error.msg}{fix}", key="--port") from error
    return url


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="focal-lab dashboard",
        description="Show runs in TensorBoard: curves by sweep and cell, HParams, images, tables and plots.",
        epilog=_EPILOG,
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
