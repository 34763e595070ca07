"""Finds the stages of a network in which a factor makes a difference: a window cut to the map makes none."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from focal_lab.sweep.plan.runs import Run
from focal_lab.sweep.spec.sweep_file import Level

_Stages = tuple[dict[str, Any], ...]


def differing_stages(
    factors: Mapping[str, Sequence[Level]], runs: Sequence[Run]
) -> dict[str, tuple[tuple[int, ...], int]]:
    """Factor -> the stages, from 1, in which some of its levels differ, and how many stages there are.

    Compared are cells that differ in the level of this factor only, by what each stage computes: depth,
    width, heads, maps, windows, shift, and the levels of attention. Factors without such a difference, whose
    settings are not of single stages, are left out, and so are backbones that are not ours.
    """
    cells = {(*run.cell.labels.values(), run.task): run for run in runs if run.stages is not None}
    found: dict[str, tuple[tuple[int, ...], int]] = {}
    for factor in factors:
        groups: dict[tuple[Any, ...], list[_Stages]] = {}
        for run in cells.values():
            others = (label for name, label in run.cell.labels.items() if name != factor)
            groups.setdefault((*others, run.task), []).append(run.stages or ())
        differing = sorted(set().union(*map(_differing, groups.values())))
        if differing:
            found[factor] = tuple(differing), max(len(run.stages or ()) for run in cells.values())
    return found


def stage_sentences(found: Mapping[str, tuple[tuple[int, ...], int]]) -> Iterable[str]:
    """`window_size: differs in 1 of 4 stages (stage 1)`, of the factors that do not differ in all stages."""
    for factor, (stages, count) in found.items():
        if len(stages) < count:
            which = f"stage{'s' * (len(stages) > 1)} {', '.join(map(str, stages))}"
            yield f"{factor}: differs in {len(stages)} of {count} stages ({which})"


def _differing(networks: Sequence[_Stages]) -> set[int]:
    """The stages that not all networks have alike."""
    first, *others = networks
    return {
        place + 1
        for other in others
        for place in range(max(len(first), len(other)))
        if first[place : place + 1] != other[place : place + 1]
    }
