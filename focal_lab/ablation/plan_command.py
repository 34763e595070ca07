"""`focal-lab plan`: what a sweep would train, and what it can reuse."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from focal_lab.ablation.costs import Checked, check_plan
from focal_lab.ablation.engine.orders import WarmProcesses
from focal_lab.ablation.options import plan_of, sweep_parser
from focal_lab.ablation.outcomes import State, read_outcome
from focal_lab.ablation.plan import Plan, effective_summary


def plan_command(argv: list[str], papers: Sequence[str]) -> int:
    """Print the runs of a sweep with what they come to and cost, and what is there already.

    Args:
        argv: what follows `focal-lab plan`.
        papers: published tables that a report can put beside a sweep.

    Raises:
        UserError: the sweep, the suite or an option is wrong.
    """
    options = sweep_parser("plan", plan_command).parse_args(argv)
    plan = plan_of(options, papers)
    checked = check_plan(plan, WarmProcesses())
    print_plan(plan, checked, options.out, Console(highlight=False))
    return 0


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
