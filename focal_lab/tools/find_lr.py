"""`focal-lab find-lr`: raise the learning rate step by step and suggest one.

A range test (Smith 2017, "Cyclical Learning Rates", section 3.3). Names and defaults are those of Lightning's
`Tuner.lr_find`, which does not work here: it replaces timm's scheduler by torch's, which a task cannot step;
it gives all groups one rate, which undoes layer decay; it sees only the last of accumulated batches; it
writes a checkpoint among the user's files; and it takes the slope over the rate instead of its logarithm, and
so suggests rates near the start of the search.
"""

import argparse
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from focal_lab.command_line import CommandParser
from focal_lab.errors import UserError
from focal_lab.tools.dry_run.rehearsal import RehearsalCLI
from focal_lab.training.callbacks import StopWhenDiverged
from focal_lab.training.lightning_cli import main as training_main

# At first the weights have hardly changed, and at last the loss diverges.
_SKIPPED_AT_FIRST, _SKIPPED_AT_LAST = 10, 1
# With fewer points a slope cannot be distinguished from noise.
_LEAST_POINTS = 10
_LEAST_STEPS = _SKIPPED_AT_FIRST + _LEAST_POINTS + _SKIPPED_AT_LAST
# A longer average lags behind by a factor of two in the rate.
_DECAY = 0.9
# Old spellings of options, which are still accepted.
RENAMED = {
    "--min_lr": "--min-lr",
    "--max_lr": "--max-lr",
    "--num_training": "--num-training",
    "--early_stop_threshold": "--early-stop-threshold",
}
_EPILOG = """examples:
  focal-lab find-lr --config experiments/digits/classification.yaml
  focal-lab find-lr --config experiments/digits/classification.yaml --max-lr 0.1 --png curve.png"""


def main(argv: Sequence[str]) -> int:
    """Suggest a learning rate; returns the exit status. Refuses what fit would refuse."""
    search, rest = _parser().parse_known_args(argv)
    _check(search)
    return training_main("fit", rest, type("FindLearningRateCLI", (FindLearningRateCLI,), {"search": search}))


class RangeTest(Callback):
    """Sets the learning rate of every optimizer step and notes its loss, the mean of its batches.

    Attributes:
        curve: of the finite losses so far.
        ended: why the test ended.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.threshold = options.early_stop_threshold
        self.planned = np.geomspace(options.min_lr, options.max_lr, options.num_training).tolist()
        self.curve = make_curve((), ())
        self.ended = f"all {options.num_training} steps were made"
        self._losses: list[float] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Ignore the training's own length."""
        trainer.fit_loop.max_epochs = -1
        trainer.fit_loop.epoch_loop.max_steps = -1

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        for group in trainer.optimizers[0].param_groups:
            group["lr"] = self.planned[len(self.curve)] * group.get("lr_scale", 1.0)  # as timm's schedules

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        if isinstance(loss, Tensor):
            self._losses.append(float(loss))
        if trainer.fit_loop._should_accumulate():
            return
        mean = math.fsum(self._losses) / len(self._losses) if self._losses else math.nan
        self._losses = []
        rate = self.planned[len(self.curve)]
        if math.isfinite(mean):
            self.curve = make_curve(self.planned, [*self.curve["loss"], mean])
            smoothed = self.curve["smoothed_loss"]
            if self.threshold and smoothed.iloc[-1] > self.threshold * smoothed.min():
                self.ended = f"the loss is above {self.threshold:g} times its lowest value at {rate:.2g}"
            elif len(self.curve) < len(self.planned):
                return
        else:
            self.ended = f"the loss is {mean} at {rate:.2g}"
        trainer.should_stop = True


class FindLearningRateCLI(RehearsalCLI):
    """Trains for some steps and prints the suggestion."""

    as_first_of_many = False
    own_options = (*RENAMED.values(), "--csv", "--png")
    search: argparse.Namespace

    def shorten(self, trainer: Mapping[str, Any]) -> dict[str, Any]:
        """No validation; as many images per step as all devices have together."""
        changed = super().shorten(trainer) | {"limit_val_batches": 0, "num_sanity_val_steps": 0}
        options = self.config["fit"].model.get("init_args", {})
        if self.devices.count > 1 and options.get("total_batch_size") is None:
            accumulated = trainer.get("accumulate_grad_batches") or 1
            changed["accumulate_grad_batches"] = self.devices.count * accumulated
        return changed

    def rehearse(self, ckpt_path: str | None) -> None:
        """Run the test with the configured optimizer, and without its schedule."""
        trainer: Any = self.trainer
        test = RangeTest(self.search)
        kept = [callback for callback in trainer.callbacks if not isinstance(callback, StopWhenDiverged)]
        trainer.callbacks = [*kept, test]
        configured = self.model.configure_optimizers

        def without_schedule() -> Any:
            found = configured()
            return found["optimizer"] if isinstance(found, Mapping) else found

        self.model.configure_optimizers = without_schedule
        trainer.fit(self.model, self.datamodule, ckpt_path=ckpt_path)
        if self.search.csv is not None:
            test.curve.to_csv(self.search.csv, index=False)
        chosen = steepest(test.curve, test.ended)
        if self.search.png is not None:
            _plot(test.curve, chosen, self.search.png)
        print(_text(test, chosen, self.model, trainer))


