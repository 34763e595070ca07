"""Tables of text with aligned columns.

Not rich's: 10,000 rows of 8 columns take it 8 s, and this 0.1 s.
"""

import os
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest

_GAP = 2


@dataclass(frozen=True)
class TextColumn:
    """A column.

    Attributes:
        heading: wrapped at spaces if room is scarce.
        cells: one per row.
        right: align right, as for numbers.
        folds: whether cells may be wrapped at spaces, too.
        style: ANSI codes of a cell, such as "1;31"; used only with colour.
    """

    heading: str
    cells: Sequence[str]
    right: bool = False
    folds: bool = False
    style: Callable[[str], str] = lambda cell: ""


def terminal() -> tuple[int | None, bool]:
    """Width of standard output, and whether to use colour: no width for a pipe, unless COLUMNS is set."""
    shown = sys.stdout.isatty()
    width = shutil.get_terminal_size((120, 24)).columns if shown or "COLUMNS" in os.environ else None
    return width, shown and not os.environ.get("NO_COLOR")


def aligned(columns: Sequence[TextColumn], width: int | None, *, color: bool = False) -> str:
    """The columns side by side under their headings and a rule.

    Args:
        columns: all of equal length.
        width: columns of the terminal to wrap for; cells that cannot be wrapped may exceed it. None: do not
            wrap.
        color: use ANSI escape codes.
    """
    columns = [_clean(column) for column in columns]
    widths = _widths(columns, width)
    headings = [_fold(column.heading, room) for column, room in zip(columns, widths, strict=True)]
    # headings stand at the bottom of their lines
    upside_down = list(zip_longest(*(reversed(lines) for lines in headings), fillvalue=""))
    bold = ["1" if color else ""] * len(columns)
    text = [_line(line, widths, columns, bold) for line in reversed(upside_down)]
    text.append("─" * (sum(widths) + _GAP * (len(widths) - 1)))
    styles = [""] * len(columns)
    for row in zip(*(column.cells for column in columns), strict=True):
        if color:
            styles = [column.style(cell) for column, cell in zip(columns, row, strict=True)]
        folded = [
            _fold(cell, room) if column.folds else [cell]
            for column, cell, room in zip(columns, row, widths, strict=True)
        ]
        text += [_line(line, widths, columns, styles) for line in zip_longest(*folded, fillvalue="")]
    return "".join(f"{line}\n" for line in text)


def wide(text: str) -> int:
    """Terminal columns that a text takes."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def _clean(column: TextColumn) -> TextColumn:
    """Without line breaks and control characters, which would break the rows."""
    if all(cell.isprintable() for cell in column.cells):
        return column
    cells = ["".join(c if c.isprintable() else " " for c in cell) for cell in column.cells]
    return replace(column, cells=cells)


def _widths(columns: Sequence[TextColumn], room: int | None) -> list[int]:
    """Width of each column: first what cannot be wrapped, then cells, then headings as room allows."""
    least, cells, natural = [], [], []
    for column in columns:
        foldable = {column.heading, *column.cells} if column.folds else {column.heading}
        words = {word for text in foldable for word in text.split()}
        whole = set() if column.folds else set(column.cells)
        least.append(max(map(wide, words | whole), default=1))
        cells.append(max(map(wide, set(column.cells)), default=1))
        natural.append(max(cells[-1], wide(column.heading)))
    if room is None:
        return natural
    spare = room - sum(least) - _GAP * (len(columns) - 1)
    # wrapping a cell costs a line in its row, wrapping headings one line in all
    for wanted in (cells, natural):
        for index in range(len(columns)):
            extra = max(0, min(wanted[index] - least[index], spare))
            least[index] += extra
            spare -= extra
    return least


def _fold(text: str, room: int) -> list[str]:
    if wide(text) <= room:
        return [text]
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines[-1] else word
        if wide(longer) <= room or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def _line(
    cells: Sequence[str], widths: Sequence[int], columns: Sequence[TextColumn], styles: Sequence[str]
) -> str:
    parts = []
    for cell, room, column, style in zip(cells, widths, columns, styles, strict=True):
        space = " " * (room - wide(cell))
        shown = f"\033[{style}m{cell}\033[0m" if style and cell else cell
        parts.append(f"{space}{shown}" if column.right else f"{shown}{space}")
    return (" " * _GAP).join(parts).rstrip()
