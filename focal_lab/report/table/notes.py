"""The sentences under a sweep's table: what the numbers are, what is missing, and what to do about it."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from focal_lab.report.table.long_table import LongRow
from focal_lab.report.table.model import COUNTED, PlannedRun, Row, Table
from focal_lab.report.table.provenance import short_commit
from focal_lab.report.table.statistics import LEAST_SEEDS
from focal_lab.sweep.estimate.counted_size import PAPER_SIZES, pixels
from focal_lab.sweep.run_folder.outcome import State

# More than these and the table itself scrolls out of sight.
_MOST_PROBLEMS = 8


def table_notes(table: Table) -> tuple[str, ...]:
    """The footnotes of a table, the ones that explain its numbers first."""
    return (
        *table.provenance.mixed_tests,
        *_numbers(table),
        *_comparisons(table),
        *_setting(table),
        *_counted_at(table),
        *_last_epoch(table),
        *_origin(table),
        *_unmeasured(table),
        *_same_runs(table.rows),
        *_not_in_paper(table),
        *_unfinished(table),
        *_problems(table.rows),
    )


def _numbers(table: Table) -> Iterable[str]:
    entries = [(column, row.entries[column.key]) for row in table.rows for column in table.columns]
    varied = [entry for column, entry in entries if column.key not in COUNTED and entry.n]
    spread = [entry for entry in varied if entry.half_width is not None]
    if spread:
        counts = sorted({entry.n for entry in spread})
        yield f"a ± b: mean over n = {_and(counts)} seeds and half of its 95 % t-interval."
    if any(entry.n < entry.planned for entry in varied):
        planned = max(entry.planned for entry in varied)
        yield f"(n=1): only so many of the {planned} planned seeds have a value."
    if table.order:
        yield table.order
    elif any(entry.planned == 1 for entry in varied):
        yield "One seed a cell: no spread, so no telling a difference from noise (--seeds 3)."
    titles = [column.title for column in table.columns if column.task is None]
    if len(table.tasks) > 1 and titles:
        yield f"{_and(titles)}: of the {table.costs_task} runs."


def _comparisons(table: Table) -> Iterable[str]:
    found = [entry.compared for row in table.rows for entry in row.entries.values() if entry.compared]
    if any(comparison.p_holm is not None for comparison in found):
        yield (
            "Difference: paired by seed, with half of its 95 % interval; p: paired t-test after Holm's "
            "correction for all rows of a metric; better and worse are below 0.05."
        )
    if any(comparison.verdict == "too few seeds" and comparison.n for comparison in found):
        yield f"Too few seeds: fewer than {LEAST_SEEDS} that a row and its baseline both have."
    if any(comparison.verdict == "other data" for comparison in found):
        yield "Other data: not compared, because the sweep file names no baseline on purpose."
    if any(comparison.verdict == "other test set" for comparison in found):
        yield "Other test set: not compared, because the runs were not tested on the same images."
    if any(answer.probability is not None for answer in table.answers):
        yield (
            "Probability: that the mean over all seeds satisfies the comparison (t-distribution, flat "
            "prior); supported from 95 %, contradicted below 5 %."
        )


def _origin(table: Table) -> Iterable[str]:
    """What makes rows hard to compare; nothing as long as all is alike."""
    found = table.provenance
    if len(found.commits) > 1:
        parts = [f"{short_commit(commit)} ({many})" for commit, many in found.commits.items()]
        yield f"Runs of {len(parts)} commits: {_and(parts)}."
    if found.dirty:
        yield f"{found.dirty} of {sum(found.commits.values())} finished runs are of uncommitted code."
    for package, versions in found.versions.items():
        if len(versions) > 1:
            yield f"Runs of {len(versions)} versions of {package}: {_and(versions)}."
    if len(found.hardware) > 1:
        yield f"Times and memory are of different machines: {_and(found.hardware)}."
    for setting, many in found.parts.items():
        yield f"{many} of {sum(found.commits.values())} finished runs saw a part of their images: {setting}."
    if found.untold_tests:
        yield (
            f"{found.untold_tests} of {sum(found.commits.values())} finished runs do not say which images "
            "they were tested on (an earlier version, or a data module of your own): whether all are the "
            "same is not checked."
        )
    if any(row.data for row in table.rows):
        yield "Rows have different pictures (column data): their numbers do not compare by themselves."


def _setting(table: Table) -> Iterable[str]:
    if table.cite:
        yield f"Measured on the suite {table.suite}; paper: the paper's {table.cite}, {table.setting}."
    else:
        yield f"Measured on the suite {table.suite}; the paper has no such table."


def _last_epoch(table: Table) -> Iterable[str]:
    for task in table.provenance.last_epoch:
        yield (
            f"{task}: the last epoch on the validation split. The data has no test split of its own, and the "
            "best epoch would be chosen by the images that are reported."
        )


def _counted_at(table: Table) -> Iterable[str]:
    """Multiply-accumulates grow with the image: the paper's are of another size than ours may be."""
    task = table.costs_task
    found = table.provenance.counted_at.get(task, {})
    entries = [row.entries["gmacs"] for row in table.rows if "gmacs" in row.entries]
    if not entries or not found:
        return
    told = f"GMACs: of one input of {_and(found)}"
    if "assumed" in found.values():
        told += ", assumed: nothing said how large the images are"
    elif "images" in found.values():
        told += ", what most images become when they are evaluated"
    paper = pixels(PAPER_SIZES[task])
    if any(entry.published is not None for entry in entries) and set(found) != {paper}:
        told += f"; the paper's of {paper}: they do not compare"
    yield f"{told}."


