"""The trainer's numbers that Lightning takes and stumbles over later, or takes for something else."""

from collections.abc import Callable, Mapping
from typing import Any

from lightning.pytorch.strategies import StrategyRegistry

from focal_lab.errors import UserError, one_of

# A negative norm to clip to turns every gradient around: the loss rises, and nothing says why.
_RULES: Mapping[str, tuple[Callable[[float], bool], str]] = {
    "accumulate_grad_batches": (lambda value: value >= 1, "1 or more"),
    "check_val_every_n_epoch": (lambda value: value >= 1, "1 or more, or null"),
    "gradient_clip_val": (lambda value: value >= 0, "0 or more, or null"),
    "limit_train_batches": (lambda value: value > 0, "above 0"),
    "num_nodes": (lambda value: value >= 1, "1 or more"),
    "val_check_interval": (lambda value: value > 0, "above 0"),
}


def check_trainer_options(options: Mapping[str, Any]) -> None:
    """Refuse values before anything is built.

    Args:
        options: the trainer's, as LightningCLI has parsed them.

    Raises:
        UserError: a number is out of its range, or there is no such strategy.
    """
    for name, (holds, rule) in _RULES.items():
        value = options.get(name)
        if isinstance(value, int | float) and not holds(value):
            raise UserError(f"{value} is out of range (use {rule})", key=f"trainer.{name}")
    strategy = options.get("strategy", "auto")
    known = ["auto", *StrategyRegistry.available_strategies()]
    if isinstance(strategy, str) and strategy not in known:
        raise UserError(f"{strategy!r} is not a strategy (use {one_of(known)})", key="trainer.strategy")
