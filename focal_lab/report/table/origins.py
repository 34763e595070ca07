"""Provenance of results: code, versions, machines and data."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from focal_lab.report.table.long_table import flatten
from focal_lab.report.table.records import Provenance
from focal_lab.sweep.run_folder.result import Result
from focal_lab.sweep.spec.columns import pixels

# Settings that change how fast images are loaded, not which; and seeds, which every row has several of.
_ONLY_SPEED = frozenset({"batch_size", "num_workers", "pin_memory", "persistent_workers", "prefetch_factor"})
_SEEDS = frozenset({"data_seed", "order_seed"})
_NO_COMMIT = "no commit"
_CLASS = "data.class"


def provenance_of(results: Sequence[Result], mixed_tests: tuple[str, ...] = ()) -> Provenance:
    """Commits, versions and hardware of finished runs, most frequent first."""
    counted: dict[str, dict[str, str]] = {}
    for result in results:
        if len(result.image_size) == 2:
            height, width = result.image_size
            counted.setdefault(result.task, {})[pixels((height, width))] = result.image_size_from
    packages = dict.fromkeys(name for result in results for name in result.versions)
    versions = {
        name: Counter(result.versions[name] for result in results if name in result.versions)
        for name in packages
    }
    untold = sum("images" not in result.tested_on for result in results)
    return Provenance(
        commits=dict(Counter(map(_commits, results)).most_common()),
        dirty=sum(any(state.get("dirty") for state in _states(result)) for result in results),
        versions={name: dict(found.most_common()) for name, found in versions.items()},
        counted_at=counted,
        hardware=dict(Counter(result.hardware for result in results).most_common()),
        parts=dict(Counter(part for result in results for part in _parts(result))),
        last_epoch=dict(Counter(result.task for result in results if result.evaluated.get("split") == "val")),
        mixed_tests=mixed_tests,
        untold_tests=untold if len(results) > 1 else 0,
    )


def _parts(result: Result) -> list[str]:
    """Settings by which a run was evaluated on a part of its images; 1.0 is all, but 1 is one batch."""
    trainer = result.config.get("trainer") or {}
    limits = {f"limit_{key}_batches": trainer.get(f"limit_{key}_batches") for key in ("test", "val")}
    found = {
        key: value
        for key, value in limits.items()
        if value is not None and not (isinstance(value, float) and value == 1)
    }
    found |= {key: trainer[key] for key in ("overfit_batches", "fast_dev_run") if trainer.get(key)}
    return [f"trainer.{key}={value}" for key, value in found.items()]


def _states(result: Result) -> list[Mapping[str, Any]]:
    """Git states of our repository and of those of the user's own code."""
    return [result.git, *result.git.get("user_code", [])]


def _commits(result: Result) -> str:
    """Our commit, then the folder and commit of each repository of the user's own code."""
    ours, *others = _states(result)
    named = [f"{state['folder']} {str(state['commit'] or _NO_COMMIT)[:12]}" for state in others]
    commit = str(ours.get("commit") or _NO_COMMIT)
    return ", ".join([commit[:12] if named else commit, *named])


def describe_data(rows: Sequence[Sequence[Result]]) -> list[str]:
    """Settings of the data that differ between rows, given the finished runs of each; else empty strings."""
    described = []
    for row in rows:
        # the runs of a row and task differ only in their seeds: one of them is enough
        one_a_task = {result.task: result for result in row}
        described.append(
            {key: value for result in one_a_task.values() for key, value in _data(result).items()}
        )

    def differs(key: str) -> bool:
        task = key.partition(".")[0]
        return len({data.get(key) for data in described if f"{task}.{_CLASS}" in data}) > 1

    differing = [key for key in dict.fromkeys(key for data in described for key in data) if differs(key)]
    return [
        ", ".join(f"{key.rpartition('.')[2]} {data[key]}" for key in differing if key in data)
        for data in described
    ]


def _data(result: Result) -> dict[str, str]:
    data: Any = result.config.get("data", {})
    init_args = data.get("init_args", {}) if isinstance(data, Mapping) else {}
    settings = {key: value for key, value in init_args.items() if key not in _ONLY_SPEED | _SEEDS}
    found = flatten(settings, f"{result.task}.data")
    found[f"{result.task}.{_CLASS}"] = str(data.get("class_path", "")).rpartition(".")[2]
    network = result.identity.get("network")
    if isinstance(network, Mapping) and "img_size" in network:
        found |= flatten(network["img_size"], f"{result.task}.img_size")
    return {key: str(value) for key, value in found.items()}
