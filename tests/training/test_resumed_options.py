"""What is given to a training that is resumed: applied, named or refused."""

from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning import Callback
from lightning.pytorch.callbacks import EarlyStopping
from support.tiny_task import OPTIONS, read_checkpoint, tiny_config
from torch import nn

from focal_lab.errors import UserError
from focal_lab.tasks.backbone import create_backbone
from focal_lab.tasks.optimizer import Recipe, Schedule
from focal_lab.training.fit import build, train
from focal_lab.training.resumed_options import changes, check_what_is_left, keep_patience, regroup
from focal_lab.training.stop import Stopped

LAST = Path("checkpoints/last.ckpt")


class Groups(Callback):
    """The options of every group of weights at each step."""

    def __init__(self) -> None:
        self.found: dict[int, list[tuple[float, ...]]] = {}

    def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
        self.found[trainer.global_step] = [
            (group["lr"], group["weight_decay"], group.get("lr_scale", 1.0), *group["betas"])
            for group in trainer.optimizers[0].param_groups
        ]


def short(trainer: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """The tiny experiment without validation."""
    quick = {"limit_val_batches": 0, "num_sanity_val_steps": 0, "logger": False}
    return tiny_config(trainer=quick | (trainer or {}), **changes)


def fit(config: dict[str, Any], folder: Path, resume: Path | None = None) -> dict[int, list[Any]]:
    """Train; the options of the groups at each step."""
    made, groups = build(config, folder), Groups()
    made.trainer.callbacks.append(groups)
    made.trainer.fit(made.model, made.datamodule, ckpt_path=None if resume is None else str(resume))
    return groups.found


def undisturbed(config: dict[str, Any], steps: int, per_epoch: int) -> dict[int, list[Any]]:
    """The same of a training from scratch, without its steps."""
    model: Any = build(config, Path("whole")).model
    optimizer = model.recipe.optimizer(model.model, fused=False)
    schedule = model.recipe.scheduler(optimizer, steps, per_epoch)
    groups, trainer = Groups(), SimpleNamespace(optimizers=[optimizer], global_step=0)
    for step in range(steps):
        trainer.global_step = step
        groups.on_train_batch_start(trainer)
        schedule.step_update(step + 1)
    return groups.found


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The last checkpoint of two epochs of two steps."""
    folder = tmp_path_factory.mktemp("trained")
    fit(short(), folder)
    return folder / LAST


LONGER = {"max_epochs": 4}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({}, ""),
        ({"lr": 0.1}, "model.lr was 0.003 and is 0.1, "),
        ({"weight_decay": 0.3, "betas": (0.8, 0.99)}, "model.betas was [0.9, 0.999] and is [0.8, 0.99], "),
        ({"weight_decay": 0.0}, "model.weight_decay was 0.05 and is 0.0, "),  # one group of weights, not two
        ({"warmup_epochs": 3.0, "min_lr": 1e-4}, "model.min_lr was 1e-05 and is 0.0001, "),
        ({"layer_decay": 0.7}, "model.layer_decay was None and is 0.7, "),
    ],
)
def test_a_longer_training_goes_on_at_the_rates_of_one_that_was_as_long_from_the_start(
    change: dict[str, Any], named: str, trained: Path
) -> None:
    config = short(LONGER, **change)
    with pytest.warns(UserWarning, match="--ckpt_path") as warned:
        found = fit(config, Path("resumed"), trained)
    (line,) = [str(each.message) for each in warned if "--ckpt_path" in str(each.message)]
    assert named in line
    assert "trainer.max_epochs was 2 and is 4" in line
    whole = undisturbed(config, 8, 2)
    assert found == {step: whole[step] for step in (4, 5, 6, 7)}
    assert min(group[0] for groups in found.values() for group in groups) < max(found[4])[0]


@pytest.mark.parametrize(
    ("trainer", "batch_size", "per_epoch"),
    [
        (LONGER, 16, 4),
        (LONGER, 64, 1),
        (LONGER | {"accumulate_grad_batches": 2}, 32, 1),
    ],
)
def test_with_other_steps_an_epoch_the_schedule_goes_by_epochs(
    trainer: dict[str, Any], batch_size: int, per_epoch: int, trained: Path
) -> None:
    config = short(trainer, data={"batch_size": batch_size})
    found = list(fit(config, Path("resumed"), trained).values())
    if trainer == LONGER:
        assert found == list(undisturbed(config, 4 * per_epoch, per_epoch).values())[2 * per_epoch :]
    else:
        # within a step of two batches the rates stay
        assert found == list(undisturbed(config, 4, 1).values())[2:]


def test_what_follows_on_such_a_training_finds_the_same_place(trained: Path) -> None:
    half = {"batch_size": 16}
    fit(short({"max_epochs": 3}, data=half), Path("third"), trained)
    found = fit(short(LONGER, data=half), Path("fourth"), Path("third") / LAST)
    assert list(found) == [8, 9, 10, 11]
    assert list(found.values()) == list(undisturbed(short(LONGER, data=half), 16, 4).values())[12:]


def test_a_number_of_steps_is_reached_whatever_an_epoch_has(trained: Path) -> None:
    config = short({"max_epochs": -1, "max_steps": 8}, data={"batch_size": 16})
    whole = undisturbed(config, 8, 4)
    assert fit(config, Path("resumed"), trained) == {step: whole[step] for step in (4, 5, 6, 7)}


@pytest.mark.parametrize(
    "recipe",
    [Recipe(), Recipe(warmup_steps=50), Recipe(power=1.0), Recipe(milestones=(3.0, 6.0)), Recipe(lr=1.0)],
)
def test_every_schedule_is_made_from_scratch_and_only_finds_its_place(recipe: Recipe) -> None:
    def made(recipe: Recipe, total: int, per_epoch: int) -> Schedule:
        optimizer = recipe.optimizer(nn.Linear(2, 2), fused=False)
        return Schedule(recipe.scheduler(optimizer, total, per_epoch), per_epoch)

    def rate(schedule: Schedule) -> float:
        return float(schedule.optimizer.param_groups[0]["lr"])

    before, whole = made(Recipe(lr=0.5), 20, 10), made(recipe, 160, 20)
    resumed = made(recipe, 160, 20)
    resumed.optimizer.load_state_dict(before.optimizer.state_dict())
    resumed.load_state_dict(before.state_dict())
    resumed.resume(step=20, epochs=2, batches=0, accumulated=1)  # 2 of the 8 epochs, which are longer now
    rates = set()
    for step in range(1, 121):
        whole.step_update(40 + step - 1)
        assert rate(resumed) == rate(whole)
        rates.add(rate(resumed))
        resumed.step_update(20 + step)
    assert len(rates) > 1


def test_a_rate_falls_at_the_end_of_the_epoch_that_is_its_milestone() -> None:
    recipe = Recipe(lr=1.0, milestones=(2.0, 3.0), warmup_steps=5)
    optimizer = recipe.optimizer(nn.Linear(2, 2), fused=False)
    schedule, rates = recipe.scheduler(optimizer, 40, 10), [0.0]
    for step in range(1, 40):
        schedule.step_update(step)
        rates.append(optimizer.param_groups[0]["lr"])
    fallen = [step for step, (before, now) in enumerate(pairwise(rates), 1) if now < before]
    assert fallen == [20, 30]


@pytest.mark.parametrize("decay", [0.05, 0.0])
def test_moments_stay_with_their_weights_where_groups_are_others(decay: float) -> None:
    model = create_backbone("focal_micro", OPTIONS)
    before, after = Recipe(), Recipe(layer_decay=0.8, weight_decay=decay)
    for old, new in ((before, after), (after, before)):
        optimizer = old.optimizer(model, fused=False)
        for number, parameter in enumerate(model.parameters()):
            moments = {"exp_avg": torch.tensor(float(number)), "step": torch.tensor(1.0)}
            optimizer.state[parameter].update(moments)
        noted = {"layer_decay": old.layer_decay, "weight_decay": old.weight_decay}
        checkpoint: dict[str, Any] = {
            "optimizer_states": [optimizer.state_dict()],
            "hyper_parameters": noted,
        }
        regroup(checkpoint, new, model)
        resumed = new.optimizer(model, fused=False)
        resumed.load_state_dict(checkpoint["optimizer_states"][0])
        for number, parameter in enumerate(model.parameters()):
            assert resumed.state[parameter]["exp_avg"] == number


def test_within_an_epoch_other_batches_are_refused() -> None:
    with pytest.raises(Stopped):
        train(short(), Path("run"), stop=lambda: "stop")
    stopped = Path("run/checkpoints/stopped.ckpt")
    with pytest.raises(UserError, match=r"^--ckpt_path: was written within an epoch of batches of 1 x 32 im"):
        fit(short(data={"batch_size": 16}), Path("run"), stopped)
    assert list(fit(short(), Path("run"), stopped)) == [1, 2, 3]


def test_a_checkpoint_written_before_its_epoch_is_counted_takes_other_batches() -> None:
    seldom = {"check_val_every_n_epoch": 2, "limit_val_batches": 1}  # then Lightning writes it so
    fit(short(seldom), Path("run"))
    assert read_checkpoint(Path("run") / LAST)["focal_lab_mid_epoch"]["ended"]
    longer = short(seldom | {"max_epochs": 3}, data={"batch_size": 16})
    found = fit(longer, Path("resumed"), Path("run") / LAST)
    assert list(found) == [4, 5, 6, 7]
    assert list(found.values()) == list(undisturbed(longer, 12, 4).values())[8:]


@pytest.mark.parametrize(
    ("trainer", "said"),
    [
        ({"max_epochs": 2}, "nothing is left to train: all 2 epochs are done (raise trainer.max_epochs)"),
        ({"max_steps": 4}, "nothing is left to train: all 4 steps are done (raise trainer.max_steps)"),
        ({"max_epochs": 3}, None),
    ],
)
def test_a_training_that_has_ended_says_so(trainer: dict[str, int], said: str | None, trained: Path) -> None:
    limits = SimpleNamespace(**{"max_epochs": -1, "max_steps": -1} | trainer)
    assert check_what_is_left(read_checkpoint(trained), limits) == said


@pytest.mark.parametrize(("name", "limit"), [("max_epochs", 1), ("max_steps", 3)])
def test_a_training_that_went_on_for_longer_is_refused(name: str, limit: int, trained: Path) -> None:
    with pytest.raises(UserError, match=rf"^--ckpt_path: .* trainer.{name} is {limit} "):
        fit(tiny_config(trainer={name: limit}), Path("run"), trained)


def test_an_unchanged_resume_has_nothing_to_name(trained: Path) -> None:
    made = build(tiny_config(backbone_checkpoint=None, data={"num_workers": 1}), Path("run"))
    state = read_checkpoint(trained)
    assert changes(state, made.model, made.datamodule, state["focal_lab_step"]) == []
    made.model.hparams["mixup"], made.datamodule.hparams["pieces"] = 0.5, 1
    assert changes(state, made.model, made.datamodule, {"seed_everything": 3}) == [
        "data.pieces was 4 and is 1",
        "model.mixup was 0.0 and is 0.5",
        "seed_everything was 0 and is 3",
    ]


def test_patience_is_that_which_is_given() -> None:
    callback = EarlyStopping("val/top1", patience=7)
    checkpoint = {"callbacks": {callback.state_key: {"patience": 3}}}
    keep_patience(checkpoint, SimpleNamespace(callbacks=[callback]))
    assert checkpoint["callbacks"][callback.state_key]["patience"] == 7
