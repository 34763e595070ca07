"""How a plan is shown: for people, in 80 columns or more, and for programs."""

from collections.abc import Iterable, Sequence
from typing import Any

from focal_lab.sweep.estimate.check_and_count import Cost
from focal_lab.sweep.estimate.counted_size import counted_at
from focal_lab.sweep.estimate.equivalence import alike
from focal_lab.sweep.estimate.makespan import clock
from focal_lab.sweep.estimate.run_time import Estimate
from focal_lab.sweep.estimate.summary import Survey
from focal_lab.sweep.plan.plan import effective_summary, made_size
from focal_lab.sweep.plan.runs import Run
from focal_lab.sweep.run_folder.outcome import State
from focal_lab.utils.text_table import TextColumn, aligned

# Longer lists of runs have a row a cell.
_MOST_RUNS = 200
# Names of cells that are listed before it is only said how many there are.
_MOST_NAMES = 3
_NOTHING = "–"  # noqa: RUF001  (as in reports)
_SAID = {
    State.FINISHED: "reused",
    State.FAILED: "failed, tried again",
    State.PRUNED: "stopped early by a search, to train",
    State.CORRUPT: "corrupt, set aside and trained again",
    State.MISSING: "to train",
}
_STYLES = {"reused": "32", "failed": "31", "corrupt": "31"}


def plan_text(survey: Survey, width: int | None, *, color: bool = False) -> str:
    """The plan as two tables, what the networks come to and the runs, and what they add up to.

    Args:
        survey: the plan.
        width: columns to keep to; None for as wide as it takes.
        color: use ANSI escape codes.
    """
    plan = survey.plan
    title = f"{plan.sweep.title} (suite {plan.suite})"
    head = f"\033[1m{title}\033[0m" if color else title
    runs = _runs_columns(survey) if len(plan.distinct_runs) <= _MOST_RUNS else _cells_columns(survey)
    parts = [
        f"{head}\n\n",
        _networks(survey, width, color=color),
        aligned(runs, width, color=color),
        "\n",
        *(f"- {note}\n" for note in _notes(survey)),
        *(f"{line}\n" for line in _sums(survey)),
    ]
    return "".join(parts)


def plan_json(survey: Survey) -> dict[str, Any]:
    """Everything that is known, run by run."""
    plan, machine = survey.plan, survey.checked.machine
    return {
        "sweep": plan.sweep.name,
        "suite": plan.suite,
        "study": plan.study,
        "title": plan.sweep.title,
        "workers": survey.places.count,
        "threads": survey.places.threads,
        "hardware": machine.hardware,
        "to_train": len(survey.to_train) if survey.proposals is None else survey.proposals,
        "reused": 0 if survey.proposals is not None else len(survey.states) - len(survey.to_train),
        "seconds": survey.seconds,
        "wall_seconds": survey.wall_seconds,
        "unknown": survey.unknown,
        "memory_mb": survey.memory_mb,
        "memory_there_mb": survey.memory_there_mb,
        "same": [[first, *others] for first, others in survey.twins.items()],
        "obstacle": survey.obstacle,
        "not_measured": {
            reason: [run.cell.name for run in runs] for reason, runs in survey.estimates.problems.items()
        },
        "absent": survey.absent,
        "runs": [_run_json(survey, run) for run in plan.distinct_runs],
    }


