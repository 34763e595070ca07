r"""Tables for papers: LaTeX with booktabs, rows and columns grouped as in the paper.

It compiles after \usepackage{booktabs,graphicx}; a table wider than the text is scaled down.
"""

import re
from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from focal_lab.report.formats.grid import METRIC, WORDS, Strip, long_grid, table_grid, table_sections
from focal_lab.report.table.notes import long_notes
from focal_lab.report.table.records import Table

if TYPE_CHECKING:
    import pandas as pd

# Every character that is special to LaTeX, and those of ours that its default fonts lack.
_ESCAPES = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "±": r"$\pm$",
    "[": "{[}",  # after a line break it would be an option
    "]": "{]}",
    "–": "--",  # noqa: RUF001
    "—": "---",
    "…": r"\ldots{}",
    "\0": "{}",
    "×": r"$\times$",  # noqa: RUF001
    "≥": r"$\geq$",
    "≤": r"$\leq$",
} | {character: f"\\{character}" for character in "#$%&_"}
# Pairs that TeX prints as one letter: --out would become a dash and "out".
_JOINED = re.compile(r"(?<=([-`',]))(?=\1)|(?<=[?!])(?=`)")
_RAISED = re.compile(r"\\textasciicircum\{\}([bm])(?:\\_(\w+))?\b")
# LaTeX knows what it measured as \width
_FITTED = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"
_MINUS = re.compile(r"(?<![^\s])-(?=\d)")


def table_latex(table: Table) -> str:
    """The table, its comparisons and its notes as one `table` environment.

    Rows are separated where the first factor changes; columns are grouped by task.
    """
    parts = [_tabular(table_grid(table), group_rows=len(table.factors) > 1)]
    for section in table_sections(table):
        parts.append(f"{_heading(section.heading)}\n\n\\smallskip\n{_tabular(section.strips)}")
    return _environment([f"{table.full_title}.", *table.notes], table.name, parts)


def long_latex(runs: "pd.DataFrame") -> str:
    """The main columns of the long table, all rows."""
    return _environment(["All runs.", *long_notes(runs)], "runs", [_tabular(long_grid(runs))])


def latex(text: str) -> str:
    """Text with special characters escaped; what LaTeX's fonts lack becomes a question mark."""
    text = _JOINED.sub("\0", " ".join(text.split()))
    return "".join(_ESCAPES.get(c, c if c.isascii() or c in "äöüÄÖÜßéèáàç" else "?") for c in text)


def _environment(sentences: Sequence[str], name: str, parts: Sequence[str]) -> str:
    label = "".join(c for c in name if c.isascii() and (c.isalnum() or c in "-_")).replace("_", "-")
    body = "\n\n\\medskip\n".join(parts)
    caption = _heading(" ".join(sentences))
    return (
        "% \\usepackage{booktabs,graphicx}\n\\begin{table}\n\\centering\n\\small\n"
        f"{body}\n\\caption{{{caption}}}\n\\label{{tab:{label}}}\n\\end{{table}}\n"
    )


def _tabular(strips: Sequence[Strip], *, group_rows: bool = False) -> str:
    """A `tabular`, with the tasks as a first line of headings if there are several.

    `group_rows`: print a label of the first column once, and draw a line where it changes.
    """
    columns = "".join("l" if strip.kind in WORDS else "r" for strip in strips)
    lines = [f"\\begin{{tabular}}{{{columns}}}", "\\toprule"]
    if len({strip.task for strip in strips} - {None}) > 1:
        lines += _task_lines(strips)
    lines += [" & ".join(_heading(strip.heading) for strip in strips) + r" \\", "\\midrule"]
    before = None
    for cells in zip(*(strip.cells for strip in strips), strict=True):
        first, *rest = [_cell(cell, strip) for cell, strip in zip(cells, strips, strict=True)]
        if group_rows and before is not None and cells[0] != before:
            lines.append("\\midrule")
        shown = "" if group_rows and cells[0] == before else first
        before = cells[0]
        lines.append(" & ".join([shown, *rest]) + r" \\")
    return "\n".join([_FITTED, *lines, "\\bottomrule", "\\end{tabular}}"])


def _task_lines(strips: Sequence[Strip]) -> list[str]:
    cells, rules, place = [], [], 1
    for task, members in groupby(strips, key=lambda strip: strip.task):
        width = len(list(members))
        if task:
            cells.append(f"\\multicolumn{{{width}}}{{c}}{{{task.capitalize()}}}")
            rules.append(f"\\cmidrule(lr){{{place}-{place + width - 1}}}")
        else:
            cells.append(" & ".join([""] * width))
        place += width
    return [" & ".join(cells) + r" \\", "".join(rules)]


def _cell(text: str, strip: Strip) -> str:
    """Escaped; with a minus instead of a hyphen before numbers, and metrics' names as headings."""
    if strip.heading == METRIC:
        return _heading(text)
    return latex(text) if strip.kind in WORDS else _MINUS.sub(r"$-$", latex(text))


def _heading(text: str) -> str:
    """Escaped, with the paper's superscripts and subscripts: AP^b_50."""
    return _RAISED.sub(
        lambda found: f"$^{found[1]}$" + (f"$_{{{found[2]}}}$" if found[2] else ""), latex(text)
    )
