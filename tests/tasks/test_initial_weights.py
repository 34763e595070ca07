"""`init_seed` draws the initial weights, heads included, and nothing else."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.small_tasks import small_detector, small_segmenter
from torch import nn

from focal_lab.errors import UserError
from focal_lab.tasks.base import Task
from focal_lab.tasks.classification.task import Classification


def small_classifier(**model: Any) -> Classification:
    return Classification("focal_micro_patch2_window7_28", num_classes=10, **model)


MAKERS: dict[str, Callable[..., Task]] = {
    "classification": small_classifier,
    "detection": lambda **model: small_detector("retinanet", **model),
    "segmentation": small_segmenter,
}
by_task = pytest.mark.parametrize("make", MAKERS.values(), ids=list(MAKERS))


def seed_all(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def next_numbers() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), torch.rand(()).item()


def drawn(model: nn.Module) -> dict[str, torch.Tensor]:
    """The weights that are drawn at random: not all of one value."""
    weights = {name: value for name, value in model.named_parameters() if value.numel() > 1}
    return {name: value for name, value in weights.items() if value.min() != value.max()}


@by_task
def test_every_weight_that_is_drawn_follows_the_seed(make: Callable[..., Task]) -> None:
    one, again, other = (drawn(make(init_seed=seed).model) for seed in (7, 7, 8))
    assert len(one) > 20
    assert all(torch.equal(weight, again[name]) for name, weight in one.items())
    assert not any(torch.equal(weight, other[name]) for name, weight in one.items())


@by_task
def test_what_is_drawn_next_does_not_depend_on_the_seed_or_on_the_network(make: Callable[..., Task]) -> None:
    torch_seeded = make is not small_classifier  # the makers of small_tasks seed torch themselves
    seed_all(0 if torch_seeded else 3)
    untouched = next_numbers()
    for init_seed in (7, 8):
        seed_all(0 if torch_seeded else 3)
        make(init_seed=init_seed)
        assert next_numbers() == untouched


def test_the_weights_are_those_of_a_run_with_this_seed_alone() -> None:
    seed_all(7)
    whole = small_classifier().model.state_dict()
    seed_all(3)
    separate = small_classifier(init_seed=7).model.state_dict()
    assert all(torch.equal(value, separate[name]) for name, value in whole.items())


def test_a_network_that_starts_from_a_file_has_a_head_of_its_own_seed(tmp_path: Path) -> None:
    path = tmp_path / "backbone.pt"
    torch.save(small_classifier(init_seed=1).model.state_dict(), path)
    options = {"backbone": "focal_micro_patch2_window7_28", "backbone_checkpoint": str(path)}
    with pytest.warns(UserWarning, match="head"):
        one, other = (Classification(num_classes=4, init_seed=seed, **options).model for seed in (7, 8))
    theirs = dict(other.named_parameters())
    differ = {name for name, value in one.named_parameters() if not torch.equal(value, theirs[name])}
    assert differ == {"head.fc.weight"}


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_out_of_range_is_refused(seed: int) -> None:
    with pytest.raises(UserError, match=rf"^model\.init_seed: {seed} is not in \[0, 2\^32\)$"):
        small_classifier(init_seed=seed)
