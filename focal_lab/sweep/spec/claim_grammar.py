"""Claims as comparisons of cells, such as `Focal-Tiny/7 >= Swin-Tiny/14`.

    [METRIC:] SUM OPERATOR SUM [within MARGIN]       OPERATOR: > >= < <= ~
    SUM: TERM {+ or - TERM}          a sign between terms has a space on each side: `+Local` is a label
    TERM: NUMBER, CELL, NUMBER * CELL, shapley(FACTOR), or NUMBER * shapley(FACTOR)
    NUMBER: 0.5, 2, 1e-3; one that is a level's label, too, means the level (write 7.0 for the number)
    CELL: labels joined by `/`, in any order; the mean is taken over factors that are not named

`ap_box: Focal-Tiny > Swin-Tiny + 0.5` is about box AP, and about all cells of both backbones.
`A ~ B within 0.5`: they differ by less than 0.5. `A >= B within 0.5`: A is not worse by 0.5 or more.
`14 > 7`: a main effect, the mean over all other factors. `shapley(window_size) > 0.5`: the factor's share of
the difference between the cell of all reference levels and the opposite one (`focal_lab.sweep.spec.shapley`).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from focal_lab.errors import UserError, known_names, one_of
from focal_lab.sweep.spec.columns import MAIN, check_margin, find_column
from focal_lab.sweep.spec.shapley import WeightedCells, opposite_levels, shapley_cells

_COMPARISON = re.compile(r"\s(>=|<=|>|<|~)\s")
_WITHIN = re.compile(r"(?P<rest>.+)\swithin(?:\s+(?P<margin>.*))?$")
_SIGN = re.compile(r"\s([+-])\s")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$", re.IGNORECASE)
_FACTOR = re.compile(r"(?P<number>\S+)\s+\*\s+(?P<cell>.+)$")
_METRIC = re.compile(r"(?P<metric>\w+):\s+")
_CALL = re.compile(r"(?P<function>\w+)\s*\((?P<factor>.*)\)$")
_SHAPLEY = "shapley"
# Weights below this are 0, but for rounding.
_EQUAL = 1e-9


Relation = Literal["above", "at least", "same"]


@dataclass(frozen=True)
class Expectation:
    """One comparison: the sum of `terms` plus `constant` is above zero, at least zero, or zero.

    Attributes:
        text: as written in the sweep file.
        metric: key of a column.
        terms: weight, and the labels that select its cells, factor -> label.
        constant: in the unit of the metric.
        relation: above (>), at least (>=), or the same (~).
        margin: by which it may miss zero; None for `>`, and for `>=` without one.
    """

    text: str
    metric: str
    terms: tuple[tuple[float, dict[str, str]], ...]
    constant: float
    relation: Relation
    margin: float | None = None


def parse_expectation(
    text: str,
    factors: Mapping[str, Sequence[str]],
    task: str,
    references: Mapping[str, str] | None = None,
) -> Expectation:
    """Read a comparison.

    Args:
        text: the expression.
        factors: factor -> labels of its levels.
        task: its main metric is the default.
        references: factor -> the level from which `shapley` starts; None if the cells are not all
            combinations of the levels, which it needs.

    Raises:
        UserError: not a comparison of cells; the message names the part and what is allowed there.
    """
    metric, rest = MAIN[task], text.strip()
    named = _METRIC.match(rest)
    if named:
        metric, rest = named["metric"], rest[named.end() :]
        if find_column(metric).task is None:
            raise UserError(f"{metric} is not a metric of a task: claims are about those")
    rest, margin = _margin(rest, metric)
    sides = _COMPARISON.split(rest)
    if len(sides) != 3:
        raise UserError(f"{text!r} is not a comparison of cells (such as A/7 >= B/14)")
    left, operator, right = sides
    if operator == "~" and margin is None:
        raise UserError(
            f"{text!r}: ~ needs a margin, the largest difference that counts as none "
            f"({text.strip()} within {find_column(metric).margin})"
        )
    if operator in (">", "<") and margin is not None:
        raise UserError(f"{text!r}: within belongs to ~, >= and <= (A > B + 0.5 is a difference of 0.5)")
    sign = -1.0 if operator.startswith("<") else 1.0
    terms: list[tuple[float, dict[str, str]]] = []
    constant = 0.0
    for weight, term in [*_terms(left, sign), *_terms(right, -sign)]:
        if _NUMBER.match(term) and not any(term in labels for labels in factors.values()):
            constant += weight * float(term)
            continue
        scaled = _FACTOR.match(term)
        if scaled and _NUMBER.match(scaled["number"]):
            weight, term = weight * float(scaled["number"]), scaled["cell"]
        terms += [(weight * share, labels) for share, labels in _cells(term, factors, references)]
    if not terms:
        raise UserError(f"{text!r} compares no cells")
    if _cancel_out(terms):
        raise UserError(f"{text!r} compares cells with themselves")
    relation: Relation = "same" if operator == "~" else "at least" if "=" in operator else "above"
    return Expectation(text.strip(), metric, tuple(terms), constant, relation, margin)


def _cancel_out(terms: Sequence[tuple[float, dict[str, str]]]) -> bool:
    """Whether every cell is subtracted as often as it is added."""
    weights: dict[frozenset[tuple[str, str]], float] = {}
    for weight, labels in terms:
        cell = frozenset(labels.items())
        weights[cell] = weights.get(cell, 0.0) + weight
    return all(abs(weight) < _EQUAL for weight in weights.values())


def _margin(text: str, metric: str) -> tuple[str, float | None]:
    """A comparison without `within MARGIN`, and the margin."""
    found = _WITHIN.match(text)
    if found is None:
        return text, None
    words = (found["margin"] or "").split()
    column = find_column(metric)
    unit = "points" if column.in_points else None
    if not words or not _NUMBER.match(words[0]) or words[1:] not in ([], [unit]):
        of = f", in {unit} of {metric}" if unit else f", in the unit of {metric}"
        raise UserError(f"{text!r}: within takes a number{of} (within {column.margin})")
    return found["rest"], check_margin(metric, float(words[0]))


def _terms(side: str, sign: float) -> list[tuple[float, str]]:
    first, *rest = _SIGN.split(f" {side} ".replace("  ", " "))
    signs = [sign, *(sign if word == "+" else -sign for word in rest[::2])]
    return list(zip(signs, [first.strip(), *(term.strip() for term in rest[1::2])], strict=True))


def _cells(
    term: str, factors: Mapping[str, Sequence[str]], references: Mapping[str, str] | None
) -> WeightedCells:
    """The weighted cells that a term stands for."""
    call = _CALL.match(term)
    if call is None or any(term in labels for labels in factors.values()):
        return [(1.0, _labels(term, factors))]
    function, factor = call["function"], call["factor"].strip()
    if function != _SHAPLEY:
        raise UserError(f"{term!r}: {function} is not a function{known_names(function, [_SHAPLEY])}")
    if factor not in factors:
        raise UserError(f"{term!r}: {factor!r} is not a factor{known_names(factor, factors)}")
    if references is None:
        raise UserError(
            f"{term!r} needs every combination of the factors' levels (design: grid, without exclude)"
        )
    if len(factors[factor]) < 2:
        raise UserError(f"{term!r}: {factor} has a single level, so it has no effect")
    return shapley_cells(factor, references, opposite_levels(factors, references))


def _labels(cell: str, factors: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Factor -> label of a cell's name; labels may contain slashes."""
    whole = [name for name, labels in factors.items() if cell in labels]
    parts = [cell] if whole else [part.strip() for part in cell.split("/")]
    chosen: dict[str, str] = {}
    for part in parts:
        having = [name for name, labels in factors.items() if part in labels and name not in chosen]
        if not having:
            known = [label for labels in factors.values() for label in labels]
            why = "twice" if part in known else f"which is not a level{known_names(part, known)}"
            raise UserError(f"{cell!r} names {part!r} {why}")
        if len(having) > 1 and len(parts) < len(factors):
            raise UserError(
                f"{part!r} is a level of {one_of(having)}; name a level of every factor, in order"
            )
        chosen[having[0]] = part
    return chosen
