"""Measures the speed of models on this machine, and what a pass adds to the memory at its peak.

Memory that other models left behind (freed but kept, grown buffers) would distort the result, so it is
measured in a fresh process, which runs this module: after a pass to warm up, the growth during a second one,
of allocated memory on a GPU, of resident memory on the CPU.
"""

import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from focal_lab.errors import UserError
from focal_lab.tasks.backbone import create_backbone

if TYPE_CHECKING:
    from focal_lab.tools.profile.counts import CountedModel

WARM_UPS = 2
# Least seconds of an interval: short passes are repeated until the clock's noise is negligible.
LEAST_SECONDS = 0.2
# glibc keeps freed blocks below a growing threshold, which would hide later growth
_RETURN_FREED_MEMORY = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}


def measure_models(models: Sequence["CountedModel"], batch_size: int, rounds: int, *, training: bool) -> None:
    """Add speed, measured in turns in this process, and memory, each in its own, to the models' profiles."""
    device = best_device()
    passes, memory = [], []
    for model in models:
        height, width = model.profile["image_size"]
        shape = (batch_size, model.channels, height, width)
        memory.append(measure_memory(model.profile["name"], model.arguments, shape, training=training))
        network = create_backbone(model.profile["name"], model.arguments).to(device)
        passes.append(make_pass(network, torch.randn(shape, device=device), training=training))
    speeds = measure_speed(passes, batch_size, rounds=rounds)
    for model, speed, peak in zip(models, speeds, memory, strict=True):
        measured = {
            "images_per_second": median(speed),
            "images_per_second_rounds": speed,
            "relative_speed": median(a / b for a, b in zip(speed, speeds[0], strict=True)),
            "peak_memory_bytes": peak,
        }
        where = {"device": str(device), "threads": torch.get_num_threads(), "batch_size": batch_size}
        model.profile.update({"training": measured} if training else where | measured)


def best_device() -> torch.device:
    """The first GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def now() -> float:
    """Seconds on a clock, after the accelerator, if there is one, has finished its queued work."""
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
    return time.perf_counter()


def make_pass(model: nn.Module, images_BCHW: torch.Tensor, *, training: bool) -> Callable[[], None]:
    """A function that runs inference once, or a forward and a backward pass of the cross entropy."""
    targets_B = torch.zeros(len(images_BCHW), dtype=torch.long, device=images_BCHW.device)
    model.train(training)

    def infer() -> None:
        with torch.inference_mode():
            model(images_BCHW)

    def train() -> None:
        nn.functional.cross_entropy(model(images_BCHW), targets_B).backward()
        model.zero_grad(set_to_none=True)

    return train if training else infer


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


def measure_memory(
    name: str, options: Mapping[str, Any], images: tuple[int, int, int, int], *, training: bool
) -> int | None:
    """Peak memory of one pass in bytes, beyond weights and images.

    Args:
        name: a timm model.
        options: its keyword arguments; plain values (JSON).
        images: shape (B, C, H, W) of the input.
        training: forward and backward pass instead of inference; gradients count, optimizer states do not.

    Returns:
        None where resident memory cannot be read: on the CPU of systems other than Linux.

    Raises:
        UserError: the process failed or was killed.
    """
    request = {"name": name, "options": dict(options), "images": images, "training": training}
    done = subprocess.run(
        [sys.executable, "-P", "-m", "focal_lab.tools.profile.measure"],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | _RETURN_FREED_MEMORY,
    )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exited with status {done.returncode}"])[-1]
        raise UserError(f"{name}: the process that measures memory: {reason} (try a smaller --batch-size)")
    grown: int | None = json.loads(done.stdout.splitlines()[-1])
    return grown


def resident_growth(run: Callable[[], object]) -> int | None:
    """Growth of this process's resident memory in bytes; None where /proc does not report it."""

    def resident(entry: str) -> int:  # `ru_maxrss` would start with the parent process's peak
        status = Path("/proc/self/status").read_text()
        lines = dict(line.split(":", 1) for line in status.splitlines())
        return int(lines[entry].split()[0]) * 1024

    try:
        Path("/proc/self/clear_refs").write_text("5")  # reset the peak to the current size
        before = resident("VmRSS")
    except OSError:
        return None
    run()
    return resident("VmHWM") - before


def _gpu_growth(run: Callable[[], None]) -> int:
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def _main() -> None:
    """The fresh process: measure what standard input requests, print the bytes."""
    request = json.load(sys.stdin)
    device = best_device()
    model = create_backbone(request["name"], request["options"]).to(device)
    run = make_pass(model, torch.randn(request["images"], device=device), training=request["training"])
    run()
    gc.collect()
    print(json.dumps(_gpu_growth(run) if device.type == "cuda" else resident_growth(run)))


def _time(run: Callable[[], None], repeats: int) -> float:
    start = now()
    for _ in range(repeats):
        run()
    return now() - start


if __name__ == "__main__":
    _main()
