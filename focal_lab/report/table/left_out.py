"""Finished runs of a sweep that its report leaves out: of other seeds, tasks, suites, settings or code."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from focal_lab.errors import UserError
from focal_lab.report.table.long_table import flat_settings
from focal_lab.sweep.plan.manifest import all_manifests, read_manifest, seedless
from focal_lab.sweep.run_folder.outcome import State, read_outcome
from focal_lab.utils.units import many

if TYPE_CHECKING:
    from focal_lab.sweep.plan.plan import Plan
    from focal_lab.sweep.plan.runs import Run

# A run that differs in more settings than these is another experiment.
_MOST_NAMED = 3
_NOT_SETTINGS = frozenset({"seed_everything", "needs", "code"})
# what a run differs in, and its values there
_Difference = tuple[str, tuple[Any, ...]]


def left_out(plan: "Plan", out: Path) -> Iterator[str]:
    """Sentences about finished runs of the plan's sweep, or of its cells, that the plan does not contain.

    A sweep may be repeated with fewer seeds, a report restricted to some of them, and code edited; the other
    results must not vanish silently.
    """
    runs: Counter[str] = Counter()
    names: dict[str, set[Any]] = defaultdict(set)
    for kind, values in _others(plan, out):
        runs[kind] += 1
        names[kind].update(values)
    code, earlier = runs.pop("code", 0), runs.pop("version", 0)
    parts = [f"{count} {_differing(kind, sorted(names[kind]))}" for kind, count in sorted(runs.items())]
    if parts:
        yield (
            f"Left out, although finished: {', '.join(parts)} "
            "(--seeds, --tasks, --suite and --set select which runs are shown)."
        )
    if code:
        modules = ", ".join(sorted(names["code"]))
        yield f"{_are(code)} of other code, which has changed since: {modules}."
    if earlier:
        yield f"{_are(earlier)} of an earlier version of focal-lab, which may not be comparable."


def _differing(kind: str, names: Sequence[Any]) -> str:
    listed = " and ".join(map(str, names))
    if kind == "setting":
        named = f" ({', '.join(names)})" if names else " or cells"
        return f"with other settings{named}"
    plural = "s"[: len(names) - 1]
    return {
        "needs": "that start from other runs",
        "seed": f"of seed{plural} {listed}",
        "suite": f"on suite{plural} {listed}",
        "task": f"of {listed}",
    }[kind]


def _are(count: int) -> str:
    return f"{many(count, 'finished run')} {'is' if count == 1 else 'are'}"


class _Planned:
    """The plan's identities, with which those of other runs are compared."""

    def __init__(self, plan: "Plan") -> None:
        self.plan = plan
        self.seeds = {run.seed for run in plan.runs}
        self.cells = {seedless(run) for run in plan.runs}
        self.codeless = {_codeless(run): run for run in plan.runs}
        self.labelled = {(run.task, *run.cell.labels.items()): run for run in plan.runs}
        self.versions = {run.identity.get("version") for run in plan.runs}

    def difference(self, run: "Run", suite: str, *, same_sweep: bool) -> _Difference | None:
        """What another run differs in; None if it has nothing to do with the plan."""
        if seedless(run) in self.cells:
            return ("needs", ()) if run.seed in self.seeds else ("seed", (run.seed,))
        twin = self.codeless.get(_codeless(run))
        if twin is not None:
            return "code", _differing_keys(twin.identity.get("code") or {}, run.identity.get("code") or {})
        if not same_sweep:
            return None
        if suite != self.plan.suite:
            return "suite", (suite,)
        if run.task not in self.plan.sweep.tasks:
            return "task", (run.task,)
        if run.identity.get("version") not in self.versions:
            return "version", ()
        twin = self.labelled.get((run.task, *run.cell.labels.items()))
        names = _differing_keys(*(flat_settings(_settings(one)) for one in (twin, run))) if twin else ()
        return "setting", names if len(names) <= _MOST_NAMED else ()


def _others(plan: "Plan", out: Path) -> Iterator[_Difference]:
    """How each finished run that the plan does not contain differs from it."""
    seen = {run.id for run in plan.runs}
    planned: _Planned | None = None
    for path in all_manifests(out):
        try:
            manifest = read_manifest(path, to_train=False)
        except UserError:
            continue  # written by a later version
        for run in manifest.runs:
            if run.id in seen:
                continue
            seen.add(run.id)
            planned = planned or _Planned(plan)
            found = planned.difference(run, manifest.suite, same_sweep=manifest.sweep == plan.sweep.name)
            if found is not None and read_outcome(out / run.id).state is State.FINISHED:
                yield found


def _settings(run: "Run") -> dict[str, Any]:
    return {key: part for key, part in run.identity.items() if key not in _NOT_SETTINGS}


def _codeless(run: "Run") -> str:
    return json.dumps(_settings(run), sort_keys=True)


def _differing_keys(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(name for name in {*mine, *theirs} if repr(mine.get(name)) != repr(theirs.get(name)))
