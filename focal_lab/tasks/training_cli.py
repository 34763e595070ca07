"""`focal-lab fit|validate|test|predict`: LightningCLI with our defaults and errors in one line.

A run of a sweep goes through the same class, with the same configuration file.
"""

import re
import sys
from collections.abc import Sequence
from typing import Any

import torch
from jsonargparse import ArgumentError, Namespace
from lightning import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from focal_lab.errors import UserError

SUBCOMMANDS = ("fit", "validate", "test", "predict")


class FocalCLI(LightningCLI):
    """LightningCLI for any task and data module, with checkpoints of the best and the last epoch."""

    def __init__(self, args: Sequence[str] | None = None, *, run: bool = True, **kwargs: Any) -> None:
        parser_kwargs: dict[str, Any] = {"exit_on_error": False, "prog": "focal-lab"}
        super().__init__(
            LightningModule,
            LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            seed_everything_default=0,
            save_config_kwargs={"overwrite": True},
            auto_configure_optimizers=False,
            parser_kwargs=parser_kwargs if not run else {"exit_on_error": False} | _everywhere(parser_kwargs),
            args=list(args) if args is not None else None,
            run=run,
            **kwargs,
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """The seed of the data is the seed of everything, unless the data says otherwise."""
        parser.set_defaults({"trainer.enable_model_summary": False})

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """A trainer with our callbacks; a configured ModelCheckpoint replaces ours."""
        trainer = super().instantiate_trainer(**kwargs)
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
        if self.subcommand in (None, "fit") and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            ours = [callback for callback in callbacks if type(callback) is ModelCheckpoint]
            if len(ours) == 1 and ours[0].monitor is None:
                callbacks[callbacks.index(ours[0])] = best_and_last(self.model)
            if trainer.loggers and not any(isinstance(entry, LearningRateMonitor) for entry in callbacks):
                callbacks.insert(0, LearningRateMonitor(logging_interval="step"))
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
    # LightningCLI warns about sys.argv when it is given arguments; it should not see ours
    sys.argv = sys.argv[:1]
    if torch.cuda.is_available():
        torch.set_float32_matmul_precision("high")
    with one_line_errors():
        FocalCLI([subcommand, *argv])
    return 0


class one_line_errors:  # noqa: N801  (used like a function)
    """Turns jsonargparse's complaints into one line that names the key, the value and the rule."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, ArgumentError):
            raise UserError(shorten(str(error))) from error


def shorten(message: str) -> str:
    """The telling lines of a jsonargparse message, joined: what failed, and the innermost reason."""
    lines = [line.strip(" -") for line in message.splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith(("usage:", "tip:", "Given value"))]
    first = re.sub(r"^(error: )?(Parser key|Problem with given) ", "", lines[0]).replace('"', "")
    return first if len(lines) == 1 else f"{first} {lines[-1]}"


def parse_run(config: dict[str, Any]) -> Namespace:
    """Check a run's whole configuration against the signatures of its classes, without building them.

    Raises:
        UserError: an unknown key or a value of the wrong type.
    """
    with one_line_errors():
        cli = _ParseOnly(config)
    return cli.config


class _ParseOnly(FocalCLI):
    """Stops after parsing."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(run=False, save_config_callback=None)

    def instantiate_classes(self) -> None:
        return None


def _everywhere(parser_kwargs: dict[str, Any]) -> dict[str, Any]:
    return {name: {"exit_on_error": False} for name in SUBCOMMANDS}
