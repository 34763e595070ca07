"""Tables of text with aligned columns; ten thousand rows take no longer than it takes to read the first."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

_GAP = 2


@dataclass(frozen=True)
class TextColumn:
    """A column.

    Attributes:
        heading: folded at its spaces where room is scarce.
        cells: one a row.
        right: whether to align at the right, as numbers are.
        folds: whether cells may be folded at their spaces; others are never broken.
        style: ANSI codes of a cell, such as "1;31"; used only where colour is wanted.
    """

    heading: str
    cells: Sequence[str]
    right: bool = False
    folds: bool = False
    style: Callable[[str], str] = lambda cell: ""


def aligned(columns: Sequence[TextColumn], width: int | None, *, color: bool = False) -> str:
    """The columns side by side under their headings and a rule.

    Args:
        columns: all of equal length.
        width: what to fold for; where the unbreakable is wider, lines are longer. None: fold nothing.
        color: use ANSI escape codes.
    """
    columns = [_clean(column) for column in columns]
    widths = _widths(columns, width)
    rule = "─" * (sum(widths) + _GAP * (len(widths) - 1))
    headings = [_fold(column.heading, room) for column, room in zip(columns, widths, strict=True)]
    deepest = max(map(len, headings), default=0)
    raised = [[""] * (deepest - len(lines)) + lines for lines in headings]
    bold = ["1" if color else ""] * len(columns)
    rights = [column.right for column in columns]
    text = [_line(line, widths, rights, bold) for line in zip(*raised, strict=True)]
    text.append(rule)
    none = [""] * len(columns)
    for row in zip(*(column.cells for column in columns), strict=True):
        styles = [column.style(cell) for column, cell in zip(columns, row, strict=True)] if color else none
        tall = any(
            column.folds and wide(cell) > room
            for column, cell, room in zip(columns, row, widths, strict=True)
        )
        if not tall:
            text.append(_line(row, widths, rights, styles))
            continue
        folded = [
            _fold(cell, room) if column.folds else [cell]
            for column, cell, room in zip(columns, row, widths, strict=True)
        ]
        depth = max(map(len, folded))
        filled = [lines + [""] * (depth - len(lines)) for lines in folded]
        text += [_line(line, widths, rights, styles) for line in zip(*filled, strict=True)]
    return "".join(f"{line}\n" for line in text)


def wide(text: str) -> int:
    """Columns that a text takes on a terminal."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def _clean(column: TextColumn) -> TextColumn:
    """Without line breaks and control characters, which would break the rows."""
    if all(cell.isprintable() for cell in column.cells):
        return column
    cells = ["".join(c if c.isprintable() else " " for c in cell) for cell in column.cells]
    return TextColumn(column.heading, cells, column.right, column.folds, column.style)


def _widths(columns: Sequence[TextColumn], room: int | None) -> list[int]:
    """Room for each column: what cannot be folded, then the rest for those that fold."""
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
    # Folding a cell costs a line in its row; folding headings costs one line in all.
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


def _line(cells: Sequence[str], widths: Sequence[int], rights: Sequence[bool], styles: Sequence[str]) -> str:
    parts = []
    for cell, room, right, style in zip(cells, widths, rights, styles, strict=True):
        space = " " * (room - wide(cell))
        shown = f"\033[{style}m{cell}\033[0m" if style and cell else cell
        parts.append(f"{space}{shown}" if right else f"{shown}{space}")
    return (" " * _GAP).join(parts).rstrip()
