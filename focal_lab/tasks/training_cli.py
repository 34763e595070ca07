"""`focal-lab fit|validate|test|predict`: LightningCLI with our callbacks, and errors in one line.

A run of a sweep goes through the same class, with the same configuration file.
"""

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jsonargparse import ArgumentError
from lightning import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from focal_lab.errors import UserError
from focal_lab.tasks.callbacks import ReseedEachEpoch, StopWhenDiverged

SUBCOMMANDS = ("fit", "validate", "test", "predict")


class FocalCLI(LightningCLI):
    """LightningCLI for any task and data module; keeps the checkpoints of the best and the last epoch.

    Args:
        args: command line, or a configuration as a mapping.
        run: whether `args` begins with a subcommand, which is then run.
        kwargs: LightningCLI's.
    """

    def __init__(self, args: Sequence[str] | Mapping[str, Any], *, run: bool = True, **kwargs: Any) -> None:
        quiet: dict[str, Any] = {"exit_on_error": False}
        with _no_command_line():
            super().__init__(
                LightningModule,
                LightningDataModule,
                subclass_mode_model=True,
                subclass_mode_data=True,
                seed_everything_default=0,
                auto_configure_optimizers=False,
                parser_kwargs={"prog": "focal-lab", **quiet} | {name: dict(quiet) for name in SUBCOMMANDS if run},
                args=dict(args) if isinstance(args, Mapping) else list(args),
                run=run,
                **{"save_config_kwargs": {"overwrite": True}} | kwargs,
            )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Experiments need not say what nobody varies."""
        parser.set_defaults({"trainer.enable_model_summary": False})

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """A trainer with our callbacks; a ModelCheckpoint of the configuration replaces ours."""
        trainer = super().instantiate_trainer(**kwargs)
        callbacks = trainer.callbacks  # type: ignore[attr-defined]
        # Lightning adds one without a monitor when the configuration has none
        for i, callback in enumerate(callbacks):
            if type(callback) is ModelCheckpoint and callback.monitor is None:
                callbacks[i] = best_and_last(self.model)
        callbacks.append(StopWhenDiverged())
        callbacks.append(ReseedEachEpoch(int(self._get(self.config, "seed_everything") or 0)))
        if trainer.loggers:
            callbacks.append(LearningRateMonitor(logging_interval="step"))
        return trainer


def best_and_last(model: LightningModule) -> ModelCheckpoint:
    """`best.ckpt` by the task's own monitor, and `last.ckpt`."""
    return ModelCheckpoint(
        filename="best",
        monitor=getattr(model, "monitor", None),
        mode=getattr(model, "monitor_mode", "max"),
        save_last=True,
        enable_version_counter=False,
    )


def main(subcommand: str, argv: Sequence[str]) -> int:
    """Run one subcommand of the trainer.

    Raises:
        UserError: the configuration is malformed or names what does not exist.
    """
    if torch.cuda.is_available():
        torch.set_float32_matmul_precision("high")
    with one_line_errors():
        FocalCLI([subcommand, *argv])
    return 0


def check_config(config: Mapping[str, Any]) -> None:
    """Check a configuration against the signatures of its classes without building them.

    Raises:
        UserError: an unknown key or a value of the wrong type.
    """
    with one_line_errors():
        _ParseOnly(config, run=False, save_config_callback=None)


@contextmanager
def _no_command_line() -> Iterator[None]:
    """LightningCLI warns when it is given arguments and sys.argv has some too, as it has in `focal-lab`."""
    arguments = sys.argv
    sys.argv = arguments[:1]
    try:
        yield
    finally:
        sys.argv = arguments


class _ParseOnly(FocalCLI):
    """Stops after parsing."""

    def _set_seed(self) -> None:
        return None

    def instantiate_classes(self) -> None:
        return None


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn jsonargparse's complaints into a UserError of one line."""
    try:
        yield
    except ArgumentError as error:
        raise UserError(shorten(str(error))) from error


def shorten(message: str) -> str:
    """The telling lines of a jsonargparse message: which key failed, and the innermost reason."""
    lines = [re.sub(r"\s+", " ", line).strip(" -") for line in message.splitlines()]
    lines = [line for line in lines if line and not line.lower().startswith(("usage:", "tip:", "given value"))]
    first = re.sub(r"^(error: )?(parser key|validation failed: )", "", lines[0], flags=re.IGNORECASE).strip()
    return first if len(lines) == 1 or lines[-1] in first else f"{first} {lines[-1]}"
