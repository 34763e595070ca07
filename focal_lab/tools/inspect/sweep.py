"""`focal-lab inspect --sweep`: a finished run of each cell, where the sweep's page looks for it."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from focal_lab.command_line import command
from focal_lab.errors import UserError
from focal_lab.report.html.attention_images import INSPECT, INSPECT_FILE
from focal_lab.sweep.plan.plan import with_proposals
from focal_lab.sweep.plan.recall import recall_plan
from focal_lab.sweep.run_folder.outcome import State, read_outcome
from focal_lab.sweep.spec.sweep_file import find_sweep

if TYPE_CHECKING:
    from focal_lab.sweep.plan.plan import Plan
    from focal_lab.sweep.plan.runs import Run

SOME_FAILED = 1


def inspect_sweep(
    options: argparse.Namespace, query: tuple[int, int] | None, blocks: Sequence[int] | None, count: int
) -> int:
    """Inspect the first finished run of each cell, in the plan's order; the exit status.

    A cell's network that is not ours, or that has no such block, is told and left out.

    Args:
        options: `sweep`, `out`, `suite`, `seeds`, `tasks`, `set`, `head`, `force`, `json`.
        query: pixel; None for the centre.
        blocks: to draw; None for the last of each stage.
        count: validation pictures to average over.

    Returns:
        0, or 1 when a cell could not be inspected.

    Raises:
        UserError: no such sweep, or none of its cells has a finished run.
    """
    out: Path = options.out
    if not out.is_dir():
        raise UserError(f"{out} {'is not a folder' if out.exists() else 'does not exist'}", key="--out")
    plan = with_proposals(
        recall_plan(
            find_sweep(options.sweep),
            out,
            suite=options.suite,
            seeds=options.seeds,
            overrides=options.set,
            tasks=options.tasks,
        ),
        out,
    )
    chosen = finished_runs(plan, out)
    if not chosen:
        raise UserError(
            f"{plan.sweep.name}: none of its {len(plan.cells)} cells has a finished run in {out} "
            f"({plan.command(out)})",
            key="--sweep",
        )
    asked = {"query": query, "block": blocks, "head": options.head, "pictures": count}
    records, failed = [], 0
    for name, run in chosen:
        folder = out / INSPECT / run.id
        known = None if options.force else _known(folder, asked)
        try:
            record = known or _inspect(out / run.id, folder, asked)
        except UserError as error:
            print(f"focal-lab: {name}: {error}", file=sys.stderr)
            failed += 1
            continue
        records.append(record)
        if not options.json:
            print(f"{name}: {folder}{' (as before)' if known else ''}", flush=True)
    without = len({_cell(run) for run in plan.runs}) - len({_cell(run) for _, run in chosen})
    if without and not options.json:
        print(f"{without} cell(s) have no finished run yet", file=sys.stderr)
    if options.json:
        print(json.dumps(records, indent=1))
    elif records:
        print(f"{command('report', options.sweep, *plan.options, '--out', out, '--open')} shows them")
    return SOME_FAILED if failed else 0


def finished_runs(plan: "Plan", out: Path) -> list[tuple[str, "Run"]]:
    """Of each cell its name and its first finished run, of the sweep's first task that has one."""
    found: dict[tuple[str, ...], tuple[str, Run]] = {}
    for run in plan.runs:
        cell = _cell(run)
        if cell not in found and read_outcome(out / run.id).state is State.FINISHED:
            found[cell] = (", ".join(cell), run)
    # cells that come to the same network share their runs
    distinct = {run.id: (name, run) for name, run in reversed(found.values())}
    return list(reversed(distinct.values()))


def _cell(run: "Run") -> tuple[str, ...]:
    return tuple(run.cell.labels.values())


def _known(folder: Path, asked: dict[str, Any]) -> dict[str, Any] | None:
    """What was found before, if the same was asked, and the run's files are still there."""
    try:
        record: Any = json.loads((folder / INSPECT_FILE).read_text(encoding="utf-8"))
        same = json.loads(json.dumps(asked)) == record["asked"]
        older = Path(record["checkpoint"]).stat().st_mtime <= (folder / INSPECT_FILE).stat().st_mtime
        there = all((folder / picture["file"]).is_file() for picture in record["pictures"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return record if same and older and there else None


def _inspect(run: Path, folder: Path, asked: dict[str, Any]) -> dict[str, Any]:
    from focal_lab.tools.inspect.measure import choose_layers, inspect_network
    from focal_lab.tools.inspect.source import open_source
    from focal_lab.tools.inspect.write import write_inspection

    source = open_source(str(run), run.parent)
    layers = choose_layers(source.network, asked["block"], asked["head"])
    pictures = list(source.validation_pictures(asked["pictures"]))
    found = inspect_network(source, pictures, layers, draw=1, query=asked["query"], head=asked["head"])
    return write_inspection(source, found, layers, folder, brief=True, head=asked["head"], asked=asked)
