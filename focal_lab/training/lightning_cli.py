"""`focal-lab fit|validate|test`: LightningCLI with our callbacks and one-line errors.

A run of a sweep goes through the same class with the same configuration file.
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, ClassVar

import torch
import yaml
from jsonargparse import ArgumentError, get_loader, set_loader
from lightning import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities import rank_zero_info

from focal_lab.data.option_checks import checks_files
from focal_lab.data.option_names import class_of_data, current_arguments, current_config
from focal_lab.errors import UserError
from focal_lab.tasks.classes import fill_in
from focal_lab.training.callbacks import DivergedError, LogLearningRate, StopWhenDiverged
from focal_lab.training.checkpoints.io import (
    AtomicCheckpointIO,
    MovableCheckpoint,
    PeriodicCheckpoint,
    RoomForCheckpoints,
)
from focal_lab.training.checkpoints.read import (
    check_same_network,
    check_trained,
    checkpoint_problem,
    hyperparameters,
    last_checkpoint,
    misfit,
)
from focal_lab.training.config_errors import one_line_errors, refuse_nulls, shorten
from focal_lab.training.exact_resume import ExactResume
from focal_lab.training.malloc import keep_freed_memory
from focal_lab.training.resumed_options import plain
from focal_lab.training.stop import RequeueOnSignal
from focal_lab.training.trainer_options import check_trainer_options
from focal_lab.training.union_order import try_int_before_float
from focal_lab.utils.yaml import load_yaml

SUBCOMMANDS = ("fit", "validate", "test", "predict")

try_int_before_float()
# every YAML that jsonargparse reads, whichever option names the file
_read_yaml = get_loader("yaml")
_data_class: ContextVar[object] = ContextVar("_data_class", default=None)  # of the command line being parsed
set_loader(
    "yaml",
    lambda text: current_config(_read_yaml(text), class_path=_data_class.get()),
    exceptions=(yaml.YAMLError,),
)


class FocalCLI(LightningCLI):
    """LightningCLI for any task and data module; keeps the checkpoints of the best and the last epoch.

    Args:
        args: command line, or a configuration as a mapping.
        run: whether `args` starts with a subcommand, which is then run.
        kwargs: LightningCLI's.
    """

    # options of the command that are not Lightning's, for "did you mean"
    own_options: ClassVar[Sequence[str]] = ("--dry-run", "--help-all")

    def __init__(self, args: Sequence[str] | Mapping[str, Any], *, run: bool = True, **kwargs: Any) -> None:
        quiet: dict[str, Any] = {"exit_on_error": False, "allow_abbrev": False}
        self._given_for_model = [] if isinstance(args, Mapping) else _model_arguments(args)
        warnings.filterwarnings("ignore", message="LightningCLI's args parameter")  # about sys.argv
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
        parser.set_defaults({"trainer.enable_model_summary": False})

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Check what jsonargparse accepts and Lightning fails on; it opens the checkpoint right after."""
        if isinstance(args, Mapping):
            args, data_class = current_config(args), class_of_data(args)
        else:
            # stricter than jsonargparse, which takes the last of a repeated key
            files = {file: load_yaml(file) for file in _config_files(args)}
            data_class = next(filter(None, map(class_of_data, reversed(files.values()))), None)
            for file, config in files.items():
                current_config(config, file, data_class)
            args = current_arguments(args, data_class)
        _data_class.set(data_class)
        try:
            super().parse_arguments(parser, args)
        except ArgumentError as error:
            parsers = getattr(self, "_subcommand_parsers", {}).values()
            known = {name for one in parsers for name in one._option_string_actions}
            raise UserError(shorten(str(error), known.union(self.own_options))) from error
        finally:
            _data_class.set(None)
        subcommand = self.config.get("subcommand")
        chosen = self.config[subcommand] if subcommand else self.config
        check_trainer_options(chosen.trainer)
        seed, root = chosen.get("seed_everything"), chosen.trainer.default_root_dir
        if seed is not None and not 0 <= seed < 2**32:
            raise UserError(f"{seed} is not in [0, 2^32)", key="seed_everything")
        for key, value in {"--ckpt_path": chosen.get("ckpt_path"), "default_root_dir": root}.items():
            if value == "":
                raise UserError("is empty; leave it out or name a path", key=key)
        refuse_nulls("trainer", Trainer, vars(chosen.trainer))
        for part in ("model", "data"):
            if chosen.get(part) is not None:
                options = vars(chosen[part].init_args) if "init_args" in chosen[part] else {}
                refuse_nulls(part, resolve_name(chosen[part].class_path), options)
        self._check_checkpoint(subcommand, chosen)

    def _check_checkpoint(self, subcommand: str | None, chosen: Any) -> None:
        checkpoint = chosen.get("ckpt_path")
        if checkpoint == "best":
            raise UserError(
                "best is only known within the process that trained; give the file", key="--ckpt_path"
            )
        if checkpoint == "last":
            # Lightning would look only into the folder of this training, which is a new one
            found = last_checkpoint(Path(chosen.trainer.default_root_dir or "."))
            if found is None and subcommand != "fit":
                raise UserError("there is no last checkpoint here", key="--ckpt_path")
            rank_zero_info(
                f"--ckpt_path: {found or 'there is no last checkpoint yet; training from scratch'}"
            )
            checkpoint = chosen["ckpt_path"] = None if found is None else str(found)
        if checkpoint and checkpoint != "hpc" and not checkpoint.startswith("registry"):
            problem = checkpoint_problem(Path(checkpoint), resume=subcommand == "fit")
            if problem:
                raise UserError(f"{checkpoint} {problem}", key="--ckpt_path")
        elif subcommand not in (None, "fit") and not checkpoint:
            check_trained(subcommand, chosen.model.class_path, _init_args(chosen.model))

    def _parse_ckpt_path(self) -> None:
        """Evaluation takes the model's options from the checkpoint; those of the command line override it.

        A resumed training keeps the options it is given. The file that a backbone was initialised from is not
        needed again: all weights are in the checkpoint.
        """
        subcommand = self.config.get("subcommand")
        if subcommand is None:
            return
        before = self.config.clone()
        ours = _init_args(before[subcommand].model)
        if subcommand == "fit":
            checkpoint = before.fit.get("ckpt_path")
            saved = hyperparameters(checkpoint)
            if saved:
                check_same_network(ours, saved, checkpoint)
                start = ours.get("backbone_checkpoint")
                if start is not None:
                    rank_zero_info(f"--ckpt_path: {start} is not read: all weights are in the checkpoint")
                    self.config.fit.model.init_args["backbone_checkpoint"] = None
            return
        super()._parse_ckpt_path()
        if self.config == before:
            return
        given = list(self._given_for_model)
        if "backbone_checkpoint" in self.config[subcommand].model.get("init_args", {}):
            given.insert(0, "--model.backbone_checkpoint=null")
        self.config = self.parser.parse_args([subcommand, *given], namespace=self.config)
        theirs = _init_args(self.config[subcommand].model)
        kept = [
            f"model.{name} is {theirs[name]} and not {ours[name]}"
            for name in sorted(ours.keys() & theirs.keys() - {"backbone_checkpoint", "num_classes"})
            if plain(ours[name]) != plain(theirs[name])
        ]
        if kept:
            rank_zero_info(
                f"--ckpt_path: {', '.join(kept)}: the checkpoint's options override a configuration file's, "
                "and those of the command line override both"
            )

    def instantiate_classes(self) -> None:
        """Take the number of classes from the data where the configuration does not give it.

        Raises UserError if files to train on are missing, before there are processes for other devices.
        """
        chosen = self.config[self.subcommand] if self.subcommand else self.config
        if chosen.get("data") is not None:
            fill_in(chosen.model, chosen.data)
        super().instantiate_classes()
        if self.subcommand == "fit" and self.datamodule is not None and checks_files(type(self.datamodule)):
            self.datamodule.check_files()

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """A trainer with our callbacks; a ModelCheckpoint in the configuration replaces ours."""
        given = self._get(self.config_init, "trainer.callbacks") or []
        given = list(given) if isinstance(given, list) else [given]  # the trainer appends to the list itself
        try:
            trainer = super().instantiate_trainer(**kwargs)
        except (ValueError, TypeError) as error:  # devices=-1 on a CPU is a TypeError
            raise UserError(str(error), key="trainer") from error
        callbacks = trainer.callbacks  # type: ignore[attr-defined]
        # Lightning adds one when the configuration has none
        for i, callback in enumerate(callbacks):
            if type(callback) is ModelCheckpoint and not any(callback is own for own in given):
                callbacks[i : i + 1] = best_and_last(self.model)
                break
            if isinstance(callback, PeriodicCheckpoint):
                callbacks[i:i] = best_and_last(self.model)
                break
        seed = int(self._get(self.config, "seed_everything") or 0)
        callbacks.extend([RoomForCheckpoints(), StopWhenDiverged(), ExactResume(seed)])
        if self.subcommand == "fit":  # a run of a sweep is stopped by its worker
            callbacks.append(RequeueOnSignal())
        if trainer.strategy._checkpoint_io is None:  # the configuration names no other
            trainer.strategy.checkpoint_io = AtomicCheckpointIO()
        if trainer.loggers:
            callbacks.append(LogLearningRate())
        return trainer


