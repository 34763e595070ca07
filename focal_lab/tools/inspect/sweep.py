"""`focal-lab inspect --sweep`: inspect a finished run of each cell, for the sweep's page."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from focal_lab.command_line import command
from focal_lab.errors import UserError
from focal_lab.report.html.attention_images import INSPECT, INSPECT_FILE
from focal_lab.sweep.plan.plan import with_proposals
from focal_lab.sweep.plan.recall import recall_plan
from focal_lab.sweep.run_folder.outcome import State, read_outcome
from focal_lab.sweep.spec.sweep_file import find_sweep


def inspect_sweep(options: argparse.Namespace, num_images: int) -> int:
    """Inspect the first finished run of each cell, of the sweep's first task; returns the exit status.

    A cell whose network is not focal, or lacks a requested block, is reported on stderr and skipped; the
    status is then 1.

    Raises:
        UserError: there is no such sweep, or none of its cells has a finished run.
    """
    out: Path = options.out
    if not out.is_dir():
        raise UserError(f"{out} {'is not a folder' if out.exists() else 'does not exist'}", key="--out")
    suite, seeds, tasks = options.suite, options.seeds, options.tasks
    sweep = find_sweep(options.sweep)
    plan = recall_plan(sweep, out, suite=suite, seeds=seeds, overrides=options.set, tasks=tasks)
    plan = with_proposals(plan, out)
    cells, finished = set(), {}
    for run in plan.runs:
        name = ", ".join(run.cell.labels.values())
        cells.add(name)
        if name not in finished and read_outcome(out / run.id).state is State.FINISHED:
            finished[name] = run.id
    if not finished:
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
    records: dict[str, dict[str, Any]] = {}
    failed = False
    for name, run_id in finished.items():
        folder = out / INSPECT / run_id
        if run_id in records:  # cells with the same network share their runs
            continue
        known = None if options.force else _read_record(folder, asked)
        try:
            records[run_id] = known or _inspect(out / run_id, folder, asked)
        except UserError as error:
            print(f"focal-lab: {name}: {error}", file=sys.stderr)
            failed = True
            continue
        if not options.json:
            print(f"{name}: {folder}{' (inspected before)' if known else ''}", flush=True)
    if options.json:
        print(json.dumps(list(records.values()), indent=1))
        return int(failed)
    if len(finished) < len(cells):
        print(f"{len(cells) - len(finished)} cell(s) have no finished run yet", file=sys.stderr)
    if records:
        print(f"{command('report', options.sweep, *plan.options, '--out', out, '--open')} shows them")
    return int(failed)


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
    from focal_lab.tools.inspect.source import evaluation_images, network_of, open_network
    from focal_lab.tools.inspect.write import write_inspection

    trained, head = open_network(str(run), run.parent), asked["head"]
    layers = choose_layers(network_of(trained), asked["block"], head)
    images = evaluation_images(trained, asked["pictures"])
    found = inspect_network(trained, images, layers, draw=1, query=asked["query"], head=head)
    return write_inspection(trained, found, folder, brief=True, head=head, asked=asked)
