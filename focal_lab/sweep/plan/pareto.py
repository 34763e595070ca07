"""Sorts the runs of a search: the best one first, or with several objectives the Pareto front."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from focal_lab.sweep.plan.runs import Run
from focal_lab.sweep.run_folder.outcome import read_outcome
from focal_lab.sweep.run_folder.result import COSTS, known_values, objective_values

Values = tuple[float, ...]


def best_first(runs: Sequence[Run], out: Path, objectives: Mapping[str, str]) -> tuple[list[Run], int]:
    """The runs of a search sorted, and the size of the Pareto front.

    Args:
        out: where their results are.
        objectives: column -> maximize or minimize.

    Returns:
        First the front, then the other finished runs, each by the first objective; then those without a
        result.
    """
    gains: dict[str, Values] = {}
    for run in runs:
        result = read_outcome(out / run.id).result
        values = objective_values(known_values(result), objectives) if result is not None else None
        if values is not None:
            ways = zip(values, objectives.values(), strict=True)
            gains[run.id] = tuple(value if way == "maximize" else -value for value, way in ways)
    front = {name for name, mine in gains.items() if not any(_beats(other, mine) for other in gains.values())}

    def place(run: Run) -> tuple[int, Values]:
        if run.id not in gains:
            return 2, ()
        return int(run.id not in front), tuple(-gain for gain in gains[run.id])

    return sorted(runs, key=place), len(front)


def front_sentence(count: int, objectives: Mapping[str, str], trained: int) -> str | None:
    """The order of a search's rows in words; None before anything has finished."""
    if not count:
        return None
    ways = [
        f"{'high' if way == 'maximize' else 'low'} {name if name in COSTS else f'validation {name}'}"
        for name, way in objectives.items()
    ]
    once = "Each proposal was trained once: confirm the best with several seeds."
    if any(name not in COSTS for name in objectives):
        once = f"The columns show the final test, which was not used for selection. {once}"
    if len(ways) == 1:
        return f"Best first ({ways[0]}) of {trained}. {once}"
    names = f"{', '.join(ways[:-1])} and {ways[-1]}"
    first = "The first row is" if count == 1 else f"The first {count} rows are"
    return f"{first} the Pareto front of {names}: no other of {trained} runs is better in all of them. {once}"


def _beats(other: Values, mine: Values) -> bool:
    return other != mine and all(a >= b for a, b in zip(other, mine, strict=True))
