"""Common options of `sweep` and `worker`, and the training of known runs."""

import argparse
import os
import sys
from functools import partial
from pathlib import Path

from focal_lab.command_line import at_least
from focal_lab.sweep.commands.command_options import add_workers, duration
from focal_lab.sweep.engine.conflicts import present
from focal_lab.sweep.engine.executor import Execution, ExecutionSummary
from focal_lab.sweep.engine.progress import SweepView
from focal_lab.sweep.engine.queue import RunQueue
from focal_lab.sweep.engine.search_queue import SearchQueue
from focal_lab.sweep.engine.slots import DeviceSlots
from focal_lab.sweep.engine.storage import GRACE, clock_difference, database_of
from focal_lab.sweep.plan.manifest import Manifest, known_runs, manifest_path
from focal_lab.sweep.run_folder.layout import kept_kinds
from focal_lab.sweep.run_folder.outcome import read_outcome
from focal_lab.sweep.worker.processes import WarmProcesses

SOME_FAILED = 1
INTERRUPTED = 130
_STORAGE_VARIABLE = "FOCAL_LAB_STORAGE"


def add_execution_options(parser: argparse.ArgumentParser) -> None:
    """The options that say how runs are executed."""
    add_workers(parser, "one per GPU, or per core up to 4")
    parser.add_argument(
        "--storage",
        metavar="URL",
        default=os.environ.get(_STORAGE_VARIABLE) or None,
        help="postgresql://USER@HOST/DATABASE that several machines share, with --out in a shared folder "
        f"(default: ${_STORAGE_VARIABLE}, or a journal in --out, for one machine)",
    )
    parser.add_argument(
        "--retries", type=at_least(0), default=1, help="how often a crashed run is retried (default: 1)"
    )
    parser.add_argument(
        "--timeout",
        type=duration,
        default="1h",
        metavar="TIME",
        help="time without a message after which a run counts as hung: 90s, 30m, 2h (default: 1h)",
    )
    parser.add_argument(
        "--grace",
        type=duration,
        default=f"{GRACE:.0f}s",
        metavar="TIME",
        help="with --storage: time without a heartbeat after which a machine counts as dead (default: "
        f"{GRACE:.0f}s; the same on all machines)",
    )
    parser.add_argument(
        "--keep",
        type=kept_kinds,
        default="best,last",
        metavar="WHICH",
        help="checkpoints of finished runs to keep: best, last, best,last or none (default: best,last)",
    )


def open_queue(options: argparse.Namespace, manifest: Manifest) -> RunQueue:
    """The queue of a study, by the options of `add_execution_options`.

    Raises:
        UserError: the storage cannot be used.
    """
    out: Path = options.out
    chosen = {"storage": options.storage, "retries": options.retries, "grace": options.grace}
    if manifest.space is not None:
        return SearchQueue(out, manifest.space, **chosen)
    levels: dict[str, dict[str, None]] = {}
    for run in manifest.runs:
        for name, label in run.cell.labels.items():
            levels.setdefault(name, {})[label] = None
    return RunQueue(out, manifest.study, levels=levels, **chosen)


def execute(
    options: argparse.Namespace,
    manifest: Manifest,
    queue: RunQueue,
    slots: DeviceSlots,
    processes: WarmProcesses,
    view: SweepView,
    again: str,
    *,
    adopt: bool = False,
) -> int:
    """Train the runs of a study and print a summary.

    Args:
        options: of `add_execution_options`.
        again: the command, to be typed again.
        adopt: train runs that others add to the study meanwhile, too.

    Returns:
        Exit status: 0 all finished, 1 some failed or the disk was full, 130 interrupted.
    """
    out: Path = options.out
    total = view.total
    difference = clock_difference(database_of(queue.study))
    if difference is not None:
        ahead = f"{abs(difference):.0f} s {'ahead of' if difference > 0 else 'behind'}"
        view.noted(
            f"the clock of this machine is {ahead} the database's: times in results will disagree between "
            "machines; which machine is dead is decided by the database's clock alone"
        )
    added = partial(known_runs, manifest_path(out, manifest.study))
    try:
        with present(manifest.study, out):
            summary = Execution(
                manifest.runs,
                out,
                queue,
                slots=slots,
                timeout=options.timeout,
                keep=options.keep,
                processes=processes,
                view=view,
                find=queue.proposals.runs if isinstance(queue, SearchQueue) else added,
                adopt=adopt or queue.searches,
            ).run()
    finally:
        view.close()
    print(conclusion(settled(summary, queue, total, out), summary, again), file=sys.stderr)
    return status_of(summary)


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
