"""Grids and sentences for a terminal; as plain text for a pipe."""

import os
import textwrap
from collections.abc import Callable, Iterable, Sequence

from focal_lab.report.formats.grid import WORDS, Strip
from focal_lab.utils.text_table import TextColumn, aligned

_NOTE_WIDTH = 100
_RED, _YELLOW, _DIM, _GREEN = "1;31", "33", "2", "32"
_COLORS = {"failed": _RED, "corrupt": _RED, "missing": _YELLOW, "not reported": _YELLOW}
_VERDICTS = {"better": _GREEN, "supported": _GREEN, "worse": _RED, "contradicted": _RED}


def strips_text(strips: Sequence[Strip], width: int | None, *, color: bool) -> str:
    """The grid with aligned columns.

    Args:
        strips: the columns.
        width: fold headings, and words about runs, to fit this; numbers and labels are never broken, so a
            terminal that is too narrow for them gets longer lines. None: fold nothing.
        color: use ANSI escape codes.
    """
    columns = [
        TextColumn(
            strip.heading,
            strip.cells,
            right=strip.kind not in WORDS,
            folds=strip.kind == "state",
            style=_style_of(strip.kind),
        )
        for strip in strips
    ]
    return aligned(columns, width, color=color and not os.environ.get("NO_COLOR"))


def heading_text(title: str, subtitle: str | None, width: int | None, *, color: bool) -> str:
    """A title, a subtitle and an empty line."""
    lines = textwrap.wrap(title, width or _NOTE_WIDTH)
    if color:
        lines = [f"\033[1m{line}\033[0m" for line in lines]
    return "\n".join([*lines, *textwrap.wrap(subtitle or "", width or _NOTE_WIDTH), "", ""])


def note_text(notes: Iterable[str], width: int | None) -> str:
    """Footnotes as a list under an empty line; nothing when there are none."""
    lines = [
        textwrap.fill(
            " ".join(note.split()), width or _NOTE_WIDTH, initial_indent="- ", subsequent_indent="  "
        )
        for note in notes
    ]
    return "\n".join(["", *lines, ""]) if lines else ""


def _style_of(kind: str) -> Callable[[str], str]:
    if kind == "paper":
        return lambda cell: _DIM
    if kind == "verdict":
        return lambda cell: _VERDICTS.get(cell, "")
    if kind not in ("measured", "state"):
        return lambda cell: ""
    return lambda cell: next((color for word, color in _COLORS.items() if word in cell), "")
