r"""Tables for papers: LaTeX with booktabs, rows and columns grouped as in the paper.

What is written compiles after \usepackage{booktabs,graphicx}; what is wider than the text is made smaller.
"""

import re
from collections.abc import Sequence
from itertools import groupby

from focal_lab.report.formats.grid import METRIC, WORDS, Section, Strip, long_grid, table_grid, table_sections
from focal_lab.report.table.long_table import LongRow
from focal_lab.report.table.model import Table
from focal_lab.report.table.notes import long_notes
from focal_lab.sweep.spec.columns import COLUMNS

# Every character that means something to LaTeX, and those of ours that its first fonts lack.
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
# Two of these would be printed as one letter: --out as a dash and "out".
_JOINED = re.compile(r"(?<=([-`',]))(?=\1)|(?<=[?!])(?=`)")
_HEADINGS = {"AP^b": r"AP$^b$", "AP^m": r"AP$^m$"}
# LaTeX knows what it measured as \width
_FITTED = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"
_MINUS = re.compile(r"(?<![^\s])-(?=\d)")
_TASKS = {"classification": "Classification", "detection": "Detection", "segmentation": "Segmentation"}


def table_latex(table: Table) -> str:
    """The table, its comparisons and its notes as one `table` environment.

    Rows are separated where the first factor changes; columns stand under their task.
    """
    caption = f"{table.title}." if not table.cite else f"{table.title} (the paper's {table.cite})."
    parts = [_tabular(table_grid(table), _groups(table), group_rows=len(table.factors) > 1)]
    parts += [_section(section) for section in table_sections(table)]
    return _environment(f"{caption} {' '.join(table.notes)}", table.name, parts)


def long_latex(rows: Sequence[LongRow], labels: Sequence[str] = ()) -> str:
    """The main columns of the long table, all rows."""
    tabular = _tabular(long_grid(rows, labels), {}, group_rows=False)
    return _environment(" ".join(["All runs.", *long_notes(rows)]), "runs", [tabular])


def latex(text: str) -> str:
    """Any text as LaTeX shows it; what its fonts lack becomes a question mark."""
    text = _JOINED.sub("\0", " ".join(text.split()))
    return "".join(_ESCAPES.get(c, c if c.isascii() or c in "äöüÄÖÜßéèáàç" else "?") for c in text)


def _environment(caption: str, name: str, parts: Sequence[str]) -> str:
    label = "".join(c for c in name if c.isascii() and (c.isalnum() or c in "-_")).replace("_", "-")
    body = "\n\n\\medskip\n".join(parts)
    caption = latex(caption)
    for ours, theirs in _HEADINGS.items():
        caption = caption.replace(latex(ours), theirs)
    return (
        "% \\usepackage{booktabs,graphicx}\n\\begin{table}\n\\centering\n\\small\n"
        f"{body}\n\\caption{{{caption}}}\n\\label{{tab:{label}}}\n\\end{{table}}\n"
    )


def _section(section: Section) -> str:
    return f"{latex(section.heading)}\n\n\\smallskip\n{_tabular(section.strips, {}, group_rows=False)}"


def _tabular(strips: Sequence[Strip], groups: dict[int, str], *, group_rows: bool) -> str:
    """A `tabular`.

    Args:
        strips: the columns.
        groups: index of a column -> what it stands under, together with its neighbours.
        group_rows: say a label of the first column once, and draw a line where it changes.
    """
    columns = "".join("l" if strip.kind in WORDS else "r" for strip in strips)
    lines = [f"\\begin{{tabular}}{{{columns}}}", "\\toprule"]
    if groups:
        lines += _group_lines(len(strips), groups)
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


def _group_lines(count: int, groups: dict[int, str]) -> list[str]:
    cells, rules, place = [], [], 1
    for name, members in groupby(range(count), key=lambda index: groups.get(index, "")):
        width = len(list(members))
        cells.append(f"\\multicolumn{{{width}}}{{c}}{{{latex(name)}}}" if name else " & ".join([""] * width))
        if name:
            rules.append(f"\\cmidrule(lr){{{place}-{place + width - 1}}}")
        place += width
    return [" & ".join(cells) + r" \\", "".join(rules)]


def _groups(table: Table) -> dict[int, str]:
    """Which strips of the table's grid belong to a task's metrics; none for a single task."""
    titles = {column.title: column.task for column in COLUMNS.values()}
    groups: dict[int, str] = {}
    task = None
    for index, strip in enumerate(table_grid(table)):
        if strip.kind in WORDS:
            continue
        if strip.heading not in ("paper", "diff"):
            task = titles.get(strip.heading.removesuffix(" paper"))
        if task is not None:
            groups[index] = _TASKS[task]
    return groups if len(set(groups.values())) > 1 else {}


def _cell(text: str, strip: Strip) -> str:
    """A minus of a number is a minus, not a hyphen; a metric's name is its heading."""
    if strip.heading == METRIC:
        return _heading(text)
    return latex(text) if strip.kind in WORDS else _MINUS.sub(r"$-$", latex(text))


def _heading(text: str) -> str:
    for ours, theirs in _HEADINGS.items():
        if text == ours or text.startswith((f"{ours}_", f"{ours} ")):
            rest = text.removeprefix(ours)
            return theirs + (
                f"$_{{{rest[1:]}}}$" if rest.startswith("_") else latex(rest) and f" {latex(rest)}"
            )
    return latex(text)
