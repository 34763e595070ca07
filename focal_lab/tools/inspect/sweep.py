"""`focal-lab inspect --sweep`: inspect a finished run of each cell, for the sweep's page."""

import argparse
import json
import sys
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


def inspect_sweep(options: argparse.Namespace, num_images: int) -> int:
    """Inspect the first finished run of each cell, in the plan's order; returns the exit status.

    A cell whose network is not focal, or lacks a requested block, is reported on stderr and skipped; the
    status is then 1.

    Raises:
        UserError: there is no such sweep, or none of its cells has a finished run.
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
    # compared with the options in inspect.json: plain lists and numbers
    asked = {
        "query": options.query and list(options.query),
        "block": options.block,
        "head": options.head,
        "pictures": num_images,
    }
    records, failed = [], False
    for name, run in chosen:
        folder = out / INSPECT / run.id
        known = None if options.force else _read_record(folder, asked)
        try:
            records.append(known or _inspect(out / run.id, folder, asked))
        except UserError as error:
            print(f"focal-lab: {name}: {error}", file=sys.stderr)
            failed = True
            continue
        if not options.json:
            print(f"{name}: {folder}{' (inspected before)' if known else ''}", flush=True)
    if options.json:
        print(json.dumps(records, indent=1))
        return int(failed)
    missing = len({_cell(run) for run in plan.runs}) - len({_cell(run) for _, run in chosen})
    if missing:
        print(f"{missing} cell(s) have no finished run yet", file=sys.stderr)
    if records:
        print(f"{command('report', options.sweep, *plan.options, '--out', out, '--open')} shows them")
    return int(failed)


def finished_runs(plan: "Plan", out: Path) -> list[tuple[str, "Run"]]:
    """Name and first finished run of each cell, of the sweep's first task that has one."""
    found: dict[tuple[str, ...], Run] = {}
    for run in plan.runs:
        if _cell(run) not in found and read_outcome(out / run.id).state is State.FINISHED:
            found[_cell(run)] = run
    # cells with the same network share their runs: the first is listed
    distinct = {run.id: (", ".join(cell), run) for cell, run in reversed(found.items())}
    return list(reversed(distinct.values()))


def _cell(run: "Run") -> tuple[str, ...]:
    return tuple(run.cell.labels.values())


def _read_record(folder: Path, asked: dict[str, Any]) -> dict[str, Any] | None:
    """The previous inspection if it has the same options, is complete, and is newer than the checkpoint."""
    file = folder / INSPECT_FILE
    try:
        record: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        newer = Path(record["checkpoint"]).stat().st_mtime <= file.stat().st_mtime
        complete = all((folder / plot["file"]).is_file() for plot in record["pictures"])
        return record if record["asked"] == asked and newer and complete else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _inspect(run: Path, folder: Path, asked: dict[str, Any]) -> dict[str, Any]:
    from focal_lab.tools.inspect.shares import choose_layers, inspect_network
    from focal_lab.tools.inspect.source import open_network
    from focal_lab.tools.inspect.write import write_inspection

    source = open_network(str(run), run.parent)
    layers = choose_layers(source.network, asked["block"], asked["head"])
    images = list(source.validation_images(asked["pictures"]))
    found = inspect_network(source, images, layers, draw=1, query=asked["query"], head=asked["head"])
    return write_inspection(source, found, layers, folder, brief=True, head=asked["head"], asked=asked)
