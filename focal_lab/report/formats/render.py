"""The formats of a sweep's table and of the long table of runs.

CSV and Parquet are pandas'. Text, Markdown and LaTeX are ours: pandas' writers and its Styler cannot wrap
headings without breaking numbers, write Markdown without padding, or group columns with partial rules.
"""

import io
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from focal_lab.errors import UserError
from focal_lab.report.formats.grid import WORDS, Strip, long_grid, table_grid, table_sections
from focal_lab.report.formats.latex import long_latex, table_latex
from focal_lab.report.formats.terminal import heading_text, note_text, strips_text
from focal_lab.report.table.claims import overall
from focal_lab.report.table.notes import long_notes
from focal_lab.report.table.records import Answer, Table, compared_numbers

if TYPE_CHECKING:
    import pandas as pd

# Every character that can start something in Markdown, inside a table's cell or a list item; $ and ~ are
# GitHub's mathematics and strike-through.
_MARKDOWN = {ord(character): f"\\{character}" for character in "\\`*_[]<>|~$&"}
# A terminal shows only the latest runs.
_MOST_LONG_ROWS = 200
# Columns of `Table.frame` that repeat others in words, or that only the comparisons show.
_NOT_FLAT = frozenset({"shown", "pairs", "delta_paper"})


def table_text(table: Table, width: int | None = None, *, color: bool = False) -> str:
    """For a terminal of `width` columns; None: wrap nothing, as for a pipe."""
    text = heading_text(table.full_title, table.claim and f"Claim: {table.claim}", width, color=color)
    text += strips_text(table_grid(table), width, color=color)
    for section in table_sections(table):
        text += "\n" + heading_text(section.heading, None, width, color=color)
        text += strips_text(section.strips, width, color=color)
    return text + note_text(table.notes, width)


def table_markdown(table: Table) -> str:
    """For a README or a pull request."""
    claim = f"Claim: {_markdown(table.claim)}\n\n" if table.claim else ""
    text = f"### {_markdown(table.full_title)}\n\n{claim}{_markdown_strips(table_grid(table))}"
    for section in table_sections(table):
        text += f"\n{_markdown(section.heading)}\n\n{_markdown_strips(section.strips)}"
    return f"{text}\n{_markdown_list(table.notes)}"


def flat_table(table: Table) -> "pd.DataFrame":
    """`Table.frame` with one line of headings: labels, `top1_mean, top1_sd, ...`, data, counts of runs.

    The parts of a claim are rows below, with their text under `claim`, and their numbers under their metric.
    """
    import pandas as pd

    frame = table.frame
    chosen = [key for key in frame.columns if key[1] not in _NOT_FLAT and key[0] != "runs"]
    flat = frame[chosen].set_axis(["_".join(filter(None, key)) for key in chosen], axis=1)
    # a factor must not hide a column
    names = [f"factor.{name}" if name in flat.columns else name for name in frame.index.names]
    flat = flat.rename_axis(names).reset_index(drop=not table.factors)
    if not table.answers:
        return flat
    flat.insert(len(table.factors), "claim", [None] * len(flat))
    parts = pd.DataFrame([_flat_answer(answer) for answer in table.answers])
    counts = flat.select_dtypes("integer").columns  # parts have no counts of runs
    seeds = [name for name in parts if str(name).endswith("_n")]
    whole = [frame.astype(dict.fromkeys(names, "Int64")) for frame, names in ((flat, counts), (parts, seeds))]
    return pd.concat(whole, ignore_index=True)


def _flat_answer(answer: Answer) -> dict[str, Any]:
    numbers = {"n": answer.n} | compared_numbers(answer)
    shown = {name: value for name, value in numbers.items() if name not in _NOT_FLAT and value is not None}
    return {"claim": answer.text} | {f"{answer.metric}_{name}": value for name, value in shown.items()}


def table_json(table: Table) -> str:
    """Everything the table knows, down to each seed's value; `verdict` is the claim's."""
    verdict = overall(table.answers) if table.answers else None
    return as_json(asdict(table) | {"verdict": verdict})


def long_text(runs: "pd.DataFrame", width: int | None = None, *, color: bool = False) -> str:
    """The main columns of the long table for a terminal; the latest runs if there are very many."""
    notes = []
    if len(runs) > _MOST_LONG_ROWS:
        latest = runs["finished"].fillna("").sort_values(kind="stable").index[-_MOST_LONG_ROWS:]
        notes.append(f"The latest {len(latest)} of {len(runs)} runs; all of them: --format csv.")
        runs = runs.loc[latest.sort_values()]
    notes += long_notes(runs)
    return strips_text(long_grid(runs), width, color=color) + note_text(notes, width)


def long_markdown(runs: "pd.DataFrame") -> str:
    """The main columns of the long table, all rows."""
    notes = _markdown_list(long_notes(runs))
    return _markdown_strips(long_grid(runs)) + (f"\n{notes}" if notes else "")


def long_json(runs: "pd.DataFrame") -> str:
    """A list of objects with equal keys; unknown is null."""
    return as_json(runs.astype(object).where(runs.notna(), None).to_dict("records"))


def csv(frame: "pd.DataFrame") -> str:
    """Every column, numbers in full; what is missing is empty."""
    return frame.to_csv(index=False, lineterminator="\n")


def parquet(frame: "pd.DataFrame") -> bytes:
    """Every column with its type.

    Raises:
        UserError: pyarrow, which writes it, is not installed.
    """
    # a setting that is a number in one run and a word in another
    objects = [name for name in frame if frame[name].dtype == object]
    mixed = [name for name in objects if len({type(value) for value in frame[name].dropna()}) > 1]
    stream = io.BytesIO()
    try:
        frame.astype(dict.fromkeys(mixed, "str")).to_parquet(stream, engine="pyarrow", index=False)
    except ImportError as error:
        raise UserError(
            "parquet needs pyarrow (pip install 'focal-lab[parquet]'; or --format csv)", key="--format"
        ) from error
    return stream.getvalue()


TABLE_FORMATS: dict[str, Callable[[Table], str | bytes]] = {
    "text": table_text,
    "markdown": table_markdown,
    "latex": table_latex,
    "csv": lambda table: csv(flat_table(table)),
    "json": table_json,
    "parquet": lambda table: parquet(flat_table(table)),
}
LONG_FORMATS: dict[str, Callable[["pd.DataFrame"], str | bytes]] = {
    "text": long_text,
    "markdown": long_markdown,
    "latex": long_latex,
    "csv": csv,
    "json": long_json,
    "parquet": parquet,
}


def _markdown(text: str) -> str:
    return " ".join(text.split()).translate(_MARKDOWN)


def _markdown_list(notes: Iterable[str]) -> str:
    return "".join(f"- {_markdown(note)}\n" for note in notes)


def _markdown_strips(strips: Sequence[Strip]) -> str:
    rules = ["---" if strip.kind in WORDS else "---:" for strip in strips]
    rows = zip(*([_markdown(cell) for cell in strip.cells] for strip in strips), strict=True)
    lines = [[_markdown(strip.heading) for strip in strips], rules, *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def as_json(value: Any) -> str:
    """Indented JSON."""
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"
