"""Refuses trainer settings that a run of a sweep cannot honour, instead of ignoring them."""

from collections.abc import Iterable, Mapping
from typing import Any

from focal_lab.errors import UserError
from focal_lab.sweep.plan.plan import Plan, probe_plan
from focal_lab.sweep.plan.settings import place_of
from focal_lab.sweep.spec.suite import EXPERIMENTS


def refuse_unhonoured(plan: Plan, overrides: Mapping[str, Any]) -> None:
    """Check the trainer's settings of all runs.

    Args:
        plan: a design's, or a search's before its first proposal.
        overrides: settings of the command line.

    Raises:
        UserError: one has no meaning in a sweep; the message names the place that sets it.
    """
    probed = probe_plan(plan)
    needed = {run.needs for run in probed.runs}
    for run in probed.runs:
        trainer = run.config.get("trainer") or {}
        problems = [*_unhonoured(trainer), *(_leaves_no_checkpoint(trainer) if run.id in needed else ())]
        for name, why in problems:
            experiment = EXPERIMENTS / plan.suite / f"{run.task}.yaml"
            key = f"trainer.{name}"
            place = place_of(key, run.task, plan.sweep, run.cell, overrides, default=experiment)
            raise UserError(f"{key}: {trainer[name]!r}: {why}", **place)


def _unhonoured(trainer: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    """Name of a setting that cannot be honoured, and why."""
    devices, strategy = trainer.get("devices", 1), str(trainer.get("strategy"))
    if trainer.get("default_root_dir") is not None:
        yield "default_root_dir", "each run writes to its own folder in --out; drop it"
    if trainer.get("enable_progress_bar"):
        yield "enable_progress_bar", "the sweep shows the progress of its runs; drop it"
    if trainer.get("num_nodes") not in (None, 1):
        yield "num_nodes", "a run of a sweep is trained on one machine; use 1, and focal-lab fit for more"
    if devices not in (None, "auto") and (type(devices) is not int or devices < 1):
        yield "devices", "a sweep hands out the devices; say how many each run gets, 1 or more"
    if any(word in strategy for word in ("spawn", "fork", "notebook")):
        yield "strategy", "the sweep starts the processes of a run; use ddp"
    if trainer.get("max_epochs") == -1 and trainer.get("max_steps", -1) == -1 and not trainer.get("max_time"):
        yield "max_epochs", "a run of a sweep has an end; use 0 or more, or set max_steps"
    if trainer.get("barebones"):
        yield "barebones", "a run needs its metrics and checkpoints; drop it"
    if _is_zero(trainer.get("limit_test_batches")):
        yield "limit_test_batches", "the result of a run is its test; use 1 or more"


def _leaves_no_checkpoint(trainer: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    """Like `_unhonoured`, for a run whose best checkpoint another run starts from."""
    why = "other runs start from this one's best checkpoint, and there would be none; sweep one task alone"
    if trainer.get("enable_checkpointing") is False:
        yield "enable_checkpointing", why
    for name in ("limit_val_batches", "max_epochs"):
        if _is_zero(trainer.get(name)):
            yield name, why
    if trainer.get("fast_dev_run"):
        yield "fast_dev_run", why


def _is_zero(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == 0
