"""Options of a resumed training that differ from its checkpoint's: reported, and applied.

The configuration given now applies. Lightning would restore the optimizer's hyperparameters and the schedule
with their state, and with them the learning rates of a training of another length.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.strategies import FSDPStrategy
from lightning.pytorch.utilities import rank_zero_warn
from torch import nn

from focal_lab.data.option_names import RENAMED
from focal_lab.errors import UserError
from focal_lab.tasks.base import Task
from focal_lab.tasks.optimizer import Recipe
from focal_lab.utils.lazy_imports import find_class

STEP = "focal_lab_step"  # key of the trainer's options in a checkpoint
MID_EPOCH = "focal_lab_mid_epoch"  # key of the position in an unfinished epoch (`exact_resume`)
_OF_TRAINER = (
    "accumulate_grad_batches",
    "gradient_clip_algorithm",
    "gradient_clip_val",
    "limit_train_batches",
    "max_epochs",
    "max_steps",
    "precision",
)
# the initial weights and the loading speed do not affect a resumed training
_WITHOUT_EFFECT = {"model.backbone_checkpoint", "model.init_seed", "data.num_workers", "data.download"}


def trainer_options(trainer: Any, seed: int) -> dict[str, Any]:
    """The options to save in a checkpoint that are not hyperparameters."""
    return {
        "seed_everything": seed,
        "data.batch_size": getattr(getattr(trainer, "datamodule", None), "batch_size", None),
        "devices": trainer.world_size,
        **{f"trainer.{name}": getattr(trainer, name) for name in _OF_TRAINER},
    }


def changes(checkpoint: Mapping[str, Any], module: Any, data: Any, options: Mapping[str, Any]) -> list[str]:
    """Each option of model, data or trainer whose value differs from the checkpoint's, with both values."""
    pairs = [(checkpoint.get(STEP, {}), dict(options))]
    for prefix, key, owner in (
        ("model", "hyper_parameters", module),
        ("data", "datamodule_hyper_parameters", data),
    ):
        saved, given = checkpoint.get(key) or {}, dict(getattr(owner, "hparams", {}))
        saved = {
            RENAMED[name] if name in RENAMED and name not in given else name: value
            for name, value in saved.items()
        }
        if "_class_path" in given and _is_class(saved.get("_class_path"), type(owner)):
            saved["_class_path"] = given["_class_path"]  # it has moved, or has several paths
        pairs.append((_named(prefix, saved), _named(prefix, given)))
    found = {
        name: f"{name} was {before[name]} and is {now[name]}"
        for before, now in pairs
        for name in now.keys() & before.keys() - _WITHOUT_EFFECT
        if plain(before[name]) != plain(now[name])
    }
    return [found[name] for name in sorted(found)]


def apply_options(
    checkpoint: dict[str, Any], module: Task, trainer: Any, options: Mapping[str, Any], changed: Sequence[str]
) -> None:
    """Make a resumed training continue with the options it is given now, and report those that have changed.

    Raises:
        UserError: the training cannot be resumed with these options.
    """
    finished = check_what_is_left(checkpoint, trainer)
    if finished:
        rank_zero_warn(f"--ckpt_path: {finished}")
    elif changed:
        rank_zero_warn(
            f"--ckpt_path: {', '.join(changed)}: the training continues with the new values, and the "
            "learning rates follow the new schedule"
        )
    _check_position(checkpoint, options)
    keep_patience(checkpoint, trainer)
    if not isinstance(trainer.strategy, FSDPStrategy):  # it restores the optimizer itself
        regroup(checkpoint, module.recipe, module.model)


