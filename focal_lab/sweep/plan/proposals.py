"""The space of a search, the conversion of proposals to runs, and earlier proposals."""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any, Self

from focal_lab.data.option_names import recorded_config
from focal_lab.errors import UserError
from focal_lab.sweep.identity.identity_table import old_names
from focal_lab.sweep.identity.run_ids import Identities
from focal_lab.sweep.plan.cells import Cell
from focal_lab.sweep.plan.runs import Run, hash_of, make_runs
from focal_lab.sweep.spec.search_section import Range, SearchSection
from focal_lab.sweep.spec.suite import Suite
from focal_lab.sweep.spec.sweep_file import Level, Sweep
from focal_lab.utils.atomic_files import write_atomic

SEARCHES = "searches"
# Digits of a proposed number: enough for any rate, and the table shows what was trained.
_DIGITS = 4
# Digits of a number of a grid, and of labels: all but rounding errors.
_EXACT = 12
# Larger spaces are not listed.
_MOST_COMBINATIONS = 10_000

Params = dict[str, Any]


@dataclass(frozen=True)
class SearchSpace:
    """What a search may propose, and the run of each proposal, the same one on every machine.

    Attributes:
        sweep: its factors are searched by their labels, its search's ranges by numbers.
        experiment: the LightningCLI configuration under all proposals.
        overrides: settings of the command line.
        identities: names the runs, all by the user's code as it was at first.
        noted_code: the user's code of the command that started the search; None for that command itself.
    """

    sweep: Sweep
    suite: Suite
    experiment: dict[str, Any]
    overrides: dict[str, Any]
    identities: Identities = field(default_factory=Identities, compare=False, repr=False)
    noted_code: dict[str, str] | None = None

    @property
    def search(self) -> SearchSection:
        """How proposals are made."""
        assert self.sweep.search is not None
        return self.sweep.search

    @property
    def levels(self) -> dict[str, list[str]]:
        """Factor -> labels."""
        return {name: [level.label for level in levels] for name, levels in self.sweep.factors.items()}

    @cached_property
    def size(self) -> int | None:
        """The number of combinations; None if a range is continuous."""
        counts = [numbers.count for numbers in self.search.ranges.values()]
        known = [count for count in counts if count is not None]
        if len(known) < len(counts):
            return None
        return math.prod([*known, *(len(labels) for labels in self.levels.values())])

    @property
    def trials(self) -> int:
        """The number of runs that the search can have."""
        return self.search.trials if self.size is None else min(self.search.trials, self.size)

    @cached_property
    def combinations(self) -> list[Params] | None:
        """All possible proposals; None if there are too many."""
        if self.size is None or self.size > _MOST_COMBINATIONS:
            return None
        axes: dict[str, list[Any]] = dict(self.levels)
        axes |= {name: numbers.values() for name, numbers in self.search.ranges.items()}
        return [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]

    @cached_property
    def study(self) -> str:
        """Name of the study; the same with more trials, another sampler or other pruning."""
        raw = self.as_dict()
        raw["search"] = {key: raw["search"][key] for key in ("ranges", "objectives")}
        raw["search"]["compared on"] = "validation"  # earlier versions compared the test split
        for key in ("code", "path", "title"):
            del raw[key]
        return f"{self.sweep.name}-{self.suite.name}-{hash_of(old_names(raw))[:8]}"

    def cell(self, params: Mapping[str, Any]) -> Cell:
        """The cell of a proposal: labels of factors, and numbers."""
        labels: dict[str, str] = {}
        settings: dict[str, Any] = {}
        for name, levels in self.sweep.factors.items():
            labels[name] = str(params[name])
            settings |= next(level.settings for level in levels if level.label == labels[name])
        for name, numbers in self.search.ranges.items():
            settings[name] = _rounded(params[name], numbers)
            labels[name] = f"{settings[name]:.{_EXACT}g}"
        return Cell(labels, settings)

    def run(self, params: Mapping[str, Any]) -> Run:
        """The run of a proposal.

        Raises:
            UserError: the backbone cannot have this combination.
        """
        base = (self.sweep, self.suite, self.experiment, self.cell(params), self.sweep.tasks[0])
        (run,) = self.identities.settled(lambda: make_runs(*base, self.overrides, self.identities))
        return run

    def probes(self) -> Iterator[Params]:
        """Proposals that together have every label and both ends of every range."""
        low: Params = {name: labels[0] for name, labels in self.levels.items()}
        low |= {name: numbers.low for name, numbers in self.search.ranges.items()}
        yield low
        yield low | {name: numbers.high for name, numbers in self.search.ranges.items()}
        for name, labels in self.levels.items():
            for label in labels[1:]:
                yield low | {name: label}

    @cached_property
    def code(self) -> dict[str, str]:
        """The user's modules that proposals run, each with the digest of its code, see `user_code`."""
        runs = [self.run(params) for params in self.probes()]
        return {name: digest for run in runs for name, digest in run.identity.get("code", {}).items()}

    @property
    def planned_code(self) -> dict[str, str]:
        """`code` of the command that started the search."""
        return self.code if self.noted_code is None else self.noted_code

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for machines without the project's files."""
        return {
            "sweep": self.sweep.name,
            "path": str(self.sweep.path),
            "title": self.sweep.title,
            "task": self.sweep.tasks[0],
            "seed": self.sweep.seeds[0],
            "settings": self.sweep.settings,
            "factors": {
                name: {level.label: level.settings for level in levels}
                for name, levels in self.sweep.factors.items()
            },
            "search": asdict(self.search),
            "suite": self.suite.name,
            "backbones": self.suite.backbones,
            "experiment": self.experiment,
            "overrides": self.overrides,
            "code": self.planned_code,
        }

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Self:
        """The inverse of `as_dict`."""
        ranges = {name: Range(**values) for name, values in raw["search"]["ranges"].items()}
        factors = {
            name: tuple(Level(label, settings) for label, settings in levels.items())
            for name, levels in raw["factors"].items()
        }
        sweep = Sweep(
            name=raw["sweep"],
            path=Path(raw["path"]),
            title=raw["title"],
            paper=None,
            claim=None,
            tasks=(raw["task"],),
            seeds=(raw["seed"],),
            factors=factors,
            columns=(),
            settings=raw["settings"],
            search=SearchSection(**raw["search"] | {"ranges": ranges}),
        )
        suite = Suite(raw["suite"], Path(), raw["backbones"])
        experiment = recorded_config(raw["experiment"])  # plans of earlier versions have old names
        return cls(sweep, suite, experiment, raw["overrides"], noted_code=raw.get("code", {}))