def _unmeasured(table: Table) -> Iterable[str]:
    other = [column for column in table.columns if column.task and column.task not in table.tasks]
    for task in dict.fromkeys(column.task for column in other):
        titles = [column.title for column in other if column.task == task]
        yield f"{_and(titles)}: not measured, the sweep does not run {task}."
    for column in table.columns:
        if any(row.entries[column.key].status == "not reported" for row in table.rows):
            yield f"{column.title}: finished runs do not report it."


def _same_runs(rows: Sequence[Row]) -> Iterable[str]:
    for row in rows:
        if row.same_as is not None:
            first = rows[row.same_as]
            yield f"{_name(row)} shares its runs with {_name(first)}: same effective configuration."


def _not_in_paper(table: Table) -> Iterable[str]:
    names = [_name(row) for row in table.rows if not row.in_paper]
    if table.cite and names:
        which = _and(names) if len(names) <= 3 else f"{len(names)} of {len(table.rows)} rows"
        yield f"Not in the paper's {table.cite}: {which}."


def _unfinished(table: Table) -> Iterable[str]:
    states = Counter(run.state for run, _ in _distinct(table.rows))
    # a search leaves them at that; a design that shares such a run trains it to the end
    pruned = states.pop(State.PRUNED, 0) if table.order else 0
    if pruned:
        yield f"{pruned} {'run was' if pruned == 1 else 'runs were'} stopped early: others were better."
    done, total = states.pop(State.FINISHED, 0), states.total()
    if total:
        rest = ", ".join(f"{states[state]} {state}" for state in State if states[state])
        yield f"{done} of {done + total} runs finished, {rest}: {table.command} trains what has no result."


def _problems(rows: Sequence[Row]) -> Iterable[str]:
    """Each failed or corrupt run; the seeds of a cell that ended alike in one sentence."""
    alike: dict[tuple[str, ...], list[PlannedRun]] = defaultdict(list)
    for run, row in _distinct(rows):
        if run.reason and run.state is not State.PRUNED:
            last = f"; last line: {run.last_line}" if run.last_line else ""
            alike[run.state, f"{_name(row)}, {run.task}", f"{run.reason}{last}"].append(run)
    for (state, where, why), runs in list(alike.items())[:_MOST_PROBLEMS]:
        seeds = f"seed{'s'[: len(runs) - 1]} {_and(run.seed for run in runs)}"
        yield f"{state}: {where}, {seeds} ({', '.join(run.run for run in runs)}): {why}"
    if len(alike) > _MOST_PROBLEMS:
        yield f"... and {len(alike) - _MOST_PROBLEMS} more: focal-lab report with --long."


def long_notes(rows: Sequence[LongRow]) -> list[str]:
    """Why runs of the long table did not finish."""
    problems = {
        row["run"]: f"{row['state']}: {row['run']}: {row['reason']}" for row in rows if row.get("reason")
    }
    rest = [f"... and {len(problems) - _MOST_PROBLEMS} more: --format csv has them."]
    return [*list(problems.values())[:_MOST_PROBLEMS], *(rest if len(problems) > _MOST_PROBLEMS else [])]


def _distinct(rows: Sequence[Row]) -> list[tuple[PlannedRun, Row]]:
    """Each run once, with the first row that it belongs to."""
    found: dict[str, tuple[PlannedRun, Row]] = {}
    for row in rows:
        for run in row.runs:
            found.setdefault(run.run, (run, row))
    return list(found.values())


def _name(row: Row) -> str:
    return " / ".join(row.labels.values())


def _and(words: Iterable[object]) -> str:
    *most, last = [str(word) for word in words]
    return f"{', '.join(most)} and {last}" if most else last
