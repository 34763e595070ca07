"""Reads checkpoints without executing anything in them: finds the last one, and checks that it fits."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_warn

from focal_lab.errors import UserError
from focal_lab.tasks.weights_file import first_few

# Where a training below a root folder keeps its checkpoints, by Lightning's loggers; `hpc_ckpt_*` are of jobs
# that SLURM stopped. Not in other folders of the root: a sweep's runs there are other trainings.
_PATTERNS = (
    *(
        f"{place}checkpoints/{name}"
        for place in ("", "version_*/", "*/version_*/")
        for name in ("last.ckpt", "stopped.ckpt")
    ),
    "hpc_ckpt_*.ckpt",
)
# What defines the network; a training can be resumed with other values of all other options.
_NETWORK = ("backbone", "backbone_options", "num_classes", "method", "decoder", "ema_decay", "frozen")


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


def last_checkpoint(root: Path) -> Path | None:
    """The newest readable last checkpoint of a training that wrote below `root`; None if there is none."""
    files = [file for pattern in _PATTERNS for file in root.glob(pattern)]
    newest = sorted(files, key=lambda file: file.stat().st_mtime_ns, reverse=True)
    return next((file for file in newest if checkpoint_problem(file, resume=True) is None), None)


def check_same_network(configured: Mapping[str, Any], saved: Mapping[str, Any], checkpoint: str) -> None:
    """Refuse to resume with another network.

    Raises:
        UserError: the model's options as configured and as saved differ in what defines the network.
    """
    for name in _NETWORK:
        if name not in configured or name not in saved:
            continue
        if name == "num_classes" and configured[name] is None:  # the data's number, compared later
            continue
        ours, theirs = (None if options[name] == {} else options[name] for options in (configured, saved))
        if ours != theirs:
            raise UserError(
                f"{checkpoint} was trained with {name} {theirs}, and the configuration says {ours} (make "
                "them agree to resume; to train from its weights use --model.backbone_checkpoint)",
                key="--ckpt_path",
            )


def check_trained(subcommand: str, class_path: str, configured: Mapping[str, Any]) -> None:
    """Refuse to evaluate a network without a checkpoint, which Lightning does silently.

    Raises:
        UserError: no weights are named. A user's own model may load some by itself, and gets a warning.
    """
    if configured.get("backbone_checkpoint") is not None:
        if not class_path.startswith(("focal_lab.tasks.classification.", "focal_lab.tasks.Classification")):
            rank_zero_warn(f"--ckpt_path is not given: {subcommand} with heads that were never trained")
        return
    problem = f"is not given; without it, {subcommand} would evaluate an untrained network"
    if class_path.startswith("focal_lab."):
        raise UserError(f"{problem} (give a checkpoint, such as best.ckpt)", key="--ckpt_path")
    rank_zero_warn(f"--ckpt_path {problem}, unless {class_path} loads weights by itself")


def misfit(error: RuntimeError) -> str:
    """A short version of torch's message about weights that do not fit."""
    message = str(error)
    shapes = re.findall(r"size mismatch for (\S+): .*?torch\.Size\((.*?)\).*?torch\.Size\((.*?)\)", message)
    parts = [f"{name} has the shape {theirs} there and {ours} here" for name, theirs, ours in shapes]
    for what, pattern in {
        "lacks": r"Missing key\(s\).*?: (.*?)\. ",
        "has also": r"Unexpected .*?: (.*?)\. ",
    }.items():
        found = re.search(pattern, f"{message} ", re.DOTALL)
        if found:
            names = [name.strip('" ') for name in found[1].split(",")]
            parts.append(f"{what} {first_few(names)}")
    return f"does not fit the model: {first_few(parts, '; ') or message[:300]}"
