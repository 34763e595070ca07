"""Finished runs of a sweep that its report does not show: of other seeds, tasks, suites, settings or code."""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from focal_lab.errors import UserError
from focal_lab.sweep.plan.manifest import all_manifests, read_manifest, seedless
from focal_lab.sweep.run_folder.outcome import State, read_outcome

if TYPE_CHECKING:
    from pathlib import Path

    from focal_lab.sweep.plan.plan import Plan
    from focal_lab.sweep.plan.runs import Run

# More settings than these are another experiment.
_MOST_NAMED = 3
_NOT_SETTINGS = frozenset({"seed_everything", "needs", "code"})
_Left = tuple[str, tuple[object, ...]]


def left_out(plan: "Plan", out: "Path") -> Iterator[str]:
    """Sentences about finished runs of the plan's sweep, or of its cells, that the plan lacks.

    A sweep may be run again with fewer seeds, and a report be asked for some of them; code may be edited. But
    results never vanish without a word.
    """
    found: dict[str, list[tuple[object, ...]]] = defaultdict(list)
    for kind, values in _others(plan, out):
        found[kind].append(values)
    code, earlier = found.pop("code", []), found.pop("version", [])
    parts = [f"{len(values)} {_said(kind, values)}" for kind, values in sorted(found.items())]
    if parts:
        yield (
            f"Left out, although finished: {', '.join(parts)} "
            "(--seeds, --tasks, --suite and --set say which runs are shown)."
        )
    if code:
        yield (
            f"{_runs(code)} of the same configuration {_are(code)} of other code, which changed since: "
            f"{_and(code, ', ')}."
        )
    if earlier:
        yield (
            f"{_runs(earlier)} {_are(earlier)} of an earlier version of focal-lab, "
            "and not known to be the same."
        )


def _said(kind: str, values: list[tuple[object, ...]]) -> str:
    plural = "s"[: len({name for names in values for name in names}) - 1]
    named = f" ({_and(values, ', ')})" if any(values) else " or cells"
    return {
        "needs": "that start from other runs",
        "seed": f"of seed{plural} {_and(values)}",
        "setting": f"with other settings{named}",
        "suite": f"on suite{plural} {_and(values)}",
        "task": f"of {_and(values)}",
    }[kind]


def _and(values: list[tuple[object, ...]], between: str = " and ") -> str:
    return between.join(map(str, sorted({name for names in values for name in names})))  # type: ignore[type-var]


def _runs(values: list[tuple[object, ...]]) -> str:
    return f"{len(values)} finished run{'s'[: len(values) - 1]}"


def _are(values: list[tuple[object, ...]]) -> str:
    return "is" if len(values) == 1 else "are"


class _Planned:
    """What identities of other runs are compared with."""

    def __init__(self, plan: "Plan") -> None:
        self.plan = plan
        self.seeds = {run.seed for run in plan.runs}
        self.cells = {seedless(run) for run in plan.runs}
        self.codeless = {_codeless(run): run for run in plan.runs}
        self.labelled = {(run.task, *run.cell.labels.items()): run for run in plan.runs}
        self.versions = {run.identity.get("version") for run in plan.runs}

    def difference(self, run: "Run", suite: str, *, same_sweep: bool) -> _Left | None:
        """In what another run differs, and its own values; None where it has nothing to do with the plan."""
        if seedless(run) in self.cells:
            return ("needs", ()) if run.seed in self.seeds else ("seed", (run.seed,))
        twin = self.codeless.get(_codeless(run))
        if twin is not None:
            mine, theirs = twin.identity.get("code") or {}, run.identity.get("code") or {}
            return "code", tuple(name for name in {*mine, *theirs} if mine.get(name) != theirs.get(name))
        if not same_sweep:
            return None
        if suite != self.plan.suite:
            return "suite", (suite,)
        if run.task not in self.plan.sweep.tasks:
            return "task", (run.task,)
        if run.identity.get("version") not in self.versions:
            return "version", ()
        return "setting", self._settings(run)

    def _settings(self, run: "Run") -> tuple[str, ...]:
        """Names of the settings in which a run differs from the plan's of the same labels; () for many."""
        twin = self.labelled.get((run.task, *run.cell.labels.items()))
        if twin is None:
            return ()
        mine, theirs = dict(_flat(twin.identity)), dict(_flat(run.identity))
        names = {name for name in {*mine, *theirs} if repr(mine.get(name)) != repr(theirs.get(name))}
        return tuple(sorted(names)) if len(names) <= _MOST_NAMED else ()


def _others(plan: "Plan", out: "Path") -> Iterator[_Left]:
    """Each finished run that the plan lacks: in what it differs, and its own values."""
    seen = {run.id for run in plan.runs}
    planned: _Planned | None = None
    for path in all_manifests(out):
        try:
            manifest = read_manifest(path, to_train=False)
        except UserError:
            continue  # of a later version, whose runs are no longer those of any sweep
        for run in manifest.runs:
            if run.id in seen:
                continue
            seen.add(run.id)
            planned = planned or _Planned(plan)
            left = planned.difference(run, manifest.suite, same_sweep=manifest.sweep == plan.sweep.name)
            if left is not None and read_outcome(out / run.id).state is State.FINISHED:
                yield left


def _codeless(run: "Run") -> str:
    identity = {key: part for key, part in run.identity.items() if key not in _NOT_SETTINGS}
    return json.dumps(identity, sort_keys=True)


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Settings of an identity by the names that a sweep file has for them."""
    for key, part in value.items():
        if not prefix and key in _NOT_SETTINGS:
            continue
        name = prefix if key == "init_args" else f"{prefix}.{key}" if prefix else str(key)
        if isinstance(part, Mapping):
            yield from _flat(part, name)
        else:
            yield name, part
