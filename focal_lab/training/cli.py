"""`focal-lab fit|validate|test|predict`: LightningCLI with our callbacks, and errors in one line.

A run of a sweep goes through the same class, with the same configuration file.
"""

import inspect
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, ClassVar

import torch
import yaml
from jsonargparse import ArgumentError, get_loader, set_loader
from lightning import LightningDataModule, LightningModule, Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities import rank_zero_info

from focal_lab.data.option_names import current_arguments, current_config
from focal_lab.errors import UserError, did_you_mean
from focal_lab.tasks.class_count import fill_in
from focal_lab.training.callbacks import DivergedError, LogLearningRate, ReseedEachEpoch, StopWhenDiverged
from focal_lab.training.checkpoints.disk_space import RoomForCheckpoints
from focal_lab.training.checkpoints.io import AtomicCheckpointIO, MovableCheckpoint, PeriodicCheckpoint
from focal_lab.training.checkpoints.read import checkpoint_problem, hyperparameters
from focal_lab.training.checkpoints.resolve import check_same_network, check_trained, last_checkpoint, misfit
from focal_lab.training.exact_resume import ExactResume
from focal_lab.training.malloc import keep_freed_memory
from focal_lab.training.resumed_options import plain
from focal_lab.training.slurm_requeue import RequeueOnSignal
from focal_lab.training.trainer_options import check_trainer_options
from focal_lab.training.union_order import try_int_before_float
from focal_lab.utils.yaml import load_yaml

SUBCOMMANDS = ("fit", "validate", "test", "predict")

try_int_before_float()
# every YAML that jsonargparse reads, whichever option names the file
_read_yaml = get_loader("yaml")
set_loader("yaml", lambda text: current_config(_read_yaml(text)), exceptions=(yaml.YAMLError,))


