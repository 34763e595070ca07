"""A plan as text, in 80 columns or more, and as JSON."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from focal_lab.sweep.estimate.equivalence import group_by_cell
from focal_lab.sweep.estimate.summary import PlanSummary
from focal_lab.sweep.plan.plan import confounds_of, differing_stages_of
from focal_lab.sweep.plan.runs import Run, effective_summary, intended_size
from focal_lab.sweep.plan.stage_differences import stage_sentences
from focal_lab.sweep.run_folder.outcome import State
from focal_lab.sweep.spec.columns import MAIN, counted_at
from focal_lab.sweep.worker.request import Cost
from focal_lab.utils.text_table import TextColumn, aligned
from focal_lab.utils.units import clock

# Longer lists of runs have a row a cell.
_MOST_RUNS = 200
# Cells that are named before the others are only counted.
_MOST_NAMES = 3
_NOTHING = "–"  # noqa: RUF001  (as in reports)
_STATES = {
    State.FINISHED: "reused",
    State.FAILED: "failed, to be retried",
    State.PRUNED: "stopped early by a search, to train",
    State.CORRUPT: "corrupt, to be trained again",
    State.MISSING: "to train",
}
_STYLES = {"reused": "32", "failed": "31", "corrupt": "31"}


def plan_text(summary: PlanSummary, width: int | None, *, color: bool = False) -> str:
    """The plan as two tables, of networks and of runs, with notes and totals.

    Args:
        width: columns to keep to; None for as wide as it takes.
        color: use ANSI escape codes.
    """
    plan = summary.plan
    title = f"{plan.sweep.title} (suite {plan.suite})"
    few = len(plan.distinct_runs) <= _MOST_RUNS
    return "".join(
        [
            f"\033[1m{title}\033[0m\n\n" if color else f"{title}\n\n",
            _networks(summary, width, color=color),
            aligned(_run_columns(summary) if few else _cell_columns(summary), width, color=color),
            "\n",
            *(f"- {note}\n" for note in _notes(summary)),
            *(f"{line}\n" for line in _totals(summary)),
        ]
    )


def plan_json(summary: PlanSummary) -> dict[str, Any]:
    """All that is known about a plan, run by run."""
    plan = summary.plan
    problems = summary.estimates.problems.items()
    searched = summary.proposals is not None
    return {
        "sweep": plan.sweep.name,
        "suite": plan.suite,
        "study": plan.study,
        "title": plan.sweep.title,
        "workers": summary.slots.count,
        "threads": summary.slots.threads,
        "hardware": summary.checked.machine.hardware,
        "to_train": summary.proposals if searched else len(summary.to_train),
        "reused": 0 if searched else len(summary.states) - len(summary.to_train),
        "seconds": summary.seconds,
        "wall_seconds": summary.wall_seconds,
        "unknown": summary.unknown,
        "memory_mb": summary.memory_mb,
        "memory_there_mb": summary.memory_there_mb,
        "same": [[first, *others] for first, others in summary.twins.items()],
        "confounds": [asdict(confound) for confound in confounds_of(plan)],
        "differing_stages": {
            factor: list(stages) for factor, (stages, _) in differing_stages_of(plan).items()
        },
        "obstacle": str(summary.obstacle) if summary.obstacle else None,
        "not_measured": {reason: [run.cell.name for run in runs] for reason, runs in problems},
        "absent": summary.absent,
        "runs": [_run_json(summary, run) for run in plan.distinct_runs],
    }


def _run_json(summary: PlanSummary, run: Run) -> dict[str, Any]:
    cost, estimate = summary.checked.costs[run.id], summary.estimates.runs.get(run.id)
    tuning = summary.plan.sweep.tuning
    return {
        "run": run.id,
        "labels": run.cell.labels,
        "tried": {name: run.cell.settings[name] for name in tuning.ranges} if tuning else {},
        "task": run.task,
        "seed": run.seed,
        "needs": run.needs,
        "state": str(summary.states[run.id]),
        "backbone": run.backbone,
        "effective": effective_summary(run, cost.image_size),
        "notes": list(run.notes),
        "params": cost.params,
        "gmacs": cost.gmacs,
        "image_size": list(cost.image_size),
        "image_size_from": cost.source,
        "memory_mb": estimate.memory_mb if estimate else None,
        "seconds": estimate.seconds if estimate else None,
        "estimated_from": estimate.source if estimate else None,
        "finished_runs": estimate.finished if estimate else 0,
    }


def _networks(summary: PlanSummary, width: int | None, *, color: bool) -> str:
    """Each network stage by stage; values that all share are printed once."""
    names: dict[tuple[tuple[str, str], ...], dict[str, None]] = {}
    for run, *_ in group_by_cell(summary.plan.runs):
        stages = effective_summary(run, summary.checked.costs[run.id].image_size)
        # the beginning of the preset's name is enough
        network = {"backbone": run.backbone.partition("_patch")[0], **stages}
        names.setdefault(tuple(network.items()), {})[run.cell.name] = None
    networks = [dict(network) for network in names]
    keys = list(dict.fromkeys(key for network in networks for key in network))
    values = {key: [network.get(key, _NOTHING) for network in networks] for key in keys}
    same = [key for key in keys if len(set(values[key])) == 1]
    shared = ", ".join(f"{key} {networks[0][key]}" for key in same)
    if len(networks) == 1:
        return f"All runs: {shared}\n\n"
    columns = [TextColumn("Cells", [_some(list(cells)) for cells in names.values()], folds=True)]
    columns += [TextColumn(key, values[key], folds=True) for key in keys if key not in same]
    footer = f"All: {shared}\n" if shared else ""
    return f"{aligned(columns, width, color=color)}{footer}\n"


def _run_columns(summary: PlanSummary) -> list[TextColumn]:
    """One row per run."""
    runs = summary.plan.distinct_runs
    states = [_STATES[summary.states[run.id]] for run in runs]
    return [
        TextColumn("Run", [run.id for run in runs]),
        *_label_columns(summary, runs),
        TextColumn("Seed", [str(run.seed) for run in runs], right=True),
        *_cost_columns(summary, runs),
        TextColumn("State", states, folds=True, style=_style),
    ]


def _cell_columns(summary: PlanSummary) -> list[TextColumn]:
    """One row per cell and task."""
    groups = group_by_cell(summary.plan.distinct_runs)
    waiting = {run.id for run in summary.to_train}
    to_train = [sum(run.id in waiting for run in group) for group in groups]
    reused = [len(group) - count for group, count in zip(groups, to_train, strict=True)]
    # one of those to train has an estimate
    first = [next((run for run in group if run.id in waiting), group[0]) for group in groups]
    return [
        *_label_columns(summary, first),
        TextColumn("Seeds", [str(len(group)) for group in groups], right=True),
        *_cost_columns(summary, first),
        TextColumn("To train", [str(count) for count in to_train], right=True),
        TextColumn("Reused", [str(count) for count in reused], right=True),
    ]


def _label_columns(summary: PlanSummary, runs: Sequence[Run]) -> list[TextColumn]:
    columns = [
        TextColumn(name.replace("_", " "), [run.cell.labels[name] for run in runs], folds=True)
        for name in (runs[0].cell.labels if runs else ())
    ]
    if len(summary.plan.sweep.tasks) > 1:
        columns.append(TextColumn("Task", [run.task for run in runs]))
    tuning = summary.plan.sweep.tuning
    for name in tuning.ranges if tuning else ():
        columns.append(TextColumn(name, [str(run.cell.settings[name]) for run in runs], right=True))
    return columns


def _cost_columns(summary: PlanSummary, runs: Sequence[Run]) -> list[TextColumn]:
    """Parameters and multiply-accumulates; memory and time, where any is known."""
    costs: list[Cost] = [summary.checked.costs[run.id] for run in runs]
    found = [summary.estimates.runs.get(run.id) for run in runs]
    columns = {
        "Params (M)": [f"{cost.params / 1e6:.3f}" for cost in costs],
        "GMACs": [f"{cost.gmacs:.{4 if cost.gmacs < 9.99995 else 2}f}" for cost in costs],
    }
    if any(found):
        columns["Memory"] = [_memory(one.memory_mb) if one else _NOTHING for one in found]
        columns["Time"] = [_short(one.seconds) if one else _NOTHING for one in found]
    return [TextColumn(name, cells, right=True) for name, cells in columns.items()]


def _sizes(summary: PlanSummary) -> Iterable[str]:
    """The image size that multiply-accumulates are counted for, and its source."""
    cells: dict[tuple[str, tuple[int, int], str], dict[str, None]] = {}
    for run in summary.plan.runs:
        cost = summary.checked.costs[run.id]
        cells.setdefault((run.task, cost.image_size, cost.source), {})[run.cell.name] = None
    tasks = [task for task, _, _ in cells]
    for (task, size, source), names in cells.items():
        of_task = f", {task}" if len(summary.plan.sweep.tasks) > 1 else ""
        of_cells = f" ({_some(list(names))})" if tasks.count(task) > 1 else ""
        yield f"GMACs{of_task}: of one input of {counted_at(task, size, source)}{of_cells}"


def _notes(summary: PlanSummary) -> Iterable[str]:
    """Image sizes, options that were changed to fit, cells with the same runs, and confounded factors."""
    yield from _sizes(summary)
    cells: dict[str, dict[str, None]] = {}
    for run, *_ in group_by_cell(summary.plan.runs):
        made, fed = intended_size(run), summary.checked.costs[run.id].image_size
        # windows are laid out for the size that the network is made for
        made_for = f", as made for {made[0]} x {made[1]} px" if made and made != fed else ""
        for note in _by_stages(run.notes):
            cells.setdefault(f"{note}{made_for}", {})[run.cell.name] = None
    for note, names in cells.items():
        yield note if len(names) == len(summary.plan.cells) else f"{note} ({_some(list(names))})"
    sweep = summary.plan.sweep
    if sweep.tuning:
        yield (
            f"each cell and seed tries {sweep.tuning.trials} settings; the one with the best validation "
            f"{MAIN[sweep.tasks[0]]} counts"
        )
    for first, others in summary.twins.items():
        yield f"{_some(others)} {'have' if len(others) > 1 else 'has'} the same runs as {first}: trained once"
    for confound in confounds_of(summary.plan):
        yield confound.sentence().removesuffix(".")
    yield from stage_sentences(differing_stages_of(summary.plan))
    if summary.plan.max_seeds is not None:
        most = len({run.id for run in summary.plan.candidates})
        yield f"more seeds are added until all comparisons are decided: at most {most} runs in total"


def _by_stages(notes: Sequence[str]) -> list[str]:
    """`stage 2: x` and `stage 3: x` as `stages 2, 3: x`."""
    stages: dict[str, list[str]] = {}
    for note in notes:
        stage, _, what = note.removeprefix("stage ").partition(": ")
        stages.setdefault(what, []).append(stage)
    return [f"stage{'s' * (len(where) > 1)} {', '.join(where)}: {what}" for what, where in stages.items()]


def _totals(summary: PlanSummary) -> Iterable[str]:
    """Number of runs, time, memory, and unknowns."""
    count, to_train, unknown = len(summary.states), len(summary.to_train), summary.unknown
    if summary.proposals is None:
        shared = len(summary.plan.runs) - count
        more = f"; {shared} more are the same as one of these" if shared else ""
        yield f"{count} run{'s' * (count != 1)}: {count - to_train} reused, {to_train} to train{more}"
    else:
        space = summary.plan.space
        examples = "shown are examples at the ends of its ranges"
        yield f"A search: {summary.proposals} proposals to train; {examples}"
        if space is not None and space.trials < space.search.trials:
            yield f"Its space has {space.trials} combinations, fewer than its {space.search.trials} trials"
    if to_train > unknown:
        rest = f"; {unknown} runs of unknown time not counted" if unknown else ""
        wall = f"{clock(summary.wall_seconds)}, {summary.slots}"
        yield f"Training: {clock(summary.seconds)} in all; {wall}{rest}"
        yield from _sources(summary)
    if summary.memory_mb > summary.memory_there_mb:
        where = "a GPU" if summary.slots.names else "this machine"
        yield (
            f"Memory: {summary.slots.count} at a time need up to {_memory(summary.memory_mb)}, {where} has "
            f"{_memory(summary.memory_there_mb)}; use fewer --workers"
        )
    for reason, cells in summary.absent.items():
        yield f"Not on this machine, focal-lab sweep would refuse: {reason}, for {_some(cells)}"
    if summary.obstacle:
        yield f"Not on this machine: {summary.obstacle}"
    for reason, runs in summary.estimates.problems.items():
        yield f"Not measured: {_some([run.cell.name for run in runs])}: {reason}"


def _sources(summary: PlanSummary) -> Iterable[str]:
    """The sources of the estimated times."""
    what = "run" if summary.proposals is None else "example"
    for source in ("finished", "measured"):
        counts = [one.finished for one in summary.known if one.source == source]
        if counts:
            low, high = min(counts), max(counts)
            from_runs = f"{low if low == high else f'{low} to {high}'} finished run{'s' * (high != 1)}"
            origin = f"{from_runs} of the same network" if source == "finished" else "measured steps"
            yield f"Time of {len(counts)} {what}{'s' * (len(counts) != 1)}: from {origin}"


def _some(names: Sequence[str]) -> str:
    """`a; b; c; and 17 more`."""
    listed = "; ".join(names[:_MOST_NAMES])
    return f"{listed}; and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else listed


def _short(seconds: float) -> str:
    """`85 s`, `12.5 min`, `4.5 h`: about three digits."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.1f} min" if minutes < 99.95 else f"{minutes / 60:.1f} h"


def _memory(megabytes: float) -> str:
    return f"{megabytes:.0f} MB" if megabytes < 9999.5 else f"{megabytes / 1024:.1f} GB"


def _style(state: str) -> str:
    return next((style for word, style in _STYLES.items() if state.startswith(word)), "")
