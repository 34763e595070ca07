"""Which runs cost the same."""

import math
from typing import Any

import pytest
from support.small_project import write_sweep

from focal_lab.sweep.estimate.equivalence import (
    count_key,
    covering,
    group_by_cell,
    length_of,
    limits_of,
    shape_of,
    time_limit,
)
from focal_lab.sweep.plan.plan import make_plan
from focal_lab.sweep.plan.runs import Run

pytestmark = pytest.mark.usefixtures("project")


def run_of(*overrides: str, **keys: Any) -> Run:
    return make_plan(
        write_sweep(**{"factors": {"use_layerscale": [True]}, "seeds": 1} | keys),
        overrides=overrides,
    ).runs[0]


def shape(*overrides: str) -> str:
    run = run_of(*overrides)
    return shape_of(run.identity, run.config)


@pytest.mark.parametrize(
    "setting",
    [
        "model.lr=1",
        "model.weight_decay=0.3",
        "model.label_smoothing=0.2",
        "model.warmup_epochs=1",
        "init_seed=3",
        "data_seed=3",
        "order_seed=3",
        "trainer.max_epochs=9",
        "trainer.max_steps=100",
        "trainer.log_every_n_steps=1",
        "drop_path_rate=0.0",
        "window_size=[7, 7, 7, 7]",
    ],
)
def test_how_weights_change_and_for_how_long_is_no_matter_of_shape(setting: str) -> None:
    assert shape(setting) == shape()
    assert count_key(run_of("model.lr=3").config) == count_key(run_of().config)


@pytest.mark.parametrize(
    "setting",
    [
        "window_size=14",
        "data.batch_size=8",
        "data.num_workers=2",
        "data.image_size=56",
        "model.mixup=0.8",
        "drop_path_rate=0.1",
        "trainer.precision=bf16-mixed",
        "trainer.accumulate_grad_batches=2",
        "backbone=resnet18",
    ],
)
def test_what_a_step_computes_is(setting: str) -> None:
    assert shape(setting) != shape()


def test_seeds_and_what_a_run_starts_from_have_one_shape() -> None:
    path = write_sweep(tasks=["classification", "detection"], seeds=3)
    groups = group_by_cell(make_plan(path).runs)
    assert [len(group) for group in groups] == [3, 3, 3, 3]
    assert [len({shape_of(run.identity, run.config) for run in group}) for group in groups] == [1, 1, 1, 1]


def test_networks_are_counted_once_for_all_rates_and_batches() -> None:
    same = ("data.batch_size=8", "trainer.max_epochs=7", "model.lr=1")
    assert {count_key(run_of(setting).config) for setting in same} == {count_key(run_of().config)}
    other = ("window_size=14", "data.image_size=56", "model.num_classes=7", "backbone=resnet18")
    assert len({count_key(run_of(setting).config) for setting in other}) == 4


def test_lengths_are_steps_where_these_are_said_else_epochs() -> None:
    assert length_of(run_of("trainer.max_epochs=7").config) == ("epochs", 7)
    assert length_of(run_of("trainer.max_steps=50").config) == ("steps", 50)
    assert length_of(run_of("trainer.max_epochs=null").config) == ("epochs", 1000)
    assert length_of(run_of("trainer.max_epochs=0").config) == ("epochs", 0)
    assert length_of(run_of("trainer.max_epochs=-1").config) == ("epochs", math.inf)
    assert length_of(run_of("trainer.max_epochs=-1", "trainer.max_steps=9").config) == ("steps", 9)
    assert length_of(run_of("trainer.fast_dev_run=true").config) == ("steps", 1)
    assert limits_of(run_of("trainer.max_steps=50").config) == [("steps", 50), ("epochs", 2)]


@pytest.mark.parametrize(
    ("limit", "seconds"),
    [("00:01:00:05", 3605), ({"minutes": 2}, 120), (None, math.inf), ("soon", math.inf)],
)
def test_a_training_may_be_limited_in_time(limit: Any, seconds: float) -> None:
    assert time_limit({"trainer": {"max_time": limit}}) == seconds


def test_few_configurations_hold_every_value_of_many() -> None:
    factors = {
        "lr": {f"lr{i}": {"model.lr": 0.1 * (i + 1)} for i in range(8)},
        "decay": {f"wd{i}": {"model.weight_decay": 0.1 * i} for i in range(6)},
        "window_size": [7, 14],
    }
    runs = make_plan(write_sweep(factors=factors, seeds=1)).runs
    chosen = covering(runs)
    assert len(runs) == 96
    assert len(chosen) == 14
    for key, count in (("lr", 8), ("weight_decay", 6)):
        assert len({run.config["model"]["init_args"][key] for run in chosen}) == count
    assert len({run.cell.labels["window_size"] for run in chosen}) == 2


def test_a_network_with_the_datas_classes_is_counted_for_its_data() -> None:
    roots = [run_of("model.num_classes=null", f"data.root={root}").config for root in ("here", "there")]
    assert count_key(roots[0]) != count_key(roots[1])
    given = [run_of(f"data.num_train_images={count}").config for count in (64, 128)]
    assert count_key(given[0]) == count_key(given[1])
