"""The plan: the list of runs that a sweep needs, before anything is trained. Pure Python, no torch."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from focal_lab.backbones.options import OPTION_NAMES, FocalOptions, downsampled_size
from focal_lab.backbones.presets import preset_options
from focal_lab.command_line import command
from focal_lab.errors import UserError, one_of
from focal_lab.sweep.identity.earlier_runs import earlier_runs
from focal_lab.sweep.identity.run_ids import Identities
from focal_lab.sweep.plan.cells import Cell, design_cells
from focal_lab.sweep.plan.overlaps import refuse_overlaps
from focal_lab.sweep.plan.pareto import best_first
from focal_lab.sweep.plan.proposals import Proposals, Recipe
from focal_lab.sweep.plan.runs import Run, hash_of, make_runs
from focal_lab.sweep.spec.columns import with_main_columns
from focal_lab.sweep.spec.suite import Suite, find_suite
from focal_lab.sweep.spec.sweep_file import TASKS, Sweep, load_sweep, seeds_from, tasks_from
from focal_lab.utils.atomic_files import write_atomic
from focal_lab.utils.yaml import parse_yaml

DEFAULT_SUITE = "digits"


@dataclass(frozen=True)
class Plan:
    """A sweep on a suite, resolved.

    Attributes:
        cells: in the order of the table's rows.
        runs: every cell x task x seed; runs of degenerate cells share an id. Of a search those that were
            proposed so far.
        recipe: what makes runs of a search's proposals; None for a design.
        front: how many of a search's runs, the first ones, no other one beats.
        options: of the command line that ask for this plan, where the file alone does not.
    """

    sweep: Sweep
    suite: str
    cells: tuple[Cell, ...]
    runs: tuple[Run, ...]
    recipe: Recipe | None = None
    front: int = 0
    options: tuple[str, ...] = ()

    @cached_property
    def distinct_runs(self) -> tuple[Run, ...]:
        """What is trained: seed by seed, so that a sweep that is stopped has whole tables of few seeds."""
        distinct = {run.id: run for run in self.runs}
        place = {seed: i for i, seed in enumerate(self.sweep.seeds)}
        return tuple(sorted(distinct.values(), key=lambda run: place[run.seed]))

    def command(self, out: Path) -> str:
        """What trains the plan in `out`, to be typed."""
        elsewhere = [] if out == Path("runs") else ["--out", out]
        return command("sweep", self.sweep.path, *self.options, *elsewhere)

    @property
    def study(self) -> str:
        """Name of the queue: the sweep, the suite, and a hash of what it is made of but for the seeds."""
        if self.recipe is not None:
            return self.recipe.study
        first = self.sweep.seeds[0]
        seedless = [
            {key: value for key, value in run.identity.items() if key not in ("seed_everything", "needs")}
            for run in self.runs
            if run.seed == first
        ]
        return f"{self.sweep.name}-{self.suite}-{hash_of(seedless)[:8]}"


def make_plan(
    path: Path,
    *,
    suite: str | None = None,
    seeds: int | Sequence[int] | None = None,
    overrides: Sequence[str] = (),
    tasks: Sequence[str] | None = None,
    out: Path | None = None,
) -> Plan:
    """Resolve a sweep file.

    Args:
        path: the sweep file.
        suite: folder under `experiments/`; None for the default one.
        seeds: how many seeds, or which; None for those of the file.
        overrides: KEY=VALUE settings of the command line, VALUE in YAML.
        tasks: what every cell is trained for; None for the tasks of the file.
        out: folder of the runs, where those of earlier versions are recognised; None to name runs only.

    Raises:
        UserError: the file, the suite or a setting is wrong, or two cells come to the same network.
    """
    chosen: Suite = find_suite(suite or DEFAULT_SUITE)
    written = sweep = load_sweep(path, chosen.name)
    if seeds is not None:
        sweep = replace(
            sweep, seeds=seeds_from(seeds if isinstance(seeds, int) else list(seeds), None, "--seeds")
        )
    if tasks is not None:
        sweep = replace(sweep, tasks=tasks_from(list(tasks), None, "--tasks"))
    options = _options(chosen, written, sweep, overrides)
    sweep = replace(sweep, columns=with_main_columns(sweep.columns, sweep.tasks))
    settings = parse_overrides(overrides)
    for name in settings:
        task = name.partition(".")[0]
        if task in TASKS and task not in sweep.tasks:
            raise UserError(
                f"{name}: the sweep does not run {task} (it runs {one_of(sweep.tasks)})", key="--set"
            )
    refuse_overlaps(sweep, settings)
    experiments = {task: chosen.experiment(task) for task in sweep.tasks}
    identities = Identities(out, earlier_runs)
    if sweep.search is not None:
        return replace(_search_plan(sweep, chosen, experiments, settings, identities), options=options)
    cells = design_cells(sweep)
    runs = identities.settled(
        lambda: tuple(
            run for cell in cells for run in _runs_of(sweep, chosen, experiments, cell, settings, identities)
        )
    )
    _refuse_degenerate(sweep, runs)
    return Plan(sweep, chosen.name, cells, runs, options=options)


def _options(suite: Suite, written: Sweep, sweep: Sweep, overrides: Sequence[str]) -> tuple[str, ...]:
    """The options that make of a sweep as it is written the one that was asked for."""
    options = [] if suite.name == DEFAULT_SUITE else ["--suite", suite.name]
    if sweep.tasks != written.tasks:
        options += ["--tasks", *sweep.tasks]
    if sweep.seeds != written.seeds and sweep.seeds == tuple(range(len(sweep.seeds))):
        options += ["--seeds", str(len(sweep.seeds))]
    return (*options, *(word for text in overrides for word in ("--set", text)))


def _search_plan(
    sweep: Sweep,
    suite: Suite,
    experiments: Mapping[str, dict[str, Any]],
    settings: dict[str, Any],
    identities: Identities,
) -> Plan:
    """A search before its first proposal."""
    if len(sweep.tasks) > 1:
        raise UserError("a search has one task", file=sweep.path, key="tasks")
    if len(sweep.seeds) > 1:
        raise UserError(
            "a search trains each proposal once; use one seed, and confirm the best with more in a sweep",
            file=sweep.path,
            key="seeds",
        )
    (task,) = sweep.tasks
    recipe = Recipe(sweep, suite, experiments[task], settings, identities)
    for params in recipe.probes():
        recipe.run(params)
    return Plan(sweep, suite.name, (), (), recipe)


def probe_plan(plan: Plan) -> Plan:
    """A plan of what a search may propose, to be checked before any work; other plans as they are."""
    if plan.recipe is None:
        return plan
    runs = tuple(plan.recipe.run(params) for params in plan.recipe.probes())
    return replace(plan, cells=tuple(run.cell for run in runs), runs=runs)


def with_proposals(plan: Plan, out: Path) -> Plan:
    """A search's plan with the runs that were proposed in `out` so far, best first; others as they are."""
    if plan.recipe is None:
        return plan
    proposed = list(Proposals(out, plan.recipe).runs().values())
    runs, front = best_first(proposed, out, plan.recipe.search.objectives)
    return replace(plan, cells=tuple(run.cell for run in runs), runs=tuple(runs), front=front)


