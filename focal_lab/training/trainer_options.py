"""Checks the trainer's options that Lightning accepts and fails on later, or misinterprets."""

import re
import sys
from collections.abc import Mapping, Sequence
from pkgutil import resolve_name
from typing import Any

from lightning.pytorch.accelerators import AcceleratorRegistry
from lightning.pytorch.strategies import StrategyRegistry
from lightning_utilities.core.imports import RequirementCache

from focal_lab.errors import UserError, one_of

# Least value and rule of each number. A negative norm to clip to would reverse every gradient, silently.
_LEAST = {
    "accumulate_grad_batches": (1, "1 or more"),
    "check_val_every_n_epoch": (1, "1 or more, or null"),
    "fast_dev_run": (0, "0 or more"),
    "gradient_clip_val": (0, "0 or more, or null"),
    "log_every_n_steps": (0, "0 or more"),
    "max_epochs": (-1, "0 or more, or -1 for no end"),
    "max_steps": (-1, "0 or more, or -1 for no end"),
    "min_epochs": (0, "0 or more"),
    "min_steps": (0, "0 or more"),
    "num_nodes": (1, "1 or more"),
    "num_sanity_val_steps": (-1, "0 or more, or -1 for all"),
    "reload_dataloaders_every_n_epochs": (0, "0 or more"),
}
# Batches, 1, or a share of them, 1.0.
_SOME_BATCHES = ("limit_train_batches", "val_check_interval")
_BATCHES = ("limit_val_batches", "limit_test_batches", "limit_predict_batches", "overfit_batches")
_TIME = re.compile(r"\d+:\d\d:\d\d:\d\d")


def check_trainer_options(options: Mapping[str, Any]) -> None:
    """Check values before anything is built.

    Args:
        options: the trainer's, as LightningCLI has parsed them.

    Raises:
        UserError: a number is out of range, or a word is unknown to Lightning.
    """
    numbers = {name: value for name, value in options.items() if isinstance(value, int | float)}
    rules = {name: (numbers.get(name, least) >= least, rule) for name, (least, rule) in _LEAST.items()}
    for name in (*_SOME_BATCHES, *_BATCHES):
        value, some = numbers.get(name, 1), name in _SOME_BATCHES
        valid = (value > 0 if some else value >= 0) and (isinstance(value, int) or value <= 1)
        rules[name] = (
            valid,
            f"a share in {'(' if some else '['}0.0, 1.0], or a number of batches of {some:d} or more",
        )
    for name, (valid, rule) in rules.items():
        if not valid:
            raise UserError(f"{numbers[name]} is out of range (use {rule})", key=f"trainer.{name}")
    _check_word(options, "strategy", ["auto", *StrategyRegistry.available_strategies()], "a strategy")
    accelerators = sorted({"auto", "gpu", *AcceleratorRegistry.available_accelerators()})
    _check_word(options, "accelerator", accelerators, "an accelerator")
    _check_word(options, "profiler", ("simple", "advanced", "pytorch", "xla"), "a profiler")
    _check_word(options, "gradient_clip_algorithm", ("norm", "value"), "a way to clip")
    time = options.get("max_time")
    if isinstance(time, str) and not _TIME.fullmatch(time.strip()):
        raise UserError(
            f"{time!r} is not days:hours:minutes:seconds, such as 00:12:00:00", key="trainer.max_time"
        )
    loggers = options.get("logger")
    for logger in loggers if isinstance(loggers, list) else [loggers]:
        _check_installed(getattr(logger, "class_path", None))


def _check_installed(logger: str | None) -> None:
    """Lightning's loggers check for the package that they need only when they are built."""
    if logger is None:
        return
    module = sys.modules[resolve_name(logger).__module__]
    needed = [value for value in vars(module).values() if isinstance(value, RequirementCache)]
    if needed and not any(needed):
        raise UserError(f"{logger.rpartition('.')[2]}: {needed[0]}", key="trainer.logger")


def _check_word(options: Mapping[str, Any], name: str, known: Sequence[str], what: str) -> None:
    value = options.get(name)
    if isinstance(value, str) and value.lower() not in known:
        raise UserError(f"{value!r} is not {what} (use {one_of(known)})", key=f"trainer.{name}")