def _run_json(survey: Survey, run: Run) -> dict[str, Any]:
    cost, estimate = survey.checked.costs[run.id], survey.estimates.runs.get(run.id)
    return {
        "run": run.id,
        "labels": run.cell.labels,
        "task": run.task,
        "seed": run.seed,
        "needs": run.needs,
        "state": str(survey.states[run.id]),
        "backbone": run.backbone,
        "effective": effective_summary(run, survey.checked.costs[run.id].image_size),
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


def _networks(survey: Survey, width: int | None, *, color: bool) -> str:
    """What each network comes to, stage by stage; what is the same for all of them is said once."""
    names: dict[tuple[tuple[str, str], ...], dict[str, None]] = {}
    for group in alike(survey.plan.runs):
        run = group[0]
        # a name that is short for the preset is enough
        summary = effective_summary(run, survey.checked.costs[run.id].image_size)
        what = {"backbone": run.backbone.partition("_patch")[0], **summary}
        names.setdefault(tuple(what.items()), {})[run.cell.name] = None
    networks = [dict(network) for network in names]
    keys = list(dict.fromkeys(key for network in networks for key in network))
    same = [key for key in keys if len({network.get(key, _NOTHING) for network in networks}) == 1]
    shared = ", ".join(f"{key} {networks[0][key]}" for key in same)
    if len(networks) == 1:
        return f"All runs: {shared}\n\n"
    columns = [TextColumn("Cells", [_some(list(cells)) for cells in names.values()], folds=True)]
    columns += [
        TextColumn(key, [network.get(key, _NOTHING) for network in networks], folds=True)
        for key in keys
        if key not in same
    ]
    told = f"All: {shared}\n" if shared else ""
    return f"{aligned(columns, width, color=color)}{told}\n"


def _runs_columns(survey: Survey) -> list[TextColumn]:
    """A row a run."""
    runs = survey.plan.distinct_runs
    return [
        TextColumn("Run", [run.id for run in runs]),
        *_label_columns(survey, runs),
        TextColumn("Seed", [str(run.seed) for run in runs], right=True),
        *_cost_columns(survey, runs),
        TextColumn("State", [_SAID[survey.states[run.id]] for run in runs], folds=True, style=_style),
    ]


def _cells_columns(survey: Survey) -> list[TextColumn]:
    """A row a cell and task."""
    groups = alike(survey.plan.distinct_runs)
    waiting = {run.id for run in survey.to_train}
    to_train = [sum(run.id in waiting for run in group) for group in groups]
    # one of those that are to be trained has an estimate
    first = [next((run for run in group if run.id in waiting), group[0]) for group in groups]
    return [
        *_label_columns(survey, first),
        TextColumn("Seeds", [str(len(group)) for group in groups], right=True),
        *_cost_columns(survey, first),
        TextColumn("To train", [str(count) for count in to_train], right=True),
        TextColumn(
            "Reused", [str(len(group) - n) for group, n in zip(groups, to_train, strict=True)], right=True
        ),
    ]


def _label_columns(survey: Survey, runs: Sequence[Run]) -> list[TextColumn]:
    columns = [
        TextColumn(name.replace("_", " "), [run.cell.labels[name] for run in runs], folds=True)
        for name in (runs[0].cell.labels if runs else ())
    ]
    if len(survey.plan.sweep.tasks) > 1:
        columns.append(TextColumn("Task", [run.task for run in runs]))
    return columns


def _cost_columns(survey: Survey, runs: Sequence[Run]) -> list[TextColumn]:
    """Parameters and multiply-accumulates; memory and time, where any is known."""
    costs: list[Cost] = [survey.checked.costs[run.id] for run in runs]
    columns = [
        TextColumn("Params (M)", [f"{cost.params / 1e6:.3f}" for cost in costs], right=True),
        TextColumn("GMACs", [_gmacs(cost.gmacs) for cost in costs], right=True),
    ]
    found: list[Estimate | None] = [survey.estimates.runs.get(run.id) for run in runs]
    if any(found):
        columns += [
            TextColumn("Memory", [_memory(one.memory_mb) if one else _NOTHING for one in found], right=True),
            TextColumn("Time", [_short(one.seconds) if one else _NOTHING for one in found], right=True),
        ]
    return columns


def _sizes(survey: Survey) -> Iterable[str]:
    """Of which size the image is whose multiply-accumulates are counted, and what says so."""
    cells: dict[tuple[str, tuple[int, int], str], dict[str, None]] = {}
    for run in survey.plan.runs:
        cost = survey.checked.costs[run.id]
        cells.setdefault((run.task, cost.image_size, cost.source), {})[run.cell.name] = None
    tasks = [task for task, _, _ in cells]
    for (task, size, source), names in cells.items():
        of_task = f", {task}" if len(survey.plan.sweep.tasks) > 1 else ""
        of_cells = f" ({_some(list(names))})" if tasks.count(task) > 1 else ""
        yield f"GMACs{of_task}: of one input of {counted_at(task, size, source)}{of_cells}"


def _notes(survey: Survey) -> Iterable[str]:
    """At what size is counted, what was not honoured as written, and which cells come to the same."""
    yield from _sizes(survey)
    cells: dict[str, dict[str, None]] = {}
    for group in alike(survey.plan.runs):
        run = group[0]
        made, fed = made_size(run), survey.checked.costs[run.id].image_size
        # windows are laid out for the size that the network is made for
        made_for = f", as made for {made[0]} x {made[1]} px" if made and made != fed else ""
        for note in _by_stages(run.notes):
            cells.setdefault(f"{note}{made_for}", {})[run.cell.name] = None
    for note, names in cells.items():
        yield note if len(names) == len(survey.plan.cells) else f"{note} ({_some(list(names))})"
    for first, others in survey.twins.items():
        comes = "come" if len(others) > 1 else "comes"
        yield f"{_some(others)} {comes} to the same runs as {first}: trained once"


def _by_stages(notes: Sequence[str]) -> list[str]:
    """`stage 2: x` and `stage 3: x` as `stages 2, 3: x`."""
    stages: dict[str, list[str]] = {}
    for note in notes:
        stage, _, what = note.removeprefix("stage ").partition(": ")
        stages.setdefault(what, []).append(stage)
    return [f"stage{'s' * (len(where) > 1)} {', '.join(where)}: {what}" for what, where in stages.items()]


def _sums(survey: Survey) -> Iterable[str]:
    """How many runs, how long, how much memory, and what is not known."""
    count, to_train = len(survey.states), len(survey.to_train)
    shared = len(survey.plan.runs) - count
    more = f"; {shared} more are the same as one of these" if shared else ""
    if survey.proposals is None:
        yield f"{count} run{'s' * (count != 1)}: {count - to_train} reused, {to_train} to train{more}"
    else:
        yield f"A search: {survey.proposals} proposals to train; shown are examples at the ends of its ranges"
        recipe = survey.plan.recipe
        if recipe is not None and recipe.trials < recipe.search.trials:
            yield f"Its space has {recipe.trials} combinations, fewer than its {recipe.search.trials} trials"
    if to_train > survey.unknown:
        rest = f"; {survey.unknown} runs of unknown time not counted" if survey.unknown else ""
        places = str(survey.places)
        yield f"Training: {clock(survey.seconds)} in all; {clock(survey.wall_seconds)}, {places}{rest}"
        yield from _sources(survey)
    if survey.memory_mb > survey.memory_there_mb:
        where = "a GPU" if survey.places.names else "this machine"
        yield (
            f"Memory: {survey.places.count} at a time need up to {_memory(survey.memory_mb)}, {where} has "
            f"{_memory(survey.memory_there_mb)}; use fewer --workers"
        )
    for reason, cells in survey.absent.items():
        yield f"Not on this machine, focal-lab sweep would refuse: {reason}, for {_some(cells)}"
    if survey.obstacle:
        yield f"Not on this machine: {survey.obstacle}"
    for reason, runs in survey.estimates.problems.items():
        yield f"Not measured: {_some([run.cell.name for run in runs])}: {reason}"


def _sources(survey: Survey) -> Iterable[str]:
    """What the times of the runs that are to be trained were taken from."""
    runs = "run" if survey.proposals is None else "example"
    counts: dict[tuple[str, bool], list[int]] = {}
    for estimate in (survey.estimates.runs.get(run.id) for run in survey.to_train):
        if estimate is not None:
            kind = (estimate.source, estimate.finished > 0)
            counts.setdefault(kind, []).append(estimate.finished)
    for (source, compared), finished in sorted(counts.items()):
        low, high = min(finished), max(finished)
        from_runs = f"{low if low == high else f'{low} to {high}'} finished run{'s' * (high != 1)}"
        if source == "finished":
            what = f"from {from_runs} of the same network"
        else:
            what = "from measured steps"
            what += f", corrected by {from_runs} of another network" if compared else ""
        yield f"Time of {len(finished)} {runs}{'s' * (len(finished) != 1)}: {what}"


def _some(names: Sequence[str]) -> str:
    """`a; b; c; and 17 more`."""
    listed = "; ".join(names[:_MOST_NAMES])
    return f"{listed}; and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else listed


def _gmacs(value: float) -> str:
    return f"{value:.4f}" if value < 9.99995 else f"{value:.2f}"


def _short(seconds: float) -> str:
    """`85 s`, `12.5 min`, `4.5 h`: three digits or so."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.1f} min" if minutes < 99.95 else f"{minutes / 60:.1f} h"


def _memory(megabytes: float) -> str:
    return f"{megabytes:.0f} MB" if megabytes < 9999.5 else f"{megabytes / 1024:.1f} GB"


def _style(said: str) -> str:
    return next((style for word, style in _STYLES.items() if said.startswith(word)), "")
