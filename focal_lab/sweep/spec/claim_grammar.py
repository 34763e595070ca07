"""What a claim comes to, as comparisons of cells: `Focal-Tiny/7 >= Swin-Tiny/14`.

    [METRIC:] SUM OPERATOR SUM       OPERATOR: > >= < <=
    SUM: TERM {+ or - TERM}          a sign between terms has a space on each side: `+Local` is a label
    TERM: NUMBER, CELL, or NUMBER * CELL
    NUMBER: 0.5, 2, 1e-3; one that is a level's label, too, means the level (write 7.0 for the number)
    CELL: labels joined by `/`, in any order; over factors that are not named the mean is taken

`ap_box: Focal-Tiny > Swin-Tiny + 0.5` is about box AP, and about all cells of both backbones.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from focal_lab.errors import UserError, one_of
from focal_lab.sweep.spec.columns import MAIN, find_column

_COMPARISON = re.compile(r"\s(>=|<=|>|<)\s")
_SIGN = re.compile(r"\s([+-])\s")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$", re.IGNORECASE)
_FACTOR = re.compile(r"(?P<number>\S+)\s+\*\s+(?P<cell>.+)$")
_METRIC = re.compile(r"(?P<metric>\w+):\s+")


@dataclass(frozen=True)
class Expectation:
    """One comparison: the sum of `terms` plus `constant` is above zero.

    Attributes:
        text: as it stands in the sweep file.
        metric: key of the column that it is about.
        terms: weight, and the labels that choose its cells, factor -> label.
        constant: in the unit of the metric.
        strict: zero is not enough.
    """

    text: str
    metric: str
    terms: tuple[tuple[float, dict[str, str]], ...]
    constant: float
    strict: bool


def parse_expectation(text: str, factors: Mapping[str, Sequence[str]], task: str) -> Expectation:
    """Read a comparison.

    Args:
        text: the expression.
        factors: factor -> labels of its levels.
        task: whose main metric is meant where none is named.

    Raises:
        UserError: it is no comparison of cells; the message says which part, and what may stand there.
    """
    metric, rest = MAIN[task], text.strip()
    named = _METRIC.match(rest)
    if named:
        metric, rest = named["metric"], rest[named.end() :]
        if find_column(metric).task is None:
            raise UserError(f"{metric} is no metric of a task: claims are about those")
    sides = _COMPARISON.split(rest)
    if len(sides) != 3:
        raise UserError(f"{text!r} is no comparison of cells (such as A/7 >= B/14)")
    left, operator, right = sides
    sign = 1.0 if operator.startswith(">") else -1.0
    terms: list[tuple[float, dict[str, str]]] = []
    constant = 0.0
    for weight, term in [*_terms(left, sign), *_terms(right, -sign)]:
        if _NUMBER.match(term) and not any(term in labels for labels in factors.values()):
            constant += weight * float(term)
            continue
        scaled = _FACTOR.match(term)
        if scaled and _NUMBER.match(scaled["number"]):
            weight, term = weight * float(scaled["number"]), scaled["cell"]
        terms.append((weight, _labels(term, factors)))
    if not terms:
        raise UserError(f"{text!r} compares no cells")
    return Expectation(text.strip(), metric, tuple(terms), constant, operator in (">", "<"))


def _terms(side: str, sign: float) -> list[tuple[float, str]]:
    first, *rest = _SIGN.split(f" {side} ".replace("  ", " "))
    signs = [sign, *(sign if word == "+" else -sign for word in rest[::2])]
    return list(zip(signs, [first.strip(), *(term.strip() for term in rest[1::2])], strict=True))


def _labels(cell: str, factors: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Factor -> label of a cell's name; labels may hold slashes themselves."""
    whole = [name for name, labels in factors.items() if cell in labels]
    parts = [cell] if whole else [part.strip() for part in cell.split("/")]
    chosen: dict[str, str] = {}
    for part in parts:
        having = [name for name, labels in factors.items() if part in labels and name not in chosen]
        if not having:
            known = [label for labels in factors.values() for label in labels]
            again = any(part in labels for labels in factors.values())
            raise UserError(
                f"{cell!r} names {part!r} {'twice' if again else f'which is no level (use {one_of(known)})'}"
            )
        if len(having) > 1 and len(parts) < len(factors):
            raise UserError(
                f"{part!r} is a level of {one_of(having)}; name a level of every factor, in order"
            )
        chosen[having[0]] = part
    return chosen
