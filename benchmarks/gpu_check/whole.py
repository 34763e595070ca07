"""The whole program: a fit, a sweep, the tests for GPUs."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from device import attempt
from record import ROOT, TINY, put


def part_fit():
    missing = []
    for name in ("optuna", "jsonargparse", "mlxtend", "lightning", "torchmetrics", "sqlalchemy", "pandas"):
        try:
            __import__(name)
        except ImportError as error:
            missing.append(f"{name}: {error}")
    if missing:
        put("fit", "skipped", missing)
        return
    environment = os.environ | {
        "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    base = [sys.executable, "-m", "focal_lab.cli"]
    config = str(ROOT / "experiments/digits/classification.yaml")

    def command(arguments, seconds, folder):
        began = time.time()
        done = subprocess.run(
            base + arguments, cwd=folder, env=environment, capture_output=True, text=True, timeout=seconds
        )
        tail = (done.stdout[-1500:] + done.stderr[-1500:]).strip().splitlines()[-14:]
        return {"rc": done.returncode, "took_s": round(time.time() - began, 1), "tail": tail}

    def fit(precision):
        with tempfile.TemporaryDirectory() as folder:
            arguments = [
                "fit",
                "--config",
                config,
                f"--trainer.precision={precision}",
                f"--trainer.default_root_dir={folder}/run",
            ]
            arguments += ["--trainer.devices=1"]
            if TINY:
                arguments += [
                    "--trainer.max_epochs=1",
                    "--data.train_pictures=256",
                    "--trainer.limit_val_batches=1",
                ]
            result = command(arguments, 400 if TINY else 60, folder)
            for path in sorted(Path(folder).rglob("*.csv"))[:2]:
                result[path.name] = path.read_text()[-400:]
            return result

    attempt("fit", "fit, bf16-mixed", lambda: fit("bf16-mixed"))
    if not TINY:
        attempt("fit", "fit, 32-true", lambda: fit("32-true"))

    def sweep():
        with tempfile.TemporaryDirectory() as folder:
            arguments = [
                "sweep",
                "sweeps/window_size.yaml",
                "--out",
                f"{folder}/runs",
                "--seeds",
                "1",
                "--set",
                "trainer.max_epochs=1",
            ]
            arguments += (
                ["--workers", "1", "--set", "data.train_pictures=128"] if TINY else ["--workers", "4"]
            )
            return command(arguments, 400 if TINY else 75, ROOT)

    attempt("fit", "sweep of 4 runs, one epoch", sweep)

    def others():
        with tempfile.TemporaryDirectory() as folder:
            return {
                "dry_run": command(
                    ["fit", "--config", config, "--dry_run", f"--trainer.default_root_dir={folder}/run"],
                    400 if TINY else 60,
                    folder,
                )
            }

    attempt("fit", "dry run", others)


def part_tests():
    """The project's own tests that need a GPU."""
    if TINY:
        put("tests", "pytest", {"skipped": "tiny"})
        return

    def one():
        names = "gpu"
        environment = os.environ | {
            "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        files = ["attention/test_attention.py", "attention/test_cpu_attention.py", "test_graphs.py"]
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "pytest",
                "-q",
                "-x",
                "-k",
                names,
                "-p",
                "no:cacheprovider",
                *(f"tests/backbones/{f}" for f in files),
            ],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=58,
        )
        return {"rc": done.returncode, "tail": (done.stdout + done.stderr).strip().splitlines()[-12:]}

    attempt("tests", "pytest", one)
