"""The published numbers, as data: `paper_tables.yaml` beside this file, read once."""

from functools import cache
from pathlib import Path
from typing import Any

from focal_lab.errors import UserError, one_of

TABLES_FILE = Path(__file__).with_name("paper_tables.yaml")


@cache
def paper_tables() -> dict[str, Any]:
    """Everything in `paper_tables.yaml`: table key -> rows, or rows with notes, as the paper has them."""
    import yaml

    # The C loader reads the file in 30 ms, the Python one in 300: a fifth of a report's time.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    tables: dict[str, Any] = yaml.load(TABLES_FILE.read_text(encoding="utf-8"), loader)
    return tables


def published(table: str) -> tuple[dict[str, Any], ...]:
    """The rows of a published table, in the paper's order; fields carry their unit (`params_M`, `flops_G`).

    Args:
        table: key in `paper_tables.yaml`, e.g. `table8_window_size`.

    Raises:
        UserError: there is no such table, or it is not made of rows.
    """
    rows = _rows(paper_tables().get(table))
    if rows is None:
        with_rows = [key for key, content in paper_tables().items() if _rows(content) is not None]
        raise UserError(f"{table!r} is not a published table (use {one_of(with_rows)})")
    return rows


def _rows(content: Any) -> tuple[dict[str, Any], ...] | None:
    """The rows of a table that is a list, or a mapping with its list under `rows` beside notes."""
    rows = content.get("rows") if isinstance(content, dict) else content
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        return None
    return tuple(rows)
