"""Common options of `sweep` and `worker`, and the training of known runs."""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from focal_lab.errors import UserError
from focal_lab.sweep.commands.options import add_workers, at_least, parse_duration
from focal_lab.sweep.commands.progress import SweepView
from focal_lab.sweep.engine.conflicts import Rivals, present
from focal_lab.sweep.engine.executor import Execution, ExecutionSummary, Rules
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
class ExecutionOptions:
    """How runs are executed, from the command line.

    Attributes:
        storage: URL of a PostgreSQL database, None for a journal in the folder of the runs.
        workers: runs at a time, None for as many as fit.
    """

    storage: str | None
    grace: float
    workers: int | None
    retries: int
    rules: Rules


def add_execution_options(parser: argparse.ArgumentParser) -> None:
    """The options that say how runs are executed."""
    add_workers(parser, "one per GPU, or per core up to 4")
    parser.add_argument(
        "--storage",
        metavar="URL",
        default=os.environ.get(_STORAGE_VARIABLE),
        help="postgresql://USER@HOST/DATABASE that several machines share, with --out in a shared folder "
        f"(default: ${_STORAGE_VARIABLE}, or a journal in --out, for one machine)",
    )
    parser.add_argument(
        "--retries", type=int, default=1, help="how often a crashed run is retried (default: 1)"
    )
    parser.add_argument(
        "--timeout",
        default="1h",
        metavar="TIME",
        help="time without a message after which a run counts as hung: 90s, 30m, 2h (default: 1h)",
    )
    parser.add_argument(
        "--grace",
        default=f"{GRACE:.0f}s",
        metavar="TIME",
        help="with --storage: time without a heartbeat after which a machine counts as dead (default: "
        f"{GRACE:.0f}s; the same on all machines)",
    )
    parser.add_argument(
        "--keep",
        default="best,last",
        metavar="WHICH",
        help="checkpoints of finished runs to keep: best, last, best,last or none (default: best,last)",
    )


def execution_options(options: argparse.Namespace) -> ExecutionOptions:
    """Check the options of `add_execution_options`.

    Raises:
        UserError: one of them is wrong.
    """
    at_least(1, options.workers, "--workers")
    at_least(0, options.retries, "--retries")
    if options.storage is not None:
        check_url(options.storage)
    return ExecutionOptions(
        storage=options.storage or None,
        grace=parse_duration(options.grace, "--grace"),
        workers=options.workers,
        retries=options.retries,
        rules=Rules(parse_duration(options.timeout, "--timeout"), parse_keep(options.keep, "--keep")),
    )


def open_queue(chosen: ExecutionOptions, manifest: Manifest, out: Path) -> RunQueue:
    """The queue of a study.

    Raises:
        UserError: the storage cannot be used.
    """
    options: dict[str, Any] = {
        "storage": chosen.storage,
        "retries": chosen.retries,
        "grace": chosen.grace,
        "rivals": Rivals(out, manifest.study),
    }
    if manifest.space is not None:
        return SearchQueue(out, manifest.space, **options)
    levels: dict[str, dict[str, None]] = {}
    for run in manifest.runs:
        for name, label in run.cell.labels.items():
            levels.setdefault(name, {})[label] = None
    return RunQueue(out, manifest.study, levels=levels, **options)


def execute(
    runs: Sequence[Run],
    manifest: Manifest,
    out: Path,
    queue: RunQueue,
    slots: DeviceSlots,
    rules: Rules,
    processes: WarmProcesses,
    view: SweepView,
    again: str,
    *,
    adopt: bool = False,
) -> int:
    """Train runs of a study and print a summary.

    Args:
        again: the command, to be typed again.
        adopt: train runs that others add to the study meanwhile, too.

    Returns:
        Exit status: 0 all finished, 1 some failed or the disk was full, 130 interrupted.
    """
    total = view.total
    difference = clock_difference(queue.storage)
    if difference is not None:
        ahead = f"{abs(difference):.0f} s {'ahead of' if difference > 0 else 'behind'}"
        view.noted(
            f"the clock of this machine is {ahead} the database's: times in results will disagree between "
            "machines; which machine is dead is decided by the database's clock alone"
        )
    try:
        with present(manifest.study, out):
            summary = Execution(
                runs,
                out,
                queue,
                slots=slots,
                rules=rules,
                processes=processes,
                view=view,
                find=queue.proposals.runs if isinstance(queue, SearchQueue) else _AddedRuns(manifest, out),
                adopt=adopt or queue.searches,
            ).run()
    finally:
        view.close()
    print(conclusion(settled(summary, queue, total, out), summary, again), file=sys.stderr)
    return status_of(summary)


class _AddedRuns:
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


def status_of(summary: ExecutionSummary) -> int:
    """Exit status: 0 all finished, 1 some failed or the disk was full, 130 interrupted."""
    if summary.interrupted:
        return INTERRUPTED
    return SOME_FAILED if summary.failed or summary.halted else 0


def settled(summary: ExecutionSummary, queue: RunQueue, total: int, out: Path) -> int:
    """The final number of runs of a study: of a search, those that were proposed.

    Proposals that another sweep had trained before are counted as reused, although nobody asked for them by
    ID. A space smaller than the number of trials is reported.
    """
    if not isinstance(queue, SearchQueue) or summary.interrupted or summary.halted:
        return total
    lists = (summary.reused, summary.trained, summary.elsewhere, summary.failed, summary.pruned)
    known = {run for runs in lists for run in runs}
    proposed = queue.proposals.runs()
    summary.reused += [run for run in proposed if run not in known and read_outcome(out / run).result]
    if len(proposed) < queue.trials:
        print(
            f"the search space is exhausted: {len(proposed)} of {queue.trials} trials, no other combination "
            "is left",
            file=sys.stderr,
        )
    return len(proposed)


def conclusion(total: int, summary: ExecutionSummary, again: str) -> str:
    """How a command ended, in a line or two; `again` is the command."""
    parts = [f"{len(summary.trained)} trained", f"{len(summary.reused)} reused"]
    if summary.elsewhere:
        parts.append(f"{len(summary.elsewhere)} trained by another command")
    if summary.pruned:
        parts.append(f"{len(summary.pruned)} stopped early")
    if summary.failed:
        parts.append(f"{len(summary.failed)} failed (the next sweep retries them)")
    counts = f"{total} runs: {', '.join(parts)}"
    if summary.halted:
        return f"{summary.halted}\n{counts}, stopped before the rest. {summary.way_out} with: {again}"
    if not summary.interrupted:
        return counts
    return f"{counts}, stopped before the rest. Resume with: {again}"
