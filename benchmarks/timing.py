"""Timings that can be believed on a shared machine: candidates in turn, in one process, medians of rounds."""

import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch

import focal_lab


@dataclass(frozen=True)
class Timing:
    """One candidate of a comparison.

    Attributes:
        seconds: median of its rounds.
        ratio: median, over the rounds, of its time over the first candidate's in the same round.
    """

    seconds: float
    ratio: float


def interleaved(candidates: Mapping[str, Callable[[], None]], rounds: int) -> dict[str, Timing]:
    """Measure candidates in turn, after one round of warm-up.

    Args:
        candidates: what to run; the first is what the others are compared with.
        rounds: how often each is measured.
    """
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for number in range(rounds + 1):
        for name, run in candidates.items():
            start = time.perf_counter()
            run()
            if number:
                seconds[name].append(time.perf_counter() - start)
    first = next(iter(seconds.values()))
    return {
        name: Timing(median(own), median(a / b for a, b in zip(own, first, strict=True)))
        for name, own in seconds.items()
    }


def product_rate(size: int = 1024, rounds: int = 15) -> float:
    """Billions of multiply-accumulates per second of a float32 matrix product, now."""
    left, right = torch.randn(size, size), torch.randn(size, size)

    def run() -> None:
        torch.mm(left, right)

    return size**3 / interleaved({"product": run}, rounds)["product"].seconds / 1e9


def hardware() -> str:
    """The machine and the versions, for the head of a table."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    processor = names[0] if names else platform.processor() or platform.machine()
    return (
        f"{processor}, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}; "
        f"torch {torch.__version__}, focal-lab {focal_lab.__version__}"
    )


def markdown(head: list[str], rows: list[list[str]]) -> str:
    """A table whose first column is text and whose others are numbers."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
