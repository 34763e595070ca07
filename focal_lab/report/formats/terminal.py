"""Grids and notes for a terminal, or as plain text for a pipe."""

import os
import textwrap
from collections.abc import Iterable, Sequence
from functools import partial

from focal_lab.report.formats.grid import WORDS, Strip, tone
from focal_lab.utils.text_table import TextColumn, aligned

_NOTE_WIDTH = 100
_DIM = "2"
_COLORS = {"bad": "31", "warn": "33", "good": "32"}


def strips_text(strips: Sequence[Strip], width: int | None, *, color: bool) -> str:
    """The grid with aligned columns; `color` is ignored if NO_COLOR is set.

    Headings and descriptions of runs are wrapped to fit `width`. Numbers and labels are not, so lines may
    still be longer. None: wrap nothing.
    """
    columns = [
        TextColumn(
            strip.heading,
            strip.cells,
            right=strip.kind not in WORDS,
            folds=strip.kind == "state",
            style=partial(_style, strip.kind),
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
    """Footnotes as a list below an empty line; empty without notes."""
    wrap = partial(textwrap.fill, width=width or _NOTE_WIDTH, initial_indent="- ", subsequent_indent="  ")
    lines = [wrap(" ".join(note.split())) for note in notes]
    return "\n".join(["", *lines, ""]) if lines else ""


def _style(kind: str, cell: str) -> str:
    if kind == "label":
        return ""
    return _DIM if kind == "paper" else colour(cell)


def colour(cell: str) -> str:
    """The ANSI code of a verdict or a state; empty for other texts."""
    return _COLORS.get(tone(cell)[0], "")
