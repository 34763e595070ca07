"""`focal-lab find-lr`: the learning rate rises from step to step; where the loss falls fastest is a good one.

Names and defaults are those of Lightning's `Tuner.lr_find`, which does not work here: it puts a scheduler of
torch in place of timm's, which a task steps in timm's way; it gives all groups one rate, which undoes layer
decay; it judges a step of accumulated batches by the last one; it writes a checkpoint among the user's files;
and it takes the slope over the rate, not its logarithm, and so suggests rates near the search's beginning.
"""

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from focal_lab.command_line import CommandParser
from focal_lab.errors import UserError
from focal_lab.tools.dry_run.cli import RehearsalCLI
from focal_lab.tools.find_lr.curve import (
    LEAST_POINTS,
    SKIPPED_AT_FIRST,
    SKIPPED_AT_LAST,
    Curve,
    Smoothed,
    draw,
    steps_between,
    write_csv,
)
from focal_lab.training.callbacks import StopWhenDiverged
from focal_lab.training.cli import main as training_main

_LEAST_STEPS = SKIPPED_AT_FIRST + LEAST_POINTS + SKIPPED_AT_LAST


@dataclass(frozen=True)
class Search:
    """What is tried.

    Attributes:
        lowest, highest: learning rates.
        steps: optimizer steps from one to the other.
        threshold: times the lowest smoothed loss at which the search ends; 0 for never.
        csv, png: files for the curve.
    """

    lowest: float
    highest: float
    steps: int
    threshold: float
    csv: Path | None
    png: Path | None


class RangeTest(Callback):
    """Sets the learning rate of every optimizer step and notes its loss, the mean of its batches."""

    def __init__(self, search: Search) -> None:
        self.search = search
        self.planned = list(steps_between(search.lowest, search.highest, search.steps))
        self.ended = f"{search.steps} steps were made"
        self._points: list[tuple[float, float, float]] = []
        self._smoothed = Smoothed()
        self._losses: list[Tensor] = []

    @property
    def curve(self) -> Curve:
        rates, losses, smoothed = zip(*self._points, strict=True) if self._points else ((), (), ())
        return Curve(rates, losses, smoothed, self.ended)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """However short the training is meant to be, this ends when it is done."""
        trainer.fit_loop.max_epochs = -1
        trainer.fit_loop.epoch_loop.max_steps = -1

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        rate = self.planned[len(self._points)]
        for group in trainer.optimizers[0].param_groups:
            group["lr"] = rate * group.get("lr_scale", 1.0)  # as timm's schedules do

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        if isinstance(loss, Tensor):
            self._losses.append(loss.detach())
        if trainer.fit_loop._should_accumulate():
            return
        mean = math.fsum(map(float, self._losses)) / len(self._losses) if self._losses else math.nan
        self._losses = []
        rate = self.planned[len(self._points)]
        if not math.isfinite(mean):
            self._stop(trainer, f"the loss is {mean} at {rate:.2g}")
            return
        smoothed = self._smoothed.add(mean)
        self._points.append((rate, mean, smoothed))
        if self.search.threshold and smoothed > self.search.threshold * self._smoothed.best:
            self._stop(
                trainer, f"the loss has grown to {self.search.threshold:g} times its lowest at {rate:.2g}"
            )
        elif len(self._points) == len(self.planned):
            trainer.should_stop = True

    def _stop(self, trainer: Trainer, why: str) -> None:
        self.ended = why
        trainer.should_stop = True


class FindLearningRateCLI(RehearsalCLI):
    """Trains for some steps and prints the suggestion."""

    as_first_of_many = False
    own_options = ("--min_lr", "--max_lr", "--num_training", "--early_stop_threshold", "--csv", "--png")
    search: Search

    def shorten(self, trainer: Mapping[str, Any]) -> dict[str, Any]:
        """No validation; as many pictures a step as all devices have together."""
        changed = super().shorten(trainer) | {"limit_val_batches": 0, "num_sanity_val_steps": 0}
        options = self.config["fit"].model.get("init_args", {})
        if self.devices.count > 1 and options.get("total_batch_size") is None:
            changed["accumulate_grad_batches"] = self.devices.count * (
                trainer.get("accumulate_grad_batches") or 1
            )
        return changed

    def rehearse(self, ckpt_path: str | None) -> None:
        """Run the test with the recipe's optimizer, and without its schedule."""
        trainer: Any = self.trainer
        test = RangeTest(self.search)
        # the test looks at the loss by itself, and goes on where a training would be given up
        kept = [callback for callback in trainer.callbacks if not isinstance(callback, StopWhenDiverged)]
        trainer.callbacks = [*kept, test]
        configure = self.model.configure_optimizers
        self.model.configure_optimizers = lambda: _optimizer_of(configure())
        trainer.fit(self.model, self.datamodule, ckpt_path=ckpt_path)
        curve = test.curve
        if self.search.csv is not None:
            write_csv(curve, self.search.csv)
        chosen = curve.steepest()
        if self.search.png is not None:
            draw(curve, chosen, self.search.png)
        print(_told(curve, chosen, self.model, trainer), end="")


