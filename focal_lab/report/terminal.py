"""Grids and sentences for a terminal, through rich; as plain text for a pipe."""

import io
import textwrap
from collections.abc import Iterable, Sequence
from typing import Literal

from focal_lab.report.grid import Strip

# Wider than any table: what a pipe gets is never wrapped.
_UNLIMITED = 10_000
_NOTE_WIDTH = 100
_GAP = 2
_COLORS = {"failed": "bold red", "corrupt": "bold red", "missing": "yellow", "not reported": "yellow"}


def strips_text(strips: Sequence[Strip], width: int | None, *, color: bool) -> str:
    """The grid with aligned columns; labels are shown as they are, never as markup.

    Args:
        strips: the columns.
        width: fold headings, and words about runs, to fit this; numbers and labels are never broken, so a
            terminal that is too narrow for them gets longer lines. None: fold nothing.
        color: use ANSI escape codes.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    widths = _widths(strips, width or _UNLIMITED)
    for strip, columns in zip(strips, widths, strict=True):
        justify: Literal["left", "right"] = "left" if strip.kind in ("label", "state") else "right"
        grid.add_column(
            Text(strip.heading),
            justify=justify,
            style="dim" if strip.kind == "paper" else None,
            width=columns,
        )
    for cells in zip(*(strip.cells for strip in strips), strict=True):
        styled = zip(cells, strips, strict=True)
        grid.add_row(*(Text(cell, _style(cell, strip.kind)) for cell, strip in styled))
    stream = io.StringIO()
    # force_terminal both ways: FORCE_COLOR must not put escape codes into a file.
    console = Console(
        file=stream, width=sum(widths) + _GAP * len(strips), force_terminal=color, legacy_windows=False
    )
    console.print(grid)
    return "".join(f"{line.rstrip()}\n" for line in stream.getvalue().splitlines())


def _widths(strips: Sequence[Strip], room: int) -> list[int]:
    """Columns for each strip; rich would break numbers, or drop strips, when there is too little room."""
    from rich.cells import cell_len

    least, natural = [], []
    for strip in strips:
        breakable = (*strip.cells, strip.heading) if strip.kind == "state" else (strip.heading,)
        words = [word for text in breakable for word in text.split()]
        least.append(max(map(cell_len, [*words, *(strip.cells if strip.kind != "state" else ())]), default=1))
        natural.append(max(map(cell_len, [*strip.cells, strip.heading])))
    spare = room - sum(least) - _GAP * (len(strips) - 1)
    # Folding a cell costs a line in its row; folding headings costs one line in all.
    for index in sorted(range(len(strips)), key=lambda index: strips[index].kind != "state"):
        extra = max(0, min(natural[index] - least[index], spare))
        least[index] += extra
        spare -= extra
    return least


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


def _style(cell: str, kind: str) -> str:
    if kind not in ("measured", "state"):
        return ""
    return next((color for word, color in _COLORS.items() if word in cell), "")
