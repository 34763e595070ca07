"""Two processes train what one trains with twice the batch: images in folders, gloo on the CPU."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.recorded_fit import (
    TRAIN,
    VAL,
    Answer,
    assert_same_training,
    fit,
    folder_config,
    in_processes,
    write_pictures,
)
from support.tiny_task import tiny_config

FIRST = Path("checkpoints/epoch=0000.ckpt")
TWO = {"devices": 2, "strategy": "ddp"}
EMA = {"ema_decay": 0.5}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def alone(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Answer:
    config = folder_config(root, batch_size=32, **EMA)
    return in_processes(1, fit, config, tmp_path_factory.mktemp("alone"))[0]


def test_two_processes_train_what_one_trains_with_twice_the_batch(root: Path, alone: Answer) -> None:
    config = folder_config(root, batch_size=16, trainer=TWO, **EMA)
    first, second = in_processes(2, fit, config, Path("two"))
    for name, weight in first["weights"].items():
        assert np.array_equal(weight, second["weights"][name]), name
    assert first["losses"] != second["losses"]
    assert_same_training(first | {"losses": np.mean([first["losses"], second["losses"]], 0)}, alone)
    assert any(name.startswith("ema.") for name in first["weights"])


def test_two_processes_evaluate_every_image_once(root: Path, alone: Answer) -> None:
    config = folder_config(root, batch_size=4, trainer=TWO | {"max_epochs": 1}, total_batch_size=None)
    first, second = in_processes(2, fit, config, Path("two"))
    assert alone["judged"] == [sum(VAL.values())] * 2
    assert [first["judged"], second["judged"]] == [[11], [10]]
    assert first["metrics"] == second["metrics"]


def test_accumulated_batches_train_what_one_batch_trains(root: Path, alone: Answer) -> None:
    parts = in_processes(1, fit, folder_config(root, batch_size=16, **EMA), Path("accumulated"))[0]
    assert parts["accumulated"] == 2
    assert_same_training(parts | {"losses": np.mean(np.reshape(parts["losses"], (-1, 2)), 1)}, alone)


def test_two_processes_go_on_from_an_epoch_bit_for_bit(root: Path) -> None:
    random: dict[str, Any] = {"mixup": 0.8, "drop_path": 0.3} | EMA
    config = folder_config(root, batch_size=16, trainer=TWO, **random)
    undisturbed = in_processes(2, fit, config, Path("undisturbed"))
    resumed = in_processes(2, fit, config, Path("run"), Path("undisturbed") / FIRST)
    for whole, rest in zip(undisturbed, resumed, strict=True):
        assert rest["losses"] == whole["losses"][3:]
        assert rest["metrics"] == whole["metrics"][1:]
        assert all(np.array_equal(weight, rest["weights"][name]) for name, weight in whole["weights"].items())
    assert sum(TRAIN.values()) // 32 == 3


def test_two_processes_evaluate_every_embedded_digit_once() -> None:
    trainer = TWO | {"max_epochs": 1, "num_sanity_val_steps": 0}
    config = tiny_config(trainer=trainer, data={"num_val_images": 21, "batch_size": 8})
    first, second = in_processes(2, fit, config, Path("two"))
    assert [first["judged"], second["judged"]] == [[11], [10]]
    assert first["metrics"] == second["metrics"]


def test_the_seeds_of_two_processes_are_those_of_the_run() -> None:
    """Three equal seeds of parts are one seed of the run, in the order that Lightning deals out, too."""
    quick = TWO | {"num_sanity_val_steps": 0, "limit_val_batches": 0, "max_epochs": 2}
    options = {"trainer": quick, "options": {"drop_path_rate": 0.5}}
    whole = tiny_config(**options, data={"batch_size": 8}) | {"seed_everything": 5}
    parts = tiny_config(**options, data={"batch_size": 8, "data_seed": 5, "order_seed": 5}, init_seed=5)
    (first, second), (one, other) = (
        in_processes(2, fit, config, Path(name)) for name, config in {"whole": whole, "parts": parts}.items()
    )
    assert first["losses"] == one["losses"]
    assert second["losses"] == other["losses"] != first["losses"]


def test_the_average_and_the_weights_learn_in_16_bits_as_well(root: Path, alone: Answer) -> None:
    config = folder_config(root, batch_size=32, trainer={"precision": "bf16-mixed"}, **EMA)
    rounded = in_processes(1, fit, config, Path("rounded"))[0]
    assert all(weight.dtype != np.float16 for weight in rounded["weights"].values())
    difference = np.abs(np.subtract(rounded["losses"], alone["losses"]))
    assert 0 < difference.max() < 0.05
