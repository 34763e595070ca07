"""Looks into a checkpoint file without running anything that is in it."""

from pathlib import Path

import torch


def checkpoint_problem(checkpoint: Path, *, resume: bool) -> str | None:
    """Why a file cannot be used as Lightning's checkpoint, None when it can.

    Args:
        checkpoint: the file.
        resume: whether a training is to go on from it, for which weights alone are not enough.
    """
    if not checkpoint.is_file():
        return "is not a file" if checkpoint.exists() else "does not exist"
    try:
        state = torch.load(checkpoint, map_location="meta", weights_only=True, mmap=True)
    except Exception:
        # a damaged file leads the unpickler anywhere: KeyError, IndexError, OSError, UnpicklingError, ...
        return "cannot be read as a checkpoint; it is damaged or something else"
    if not isinstance(state, dict) or not {"state_dict", "pytorch-lightning_version"} <= state.keys():
        return "is not a checkpoint of Lightning"
    if resume and "optimizer_states" not in state:
        return "holds weights only, from which no training can go on"
    return None
