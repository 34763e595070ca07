"""What a reader must know about a table: the notes below it, and what --strict does not accept."""

import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from focal_lab.report.statistics.power import POWER
from focal_lab.report.statistics.sequential import FIRST_LOOK, futile
from focal_lab.report.table.decide import LEAST_SEEDS
from focal_lab.report.table.factor_effects import effect_notes
from focal_lab.report.table.like_paper import unlike_paper_notes
from focal_lab.report.table.records import (
    COUNTED,
    Outcome,
    PlannedRun,
    Row,
    Table,
    shown_label,
    shown_name,
    unfinished,
)
from focal_lab.report.table.test_units import TestUnits
from focal_lab.report.table.variance_sources import seed_factors
from focal_lab.sweep.run_folder.outcome import State
from focal_lab.sweep.spec.columns import PAPER_SIZES, pixels
from focal_lab.utils.units import many

if TYPE_CHECKING:
    import pandas as pd

# More than these would push the table itself off the screen.
_MOST_PROBLEMS = 8
# A finding that is expected to be so many times too large is worth a note.
_NOTABLE = 1.2


def table_notes(table: Table, units: TestUnits) -> tuple[str, ...]:
    """The footnotes of a table, those that explain its numbers first."""
    return (
        *table.provenance.mixed_tests,
        *_numbers(table),
        *_left_out_of_intervals(table, units),
        *_comparisons(table),
        *_confounds(table),
        *effect_notes(table.effects),
        *_looks(table),
        *_setting(table),
        *incomparable(table),
        *_unmeasured(table),
        *_rows(table),
        *_unfinished(table),
        *_problems(table.rows),
    )


def _numbers(table: Table) -> Iterable[str]:
    entries = [(column, row.entries[column.key]) for row in table.rows for column in table.columns]
    varied = [entry for column, entry in entries if column.key not in COUNTED and entry.n]
    counts = sorted({entry.n for entry in varied if entry.half_width is not None})
    if counts:
        images = any(entry.images for entry in varied)
        over = "seeds and test images" if images else "seeds"
        yield f"a ± b: mean over n = {_and(counts)} seeds and half of its 95 % interval over {over}."
    fewer = [entry.n for entry in varied if entry.n < entry.planned]
    if fewer:
        planned = max(entry.planned for entry in varied)
        yield f"(n={min(fewer)}): fewer seeds have a value than the {planned} that were planned."
    for key, threshold in table.success.items():
        title = next(column.title for column in table.columns if column.key == key)
        yield f"{title} {threshold:g}: seeds that reach it, and the 95 % interval of their share (Wilson)."
    if table.order:
        yield table.order
    elif any(entry.planned == 1 for entry in varied) and not seed_factors(table.rows):
        yield "One seed per cell: no spread, so differences cannot be distinguished from noise (--seeds 3)."
    titles = [column.title for column in table.columns if column.task is None]
    if len(table.tasks) > 1 and titles:
        yield f"{_and(titles)}: of the {table.costs_task} runs."


def _left_out_of_intervals(table: Table, units: TestUnits) -> Iterable[str]:
    if units.without:
        yield (
            f"{many(len(units.without), 'finished run')} {'has' if len(units.without) == 1 else 'have'} no "
            "predictions (an earlier version, or your own task): intervals for which fewer than two seeds "
            "have them leave out the noise of the test images and are too narrow."
        )
    for message in list(units.damaged.values())[:_MOST_PROBLEMS]:
        yield f"{message} (left out of the noise of the test images)"
    if len(units.damaged) > _MOST_PROBLEMS:
        yield f"... and {len(units.damaged) - _MOST_PROBLEMS} more files like these."
    if units.mixed:
        names = _and(shown_name(table.rows[index]) for index in sorted(units.mixed))
        yield (
            f"Predictions of {names} are of different test images or labels from run to run: intervals that "
            "need them leave out the noise of the test images and are too narrow."
        )
    if units.unpaired:
        yield (
            "Not all rows have predictions of the same test images and labels: their differences are not "
            "paired by test image."
        )


def _comparisons(table: Table) -> Iterable[str]:
    found = compared(table)
    verdicts = {outcome.verdict for outcome in found}
    if table.comparisons:
        paired = "seed and test image" if any(outcome.images for outcome in found) else "seed"
        several = f"corrected for the {table.comparisons} comparisons of this report (Holm)"
        tested = several if table.comparisons > 1 else "of one comparison"
        yield (
            f"Difference: paired by {paired}. p: {tested}; "
            "better, worse, supported and contradicted are below 0.05. Equivalent: the difference is less "
            "than the margin, p below 0.05 (two one-sided tests)."
        )
    open_ones = [outcome for outcome in found if outcome.detectable is not None]
    if open_ones:
        yield (
            f"Detectable: the true difference that n seeds find with {100 * POWER:.0f} %. Seeds for "
            f"{_margins(open_ones)}: how many find a true difference of that size, or about as many show "
            "equivalence where there is none."
        )
    exaggerated = [o for o in found if o.exaggeration is not None and o.exaggeration >= _NOTABLE]
    if exaggerated:
        worst = max(exaggerated, key=lambda outcome: outcome.exaggeration or 0.0)
        yield (
            f"Differences that were found are too large on average: {worst.n} seeds that find a true "
            f"difference of {worst.margin:g} report {worst.exaggeration:.1f} times as much."
        )
    if any(outcome.verdict == "too few seeds" and outcome.n for outcome in found):
        yield f"Too few seeds: fewer than {LEAST_SEEDS} shared by the rows that are compared."
    if "no spread" in verdicts:
        yield "No spread: all seeds have the same difference, so there is nothing to test it against."
    if "other data" in verdicts:
        yield "Other data: not compared, because the sweep file does not name a baseline."
    if "other test set" in verdicts:
        yield "Other test set: not compared, because the runs were not tested on the same images."


