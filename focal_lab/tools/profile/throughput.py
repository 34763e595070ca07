"""Measures the throughput of models on this machine, so that the numbers can be compared."""

import time
from collections.abc import Callable, Sequence

import torch
from torch import nn

WARM_UPS = 2
# Least seconds of an interval: short passes are repeated until the clock's noise is negligible.
LEAST_SECONDS = 0.2


def best_device() -> torch.device:
    """The first GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def now() -> float:
    """Seconds on a clock, after the accelerator, if there is one, has finished its queued work."""
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
    return time.perf_counter()


def make_pass(model: nn.Module, images: torch.Tensor, *, training: bool) -> Callable[[], None]:
    """A function that runs inference once, or a forward and a backward pass of the cross entropy."""
    if not training:
        model.eval()

        def infer() -> None:
            with torch.inference_mode():
                model(images)

        return infer
    targets = torch.zeros(len(images), dtype=torch.long, device=images.device)

    def train() -> None:
        model.train()
        nn.functional.cross_entropy(model(images), targets).backward()
        model.zero_grad(set_to_none=True)

    return train


def measure_speed(
    passes: Sequence[Callable[[], None]],
    batch_size: int,
    *,
    rounds: int,
    least_seconds: float = LEAST_SECONDS,
) -> list[list[float]]:
    """Time models in turns, so that a machine that slows down or speeds up affects all of them.

    Args:
        passes: one function per model; each call processes `batch_size` images.
        rounds: intervals per model; each round starts with another model.
        least_seconds: passes are repeated within an interval until it lasts about this long.

    Returns:
        Images per second of each model in each round.
    """
    repeats = []
    for run in passes:
        for _ in range(WARM_UPS):
            seconds = _time(run, 1)
        repeats.append(max(1, round(least_seconds / max(seconds, 1e-6))))
    measured: list[list[float]] = [[] for _ in passes]
    for first in range(rounds):
        for place in range(len(passes)):
            turn = (first + place) % len(passes)
            measured[turn].append(batch_size * repeats[turn] / _time(passes[turn], repeats[turn]))
    return measured


def _time(run: Callable[[], None], repeats: int) -> float:
    start = now()
    for _ in range(repeats):
        run()
    return now() - start
