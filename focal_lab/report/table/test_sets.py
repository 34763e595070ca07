"""Whether results were tested on the same images, labels and classes; only such numbers compare."""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from focal_lab.sweep.run_folder.result import Result

if TYPE_CHECKING:
    from focal_lab.report.table.model import Row

TestSet = Mapping[str, Any]
_NAMED = 5  # runs, in a sentence


def test_set_name(test: TestSet) -> str | None:
    """The same for tests of the same images, labels and classes; None where that is not known."""
    if "images" not in test:
        return None
    # with a letter: programs that read a CSV would take 61939680 or 1e939680 for a number
    return f"t{blake2b(repr(sorted(test.items())).encode(), digest_size=4).hexdigest()}"


def conflicting(tests: Iterable[TestSet]) -> bool:
    """Whether two of them differ in what both of them say."""
    known: dict[str, Any] = {}
    return any(known.setdefault(key, value) != value for test in tests for key, value in test.items())


def differences(test: TestSet, other: TestSet) -> list[str]:
    """In what a test set differs from another one, in words; what only one of them says does not count."""
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
    # of other images or classes labels are others anyway
    if "labels" in differ and not differ & {"images", "class_names"}:
        found.append("other labels")
    return found


def tests_of(rows: Iterable["Row"], task: str, results: Mapping[str, Result]) -> list[TestSet]:
    """The test sets of the finished runs of some rows and a task."""
    return [
        results[run.run].tested_on
        for row in rows
        for run in row.runs
        if run.task == task and run.run in results
    ]


def mixed_tests(
    results: Sequence[Result], group: Mapping[str, Hashable], names: Mapping[str, str]
) -> list[str]:
    """Sentences on runs that were not tested on what the others of their task and group were.

    Args:
        results: finished runs.
        group: run -> what its data is meant to be; those of different data on purpose are in groups apart.
        names: run -> what to call it; its id where there is none.
    """
    alike: dict[tuple[str, Hashable], list[Result]] = defaultdict(list)
    for result in results:
        alike[result.task, group.get(result.run)].append(result)
    return [
        sentence
        for (task, _), runs in alike.items()
        if conflicting(run.tested_on for run in runs)
        for sentence in _sentences(task, runs, names)
    ]


def untold(results: Sequence[Result]) -> int:
    """How many results do not say what they were tested on; 0 where there is nothing to compare."""
    return sum("images" not in result.tested_on for result in results) if len(results) > 1 else 0


def _sentences(task: str, runs: Sequence[Result], names: Mapping[str, str]) -> Iterable[str]:
    """One for each other test set, compared with that of most runs."""
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
    told = [names.get(run.run, run.run) for run in runs[:_NAMED]]
    more = f" and {len(runs) - _NAMED} more" if len(runs) > _NAMED else ""
    return f"{', '.join(told)}{more}"
