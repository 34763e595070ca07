"""How much memory a pass of a model needs on top of its weights, measured in a fresh process.

A fresh process, because what other models left behind (freed memory that is kept, grown buffers) would
count for or against this one. In it the model is warmed up by one pass, which makes what is made once; then
the growth of a second pass is taken: on a GPU of allocated memory, on the processor of resident memory.
"""

import gc
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from focal_lab.errors import UserError

# glibc keeps freed blocks below a threshold that it raises as it goes; what is kept would hide later growth
_RETURN_FREED_MEMORY = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
_STATUS, _RESET_PEAK = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def measure_memory(
    name: str, options: Mapping[str, Any], pictures: tuple[int, int, int, int], *, training: bool
) -> int | None:
    """Bytes that one pass needs at its peak beyond what was there before it: weights and pictures.

    Args:
        name: a timm model.
        options: its keyword arguments; values are plain (JSON).
        pictures: shape (B, C, H, W) of the input.
        training: forward and backward instead of inference; gradients count, optimizer states do not.

    Returns:
        None on a system that does not tell: the processor's memory is read from Linux's /proc.

    Raises:
        UserError: the process failed or was killed.
    """
    order = {"name": name, "options": dict(options), "pictures": pictures, "training": training}
    done = subprocess.run(
        [sys.executable, "-P", "-m", "focal_lab.tools.profile.memory"],
        input=json.dumps(order),
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | _RETURN_FREED_MEMORY,
    )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"ended with status {done.returncode}"])[-1]
        raise UserError(f"{name}: the process that measures memory: {reason} (try a smaller --batch-size)")
    grown: int | None = json.loads(done.stdout.splitlines()[-1])
    return grown


def main() -> None:
    """Measure what standard input orders, and print the bytes: the fresh process."""
    order = json.load(sys.stdin)
    import torch

    from focal_lab.tasks.backbone import create_backbone
    from focal_lab.tools.profile.throughput import best_device, make_pass

    device = best_device()
    model = create_backbone(order["name"], order["options"]).to(device)
    run = make_pass(model, torch.randn(order["pictures"], device=device), training=order["training"])
    run()
    gc.collect()
    print(json.dumps(_growth_on_gpu(run) if device.type == "cuda" else _growth_of_process(run)))


def _growth_on_gpu(run: Any) -> int:
    import torch

    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def _growth_of_process(run: Any) -> int | None:
    try:
        _RESET_PEAK.write_text("5")  # sets the peak to what is resident now
        before = _resident("VmRSS")
    except OSError:
        return None
    run()
    return _resident("VmHWM") - before


def _resident(entry: str) -> int:
    """A line of /proc/self/status, in bytes.

    Not `ru_maxrss`: a new process starts with the peak of the one that started it.
    """
    lines = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines())
    return int(lines[entry].split()[0]) * 1024


if __name__ == "__main__":
    main()