def _runs_of(
    sweep: Sweep,
    suite: Suite,
    experiments: Mapping[str, Mapping[str, Any]],
    cell: Cell,
    settings: Mapping[str, Any],
    identities: Identities,
) -> list[Run]:
    """The runs of a cell, the classification first: what the other tasks' runs start from."""
    runs: list[Run] = []
    parents: dict[int, Run] = {}
    for task in sorted(sweep.tasks, key=TASKS.index):
        made = make_runs(sweep, suite, experiments[task], cell, task, settings, identities, parents)
        if task == "classification":
            parents = {run.seed: run for run in made}
        runs += made
    return runs


def parse_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    """KEY=VALUE strings as settings; VALUE is YAML, so 7, [7, 14] and true mean what they look like.

    Raises:
        UserError: no `=`, or VALUE is no YAML.
    """
    settings: dict[str, Any] = {}
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise UserError(f"{text!r} is not KEY=VALUE", key="--set")
        settings.pop(key.strip(), None)  # the last one counts, over other spellings in between, too
        settings[key.strip()] = parse_yaml(f"value: {value}", f"--set {text}")["value"]
    return settings


def remember(plan: Plan, out: Path, overrides: Sequence[str]) -> None:
    """Note how a sweep was last run in `out`, for reports that are asked for by the sweep's name alone."""
    record = {
        "path": str(plan.sweep.path.resolve()),
        "suite": plan.suite,
        "seeds": list(plan.sweep.seeds),
        "set": list(overrides),
        "tasks": list(plan.sweep.tasks),
        "study": plan.study,
        "runs": [run.id for run in plan.distinct_runs],
    }
    write_atomic(_memory(plan.sweep.path, out), json.dumps(record, indent=1) + "\n")


def recall_plan(
    path: Path,
    out: Path,
    *,
    suite: str | None = None,
    seeds: int | None = None,
    overrides: Sequence[str] = (),
    tasks: Sequence[str] | None = None,
) -> Plan:
    """The plan of a sweep as it was last run in `out`; what is given here goes before what was noted.

    Raises:
        UserError: as `make_plan`.
    """
    noted = remembered(path, out)
    if suite is not None and suite != noted.get("suite"):
        noted = {}
    return make_plan(
        path,
        suite=suite or noted.get("suite"),
        seeds=seeds if seeds is not None else noted.get("seeds"),
        overrides=overrides or noted.get("set", ()),
        tasks=tasks or noted.get("tasks"),
        out=out,
    )


