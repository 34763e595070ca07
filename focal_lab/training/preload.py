"""What a process does once so that the trainings it forks begin at once."""

import atexit
import contextlib
import gc
import importlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from focal_lab.errors import UserError
from focal_lab.training.cost import count_config, find_class

# imported by functions when they are needed, which every training would do anew
_LATE = ("torch.utils.tensorboard", "tensorboard.plugins.hparams.summary", "torch._dynamo")


def preload(configs: Sequence[Mapping[str, Any]] = ()) -> None:
    """Import, read and look up what trainings of these configurations will need.

    Nothing here computes with real numbers: threads of torch or of a BLAS would not survive a fork. What is
    wrong with a configuration is left to its training to say.

    Args:
        configs: one of each kind that is to be trained; without any, only what all of them need.
    """
    torch.set_num_threads(1)
    for name in _LATE:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    for config in configs:
        with contextlib.suppress(UserError, ImportError):
            count_config(config)
            _preload_data(config["data"]["class_path"])
    # a child's garbage collector would walk through, and so copy, all that is shared
    gc.collect()
    gc.freeze()
    atexit.register(gc.unfreeze)  # or triton's bindings complain at the end


def _preload_data(class_path: str) -> None:
    """The embedded digits are read here: all children share the memory."""
    from focal_lab.data.digits.base import EmbeddedData
    from focal_lab.data.digits.mnist5k import PER_CLASS, source_digits

    if issubclass(find_class(class_path), EmbeddedData):
        for split in PER_CLASS:
            source_digits(split)
