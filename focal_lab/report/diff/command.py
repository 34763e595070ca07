"""`focal-lab diff`: two runs side by side."""

import argparse
import math
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from focal_lab.command_line import CommandParser, add_out
from focal_lab.errors import UserError
from focal_lab.report.diff.compare import ComparedRun, common_curves, compare, read_run
from focal_lab.report.diff.text import diff_text
from focal_lab.report.formats.render import as_json
from focal_lab.sweep.housekeeping.inventory import find_runs
from focal_lab.sweep.run_folder.layout import CONFIG_FILE, FAILURE_FILE, RESULT_FILE

_EPILOG = """examples:
  focal-lab diff 0642 31a9                  two runs in runs/ by the beginnings of their IDs
  focal-lab diff runs/064205474a4d other/31a90999b437
  focal-lab diff 0642 31a9 --json           for programs"""


def main(argv: list[str]) -> int:
    """Print the differences of two runs; the exit status is 0 whether there are any or not.

    Raises:
        UserError: no such run, several with that beginning, or the same run twice.
    """
    options = _parser().parse_args(argv)
    folders = [_folder(name, options.out) for name in options.runs]
    if folders[0].resolve() == folders[1].resolve():
        raise UserError(f"{' and '.join(options.runs)} are the same run, {folders[0].name}")
    first, second = map(read_run, folders)
    if options.json:
        print(diff_json(first, second), end="")
        return 0
    terminal = sys.stdout.isatty()
    width = shutil.get_terminal_size((100, 24)).columns if terminal else None
    color = terminal and not os.environ.get("NO_COLOR")
    print(diff_text(first, second, width, color=color), end="", flush=True)
    return 0


def diff_json(first: ComparedRun, second: ComparedRun) -> str:
    """The differences as JSON: pairs are [first, second], unknown values are null."""
    names = dict.fromkeys([*first.metrics, *second.metrics])
    found: dict[str, Any] = {"runs": [{"run": run.run, **run.about} for run in (first, second)]}
    for section in ("configuration", "network", "environment", "tested_on"):
        different, same = compare(getattr(first, section), getattr(second, section))
        found[section] = {"different": different, "same": same}
    found["metrics"] = {name: _pair(first.metrics.get(name), second.metrics.get(name)) for name in names}
    found["curves"] = {
        name: [{"epoch": epoch, **_pair(one, other)} for epoch, one, other in points]
        for name, points in common_curves(first, second).items()
    }
    return as_json(_finite(found))


def _pair(one: float | None, other: float | None) -> dict[str, float | None]:
    difference = None if one is None or other is None else other - one
    return {"first": one, "second": other, "difference": difference}


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinity, which a configuration may have: they become strings."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _folder(name: str, out: Path) -> Path:
    """A run by its folder, its ID or the beginning of its ID."""
    path = Path(name)
    if any((path / file).exists() for file in (RESULT_FILE, FAILURE_FILE, CONFIG_FILE)):
        return path.resolve()
    if os.sep in name:
        raise UserError("is not a run's folder", file=name)
    (found,) = find_runs(out, [name])
    return found


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="focal-lab diff",
        description="Compare two runs: settings, network, metrics, curves and environment.",
        epilog=_EPILOG,
    )
    parser.add_argument("runs", nargs=2, metavar="RUN", help="run ID, the beginning of one, or folder")
    add_out(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser
