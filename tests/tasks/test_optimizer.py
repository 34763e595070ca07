import math
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch.strategies import FSDPStrategy
from support.tiny_task import OPTIONS
from torch import nn
from torch.optim import Optimizer

from focal_lab.errors import UserError
from focal_lab.tasks.backbone import create_backbone
from focal_lab.tasks.base import _check_trainer
from focal_lab.tasks.optimizer import Recipe


def rates(recipe: Recipe, total: int, per_epoch: float) -> list[float]:
    """The learning rate that each step is made with, and after them the one that would follow."""
    optimizer = recipe.optimizer(nn.Linear(2, 2), fused=False)
    scheduler = recipe.scheduler(optimizer, total, per_epoch)
    found = [optimizer.param_groups[0]["lr"]]
    for step in range(1, total + 1):
        scheduler.step_update(num_updates=step)
        found.append(optimizer.param_groups[0]["lr"])
    return found


def focal() -> nn.Module:
    """A focal network with every kind of position bias, and the options that add parameters."""
    return create_backbone("focal_micro", OPTIONS | {"use_layerscale": True, "use_pre_norm": True})


def groups_by_name(model: nn.Module, optimizer: Optimizer) -> dict[str, dict[str, Any]]:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {names[id(p)]: group for group in optimizer.param_groups for p in group["params"]}


def test_the_rate_rises_in_a_line_then_falls_along_a_cosine_to_its_least() -> None:
    found = rates(Recipe(lr=0.1, warmup_epochs=2, warmup_lr=0.01, min_lr=0.02), total=100, per_epoch=10)
    assert found[0] == pytest.approx(0.01)
    assert found[10] == pytest.approx(0.055)
    assert found[19] == pytest.approx(0.01 + 19 / 20 * 0.09)
    for step in (20, 50, 75, 99):
        assert found[step] == pytest.approx(0.02 + 0.08 * (1 + math.cos(math.pi * step / 100)) / 2)
    assert found[50] == pytest.approx(0.06)
    assert found[100] == pytest.approx(0.02)


def test_without_warmup_the_first_step_has_the_highest_rate() -> None:
    found = rates(Recipe(lr=0.1, min_lr=0.0), total=10, per_epoch=5)
    assert found[0] == max(found) == pytest.approx(0.1)
    assert found == sorted(found, reverse=True)


def test_a_warmup_may_be_a_fraction_of_an_epoch() -> None:
    found = rates(Recipe(lr=0.1, warmup_epochs=0.2, warmup_lr=0.0), total=40, per_epoch=20)
    assert found[2] == pytest.approx(0.05)
    assert found.index(max(found)) == 4


def test_a_warmup_does_not_start_above_the_highest_rate() -> None:
    found = rates(Recipe(lr=1e-7, warmup_epochs=1, warmup_lr=1e-6, min_lr=0.0), total=10, per_epoch=5)
    assert max(found) == pytest.approx(1e-7)


@pytest.mark.parametrize("epochs", [10, 11])
def test_a_warmup_as_long_as_the_training_is_refused(epochs: int) -> None:
    recipe = Recipe(warmup_epochs=epochs)
    with pytest.raises(UserError) as caught:
        recipe.scheduler(recipe.optimizer(nn.Linear(2, 2), fused=False), 100, 10)
    assert str(caught.value) == (
        f"model.warmup_epochs: {epochs} epochs are {epochs * 10} steps, but the training has only 100; "
        "shorten the warmup or train longer"
    )


def test_norms_biases_and_position_tables_are_not_decayed_and_all_else_is() -> None:
    model = focal()
    groups = groups_by_name(model, Recipe(weight_decay=0.05).optimizer(model, fused=False))
    names = [name for name, _ in model.named_parameters()]
    assert set(groups) == set(names)
    spared = [name for name in names if groups[name]["weight_decay"] == 0]
    for part in (
        "relative_position_bias_table",
        "ring_bias",
        "coarse_bias_tables.0",
        "gamma_1",
        "norm1.bias",
    ):
        assert any(name.endswith(part) for name in spared), part
    marks = (".bias", "norm1.weight", "norm2.weight", "norm.weight", "gamma_1", "gamma_2")
    tables = ("bias_table", "ring_bias")
    for name in names:
        expected = name.endswith(marks) or any(part in name for part in tables)
        assert (groups[name]["weight_decay"] == 0) == (expected or name.endswith("pre_norm.weight")), name
        assert groups[name]["weight_decay"] in (0, 0.05)
    for part in ("qkv.weight", "pools.0.linear.weight", "downsample.proj.weight", "head.fc.weight"):
        assert any(name.endswith(part) for name in names if name not in spared), part


def test_layer_decay_slows_early_layers_down() -> None:
    model = focal()
    recipe = Recipe(lr=0.1, layer_decay=0.5, min_lr=0.0)
    optimizer = recipe.optimizer(model, fused=False)
    recipe.scheduler(optimizer, 10, 5)
    found = {name: group["lr"] for name, group in groups_by_name(model, optimizer).items()}
    assert found["head.fc.weight"] == pytest.approx(0.1)
    path = [found[name] for name in ("patch_embed.proj.weight", "layers.0.blocks.0.attn.qkv.weight")]
    path += [found[f"layers.{stage}.blocks.0.mlp.fc1.weight"] for stage in (1, 2, 3)]
    path.append(found["head.fc.weight"])
    assert path == sorted(set(path))
    for earlier, later in pairwise(path[1:]):
        assert math.log2(later / earlier) == pytest.approx(round(math.log2(later / earlier)))


def test_decay_is_what_makes_a_weight_without_gradient_smaller() -> None:
    layer = nn.Linear(3, 2)
    weight, bias = layer.weight.detach().clone(), layer.bias.detach().clone()
    optimizer = Recipe(lr=0.1, weight_decay=0.5).optimizer(layer, fused=False)
    for parameter in layer.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert torch.allclose(layer.weight, weight * (1 - 0.1 * 0.5))
    assert torch.equal(layer.bias, bias)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"lr": 0.0}, "model.lr: 0.0 is not positive"),
        ({"weight_decay": -1.0}, "model.weight_decay: -1.0 is not 0 or more"),
        ({"betas": (0.9, 1.0)}, "model.betas: (0.9, 1.0) is not a pair in [0, 1)"),
        ({"layer_decay": 0.0}, "model.layer_decay: 0.0 is not in (0, 1]"),
        ({"layer_decay": 1.5}, "model.layer_decay: 1.5 is not in (0, 1]"),
        ({"warmup_epochs": -1.0}, "model.warmup_epochs: -1.0 is not 0 or more"),
        ({"warmup_lr": -1.0}, "model.warmup_lr: -1.0 is not 0 or more"),
        ({"min_lr": -1.0}, "model.min_lr: -1.0 is not 0 or more"),
    ],
)
def test_a_number_out_of_range_is_refused_by_name(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        Recipe(**wrong)
    assert str(caught.value) == message


def test_fsdp_that_would_decay_or_average_nothing_is_refused() -> None:
    trainer = SimpleNamespace(strategy=FSDPStrategy(), precision="32-true")
    for recipe, options in ((Recipe(), {}), (Recipe(weight_decay=0.0), {"ema_decay": 0.9})):
        with pytest.raises(UserError, match=r"^trainer.strategy: shards have one dimension"):
            _check_trainer(trainer, recipe, options, "fit")
    _check_trainer(trainer, Recipe(), {}, "test")
    _check_trainer(trainer, Recipe(weight_decay=0.0), {}, "fit")
