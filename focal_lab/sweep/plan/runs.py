"""Cell x task x seed -> run: an ordinary LightningCLI configuration, named by a hash of it."""

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from focal_lab.backbones.options import OPTION_NAMES, FocalOptions, downsampled_size
from focal_lab.backbones.options import identity as network_identity
from focal_lab.backbones.presets import find_preset, preset_options
from focal_lab.errors import UserError, known_names, one_of
from focal_lab.sweep.identity.identity_table import RATES
from focal_lab.sweep.identity.run_ids import IDENTITY_VERSION as IDENTITY_VERSION
from focal_lab.sweep.identity.run_ids import Identities, hashes_of
from focal_lab.sweep.identity.run_ids import hash_of as hash_of
from focal_lab.sweep.plan.cells import Cell
from focal_lab.sweep.plan.settings import current_key, for_task, is_for_one_task, place_of, setting_key
from focal_lab.sweep.spec.suite import Suite
from focal_lab.sweep.spec.sweep_file import Sweep


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        id: name of the run's folder: the beginning of the hash of `identity`, or the name that an earlier
            version gave to a run that it finished.
        config: LightningCLI configuration, complete but for paths.
        identity: what is hashed, see `sweep.identity`.
        stages: effective configuration per stage of a focal backbone, None for others.
        notes: options of the backbone that were changed to fit.
        needs: the run whose trained backbone this one starts from; None for a start from scratch.
        stands_for: the backbone that the sweep names and the suite replaces; None if it is trained itself.
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
    stands_for: str | None = None

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

    Settings of the sweep file go over the experiment, the cell's levels over these, overrides on top. One
    that begins with a task's name, such as detection.trainer.max_epochs, is for that task alone, and takes
    precedence over one for all tasks.

    Args:
        identities: describes configurations; IDs are right once it is settled.
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
                    over = overrides if settings is overrides else {}
                    raise UserError(error.message, **place_of(str(name), task, sweep, cell, over)) from error
    init_args = config["model"]["init_args"]
    backbone = init_args.get("backbone")
    stands_for = str(backbone) if str(backbone) in suite.backbones else None
    if stands_for is not None:
        init_args["backbone"] = suite.backbones[stands_for]
    stages, notes, network = _resolve_backbone(sweep, cell, overrides, init_args, task)
    described = identities.describe(config, task, network)
    needs = {} if init_args.get("backbone_checkpoint") else dict(parents or {})
    seedless = {key: value for key, value in config.items() if key != "seed_everything"}
    own: list[dict[str, Any]] = [
        {"seed_everything": seed} | ({"needs": needs[seed].config_hash[:12]} if seed in needs else {})
        for seed in sweep.seeds
    ]
    runs = []
    names = hashes_of(described, own, identities.encoded)
    for seed, part, name in zip(sweep.seeds, own, names, strict=True):
        parent, identity = needs.get(seed), described | part
        run_id = identities.folder(name[:12])
        needed = parent.id if parent is not None else None
        seeded = {"seed_everything": seed} | seedless
        runs.append(Run(run_id, cell, task, seed, seeded, identity, stages, notes, needed, stands_for))
    return runs


def _set(config: dict[str, Any], name: str, value: Any) -> None:
    """Set a key; mappings on the way to it are copied, because other cells share them."""
    *parents, last = current_key(setting_key(name), config).split(".")
    target = config
    for parent in parents:
        inner = target.get(parent)
        if not isinstance(inner, dict | None):
            raise UserError(f"{name}: {parent} is not a mapping in the experiment")
        target[parent] = target = dict(inner or {})
    # a copy: YAML writes an object that is used twice as an anchor
    target[last] = copy.deepcopy(value)


