"""Whether a row's data and network are the paper's: only then is its difference to the paper shown."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from focal_lab.report.published.layouts import PublishedTable, published_values
from focal_lab.report.table.records import Row, Table, shown_name
from focal_lab.sweep.plan.settings import path_of
from focal_lab.sweep.run_folder.result import Result
from focal_lab.sweep.spec.columns import Column

if TYPE_CHECKING:
    from focal_lab.sweep.plan.plan import Plan
    from focal_lab.sweep.plan.runs import Run

# Networks that differ from the published number of parameters by a larger share are others.
# Biases that the released code stores twice are 1.1 % of Focal-Tiny with a window of 14.
TOLERANCE = 0.03
_BACKBONE = ("model", "backbone")
_OTHER = {
    ("data",): "data are different",
    ("network",): "networks are different",
    ("data", "network"): "data and networks are different",
}


def beside_paper(
    rows: Sequence[Row],
    plan: "Plan",
    columns: Sequence[Column],
    layout: PublishedTable | None,
    costs_task: str,
    results: Mapping[str, Result],
) -> list[Row]:
    """Rows that say which network they train, and in what their entries are unlike the paper's.

    Args:
        rows: cells of the plan.
        columns: of the table.
        layout: the published table; None without one, when no network has a published size.
        costs_task: whose parameters are compared with the published ones.
        results: of the finished runs.
    """
    planned = {run.id: run for run in plan.runs}
    naming = _naming_factors(plan, costs_task)
    found = []
    for row in rows:
        runs = [planned[run.run] for run in row.runs]
        variant = _replaced(runs)
        if not variant and layout is not None:
            counts = [results[run.id].params for run in runs if run.task == costs_task and run.id in results]
            variant = _other_size(counts, _published_sizes(layout, row, costs_task))
        shown = {
            factor: f"{label} ({variant})" if variant and factor in naming else label
            for factor, label in row.labels.items()
        }
        entries = dict(row.entries)
        for column in columns:
            unlike = ["network"] if variant else []
            if column.task and not _papers_data(column.task, runs, results, plan.paper_images):
                unlike.insert(0, "data")
            entries[column.key] = replace(entries[column.key], unlike_paper=tuple(unlike))
        network = runs[0].backbone if runs else ""
        found.append(replace(row, shown=shown, network=network, variant=variant, entries=entries))
    return found


def _naming_factors(plan: "Plan", task: str) -> set[str]:
    """Factors whose labels name networks: their levels set different backbones, or nothing else."""
    naming = set()
    for factor, levels in plan.sweep.factors.items():
        backbones = [
            tuple(str(value) for key, value in level.settings.items() if path_of(key, task) == _BACKBONE)
            for level in levels
        ]
        nothing_else = all(len(level.settings) == 1 for level in levels) and all(backbones)
        if len(set(backbones)) > 1 or nothing_else:
            naming.add(factor)
    return naming


def _replaced(runs: Iterable["Run"]) -> str:
    """`micro`: the word by which the suite's network differs from the one that the sweep names; or empty."""
    for run in runs:
        if run.stands_for is not None:
            name = run.backbone.partition("_patch")[0]
            asked = run.stands_for.partition("_patch")[0].split("_")
            new = [word for word in name.split("_") if word not in asked]
            return new[0] if len(new) == 1 else name
    return ""


def _other_size(counts: Sequence[int], sizes: Sequence[float]) -> str:
    """`7.4 M`: the parameters of a network that has not the published number of them; or empty."""
    if not counts or not sizes:
        return ""
    measured = counts[0] / 1e6
    fits = min(sizes) * (1 - TOLERANCE) <= measured <= max(sizes) * (1 + TOLERANCE)
    return "" if fits else f"{measured:.3g} M"


def _published_sizes(layout: PublishedTable, row: Row, costs_task: str) -> Sequence[float]:
    """Millions of parameters of the row's published network, or of the smallest and largest of the table."""
    if costs_task != layout.counted_task:
        return ()
    paper = published_values(layout, row.labels)
    own = paper.values.get("params") if paper is not None else None
    return layout.sizes if own is None else (own,)


def _papers_data(
    task: str, runs: Iterable["Run"], results: Mapping[str, Result], images: Mapping[str, int]
) -> bool:
    """Whether the suite has the paper's data for a task, and no run was tested on more or fewer images."""
    wanted = images.get(task)
    tested = {
        results[run.id].tested_on.get("count", wanted)
        for run in runs
        if run.task == task and run.id in results
    }
    return wanted is not None and tested <= {wanted}


def unlike_paper_notes(table: Table) -> Iterable[str]:
    """Networks that are not the paper's, and why differences from its numbers are not shown."""
    own = [row for row in table.rows if not row.reference]
    others = [row for row in own if row.variant]
    if others:
        names = ", ".join(dict.fromkeys(row.network.partition("_patch")[0] for row in others))
        which = "" if len(others) == len(own) else f" of {'; '.join(map(shown_name, others))}"
        yield f"Networks{which}: {names}{_sizes_words(others)}; not the paper's."
    entries = [row.entries[column.key] for row in own for column in table.columns if column.task]
    beside = [entry for entry in entries if entry.mean is not None and entry.published is not None]
    unlike = [part for part in ("data", "network") if any(part in entry.unlike_paper for entry in beside)]
    if unlike:
        where = "" if all(entry.unlike_paper for entry in beside) else " everywhere"
        yield f"Differences from the paper are not shown{where}: its {_OTHER[tuple(unlike)]}."


def _sizes_words(rows: Sequence[Row]) -> str:
    """` (0.58 to 0.59 M parameters)`; empty if the table does not have them."""
    means = [row.entries["params"].mean for row in rows if "params" in row.entries]
    sizes = [f"{size:.2f}" for size in sorted(size for size in means if size is not None)]
    ends = dict.fromkeys([*sizes[:1], *sizes[-1:]])
    return f" ({' to '.join(ends)} M parameters)" if sizes else ""
