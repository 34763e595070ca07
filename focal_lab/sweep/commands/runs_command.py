"""`focal-lab runs`: lists, removes and retries the runs in a folder."""

import argparse
import json
import shutil
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

from focal_lab.command_line import CommandParser, add_out
from focal_lab.errors import UserError, known_names
from focal_lab.sweep.housekeeping.cleanup import Waste, find_waste, remove_run, remove_waste, untrained
from focal_lab.sweep.housekeeping.inventory import (
    RUNNING,
    Needs,
    RunEntry,
    find_runs,
    read_needs,
    take_inventory,
)
from focal_lab.sweep.run_folder.layout import CHECKPOINTS, FAILURE_FILE, is_running, kept_kinds, run_folders
from focal_lab.sweep.run_folder.outcome import State, read_outcome
from focal_lab.utils.text_table import TextColumn, aligned, terminal
from focal_lab.utils.units import age, many, size

SOME_KEPT = 1
_STYLES = {State.FAILED: "31", State.CORRUPT: "31", RUNNING: "32", State.MISSING: "33"}
_EPILOG = """actions (focal-lab runs ACTION --help for more):
  rm ID...     remove runs that no sweep needs; --force: also runs that are needed
  retry ID...  let the next sweep train failed runs again
  gc           remove runs that no sweep needs, and leftovers of killed processes
The beginning of an ID is enough. --failed instead of IDs means all failed runs.

examples:
  focal-lab runs --failed
  focal-lab runs rm 3f2a 81c0"""


