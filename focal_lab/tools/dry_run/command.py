"""`focal-lab fit ... --dry-run`: trains a few steps and prints what the whole training would need."""

import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from focal_lab.errors import UserError
from focal_lab.report.formats.terminal import note_text
from focal_lab.sweep.run_folder.disk_space import free_space
from focal_lab.sweep.worker.measure_steps import step_times
from focal_lab.tools.dry_run.rehearsal import RehearsalCLI
from focal_lab.tools.dry_run.text import Summary, notes, rows
from focal_lab.tools.dry_run.watch import Watch, loader_seconds
from focal_lab.training.callbacks import DivergedError
from focal_lab.training.checkpoints.io import checkpoints_kept
from focal_lab.training.fit import peak_memory_mb
from focal_lab.training.lightning_cli import main as training_main
from focal_lab.utils.text_table import TextColumn, aligned


def main(argv: Sequence[str]) -> int:
    """Run a few steps of a training and print the resources it would need; returns the exit status.

    Args:
        argv: what follows `focal-lab fit`, without --dry-run.

    Raises:
        UserError: what fit would refuse, a step that does not fit into the device's memory, or, after the
            table, too little disk for the checkpoints.
    """
    try:
        return training_main("fit", argv, DryRunCLI)
    except UserError as error:
        if not isinstance(error.__cause__, DivergedError):
            raise
        message = str(error).partition(" (its batch")[0]  # which was in a folder that is gone
        raise UserError(message) from error
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"a step does not fit into the device's memory: {str(error).partition('. ')[0]} "
            "(use a smaller batch and accumulate more of them, which trains the same)",
            key="data.batch_size",
        ) from error


class DryRunCLI(RehearsalCLI):
    """Prints the table."""

    def rehearse(self, ckpt_path: str | None) -> None:
        """Run a short fit, then summarise it."""
        trainer: Any = self.trainer
        root = self.asked.get("default_root_dir") or "."
        folder = Path(next((one.dirpath for one in trainer.checkpoint_callbacks if one.dirpath), root))
        watch = Watch()
        trainer.callbacks.append(watch)
        trainer.fit(self.model, self.datamodule, ckpt_path=ckpt_path)
        if not watch.network:
            why = "the checkpoint has done all steps" if ckpt_path else "there are no batches, or no epochs"
            raise UserError(f"nothing is left to train: {why}", key="trainer.max_epochs")
        peak = peak_memory_mb() * 2**20  # before the loader is asked again
        trainer.accumulate_grad_batches = watch.accumulated
        loader = loader_seconds(trainer.train_dataloader)
        times = step_times(watch, trainer, self.asked, start_up=watch.slow_start)
        times = replace(times, batch=max(times.batch, loader or 0.0))
        checkpoints = checkpoints_kept(trainer)
        summary = Summary(self, watch, times, loader, peak, checkpoints, free_space(folder)[0])
        names, values = zip(*rows(summary), strict=True)
        width = shutil.get_terminal_size((100, 24)).columns if sys.stdout.isatty() else None
        table = aligned([TextColumn("", names), TextColumn("what fit would do", values, folds=True)], width)
        print(table + note_text(notes(summary), width), end="")
        if summary.disk > summary.free:
            raise UserError(
                f"the disk of {folder} has too little space for the checkpoints (free some, keep fewer, or "
                "choose another folder)",
                key="trainer.default_root_dir",
            )
