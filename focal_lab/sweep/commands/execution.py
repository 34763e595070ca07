"""What `sweep` and `worker` share: their options, and the execution of runs that are known."""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from focal_lab.errors import UserError
from focal_lab.sweep.commands.options import parse_duration
from focal_lab.sweep.engine.conflicts import Rivals, present
from focal_lab.sweep.engine.executor import Execution, Rules, Summary, View
from focal_lab.sweep.engine.queue import RunQueue
from focal_lab.sweep.engine.search_queue import SearchQueue
from focal_lab.sweep.engine.slots import DeviceSlots
from focal_lab.sweep.engine.storage import GRACE, check_url, clock_difference
from focal_lab.sweep.plan.manifest import Manifest, manifest_path, read_manifest
from focal_lab.sweep.plan.runs import Run
from focal_lab.sweep.run_folder.outcome import read_outcome
from focal_lab.sweep.run_folder.retention import parse_keep
from focal_lab.sweep.worker.processes import WarmProcesses

SOME_FAILED = 1
INTERRUPTED = 130
_STORAGE_VARIABLE = "FOCAL_LAB_STORAGE"


@dataclass(frozen=True)
class Work:
    """How runs are to be executed, as the command line says.

    Attributes:
        storage: address of a PostgreSQL database, None for a journal in the folder of the runs.
        workers: runs at a time, None for as many as fit.
    """

    storage: str | None
    grace: float
    workers: int | None
    retries: int
    rules: Rules

    def open(self, manifest: Manifest, out: Path) -> RunQueue:
        """The queue of a study.

        Raises:
            UserError: the storage cannot be used.
        """
        options: dict[str, Any] = {
            "storage": self.storage,
            "retries": self.retries,
            "grace": self.grace,
            "rivals": Rivals(out, manifest.study),
        }
        if manifest.recipe is not None:
            return SearchQueue(out, manifest.recipe, **options)
        levels: dict[str, dict[str, None]] = {}
        for run in manifest.runs:
            for name, label in run.cell.labels.items():
                levels.setdefault(name, {})[label] = None
        return RunQueue(out, manifest.study, levels=levels, **options)


def add_work_options(parser: argparse.ArgumentParser) -> None:
    """The options that say how runs are executed."""
    parser.add_argument(
        "--workers", type=int, help="runs trained at the same time (default: one a GPU, or a core up to 4)"
    )
    parser.add_argument(
        "--storage",
        metavar="URL",
        default=os.environ.get(_STORAGE_VARIABLE),
        help="postgresql://USER@HOST/DATABASE that several machines share, with --out in a shared folder "
        f"(default: ${_STORAGE_VARIABLE}, or a journal in --out, for one machine)",
    )
    parser.add_argument(
        "--retries", type=int, default=1, help="how often a run that died is tried again (default: 1)"
    )
    parser.add_argument(
        "--timeout",
        default="1h",
        metavar="TIME",
        help="a run that is silent for so long is taken for hung: 90s, 30m, 2h (default: 1h)",
    )
    parser.add_argument(
        "--grace",
        default=f"{GRACE:.0f}s",
        metavar="TIME",
        help="with --storage: a machine that is silent for so long is taken for dead (default: "
        f"{GRACE:.0f}s; the same on all machines)",
    )
    parser.add_argument(
        "--keep",
        default="best,last",
        metavar="WHICH",
        help="checkpoints of finished runs that stay: best, last, best,last or none (default: best,last)",
    )


def work_of(options: argparse.Namespace) -> Work:
    """Check the options of `add_work_options`.

    Raises:
        UserError: one of them is wrong.
    """
    if options.workers is not None and options.workers < 1:
        raise UserError(f"{options.workers} is too few; use 1 or more", key="--workers")
    if options.retries < 0:
        raise UserError(f"{options.retries} is too few; use 0 or more", key="--retries")
    if options.storage is not None:
        check_url(options.storage)
    return Work(
        storage=options.storage or None,
        grace=parse_duration(options.grace, "--grace"),
        workers=options.workers,
        retries=options.retries,
        rules=Rules(parse_duration(options.timeout, "--timeout"), parse_keep(options.keep, "--keep")),
    )