def main(argv: list[str]) -> int:
    """List the runs of a folder with state, age, size and the sweeps that need them.

    Args:
        argv: what follows `focal-lab runs`.

    Returns:
        Exit status 0; 1 when gc could not remove something.

    Raises:
        UserError: there is no such run, or it is needed or being trained.
    """
    if argv and argv[0] in _ACTIONS:
        return _ACTIONS[argv[0]](argv[1:])
    parser = CommandParser(
        prog="focal-lab runs",
        usage="focal-lab runs [rm|retry|gc] [options]",
        description=str(main.__doc__).splitlines()[0],
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_out(parser)
    parser.add_argument("--failed", action="store_true", help="only failed runs, with their reasons")
    parser.add_argument("--sweep", metavar="NAME", help="only runs that this sweep needs")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    options = parser.parse_args(argv)
    needs = read_needs(_checked(options.out))
    for doubt in needs.doubts:
        print(f"focal-lab: {doubt}", file=sys.stderr)
    entries = take_inventory(options.out, needs)
    if options.sweep is not None:
        entries = _of_sweep(entries, options.sweep, needs, options.out)
    if options.failed:
        entries = [entry for entry in entries if entry.state == State.FAILED]
    if options.json:
        print(json.dumps([vars(entry) for entry in entries], indent=1))
    else:
        width, color = terminal()
        print(runs_text(entries, width, with_reasons=options.failed, color=color), end="")
    return 0


def runs_text(
    entries: Sequence[RunEntry], width: int | None, *, with_reasons: bool = False, color: bool = False
) -> str:
    """The runs under the sweeps that need them, and their totals.

    Args:
        width: fold cells and reasons to fit this; None: fold nothing.
        with_reasons: why there is no result, in place of state and size.
        color: use ANSI escape codes.
    """
    groups: dict[tuple[str, ...], list[RunEntry]] = defaultdict(list)
    for entry in sorted(entries, key=_place):
        groups[entry.sweeps].append(entry)
    parts = []
    for sweeps in sorted(groups, key=lambda sweeps: (not sweeps, sweeps)):
        heading = f"Needed by {' and '.join(sweeps)}" if sweeps else "Needed by no sweep"
        columns = _columns(groups[sweeps], with_reasons=with_reasons)
        parts.append(f"{heading}\n{aligned(columns, width, color=color)}\n")
    return "".join([*parts, _total(entries), "\n"])


def _columns(entries: Sequence[RunEntry], *, with_reasons: bool) -> list[TextColumn]:
    run = TextColumn("Run", [entry.run for entry in entries])
    state = TextColumn("State", [entry.state for entry in entries], style=lambda cell: _STYLES.get(cell, ""))
    which = [
        TextColumn("Task", [entry.task or "" for entry in entries]),
        TextColumn("Cell", [", ".join(entry.labels.values()) for entry in entries], folds=True),
        TextColumn("Seed", ["" if entry.seed is None else str(entry.seed) for entry in entries], right=True),
        TextColumn("Age", [age(entry.age) for entry in entries], right=True),
    ]
    if with_reasons:
        return [run, *which, TextColumn("Reason", [entry.reason or "" for entry in entries], folds=True)]
    return [run, state, *which, TextColumn("Size", [size(entry.size) for entry in entries], right=True)]


def _place(entry: RunEntry) -> tuple[str, tuple[str, ...], int, str]:
    """Seeds of a cell together."""
    return entry.task or "", tuple(entry.labels.values()), entry.seed or 0, entry.run


def _total(entries: Sequence[RunEntry]) -> str:
    counts = Counter(entry.state for entry in entries)
    states = ", ".join(f"{counts[state]} {state}" for state in [RUNNING, *State] if counts[state])
    return f"{many(len(entries), 'run')}{states and f': {states}'}, {size(sum(e.size for e in entries))}"


def _of_sweep(entries: Sequence[RunEntry], sweep: str, needs: Needs, out: Path) -> list[RunEntry]:
    known = sorted({name for names in needs.sweeps.values() for name in names})
    if sweep not in known:
        hint = known_names(sweep, known) or " (no sweep was run there)"
        raise UserError(f"{sweep!r} is not a sweep in {out}{hint}", key="--sweep")
    return [entry for entry in entries if sweep in entry.sweeps]


def _remove(argv: list[str]) -> int:
    parser = _action_parser("rm", "Remove runs: results, checkpoints and logs.")
    parser.add_argument("--force", action="store_true", help="also remove runs that a sweep needs")
    options = parser.parse_args(argv)
    needs, folders = read_needs(_checked(options.out)), _chosen(options)
    for folder in folders:
        if is_running(folder):
            raise UserError(f"{folder.name} is being trained; stop the sweep first")
        if folder.name in needs.sweeps and not options.force:
            raise UserError(
                f"{folder.name} is needed by the sweep {' and '.join(needs.sweeps[folder.name])} "
                "(use --force; the sweep then trains it again)"
            )
    if needs.doubts and not options.force:
        raise UserError(
            f"{needs.doubts[0]} (until then, it is unknown which runs it needs; --force removes them anyway)"
        )
    freed = sum(remove_run(folder) for folder in folders)
    print(f"removed {many(len(folders), 'run')}, {size(freed)}")
    return 0


def _retry(argv: list[str]) -> int:
    parser = _action_parser("retry", "Let the next focal-lab sweep train failed runs again.")
    parser.add_argument("--from-scratch", action="store_true", help="also remove their checkpoints")
    options = parser.parse_args(argv)
    _checked(options.out)
    folders = _chosen(options)
    for folder in folders:
        state = read_outcome(folder).state
        if is_running(folder) or state is State.FINISHED:
            what = "is being trained" if is_running(folder) else "is finished; remove it to train it again"
            raise UserError(f"{folder.name} {what}")
    for folder in folders:
        with untrained(folder):
            if options.from_scratch and (folder / CHECKPOINTS).exists():
                shutil.rmtree(folder / CHECKPOINTS)
            (folder / FAILURE_FILE).unlink(missing_ok=True)
    print(f"{many(len(folders), 'run')} will be trained again by the next focal-lab sweep")
    return 0


def _collect(argv: list[str]) -> int:
    parser = CommandParser(
        prog="focal-lab runs gc",
        description="Remove runs that no sweep in its last form needs, damaged files that were set "
        "aside, and leftovers of killed processes.",
    )
    add_out(parser)
    parser.add_argument("--dry-run", action="store_true", help="only print what would be removed")
    parser.add_argument(
        "--keep",
        type=kept_kinds,
        metavar="WHICH",
        help="of finished runs keep only these checkpoints: best, last, best,last or none; the best one "
        "is always kept while other runs start from it",
    )
    options = parser.parse_args(argv)
    needs = read_needs(_checked(options.out))
    if needs.doubts:
        raise UserError(f"{needs.doubts[0]} (until then, it is unknown which runs it needs)")
    waste = find_waste(options.out, needs, options.keep)
    if options.dry_run:
        print("".join(f"{path}\n" for path in waste.paths), end="")
        print(f"would remove {_counts(waste, waste.size)}")
        return 0
    removed, freed, kept = remove_waste(waste)
    for why in kept:
        print(f"focal-lab: kept: {why}", file=sys.stderr)
    print(f"removed {_counts(removed, freed)}")
    return SOME_KEPT if kept else 0


def _counts(waste: Waste, count: int) -> str:
    parts = [many(len(waste.runs), "run"), many(len(waste.files), "leftover file")]
    if waste.checkpoints:
        parts.append(many(len(waste.checkpoints), "checkpoint"))
    return f"{', '.join(parts[:-1])} and {parts[-1]}, {size(count)}"


_ACTIONS: dict[str, Callable[[list[str]], int]] = {"rm": _remove, "retry": _retry, "gc": _collect}


def _chosen(options: argparse.Namespace) -> list[Path]:
    if bool(options.runs) == options.failed:
        raise UserError("name runs, or use --failed")
    if options.failed:
        failed = (f for f in run_folders(options.out) if read_outcome(f).state is State.FAILED)
        return sorted(folder for folder in failed if not is_running(folder))  # those are tried again
    return find_runs(options.out, options.runs)


def _action_parser(name: str, description: str) -> argparse.ArgumentParser:
    parser = CommandParser(prog=f"focal-lab runs {name}", description=description)
    parser.add_argument("runs", nargs="*", metavar="ID", help="run ID, or the beginning of one")
    parser.add_argument("--failed", action="store_true", help="all failed runs")
    add_out(parser)
    return parser


def _checked(out: Path) -> Path:
    if not out.is_dir():
        raise UserError(f"{out} {'is not a folder' if out.exists() else 'does not exist'}", key="--out")
    return out
