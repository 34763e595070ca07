"""Trainings by two processes that the engine has started, here with gloo on the CPU."""

import multiprocessing
import socket
from pathlib import Path
from typing import Any

import pytest
from support.rank import train_rank
from support.tiny_task import read_checkpoint, tiny_config

RUN = Path("run")
# 4 steps of 2 x 16 images an epoch, 2 batches of validation and of test in each process
CONFIG = tiny_config(
    trainer={
        "devices": 2,
        "strategy": "ddp",
        "accelerator": "cpu",
        "log_every_n_steps": 2,
        "num_sanity_val_steps": 2,
    },
    data={"num_train_images": 128, "num_val_images": 64, "num_test_images": 64, "batch_size": 16},
    options={"drop_path_rate": 0.3},
    mixup=0.8,
)


def train_in_two(folder: Path, stop_at: int = 0, stopped_rank: int = 1) -> list[dict[str, Any]]:
    """What each of two processes answers; one of them is reported to stop when it asks for the n-th time."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["focal_lab.training.fit"])
    processes = []
    for rank in range(2):
        ours, theirs = context.Pipe()
        environment = meeting | {"WORLD_SIZE": "2", "NODE_RANK": "0", "LOCAL_RANK": str(rank)}
        order = (CONFIG, folder.absolute(), environment, stop_at if rank == stopped_rank else 0, theirs)
        process = context.Process(target=train_rank, args=order, daemon=True)
        process.start()
        theirs.close()
        processes.append((process, ours))
    answers = []
    for process, ours in processes:
        assert ours.poll(120), "no answer"
        answers.append(ours.recv())
        process.join(60)
        assert process.exitcode == 0
    return answers


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[dict[str, Any]], Path]:
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    return train_in_two(folder), folder


def test_both_processes_come_to_the_same_metrics_and_the_first_one_writes(undisturbed: Any) -> None:
    (first, second), folder = undisturbed
    assert first["metrics"] == second["metrics"]
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]
    assert len(list(folder.glob("events.out.tfevents.*"))) == 1
    assert read_checkpoint(folder / "checkpoints/last.ckpt")["callbacks"]["Timing"]["images"] == 2 * 128


# asked for twice in the sanity check, then after every batch; they agree at every second one
@pytest.mark.parametrize(
    ("stop_at", "rank", "step"),
    [(3, 1, 2), (7, 0, 4), (9, 1, 6)],
    ids=["amid an epoch", "in validation", "amid the next epoch"],
)
def test_one_process_is_reported_to_stop_and_both_do_and_go_on_exactly(
    stop_at: int, rank: int, step: int, undisturbed: Any
) -> None:
    assert train_in_two(RUN, stop_at, rank) == [{"stopped": "stop"}] * 2
    assert read_checkpoint(RUN / "checkpoints/stopped.ckpt")["global_step"] == step
    assert train_in_two(RUN) == undisturbed[0]
    assert not (RUN / "checkpoints/stopped.ckpt").exists()
