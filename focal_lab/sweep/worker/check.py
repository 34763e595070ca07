"""Body of a worker process that checks the configurations of a plan and counts networks. Loads torch."""

import os
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from focal_lab.data.option_checks import checks_files
from focal_lab.errors import UserError
from focal_lab.sweep.run_folder.provenance import hardware
from focal_lab.sweep.worker.request import CheckAnswer, CheckRequest, Cost, MachineSpecs
from focal_lab.training.cost import build_unweighted, count_config
from focal_lab.training.lightning_cli import check_config
from focal_lab.utils.lazy_imports import find_class

_MEGABYTE = 2**20


def check_configs(request: CheckRequest) -> CheckAnswer:
    """Check and count configurations."""
    torch.set_num_threads(1)
    answer = CheckAnswer(_machine())
    absent: dict[str, str | None] = {}
    for number, config in enumerate(request.configs):
        try:
            if number in request.counted:
                counted = count_config(config)
                size = counted.evaluated
                answer.costs[number] = Cost(counted.params, counted.gmacs, size.size, size.source)
            else:
                build_unweighted(check_config(config))
            refuse_impossible(config)
            data = repr(config["data"])
            if data not in absent:
                absent[data] = absent_data(config)
            if (missing := absent[data]) is not None:
                answer.absent[number] = missing
        except Exception as error:
            answer.wrong = number, _reason(error, config)
            break
    return answer


def _reason(error: Exception, config: Mapping[str, Any]) -> str:
    """The user's mistake, or what the user's code raised, in one line; errors of our code are raised."""
    if isinstance(error, UserError):
        return str(error)
    if _is_ours(config["model"]) and _is_ours(config["data"]):
        raise error
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{frame.filename}:{frame.lineno}: {type(error).__name__}: {' '.join(str(error).split())}"


def refuse_impossible(config: Mapping[str, Any]) -> None:
    """Check what else would end a run at its start: options of the data, file of weights, accelerator.

    Raises:
        UserError: one of them is wrong.
    """
    parsed = check_config(config)
    data, model = parsed["data"], parsed["model"]
    if _is_ours(data):  # opens no files before `setup`; a user's module may
        find_class(data["class_path"])(**data.get("init_args", {}))
    checkpoint = model.get("init_args", {}).get("backbone_checkpoint")
    if checkpoint is not None and not Path(checkpoint).is_file():
        raise UserError(f"{checkpoint}: is not a file", key="model.backbone_checkpoint")
    accelerator = parsed["trainer"].get("accelerator")
    available = torch.cuda.is_available() or (accelerator == "gpu" and torch.backends.mps.is_available())
    if accelerator in ("gpu", "cuda") and not available:
        raise UserError(
            f"{accelerator}: not available on this machine; use auto to fall back to the CPU",
            key="trainer.accelerator",
        )


def absent_data(config: Mapping[str, Any]) -> str | None:
    """Which file of a configuration's data is not on this machine.

    Returns:
        None for none, and for data modules without a method `check_files` of their own.
    """
    data = check_config(config)["data"]
    kind = find_class(data["class_path"])
    if not checks_files(kind):
        return None
    try:
        kind(**{**(data.get("init_args") or {}), **(data.get("dict_kwargs") or {})}).check_files()
    except UserError as error:
        return str(error)
    except OSError as error:
        return f"{error.filename}: cannot be read ({error.strerror})"
    return None


def _is_ours(part: Mapping[str, Any]) -> bool:
    return str(part["class_path"]).startswith("focal_lab.")


def _machine() -> MachineSpecs:
    devices = torch.cuda.device_count()
    memory = [torch.cuda.get_device_properties(i).total_memory / _MEGABYTE for i in range(devices)]
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / _MEGABYTE
    return MachineSpecs(hardware(), str(torch.__version__), devices, total, min(memory, default=None))
