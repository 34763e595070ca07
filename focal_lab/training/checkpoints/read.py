"""Looks into a checkpoint file without running anything that is in it."""

import argparse
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from focal_lab.backbones.weights.formats import WeightsError, unwrap
from focal_lab.errors import UserError

AVERAGE = "ema.module."  # where a task's state dict has the moving average of its network


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


def checkpoint_progress(checkpoint: Path) -> tuple[int, int]:
    """How far a training had come when it wrote a readable checkpoint: optimizer steps and ended epochs.

    A checkpoint written while an epoch is validated has all steps of the epoch and does not count it.
    """
    state = torch.load(checkpoint, map_location="meta", weights_only=True, mmap=True)
    epochs = state.get("loops", {}).get("fit_loop", {}).get("epoch_progress", {})
    return int(state.get("global_step", 0)), int(epochs.get("current", {}).get("processed", 0))


def hyperparameters(checkpoint: str | Path | None) -> dict[str, Any]:
    """The model's options in a readable checkpoint; none where there is no file or none were saved."""
    if checkpoint is None or not Path(checkpoint).is_file():
        return {}
    state = torch.load(checkpoint, map_location="meta", weights_only=True, mmap=True)
    return dict(state.get("hyper_parameters") or {})


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a file of weights by the names that they have there.

    Reads safetensors and what `torch.save` wrote: a state dict, or a training's checkpoint that holds one; of
    one that keeps a moving average of the weights, too, the weights themselves.
    The tensors are views of the file where that is possible: they take memory when they are used.

    Raises:
        UserError: no such file, damaged, nothing with weights in it, or one that would have to be executed.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError("is not a file" if path.exists() else "does not exist", file=path)
    state = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    if not isinstance(state, dict):
        raise UserError(f"holds a {type(state).__name__} and no weights by name", file=path)
    try:
        return _without_average(unwrap(state))
    except WeightsError as error:
        raise UserError(str(error), file=path) from error


def _without_average(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """What a task's moving average (`averaging`) holds is the same network a second time."""
    return {key: value for key, value in weights.items() if not key.startswith(AVERAGE)}


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(
            f"cannot be read as safetensors; it is damaged or cut off ({error})", file=path
        ) from error


def _read_torch(path: Path) -> Any:
    try:
        # timm's training checkpoints hold their argparse.Namespace, which is data
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols: what is wrong with a file is said below
            # files of torch before 1.6 are no zip archives and cannot be mapped into memory
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:
        # a damaged file leads the unpickler anywhere: KeyError, IndexError, OSError, UnpicklingError, ...
        code = _pickled_code(path)
        if code:
            raise UserError(
                f"holds objects of {', '.join(code)}: reading them would run code, and nothing in a file of "
                "weights is run (save its tensors alone, or as safetensors)",
                file=path,
            ) from error
        raise UserError(
            "cannot be read as weights; it is damaged, cut off or something else", file=path
        ) from error


def _pickled_code(path: Path) -> list[str]:
    """What a file needs beyond tensors and plain data; nothing if that cannot be told."""
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # not a file of torch
        return []
    return [name for name in names if name != "argparse.Namespace"]
