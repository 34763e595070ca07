"""`focal-lab freeze`: writes down a sweep's analysis before it is run; reports say whether they follow it.

A frozen analysis is the claim and its parts, margins, baselines, metrics, cells, seeds and the rule of
decision. It lies beside the sweep file as `NAME.frozen.json`, with a date and a hash of its content; commit
it to prove the date.
"""

import datetime
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from focal_lab._version import __version__
from focal_lab.errors import UserError
from focal_lab.report.published.layouts import known_papers
from focal_lab.report.statistics.crossed import ALPHA
from focal_lab.report.table.decide import LEAST_SEEDS
from focal_lab.sweep.commands.command_options import plan_of, sweep_parser
from focal_lab.sweep.identity.run_ids import hash_of
from focal_lab.sweep.plan.plan import DEFAULT_SUITE
from focal_lab.sweep.run_folder.layout import has_result
from focal_lab.sweep.run_folder.provenance import git_of
from focal_lab.sweep.spec.columns import COLUMNS
from focal_lab.utils.atomic_files import write_atomic

if TYPE_CHECKING:
    from focal_lab.sweep.plan.plan import Plan

SCHEMA = 1
# To be raised when the same results could get another verdict.
RULE = {
    "version": 1,
    "interval": "crossed over seeds and test images, 95 %",
    "correction": "Holm, over all comparisons of the report",
    "alpha": ALPHA,
    "least_seeds": LEAST_SEEDS,
}
_HASH_LENGTH = 12
# Longer values are only said to differ.
_MOST_CHARACTERS = 60


def main(argv: list[str]) -> int:
    """Write down the analysis of a sweep before it is run, with a date and a hash.

    Args:
        argv: what follows `focal-lab freeze`.

    Raises:
        UserError: the sweep or an option is wrong, it is a search, it is frozen already, or the file cannot
            be written.
    """
    parser = sweep_parser("freeze", main, "window_size", "sweeps/depth.yaml --seeds 5")
    options = parser.parse_args(argv)
    plan = plan_of(options, known_papers())
    if plan.space is not None:
        raise UserError("a search has no analysis to freeze", file=plan.sweep.path, key="search")
    path = frozen_file(plan)
    if path.exists():
        raise UserError(
            "exists: the analysis is frozen already (remove the file to freeze another)", file=path
        )
    analysis = analysis_of(plan)
    finished = sum(has_result(options.out / run.id) for run in plan.distinct_runs)
    record = {
        "schema": SCHEMA,
        "hash": _hash(analysis),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "focal_lab": __version__,
        "git": git_of(()),
        "finished_runs": finished,
        "analysis": analysis,
    }
    try:
        write_atomic(path, json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    except OSError as error:
        raise UserError(f"cannot be written: {error.strerror}", file=path) from error
    already = f", after {finished} of its {len(plan.distinct_runs)} runs had finished" if finished else ""
    print(f"{path}: analysis {record['hash']}{already}; commit it, and reports say whether they follow it")
    return 0


def frozen_file(plan: "Plan") -> Path:
    """Where the frozen analysis of a plan's sweep is: one for each suite."""
    suite = "" if plan.suite == DEFAULT_SUITE else f".{plan.suite}"
    return plan.sweep.path.parent / f"{plan.sweep.path.stem}{suite}.frozen.json"


def analysis_of(plan: "Plan") -> dict[str, Any]:
    """Everything that decides the verdicts on a plan's results."""
    sweep = plan.sweep
    metrics = [key for key in sweep.columns if COLUMNS[key].task in sweep.tasks]
    asked = [part.metric for part in sweep.expectations]
    return {
        "suite": plan.suite,
        "tasks": list(sweep.tasks),
        "seeds": list(sweep.seeds),
        "max_seeds": plan.max_seeds,
        "cells": [list(cell.labels.values()) for cell in plan.cells],
        "runs": hash_of(sorted({run.id for run in plan.candidates or plan.runs}))[:_HASH_LENGTH],
        "metrics": metrics,
        "claim": sweep.claim,
        "expect": [part.text for part in sweep.expectations],
        "margins": {key: sweep.margin(key) for key in dict.fromkeys([*metrics, *asked])},
        "success": sweep.success,
        "tune": None if sweep.tuning is None else asdict(sweep.tuning),
        "baseline": sweep.baseline,
        "rule": RULE,
    }


def frozen_notes(plan: "Plan") -> Iterator[str]:
    """Whether a report's analysis is the frozen one; nothing if none was frozen."""
    path = frozen_file(plan)
    if not path.exists():
        return
    problem = None
    record: Any = None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        valid = isinstance(record, dict) and isinstance(record.get("analysis"), dict)
        if not valid or record.get("schema") != SCHEMA:
            problem = "is not a frozen analysis of this version"
        elif record.get("hash") != _hash(record["analysis"]):
            problem = "was edited after it was frozen: its hash is not that of its content"
    except (OSError, ValueError):
        problem = "cannot be read"
    if problem is not None:
        yield f"{path.name} {problem}; this analysis counts as not frozen."
        return
    when = f"frozen on {str(record.get('date'))[:10]} ({record['hash']})"
    finished = record.get("finished_runs")
    after = f", when {finished} of its runs had finished" if finished else ""
    differing = list(_differences(record["analysis"], json.loads(json.dumps(analysis_of(plan)))))
    if differing:
        yield f"Not the analysis that was {when}{after}: {'; '.join(differing)}."
    else:
        yield f"This is the analysis that was {when}{after}."


def _differences(frozen: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    for key in dict.fromkeys([*frozen, *now]):
        before, after = frozen.get(key), now.get(key)
        if before == after:
            continue
        words = [json.dumps(value, ensure_ascii=False) for value in (after, before)]
        short = all(len(word) <= _MOST_CHARACTERS for word in words) and key != "runs"
        yield f"{key} {words[0]}, not {words[1]}" if short else f"other {key}"


def _hash(analysis: Mapping[str, Any]) -> str:
    return hash_of(json.loads(json.dumps(analysis)))[:_HASH_LENGTH]
