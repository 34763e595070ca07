"""The checkpoint that a command line names: which file `last` is, and whether it is of this network."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_warn

from focal_lab.errors import UserError
from focal_lab.training.checkpoints.io import remove_unfinished
from focal_lab.training.checkpoints.read import checkpoint_problem

# Where Lightning's loggers let a training keep its checkpoints, below the folder it was told. Not those of
# other folders in it: a sweep's runs lie beside each other, and each is another training.
_PLACES = ("checkpoints", "version_*/checkpoints", "*/version_*/checkpoints")
_NAMES = ("last.ckpt", "stopped.ckpt")
_REQUEUED = "hpc_ckpt_*.ckpt"  # in that folder itself, by a job that SLURM stopped
# What makes the network. Everything else of a checkpoint's options a training can go on with.
_NETWORK = ("backbone", "backbone_options", "num_classes", "method", "decoder", "ema_decay", "frozen")
_NAMED = 3


def last_checkpoint(root: Path) -> Path | None:
    """The newest readable last checkpoint of a training that wrote below `root`; None where there is none."""
    if root.is_dir():
        remove_unfinished(root)  # Lightning would take its number for that of a checkpoint
    files = [file for place in _PLACES for name in _NAMES for file in root.glob(f"{place}/{name}")]
    files += root.glob(_REQUEUED)
    newest = sorted(files, key=lambda file: file.stat().st_mtime_ns, reverse=True)
    return next((file for file in newest if checkpoint_problem(file, resume=True) is None), None)


def check_same_network(configured: Mapping[str, Any], noted: Mapping[str, Any], checkpoint: str) -> None:
    """Refuse to go on with another network than the configuration's.

    Args:
        configured: the model's options in the configuration.
        noted: those in the checkpoint.
        checkpoint: its path.

    Raises:
        UserError: they differ in what makes the network.
    """
    for name in _NETWORK:
        if name not in configured or name not in noted:
            continue
        if (
            name == "num_classes" and configured[name] is None
        ):  # whatever the data has, which is compared later
            continue
        # no options are no options, however that is written
        ours, theirs = (None if made[name] == {} else made[name] for made in (configured, noted))
        if ours != theirs:
            raise UserError(
                f"{checkpoint} was trained with {name} {theirs}, and the configuration says {ours} (make "
                "them agree to go on; to start anew from its weights use --model.backbone_checkpoint)",
                key="--ckpt_path",
            )


def check_trained(subcommand: str, class_path: str, configured: Mapping[str, Any]) -> None:
    """Refuse to evaluate a network that has only been initialised; Lightning does it without a word.

    Args:
        subcommand: which goes without a checkpoint.
        class_path: of the model; one of the user's own may load weights by itself, and is warned of.
        configured: its options.

    Raises:
        UserError: no weights are named.
    """
    if configured.get("backbone_checkpoint") is not None:
        if not class_path.startswith("focal_lab.tasks.classification.task."):
            rank_zero_warn(f"--ckpt_path is not given: {subcommand} with heads that were never trained")
        return
    told = f"is not given; without it, {subcommand} would evaluate an untrained network"
    if class_path.startswith("focal_lab."):
        raise UserError(f"{told} (give a checkpoint, such as best.ckpt)", key="--ckpt_path")
    rank_zero_warn(f"--ckpt_path {told}, unless {class_path} loads weights by itself")


def misfit(error: RuntimeError) -> str:
    """What torch says of weights that do not fit, in a few words."""
    told = str(error)
    shapes = re.findall(r"size mismatch for (\S+): .*?torch\.Size\((.*?)\).*?torch\.Size\((.*?)\)", told)
    parts = [f"{name} has the shape {theirs} there and {ours} here" for name, theirs, ours in shapes]
    for what, pattern in {
        "lacks": r"Missing key\(s\).*?: (.*?)\. ",
        "has also": r"Unexpected .*?: (.*?)\. ",
    }.items():
        found = re.search(pattern, f"{told} ", re.DOTALL)
        if found:
            names = [name.strip('" ') for name in found[1].split(",")]
            parts.append(f"{what} {_few(names)}")
    return f"does not fit the model: {_few(parts, '; ') or told[:300]}"


def _few(parts: list[str], between: str = ", ") -> str:
    left = len(parts) - _NAMED
    return between.join(parts[:_NAMED]) + (f" and {left} more" if left > 0 else "")