class FocalCLI(LightningCLI):
    """LightningCLI for any task and data module; keeps the checkpoints of the best and the last epoch.

    Args:
        args: command line, or a configuration as a mapping.
        run: whether `args` begins with a subcommand, which is then run.
        kwargs: LightningCLI's.
    """

    # options of the command that are not Lightning's, for who misspells one
    own_options: ClassVar[Sequence[str]] = ("--dry-run",)

    def __init__(self, args: Sequence[str] | Mapping[str, Any], *, run: bool = True, **kwargs: Any) -> None:
        quiet: dict[str, Any] = {"exit_on_error": False, "allow_abbrev": False}
        self._said_of_model = [] if isinstance(args, Mapping) else model_arguments(args)
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

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Refuse a checkpoint or a seed that cannot be used; Lightning opens the file right after this."""
        if isinstance(args, Mapping):
            args = current_config(args)
        else:
            args = current_arguments(args)
            for file in _config_files(args):
                # stricter than jsonargparse, which takes the last of duplicate keys
                current_config(load_yaml(file), file)
        try:
            with _no_command_line():
                super().parse_arguments(parser, args)
        except ArgumentError as error:
            parsers = getattr(self, "_subcommand_parsers", {}).values()
            known = {name for one in parsers for name in one._option_string_actions}
            raise UserError(shorten(str(error), known.union(self.own_options))) from error
        subcommand = self.config.get("subcommand")
        chosen = self.config[subcommand] if subcommand else self.config
        check_trainer_options(chosen.trainer)
        seed, checkpoint = chosen.get("seed_everything"), chosen.get("ckpt_path")
        if seed is not None and not 0 <= seed < 2**32:
            raise UserError(f"{seed} is not in [0, 2^32)", key="seed_everything")
        for key, value in {
            "--ckpt_path": checkpoint,
            "default_root_dir": chosen.trainer.default_root_dir,
        }.items():
            if value == "":
                raise UserError("is empty; leave it out or name a path", key=key)
        _refuse_nulls("trainer", Trainer, vars(chosen.trainer))
        for part in ("model", "data"):
            built = chosen.get(part)
            if built is not None:
                _refuse_nulls(
                    part,
                    resolve_name(built.class_path),
                    vars(built.init_args) if "init_args" in built else {},
                )
        if checkpoint == "best":
            raise UserError("best is known only while a trainer lives; give the file", key="--ckpt_path")
        if checkpoint == "last":
            # Lightning looks into the folder of this training alone, which is a new one
            found = last_checkpoint(Path(chosen.trainer.default_root_dir or "."))
            if found is None and subcommand != "fit":
                raise UserError("there is no last checkpoint here", key="--ckpt_path")
            rank_zero_info(f"--ckpt_path: {found or 'there is no last checkpoint yet, so it begins anew'}")
            checkpoint = chosen["ckpt_path"] = None if found is None else str(found)
        if checkpoint and checkpoint not in ("last", "hpc") and not checkpoint.startswith("registry"):
            problem = checkpoint_problem(Path(checkpoint), resume=subcommand == "fit")
            if problem:
                raise UserError(f"{checkpoint} {problem}", key="--ckpt_path")
        elif subcommand not in (None, "fit") and not checkpoint:
            check_trained(subcommand, chosen.model.class_path, _init_args(chosen.model))

    def _parse_ckpt_path(self) -> None:
        """Evaluation takes the model's options from the checkpoint; those of the command line count more.

        A training that is resumed has the options that it is given. The file that a backbone started from is
        not needed again: all weights are in the checkpoint.
        """
        subcommand = self.config.get("subcommand")
        if subcommand is None:
            return
        before = self.config.clone()
        ours = _init_args(before[subcommand].model)
        if subcommand == "fit":
            checkpoint = before.fit.get("ckpt_path")
            noted = hyperparameters(checkpoint)
            if noted:
                check_same_network(ours, noted, checkpoint)
                start = ours.get("backbone_checkpoint")
                if start is not None:
                    rank_zero_info(f"--ckpt_path: {start} is not read: all weights are in the checkpoint")
                    self.config.fit.model.init_args["backbone_checkpoint"] = None
            return
        super()._parse_ckpt_path()
        if self.config == before:
            return
        said = list(self._said_of_model)
        if "backbone_checkpoint" in self.config[subcommand].model.get("init_args", {}):
            said.insert(0, "--model.backbone_checkpoint=null")
        self.config = self.parser.parse_args([subcommand, *said], namespace=self.config)
        theirs = _init_args(self.config[subcommand].model)
        kept = [
            f"model.{name} is {theirs[name]} and not {ours[name]}"
            for name in sorted(ours.keys() & theirs.keys() - {"backbone_checkpoint", "num_classes"})
            if plain(ours[name]) != plain(theirs[name])
        ]
        if kept:
            rank_zero_info(
                f"--ckpt_path: {', '.join(kept)}: the checkpoint's options count more than a configuration "
                "file's, and those of the command line count more than either"
            )

    def instantiate_classes(self) -> None:
        """Where the configuration does not say how many classes there are, the data does."""
        chosen = self.config[self.subcommand] if self.subcommand else self.config
        if chosen.get("data") is not None:
            fill_in(chosen.model, chosen.data)
        super().instantiate_classes()

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """A trainer with our callbacks; a ModelCheckpoint of the configuration replaces ours."""
        given = self._get(self.config_init, "trainer.callbacks") or []
        given = list(given) if isinstance(given, list) else [given]  # the trainer adds to the list itself
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
        callbacks.extend([RoomForCheckpoints(), StopWhenDiverged()])
        seed = int(self._get(self.config, "seed_everything") or 0)
        callbacks.extend([ReseedEachEpoch(seed), ExactResume(seed)])
        if self.subcommand == "fit":  # a run of a sweep is stopped by its worker
            callbacks.append(RequeueOnSignal())
        if trainer.strategy._checkpoint_io is None:  # the configuration names no other
            trainer.strategy.checkpoint_io = AtomicCheckpointIO()
        if trainer.loggers:
            callbacks.append(LogLearningRate())
        return trainer


def _init_args(model: Any) -> dict[str, Any]:
    """The options of a configured model, as plain values."""
    chosen = model.as_dict() if hasattr(model, "as_dict") else dict(model)
    return {**chosen.get("init_args", {}), **chosen.get("dict_kwargs", {})}


def model_arguments(args: Sequence[str]) -> list[str]:
    """The options of the model in a command line, such as --model.lr=1 or --model.lr 1."""
    found: list[str] = []
    for i, argument in enumerate(args):
        if argument.startswith("--model."):
            found.append(argument)
            if "=" not in argument and i + 1 < len(args):
                found.append(args[i + 1])
    return found


def _refuse_nulls(part: str, chosen: Any, options: Mapping[str, Any]) -> None:
    """jsonargparse takes null for every type: `lr: null` is no number, and a traceback when it is compared.

    Raises:
        UserError: an option is null whose type in the class's signature does not say so.
    """
    bases = [base for base in getattr(chosen, "__mro__", ()) if "__init__" in vars(base)]
    signatures = [inspect.signature(vars(base)["__init__"]) for base in bases]
    for name, value in options.items():
        found = [signature.parameters[name] for signature in signatures if name in signature.parameters]
        if value is not None or not found or found[0].default is None:
            continue
        kind = inspect.formatannotation(found[0].annotation)
        if found[0].annotation is not found[0].empty and not re.search("None|Optional|^(typing.)?Any$", kind):
            way_out = "" if found[0].default is found[0].empty else f" (the default is {found[0].default!r})"
            raise UserError(f"null is not of type {kind}{way_out}", key=f"{part}.{name}")


def _config_files(args: Sequence[str]) -> Iterator[Path]:
    """The YAML files that a command line names by --config."""
    for before, word in zip(["", *args], args, strict=False):
        option, equals, value = word.partition("=")
        name = value if equals and option == "--config" else word if before in ("--config", "-c") else ""
        if Path(name).suffix in (".yaml", ".yml") and Path(name).is_file():
            yield Path(name)


def best_and_last(model: LightningModule) -> list[ModelCheckpoint]:
    """`best.ckpt` by the task's own monitor, and `last.ckpt` of every epoch.

    Two callbacks, because `save_last` writes only in the epochs that became the best ones.
    """
    best = MovableCheckpoint(
        filename="best",
        monitor=getattr(model, "monitor", None),
        mode=getattr(model, "monitor_mode", "max"),
        enable_version_counter=False,
    )
    return [best, MovableCheckpoint(filename="last", enable_version_counter=False)]


def main(subcommand: str, argv: Sequence[str], cli: type[FocalCLI] = FocalCLI) -> int:
    """Run one subcommand of the trainer; the exit status. Another `cli` may do else with what it builds.

    Raises:
        UserError: the configuration is malformed or names what does not exist, or the training diverged.
        KeyboardInterrupt: Ctrl-C, once the trainer has wound up.
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