def effective_summary(run: Run, size: tuple[int, int] | None = None) -> dict[str, str]:
    """What a focal backbone is stage by stage, such as `window: 7 7 4 2`; empty for other backbones.

    Args:
        run: of any task.
        size: height and width at which the data feed the network; None for the size that it is made for.
    """
    if run.stages is None:
        return {}
    maps = [stage["map_size"] for stage in run.stages] if size is None else _maps(run, size)

    def column(values: Sequence[Any]) -> str:
        return " ".join(f"{v[0]}" if isinstance(v, list) and v[0] == v[1] else _plain(v) for v in values)

    return {
        "depth": column([stage["depth"] for stage in run.stages]),
        "map": column(maps),
        "window": column([stage["window"] for stage in run.stages]),
        "shift": column([stage["shift"] for stage in run.stages]),
        "expand": column([stage["expand"] for stage in run.stages]),
        "levels": column([1 + len(stage["levels"]) for stage in run.stages]),
        "keys": column([stage["keys_per_window"] for stage in run.stages]),
    }


def made_size(run: Run) -> tuple[int, int] | None:
    """Height and width in px that a focal backbone is made for; None for other backbones."""
    if run.stages is None:
        return None
    size = _options_of(run).img_size
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def _options_of(run: Run) -> FocalOptions:
    options = run.config["model"]["init_args"].get("backbone_options") or {}
    return preset_options(run.backbone, {name: options[name] for name in options if name in OPTION_NAMES})


def _maps(run: Run, size: tuple[int, int]) -> list[list[int]]:
    """Height and width of each stage's map, in tokens."""
    made = _options_of(run)
    now = (-(-size[0] // made.patch_size), -(-size[1] // made.patch_size))
    maps = []
    for _ in run.stages or ():
        maps.append(list(now))
        now = downsampled_size(now, made)
    return maps


def check_out(out: Path) -> None:
    """Make sure that results can be written before anything is trained.

    Raises:
        UserError: the folder cannot be made or written to.
    """
    probe = out / f".writable.{os.getpid()}"
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe.write_text("")
        probe.unlink()
    except OSError as error:
        raise UserError(
            f"cannot write to {out}: {error.strerror}; choose another folder", key="--out"
        ) from error


def _plain(value: Any) -> str:
    return "x".join(map(str, value)) if isinstance(value, list) else str(value)


def _refuse_degenerate(sweep: Sweep, runs: Sequence[Run]) -> None:
    """Raises UserError for cells whose labels differ and whose networks do not.

    Cells may share the runs of one task and differ in another's: two detectors start from the same
    classification. That is only degenerate where one of the two was changed to fit the picture, as the notes
    of its run say.
    """
    if sweep.allow_degenerate:
        return
    ids: dict[tuple[str, ...], set[str]] = {}
    for run in runs:
        ids.setdefault(tuple(run.cell.labels.values()), set()).add(run.id)
    first: dict[str, Run] = {}
    for run in runs:
        twin = first.setdefault(run.id, run)
        # what only one of them has been told explains why the other comes to the same
        notes = [n for n in (*twin.notes, *run.notes) if (n in twin.notes) != (n in run.notes)]
        if twin.cell.labels == run.cell.labels:
            continue
        mine, theirs = tuple(run.cell.labels.values()), tuple(twin.cell.labels.values())
        if notes or ids[mine] == ids[theirs]:
            differing = [name for name in run.cell.labels if twin.cell.labels[name] != run.cell.labels[name]]
            why = f" ({'; '.join(notes)})" if notes else ""
            raise UserError(
                f"{twin.cell.name} and {run.cell.name} are the same network at this size{why}; "
                "drop one, or set allow_degenerate: true",
                file=sweep.path,
                key=f"factors.{differing[0]}",
            )


def _memory(path: Path, out: Path) -> Path:
    return out / "sweeps" / f"{path.stem}.json"


def remembered(path: Path, out: Path) -> Mapping[str, Any]:
    """How a sweep of that name was last run in `out`; empty if it never was or the note is damaged."""
    try:
        noted = json.loads(_memory(path, out).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    whole = isinstance(noted, dict) and (
        isinstance(noted.get("suite"), str)
        and _all_are(int, noted.get("seeds"))
        and _all_are(str, noted.get("set"))
        and _all_are(str, noted.get("tasks", []))
    )
    return noted if whole else {}


def _all_are(kind: type, values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(value, kind) for value in values)
