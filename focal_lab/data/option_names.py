"""Old names of data options, which are still accepted.

Standard library only: plans are made without torch.
"""

import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from focal_lab.errors import UserError

# old -> new
RENAMED = {f"{split}_pictures": f"num_{split}_images" for split in ("train", "val", "test")}
_SUBCOMMANDS = {"fit", "validate", "test", "predict"}
# sections that hold data options, or hold such sections
_SECTIONS = {*_SUBCOMMANDS, "data", "init_args", "dict_kwargs"}


def current_name(option: str, class_path: object = None) -> str:
    """The name that a data option has now; the first use of an old one prints a note.

    Args:
        option: without `data.`.
        class_path: the data module, where it is known: one of the user's own may have an option of that name.
    """
    if option not in RENAMED or _is_own(class_path):
        return option
    _note(option)
    return RENAMED[option]


def current_options(
    options: Mapping[str, Any], class_path: object = None, file: Path | None = None
) -> dict[str, Any]:
    """Options of a data module under their current names.

    Raises UserError if an option is given under both names.
    """
    found: dict[str, Any] = {}
    for option, value in options.items():
        name = current_name(option, class_path)
        if name != option and name in options:
            raise _both(option, f"data.{option}", file)
        found[name] = value
    return found


def current_config(config: Any, file: Path | None = None, class_path: object = None) -> Any:
    """A configuration, or its data section alone, with the current names of data options.

    `class_path` is the data module if the configuration names none, as one that is laid over another.

    Raises UserError if an option is given under both names.
    """
    if not isinstance(config, Mapping):
        return config
    class_path = config.get("class_path", class_path)
    found = current_options(config, class_path, file)
    for section in _SECTIONS & found.keys():
        found[section] = current_config(found[section], file, class_path)
    return found


def recorded_config(config: Any) -> Any:
    """The configuration of an earlier run with the current names, without a note."""
    data = config.get("data") if isinstance(config, Mapping) else None
    if not isinstance(data, Mapping) or not isinstance(data.get("init_args"), Mapping):
        return config
    if _is_own(data.get("class_path")):
        return config
    named = {RENAMED.get(name, name): value for name, value in data["init_args"].items()}
    return {**config, "data": {**data, "init_args": named}}


def current_arguments(arguments: Sequence[str], class_path: object = None) -> list[str]:
    """A command line such as `--data.train_pictures=64` with the current names.

    `class_path` is the data module if the command line names none.

    Raises UserError if an option is given under both names.
    """
    found = list(arguments)
    pairs = [argument.partition("=")[::2] for argument in found]
    given = {
        option: value or following for (option, value), following in zip(pairs, [*found[1:], ""], strict=True)
    }
    path = given.get("--data.class_path") or given.get("--data") or class_path
    for place, (option, _) in enumerate(pairs):
        section, _, name = option.rpartition(".")
        if section not in ("--data", "--data.init_args"):
            continue
        new = current_name(name, path)
        if new != name and {f"--data.{new}", f"--data.init_args.{new}"} & given.keys():
            raise _both(name, option, None)
        found[place] = f"{section}.{new}{found[place].removeprefix(option)}"
    return found


def class_of_data(config: Any) -> object:
    """The class path of a configuration's data module; None if it names none."""
    if not isinstance(config, Mapping):
        return None
    data = config.get("data")
    if isinstance(data, Mapping):
        return data.get("class_path")
    subcommands = map(config.get, _SUBCOMMANDS)
    return data if isinstance(data, str) else next(filter(None, map(class_of_data, subcommands)), None)


def _is_own(class_path: object) -> bool:
    """Whether a path is that of a data module of the user's own; a name alone, without a module, is ours."""
    module = str(class_path or "").rpartition(".")[0]
    return bool(module) and module.partition(".")[0] != "focal_lab"


def _both(option: str, key: str, file: Path | None) -> UserError:
    return UserError(f"is the old name of {RENAMED[option]}, which is set, too", file=file, key=key)


@cache
def _note(option: str) -> None:
    print(f"focal-lab: data.{option} is now called data.{RENAMED[option]}", file=sys.stderr)
