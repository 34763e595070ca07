"""`focal-lab fit ... --dry_run`: builds what fit would, makes a few steps, says what all of it takes."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from focal_lab.backbones.options import Size
from focal_lab.errors import UserError
from focal_lab.sweep.estimate.equivalence import length_of
from focal_lab.sweep.worker.measure import count_batches, count_validations, typical
from focal_lab.sweep.worker.survey import Measured
from focal_lab.tasks.base import Task
from focal_lab.tasks.evaluation_size import evaluation_size
from focal_lab.tasks.optimizer import Schedule
from focal_lab.tools.dry_run.cli import RehearsalCLI
from focal_lab.tools.dry_run.profiler import Watch, loader_seconds, state_bytes
from focal_lab.tools.dry_run.summary import Rates, Rehearsed
from focal_lab.training.callbacks import DivergedError
from focal_lab.training.checkpoints.disk_space import checkpoints_kept
from focal_lab.training.cli import main as training_main
from focal_lab.training.fit import peak_memory_mb


def main(argv: Sequence[str]) -> int:
    """Rehearse a training and print what it would take; the exit status.

    Args:
        argv: what follows `focal-lab fit`, without --dry_run.

    Raises:
        UserError: what fit would refuse, a step that does not fit into the device's memory, or too little
            disk for the checkpoints, which is said after the table.
    """
    try:
        return training_main("fit", argv, DryRunCLI)
    except UserError as error:
        if not isinstance(error.__cause__, DivergedError):
            raise
        told = str(error).partition(" (its batch")[0]  # which was in a folder that is gone
        raise UserError(told) from error
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"a step does not fit into the device's memory: {str(error).partition('. ')[0]} "
            "(a smaller batch, with more of them accumulated, trains the same)",
            key="data.batch_size",
        ) from error


class DryRunCLI(RehearsalCLI):
    """Prints the table."""

    def rehearse(self, ckpt_path: str | None) -> None:
        """Fit shortly, and look at what there is then."""
        from focal_lab.tools.dry_run.text import dry_run_text

        watch = Watch()
        self.trainer.callbacks.append(watch)  # type: ignore[attr-defined]
        self.trainer.fit(self.model, self.datamodule, ckpt_path=ckpt_path)
        if not watch.network:
            why = "the checkpoint has done all steps" if ckpt_path else "there are no batches, or no epochs"
            raise UserError(f"nothing is left to train: {why}", key="trainer.max_epochs")
        found = self._look(watch)
        print(dry_run_text(found, terminal=sys.stdout.isatty()), end="")
        needed, free = found.disk
        if needed > free:
            raise UserError(
                f"the disk of {found.folder} has too little room for the checkpoints (make room, keep fewer, "
                "or choose another folder)",
                key="trainer.default_root_dir",
            )

    def _look(self, watch: Watch) -> Rehearsed:
        trainer, model, data = self.trainer, self.model, self.datamodule
        config = self.config["fit"].as_dict() | {"trainer": self.asked}
        peak = peak_memory_mb() * 2**20  # before the loader is asked again
        on_gpu = trainer.strategy.root_device.type == "cuda"
        loader = trainer.train_dataloader
        size = _size(model, data)
        parameters = list(model.parameters())
        buffers = sum(buffer.nbytes for buffer in model.buffers())
        learned = [parameter for parameter in parameters if parameter.requires_grad]
        checkpoint = self._checkpoint_bytes()
        trainer.accumulate_grad_batches = watch.accumulated
        steps = int(trainer.estimated_stepping_batches)
        waits = loader_seconds(loader)
        unit, length = length_of(config)
        done = watch.resumed_at[0 if unit == "epochs" else 1]
        optimizer = trainer.optimizers[0]
        return Rehearsed(
            devices=self.devices,
            device=_device_name(trainer.strategy.root_device),
            precision=str(trainer.precision),
            pictures=_length(getattr(loader, "dataset", None)),
            classes=getattr(data, "num_classes", None),
            batches=float(trainer.num_training_batches),
            seen=watch.seen,
            backbone=str(model.hparams.get("backbone", type(model).__name__)),
            params=sum(parameter.numel() for parameter in model.model.parameters()),
            trainable=sum(parameter.numel() for parameter in learned),
            size=size,
            gmacs=_gmacs(model, size),
            batch_size=getattr(data, "batch_size", None),
            steps=steps,
            optimizer=type(optimizer).__name__,
            groups=_groups(optimizer),
            rates=_rates(trainer, steps),
            weights=sum(parameter.nbytes for parameter in parameters) + buffers,
            gradients=sum(parameter.nbytes for parameter in learned),
            states=state_bytes(trainer.optimizers),
            peak=peak,
            device_memory=_device_memory() if on_gpu else None,
            network=watch.network_seconds,
            loader=waits,
            measured=self._measured(watch, waits),
            unit=unit,
            length=max(0, length - done),
            longest=_seconds(self.asked.get("max_time")),
            checkpoint=checkpoint,
            kept=checkpoints_kept(trainer),
            folder=next((folder for _, folder in self.checkpoint_folders), Path()),
            resumed_at=watch.resumed_at,
            cut=watch.cut,
        )

    def _measured(self, watch: Watch, loader: float | None) -> Measured:
        """A training's parts as plans add them up; without a test, which fit has not."""
        trainer = self.trainer
        batches = float(trainer.num_training_batches)
        limit = self.asked.get("limit_val_batches")
        rest = watch.trained - watch.stepped - sum(watch.validation)
        return Measured(
            start_up=watch.slow_start,
            batch=max(watch.batch, loader or 0.0),
            batches=batches,
            accumulated=watch.accumulated,
            val_batch=typical(watch.validation),
            val_batches=count_batches(trainer.val_dataloaders, 1.0 if limit is None else limit),
            epoch_end=max(0.0, rest),
            validations=count_validations(self.asked, batches),
            test=0.0,
            test_batch=0.0,
            test_batches=0,
            memory_mb=0.0,
        )

    def _checkpoint_bytes(self) -> int:
        """Of one that the training would write now: it is written to nowhere."""
        trainer: Any = self.trainer
        if hasattr(trainer.strategy, "processes"):
            trainer.strategy.processes = 1  # there is nobody to gather random states from
        nowhere = _Nowhere()
        try:
            torch.save(trainer._checkpoint_connector.dump_checkpoint(), nowhere)  # type: ignore[arg-type]
        finally:
            if hasattr(trainer.strategy, "processes"):
                trainer.strategy.processes = self.devices.count
        return nowhere.count


