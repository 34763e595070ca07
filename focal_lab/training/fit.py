"""One training from a LightningCLI configuration to its test metrics, as a sweep runs it."""

import resource
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger

from focal_lab.tasks.base import tests_on_validation
from focal_lab.tasks.tested import CountTested, describe_test_set
from focal_lab.training.callbacks import DivergedError, Progress, Timing
from focal_lab.training.checkpoints import LAST_CHECKPOINT, STOPPED_CHECKPOINT
from focal_lab.training.checkpoints.read import checkpoint_problem, checkpoint_progress
from focal_lab.training.cli import FocalCLI, one_line_errors
from focal_lab.training.history_callback import History
from focal_lab.training.history_file import Point
from focal_lab.training.stop import StopOnWord
from focal_lab.training.stop import Stopped as Stopped

Listener = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Trained:
    """What a training came to.

    Attributes:
        metrics: the task's metrics on the test split, accuracies in percent.
        train_seconds: wall time of the fit, over all its resumptions.
        images_per_second: training pictures per second, validation left out.
        peak_memory_mb: highest allocation on the device, or resident memory of the process on CPU, in MB.
        validation: the same metrics on the validation split, after the epoch whose weights were tested; empty
            without a validation.
        evaluated: `checkpoint`, best or last, and `split`, test or val: what the metrics are of.
        tested_on: which images that were, see `describe_test_set`; empty in all processes but the first.
    """

    metrics: dict[str, float]
    train_seconds: float
    images_per_second: float
    peak_memory_mb: float
    validation: dict[str, float]
    evaluated: dict[str, str]
    tested_on: dict[str, Any]


def train(
    config: Mapping[str, Any],
    folder: Path,
    *,
    resume_from: Path | None = None,
    listener: Listener | None = None,
    stop: Callable[[], str | None] | None = None,
) -> Trained:
    """Fit, then test: the best epoch on the test split.

    Where the data has no test split of its own, the last epoch is tested: the best one was chosen by the very
    images that would be reported.

    One of several processes that train together is told so by its environment (WORLD_SIZE, LOCAL_RANK,
    MASTER_ADDR, MASTER_PORT), and by `trainer.devices` and `trainer.strategy` of the configuration. All must
    call this; only the first writes.

    Args:
        config: a LightningCLI configuration without paths.
        folder: gets the checkpoints, the curves (`history_file`) and TensorBoard's event file.
        resume_from: checkpoint of an earlier, interrupted training of the same configuration.
        listener: is told where training is.
        stop: asked at the end of every batch. After "stop" the training leaves a checkpoint that
            `latest_checkpoint` finds, after another word it leaves none.

    Raises:
        UserError: the configuration is wrong.
        Stopped: `stop` said so.
        DivergedError: the loss is not a number.
    """
    warnings.filterwarnings("ignore", message=".*num_workers.*")
    # said of every checkpoint within an epoch; `resumption` finds the place in the data
    warnings.filterwarnings("ignore", message=".*resuming from a checkpoint that ended before the epoch.*")
    cli = build(config, folder)
    timing = Timing()
    # first, so that checkpoints hold the latest point
    history = History(folder)
    cli.trainer.callbacks.insert(0, history)  # type: ignore[attr-defined]
    tested_images = CountTested()
    cli.trainer.callbacks.extend([timing, tested_images])  # type: ignore[attr-defined]
    if listener is not None:
        cli.trainer.callbacks.append(Progress(listener))  # type: ignore[attr-defined]
    if stop is not None:
        cli.trainer.callbacks.append(StopOnWord(stop, folder))  # type: ignore[attr-defined]
    with one_line_errors():
        cli.trainer.fit(cli.model, cli.datamodule, ckpt_path=str(resume_from) if resume_from else None)
    if not cli.trainer.state.finished:
        raise RuntimeError("training was interrupted")
    if cli.trainer.is_global_zero and (folder / LAST_CHECKPOINT).exists():
        (folder / STOPPED_CHECKPOINT).unlink(missing_ok=True)
    # one without a monitor calls its latest the best
    keepers: Any = cli.trainer.checkpoint_callbacks
    best = next((keeper.best_model_path for keeper in keepers if keeper.monitor is not None), "")
    chosen = bool(best) and not tests_on_validation(cli.datamodule)
    tested = cli.trainer.test(cli.model, cli.datamodule, ckpt_path=best if chosen else None, verbose=False)
    metrics = {name: float(tested[0][f"test/{name}"]) for name in cli.model.result_metrics}
    _log_hyperparameters(cli, metrics)
    if not all(torch.isfinite(torch.tensor(value)) for value in metrics.values()):
        raise DivergedError(f"a test metric is not a number: {metrics}")
    return Trained(
        metrics,
        timing.train_seconds,
        timing.images_per_second,
        peak_memory_mb(),
        validation=_validation(cli.model, history.points, Path(best) if chosen else None),
        evaluated={
            "checkpoint": "best" if chosen else "last",
            "split": "val" if tests_on_validation(cli.datamodule) else "test",
        },
        tested_on=describe_test_set(cli.trainer, cli.datamodule, tested_images.count)
        if cli.trainer.is_global_zero
        else {},
    )


