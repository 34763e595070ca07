"""How many pictures a second models take on this machine, as numbers that can be compared."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

import torch
from torch import nn

WARM_UPS = 2
# Seconds that one interval lasts at least: short passes are repeated until the clock's noise is small.
LEAST_SECONDS = 0.2


@dataclass(frozen=True)
class Speed:
    """Pictures a second of one model.

    Attributes:
        rounds: what each round measured.
        relative: median, over the rounds, of the speed over the first model's in the same round.
    """

    rounds: tuple[float, ...]
    relative: float

    @property
    def images_per_second(self) -> float:
        """The median of the rounds."""
        return median(self.rounds)


def best_device() -> torch.device:
    """The first GPU if there is one, else the processor."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def make_pass(model: nn.Module, pictures: torch.Tensor, *, training: bool) -> Callable[[], None]:
    """One inference, or one training step without its optimizer, as a function.

    Training is a forward and a backward pass of the cross entropy; gradients are dropped afterwards.
    """
    if not training:
        model.eval()

        def infer() -> None:
            with torch.inference_mode():
                model(pictures)

        return infer
    targets = torch.zeros(len(pictures), dtype=torch.long, device=pictures.device)

    def train() -> None:
        model.train()
        nn.functional.cross_entropy(model(pictures), targets).backward()
        model.zero_grad(set_to_none=True)

    return train


def measure_speed(
    passes: Sequence[Callable[[], None]],
    batch_size: int,
    *,
    rounds: int,
    synchronize: Callable[[], None],
    least_seconds: float = LEAST_SECONDS,
) -> list[Speed]:
    """Time the models in turns, so that a machine that slows down or speeds up does it to all of them.

    Args:
        passes: one function a model; each call takes `batch_size` pictures.
        rounds: intervals a model; each round starts with another model.
        synchronize: waits until the device has done what it was told.
        least_seconds: passes are repeated within an interval until it lasts about this long.
    """
    repeats = []
    for run in passes:
        for _ in range(WARM_UPS):
            seconds = _time(run, 1, synchronize)
        repeats.append(max(1, round(least_seconds / max(seconds, 1e-6))))
    measured: list[list[float]] = [[] for _ in passes]
    for first in range(rounds):
        for place in range(len(passes)):
            turn = (first + place) % len(passes)
            seconds = _time(passes[turn], repeats[turn], synchronize)
            measured[turn].append(batch_size * repeats[turn] / seconds)
    return [
        Speed(tuple(speeds), median(a / b for a, b in zip(speeds, measured[0], strict=True)))
        for speeds in measured
    ]


def synchronizer(device: torch.device) -> Callable[[], None]:
    """Waits for a GPU; the processor has always done its work when a call returns."""
    return torch.cuda.synchronize if device.type == "cuda" else lambda: None


def _time(run: Callable[[], None], repeats: int, synchronize: Callable[[], None]) -> float:
    synchronize()
    start = time.perf_counter()
    for _ in range(repeats):
        run()
    synchronize()
    return time.perf_counter() - start
