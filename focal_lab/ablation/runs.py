"""Cell x task x seed -> run: an ordinary LightningCLI configuration, named by what it comes to."""

import copy
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from focal_lab.ablation.design import Cell
from focal_lab.ablation.suite import Suite
from focal_lab.ablation.sweep_file import TASKS, Sweep
from focal_lab.backbones.options import OPTION_NAMES, resolve_stages
from focal_lab.backbones.options import identity as network_identity
from focal_lab.backbones.presets import find_preset, preset_options
from focal_lab.errors import UserError, one_of

# Changes of the code that change what a configuration computes belong here: they rename every run.
IDENTITY_VERSION = 1
_SECTIONS = ("model", "data", "trainer")
# what a run shows does not change what it finds
_DISPLAY = ("enable_progress_bar", "enable_model_summary", "log_every_n_steps", "logger")
_INIT = {"model": "model.init_args", "data": "data.init_args"}
# what the focal network takes besides the options that decide what it computes
_RATES = ("global_pool", "drop_rate", "proj_drop_rate", "attn_drop_rate")


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        id: hash of `identity`, the name of the run's folder.
        config: LightningCLI configuration, complete but for paths.
        identity: what is hashed: the configuration with the backbone's options as they come to.
        stages: effective configuration per stage of a focal backbone, None for others.
        notes: where an option of the backbone was not honoured as written.
        needs: the run whose trained backbone this one starts from; None for a start from nothing.
    """

    id: str
    cell: Cell
    task: str
    seed: int
    config: dict[str, Any]
    identity: dict[str, Any]
    stages: tuple[dict[str, Any], ...] | None = None
    notes: tuple[str, ...] = ()
    needs: str | None = None

    @property
    def backbone(self) -> str:
        """The backbone's name."""
        return str(self.config["model"]["init_args"].get("backbone"))

    @property
    def config_hash(self) -> str:
        """The whole hash that the id is the beginning of."""
        return hash_of(self.identity)


def make_runs(
    sweep: Sweep,
    suite: Suite,
    experiment: Mapping[str, Any],
    cell: Cell,
    task: str,
    overrides: Mapping[str, Any],
    parents: Mapping[int, Run] | None = None,
) -> list[Run]:
    """The runs of one cell and task, one a seed of the sweep.

    Settings of the sweep file lie over the experiment, the cell's levels over these, overrides on top. One
    that begins with a task's name, such as detection.trainer.max_epochs, is for that task alone.

    Args:
        parents: seed -> the run whose backbone to start from, unless the configuration names another.

    Raises:
        UserError: a setting names no key, or the backbone cannot have a level at this size.
    """
    config = copy.deepcopy(dict(experiment))
    init_args = config["model"].setdefault("init_args", {})
    for settings in (sweep.settings, cell.settings, overrides):
        for name, value in settings.items():
            where = _blame(sweep, cell, overrides if settings is overrides else {}, str(name))
            key = for_task(str(name), task)
            if key is not None:
                # a copy: a later setting may reach into it
                _set(config, key, copy.deepcopy(value), where)
    backbone = init_args.get("backbone")
    if backbone is not None:
        init_args["backbone"] = suite.backbones.get(str(backbone), backbone)
    stages, notes, network = _resolve_backbone(sweep, cell, overrides, init_args, task)
    described = _describe(config, task, network)
    runs = []
    for seed in sweep.seeds:
        parent = None if init_args.get("backbone_checkpoint") else (parents or {}).get(seed)
        needs = {"needs": parent.id} if parent else {}
        identity = described | {"seed_everything": seed} | needs
        seeded = {"seed_everything": seed} | {key: config[key] for key in config if key != "seed_everything"}
        runs.append(
            Run(hash_of(identity)[:12], cell, task, seed, seeded, identity, stages, notes, needs.get("needs"))
        )
    return runs


def hash_of(value: Any) -> str:
    """SHA-256 of the canonical JSON; 1.0 and 1 are told apart, the order of keys is not."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def for_task(name: str, task: str) -> str | None:
    """A setting without its task's name in front; None for one that another task is meant by."""
    first, dot, rest = name.partition(".")
    if first not in TASKS or not dot:
        return name
    return rest if first == task else None


def setting_key(name: str) -> str:
    """The dotted configuration key behind a sweep's setting.

    `backbone` is the model's backbone, an option of the focal backbones is short for that option, and a
    dotted key is taken as LightningCLI takes it, with `init_args` left out.

    Raises:
        UserError: none of these.
    """
    section, _, rest = name.partition(".")
    if name == "backbone":
        return "model.init_args.backbone"
    if name in OPTION_NAMES:
        return f"model.init_args.backbone_options.{name}"
    if section not in _SECTIONS or not rest:
        raise UserError(
            f"{name!r} is no setting: use backbone, an option of the backbone ({one_of(OPTION_NAMES)}), "
            "or a dotted key such as model.lr, data.batch_size or trainer.max_epochs, for one task alone "
            "with its name in front: detection.model.lr"
        )
    if section == "trainer" or rest.startswith("init_args.") or rest == "class_path":
        return name
    return f"{_INIT[section]}.{rest}"


