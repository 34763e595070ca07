"""The plan: the list of runs that a sweep needs, before anything is trained. Pure Python, no torch."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from focal_lab.command_line import command
from focal_lab.errors import UserError, one_of
from focal_lab.sweep.identity.earlier_runs import earlier_runs
from focal_lab.sweep.identity.run_ids import Identities
from focal_lab.sweep.plan.cells import Cell, design_cells, tuned_cells
from focal_lab.sweep.plan.confounds import Confound, find_confounds
from focal_lab.sweep.plan.overlaps import refuse_overlaps
from focal_lab.sweep.plan.pareto import best_first
from focal_lab.sweep.plan.proposals import Proposals, SearchSpace
from focal_lab.sweep.plan.runs import Run, hash_of, make_runs
from focal_lab.sweep.plan.settings import SEEDS
from focal_lab.sweep.plan.stage_differences import differing_stages
from focal_lab.sweep.spec.columns import with_main_columns
from focal_lab.sweep.spec.suite import Suite, find_suite
from focal_lab.sweep.spec.sweep_file import TASKS, Sweep, load_sweep, seeds_from, tasks_from
from focal_lab.utils.yaml import parse_yaml

DEFAULT_SUITE = "digits"


@dataclass(frozen=True)
class Plan:
    """A sweep on a suite, resolved.

    Attributes:
        cells: in the order of the table's rows.
        runs: every cell x task x seed, and x trial where the cells are tuned; cells with the same network
            share IDs. Of a search those proposed so far.
        space: what a search proposes from; None for a design.
        front: how many of a search's runs, the first ones, are on the Pareto front.
        options: of the command line that ask for this plan, where the file alone does not.
        paper_images: as of the suite.
        max_seeds: the largest number of seeds of a sequential analysis; None if their number is fixed.
        candidates: all runs of `max_seeds` seeds, of which `runs` are those that are needed so far.
        looked_at: smaller numbers of seeds of which there was a table before, for which nothing is corrected.
    """

    sweep: Sweep
    suite: str
    cells: tuple[Cell, ...]
    runs: tuple[Run, ...]
    space: SearchSpace | None = None
    front: int = 0
    options: tuple[str, ...] = ()
    paper_images: Mapping[str, int] = field(default_factory=dict)
    max_seeds: int | None = None
    candidates: tuple[Run, ...] = ()
    looked_at: tuple[int, ...] = ()

    @cached_property
    def distinct_runs(self) -> tuple[Run, ...]:
        """What is trained: seed by seed, so that a stopped sweep has whole tables of few seeds."""
        distinct = {run.id: run for run in self.runs}
        place = {seed: i for i, seed in enumerate(self.sweep.seeds)}
        return tuple(sorted(distinct.values(), key=lambda run: place[run.seed]))

    def command(self, out: Path) -> str:
        """The command that trains the plan in `out`."""
        elsewhere = [] if out == Path("runs") else ["--out", out]
        return command("sweep", self.sweep.path, *self.options, *elsewhere)

    @property
    def study(self) -> str:
        """Name of the queue: the sweep, the suite, and a hash of the runs without their seeds."""
        if self.space is not None:
            return self.space.study
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
    max_seeds: int | None = None,
    out: Path | None = None,
) -> Plan:
    """Resolve a sweep file.

    Args:
        path: the sweep file.
        suite: folder under `experiments/`; None for the default one.
        seeds: how many seeds, or which; None for those of the file.
        overrides: KEY=VALUE settings of the command line, VALUE in YAML.
        tasks: what every cell is trained for; None for the tasks of the file.
        max_seeds: of a sequential analysis, which begins with the seeds of the file; None for a fixed number.
        out: folder of the runs, where those of earlier versions are recognised; None to name runs only.

    Raises:
        UserError: the file, the suite or a setting is wrong, or two cells have the same network.
    """
    chosen = find_suite(suite or DEFAULT_SUITE)
    written = sweep = load_sweep(path, chosen.name)
    if seeds is not None:
        wanted = seeds if isinstance(seeds, int) else list(seeds)
        sweep = replace(sweep, seeds=seeds_from(wanted, "--seeds"))
    elif max_seeds is not None:
        sweep = replace(sweep, seeds=_extended(sweep.seeds, max_seeds))
    if tasks is not None:
        sweep = replace(sweep, tasks=tasks_from(list(tasks), "--tasks"))
    if sweep.tuning is not None and len(sweep.tasks) > 1:
        raise UserError("tune is of one task; sweep the others from the tuned settings", key="--tasks")
    options = _options(chosen, written, sweep, overrides, max_seeds)
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
        _refuse_several(sweep, max_seeds)
        space = SearchSpace(sweep, chosen, experiments[sweep.tasks[0]], settings, identities)
        for params in space.probes():
            space.run(params)
        return Plan(sweep, chosen.name, (), (), space, options=options, paper_images=chosen.paper_images)
    cells = design_cells(sweep)
    if max_seeds is not None:
        _refuse_undecidable(sweep, cells)

    def runs_of(cell: Cell) -> Iterator[Run]:
        """The runs of a cell; the other tasks' start from those of the classification."""
        if sweep.tuning is not None:
            task = sweep.tasks[0]
            for one, tried in tuned_cells(sweep, cell):
                yield from make_runs(one, chosen, experiments[task], tried, task, settings, identities)
            return
        parents: dict[int, Run] = {}
        for task in sorted(sweep.tasks, key=TASKS.index):
            made = make_runs(sweep, chosen, experiments[task], cell, task, settings, identities, parents)
            if task == "classification":
                parents = {run.seed: run for run in made}
            yield from made

    runs = identities.settled(lambda: tuple(run for cell in cells for run in runs_of(cell)))
    _refuse_degenerate(sweep, runs)
    whole = Plan(sweep, chosen.name, cells, runs, options=options, paper_images=chosen.paper_images)
    return whole if max_seeds is None else replace(whole, max_seeds=max_seeds, candidates=runs)


