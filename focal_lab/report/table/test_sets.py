"""Whether runs were tested on the same images, labels and classes; only then do their metrics compare."""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Any

from focal_lab.report.table.records import Row
from focal_lab.sweep.run_folder.result import Result

TestSet = Mapping[str, Any]
_NAMED = 5  # runs listed by name in a sentence


def test_set_name(test: TestSet) -> str | None:
    """A short digest, equal for the same images, labels and classes; None if that is unknown."""
    if "images" not in test:
        return None
    # the letter keeps programs that read a CSV from taking 61939680 or 1e939680 for a number
    return f"t{blake2b(repr(sorted(test.items())).encode(), digest_size=4).hexdigest()}"


def conflicting(tests: Iterable[TestSet]) -> bool:
    """Whether two of them have different values for the same key."""
    return common_test(tests) is None


def common_test(tests: Iterable[TestSet]) -> TestSet | None:
    """All that is known of a test set that several runs share; None if they have different ones."""
    known: dict[str, Any] = {}
    for test in tests:
        new = not test.items() <= known.items()
        if new and any(known.setdefault(key, value) != value for key, value in test.items()):
            return None
    return known


def differences(test: TestSet, other: TestSet) -> list[str]:
    """How a test set differs from another one, in words; keys that only one of them has do not count."""
    differ = {key for key in test.keys() & other.keys() if test[key] != other[key]}
    found = []
    if "count" in differ:
        found.append(f"another number of images ({test['count']}, not {other['count']})")
    if "images" in differ:
        found.append("other images")
    if "class_names" in differ:
        found.append("other classes")
    elif "classes" in differ:
        found.append("another order of classes")
    # other images or classes imply other labels
    if "labels" in differ and not differ & {"images", "class_names"}:
        found.append("other labels")
    return found


def tests_of(rows: Iterable[Row], task: str, results: Mapping[str, Result]) -> list[TestSet]:
    """The test sets of the finished runs of some rows and a task."""
    runs = [run for row in rows for run in row.runs if run.task == task and run.run in results]
    return [results[run.run].tested_on for run in runs]


def same_tests(rows: Sequence[Row], task: str, results: Mapping[str, Result]) -> bool:
    """Whether the runs of rows with the same data were tested on the same images, labels and classes."""
    return not any(
        conflicting(tests_of([row for row in rows if row.data == data], task, results))
        for data in {row.data for row in rows}
    )


def mixed_tests(rows: Sequence[Row], results: Mapping[str, Result]) -> tuple[str, ...]:
    """Sentences about runs whose test set differs from that of the other runs of their task and data."""
    names: dict[str, str] = {}
    alike: dict[tuple[str, Hashable], dict[str, Result]] = defaultdict(dict)
    for row in rows:
        for run in row.runs:
            if run.run in results and run.run not in names:
                names[run.run] = f"{' / '.join(row.labels.values())}, seed {run.seed} ({run.run})"
                alike[run.task, row.data][run.run] = results[run.run]
    return tuple(
        sentence
        for (task, _), runs in alike.items()
        if conflicting(run.tested_on for run in runs.values())
        for sentence in _sentences(task, list(runs.values()), names)
    )


def _sentences(task: str, runs: Sequence[Result], names: Mapping[str, str]) -> Iterable[str]:
    """One for each test set but the most frequent, with which it is compared."""
    sets: dict[tuple[tuple[str, Any], ...], list[Result]] = defaultdict(list)
    for run in runs:
        if run.tested_on:
            sets[tuple(sorted(run.tested_on.items()))].append(run)
    most, *others = sorted(sets.values(), key=len, reverse=True)
    for part in others:
        found = differences(part[0].tested_on, most[0].tested_on)
        if found:
            yield (
                f"{task}: {_named(part, names)} {'was' if len(part) == 1 else 'were'} tested on "
                f"{' and '.join(found)} than {_named(most, names)}: their numbers do not compare (train the "
                "older of them again after focal-lab runs rm --force ID)."
            )


def _named(runs: Sequence[Result], names: Mapping[str, str]) -> str:
    more = f" and {len(runs) - _NAMED} more" if len(runs) > _NAMED else ""
    return ", ".join(names[run.run] for run in runs[:_NAMED]) + more
