"""What is asked of the check, and what it found: `$OUT/gpu.json`, written as soon as a figure is known."""

import argparse
import contextlib
import fcntl
import json
import os
import tempfile
import time
from pathlib import Path

START = float(os.environ.get("GPU_CHECK_START", time.time()))
OUT = Path(os.environ.get("OUT") or tempfile.mkdtemp(prefix="gpu_check"))
OUT.mkdir(parents=True, exist_ok=True)
ROOT = Path(__file__).resolve().parents[2]  # of the checkout
RELEASED = os.environ.get("RELEASED", "")
KERNEL = Path(os.environ.get("KERNEL", ""))  # a prototype of the attention, tried if it is given

# name: (seconds at most, seconds that must be left to start it, "compile", "untimed" or "timed")
PARTS = {
    "compile_swin": (330, 60, "compile"),
    "compile_focal": (330, 60, "compile"),
    "compile_micro": (240, 60, "compile"),
    "compile_kernel": (330, 60, "compile"),
    "equality": (130, 30, "untimed"),
    "fit": (150, 30, "untimed"),
    "tests": (90, 25, "untimed"),
    "info": (30, 15, "timed"),
    "blocks": (45, 20, "timed"),
    "speed": (90, 30, "timed"),
    "kernel": (220, 25, "timed"),
    "profile": (40, 20, "timed"),
    "risks": (50, 20, "timed"),
    "large": (40, 20, "timed"),
    "maskgrad": (25, 12, "timed"),
}


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--budget", type=float, default=460)
    parser.add_argument("--only", default="")
    parser.add_argument("--part", default="")
    return parser.parse_args()


ARGS = arguments()


TINY = ARGS.tiny


@contextlib.contextmanager
def locked(name):
    path = Path(tempfile.gettempdir()) / f"gpu_check.{str(OUT).strip('/').replace('/', '_')}.{name}.lock"
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)


def read():
    path = OUT / "gpu.json"
    return json.loads(path.read_text()) if path.exists() else {}


def put(part, key, value):
    """Into gpu.json, under part and key; also said aloud."""
    with locked("json"):
        found = read()
        found.setdefault(part, {})[key] = value
        new = OUT / ".gpu.json.new"
        new.write_text(json.dumps(found, indent=1, default=str))
        new.replace(OUT / "gpu.json")
    print(f"[{time.time() - START:5.0f} s] {part}: {key}: {json.dumps(value, default=str)[:300]}", flush=True)
