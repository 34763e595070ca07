"""One check of focal-lab on a CUDA device: equality, time, kernels, a real fit; at most --budget seconds.

    [RELEASED=FILE] [KERNEL=FILE] [OUT=FOLDER] python benchmarks/gpu_check [--tiny]

Every part runs in a process of its own, because a CUDA error poisons the process it occurs in, and has its
own time limit. Figures are written to $OUT/gpu.json as soon as they are known, output to $OUT/gpu.log. Parts
that compile run beside those that are not timed; a part that times holds a lock. A table ends it.

    --tiny         every part on the CPU, on networks of a few thousand weights: does the check itself run?
    --budget 460   seconds for everything
    --only A,B     parts (see PARTS)
    --part NAME    used by the check itself: run that part in this process
"""

import contextlib
import importlib
import os
import signal
import subprocess
import sys
import time

from record import ARGS, KERNEL, OUT, PARTS, START, TINY, put, read
from table import table


def environment():
    found = os.environ | {
        "OUT": str(OUT),
        "PYTHONUNBUFFERED": "1",
        "GPU_CHECK_START": str(START),
    }
    if TINY:
        found |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "TRITON_INTERPRET": "1"}
    return found


def start(part, log):
    command = [sys.executable, os.path.abspath(__file__), "--part", part] + (["--tiny"] if TINY else [])
    return subprocess.Popen(
        command, env=environment(), stdout=log, stderr=subprocess.STDOUT, start_new_session=True
    )


def stop(process, part):
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    put(part, "stopped", "its time was over")


def main():
    """What compiles and what is not timed runs at once; then what is timed, one after the other."""
    wanted = [p for p in PARTS if not ARGS.only or p in ARGS.only.split(",")]
    if not KERNEL.is_file():
        wanted = [p for p in wanted if "kernel" not in p]
    deadline = START + ARGS.budget
    with open(OUT / "gpu.log", "a") as log:
        running = {}

        def wait(kinds):
            for part, (process, end) in list(running.items()):
                if PARTS[part][2] in kinds:
                    try:
                        status = process.wait(timeout=max(0.1, min(end, deadline) - time.time()))
                        if status:
                            put(part, "status", status)
                    except subprocess.TimeoutExpired:
                        stop(process, part)
                    del running[part]
                    print(f"{part}: done at {time.time() - START:.0f} s", flush=True)

        for kind in ("compile", "untimed", "timed"):
            for part in wanted:
                limit, least, its = PARTS[part]
                if its != kind:
                    continue
                left = deadline - time.time()
                if left < least:
                    put(part, "skipped", f"{left:.0f} s left")
                    continue
                running[part] = start(part, log), time.time() + limit * (8 if TINY else 1)
                if TINY or kind == "timed":
                    wait([kind])
            if kind == "untimed":
                wait([kind])
        wait(["compile", "untimed", "timed"])
    put("info", "seconds", round(time.time() - START))
    table(read())


# the module of each part
MODULES = {
    "equality": ("info", "equality", "maskgrad"),
    "speed": ("blocks", "speed", "profile", "large"),
    "compiling": ("compile_swin", "compile_focal", "compile_micro", "compile_kernel", "kernel"),
    "risks": ("risks",),
    "whole": ("fit", "tests"),
}


def run_part(name):
    """Run a part in this process."""
    module = next(module for module, parts in MODULES.items() if name in parts)
    getattr(importlib.import_module(module), f"part_{name}")()


if __name__ == "__main__":
    if ARGS.part:
        run_part(ARGS.part)
    else:
        main()
