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
from focal_lab.training.config_errors import one_line_errors
from focal_lab.training.history_callback import History
from focal_lab.training.history_file import Point
from focal_lab.training.lightning_cli import FocalCLI
from focal_lab.training.predictions import KeepPredictions
from focal_lab.training.stop import StopOnWord
from focal_lab.training.stop import Stopped as Stopped


@dataclass(frozen=True)
class TrainingResult:
    """What a training measured.

    Attributes:
        metrics: the task's metrics on the test split, accuracies in percent.
        train_seconds: wall time of the fit, over all resumptions.
        images_per_second: training images per second, validation excluded.
        peak_memory_mb: highest allocation on the device, or on CPU the process's highest resident memory.
        validation: the same metrics on the validation split, after the epoch whose weights were tested.
        evaluated: `checkpoint` (best or last) and `split` (test or val) of `metrics`.
        tested_on: `describe_test_set` of the test images; empty in all processes but the first.
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
    listener: Callable[[dict[str, Any]], None] | None = None,
    stop: Callable[[], str | None] | None = None,
) -> TrainingResult:
    """Fit, then test the best epoch on the test split.

    Where the data has no test split of its own, the last epoch is tested: the best one was chosen by the very
    images that are reported. Processes that train together find each other by their environment (WORLD_SIZE,
    LOCAL_RANK, MASTER_ADDR, MASTER_PORT) and `trainer.devices` and `trainer.strategy` of the configuration;
    all call this, only the first writes.

    Args:
        config: a LightningCLI configuration without paths.
        folder: gets the checkpoints, the curves (`history_file`), TensorBoard's event file, and at the end
            the predictions (`predictions_file`).
        resume_from: checkpoint of an earlier, interrupted training of the same configuration.
        listener: receives the progress, see `Progress`.
        stop: called after every batch. After "stop" the training leaves a checkpoint that `latest_checkpoint`
            finds, after another word none.

    Raises:
        UserError: the configuration is wrong.
        Stopped: `stop` returned a word.
        DivergedError: the loss or a test metric is not finite.
        OSError: the disk is full.
    """
    warnings.filterwarnings("ignore", message=".*num_workers.*")
    # raised for every checkpoint within an epoch; `exact_resume` finds the position in the data
    warnings.filterwarnings("ignore", message=".*resuming from a checkpoint that ended before the epoch.*")
    cli = build(config, folder)
    trainer: Any = cli.trainer
    timing, tested, history, kept = Timing(), CountTested(), History(folder), KeepPredictions()
    trainer.callbacks.insert(0, history)  # first, so that checkpoints have the latest point
    trainer.callbacks.extend([timing, tested, kept])
    if listener is not None:
        trainer.callbacks.append(Progress(listener))
    if stop is not None:
        trainer.callbacks.append(StopOnWord(stop, folder))
    with one_line_errors():
        trainer.fit(cli.model, cli.datamodule, ckpt_path=str(resume_from) if resume_from else None)
    if not trainer.state.finished:
        raise RuntimeError("training was interrupted")
    if trainer.is_global_zero and (folder / LAST_CHECKPOINT).exists():
        (folder / STOPPED_CHECKPOINT).unlink(missing_ok=True)
    # a ModelCheckpoint without a monitor calls its latest the best
    best = next((one.best_model_path for one in trainer.checkpoint_callbacks if one.monitor is not None), "")
    on_validation = tests_on_validation(cli.datamodule)
    checkpoint = best if best and not on_validation else None
    found = trainer.test(cli.model, cli.datamodule, ckpt_path=checkpoint, verbose=False)
    metrics = {name: float(found[0][f"test/{name}"]) for name in cli.model.result_metrics}
    _log_hyperparameters(cli, metrics)
    if not all(torch.isfinite(torch.tensor(value)) for value in metrics.values()):
        raise DivergedError(f"a test metric is not finite: {metrics}")
    kept.write(folder, metrics)
    return TrainingResult(
        metrics,
        timing.train_seconds,
        timing.images_per_second,
        peak_memory_mb(),
        validation=_validation(cli.model, history.points, checkpoint),
        evaluated={
            "checkpoint": "best" if checkpoint else "last",
            "split": "val" if on_validation else "test",
        },
        tested_on=describe_test_set(trainer, cli.datamodule, tested.count) if trainer.is_global_zero else {},
    )


def build(config: Mapping[str, Any], folder: Path) -> FocalCLI:
    """Model, data and trainer of a configuration, writing to `folder` and silent on the terminal.

    Loggers of the configuration log beside ours; `logger: false` disables all.

    Raises:
        UserError: the configuration is wrong.
    """
    # one batch shows whether validation works; Lightning's two take half a second of every detector
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
    # first, and without name and version: event file and checkpoints/ are in the run's own folder
    cli.trainer.loggers = [RunLogger(folder, name="", version="", default_hp_metric=False), *own]
    return cli


class RunLogger(TensorBoardLogger):
    """Keeps one event file for fit, test and the final metrics; Lightning's closes it after each."""

    def finalize(self, status: str) -> None:
        self.experiment.flush()

    def close(self) -> None:
        """Close the event file at the end of the run."""
        super().finalize("success")


def latest_checkpoint(folder: Path) -> Path | None:
    """The checkpoint in a run's folder that loses the least work; None when there is none to resume from.

    Nothing in the files is executed.
    """
    candidates = [folder / name for name in (LAST_CHECKPOINT, STOPPED_CHECKPOINT)]
    return max(filter(resumable, candidates), key=checkpoint_progress, default=None)


def resumable(checkpoint: Path) -> bool:
    """Whether a training can resume from a checkpoint; False for a truncated or foreign file."""
    return checkpoint_problem(checkpoint, resume=True) is None


def peak_memory_mb() -> float:
    """Highest memory so far: allocated on the current CUDA device, or else resident in this process."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def _validation(model: Any, points: Sequence[Point], checkpoint: str | None) -> dict[str, float]:
    """The metrics of the validation after which a checkpoint was written, or of the last validation."""
    step = None if checkpoint is None else checkpoint_progress(Path(checkpoint))[0]
    found = [point.values for point in points if step in (None, point.step)]
    values = found[-1] if found else {}
    return {name: values[f"val/{name}"] for name in model.result_metrics if f"val/{name}" in values}


def _name_version(logger: Logger, run: str) -> None:
    """Concurrent runs would pick the same `version_0`, and a resumed one must not overwrite its files."""
    if isinstance(logger, TensorBoardLogger | CSVLogger) and logger._version is None:
        names = (run, *(f"{run}-{attempt}" for attempt in range(2, 1000)))
        logger._version = next((name for name in names if not Path(logger.root_dir, name).exists()), None)


def _log_hyperparameters(cli: FocalCLI, metrics: Mapping[str, float]) -> None:
    """One HParams entry per run, with the final metrics: earlier ones would show placeholders."""
    logger = cli.trainer.logger
    if isinstance(logger, RunLogger):
        tagged = {f"test/{name}": value for name, value in metrics.items()}
        # at the step at which the test logged them
        logger.log_hyperparams(dict(cli.model.hparams), tagged, cli.trainer.global_step)
        logger.close()
