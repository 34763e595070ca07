"""One process of a training of several, as the engine starts it."""

import os
import warnings
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from focal_lab.training.fit import Stopped, latest_checkpoint, train


def train_rank(
    config: dict[str, Any], folder: Path, environment: dict[str, str], stop_at: int, answer: Connection
) -> None:
    """Train; reported to stop when it asks for the n-th time. Answers what came out."""
    warnings.simplefilter("ignore")
    os.environ |= environment
    os.environ.pop("PL_GLOBAL_SEED", None)
    torch.set_num_threads(1)
    asked = 0

    def stop() -> str | None:
        nonlocal asked
        asked += 1
        return "stop" if asked == stop_at else None

    try:
        trained = train(config, folder, resume_from=latest_checkpoint(folder), stop=stop)
    except Stopped as stopped:
        answer.send({"stopped": stopped.word})
    else:
        answer.send({"metrics": trained.metrics})