def _set(config: dict[str, Any], name: str, value: Any, where: Mapping[str, Any]) -> None:
    try:
        key = setting_key(name)
    except UserError as error:
        raise UserError(error.message, **where) from error
    *parents, last = key.split(".")
    target = config
    for parent in parents:
        if target.get(parent) is None:
            target[parent] = {}
        target = target[parent]
        if not isinstance(target, dict):
            raise UserError(f"{name}: {parent} is no mapping in the experiment", **where)
    target[last] = value


def _resolve_backbone(
    sweep: Sweep, cell: Cell, overrides: Mapping[str, Any], init_args: dict[str, Any], task: str
) -> tuple[tuple[dict[str, Any], ...] | None, tuple[str, ...], dict[str, Any]]:
    """(stages, notes, identity of the network) of the configured backbone."""
    name, options = str(init_args.get("backbone")), init_args.get("backbone_options") or {}
    if not isinstance(options, dict):
        where = _blame(sweep, cell, overrides, "backbone_options")
        raise UserError(f"backbone_options: {options!r} is no mapping", **where)
    preset = find_preset(name)
    if preset is None:
        return None, (), {"name": name, "options": options}
    init_args["backbone"] = preset
    focal = {key: value for key, value in options.items() if key in OPTION_NAMES}
    others = {key: value for key, value in options.items() if key not in OPTION_NAMES}
    for unknown in (key for key in others if key not in _RATES):
        raise UserError(
            f"{unknown} is not an option of backbone {preset} (use {one_of(OPTION_NAMES + _RATES)})",
            **_blame(sweep, cell, overrides, str(unknown)),
        )
    try:
        resolved = preset_options(preset, focal)
        stages = resolve_stages(resolved)
    except ValueError as error:
        option = str(error).partition(":")[0]
        raise UserError(f"{error}, for {cell.name}", **_blame(sweep, cell, overrides, option)) from error
    if task == "classification":  # other tasks have pictures of any size, which are padded anyway
        _check_window(sweep, cell, preset, resolved.img_size, stages)
    notes = tuple(f"stage {stage.stage}: {note}" for stage in stages for note in stage.notes)
    return tuple(stage.as_dict() for stage in stages), notes, network_identity(resolved) | {"others": others}


def _check_window(sweep: Sweep, cell: Cell, preset: str, img_size: Any, stages: Any) -> None:
    """A window that the sweep asks for must tile the first stage's map: it does not vary padding."""
    if "window_size" not in cell.settings:
        return
    asked = cell.settings["window_size"]
    first = asked[0] if isinstance(asked, list | tuple) else asked
    (height, width), pixels = stages[0].map_size, img_size if isinstance(img_size, int) else img_size[0]
    if height % first == 0 and width % first == 0:
        return
    shorter = min(height, width)
    fitting = [w for w in range(3, shorter + 1) if height % w == 0 and width % w == 0]
    raise UserError(
        f"{first} is not a level of backbone {preset} at {pixels} px (stage 1 is {shorter} tokens wide; "
        f"use {one_of(fitting)})",
        **_blame(sweep, cell, {}, "window_size"),
    )


def _blame(sweep: Sweep, cell: Cell, overrides: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Where a setting, or an option of the backbone by its bare name, was made: `file` and `key` of an error.

    The last one to make it counts, as in the configuration.
    """

    def made_in(settings: Mapping[str, Any]) -> str | None:
        prefixes = ("", "model.backbone_options.", "model.init_args.backbone_options.", "model.")
        return next((prefix + name for prefix in prefixes if prefix + name in settings), None)

    if made_in(overrides):
        return {"key": "--set"}
    for factor, label in reversed(cell.labels.items()):
        settings = next(level.settings for level in sweep.factors[factor] if level.label == label)
        if made_in(settings):
            plain = list(settings) == [factor]
            return {"file": sweep.path, "key": f"factors.{factor}" if plain else f"factors.{factor}.{label}"}
    made = made_in(sweep.settings)
    return {"file": sweep.path, "key": f"set.{made}" if made else "factors"}


def _describe(config: dict[str, Any], task: str, network: dict[str, Any]) -> dict[str, Any]:
    """What a run's id is a hash of: everything that can change its result, and nothing else."""
    model = dict(config["model"])
    model["init_args"] = {
        key: value for key, value in model["init_args"].items() if key not in ("backbone", "backbone_options")
    }
    trainer = {key: value for key, value in config.get("trainer", {}).items() if key not in _DISPLAY}
    data = dict(config["data"])
    # more processes prepare the same batches
    data["init_args"] = {key: value for key, value in data["init_args"].items() if key != "num_workers"}
    described = config | {"model": model, "data": data, "trainer": trainer}
    return {"version": IDENTITY_VERSION, "task": task, "network": network, **described}
