import random
from pathlib import Path
from typing import Any

import pytest
import torch

from focal_lab.training.checkpoints.read import checkpoint_problem

FILE = Path("some.ckpt")
WHOLE = {"state_dict": {"w": torch.zeros(100)}, "pytorch-lightning_version": "2.6", "optimizer_states": []}


def test_a_whole_checkpoint_has_no_problem() -> None:
    torch.save(WHOLE, FILE)
    assert checkpoint_problem(FILE, resume=True) is None


def test_weights_alone_can_be_tested_but_not_trained_on() -> None:
    torch.save({key: value for key, value in WHOLE.items() if key != "optimizer_states"}, FILE)
    assert checkpoint_problem(FILE, resume=False) is None
    assert checkpoint_problem(FILE, resume=True) == "has weights only, from which no training can be resumed"


@pytest.mark.parametrize("content", [{"w": torch.zeros(1)}, [1, 2], {"state_dict": {}}])
def test_a_file_of_something_else_is_not_taken(content: Any) -> None:
    torch.save(content, FILE)
    assert checkpoint_problem(FILE, resume=False) == "is not a checkpoint of Lightning"


def test_a_path_without_a_file_is_reported() -> None:
    assert checkpoint_problem(FILE, resume=False) == "does not exist"
    assert checkpoint_problem(Path("."), resume=False) == "is not a file"


def test_no_damage_raises() -> None:
    torch.save(WHOLE, FILE)
    whole = FILE.read_bytes()
    rng = random.Random(0)
    damaged = [b"", b"hello", whole[:-1], whole[: len(whole) // 2]]
    damaged += [rng.randbytes(rng.randrange(1, 200)) for _ in range(200)]
    for content in damaged:
        FILE.write_bytes(content)
        assert checkpoint_problem(FILE, resume=True) is not None, content


class Bomb:
    """Unpickling it would write a file."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.write_text, (Path("exploded"), "boom"))


def test_nothing_in_the_file_is_executed() -> None:
    torch.save(WHOLE | {"bomb": Bomb()}, FILE)
    assert checkpoint_problem(FILE, resume=True) is not None
    assert not Path("exploded").exists()
    torch.load(FILE, weights_only=False)
    assert Path("exploded").exists()
