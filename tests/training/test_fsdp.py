"""Weights divided among two processes. FSDP has no device for the CPU by itself: it is handed it here."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.strategies import FSDPStrategy
from support.recorded_fit import (
    Answer,
    assert_same_training,
    fit,
    folder_config,
    in_processes,
    write_pictures,
)
from support.tiny_task import read_checkpoint
from torch.distributed.fsdp import FullyShardedDataParallel

from focal_lab.backbones.model import FocalBlock
from focal_lab.errors import UserError
from focal_lab.training.fit import build
from focal_lab.training.fsdp import check_sharded, find_blocks

FIRST, LAST = Path("checkpoints/epoch=0000.ckpt"), Path("checkpoints/last.ckpt")
# strong enough that weights which are not decayed would be seen
DECAY = {"weight_decay": 1.0, "warmup_epochs": 0.3, "warmup_lr": 1e-3}


def sharded(root: Path, options: dict[str, Any] | None = None, **model: Any) -> dict[str, Any]:
    strategy = {"class_path": "focal_lab.training.fsdp.Sharded", "init_args": options or {}}
    trainer = {"devices": 2, "strategy": strategy}
    return folder_config(root, batch_size=16, trainer=trainer, **DECAY | model)


def fit_on_cpu(*order: Any) -> Answer:
    """Torch takes any device that is said outright, and Lightning says the number of a GPU.

    Torch also fills one buffer again and again, and counts on `cpu()` to copy, as it does on a GPU.
    """
    made, torch.Tensor.cpu = FullyShardedDataParallel.__init__, torch.Tensor.clone  # type: ignore[assignment]

    def on_cpu(self: Any, *arguments: Any, device_id: Any = None, **options: Any) -> None:
        made(self, *arguments, device_id=torch.device("cpu"), **options)

    FullyShardedDataParallel.__init__ = on_cpu  # type: ignore[method-assign]
    return fit(*order)


def in_two(config: dict[str, Any], folder: Path, resume_from: Path | None = None) -> Answer:
    """A training of two processes, with the mean of their losses."""
    first, second = in_processes(2, fit_on_cpu, config, folder, resume_from)
    assert first["metrics"] == second["metrics"]
    return first | {"losses": np.mean([first["losses"], second["losses"]], 0)} | weights(folder)


def weights(folder: Path) -> Answer:
    state = read_checkpoint(folder / LAST)["state_dict"]
    return {"weights": {name: value.numpy() for name, value in state.items()}}


def moments(folder: Path) -> dict[int, np.ndarray]:
    state = read_checkpoint(folder / LAST)["optimizer_states"][0]["state"]
    return {number: kept["exp_avg"].numpy() for number, kept in state.items()}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def alone(root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Answer, Path]:
    folder = tmp_path_factory.mktemp("alone")
    return in_processes(1, fit, folder_config(root, batch_size=32, **DECAY), folder)[0], folder


@pytest.fixture(scope="module")
def divided(root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Answer, Path]:
    folder = tmp_path_factory.mktemp("divided")
    return in_two(sharded(root), folder), folder


def test_divided_weights_are_trained_clipped_and_decayed_like_whole_ones(alone: Any, divided: Any) -> None:
    assert_same_training(divided[0], alone[0])


def test_a_checkpoint_of_divided_weights_is_the_file_that_one_device_writes(alone: Any, divided: Any) -> None:
    ours, theirs = (read_checkpoint(folder / LAST) for _, folder in (divided, alone))
    assert ours.keys() == theirs.keys()
    assert ours["state_dict"].keys() == theirs["state_dict"].keys()
    groups, expected = (made["optimizer_states"][0]["param_groups"] for made in (ours, theirs))
    assert [group["params"] for group in groups] == [group["params"] for group in expected]
    found = moments(divided[1])
    for number, moment in moments(alone[1]).items():
        assert np.abs(found[number] - moment).max() < 1e-5, number


def test_what_is_divided_and_what_is_computed_again_changes_nothing(root: Path, alone: Any) -> None:
    options = {"sharding_strategy": "SHARD_GRAD_OP", "activation_checkpointing": True}
    assert_same_training(in_two(sharded(root, options), Path("run")), alone[0])


def test_a_training_goes_on_between_one_device_and_two(root: Path, alone: Any, divided: Any) -> None:
    whole, folder = divided
    again = in_two(sharded(root), Path("again"), folder / FIRST)
    assert np.array_equal(again["losses"], whole["losses"][3:])
    assert all(np.array_equal(value, again["weights"][name]) for name, value in whole["weights"].items())

    config = folder_config(root, batch_size=32, **DECAY)
    one = in_processes(1, fit, config, Path("one"), folder / FIRST)[0]
    assert np.abs(np.subtract(one["losses"], whole["losses"][3:])).max() < 1e-5

    two = in_two(sharded(root), Path("two"), alone[1] / FIRST)
    assert np.abs(np.subtract(two["losses"], alone[0]["losses"][3:])).max() < 1e-5


def test_what_was_trained_divided_is_tested_on_one_device(root: Path, divided: Any) -> None:
    answer, folder = divided
    made = build(folder_config(root, batch_size=4), Path("run"))
    tested = made.trainer.test(made.model, made.datamodule, ckpt_path=str(folder / LAST), verbose=False)
    assert tested[0]["test/loss"] == pytest.approx(answer["metrics"][-1]["val/loss"], abs=1e-5)
    build(
        folder_config(root, batch_size=4, backbone_checkpoint=str(folder / "checkpoints/best.ckpt")),
        Path("run"),
    )


def test_the_blocks_of_a_network_are_the_units() -> None:
    import timm

    ours = timm.create_model("focal_micro_patch2_window7_28", depths=(1, 1, 2, 1))
    assert [type(block) for block in find_blocks(ours)] == [FocalBlock] * 5
    assert len(find_blocks(timm.create_model("swin_tiny_patch4_window7_224"))) == 12
    assert len(find_blocks(timm.create_model("vit_tiny_patch16_224"))) == 12
    assert find_blocks(timm.create_model("resnet10t")) == []


def refusal(config: dict[str, Any]) -> str:
    try:
        fit(config, Path("run"))
    except UserError as error:
        return str(error)
    return ""


def test_a_moving_average_of_divided_weights_is_refused(root: Path) -> None:
    told = in_processes(2, refusal, sharded(root, ema_decay=0.9))
    assert (
        told
        == [
            "model.ema_decay: weights that are divided among devices have no moving average "
            "(use null, or the strategy ddp)"
        ]
        * 2
    )


def test_lightnings_own_fsdp_is_refused() -> None:
    with pytest.raises(UserError, match=r"^trainer.strategy: Lightning's fsdp would decay no weights"):
        check_sharded(FSDPStrategy(), {})