def execute(
    runs: Sequence[Run],
    manifest: Manifest,
    out: Path,
    queue: RunQueue,
    places: DeviceSlots,
    work: Work,
    processes: WarmProcesses,
    view: View,
    *,
    adopt: bool = False,
) -> Summary:
    """Train runs of a study; with `adopt`, also those that others add to it meanwhile."""
    _warn_of_clock(queue, view)
    with present(manifest.study, out):
        return Execution(
            runs,
            out,
            queue,
            slots=places,
            rules=work.rules,
            processes=processes,
            view=view,
            find=queue.proposals.runs if isinstance(queue, SearchQueue) else _Watched(manifest, out),
            adopt=adopt or queue.searches,
        ).run()


class _Watched:
    """Runs that others have added to a study's plan."""

    def __init__(self, manifest: Manifest, out: Path) -> None:
        self._path = manifest_path(out, manifest.study)
        self._read: float | None = None
        self._runs: Mapping[str, Run] = {}

    def __call__(self) -> Mapping[str, Run]:
        try:
            changed = self._path.stat().st_mtime
            if changed != self._read:
                self._runs = {run.id: run for run in read_manifest(self._path).runs}
                self._read = changed
        except (OSError, UserError):
            pass  # the runs that are known already are trained
        return self._runs


def status_of(summary: Summary) -> int:
    """Exit status: 0 all finished, 1 some failed or the disk was full, 130 interrupted."""
    if summary.interrupted:
        return INTERRUPTED
    return SOME_FAILED if summary.failed or summary.halted else 0


def settled(summary: Summary, queue: RunQueue, total: int, out: Path) -> int:
    """How many runs a study has in the end: of a search, those that were proposed.

    Proposals that another sweep had trained before are reused, although nobody asked for them by their ID. A
    space that is smaller than the trials asked for is reported.
    """
    if not isinstance(queue, SearchQueue) or summary.interrupted or summary.halted:
        return total
    lists = (summary.reused, summary.trained, summary.elsewhere, summary.failed, summary.pruned)
    known = {run for runs in lists for run in runs}
    proposed = queue.proposals.runs()
    summary.reused += [run for run in proposed if run not in known and read_outcome(out / run).result]
    asked = queue.trials
    if len(proposed) < asked:
        print(
            f"the search space is exhausted: {len(proposed)} of {asked} trials, no other combination is left",
            file=sys.stderr,
        )
    return len(proposed)


def conclusion(total: int, summary: Summary, again: str) -> str:
    """What a command came to, in a line or two; `again` is the command."""
    parts = [f"{len(summary.trained)} trained", f"{len(summary.reused)} reused"]
    if summary.elsewhere:
        parts.append(f"{len(summary.elsewhere)} trained by another command")
    if summary.pruned:
        parts.append(f"{len(summary.pruned)} stopped early")
    if summary.failed:
        parts.append(f"{len(summary.failed)} failed (the next sweep tries them again)")
    told = f"{total} runs: {', '.join(parts)}"
    if summary.halted:
        told = f"{summary.halted}\n{told}, stopped before the rest"
        return f"{told}. {summary.way_out} with: {again}"
    if not summary.interrupted:
        return told
    return f"{told}, stopped before the rest. Go on with: {again}"


def _warn_of_clock(queue: RunQueue, view: View) -> None:
    difference = clock_difference(queue.storage)
    if difference is not None:
        ahead = f"{abs(difference):.0f} s {'ahead of' if difference > 0 else 'behind'}"
        view.noted(
            f"the clock of this machine is {ahead} the database's: times in results will disagree between "
            "machines; who is dead is decided by the database's clock alone"
        )