class _ParseOnly(FocalCLI):
    """Stops after parsing."""

    def _set_seed(self) -> None:
        return None

    def instantiate_classes(self) -> None:
        return None


def check_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Check a configuration against the signatures of its classes without building them.

    Returns:
        The configuration as the classes will receive it: numbers converted from text, defaults filled in.

    Raises:
        UserError: an unknown key or a value of the wrong type.
    """
    with one_line_errors():
        parsed: dict[str, Any] = _ParseOnly(config, run=False, save_config_callback=None).config.as_dict()
    return parsed


def best_and_last(model: LightningModule) -> list[ModelCheckpoint]:
    """`best.ckpt` by the task's own monitor, and `last.ckpt` of every epoch.

    Two callbacks, because `save_last` writes only in epochs that became the best.
    """
    best = MovableCheckpoint(
        filename="best",
        monitor=getattr(model, "monitor", None),
        mode=getattr(model, "monitor_mode", "max"),
        enable_version_counter=False,
    )
    return [best, MovableCheckpoint(filename="last", enable_version_counter=False)]


def main(subcommand: str, argv: Sequence[str], cli: type[FocalCLI] = FocalCLI) -> int:
    """Run one subcommand of the trainer and return the exit status.

    Args:
        subcommand: one of `SUBCOMMANDS`.
        argv: its arguments.
        cli: may do something else with what it builds, as a dry run does.

    Raises:
        UserError: the configuration is malformed or names what does not exist, or the training diverged.
        KeyboardInterrupt: Ctrl-C, after the trainer has shut down.
    """
    if torch.cuda.is_available():
        torch.set_float32_matmul_precision("high")
    keep_freed_memory()
    try:
        with one_line_errors():
            cli([subcommand, *argv])
    except DivergedError as error:
        raise UserError(str(error)) from error
    except RuntimeError as error:
        if "loading state_dict" not in str(error):
            raise
        raise UserError(misfit(error), key="--ckpt_path") from error
    except OSError as error:
        if error.filename is None:
            raise
        raise UserError(f"{error.strerror}", file=error.filename) from error
    except SystemExit as error:
        # Lightning turns Ctrl-C into the exit status 1
        if isinstance(error.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from error
        raise
    return 0


def _init_args(model: Any) -> dict[str, Any]:
    """The options of a configured model, as plain values."""
    chosen = model.as_dict() if hasattr(model, "as_dict") else dict(model)
    return {**chosen.get("init_args", {}), **chosen.get("dict_kwargs", {})}


def _model_arguments(args: Sequence[str]) -> list[str]:
    """The model's options in a command line, such as --model.lr=1 or --model.lr 1."""
    found: list[str] = []
    for i, argument in enumerate(args):
        if argument.startswith("--model."):
            found += args[i : i + 1 if "=" in argument else i + 2]
    return found


def _config_files(args: Sequence[str]) -> Iterator[Path]:
    """The YAML files that a command line names by --config."""
    for before, word in zip(["", *args], args, strict=False):
        option, equals, value = word.partition("=")
        name = value if equals and option == "--config" else word if before in ("--config", "-c") else ""
        if Path(name).suffix in (".yaml", ".yml") and Path(name).is_file():
            yield Path(name)