def _validation(model: Any, points: Sequence[Point], checkpoint: Path | None) -> dict[str, float]:
    """The metrics of the validation that a checkpoint was written after, or of the last one."""
    step = None if checkpoint is None else checkpoint_progress(checkpoint)[0]
    found = [point.values for point in points if step in (None, point.step)]
    values = found[-1] if found else {}
    return {name: values[f"val/{name}"] for name in model.result_metrics if f"val/{name}" in values}


def build(config: Mapping[str, Any], folder: Path) -> FocalCLI:
    """Model, data and trainer of a configuration, writing to `folder` and silent on the terminal.

    Loggers of the configuration log beside our own; `logger: false` leaves both out.

    Raises:
        UserError: the configuration is wrong.
    """
    # one batch tells whether validation works; Lightning's two are half a second of every detector
    trainer: dict[str, Any] = {"num_sanity_val_steps": 1} | dict(config.get("trainer", {}))
    trainer |= {"default_root_dir": str(folder), "enable_progress_bar": False}
    with one_line_errors():
        cli = FocalCLI(dict(config) | {"trainer": trainer}, run=False, save_config_callback=None)
    chosen = trainer.get("logger")
    if chosen is False:
        return cli
    own = [] if chosen in (None, True) else list(cli.trainer.loggers)
    for logger in own:
        _name_version(logger, folder.name)
    # first, and name and version empty: event file and checkpoints/ lie in the run's own folder
    cli.trainer.loggers = [RunLogger(folder, name="", version="", default_hp_metric=False), *own]
    return cli


def _name_version(logger: Logger, run: str) -> None:
    """Runs side by side would choose the same next `version_0`; a resumed one must not replace its files."""
    if isinstance(logger, TensorBoardLogger | CSVLogger) and logger._version is None:
        names = (run, *(f"{run}-{attempt}" for attempt in range(2, 1000)))
        logger._version = next((name for name in names if not Path(logger.root_dir, name).exists()), None)


class RunLogger(TensorBoardLogger):
    """Keeps one event file for fit, test and the final metrics; Lightning's closes it after each."""

    def finalize(self, status: str) -> None:
        """Write out what is there; `close` ends it."""
        self.experiment.flush()

    def close(self) -> None:
        """The run is over."""
        super().finalize("success")


def resumable(checkpoint: Path) -> bool:
    """Whether a training can go on from a checkpoint; False for a truncated or foreign file.

    Nothing in the file is executed.
    """
    return checkpoint_problem(checkpoint, resume=True) is None


def latest_checkpoint(folder: Path) -> Path | None:
    """The checkpoint in a run's folder from which least has to be repeated; None when no training can go on.

    Nothing in the files is executed.
    """
    candidates = [folder / name for name in (LAST_CHECKPOINT, STOPPED_CHECKPOINT)]
    return max(filter(resumable, candidates), key=checkpoint_progress, default=None)


def peak_memory_mb() -> float:
    """Highest memory so far: allocated on the current CUDA device, else resident in this process."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def _log_hyperparameters(cli: FocalCLI, metrics: Mapping[str, float]) -> None:
    """One HParams entry a run, with the final metrics: earlier ones would show placeholders."""
    logger = cli.trainer.logger
    if isinstance(logger, RunLogger):
        logger.log_hyperparams(
            dict(cli.model.hparams),
            {f"test/{name}": value for name, value in metrics.items()},
            cli.trainer.global_step,  # the one that the test has logged them at
        )
        logger.close()