def _looks(table: Table) -> Iterable[str]:
    most = table.max_seeds
    if most is not None:
        yield (
            f"Sequential analysis: looks after every seed from {FIRST_LOOK} to {most} (--until-decided). p "
            "is corrected for the looks, too; intervals, detectable differences and seeds for a margin are "
            "those of as many seeds, fixed beforehand."
        )
        unsettled = [(outcome.chance, outcome.n) for outcome in compared(table) if outcome.chance is not None]
        stopped = sum(futile(chance, seeds, most) for chance, seeds in unsettled)
        if stopped:
            which = "it" if stopped == 1 else "them"
            yield f"{many(stopped, 'comparison')} got no more seeds: {most} would hardly decide {which}."
        if len(unsettled) > stopped:
            yield f"{many(len(unsettled) - stopped, 'comparison')} to be decided: {table.command} adds seeds."
    if table.looked_at:
        extended = f"{len(table.seeds)} seeds" if most is None else f"at most {most} seeds"
        yield (
            f"This sweep was extended to {extended} after a table of {_and(table.looked_at)}: looking again "
            "after more seeds finds differences that do not exist in more than 5 % of reports. "
            "--until-decided corrects for that."
        )


def compared(table: Table) -> list[Outcome]:
    """All comparisons of a table: of rows with their baselines, and the parts of the claim."""
    rows = [entry.compared for row in table.rows for entry in row.entries.values() if entry.compared]
    return [*rows, *table.answers]


def _margins(found: Sequence[Outcome]) -> str:
    margins = sorted({outcome.margin for outcome in found})
    return f"{margins[0]:g}" if len(margins) == 1 else "the margin"


def _confounds(table: Table) -> Iterable[str]:
    for confound in table.confounds:
        factor = confound.factor
        own = [row for row in table.rows if not row.reference and factor in row.labels]
        yield confound.sentence({row.labels[factor]: shown_label(row, factor) or "" for row in own})


def _setting(table: Table) -> Iterable[str]:
    if table.cite:
        yield f"Measured on the suite {table.suite}; paper: the paper's {table.cite}, {table.setting}."
    else:
        yield f"Measured on the suite {table.suite}; the paper has no such table."
    yield from unlike_paper_notes(table)
    # multiply-accumulates grow with the image, which may be of another size than the paper's
    sizes = table.provenance.counted_at.get(table.costs_task, {})
    entries = [row.entries["gmacs"] for row in table.rows if "gmacs" in row.entries]
    if entries and sizes:
        words = f"GMACs: of one input of {_and(sizes)}"
        if "assumed" in sizes.values():
            words += ", assumed because the size of the images is unknown"
        elif "images" in sizes.values():
            words += ", the size of most images when they are evaluated"
        paper = pixels(PAPER_SIZES[table.costs_task])
        if any(entry.published is not None for entry in entries) and set(sizes) != {paper}:
            words += f"; the paper's of {paper}: they do not compare"
        yield f"{words}."
    if len(table.provenance.hardware) > 1:
        yield f"Times and memory were measured on different machines: {_and(table.provenance.hardware)}."
    for task in table.provenance.last_epoch:
        yield (
            f"{task}: the last epoch on the validation split, because the data has no test split and the "
            "best epoch would be selected on the images that are reported."
        )


def incomparable(table: Table) -> Iterable[str]:
    """How the runs differ in code, environment or data; --strict refuses a table with such notes."""
    found = table.provenance
    finished = f"of {sum(found.commits.values())} finished runs"
    if len(found.commits) > 1:
        # several, with the names of their repositories, are short already
        short = {commit if ", " in commit else commit[:12]: count for commit, count in found.commits.items()}
        parts = [f"{commit} ({count})" for commit, count in short.items()]
        yield f"Runs of {len(parts)} commits: {_and(parts)}."
    if found.dirty:
        yield f"{found.dirty} {finished} have uncommitted code."
    for package, versions in found.versions.items():
        if len(versions) > 1:
            yield f"Runs of {len(versions)} versions of {package}: {_and(versions)}."
    for setting, count in found.parts.items():
        yield f"{count} {finished} were evaluated on a part of their images: {setting}."
    if found.untold_tests:
        yield (
            f"{found.untold_tests} {finished} do not record which images they were tested on (an earlier "
            "version, or your own data module), so it is not checked whether they are the same."
        )
    if any(row.data for row in table.rows):
        yield "Rows have different images (column data): their numbers are not directly comparable."


