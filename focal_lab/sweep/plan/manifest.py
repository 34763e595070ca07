"""Manifest of a study, `<out>/plans/<study>.json`: its runs, for workers and for commands that list runs.

A worker on another machine trains from it without the project's files.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from focal_lab._version import __version__
from focal_lab.errors import UserError
from focal_lab.sweep.plan.cells import Cell
from focal_lab.sweep.plan.proposals import SearchSpace
from focal_lab.sweep.plan.runs import IDENTITY_VERSION, Run
from focal_lab.utils.atomic_files import write_atomic
from focal_lab.utils.file_lock import FileLock

SCHEMA = 1
PLANS = "plans"
# (schema, version of identities) of earlier manifests that can be listed
_READABLE = {(SCHEMA, earlier) for earlier in range(1, IDENTITY_VERSION)}


@dataclass(frozen=True)
class Manifest:
    """The runs of a study.

    Attributes:
        study: its name in the queue.
        suite: what it was planned for.
        title: heading of its table.
        runs: in the order in which they are to be trained; of a search those proposed so far.
        space: what a search proposes from; None for a design.
    """

    study: str
    sweep: str
    suite: str
    title: str
    runs: tuple[Run, ...]
    space: SearchSpace | None = None


def write_manifest(out: Path, manifest: Manifest) -> None:
    """Write a study's manifest; runs of an earlier one stay in it.

    Raises:
        OSError: the disk is full or not writable.
    """
    path = manifest_path(out, manifest.study)
    with FileLock(path.with_name(f".{path.name}.lock")):
        try:
            earlier = read_manifest(path).runs
        except UserError:  # there is none, or it is replaced
            earlier = ()
        known = {run.id for run in manifest.runs}
        added = (run for run in earlier if run.id not in known)
        merged = replace(manifest, runs=(*manifest.runs, *added))
        write_atomic(path, json.dumps(_raw(merged), separators=(",", ":")) + "\n")


def manifest_path(out: Path, study: str) -> Path:
    """Where a study's manifest is."""
    return out / PLANS / f"{study}.json"


def read_manifest(path: Path, *, to_train: bool = True) -> Manifest:
    """The manifest in a file.

    Args:
        to_train: whether its runs are to be trained, which needs IDs of this version; those of earlier ones
            still say which folders the study needs.

    Raises:
        UserError: missing, damaged, or written by another version.
    """
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", file=path) from error
    except ValueError as error:
        raise UserError("is damaged; run the sweep again, which rewrites it", file=path) from error
    written = (raw.get("schema"), raw.get("identity_version")) if isinstance(raw, dict) else None
    if written != (SCHEMA, IDENTITY_VERSION) and (to_train or written not in _READABLE):
        by = f"focal-lab {raw.get('focal_lab')}" if isinstance(raw, dict) else "something else"
        raise UserError(
            f"was written by {by}, which this version ({__version__}) cannot continue; "
            "use the same version on all machines",
            file=path,
        )
    try:
        runs = sorted((run for group in raw["groups"] for run in _runs(group)), key=lambda pair: pair[0])
        space = SearchSpace.from_dict(raw["recipe"]) if raw.get("recipe") else None
        names = (raw["study"], raw["sweep"], raw["suite"], raw["title"])
        return Manifest(*names, tuple(run for _, run in runs), space)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError("is damaged; run the sweep again, which rewrites it", file=path) from error


def known_runs(path: Path) -> Mapping[str, Run]:
    """Run ID -> run of the manifest in a file, read again when that has changed; none if it is damaged."""
    try:
        return _runs_at(path, path.stat().st_mtime_ns)
    except (OSError, UserError):
        return {}


@lru_cache(maxsize=256)
def _runs_at(path: Path, changed: int) -> Mapping[str, Run]:
    return {run.id: run for run in read_manifest(path).runs}


def all_manifests(out: Path) -> Iterator[Path]:
    """The files of all manifests in a folder of runs, by name."""
    yield from sorted((out / PLANS).glob("*.json"))


def _raw(manifest: Manifest) -> dict[str, Any]:
    """Runs that differ by their seed alone share a group."""
    groups: dict[tuple[Any, ...], dict[str, Any]] = {}
    for place, run in enumerate(manifest.runs):
        key = (tuple(run.cell.labels.items()), run.task, id(run.stages), seedless(run))
        group = groups.get(key)
        if group is None:
            group = groups[key] = {
                "labels": run.cell.labels,
                "settings": run.cell.settings,
                "task": run.task,
                "config": _without(run.config, "seed_everything"),
                "identity": _without(run.identity, "seed_everything", "needs"),
                "runs": [],
            }
        group["runs"].append([place, run.id, run.seed, run.needs, run.identity.get("needs")])
    return {
        "schema": SCHEMA,
        "focal_lab": __version__,
        "identity_version": IDENTITY_VERSION,
        "study": manifest.study,
        "sweep": manifest.sweep,
        "suite": manifest.suite,
        "title": manifest.title,
        "groups": list(groups.values()),
        "recipe": None if manifest.space is None else manifest.space.as_dict(),
    }


def seedless(run: Run) -> str:
    """The common fields of the runs of a cell and task."""
    return seedless_identity(run.identity)


def seedless_identity(identity: dict[str, Any]) -> str:
    """An identity without what differs between seeds."""
    return json.dumps(_without(identity, "seed_everything", "needs"), sort_keys=True)


def _runs(group: dict[str, Any]) -> list[tuple[int, Run]]:
    cell = Cell(group["labels"], group["settings"])
    found = []
    for place, name, seed, needs, *named in group["runs"]:
        known = named[0] if named else needs  # older manifests: a run was always named by its ID
        identity = group["identity"] | {"seed_everything": seed} | ({"needs": known} if known else {})
        config = {"seed_everything": seed} | group["config"]
        found.append((place, Run(name, cell, group["task"], seed, config, identity, needs=needs)))
    return found


def _without(value: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: part for key, part in value.items() if key not in keys}