class Proposals:
    """The proposals of a study: one small file each in `<out>/searches/<study>/`.

    The storage has them, too, and may be lost; these files and `result.json` are enough to resume.
    """

    def __init__(self, out: Path, space: SearchSpace) -> None:
        self._folder = out / SEARCHES / space.study
        self._space = space
        self._known: dict[str, tuple[Params, Run]] = {}

    def add(self, run: Run, params: Mapping[str, Any]) -> None:
        """Save a proposal before it is trained."""
        write_atomic(self._folder / f"{run.id}.json", json.dumps(dict(params)) + "\n")
        self._known[run.id] = dict(params), run

    def params(self, run: str) -> Params:
        """The proposal of a run."""
        return self._known[run][0]

    def runs(self) -> dict[str, Run]:
        """All runs proposed so far, by any command; by ID."""
        for path in sorted(self._folder.glob("*.json")):
            if path.stem not in self._known:
                try:
                    params = json.loads(path.read_text(encoding="utf-8"))
                    run = self._space.run(params)
                except (OSError, ValueError, KeyError, StopIteration, UserError):
                    continue  # not a proposal
                if run.id == path.stem:
                    self._known[run.id] = params, run
        return {name: run for name, (_, run) in self._known.items()}


def _rounded(value: float, numbers: Range) -> float:
    if numbers.whole:
        return int(value)
    if numbers.step is not None:
        return float(f"{value:.{_EXACT}g}")
    return min(max(float(f"{value:.{_DIGITS}g}"), numbers.low), numbers.high)