def check_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Check a configuration against the signatures of its classes without building them.

    Returns:
        The configuration as the classes will get it: texts turned into numbers, defaults filled in.

    Raises:
        UserError: an unknown key or a value of the wrong type.
    """
    with one_line_errors():
        parsed: dict[str, Any] = _ParseOnly(config, run=False, save_config_callback=None).config.as_dict()
    return parsed


@contextmanager
def _no_command_line() -> Iterator[None]:
    """LightningCLI warns when it is given arguments and sys.argv has some too, as it has in `focal-lab`.

    Only while it parses: `ddp` starts the other devices' processes with the same command line.
    """
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
    """Turn what jsonargparse and Lightning raise for a wrong configuration into a UserError of one line.

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
        unmade = re.search(r"Problem with given class_path '(?:\w+\.)*(\w+)':\s+(.+)", str(error))
        if unmade:
            raise UserError(f"{unmade[1]}: {unmade[2]}") from error
        # a package that a logger needs is not installed, or EarlyStopping watches what nobody logs
        if isinstance(
            error, MisconfigurationException | ModuleNotFoundError
        ) or "conditioned on metric" in str(error):
            raise UserError(" ".join(str(error).split())) from error
        raise


def shorten(message: str, options: Iterable[str] = ()) -> str:
    """Key, reason and value of a jsonargparse message, which has a line for every type it tried.

    Args:
        options: of the command line; one that is near an unknown one is suggested.
    """
    key = ".".join(re.findall(r'Parser key "([^"]+)"', message))
    lines = [re.sub(r'^Parser key "[^"]+": ', "", line.strip(" -")) for line in message.splitlines()]
    lines = [line for line in lines if line]
    reasons = [line for line in lines if not _STRUCTURE.match(line)] or lines[-1:]
    unknown = [line for line in reasons if _NOT_ACCEPTED.match(line)]
    reasons = unknown[:1] or reasons
    reason = re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", "; ".join(dict.fromkeys(reasons)))
    owner = re.findall(r"given class_path '([\w.]+)'", message)
    if owner and reason.endswith("is not accepted"):
        reason += f" by {owner[-1].rpartition('.')[2]}"
    # the first value named is that of the innermost key
    value = re.search(r"Given value: (.*)", message)
    if value and "value" not in reason and owner == []:
        reason += ", not " + re.sub(r"NestedArg\(key='\w+', val=(.*)\)", r"\1", value.group(1))
    reason += _suggestion(reason, owner[-1] if owner else "", options)
    return f"{key}: {reason}" if key else reason


def _suggestion(reason: str, owner: str, options: Iterable[str]) -> str:
    """A known name that is near the unknown one of a message, of the class whose path is `owner`."""
    argument = re.search(r"unrecognized arguments: (--[\w.]+)", reason)
    option = _NOT_ACCEPTED.match(reason)
    module, _, name = owner.rpartition(".")
    chosen = Trainer if option and option["group"] == "trainer" else getattr(sys.modules.get(module), name, 0)
    if isinstance(chosen, type):
        bases = [base for base in chosen.__mro__ if "__init__" in vars(base)]
        options = {
            f"--{name}" for base in bases for name in inspect.signature(vars(base)["__init__"]).parameters
        }
    if argument:
        return did_you_mean(argument[1], options)
    return did_you_mean(option["name"], {name.lstrip("-") for name in options}) if option else ""


_NOT_ACCEPTED = re.compile(
    r"(?:Group '(?P<group>\w+)' does not accept o|O)ption '(?P<name>[\w.]+)'(?: is not accepted|$)"
)
# lines that tell how jsonargparse looked, not what is wrong
_STRUCTURE = re.compile(
    "Parser key|Does not validate|Subtypes:|Errors:|Given value|Problem with given"
    "|Expected a <class 'NoneType'>"
)


def _inner_user_error(error: BaseException | None) -> UserError | None:
    while error is not None:
        if isinstance(error, UserError):
            return error
        error = error.__cause__ or error.__context__
    return None