class _Nowhere:
    """A file that only counts its bytes."""

    def __init__(self) -> None:
        self.count = 0

    def write(self, data: Any) -> int:
        size = memoryview(data).nbytes
        self.count += size
        return size

    def flush(self) -> None:
        return None


def _size(model: Any, data: Any) -> Size | None:
    """What the network is evaluated at; None where nothing says so, or the task is not one of ours."""
    if not isinstance(model, Task):
        return None
    found = evaluation_size(model, data)
    return found.size if found.known else None


def _gmacs(model: Any, size: Size | None) -> float | None:
    return None if size is None else float(model.gmacs(size))


def _length(dataset: Any) -> int | None:
    try:
        return len(dataset)
    except TypeError:
        return None


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _device_memory() -> int:
    return int(torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory)


def _groups(optimizer: Any) -> list[tuple[int, float, float]]:
    return [
        (
            sum(parameter.numel() for parameter in group["params"]),
            float(group.get("weight_decay", 0.0)),
            float(group.get("lr_scale", 1.0)),
        )
        for group in optimizer.param_groups
    ]


def _rates(trainer: Any, steps: int) -> Rates | None:
    """Let the schedule, which is not needed any more, run through; None where it does not count steps."""
    configs = trainer.lr_scheduler_configs
    scheduler: Any = configs[0].scheduler if configs else None
    scheduler = scheduler.made if isinstance(scheduler, Schedule) else scheduler
    if scheduler is None or not hasattr(scheduler, "step_update") or steps < 1:
        return None
    optimizer = trainer.optimizers[0]

    def rate(step: int) -> float:
        scheduler.step_update(step)
        return float(max(group["lr"] for group in optimizer.param_groups))

    every = max(1, steps // 1000)
    looked = sorted(
        {*range(0, steps, every), min(steps - 1, int(getattr(scheduler, "warmup_t", 0))), steps - 1}
    )
    found = {step: rate(step) for step in looked}
    peak = max(found, key=lambda step: found[step])
    return Rates(type(scheduler).__name__, found[0], found[peak], peak, found[steps - 1])


def _seconds(max_time: Any) -> float | None:
    """Of Lightning's `max_time`: days:hours:minutes:seconds, or a mapping of such parts."""
    if max_time is None:
        return None
    if isinstance(max_time, Mapping):
        unit = {"weeks": 604800, "days": 86400, "hours": 3600, "minutes": 60, "seconds": 1}
        return float(sum(unit[name] * value for name, value in max_time.items() if name in unit))
    if isinstance(max_time, str):
        parts = [int(part) for part in max_time.split(":")]
        return float(
            sum(part * unit for part, unit in zip(reversed(parts), (1, 60, 3600, 86400), strict=False))
        )
    return float(max_time.total_seconds())
