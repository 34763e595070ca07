"""Cell x task x seed -> run: an ordinary LightningCLI configuration, named by what it comes to."""

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from focal_lab.backbones.options import OPTION_NAMES, resolve_stages
from focal_lab.backbones.options import identity as network_identity
from focal_lab.backbones.presets import find_preset, preset_options
from focal_lab.data.option_names import current_name
from focal_lab.errors import UserError, one_of
from focal_lab.sweep.identity.identity_table import RATES
from focal_lab.sweep.identity.run_ids import IDENTITY_VERSION as IDENTITY_VERSION
from focal_lab.sweep.identity.run_ids import Identities, seeded_hashes
from focal_lab.sweep.identity.run_ids import hash_of as hash_of
from focal_lab.sweep.plan.cells import Cell
from focal_lab.sweep.spec.suite import Suite
from focal_lab.sweep.spec.sweep_file import TASKS, Sweep

_SECTIONS = ("model", "data", "trainer")
_INIT = {"model": "model.init_args", "data": "data.init_args"}


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        id: name of the run's folder: the beginning of the hash of `identity`, or the name that an earlier
            version gave to a run that it finished.
        config: LightningCLI configuration, complete but for paths.
        identity: what is hashed, see `identity`.
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
        """The whole hash of the identity."""
        return hash_of(self.identity)


def make_runs(
    sweep: Sweep,
    suite: Suite,
    experiment: Mapping[str, Any],
    cell: Cell,
    task: str,
    overrides: Mapping[str, Any],
    identities: Identities,
    parents: Mapping[int, Run] | None = None,
) -> list[Run]:
    """The runs of one cell and task, one a seed of the sweep.

    Settings of the sweep file lie over the experiment, the cell's levels over these, overrides on top. One
    that begins with a task's name, such as detection.trainer.max_epochs, is for that task alone, and goes
    before one for all tasks.

    Args:
        identities: describes configurations; ids are right once it is settled.
        parents: seed -> the run whose backbone to start from, unless the configuration names another.

    Raises:
        UserError: a setting names no key, or the backbone cannot have a level at this size.
    """
    config = dict(experiment)
    config["model"] = dict(config["model"])
    config["model"]["init_args"] = dict(config["model"].get("init_args") or {})
    for settings in (sweep.settings, cell.settings, overrides):
        for name, value in sorted(settings.items(), key=lambda item: is_for_one_task(str(item[0]))):
            key = for_task(str(name), task)
            if key is not None:
                try:
                    _set(config, key, value)
                except UserError as error:
                    where = _blame(sweep, cell, overrides if settings is overrides else {}, str(name))
                    raise UserError(error.message, **where) from error
    init_args = config["model"]["init_args"]
    backbone = init_args.get("backbone")
    if backbone is not None:
        init_args["backbone"] = suite.backbones.get(str(backbone), backbone)
    stages, notes, network = _resolve_backbone(sweep, cell, overrides, init_args, task)
    described = identities.describe(config, task, network)
    needs = {} if init_args.get("backbone_checkpoint") else dict(parents or {})
    own = [
        {"seed_everything": seed} | ({"needs": needs[seed].config_hash[:12]} if seed in needs else {})
        for seed in sweep.seeds
    ]
    seedless = {key: value for key, value in config.items() if key != "seed_everything"}
    runs = []
    for name, identity in seeded_hashes(described, own):
        seed = identity["seed_everything"]
        seeded = {"seed_everything": seed} | seedless
        needed = needs[seed].id if seed in needs else None
        run_id = identities.folder(name[:12])
        runs.append(Run(run_id, cell, task, seed, seeded, identity, stages, notes, needed))
    return runs


def is_for_one_task(name: str) -> bool:
    """Whether a setting begins with a task's name."""
    return name.partition(".")[0] in TASKS


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
            "with its name in front: detection.model.lr; seeds are those of the file, or of --seeds"
        )
    if name.endswith("+"):
        raise UserError(f"{name}: a setting replaces, it does not append; give {name.rstrip('+')} as a whole")
    if section == "trainer" or rest.startswith("init_args.") or rest == "class_path":
        return name
    return f"{_INIT[section]}.{rest}"


def _current_key(key: str, config: Mapping[str, Any]) -> str:
    """A key without the old name of a data option, unless the user's own data module calls an option so."""
    section, _, option = key.rpartition(".")
    if section != _INIT["data"]:
        return key
    return f"{section}.{current_name(option, config['data'].get('class_path'))}"


def _set(config: dict[str, Any], name: str, value: Any) -> None:
    """Set a key; mappings on the way to it are copied, because other cells share them.

    Raises:
        UserError: no such setting, or it lies in what is no mapping.
    """
    *parents, last = _current_key(setting_key(name), config).split(".")
    target = config
    for parent in parents:
        inner = target.get(parent)
        if not isinstance(inner, dict | None):
            raise UserError(f"{name}: {parent} is no mapping in the experiment")
        target[parent] = target = dict(inner or {})
    # a copy: YAML shows an object that stands in two places by an anchor
    target[last] = copy.deepcopy(value)


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
    for unknown in (key for key in others if key not in RATES):
        raise UserError(
            f"{unknown} is not an option of backbone {preset} (use {one_of((*OPTION_NAMES, *RATES))})",
            **_blame(sweep, cell, overrides, str(unknown)),
        )
    try:
        # repr for what JSON does not know and the options refuse
        network = _network(preset, json.dumps(focal, default=repr))
    except ValueError as error:
        option = str(error).partition(":")[0]
        raise UserError(f"{error}, for {cell.name}", **_blame(sweep, cell, overrides, option)) from error
    if task == "classification":  # other tasks have pictures of any size, which are padded anyway
        _check_window(sweep, cell, preset, network.img_size, network.first_map)
    return network.stages, network.notes, network.identity | {"others": others}


@dataclass(frozen=True)
class _Network:
    """What the options of a focal backbone come to; many cells of a plan have the same."""

    img_size: Any
    first_map: tuple[int, int]
    stages: tuple[dict[str, Any], ...]
    notes: tuple[str, ...]
    identity: dict[str, Any]


@lru_cache(maxsize=1024)
def _network(preset: str, options: str) -> _Network:
    """A preset with options, these in JSON.

    Raises:
        ValueError: an option breaks a rule.
    """
    resolved = preset_options(preset, json.loads(options))
    stages = resolve_stages(resolved)
    return _Network(
        resolved.img_size,
        stages[0].map_size,
        tuple(stage.as_dict() for stage in stages),
        tuple(f"stage {stage.stage}: {note}" for stage in stages for note in stage.notes),
        network_identity(resolved),
    )


def _check_window(sweep: Sweep, cell: Cell, preset: str, img_size: Any, first_map: tuple[int, int]) -> None:
    """A window that the sweep asks for must tile the first stage's map: it does not vary padding."""
    if "window_size" not in cell.settings:
        return
    asked = cell.settings["window_size"]
    first = asked[0] if isinstance(asked, list | tuple) else asked
    (height, width), pixels = first_map, img_size if isinstance(img_size, int) else img_size[0]
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
        if factor not in sweep.factors:
            if made_in({factor: label}):
                return {"file": sweep.path, "key": f"search.ranges.{factor}"}
            continue
        settings = next(level.settings for level in sweep.factors[factor] if level.label == label)
        if made_in(settings):
            plain = list(settings) == [factor]
            return {"file": sweep.path, "key": f"factors.{factor}" if plain else f"factors.{factor}.{label}"}
    made = made_in(sweep.settings)
    return {"file": sweep.path, "key": f"set.{made}" if made else "factors"}
