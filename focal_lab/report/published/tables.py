"""The published numbers, as data: `paper_tables.yaml` beside this file, read once."""

from functools import cache
from pathlib import Path
from typing import Any

from focal_lab.errors import UserError, one_of


@cache
def load(name: str) -> dict[str, Any]:
    """A YAML file beside this one."""
    import yaml

    # The C loader reads paper_tables.yaml in 30 ms, the Python one in 300.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    content: dict[str, Any] = yaml.load(Path(__file__).with_name(name).read_text(encoding="utf-8"), loader)
    return content


def paper_tables() -> dict[str, Any]:
    """Everything in `paper_tables.yaml`: table key -> rows, or rows with notes, as in the paper."""
    return load("paper_tables.yaml")


def published(table: str) -> tuple[dict[str, Any], ...]:
    """The rows of a published table, in the paper's order; fields carry their unit (`params_M`, `flops_G`).

    Args:
        table: key in `paper_tables.yaml`, e.g. `table8_window_size`.

    Raises:
        UserError: there is no such table, or it does not consist of rows.
    """
    rows = _rows(paper_tables().get(table))
    if rows is None:
        with_rows = [key for key, content in paper_tables().items() if _rows(content) is not None]
        raise UserError(f"{table!r} is not a published table (use {one_of(with_rows)})")
    return rows


def _rows(content: Any) -> tuple[dict[str, Any], ...] | None:
    """The rows of a table: a list, or the list under `rows` of a mapping that also has notes."""
    rows = content.get("rows") if isinstance(content, dict) else content
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        return None
    return tuple(rows)
