"""What a sweep cannot honour of an experiment or a setting is refused before any work, never dropped."""

import argparse
from pathlib import Path
from typing import Any

import pytest
from support.small_project import DIGITS, write, write_sweep

from focal_lab.errors import UserError
from focal_lab.sweep.commands.command_options import plan_of

pytestmark = pytest.mark.usefixtures("project")


def refusal(*settings: str, tasks: list[str] | None = None, **keys: Any) -> str:
    options = argparse.Namespace(
        sweep=str(write_sweep(**keys)),
        suite=None,
        seeds=None,
        until_decided=False,
        max_seeds=None,
        set=list(settings),
        tasks=tasks,
        out=Path("runs"),
    )
    with pytest.raises(UserError) as caught:
        plan_of(options, [])
    return str(caught.value)


@pytest.mark.parametrize(
    ("setting", "why"),
    [
        ("default_root_dir=here", "'here': each run writes to its own folder in --out; drop it"),
        ("enable_progress_bar=true", "True: the sweep shows the progress of its runs"),
        ("num_nodes=2", "2: a run of a sweep is trained on one machine"),
        ("devices=[0, 1]", "[0, 1]: a sweep hands out the devices; say how many each run gets"),
        ("devices=-1", "-1: a sweep hands out the devices"),
        ("devices=0", "0: a sweep hands out the devices"),
        ("devices='2'", "'2': a sweep hands out the devices"),
        ("strategy=ddp_spawn", "'ddp_spawn': the sweep starts the processes of a run; use ddp"),
        ("barebones=true", "True: a run needs its metrics"),
        ("limit_test_batches=0", "0: the result of a run is its test"),
        ("max_epochs=-1", "-1: a run of a sweep has an end"),
        ("limit_test_batches=0.0", "0.0: the result of a run is its test"),
    ],
)
def test_a_trainers_setting_without_meaning_in_a_sweep_is_refused(setting: str, why: str) -> None:
    name = setting.partition("=")[0]
    assert refusal(f"trainer.{setting}").startswith(f"--set: trainer.{name}: {why}")


def test_the_refusal_names_the_place_that_sets_it() -> None:
    assert refusal(set={"trainer.num_nodes": 2}).startswith(
        "sweeps/small.yaml: set.trainer.num_nodes: trainer.num_nodes: 2:"
    )
    factors = {"nodes": {"two": {"classification.trainer.num_nodes": 2}}}
    assert refusal(factors=factors).startswith("sweeps/small.yaml: factors.nodes.two: trainer.num_nodes: 2:")
    ranges = {"trainer.num_nodes": {"low": 1, "high": 2}}
    search = {"trials": 2, "ranges": ranges}
    where = "sweeps/small.yaml: search.ranges.trainer.num_nodes: trainer.num_nodes: 2:"
    assert refusal(factors={}, seeds=1, search=search).startswith(where)
    write("experiments/digits/classification.yaml", DIGITS.replace("{max_epochs: 2", "{num_nodes: 2"))
    assert refusal().startswith("experiments/digits/classification.yaml: trainer.num_nodes: 2:")


@pytest.mark.parametrize(
    "setting", ["enable_checkpointing=false", "limit_val_batches=0", "max_epochs=0", "fast_dev_run=true"]
)
def test_a_run_that_others_start_from_leaves_its_best_checkpoint(setting: str) -> None:
    both = ["classification", "detection"]
    why = refusal(f"classification.trainer.{setting}", tasks=both)
    assert "other runs start from this one's best checkpoint, and there would be none" in why
    options = argparse.Namespace(
        sweep=str(write_sweep()),
        suite=None,
        seeds=None,
        until_decided=False,
        max_seeds=None,
        set=[f"detection.trainer.{setting}"],
        tasks=both,
        out=Path("runs"),
    )
    assert plan_of(options, []).runs


@pytest.mark.parametrize(
    "key", ["ckpt_path: last", "optimizer: {class_path: SGD}", "return_predictions: true"]
)
def test_a_key_that_only_fit_takes_is_refused_with_the_experiment(key: str) -> None:
    path = write("experiments/digits/classification.yaml", f"{DIGITS}{key}\n")
    assert refusal().startswith(f"{path}: {key.partition(':')[0]}: cannot be set in a sweep")
