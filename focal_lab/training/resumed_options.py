"""What a resumed training is given otherwise than its checkpoint has it: named, and applied.

The configuration counts as it is given now. Lightning would restore the optimizer's hyperparameters and the
schedule with their state, and with them the rates of a training of another length.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from lightning.pytorch.callbacks import EarlyStopping
from torch import nn

from focal_lab.data.option_names import current_options
from focal_lab.errors import UserError
from focal_lab.tasks.optimizer import Recipe
from focal_lab.training.callbacks import ReseedEachEpoch

STEP = "focal_lab_step"  # the trainer's options in a checkpoint
MID_EPOCH = "focal_lab_mid_epoch"  # the place in an epoch that had not ended (`resumption`)
_OF_TRAINER = (
    "accumulate_grad_batches",
    "gradient_clip_algorithm",
    "gradient_clip_val",
    "limit_train_batches",
    "max_epochs",
    "max_steps",
    "precision",
)
# where the weights come from and how fast data are loaded change nothing of a training that is resumed
_WITHOUT_EFFECT = {"model.backbone_checkpoint", "data.num_workers", "data.download"}


def trainer_options(trainer: Any, batch_size: int | None) -> dict[str, Any]:
    """The options that are in no hyperparameters, for a checkpoint."""
    return {
        "seed_everything": _seed(trainer),
        "data.batch_size": batch_size,
        "devices": trainer.world_size,
        **{f"trainer.{name}": getattr(trainer, name) for name in _OF_TRAINER},
    }


def changes(checkpoint: Mapping[str, Any], module: Any, data: Any, options: Mapping[str, Any]) -> list[str]:
    """Each option that has another value than in the checkpoint, with both.

    Args:
        checkpoint: what Lightning loaded.
        module: the model, with hyperparameters.
        data: the data module; None for none.
        options: the trainer's, of `trainer_options`.
    """
    pairs = [(checkpoint.get(STEP, {}), dict(options))]
    for prefix, key, owner in (
        ("model", "hyper_parameters", module),
        ("data", "datamodule_hyper_parameters", data),
    ):
        noted, given = checkpoint.get(key) or {}, dict(getattr(owner, "hparams", {}))
        if prefix == "data":
            noted = current_options(noted, noted.get("_class_path"))
        pairs.append((_named(prefix, noted), _named(prefix, given)))
    found: dict[str, str] = {}
    for before, now in pairs:
        for name in now.keys() & before.keys() - _WITHOUT_EFFECT:
            if plain(before[name]) != plain(now[name]):
                found[name] = f"{name} was {before[name]} and is {now[name]}"
    return [found[name] for name in sorted(found)]


def check_what_is_left(checkpoint: Mapping[str, Any], trainer: Any) -> str | None:
    """What to say of a training that has come to its end already; None while there is something to train.

    Raises:
        UserError: it went on for longer than the trainer is to.
    """
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


def check_place(checkpoint: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    """Refuse to look for the place within an epoch among other batches.

    Args:
        checkpoint: what Lightning loaded.
        options: the trainer's, of `trainer_options`.

    Raises:
        UserError: there are others.
    """
    before = checkpoint.get(STEP, {})
    if checkpoint.get(MID_EPOCH, {"ended": True}).get("ended") or "devices" not in before:
        return
    was, now = ((made["devices"], made["data.batch_size"] or 1) for made in (before, options))
    if was[0] * was[1] != now[0] * now[1]:
        raise UserError(
            f"was written within an epoch of batches of {was[0]} x {was[1]} images (devices x "
            f"data.batch_size), and they are {now[0]} x {now[1]} now, among which its place is not found "
            "(give the same, or the checkpoint of an epoch's end)",
            key="--ckpt_path",
        )


def regroup(checkpoint: dict[str, Any], recipe: Recipe, model: nn.Module) -> None:
    """Renumber the optimizer's moments for a recipe that groups the weights otherwise, as layer decay does.

    Args:
        checkpoint: what Lightning loaded; its optimizer's state is replaced.
        recipe: the new one.
        model: whose weights these are.

    Raises:
        UserError: the moments are not those of the model's weights.
    """
    states = checkpoint.get("optimizer_states") or []
    if len(states) != 1 or "param_groups" not in states[0]:
        return
    saved, new = states[0], recipe.optimizer(model, fused=False)
    if _sizes(saved["param_groups"]) == _sizes(new.param_groups):
        return
    noted = checkpoint.get("hyper_parameters") or {}
    same = {name: noted.get(name, getattr(recipe, name)) for name in ("layer_decay", "weight_decay")}
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
    """Lightning's EarlyStopping would take its patience from the checkpoint."""
    for callback in trainer.callbacks:
        state = checkpoint.get("callbacks", {}).get(getattr(callback, "state_key", None))
        if isinstance(callback, EarlyStopping) and state:
            state["patience"] = callback.patience


def plain(value: Any) -> Any:
    """Whatever is written in one way or another and means the same: tuples are lists, no options are none."""
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, Mapping):
        return {name: plain(item) for name, item in value.items()} or None
    return value


def _seed(trainer: Any) -> int | None:
    return next((made.seed for made in trainer.callbacks if isinstance(made, ReseedEachEpoch)), None)


def _named(prefix: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Hyperparameters by their names on the command line."""
    named = {f"{prefix}.{name}": value for name, value in values.items() if not name.startswith("_")}
    return named | ({prefix: values["_class_path"]} if "_class_path" in values else {})


def _sizes(groups: list[dict[str, Any]]) -> list[int]:
    return [len(group["params"]) for group in groups]


def _weights(optimizer: Any) -> list[Any]:
    return [weight for group in optimizer.param_groups for weight in group["params"]]