def check_what_is_left(checkpoint: Mapping[str, Any], trainer: Any) -> str | None:
    """A message for a complete training, None while something is left; a UserError for one past its end."""
    progress = checkpoint.get("loops", {}).get("fit_loop", {}).get("epoch_progress", {}).get("current", {})
    finished = None
    for name, unit, done, limit in (
        ("max_epochs", "epochs", int(progress.get("processed", 0)), trainer.max_epochs),
        ("max_steps", "steps", int(checkpoint.get("global_step", 0)), trainer.max_steps),
    ):
        if limit is None or limit < 0 or done < limit:
            continue
        if done > limit:
            raise UserError(
                f"the checkpoint is from after {done} {unit}, and trainer.{name} is {limit} (raise it, or "
                "train from scratch)",
                key="--ckpt_path",
            )
        finished = f"nothing is left to train: all {limit} {unit} are done (raise trainer.{name})"
    return finished


def _check_position(checkpoint: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    """Refuse to resume within an epoch where a batch of all devices has another number of images."""
    before = checkpoint.get(STEP, {})
    if checkpoint.get(MID_EPOCH, {"ended": True}).get("ended") or "devices" not in before:
        return
    was, now = ((step["devices"], step["data.batch_size"] or 1) for step in (before, options))
    if was[0] * was[1] != now[0] * now[1]:
        raise UserError(
            f"was written within an epoch of batches of {was[0]} x {was[1]} images (devices x "
            f"data.batch_size); with {now[0]} x {now[1]} its position in the epoch is undefined (use the "
            "same, or the checkpoint of an epoch's end)",
            key="--ckpt_path",
        )


def regroup(checkpoint: dict[str, Any], recipe: Recipe, model: nn.Module) -> None:
    """Renumber the optimizer's moments for a recipe with other parameter groups, such as layer decay.

    Raises:
        UserError: the moments do not fit the model's weights.
    """
    states = checkpoint.get("optimizer_states") or []
    if len(states) != 1 or "param_groups" not in states[0]:
        return
    saved, new = states[0], recipe.optimizer(model, fused=False)
    if _sizes(saved["param_groups"]) == _sizes(new.param_groups):
        return
    before = checkpoint.get("hyper_parameters") or {}
    same = {name: before.get(name, getattr(recipe, name)) for name in ("layer_decay", "weight_decay")}
    old = replace(recipe, **same).optimizer(model, fused=False)
    if _sizes(saved["param_groups"]) != _sizes(old.param_groups):
        raise UserError("its optimizer's state does not fit the weights that are trained", key="--ckpt_path")
    number = {id(weight): i for i, weight in enumerate(_weights(new))}
    moved = [number[id(weight)] for weight in _weights(old)]
    checkpoint["optimizer_states"] = [
        {
            "state": {moved[i]: moments for i, moments in saved["state"].items()},
            "param_groups": new.state_dict()["param_groups"],
        }
    ]


def keep_patience(checkpoint: Mapping[str, Any], trainer: Any) -> None:
    """Keep the configured patience of EarlyStopping, which Lightning would take from the checkpoint."""
    for callback in trainer.callbacks:
        state = checkpoint.get("callbacks", {}).get(getattr(callback, "state_key", None))
        if isinstance(callback, EarlyStopping) and state:
            state["patience"] = callback.patience


def plain(value: Any) -> Any:
    """A value in one canonical form: tuples as lists, empty options as None."""
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, Mapping):
        return {name: plain(item) for name, item in value.items()} or None
    return value


def _named(prefix: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Hyperparameters by their names on the command line."""
    named = {f"{prefix}.{name}": value for name, value in values.items() if not name.startswith("_")}
    return named | ({prefix: values["_class_path"]} if "_class_path" in values else {})


def _is_class(path: object, kind: type) -> bool:
    try:
        return find_class(str(path)) is kind
    except Exception:  # a module of the user's that is gone, or fails
        return False


def _sizes(groups: list[dict[str, Any]]) -> list[int]:
    return [len(group["params"]) for group in groups]


def _weights(optimizer: Any) -> list[Any]:
    return [weight for group in optimizer.param_groups for weight in group["params"]]
