"""Parameters and multiply-accumulates of a configuration, without allocating its weights."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from focal_lab.backbones.options import image_size
from focal_lab.errors import UserError
from focal_lab.tasks.base import Task
from focal_lab.tasks.classes import check_count, fill_in
from focal_lab.tasks.evaluation_size import EvaluationSize, evaluation_size
from focal_lab.training.lightning_cli import check_config
from focal_lab.utils.lazy_imports import find_class


@dataclass(frozen=True)
class Counted:
    """Trained parameters, billions of multiply-accumulates for one input, and the size of that input."""

    params: int
    gmacs: float
    evaluated: EvaluationSize


def count_config(config: Mapping[str, Any]) -> Counted:
    """Check a run's LightningCLI configuration and count its model at the size at which it is evaluated.

    Raises:
        UserError: a key or value that the classes do not accept, or a backbone that cannot be built.
    """
    parsed = check_config(config)
    module = build_unweighted(parsed)
    found = configured_size(module, parsed["data"])
    params, gmacs = module.count(found.size)
    return Counted(params, gmacs, found)


def build_unweighted(parsed: Mapping[str, Any]) -> Any:
    """Build the task of a checked configuration on the meta device, where weights take no memory.

    Raises:
        UserError: a backbone that cannot be built, or data with another number of classes.
    """
    model = parsed["model"]
    fill_in(model, parsed.get("data") or {})
    init_args = dict(model.get("init_args", {})) | {"backbone_checkpoint": None}
    with torch.device("meta"):
        built = find_class(model["class_path"])(**init_args)
    data = find_class(parsed["data"]["class_path"]) if parsed.get("data") else None
    if isinstance(built, Task) and isinstance(getattr(data, "num_classes", None), int):
        check_count(built.hparams["num_classes"], data)  # the same classes whatever the data's options
    return built


def configured_size(module: Task, data: Mapping[str, Any]) -> EvaluationSize:
    """The size at which a task evaluates the data of a parsed configuration.

    Raises:
        UserError: the data neither gives its images' size nor has images to measure.
    """
    kind = find_class(data["class_path"])
    arguments = {**(data.get("init_args") or {}), **(data.get("dict_kwargs") or {})}
    if any(hasattr(kind, name) for name in ("eval_transform", "evaluation_image_sizes")):
        return evaluation_size(module, kind(**arguments))
    size = arguments.get("image_size")
    if size is None:
        raise UserError(f"{data['class_path']} has no image_size", key="data.init_args.image_size")
    return EvaluationSize(module.network_size(image_size(size)), "options")
