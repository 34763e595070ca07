"""Settings of sweep files and of --set: their configuration keys, and where each was set."""

from collections.abc import Mapping
from typing import Any

from focal_lab.backbones.options import OPTION_NAMES
from focal_lab.data.option_names import RENAMED, current_name
from focal_lab.errors import UserError, did_you_mean, one_of
from focal_lab.sweep.plan.cells import Cell
from focal_lab.sweep.spec.sweep_file import TASKS, Sweep

# seeds of one part of a run each, and their keys
SEEDS = {
    "init_seed": "model.init_args.init_seed",
    "data_seed": "data.init_args.data_seed",
    "order_seed": "data.init_args.order_seed",
}
_SECTIONS = ("model", "data", "trainer")


def is_for_one_task(name: str) -> bool:
    """Whether a setting begins with a task's name."""
    return name.partition(".")[0] in TASKS


def for_task(name: str, task: str) -> str | None:
    """A setting without its task's name in front; None for a setting of another task."""
    first, dot, rest = name.partition(".")
    if first not in TASKS or not dot:
        return name
    return rest if first == task else None


def setting_key(name: str) -> str:
    """The dotted configuration key behind a setting.

    `backbone` is the model's backbone, an option of the focal backbones is short for that option, so are the
    seeds of parts of a run, and a dotted key is taken as LightningCLI takes it, with `init_args` left out.

    Raises:
        UserError: none of these.
    """
    section, _, rest = name.partition(".")
    if name == "backbone":
        return "model.init_args.backbone"
    if name in OPTION_NAMES:
        return f"model.init_args.backbone_options.{name}"
    if name in SEEDS:
        return SEEDS[name]
    if section not in _SECTIONS or not rest:
        hint = did_you_mean(name, ["backbone", *OPTION_NAMES, *SEEDS])
        use = (
            f": use backbone, an option of the backbone ({one_of(OPTION_NAMES)}), or a dotted key such as "
            "model.lr, data.batch_size or trainer.max_epochs, for one task alone with its name in front: "
            "detection.model.lr; a run's seed is one of the file, or of --seeds, and init_seed, data_seed "
            "and order_seed change it for one part of the run"
        )
        raise UserError(f"{name!r} is not a setting{hint or use}")
    if name.endswith("+"):
        raise UserError(
            f"{name}: settings replace values and cannot append; give {name.rstrip('+')} as a whole"
        )
    if section == "trainer" or rest.startswith("init_args.") or rest == "class_path":
        return name
    return f"{section}.init_args.{rest}"


def current_key(key: str, config: Mapping[str, Any]) -> str:
    """A key without the old name of a data option, unless the user's own data module has such an option."""
    section, _, option = key.rpartition(".")
    if section != "data.init_args":
        return key
    return f"{section}.{current_name(option, config['data'].get('class_path'))}"


def path_of(name: str, task: str) -> tuple[str, ...]:
    """The key of a setting for a task, without `init_args`; empty for another task's or an unknown one."""
    own = for_task(name, task)
    try:
        path = tuple(part for part in setting_key(own or "").split(".") if part != "init_args")
    except UserError:  # is reported where it is set
        return ()
    if path[:1] != ("data",) or len(path) == 1:
        return path
    return (path[0], RENAMED.get(path[1], path[1]), *path[2:])


def place_of(
    name: str, task: str, sweep: Sweep, cell: Cell, overrides: Mapping[str, Any], *, default: object = None
) -> dict[str, Any]:
    """Where a setting of a cell was made last: `file` and `key` of an error.

    Args:
        default: the file that makes it if neither the sweep nor the command line does; None for the sweep.
    """
    path = path_of(name, task)

    def sets(settings: Mapping[str, Any]) -> str | None:
        return next((key for key in settings if key == name or _covers(path_of(key, task), path)), None)

    if sets(overrides):
        return {"key": "--set"}
    for factor, label in reversed(cell.labels.items()):
        if factor not in sweep.factors:
            if sets({factor: label}):
                return {"file": sweep.path, "key": f"search.ranges.{factor}"}
            continue
        settings = next(level.settings for level in sweep.factors[factor] if level.label == label)
        if sets(settings):
            own = "" if list(settings) == [factor] else f".{label}"
            return {"file": sweep.path, "key": f"factors.{factor}{own}"}
    made = sets(sweep.settings)
    if made is None and default is not None:
        return {"file": default}
    return {"file": sweep.path, "key": f"set.{made}" if made else "factors"}


def _covers(path: tuple[str, ...], inner: tuple[str, ...]) -> bool:
    return bool(path) and inner[: len(path)] == path
