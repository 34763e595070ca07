"""`focal-lab plan` and `focal-lab sweep`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from focal_lab.ablation.costs import Checked, check_plan
from focal_lab.ablation.execute import Execution, Summary, cores, default_workers
from focal_lab.ablation.orders import WarmProcesses
from focal_lab.ablation.outcomes import State, read_outcome
from focal_lab.ablation.plan import Plan, check_out, effective_summary, make_plan, remember
from focal_lab.ablation.progress import SweepView
from focal_lab.ablation.sweep_file import TASKS, find_sweep
from focal_lab.errors import UserError, one_of

SOME_FAILED = 1
INTERRUPTED = 130


def plan_command(argv: list[str], papers: Sequence[str]) -> int:
    """Print the runs of a sweep with what they come to and cost, and what is there already.

    Args:
        argv: what follows `focal-lab plan`.
        papers: published tables that a report can put beside a sweep.

    Raises:
        UserError: the sweep, the suite or an option is wrong.
    """
    options = _parser("plan", plan_command).parse_args(argv)
    plan = _plan(options, papers)
    checked = check_plan(plan, WarmProcesses())
    print_plan(plan, checked, options.out, Console(highlight=False))
    return 0


def sweep_command(argv: list[str], papers: Sequence[str]) -> tuple[int, Plan, Path]:
    """Train what is missing of a sweep.

    Args:
        argv: what follows `focal-lab sweep`.
        papers: published tables that a report can put beside a sweep.

    Returns:
        Exit status (0 all finished, 1 some failed, 130 interrupted), the plan, and the folder of its runs.

    Raises:
        UserError: the sweep, the suite or an option is wrong, or the folder cannot be written to.
    """
    parser = _parser("sweep", sweep_command)
    parser.add_argument(
        "--workers", type=int, help="runs trained at the same time (default: one a GPU, or a core)"
    )
    options = parser.parse_args(argv)
    if options.workers is not None and options.workers < 1:
        raise UserError(f"{options.workers} is too few; use 1 or more", key="--workers")
    plan = _plan(options, papers)
    check_out(options.out)
    processes = WarmProcesses()
    checked = check_plan(plan, processes)
    remember(plan, options.out, options.set)
    workers = min(options.workers or default_workers(checked.devices), len(plan.distinct_runs))
    threads = max(1, cores() // workers)
    view = SweepView(plan, checked.costs, workers)
    view.noted(
        f"{plan.sweep.title}: {len(plan.distinct_runs)} runs on suite {plan.suite}, {workers} at a time with "
        f"{threads} {'thread' if threads == 1 else 'threads'} each",
        style="bold",
    )
    try:
        summary = Execution(
            plan,
            options.out,
            workers=workers,
            threads=threads,
            devices=checked.devices,
            processes=processes,
            view=view,
        ).run()
    finally:
        view.close()
    print(conclusion(plan, summary, sys.argv), file=sys.stderr)
    status = INTERRUPTED if summary.interrupted else SOME_FAILED if summary.failed else 0
    return status, plan, options.out


def conclusion(plan: Plan, summary: Summary, command: list[str]) -> str:
    """What a sweep came to, in a line or two."""
    parts = [f"{len(summary.trained)} trained", f"{len(summary.reused)} reused"]
    if summary.elsewhere:
        parts.append(f"{len(summary.elsewhere)} trained by another command")
    if summary.failed:
        parts.append(f"{len(summary.failed)} failed (the next sweep tries them again)")
    told = f"{len(plan.distinct_runs)} runs: {', '.join(parts)}"
    if not summary.interrupted:
        return told
    return f"{told}, stopped before the rest. Go on with: focal-lab {' '.join(command[1:])}"


def print_plan(plan: Plan, checked: Checked, out: Path, console: Console) -> None:
    """The plan as two tables: what each cell comes to, and each run with its state."""
    console.print(Text(f"{plan.sweep.title} (suite {plan.suite})", style="bold"))
    console.print(_cells_table(plan, checked))
    for note in _notes(plan):
        console.print(Text(f"- {note}"))
    runs = Table(box=None, pad_edge=False)
    for heading in ("Run", *plan.sweep.factors, "Task", "Seed", "State"):
        runs.add_column(heading.replace("_", " "))
    states = {run.id: read_outcome(out / run.id).state for run in plan.distinct_runs}
    for run in plan.distinct_runs:
        runs.add_row(
            run.id, *map(Text, run.cell.labels.values()), run.task, str(run.seed), _said(states[run.id])
        )
    console.print(runs)
    reused = sum(state is State.FINISHED for state in states.values())
    shared = len(plan.runs) - len(plan.distinct_runs)
    console.print(
        Text(
            f"{len(states)} runs: {reused} reused, {len(states) - reused} to train"
            + (f"; {shared} more are the same as one of these" if shared else "")
        )
    )


def _cells_table(plan: Plan, checked: Checked) -> Table:
    table = Table(box=None, pad_edge=False)
    first = {(run.cell.name, run.task): run for run in reversed(plan.runs)}
    rows = [first[cell.name, task] for cell in plan.cells for task in plan.sweep.tasks]
    effective = list(dict.fromkeys(name for run in rows for name in effective_summary(run)))
    several = len(plan.sweep.tasks) > 1
    for heading in (*plan.sweep.factors, *["Task"] * several, "Backbone", *effective):
        table.add_column(heading.replace("_", " "), overflow="fold")
    for heading in ("Params (M)", "GMACs"):
        table.add_column(heading, justify="right")
    for run in rows:
        summary, cost = effective_summary(run), checked.costs[run.id]
        table.add_row(
            *map(Text, run.cell.labels.values()),
            *[run.task] * several,
            run.backbone,
            *(summary.get(name, "") for name in effective),
            f"{cost.params / 1e6:.3f}",
            f"{cost.gmacs:.4f}",
        )
    return table


def _notes(plan: Plan) -> list[str]:
    """Where an option was not honoured as written, once for all cells that share it."""
    cells: dict[str, list[str]] = {}
    for run in plan.runs:
        for note in _by_stages(run.notes):
            names = cells.setdefault(note, [])
            if run.cell.name not in names:
                names.append(run.cell.name)
    return [
        note if len(names) == len(plan.cells) else f"{note} ({'; '.join(names)})"
        for note, names in cells.items()
    ]


def _by_stages(notes: Sequence[str]) -> list[str]:
    """`stage 2: x` and `stage 3: x` as `stages 2, 3: x`."""
    stages: dict[str, list[str]] = {}
    for note in notes:
        stage, _, what = note.removeprefix("stage ").partition(": ")
        stages.setdefault(what, []).append(stage)
    return [f"stage{'s' * (len(where) > 1)} {', '.join(where)}: {what}" for what, where in stages.items()]


def _said(state: State) -> str:
    return {
        State.FINISHED: "reused",
        State.FAILED: "failed, tried again",
        State.CORRUPT: "corrupt, set aside and trained again",
        State.MISSING: "to train",
    }[state]


def _plan(options: argparse.Namespace, papers: Sequence[str]) -> Plan:
    plan = make_plan(
        find_sweep(options.sweep),
        suite=options.suite,
        seeds=options.seeds,
        overrides=options.set,
        tasks=options.tasks,
    )
    if plan.sweep.paper not in (None, *papers):
        raise UserError(
            f"{plan.sweep.paper} is no published table with a layout (use {one_of(papers)})",
            file=plan.sweep.path,
            key="paper",
        )
    return plan


def _parser(name: str, function: object) -> argparse.ArgumentParser:
    description = str(function.__doc__).splitlines()[0]
    parser = argparse.ArgumentParser(prog=f"focal-lab {name}", description=description)
    parser.add_argument("sweep", metavar="SWEEP", help="a sweep file, or the name of one in sweeps/")
    parser.add_argument("--suite", help="folder of experiments/ to train on (default: digits)")
    parser.add_argument(
        "--tasks",
        nargs="+",
        metavar="TASK",
        help=f"what every cell is trained for: {one_of(TASKS)} (default: the file's)",
    )
    parser.add_argument("--seeds", type=int, help="number of seeds (default: the file's)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a setting for every run, such as trainer.max_epochs=1 or focal_pool=mean; may be repeated",
    )
    parser.add_argument("--out", type=Path, default=Path("runs"), help="folder of the runs (default: runs)")
    return parser
