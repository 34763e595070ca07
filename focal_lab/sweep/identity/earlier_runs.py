"""Finds finished runs to which an earlier version gave other IDs, by their configurations. Writes nothing."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from focal_lab.sweep.identity.run_ids import IDENTITY_VERSION, Identities, hash_of
from focal_lab.sweep.identity.user_code import newest
from focal_lab.sweep.run_folder.layout import run_folders
from focal_lab.sweep.run_folder.outcome import read_outcome
from focal_lab.sweep.run_folder.result import Result


def earlier_runs(out: Path, identities: Identities) -> dict[str, str]:
    """Run ID -> folder of the run of an earlier version that has it; of several the one that finished first.

    Earlier versions did not record the user's code. A run is left out if code or a checkpoint that it starts
    from was changed after it started.
    """
    results = {result.run: result for result in _earlier_results(out)}
    if not results:
        return {}

    def names() -> dict[str, str]:
        known: dict[str, str | None] = {}
        for name in results:
            _identify(name, results, identities, known)
        return {folder: name for folder, name in known.items() if name is not None}

    found: dict[str, str] = {}
    for folder, name in identities.settled(names).items():
        first = results[found.get(name, folder)]
        if (results[folder].finished, folder) <= (first.finished, first.run):
            found[name] = folder
    return found


def _earlier_results(out: Path) -> Iterator[Result]:
    for folder in run_folders(out):
        result = read_outcome(folder).result
        if result is not None and result.identity.get("version") != IDENTITY_VERSION:
            yield result


def _identify(
    folder: str, results: Mapping[str, Result], identities: Identities, known: dict[str, str | None]
) -> str | None:
    """The ID that a result has now; None if that cannot be known."""
    if folder not in known:
        known[folder] = None  # a run that needs itself is damaged
        if folder in results:
            with suppress(AttributeError, KeyError, TypeError):  # not a result of a sweep
                known[folder] = _id_of(results[folder], results, identities, known)
    return known[folder]


def _id_of(
    result: Result, results: Mapping[str, Result], identities: Identities, known: dict[str, str | None]
) -> str | None:
    described = identities.describe(result.config, result.task, result.identity["network"])
    own: dict[str, Any] = {"seed_everything": result.seed}
    needs = result.identity.get("needs")
    if needs is not None:
        own["needs"] = _identify(needs, results, identities, known)
        if own["needs"] is None:
            return None
    files = identities.code.files(described.get("code", {}))
    checkpoint = (result.config["model"].get("init_args") or {}).get("backbone_checkpoint")
    if checkpoint:
        files.append(Path(checkpoint))
    if newest(files) > datetime.fromisoformat(result.started).timestamp():
        return None
    return hash_of(described | own)[:12]