def _unmeasured(table: Table) -> Iterable[str]:
    for task in dict.fromkeys(column.task for column in table.columns):
        if task and task not in table.tasks:
            titles = [column.title for column in table.columns if column.task == task]
            yield f"{_and(titles)}: not measured, the sweep does not run {task}."
    for column in table.columns:
        if any(row.entries[column.key].status == "not reported" for row in table.rows):
            yield f"{column.title}: finished runs do not report it."


def _rows(table: Table) -> Iterable[str]:
    for row in table.rows:
        if row.same_as is not None:
            first = shown_name(table.rows[row.same_as])
            yield f"{shown_name(row)} shares its runs with {first}: same effective configuration."
    names = [shown_name(row) for row in table.rows if not row.in_paper]
    if table.cite and names:
        which = _and(names) if len(names) <= 3 else f"{len(names)} of {len(table.rows)} rows"
        yield f"Not in the paper's {table.cite}: {which}."


def _unfinished(table: Table) -> Iterable[str]:
    states = Counter(run.state for run, _ in _distinct(table.rows))
    # a search does not resume pruned runs; a design that shares such a run trains it to the end
    pruned = states.pop(State.PRUNED, 0) if table.order else 0
    if pruned:
        yield f"{pruned} {'run was' if pruned == 1 else 'runs were'} stopped early: others were better."
    done, total = states.pop(State.FINISHED, 0), states.total()
    if total:
        rest = ", ".join(f"{states[state]} {state}" for state in State if states[state])
        yield f"{done} of {done + total} runs finished, {rest}: {table.command} trains the rest."


def _problems(rows: Sequence[Row]) -> Iterable[str]:
    """Each failed or corrupt run; seeds of a cell with the same reason in one sentence."""
    alike: dict[tuple[str, ...], list[PlannedRun]] = defaultdict(list)
    for run, row in _distinct(rows):
        if run.reason and run.state is not State.PRUNED:
            last = f"; last line: {run.last_line}" if run.last_line else ""
            alike[run.state, f"{shown_name(row)}, {run.task}", f"{run.reason}{last}"].append(run)
    for (state, where, why), runs in list(alike.items())[:_MOST_PROBLEMS]:
        seeds = f"seed{'s'[: len(runs) - 1]} {_and(run.seed for run in runs)}"
        yield f"{state}: {where}, {seeds} ({', '.join(run.run for run in runs)}): {why}"
    if len(alike) > _MOST_PROBLEMS:
        yield f"... and {len(alike) - _MOST_PROBLEMS} more: focal-lab report with --long."


def strict_status(table: Table) -> int:
    """Print what keeps a table from being published; the exit status of --strict."""
    found = shortcomings(table)
    for shortcoming in found:
        print(f"focal-lab: --strict: {shortcoming}", file=sys.stderr)
    return 1 if found else 0


def shortcomings(table: Table) -> list[str]:
    """One line each; none if every planned run has a result, all of one commit, environment and data."""
    own = [row for row in table.rows if not row.reference]
    states = [(row, ", ".join(unfinished(row)) or ("" if row.runs else "no runs")) for row in own]
    outside = ["Runs of code outside a checkout."] if "no commit" in table.provenance.commits else []
    return [
        *(f"{shown_name(row)}: {words}" for row, words in states if words),
        *(line for row in own for line in _unreported(row, table)),
        *outside,
        *table.provenance.mixed_tests,
        *incomparable(table),
    ]


def _unreported(row: Row, table: Table) -> Iterable[str]:
    for column in table.columns:
        entry = row.entries[column.key]
        short = 0 < entry.n < entry.planned and column.key not in COUNTED
        if entry.status == "not reported" or (short and row.states[State.FINISHED] == len(row.runs)):
            yield f"{shown_name(row)}: {column.title} is reported by {entry.n} of {entry.planned} runs"


def long_notes(runs: "pd.DataFrame") -> list[str]:
    """Why runs of the long table did not finish."""
    failed = runs.loc[runs["reason"].notna(), ["state", "run", "reason"]].drop_duplicates("run")
    notes = [": ".join(words) for words in failed.head(_MOST_PROBLEMS).itertuples(index=False)]
    more = [f"... and {len(failed) - _MOST_PROBLEMS} more: --format csv has them."]
    return notes + (more if len(failed) > _MOST_PROBLEMS else [])


def _distinct(rows: Sequence[Row]) -> list[tuple[PlannedRun, Row]]:
    """Each run once, with the first row that it belongs to."""
    found: dict[str, tuple[PlannedRun, Row]] = {}
    for row in rows:
        for run in row.runs:
            found.setdefault(run.run, (run, row))
    return list(found.values())


def _and(words: Iterable[object]) -> str:
    *most, last = [str(word) for word in words]
    return f"{', '.join(most)} and {last}" if most else last
