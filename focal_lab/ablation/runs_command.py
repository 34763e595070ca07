"""`focal-lab runs`: lists the runs of a folder, removes them, has them tried again."""

import argparse
import json
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from focal_lab.ablation.clearing import prune_finished, remains, remove_remains, remove_run, unneeded
from focal_lab.ablation.inventory import Entry, find_runs, is_running, read_needs, size_of, take_inventory
from focal_lab.ablation.keep import parse_keep
from focal_lab.ablation.outcomes import State, read_outcome, run_folders
from focal_lab.ablation.result import FAILURE_FILE
from focal_lab.errors import UserError, one_of

_EPILOG = """actions (focal-lab runs ACTION --help tells more):
  rm ID...     remove runs that no sweep needs; --force: needed ones, too
  retry ID...  forget why they failed: the next sweep trains them again
  gc           remove runs that no sweep needs, and what dead processes left
An id may be cut short. --failed instead of ids means all failed runs."""


def runs_command(argv: list[str]) -> int:
    """List the runs of a folder with state, age, size and the sweeps that need them.

    Args:
        argv: what follows `focal-lab runs`.

    Returns:
        Exit status 0.

    Raises:
        UserError: there is no such run, or it is needed or being trained.
    """
    if argv and argv[0] in _ACTIONS:
        return _ACTIONS[argv[0]](argv[1:])
    parser = argparse.ArgumentParser(
        prog="focal-lab runs",
        usage="focal-lab runs [rm|retry|gc] [options]",
        description=str(runs_command.__doc__).splitlines()[0],
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_out(parser)
    parser.add_argument("--failed", action="store_true", help="only failed runs, with their reasons")
    parser.add_argument("--sweep", metavar="NAME", help="only runs that this sweep needs")
    parser.add_argument("--json", action="store_true", help="everything, for programs")
    options = parser.parse_args(argv)
    needs = read_needs(_checked(options.out))
    entries = take_inventory(options.out, needs)
    if options.sweep is not None:
        known = sorted({name for names in needs.sweeps.values() for name in names})
        if options.sweep not in known:
            raise UserError(
                f"{options.sweep!r} is no sweep in {options.out} (use {one_of(known)})", key="--sweep"
            )
        entries = [entry for entry in entries if options.sweep in entry.sweeps]
    if options.failed:
        entries = [entry for entry in entries if entry.state == State.FAILED]
    if options.json:
        print(json.dumps([asdict(entry) for entry in entries], indent=1))
    else:
        _print(entries, with_reasons=options.failed)
    return 0


def _remove(argv: list[str]) -> int:
    parser = _action_parser("rm", "Remove runs: results, checkpoints and logs.")
    parser.add_argument("--force", action="store_true", help="also runs that a sweep needs")
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
    freed = sum(remove_run(folder) for folder in folders)
    print(f"removed {_runs(len(folders))}, {size(freed)}")
    return 0


def _retry(argv: list[str]) -> int:
    parser = _action_parser("retry", "Forget why runs failed: the next focal-lab sweep trains them again.")
    parser.add_argument("--from-scratch", action="store_true", help="forget their checkpoints, too")
    options = parser.parse_args(argv)
    _checked(options.out)
    folders = _chosen(options)
    for folder in folders:
        state = read_outcome(folder).state
        if is_running(folder) or state is State.FINISHED:
            what = "is being trained" if is_running(folder) else "has its result; remove it to train it again"
            raise UserError(f"{folder.name} {what}")
    for folder in folders:
        if options.from_scratch:
            shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        (folder / FAILURE_FILE).unlink(missing_ok=True)
    print(f"{_runs(len(folders))} will be trained again by the next focal-lab sweep")
    return 0


def _collect(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="focal-lab runs gc",
        description="Remove runs that no sweep needs as it was run last, damaged files that were set "
        "aside, and what dead processes left.",
    )
    _add_out(parser)
    parser.add_argument("--dry-run", action="store_true", help="only say what would be removed")
    parser.add_argument(
        "--keep",
        metavar="WHICH",
        help="of finished runs keep only these checkpoints: best, last, best,last, none",
    )
    options = parser.parse_args(argv)
    keep = None if options.keep is None else parse_keep(options.keep)
    out, needs = _checked(options.out), read_needs(options.out)
    useless, left = unneeded(out, needs), list(remains(out))
    if options.dry_run:
        for path in [*useless, *left]:
            print(path)
        freed = sum(size_of(path) if path.is_dir() else path.stat().st_size for path in [*useless, *left])
        print(f"would remove {_runs(len(useless))} and {_files(len(left))}, {size(freed)}")
        return 0
    freed = sum(remove_remains(path) for path in left) + sum(remove_run(folder) for folder in useless)
    pruned = 0 if keep is None else prune_finished(out, keep, needs)
    checkpoints = f", and {size(pruned)} of checkpoints" if keep is not None else ""
    print(f"removed {_runs(len(useless))} and {_files(len(left))}, {size(freed)}{checkpoints}")
    return 0


_ACTIONS: dict[str, Callable[[list[str]], int]] = {"rm": _remove, "retry": _retry, "gc": _collect}


def size(count: float) -> str:
    """`12.3 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def age(seconds: float) -> str:
    """`3 h`: one number is enough."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def _print(entries: Sequence[Entry], *, with_reasons: bool) -> None:
    table = Table(box=None, pad_edge=False)
    for heading in ("Run", "State", "Task", "Cell", "Seed"):
        table.add_column(heading, no_wrap=heading in ("Run", "State"))
    for heading in ("Age", "Size"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("Reason" if with_reasons else "Needed by", overflow="fold")
    for entry in entries:
        table.add_row(
            entry.run,
            entry.state,
            entry.task or "",
            Text(", ".join(entry.labels.values())),
            "" if entry.seed is None else str(entry.seed),
            age(entry.age),
            size(entry.size),
            Text((entry.reason or "") if with_reasons else ", ".join(entry.sweeps)),
        )
    width = None if sys.stdout.isatty() else 160
    console = Console(highlight=False, width=width)
    console.print(table)
    states: dict[str, int] = {}
    for entry in entries:
        states[entry.state] = states.get(entry.state, 0) + 1
    counted = ", ".join(f"{number} {state}" for state, number in states.items())
    total = size(sum(entry.size for entry in entries))
    console.print(Text(f"{_runs(len(entries))}{': ' + counted if counted else ''}, {total}"))


def _chosen(options: argparse.Namespace) -> list[Path]:
    if bool(options.runs) == options.failed:
        raise UserError("name runs, or say --failed")
    if options.failed:
        return sorted(f for f in run_folders(options.out) if read_outcome(f).state is State.FAILED)
    return find_runs(options.out, list(dict.fromkeys(options.runs)))


def _action_parser(name: str, description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"focal-lab runs {name}", description=description)
    parser.add_argument("runs", nargs="*", metavar="ID", help="a run's id, or its beginning")
    parser.add_argument("--failed", action="store_true", help="all failed runs")
    _add_out(parser)
    return parser


def _add_out(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, default=Path("runs"), help="folder of the runs (default: runs)")


def _checked(out: Path) -> Path:
    if not out.is_dir():
        raise UserError(f"{out} {'is not a folder' if out.exists() else 'does not exist'}", key="--out")
    return out


def _runs(count: int) -> str:
    return f"{count} {'run' if count == 1 else 'runs'}"


def _files(count: int) -> str:
    return f"{count} left-over {'file' if count == 1 else 'files'}"
