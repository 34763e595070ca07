"""`focal-lab fit|validate|test|predict`: LightningCLI with our callbacks, and errors in one line.

A run of a sweep goes through the same class, with the same configuration file.
"""

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
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

    def before_instantiate_classes(self) -> None:
        """Refuse a checkpoint that is not there before anything is built."""
        checkpoint = self._get(self.config, "ckpt_path")
        if checkpoint and checkpoint not in ("best", "last", "hpc", "registry") and not Path(checkpoint).exists():
            raise UserError(f"{checkpoint} does not exist", key="--ckpt_path")

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
    """Turn what jsonargparse raises for a wrong configuration into a UserError of one line.

    It wraps what a constructor raises: a UserError inside is dug out.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        told = _inner_user_error(error)
        if told is not None:
            raise told from error
        if isinstance(error, ArgumentError):
            raise UserError(shorten(str(error))) from error
        raise


def shorten(message: str) -> str:
    """Key, reason and value of a jsonargparse message, which has a line for every type it tried."""
    key = ".".join(re.findall(r'Parser key "([^"]+)"', message))
    lines = [line.strip(" -") for line in message.splitlines() if line.strip()]
    reasons = [line for line in lines if not _STRUCTURE.match(line)] or lines[-1:]
    reason = re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", "; ".join(dict.fromkeys(reasons)))
    owner = re.findall(r"given class_path '(?:\w+\.)*(\w+)'", message)
    if owner and reason.endswith("is not accepted"):
        reason += f" by {owner[-1]}"
    # the first value named is that of the innermost key
    value = re.search(r"Given value: (.*)", message)
    if value and "value" not in reason and owner == []:
        reason += f", not {value.group(1)}"
    return f"{key}: {reason}" if key else reason


# lines that tell how jsonargparse looked, not what is wrong
_STRUCTURE = re.compile(
    r"Parser key|Does not validate|Subtypes:|Errors:|Given value|Problem with given|Expected a <class 'NoneType'>"
)


def _inner_user_error(error: BaseException | None) -> UserError | None:
    while error is not None:
        if isinstance(error, UserError):
            return error
        error = error.__cause__ or error.__context__
    return None