def main(argv: Sequence[str]) -> int:
    """Suggest a learning rate; the exit status.

    Args:
        argv: what follows `focal-lab find-lr`: its own options and those of `focal-lab fit`.

    Raises:
        UserError: options that make no sense, what fit would refuse, or a curve that tells nothing.
    """
    options, rest = _parser().parse_known_args(argv)
    search = Search(
        options.min_lr,
        options.max_lr,
        options.num_training,
        options.early_stop_threshold,
        options.csv,
        options.png,
    )
    _check(search)
    return training_main("fit", rest, type("FindLearningRateCLI", (FindLearningRateCLI,), {"search": search}))


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="focal-lab find-lr",
        usage="focal-lab find-lr --config EXPERIMENT [options below, and all of focal-lab fit]",
        description="Raise the learning rate from step to step and suggest one. Nothing is trained or kept.",
        others=True,
    )
    parser.add_argument("--min_lr", type=float, default=1e-6, help="where the search begins (1e-6)")
    parser.add_argument("--max_lr", type=float, default=1.0, help="where it ends (1)")
    parser.add_argument(
        "--num_training", type=int, default=100, help="optimizer steps from one to the other (100)"
    )
    parser.add_argument(
        "--early_stop_threshold",
        type=float,
        default=4.0,
        help="end when the smoothed loss is so many times its lowest (4); 0 for never",
    )
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the curve: lr, loss, smoothed_loss")
    parser.add_argument("--png", type=Path, metavar="FILE", help="draw the curve")
    return parser


def _check(search: Search) -> None:
    if not 0 < search.lowest < math.inf or not search.highest < math.inf:
        raise UserError(f"{search.lowest} to {search.highest} is no range of positive rates", key="--min_lr")
    if search.lowest >= search.highest:
        raise UserError(f"{search.lowest} is not below --max_lr, {search.highest}", key="--min_lr")
    if search.steps < _LEAST_STEPS:
        raise UserError(
            f"{search.steps} steps are too few; a slope needs {_LEAST_STEPS} or more", key="--num_training"
        )
    if search.threshold and not search.threshold > 1:
        raise UserError(f"{search.threshold} is not above 1, and not 0", key="--early_stop_threshold")
    for key, path in {"--csv": search.csv, "--png": search.png}.items():
        if path is not None and not path.absolute().parent.is_dir():
            raise UserError(f"there is no folder {path.parent}", key=key)


def _optimizer_of(configured: Any) -> Any:
    """What `configure_optimizers` returned, without the schedule."""
    return configured["optimizer"] if isinstance(configured, Mapping) else configured


def _told(curve: Curve, chosen: int, model: Any, trainer: Any) -> str:
    """The suggestion and what it rests on."""
    factor = getattr(model, "lr_factor", 1.0)
    rate, lowest = curve.rates[chosen] / factor, curve.lowest()
    size = getattr(trainer.datamodule, "batch_size", None)
    lines = [f"suggestion: --model.lr={rate:.2g}"]
    now = model.hparams.get("lr")
    if now is not None:
        lines[0] += f" (the configuration has {now:.2g})"
    lines.append(
        f"why: the smoothed loss falls fastest there, over the logarithm of the rate; it was "
        f"{curve.smoothed[0]:.3g} at first, {curve.smoothed[chosen]:.3g} there, and lowest at "
        f"{curve.rates[lowest] / factor:.2g}, {curve.smoothed[lowest]:.3g}"
    )
    lines.append(f"the search ended because {curve.ended}")
    batches = trainer.accumulate_grad_batches
    made = f" of {size * batches:,} pictures" if size else ""
    lines.append(
        f"{len(curve.rates)} steps{made} from the weights that a training begins with; nothing was kept"
    )
    if factor != 1:
        lines.append(f"rates are given as model.lr; these steps multiply it by {factor:.3g}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
