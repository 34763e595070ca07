"""Adds seeds to a sequential sweep until its comparisons are decided, and prints what that cost."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from focal_lab.sweep.plan.plan import Plan
from focal_lab.sweep.plan.runs import Run
from focal_lab.sweep.plan.sequential import Comparison, Decide, with_next_seeds
from focal_lab.sweep.run_folder.outcome import State, read_outcome
from focal_lab.utils.units import many

SOME_FAILED = 1


def add_seeds(
    plan: Plan,
    out: Path,
    status: int,
    decide: Decide,
    train: Callable[[Plan, Sequence[Run]], int],
    workers: int,
) -> tuple[int, Plan]:
    """Add seeds until no comparison is open, or a command was interrupted.

    Args:
        plan: with the runs that have been trained so far.
        status: exit status of their training.
        decide: returns the state of the comparisons.
        train: trains the runs added to a plan; its exit status.
        workers: runs that are trained at the same time.

    Returns:
        Exit status: 0 all finished, 1 some failed, 130 interrupted; and the plan with all runs.
    """
    failed = status
    while True:
        found = decide(plan, out)
        longer = with_next_seeds(plan, out, found, workers) if status in (0, SOME_FAILED) else plan
        known = {run.id for run in plan.runs}
        added = [run for run in longer.distinct_runs if run.id not in known]
        if not added:
            break
        still_open = sum(comparison.is_open for comparison in found)
        print(
            f"{still_open} of {many(len(found), 'comparison')} to be decided: {many(len(added), 'run')} more",
            file=sys.stderr,
        )
        plan = longer
        status = train(plan, added)
        failed = max(failed, status)
    print("\n".join(spent(plan, out, found)), file=sys.stderr)
    return max(failed, status), plan


def spent(plan: Plan, out: Path, found: Sequence[Comparison]) -> list[str]:
    """What a sequential sweep cost, what it saved, and how its comparisons ended."""
    finished = sum(read_outcome(out / run.id).state is State.FINISHED for run in plan.distinct_runs)
    fixed = len({run.id for run in plan.candidates})
    saved = f", {1 - finished / fixed:.0%} less" if finished < fixed else ""
    lines = [f"{many(finished, 'run')} of {fixed} that {plan.max_seeds} seeds of all cells need{saved}"]
    for comparison in found:
        state = comparison.verdict
        if comparison.chance is not None:
            state += ", stopped" if comparison.futile else ", open"
            state += f" (decided by seed {plan.max_seeds} with a probability of {comparison.chance:.0%})"
        lines.append(f"  {comparison.name}: {state}, {many(comparison.seeds, 'seed')}")
    return lines
