"""Reads files of weights without executing anything in them."""

import argparse
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from focal_lab.backbones.weights.formats import WeightsError, unwrap
from focal_lab.errors import UserError
from focal_lab.tasks.ema import AVERAGE

_SHOWN = 3


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a file of weights, by their names in the file.

    Reads safetensors and what `torch.save` wrote: a state dict, or a training's checkpoint with one; of a
    checkpoint that also has a moving average of the weights, the weights themselves. Where possible the
    tensors are views of the file, which take memory only when they are used.

    Raises:
        UserError: there is no such file, it is damaged or has no weights, or it would have to be executed.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError("is not a file" if path.exists() else "does not exist", file=path)
    state = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    if not isinstance(state, dict):
        raise UserError(f"holds a {type(state).__name__} and no weights by name", file=path)
    try:
        return {name: value for name, value in unwrap(state).items() if not name.startswith(AVERAGE)}
    except WeightsError as error:
        raise UserError(str(error), file=path) from error


def first_few(parts: Sequence[str], separator: str = ", ") -> str:
    """The first three, and how many more there are."""
    left = len(parts) - _SHOWN
    return separator.join(parts[:_SHOWN]) + (f" and {left} more" if left > 0 else "")


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(
            f"cannot be read as safetensors; it is damaged or truncated ({error})", file=path
        ) from error


def _read_torch(path: Path) -> Any:
    try:
        # timm's training checkpoints contain their argparse.Namespace, which is data
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols; problems are reported below
            # files of torch before 1.6 are not zip archives and cannot be memory-mapped
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:
        try:
            names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
        except Exception:  # not a file of torch
            names = []
        code = [name for name in names if name != "argparse.Namespace"]
        if code:
            raise UserError(
                f"holds objects of {', '.join(code)}: reading them would run code, and nothing in a file of "
                "weights is run (save its tensors alone, or as safetensors)",
                file=path,
            ) from error
        raise UserError(
            "cannot be read as weights; it is damaged, truncated or something else", file=path
        ) from error
