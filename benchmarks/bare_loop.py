"""`focal-lab fit` against a bare PyTorch loop: same model, data, optimizer, schedule, clipping, precision.

    python benchmarks/bare_loop.py [EXPERIMENT] [--epochs 5] [--control] [--model.lr=... and all else of fit]

Both train in one process and take turns at every batch, so that a machine that slows down does it to both: a
callback that comes first lets the bare loop make its step before each of Lightning's. All that is not the
bare loop's counts for fit: callbacks, logging, progress bar, validation, epoch ends. Both must have the same
losses, bit for bit, or there is no comparison. The first epoch is left out. `--control` adds a second bare
loop, whose ratio to the first says how far a ratio can be trusted. Time is given by the clock and as the
processor time of the process, which other processes hardly change.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from lightning import Callback, LightningModule, Trainer
from numpy.typing import NDArray
from timing import hardware, markdown

from focal_lab.training.exact_resume import reseed, rng_state, set_rng_state
from focal_lab.training.lightning_cli import FocalCLI
from focal_lab.training.malloc import keep_freed_memory

EXPERIMENT = "experiments/digits/classification.yaml"
# seconds by the clock, and of the processor
Times = NDArray[np.float64]


class BareLoop:
    """What one writes by hand to train a classifier: a step, a validation, nothing else.

    Args:
        arguments: of `focal-lab fit`; its network, data and recipe are built again, with the same seed.
        trainer: whose settings it follows.
    """

    def __init__(self, arguments: list[str], trainer: Trainer) -> None:
        made = FocalCLI(arguments, run=False, save_config_callback=None)
        self.device, self.task = trainer.strategy.root_device, made.model
        self.network = made.model.model.to(self.device)
        self.data: Any = made.datamodule
        self.data.setup("fit")
        self.batches, self.val_batches = self.data.train_dataloader(), self.data.val_dataloader()
        mixed = str(trainer.precision).endswith("-mixed")
        half = torch.bfloat16 if str(trainer.precision).startswith("bf16") else torch.float16
        assert half is torch.bfloat16 or not mixed, "the bare loop has no gradient scaler"
        self.autocast = torch.autocast(self.device.type, half, enabled=mixed)
        self.optimizer = made.model.recipe.optimizer(self.network, fused=not mixed)
        # Lightning's order: in another one the norm of all gradients differs by its last bit
        self.learned = [weight for group in self.optimizer.param_groups for weight in group["params"]]
        epochs = int(trainer.max_epochs or 1)
        self.schedule = made.model.recipe.scheduler(
            self.optimizer, len(self.batches) * epochs, len(self.batches)
        )
        self.clip, self.every = trainer.gradient_clip_val, trainer.log_every_n_steps  # type: ignore[attr-defined]
        self.steps, self.losses, self.printed, self.scores = 0, [], [], []

    def begin_epoch(self) -> None:
        self.network.train()
        self.train_iterator = iter(self.batches)

    def step(self) -> None:
        images, labels = self._next(self.train_iterator)
        with self.autocast:
            loss = F.cross_entropy(self.network(images), labels, label_smoothing=self.task.label_smoothing)
        self.optimizer.zero_grad()
        loss.backward()
        if self.clip:
            torch.nn.utils.clip_grad_norm_(self.learned, self.clip)
        self.optimizer.step()
        self.steps += 1
        self.schedule.step_update(self.steps)
        self.losses.append(loss.detach())
        if self.steps % self.every == 0:
            self.printed.append(loss.item())

    def begin_validation(self) -> None:
        self.network.eval()
        self.val_iterator, self.hits, self.seen = iter(self.val_batches), 0, 0

    @torch.inference_mode()
    def validate(self) -> None:
        images, labels = self._next(self.val_iterator)
        with self.autocast:
            logits = self.network(images)
        self.hits += (logits.argmax(-1) == labels).sum()
        self.seen += len(labels)

    def end_validation(self) -> None:
        self.scores.append(100 * float(self.hits) / self.seen)
        self.network.train()

    def _next(self, batches: Any) -> Any:
        batch = tuple(part.to(self.device, non_blocking=True) for part in next(batches))
        return self.data.on_after_batch_transfer(batch, 0)


class TakeTurns(Callback):
    """Lets bare loops do their part before Lightning does the same; keeps the time of each.

    Attributes:
        epochs: seconds of each epoch: fit's first, then each bare loop's.
        steps: seconds of single batches, likewise.
        saving: seconds of checkpoints in each epoch, which are part of fit's.
    """

    def __init__(self, loops: list[BareLoop], seed: int) -> None:
        self.loops, self.seed = loops, seed
        self.epochs: list[list[Times]] = []
        self.steps: list[list[Times]] = []
        self.saving: list[Times] = []
        self.losses: list[torch.Tensor] = []
        self._spent, self._mark, self._saved = self._zeros(), np.zeros(2), np.zeros(2)
        self._rng: list[Any] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        io: Any = trainer.strategy.checkpoint_io
        save = io.save_checkpoint

        def timed(*arguments: Any, **options: Any) -> None:
            begun = self._now()
            save(*arguments, **options)
            self._saved = self._saved + self._now() - begun

        io.save_checkpoint = timed
        self._mark = self._now()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._close_epoch()
        before = rng_state()
        reseed(self.seed, trainer)
        self._rng = [rng_state() for _ in self.loops]
        set_rng_state(before)
        self._mark = self._now()
        self._turn(BareLoop.begin_epoch)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        before = list(self._spent)
        self._turn(BareLoop.step)
        self.steps.append([now - then for now, then in zip(self._spent, before, strict=True)])

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *_: Any) -> None:
        self.losses.append(outputs["loss"].detach())

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            self._turn(BareLoop.begin_validation)

    def on_validation_batch_start(self, trainer: Trainer, *_: Any) -> None:
        if not trainer.sanity_checking:
            self._turn(BareLoop.validate)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            self._turn(BareLoop.end_validation)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._close_epoch()

    def _turn(self, part: Callable[[BareLoop], None]) -> None:
        """The time since the last turn was fit's; then each bare loop, with random numbers of its own."""
        self._spent[0] = self._spent[0] + self._now() - self._mark
        lightnings = rng_state()
        for i, loop in enumerate(self.loops):
            set_rng_state(self._rng[i])
            begun = self._now()
            part(loop)
            self._spent[i + 1] = self._spent[i + 1] + self._now() - begun
            self._rng[i] = rng_state()
        set_rng_state(lightnings)
        self._mark = self._now()

    def _close_epoch(self) -> None:
        self._spent[0] = self._spent[0] + self._now() - self._mark
        if self._spent[1].any():
            self.epochs.append(self._spent)
            self.saving.append(self._saved)
        self._spent, self._saved, self._mark = self._zeros(), np.zeros(2), self._now()

    def _zeros(self) -> list[Times]:
        return [np.zeros(2) for _ in range(1 + len(self.loops))]

    def _now(self) -> Times:
        if self.loops[0].device.type == "cuda":
            torch.cuda.synchronize()
        return np.array([time.perf_counter(), time.process_time()])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0], allow_abbrev=False)
    parser.add_argument("experiment", nargs="?", default=EXPERIMENT)
    parser.add_argument("--epochs", type=int, default=5, help="the first is left out (5)")
    parser.add_argument("--control", action="store_true", help="a second bare loop")
    options, overrides = parser.parse_known_args()
    keep_freed_memory()
    config = str(Path(options.experiment).resolve())
    arguments = ["--config", config, f"--trainer.max_epochs={options.epochs}", *overrides]
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        cli = FocalCLI(arguments, run=False)
        trainer: Any = cli.trainer
        loops = [BareLoop(arguments, trainer) for _ in range(1 + options.control)]
        turns = TakeTurns(loops, int(cli.config.seed_everything or 0))
        trainer.callbacks.insert(0, turns)
        trainer.fit(cli.model, cli.datamodule)
        os.chdir("/")
    ours = torch.stack(turns.losses)
    for loop in loops:
        apart = (ours - torch.stack(loop.losses)).abs()
        first = int(apart.ne(0).int().argmax())
        assert not apart.any(), f"losses differ from step {first} on, by up to {apart.max()}: no comparison"
    print(f"\n{hardware()}\n{options.experiment} {' '.join(overrides)}")
    print(f"{len(ours)} steps, losses equal bit for bit, last {ours[-1].item():.4f}\n")
    print(_table(turns))


