"""Preloads modules and data in a process, so that the trainings forked from it start without delay."""

import atexit
import contextlib
import gc
import importlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from focal_lab.errors import UserError
from focal_lab.training.cost import count_config
from focal_lab.utils.lazy_imports import find_class

# imported lazily by functions, in every training again
_LATE = ("torch.utils.tensorboard", "tensorboard.plugins.hparams.summary", "torch._dynamo")


def preload(configs: Sequence[Mapping[str, Any]] = ()) -> None:
    """Import, read and look up what trainings of these configurations, one of each kind, will need.

    Computes nothing with real numbers: threads of torch or of a BLAS would not survive a fork. Errors in a
    configuration are left to its training to report.
    """
    from focal_lab.data.digits.embedded import EmbeddedData
    from focal_lab.data.digits.mnist5k import PER_CLASS, source_digits

    torch.set_num_threads(1)
    for name in _LATE:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    for config in configs:
        with contextlib.suppress(UserError, ImportError):
            count_config(config)
            if issubclass(find_class(config["data"]["class_path"]), EmbeddedData):
                for split in PER_CLASS:
                    source_digits(split)  # shared by all forked processes
    # a forked process's garbage collector would touch, and so copy, everything that is shared
    gc.collect()
    gc.freeze()
    atexit.register(gc.unfreeze)  # or triton's bindings complain at exit