def _extended(seeds: Sequence[int], count: int) -> tuple[int, ...]:
    """The first seeds, then the smallest numbers that are not among them."""
    others = (seed for seed in range(count) if seed not in seeds)
    return (*seeds, *others)[:count]


def _options(
    suite: Suite, written: Sweep, sweep: Sweep, overrides: Sequence[str], max_seeds: int | None
) -> tuple[str, ...]:
    """The command-line options that turn the sweep file into the requested sweep."""
    options = [] if suite.name == DEFAULT_SUITE else ["--suite", suite.name]
    if sweep.tasks != written.tasks:
        options += ["--tasks", *sweep.tasks]
    if max_seeds is not None:
        options += ["--until-decided", "--max-seeds", str(max_seeds)]
    elif sweep.seeds != written.seeds and sweep.seeds == tuple(range(len(sweep.seeds))):
        options += ["--seeds", str(len(sweep.seeds))]
    return (*options, *(word for text in overrides for word in ("--set", text)))


def _refuse_several(sweep: Sweep, max_seeds: int | None) -> None:
    """Raises UserError for a search with several tasks or seeds, from the command line or the file."""
    if max_seeds is not None:
        raise UserError(
            "a search trains each proposal once and has nothing to decide (confirm its best in a sweep)",
            key="--until-decided",
        )
    if len(sweep.tasks) > 1:
        raise UserError("a search has one task", file=sweep.path, key="tasks")
    if len(sweep.seeds) > 1:
        raise UserError(
            "a search trains each proposal once; use one seed, and confirm the best with more in a sweep",
            file=sweep.path,
            key="seeds",
        )


def _refuse_undecidable(sweep: Sweep, cells: Sequence[Cell]) -> None:
    """Raises UserError if there is nothing to decide: levels of seeds are a sample, which is not compared."""
    compared = {
        tuple((name, label) for name, label in cell.labels.items() if name not in SEEDS) for cell in cells
    }
    if len(compared) < 2 and not sweep.expectations:
        raise UserError("the sweep compares nothing (use --seeds, a fixed number)", key="--until-decided")


def probe_plan(plan: Plan) -> Plan:
    """A plan of examples that a search may propose, to check before training; other plans as they are."""
    if plan.space is None:
        return plan
    runs = tuple(plan.space.run(params) for params in plan.space.probes())
    return replace(plan, cells=tuple(run.cell for run in runs), runs=runs)


def confounds_of(plan: Plan) -> tuple[Confound, ...]:
    """The factors of a plan, or of a search, that vary several settings at once."""
    return find_confounds(plan.sweep.factors, probe_plan(plan).runs) if plan.sweep.factors else ()


def differing_stages_of(plan: Plan) -> dict[str, tuple[tuple[int, ...], int]]:
    """Factor -> the stages of the networks of a plan in which it makes a difference, and their number."""
    return differing_stages(plan.sweep.factors, probe_plan(plan).runs) if plan.sweep.factors else {}


def with_proposals(plan: Plan, out: Path) -> Plan:
    """A search's plan with the runs proposed in `out` so far, best first; other plans as they are."""
    if plan.space is None:
        return plan
    proposed = list(Proposals(out, plan.space).runs().values())
    runs, front = best_first(proposed, out, plan.space.search.objectives)
    return replace(plan, cells=tuple(run.cell for run in runs), runs=tuple(runs), front=front)


def parse_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    """KEY=VALUE strings as settings; VALUE is YAML, so 7, [7, 14] and true mean what they look like.

    Raises:
        UserError: no `=`, or VALUE is not YAML.
    """
    settings: dict[str, Any] = {}
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise UserError(f"{text!r} is not KEY=VALUE", key="--set")
        settings.pop(key.strip(), None)  # the last one counts, over other spellings in between, too
        settings[key.strip()] = parse_yaml(f"value: {value}", f"--set {text}")["value"]
    return settings


def _refuse_degenerate(sweep: Sweep, runs: Sequence[Run]) -> None:
    """Raises UserError for cells whose labels differ and whose networks do not.

    Cells may share the runs of one task and differ in another's: two detectors start from the same
    classification. That is only degenerate where one of the two was changed to fit the image, as the notes
    of its run say.
    """
    if sweep.allow_degenerate:
        return
    ids: dict[str, set[str]] = {}
    for run in runs:
        ids.setdefault(repr(run.cell.labels), set()).add(run.id)
    first: dict[str, Run] = {}
    for run in runs:
        twin = first.setdefault(run.id, run)
        mine, other = run.cell.labels, twin.cell.labels
        if mine == other:
            continue
        # notes of only one of them explain why the networks are the same
        notes = [n for n in (*twin.notes, *run.notes) if (n in twin.notes) != (n in run.notes)]
        if notes or ids[repr(mine)] == ids[repr(other)]:
            why = f" ({'; '.join(notes)})" if notes else ""
            raise UserError(
                f"{twin.cell.name} and {run.cell.name} are the same network at this size{why}; "
                "drop one, or set allow_degenerate: true",
                file=sweep.path,
                key=f"factors.{next(name for name in mine if other[name] != mine[name])}",
            )