def make_curve(rates: Sequence[float], losses: Sequence[float]) -> pd.DataFrame:
    """Columns lr, loss and smoothed_loss, an exponential running mean; a row per step that has a loss."""
    curve = pd.DataFrame({"lr": list(rates)[: len(losses)], "loss": losses}, dtype=float)
    return curve.assign(smoothed_loss=curve["loss"].ewm(alpha=1 - _DECAY).mean())


def steepest(curve: pd.DataFrame, ended: str) -> int:
    """The step where the smoothed loss falls fastest over the logarithm of the rate.

    Raises UserError if there are too few points, or the loss never falls.
    """
    inner = curve.iloc[_SKIPPED_AT_FIRST : len(curve) - _SKIPPED_AT_LAST]
    if len(inner) < _LEAST_POINTS:
        what = f"{len(curve)} finite losses are too few for a slope" if len(curve) else "no loss is finite"
        raise UserError(f"{what}: {ended} (use a smaller --min-lr, or a larger --num-training)")
    slopes = np.gradient(inner["smoothed_loss"], np.log(inner["lr"]))
    if not slopes.min() < 0:
        raise UserError("the loss never falls: use a smaller --min-lr, or check the data")
    return _SKIPPED_AT_FIRST + int(slopes.argmin())


def _plot(curve: pd.DataFrame, chosen: int, path: Path) -> None:
    """The losses over the learning rate, with the suggestion."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    rates, smoothed = curve["lr"], curve["smoothed_loss"]
    axes.plot(rates, curve["loss"], color="0.75", linewidth=1, label="loss of each step")
    axes.plot(rates, smoothed, color="C0", label="smoothed")
    axes.plot(rates[chosen], smoothed[chosen], "o", color="C3", label=f"{rates[chosen]:.2g}")
    axes.set_ylim(top=1.2 * min(smoothed.max(), 2 * smoothed[0]))  # a diverged loss would hide the rest
    axes.set(xscale="log", xlabel="learning rate", ylabel="training loss")
    axes.legend()
    figure.savefig(path, dpi=150)


def _text(test: RangeTest, chosen: int, model: Any, trainer: Any) -> str:
    """The suggestion and the reason for it."""
    factor, now = getattr(model, "lr_factor", 1.0), model.hparams.get("lr")
    rates, losses = test.curve["lr"] / factor, test.curve["smoothed_loss"]
    configured = "" if now is None else f" (the configuration has {now:.2g})"
    size = getattr(trainer.datamodule, "batch_size", None)
    images = f" of {size * trainer.accumulate_grad_batches:,} images" if size else ""
    lines = [
        f"suggestion: --model.lr={rates[chosen]:.2g}{configured}",
        "why: over the logarithm of the rate, the smoothed loss falls fastest there; it was "
        f"{losses[0]:.3g} at the start, {losses[chosen]:.3g} there, and lowest at "
        f"{rates[int(losses.argmin())]:.2g}, {losses.min():.3g}",
        f"the search ended because {test.ended}",
        f"{len(rates)} steps{images} from the initial weights; nothing was saved",
    ]
    if factor != 1:
        lines.append(f"rates are given as model.lr; these steps multiply it by {factor:.3g}")
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="focal-lab find-lr",
        usage="focal-lab find-lr --config EXPERIMENT [options below, and all of focal-lab fit]",
        description="Raise the learning rate step by step and suggest one. No weights or logs are written.",
        epilog=_EPILOG,
        others=True,
        renamed=RENAMED,
    )
    add = parser.add_argument
    add("--min-lr", type=float, default=1e-6, help="learning rate of the first step (default: 1e-6)")
    add("--max-lr", type=float, default=1.0, help="learning rate of the last step (default: 1)")
    add("--num-training", type=int, default=100, help="number of optimizer steps (default: 100)")
    stop = "stop when the smoothed loss is this many times its minimum (default: 4); 0: never stop"
    add("--early-stop-threshold", type=float, default=4.0, help=stop)
    add("--csv", type=Path, metavar="FILE", help="write the curve: lr, loss, smoothed_loss")
    add("--png", type=Path, metavar="FILE", help="plot the curve")
    return parser


def _check(search: argparse.Namespace) -> None:
    low, high = search.min_lr, search.max_lr
    if not 0 < low < math.inf or not high < math.inf:
        raise UserError(f"{low} to {high} is not a range of positive rates", key="--min-lr")
    if low >= high:
        raise UserError(f"{low} is not below --max-lr, {high}", key="--min-lr")
    steps, threshold = search.num_training, search.early_stop_threshold
    if steps < _LEAST_STEPS:
        raise UserError(
            f"{steps} steps are too few; a slope needs {_LEAST_STEPS} or more", key="--num-training"
        )
    if threshold and not threshold > 1:
        raise UserError(f"{threshold} is neither 0 nor above 1", key="--early-stop-threshold")
    for key, path in {"--csv": search.csv, "--png": search.png}.items():
        if path is not None and not path.absolute().parent.is_dir():
            raise UserError(f"the folder {path.parent} does not exist", key=key)
