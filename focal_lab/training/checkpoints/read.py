"""Reads the state of a training's checkpoint without executing anything in it."""

from pathlib import Path
from typing import Any

import torch


def checkpoint_problem(checkpoint: Path, *, resume: bool) -> str | None:
    """Why a file cannot be used as Lightning's checkpoint; None when it can.

    Args:
        checkpoint: the file.
        resume: whether to resume a training from it, for which weights alone are not enough.
    """
    if not checkpoint.is_file():
        return "is not a file" if checkpoint.exists() else "does not exist"
    try:
        state = _peek(checkpoint)
    except Exception:
        # a damaged file makes the unpickler raise anything: KeyError, IndexError, OSError, UnpicklingError,
        # ...
        return "cannot be read as a checkpoint; it is damaged or something else"
    if not isinstance(state, dict) or not {"state_dict", "pytorch-lightning_version"} <= state.keys():
        return "is not a checkpoint of Lightning"
    if resume and "optimizer_states" not in state:
        return "has weights only, from which no training can be resumed"
    return None


def checkpoint_progress(checkpoint: Path) -> tuple[int, int]:
    """Optimizer steps and finished epochs of the training that wrote a readable checkpoint.

    A checkpoint written during a validation has all steps of the epoch and does not count it.
    """
    state = _peek(checkpoint)
    epochs = state.get("loops", {}).get("fit_loop", {}).get("epoch_progress", {})
    return int(state.get("global_step", 0)), int(epochs.get("current", {}).get("processed", 0))


def hyperparameters(checkpoint: str | Path | None) -> dict[str, Any]:
    """The model's options in a readable checkpoint; empty if there is no file or none were saved."""
    if checkpoint is None or not Path(checkpoint).is_file():
        return {}
    return dict(_peek(Path(checkpoint)).get("hyper_parameters") or {})


def _peek(checkpoint: Path) -> Any:
    """A checkpoint's contents, without the tensors' values."""
    return torch.load(checkpoint, map_location="meta", weights_only=True, mmap=True)
