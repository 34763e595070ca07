"""Records how a sweep was last run in a folder, for reports that are only given its name."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from focal_lab.sweep.plan.plan import Plan, make_plan
from focal_lab.sweep.plan.sequential import FIRST_SEEDS, needed_so_far
from focal_lab.utils.atomic_files import write_atomic

SWEEPS = "sweeps"
# what a record holds; an earlier version's may lack some of it
_TEXTS = ("path", "suite", "study")
_LISTS = {"seeds": int, "set": str, "tasks": str, "runs": str, "tables": int}


def remember(plan: Plan, out: Path, overrides: Sequence[str]) -> None:
    """Record how a sweep was run."""
    record: dict[str, Any] = {
        "path": str(plan.sweep.path.resolve()),
        "suite": plan.suite,
        "seeds": list(plan.sweep.seeds),
        "set": list(overrides),
        "tasks": list(plan.sweep.tasks),
        "study": plan.study,
        "runs": [run.id for run in plan.distinct_runs],
        "tables": tables_of(plan, out),
    }
    if plan.max_seeds is not None:
        record["until_decided"] = plan.max_seeds
    write_atomic(_file(plan.sweep.path, out), json.dumps(record, indent=1) + "\n")


def recall_plan(
    path: Path,
    out: Path,
    *,
    suite: str | None = None,
    seeds: int | None = None,
    overrides: Sequence[str] = (),
    tasks: Sequence[str] | None = None,
) -> Plan:
    """The plan of a sweep as it was last run in `out`; options given here take precedence.

    Raises:
        UserError: as `make_plan`.
    """
    noted = last_run(path, out)
    if suite is not None and suite != noted.get("suite"):
        noted = {}
    max_seeds = noted.get("until_decided")
    plan = make_plan(
        path,
        suite=suite or noted.get("suite"),
        seeds=seeds if seeds is not None else noted.get("seeds"),
        overrides=overrides or noted.get("set", ()),
        tasks=tasks or noted.get("tasks"),
        max_seeds=max_seeds,
        out=out,
    )
    if max_seeds is not None:
        plan = needed_so_far(plan, out, noted.get("runs", ()))
    return with_looks(plan, out)


def with_looks(plan: Plan, out: Path) -> Plan:
    """The plan with the smaller numbers of seeds of which there was a table in `out` before."""
    most = plan.max_seeds or len(plan.sweep.seeds)
    looks = (
        number for number in tables_of(plan, out) if FIRST_SEEDS <= number < most
    )  # fewer decide nothing
    return replace(plan, looked_at=tuple(looks))


def tables_of(plan: Plan, out: Path) -> list[int]:
    """Numbers of seeds that the plan's study was run with in `out`; the plan's own is the last.

    Each of them had a table. Those of a sequential analysis are corrected for each other: it counts with its
    largest number of seeds, and a fixed number before it does not count.
    """
    noted = last_run(plan.sweep.path, out)
    before = noted.get("tables", []) if noted.get("study") == plan.study else []
    if plan.max_seeds is not None and "until_decided" not in noted:
        before = []
    now = plan.max_seeds or len(plan.sweep.seeds)
    return [*(number for number in before if number != now), now]


def last_run(path: Path, out: Path) -> Mapping[str, Any]:
    """The record of `remember` for a sweep of that name; empty if there is none or it is damaged."""
    return read_record(_file(path, out))


def read_record(file: Path) -> dict[str, Any]:
    """The record in a file; empty if there is none or it is damaged."""
    try:
        noted = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    valid = (
        isinstance(noted, dict)
        and all(isinstance(noted.get(key, ""), str) for key in _TEXTS)
        and type(noted.get("until_decided", 0)) is int
        and all(_is_list_of(kind, noted.get(key, [])) for key, kind in _LISTS.items())
    )
    return noted if valid else {}


def _is_list_of(kind: type, values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(value, kind) for value in values)


def _file(path: Path, out: Path) -> Path:
    return out / SWEEPS / f"{path.stem}.json"
