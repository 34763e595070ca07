"""The state of a sequential sweep's comparisons, which `focal-lab sweep --until-decided` asks for."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from focal_lab.report.statistics.sequential import futile
from focal_lab.report.table.build import build_table
from focal_lab.report.table.records import Outcome, Table, row_name
from focal_lab.sweep.plan.sequential import Comparison
from focal_lab.sweep.spec.columns import COLUMNS

if TYPE_CHECKING:
    from focal_lab.sweep.plan.plan import Plan


def comparisons(plan: "Plan", out: Path) -> list[Comparison]:
    """The state of all comparisons of a plan, by the runs in `out`.

    Raises:
        UserError: the sweep names a published table that does not exist.
    """
    table = build_table(plan, out)
    return [
        Comparison(
            name=name,
            seeds=outcome.n,
            verdict=outcome.verdict,
            cells=tuple(tuple(table.rows[index].labels.values()) for index in outcome.rows),
            chance=outcome.chance,
            futile=outcome.chance is not None
            and futile(outcome.chance, outcome.n, plan.max_seeds or outcome.n),
        )
        for name, outcome in _named(table)
        if outcome.n or outcome.chance is not None
    ]


def _named(table: Table) -> Iterator[tuple[str, Outcome]]:
    for row in table.rows:
        for column in table.columns:
            compared = row.entries[column.key].compared
            if compared is not None:
                against = row_name(table.rows[compared.baseline])
                yield f"{row_name(row)} against {against}, {column.title}", compared
    for answer in table.answers:
        yield f"{answer.text} ({COLUMNS[answer.metric].title})", answer