def _resolve_backbone(
    sweep: Sweep, cell: Cell, overrides: Mapping[str, Any], init_args: dict[str, Any], task: str
) -> tuple[tuple[dict[str, Any], ...] | None, tuple[str, ...], dict[str, Any]]:
    """(stages, notes, identity of the network) of the configured backbone."""
    name, options = str(init_args.get("backbone")), init_args.get("backbone_options") or {}

    def place(option: str) -> dict[str, Any]:
        key = "model.backbone_options" + (f".{option}" if option else "")
        return place_of(key, task, sweep, cell, overrides)

    if not isinstance(options, dict):
        raise UserError(f"backbone_options: {options!r} is not a mapping", **place(""))
    preset = find_preset(name)
    if preset is None:
        return None, (), {"name": name, "options": options}
    init_args["backbone"] = preset
    focal = {key: value for key, value in options.items() if key in OPTION_NAMES}
    others = {key: value for key, value in options.items() if key not in OPTION_NAMES}
    for key in others:
        if key not in RATES:
            hint = known_names(str(key), (*OPTION_NAMES, *RATES))
            raise UserError(f"{key} is not an option of backbone {preset}{hint}", **place(str(key)))
    try:
        # repr for what JSON cannot write and the options refuse
        pixels, stages, notes, identity = _network(preset, json.dumps(focal, default=repr))
    except ValueError as error:
        raise UserError(f"{error}, for {cell.name}", **place(str(error).partition(":")[0])) from error
    if task == "classification" and "window_size" in cell.settings:  # other tasks pad images of any size
        problem = _window_problem(cell.settings["window_size"], preset, pixels, stages[0]["map_size"])
        if problem:
            raise UserError(problem, **place_of("window_size", task, sweep, cell, {}))
    return stages, notes, identity | {"others": others} if others else identity


@lru_cache(maxsize=1024)
def _network(
    preset: str, options: str
) -> tuple[int, tuple[dict[str, Any], ...], tuple[str, ...], dict[str, Any]]:
    """(height in px, stages, notes, identity) of a preset with options in JSON; cells share the objects."""
    resolved = preset_options(preset, json.loads(options))
    stages, size = resolved.stages, resolved.img_size
    return (
        size if isinstance(size, int) else size[0],
        tuple(stage.as_dict() for stage in stages),
        tuple(f"stage {stage.stage}: {note}" for stage in stages for note in stage.notes),
        network_identity(resolved) | {"others": {}},
    )


def _window_problem(asked: Any, preset: str, pixels: int, first_map: Sequence[int]) -> str | None:
    """A window that is varied must tile the first stage's map: the sweep does not vary padding."""
    first = asked[0] if isinstance(asked, list | tuple) else asked
    height, width = first_map
    if height % first == 0 and width % first == 0:
        return None
    shorter = min(height, width)
    fitting = [w for w in range(3, shorter + 1) if height % w == 0 and width % w == 0]
    return (
        f"{first} is not a level of backbone {preset} at {pixels} px (stage 1 is {shorter} tokens wide; "
        f"use {one_of(fitting)})"
    )


def effective_summary(run: Run, size: tuple[int, int] | None = None) -> dict[str, str]:
    """Each value stage by stage, such as `window: 7 7 4 2`; empty for other backbones.

    Args:
        size: height and width in px at which the data feed the network; None for the size it is made for.
    """
    stages = run.stages
    if stages is None:
        return {}
    maps = [stage["map_size"] for stage in stages] if size is None else _maps(run, size)
    columns = {
        "depth": [stage["depth"] for stage in stages],
        "map": maps,
        "window": [stage["window"] for stage in stages],
        "shift": [stage["shift"] for stage in stages],
        "expand": [stage["expand"] for stage in stages],
        "levels": [1 + len(stage["levels"]) for stage in stages],
        "keys": [stage["keys_per_window"] for stage in stages],
    }
    return {name: " ".join(map(_side, values)) for name, values in columns.items()}


def intended_size(run: Run) -> tuple[int, int] | None:
    """Height and width in px that a focal backbone is made for; None for other backbones."""
    if run.stages is None:
        return None
    size = _options_of(run).img_size
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def _options_of(run: Run) -> FocalOptions:
    options = run.config["model"]["init_args"].get("backbone_options") or {}
    return preset_options(run.backbone, {name: options[name] for name in options if name in OPTION_NAMES})


def _maps(run: Run, size: tuple[int, int]) -> Sequence[list[int]]:
    """Height and width of each stage's map, in tokens."""
    options = _options_of(run)
    now = (-(-size[0] // options.patch_size), -(-size[1] // options.patch_size))
    maps = []
    for _ in run.stages or ():
        maps.append(list(now))
        now = downsampled_size(now, options)
    return maps


def _side(value: Any) -> str:
    if not isinstance(value, list):
        return str(value)
    return str(value[0]) if value[0] == value[1] else "x".join(map(str, value))