def _table(turns: TakeTurns) -> str:
    epochs, saving = turns.epochs[1:], turns.saving[1:]
    steps = turns.steps[len(turns.steps) // len(turns.epochs) :]
    rows = [
        _row("epoch with checkpoints", [row[0] for row in epochs], [row[1] for row in epochs]),
        _row(
            "epoch, checkpoints left out",
            [row[0] - saved for row, saved in zip(epochs, saving, strict=True)],
            [row[1] for row in epochs],
        ),
        # fit's part of a turn is what came before it: the bare step of the turn before it
        _row("single batch", [row[0] for row in steps[1:]], [row[1] for row in steps[:-1]]),
    ]
    if len(epochs[0]) > 2:
        rows.append(_row("control: bare / bare", [row[2] for row in epochs], [row[1] for row in epochs]))
    head = ["", "fit (ms)", "bare (ms)", "ratio", "10 %", "90 %", "ratio of processor time", "rounds"]
    return markdown(head, rows)


def _row(name: str, ours: list[Times], bare: list[Times]) -> list[str]:
    clock, processor = np.array([one / other for one, other in zip(ours, bare, strict=True)]).T
    times = [f"{1e3 * np.median([one[0] for one in times]):.1f}" for times in (ours, bare)]
    ratios = [f"{value:.3f}" for value in (*np.percentile(clock, (50, 10, 90)), np.median(processor))]
    return [name, *times, *ratios, f"{len(ours)}"]


if __name__ == "__main__":
    main()
