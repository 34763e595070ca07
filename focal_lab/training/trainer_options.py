"""The trainer's numbers that Lightning takes and stumbles over later, or takes for something else."""

import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pkgutil import resolve_name
from typing import Any

from lightning.pytorch.accelerators import AcceleratorRegistry
from lightning.pytorch.strategies import StrategyRegistry
from lightning_utilities.core.imports import RequirementCache

from focal_lab.errors import UserError, one_of


def _most(value: float) -> float:
    """Of a count or a share: 1 is one batch, 1.0 is all of them."""
    return math.inf if isinstance(value, int) else 1.0


_SOME_BATCHES = "a share in (0.0, 1.0], or a number of batches of 1 or more"
_BATCHES = "a share in [0.0, 1.0], or a number of batches of 0 or more"
_COUNT = "0 or more"
_ENDLESS = "0 or more, or -1 for no end"
# A negative norm to clip to turns every gradient around: the loss rises, and nothing says why.
_RULES: Mapping[str, tuple[Callable[[float], bool], str]] = {
    "accumulate_grad_batches": (lambda value: value >= 1, "1 or more"),
    "check_val_every_n_epoch": (lambda value: value >= 1, "1 or more, or null"),
    "fast_dev_run": (lambda value: value >= 0, _COUNT),
    "gradient_clip_val": (lambda value: value >= 0, "0 or more, or null"),
    "limit_train_batches": (lambda value: 0 < value <= _most(value), _SOME_BATCHES),
    "limit_val_batches": (lambda value: 0 <= value <= _most(value), _BATCHES),
    "limit_test_batches": (lambda value: 0 <= value <= _most(value), _BATCHES),
    "limit_predict_batches": (lambda value: 0 <= value <= _most(value), _BATCHES),
    "log_every_n_steps": (lambda value: value >= 0, _COUNT),
    "max_epochs": (lambda value: value >= -1, _ENDLESS),
    "max_steps": (lambda value: value >= -1, _ENDLESS),
    "min_epochs": (lambda value: value >= 0, _COUNT),
    "min_steps": (lambda value: value >= 0, _COUNT),
    "num_nodes": (lambda value: value >= 1, "1 or more"),
    "num_sanity_val_steps": (lambda value: value >= -1, "0 or more, or -1 for all"),
    "overfit_batches": (lambda value: 0 <= value <= _most(value), _BATCHES),
    "reload_dataloaders_every_n_epochs": (lambda value: value >= 0, _COUNT),
    "val_check_interval": (lambda value: 0 < value <= _most(value), _SOME_BATCHES),
}
_PROFILERS = ("simple", "advanced", "pytorch", "xla")
_CLIPPING = ("norm", "value")
_TIME = re.compile(r"\d+:\d\d:\d\d:\d\d")


def check_trainer_options(options: Mapping[str, Any]) -> None:
    """Refuse values before anything is built.

    Args:
        options: the trainer's, as LightningCLI has parsed them.

    Raises:
        UserError: a number is out of its range, or a word is not one that Lightning knows.
    """
    for name, (holds, rule) in _RULES.items():
        value = options.get(name)
        if isinstance(value, int | float) and not holds(value):
            raise UserError(f"{value} is out of range (use {rule})", key=f"trainer.{name}")
    _check_word(options, "strategy", ["auto", *StrategyRegistry.available_strategies()], "a strategy")
    there = sorted({"auto", "gpu", *AcceleratorRegistry.available_accelerators()})
    _check_word(options, "accelerator", there, "an accelerator")
    _check_word(options, "profiler", _PROFILERS, "a profiler")
    _check_word(options, "gradient_clip_algorithm", _CLIPPING, "a way to clip")
    time = options.get("max_time")
    if isinstance(time, str) and not _TIME.fullmatch(time.strip()):
        raise UserError(
            f"{time!r} is not days:hours:minutes:seconds, such as 00:12:00:00", key="trainer.max_time"
        )
    loggers = options.get("logger")
    for logger in loggers if isinstance(loggers, list) else [loggers]:
        _check_installed(getattr(logger, "class_path", None))


def _check_installed(logger: str | None) -> None:
    """A logger of Lightning's looks for the package that it needs only when it is built."""
    if logger is None:
        return
    there = sys.modules[resolve_name(logger).__module__]
    needed = [value for value in vars(there).values() if isinstance(value, RequirementCache)]
    if needed and not any(needed):
        raise UserError(f"{logger.rpartition('.')[2]}: {needed[0]}", key="trainer.logger")


def _check_word(options: Mapping[str, Any], name: str, known: Sequence[str], what: str) -> None:
    value = options.get(name)
    if isinstance(value, str) and value.lower() not in known:
        raise UserError(f"{value!r} is not {what} (use {one_of(known)})", key=f"trainer.{name}")
