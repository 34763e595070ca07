"""Where the time of `focal-lab fit` goes: the training steps of an experiment, by Lightning's profiler.

    python benchmarks/fit_loop.py [EXPERIMENT] [--epochs 2]

The time of the training epochs, without validation and checkpoints, is divided into forward (the network),
backward, optimizer (clipping, zeroing and AdamW), data (waiting for the loader and moving the batch), and the
rest: the loss, logging, metrics, progress bar and Lightning itself.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.profilers import SimpleProfiler
from timing import hardware, markdown

from focal_lab.training.lightning_cli import FocalCLI
from focal_lab.training.malloc import keep_freed_memory

EXPERIMENT = "experiments/digits/classification.yaml"


class ForwardTime(Callback):
    """Seconds that the network took in training, and the number of its calls."""

    def __init__(self) -> None:
        self.seconds, self._start = 0.0, 0.0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Watch the network's calls."""
        network: Any = pl_module.model
        network.register_forward_pre_hook(self._before)
        network.register_forward_hook(self._after)

    def _before(self, *_: Any) -> None:
        self._start = time.perf_counter()

    def _after(self, module: torch.nn.Module, *_: Any) -> None:
        if module.training:
            self.seconds += time.perf_counter() - self._start


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("experiment", nargs="?", default=EXPERIMENT)
    parser.add_argument("--epochs", type=int, default=2)
    options = parser.parse_args()
    keep_freed_memory()
    config = str(Path(options.experiment).resolve())
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        arguments = ["--config", config, f"--trainer.max_epochs={options.epochs}"]
        cli = FocalCLI(arguments, run=False)
        profiler, forward = SimpleProfiler(), ForwardTime()
        trainer: Any = cli.trainer
        trainer.profiler = profiler
        trainer.callbacks.append(forward)
        trainer.fit(cli.model, cli.datamodule)
    seconds = {name: sum(times) for name, times in profiler.recorded_durations.items()}
    steps = len(profiler.recorded_durations["run_training_batch"])

    def total(*endings: str) -> float:
        return sum(value for name, value in seconds.items() if name.endswith(endings))

    outside = total(".validation_step", ".val_next") + total(
        ".on_validation_epoch_start", ".on_validation_epoch_end", ".on_validation_end"
    )
    whole = seconds["run_training_epoch"] - outside
    parts = {
        "forward": forward.seconds,
        "backward": total(".backward"),
        "optimizer": total(".optimizer_step") - total(".training_step", ".backward"),
        "data": total(".train_dataloader_next", ".batch_to_device"),
    }
    parts["loss, logging, progress, Lightning"] = whole - sum(parts.values())
    print(f"\n{hardware()}\n{options.experiment}: {steps} steps\n")
    parts["all"] = whole
    rows = [[name, f"{1e3 * t / steps:.2f}", f"{100 * t / whole:.1f} %"] for name, t in parts.items()]
    print(markdown(["part", "ms a step", "share"], rows))


if __name__ == "__main__":
    main()
