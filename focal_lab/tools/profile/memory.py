"""Measures the peak memory of a pass of a model beyond its weights, in a fresh process.

Memory that other models left behind (freed but kept, grown buffers) would distort the result. The fresh
process warms up with one pass and measures the growth during a second one: of allocated memory on a GPU, of
resident memory on the CPU.
"""

import gc
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from focal_lab.errors import UserError

# glibc keeps freed blocks below a growing threshold, which would hide later growth
_RETURN_FREED_MEMORY = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}


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
        [sys.executable, "-P", "-m", "focal_lab.tools.profile.memory"],
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


def main() -> None:
    """The fresh process: measure what standard input requests, print the bytes."""
    request = json.load(sys.stdin)
    import torch

    from focal_lab.tasks.backbone import create_backbone
    from focal_lab.tools.profile.throughput import best_device, make_pass

    device = best_device()
    model = create_backbone(request["name"], request["options"]).to(device)
    run = make_pass(model, torch.randn(request["images"], device=device), training=request["training"])
    run()
    gc.collect()
    print(json.dumps(_gpu_growth(run) if device.type == "cuda" else resident_growth(run)))


def _gpu_growth(run: Callable[[], None]) -> int:
    import torch

    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def resident_growth(run: Callable[[], object]) -> int | None:
    """Growth of this process's resident memory in bytes; None where /proc does not report it."""
    try:
        Path("/proc/self/clear_refs").write_text("5")  # reset the peak to the current size
        before = _resident("VmRSS")
    except OSError:
        return None
    run()
    return _resident("VmHWM") - before


def _resident(entry: str) -> int:
    """A line of /proc/self/status in bytes; `ru_maxrss` would start with the parent process's peak."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[entry].split()[0]) * 1024


if __name__ == "__main__":
    main()
