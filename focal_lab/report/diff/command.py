"""`focal-lab diff`: two runs side by side."""

import argparse
import json
import math
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from focal_lab.command_line import CommandParser, add_out
from focal_lab.errors import UserError
from focal_lab.report.diff.compare import Section, Side, compare, curve_pairs, read_side
from focal_lab.report.diff.text import diff_text
from focal_lab.sweep.housekeeping.inventory import find_runs
from focal_lab.sweep.run_folder.result import CONFIG_FILE, FAILURE_FILE, RESULT_FILE

_EPILOG = """examples:
  focal-lab diff 0642 31a9                  two runs of runs/ by the beginnings of their ids
  focal-lab diff runs/064205474a4d other/31a90999b437
  focal-lab diff 0642 31a9 --json           for programs"""
# For an output that knows ASCII only.
_ASCII = str.maketrans("─±…−▁▂▃▄▅▆▇█", "-+.-_.:-=+*#")  # noqa: RUF001


def main(argv: list[str]) -> int:
    """Print what two runs differ in; the exit status, 0 whether they do or not.

    Args:
        argv: what follows `focal-lab diff`.

    Raises:
        UserError: no such run, several of that name, or twice the same.
    """
    options = _parser().parse_args(argv)
    folders = [_folder(name, options.out) for name in options.runs]
    if folders[0].resolve() == folders[1].resolve():
        raise UserError(f"{' and '.join(options.runs)} are the same run, {folders[0].name}")
    first, second = map(read_side, folders)
    if options.json:
        print(diff_json(first, second))
        return 0
    terminal = sys.stdout.isatty()
    width = shutil.get_terminal_size((100, 24)).columns if terminal else None
    color = terminal and not os.environ.get("NO_COLOR")
    text = diff_text(first, second, width, color=color)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = text.translate(_ASCII).encode(sys.stdout.encoding, "replace").decode(sys.stdout.encoding)
    print(text, end="", flush=True)
    return 0


def diff_json(first: Side, second: Side) -> str:
    """The same for programs: pairs are [first, second], unknown is null."""
    sections: dict[str, Callable[[Side], Any]] = {
        "configuration": lambda side: side.config,
        "network": lambda side: side.network,
        "environment": lambda side: side.environment,
    }
    names = dict.fromkeys([*first.metrics, *second.metrics])
    metrics = {name: _pair(first.metrics.get(name), second.metrics.get(name)) for name in names}
    curves = {
        pair.name: [
            {"epoch": epoch, **_pair(one, other)}
            for epoch, one, other in zip(pair.epochs, pair.first, pair.second, strict=True)
        ]
        for pair in curve_pairs(first, second)
    }
    known = {
        "runs": [_about(side) for side in (first, second)],
        **{name: _section(compare(of(first), of(second))) for name, of in sections.items()},
        "tested_on": _section(compare(first.tested_on, second.tested_on)),
        "metrics": metrics,
        "curves": curves,
    }
    return json.dumps(_finite(known), indent=2, ensure_ascii=False, allow_nan=False)


def _about(side: Side) -> dict[str, Any]:
    names = ["run", "state", "task", "seed", "sweeps", "labels", "reason", "last_line", "started", "finished"]
    return {name: getattr(side, name) for name in names}


def _section(section: Section) -> dict[str, Any]:
    return {"different": section.different, "same": section.same}


def _pair(one: float | None, other: float | None) -> dict[str, float | None]:
    difference = None if one is None or other is None else other - one
    return {"first": one, "second": other, "difference": difference}


def _finite(value: Any) -> Any:
    """JSON has no infinity: a string."""
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _folder(name: str, out: Path) -> Path:
    """A run by its folder, id or the beginning of its id."""
    path = Path(name)
    if any((path / file).exists() for file in (RESULT_FILE, FAILURE_FILE, CONFIG_FILE)):
        return path.resolve()
    if os.sep in name:
        raise UserError("is not a folder of a run", file=name)
    (found,) = find_runs(out, [name])
    return found


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="focal-lab diff",
        description="Two runs: what was configured differently, and what came of it.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", nargs=2, metavar="RUN", help="id, its beginning, or folder")
    add_out(parser)
    parser.add_argument("--json", action="store_true", help="for programs")
    return parser
