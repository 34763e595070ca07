"""The tree that TensorBoard is shown: `<sweep>/<cell> seed N/`, made from a folder of runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath

from focal_lab.errors import UserError
from focal_lab.report.tensorboard import hparams
from focal_lab.report.tensorboard.curves import cells_of, layout, layout_record, mean_curves
from focal_lab.report.tensorboard.events import event_file
from focal_lab.report.tensorboard.log_dir import LAST, Tree, event_name
from focal_lab.report.tensorboard.names import file_name, key_of
from focal_lab.report.tensorboard.naming import ShownRun, ShownSweep
from focal_lab.report.tensorboard.pages import plots_event, table_event
from focal_lab.sweep.run_folder.outcome import Outcome, State, read_outcome
from focal_lab.sweep.run_folder.result import CONFIG_FILE
from focal_lab.sweep.spec.sweep_file import TASKS
from focal_lab.training.history_file import Point, read_history

_EVENT_FILES = "events.out.tfevents.*"


@dataclass(frozen=True)
class _Known:
    """What is in a run's folder.

    Attributes:
        changed: when the folder was last written to.
        events: its own event files.
        began, ended: seconds since 1970; `ended` is when something was written last.
    """

    changed: int
    events: tuple[Path, ...]
    outcome: Outcome
    points: tuple[Point, ...]
    began: float
    ended: float


class Board:
    """Makes trees, again and again; of a folder that has not changed nothing is read twice.

    Args:
        out: the folder of the runs.

    Attributes:
        doubts: sweeps without a table and why; each once.
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        self.doubts: dict[str, None] = {}
        self._known: dict[str, _Known] = {}

    def tree(self, sweeps: Sequence[ShownSweep]) -> Tree:
        """The links and files that show these sweeps."""
        tree = Tree()
        means = False
        for sweep in sweeps:
            for run in sweep.runs:
                self._add_run(tree, sweep.name, run)
            means |= self._add_means(tree, sweep)
            self._add_pages(tree, sweep)
        self._add_overview(tree, sweeps, means=means)
        return tree

    def _add_run(self, tree: Tree, sweep: str, run: ShownRun) -> None:
        known = self._look_at(run.id)
        if known is None or not (known.events or known.outcome.result):
            return
        place = PurePosixPath(sweep, run.name)
        values = hparams.session_values(sweep, run)
        began = known.began
        row = f"{run.name}, {sweep}"
        tree.files[place / event_name(key_of("start", row, values, began))] = lambda: event_file(
            hparams.session_start(row, values, began)
        )
        for path in known.events:
            tree.links[place / path.name] = path
        state, result = known.outcome.state, known.outcome.result
        if hparams.has_ended(state):
            step = known.points[-1].step if known.points else 0
            ended = known.ended
            key = key_of("end", str(state), step, result and (result.finished, result.metrics))
            tree.files[place / event_name(key, LAST)] = lambda: event_file(
                hparams.session_end(state, result, step, ended)
            )

    def _add_means(self, tree: Tree, sweep: ShownSweep) -> bool:
        """Means of the cells that have several finished seeds; whether there are any."""
        several = len({run.task for run in sweep.runs}) > 1
        added = False
        for (cell, task), runs in cells_of(sweep.runs).items():
            seeds = [self._curves(run) for run in runs]
            seeds = [points for points in seeds if points]
            if len(seeds) < 2:
                continue
            name = f"{cell} mean of {len(seeds)} seeds" + (f" {task}" if several else "")
            place = PurePosixPath(sweep.name, file_name(name)) / event_name(key_of("mean", task, seeds))
            tree.files[place] = lambda task=task, seeds=seeds: event_file(mean_curves(task, seeds))  # type: ignore[misc]
            added = True
        return added

    def _curves(self, run: ShownRun) -> tuple[Point, ...]:
        known = self._look_at(run.id)
        finished = known is not None and known.outcome.state is State.FINISHED
        return known.points if known is not None and finished else ()

    def _add_pages(self, tree: Tree, sweep: ShownSweep) -> None:
        if sweep.plan is None:
            return
        from focal_lab.report.table.build import build_table

        try:
            table = build_table(sweep.plan, self.out)
        except UserError as error:
            self.doubts[f"{sweep.name} is shown without its table: {error}"] = None
            return
        looked_at = (self._look_at(run.id) for run in sweep.runs)
        changed = max((known.ended for known in looked_at if known and known.outcome.result), default=0.0)
        key, place = key_of(table), PurePosixPath(sweep.name)
        tree.files[place / event_name(f"{key}.table")] = lambda: table_event(table, changed)
        tree.slow[place / event_name(f"{key}.plots")] = lambda: plots_event(table, self.out, changed)

    def _add_overview(self, tree: Tree, sweeps: Sequence[ShownSweep], *, means: bool) -> None:
        """Columns of HParams and layout of Custom Scalars, in a folder whose name changes with them."""
        there = {run.task for sweep in sweeps for run in sweep.runs}
        columns = hparams.experiment(sweeps)
        arranged = layout([task for task in TASKS if task in there], means=means)
        key = key_of(
            columns.SerializeToString(deterministic=True), arranged.SerializeToString(deterministic=True)
        )
        tree.files[PurePosixPath(f"overview {key[:6]}") / event_name(key)] = lambda: event_file(
            [hparams.experiment_record(columns), layout_record(arranged)]
        )

    def _look_at(self, run: str) -> _Known | None:
        """What is in a run's folder; None if it has just been removed."""
        folder = self.out / run
        try:
            changed = folder.stat().st_mtime_ns
        except OSError:
            self._known.pop(run, None)
            return None
        known = self._known.get(run)
        if known is None or known.changed != changed:
            outcome = read_outcome(folder)
            config = folder / CONFIG_FILE
            begun = (config if config.exists() else folder).stat().st_mtime
            known = self._known[run] = _Known(
                changed,
                tuple(sorted(folder.glob(_EVENT_FILES))),
                outcome,
                tuple(read_history(folder)),
                _seconds(outcome.result.started if outcome.result else None, begun),
                _seconds(outcome.result.finished if outcome.result else None, changed / 1e9),
            )
        return known


def _seconds(moment: str | None, otherwise: float) -> float:
    """Seconds since 1970 of a time in a record."""
    try:
        return datetime.fromisoformat(moment).timestamp() if moment else otherwise
    except ValueError:
        return otherwise
