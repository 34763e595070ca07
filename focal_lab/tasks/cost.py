"""What a configuration costs, without building its weights: parameters and multiply-accumulates."""

import inspect
from collections.abc import Mapping
from typing import Any

import torch

from focal_lab.errors import UserError
from focal_lab.tasks.base import Task
from focal_lab.tasks.class_count import check_count, fill_in
from focal_lab.tasks.dotted_path import find_class as find_class
from focal_lab.tasks.training_cli import check_config


def count_config(config: Mapping[str, Any]) -> tuple[int, float]:
    """Check a run's configuration and count its model.

    Args:
        config: LightningCLI configuration of a run.

    Returns:
        Parameters, and billions of multiply-accumulates for one picture of the data's size.

    Raises:
        UserError: a key or value that the classes do not take, or a backbone that cannot be built.
    """
    counted: tuple[int, float] = build_unweighted(config).count(picture_size(config["data"]))
    return counted


def build_unweighted(config: Mapping[str, Any]) -> Any:
    """Check a run's configuration and build its task on the meta device, where weights take no memory.

    Raises:
        UserError: a key or value that the classes do not take, or a backbone that cannot be built.
    """
    checked = check_config(config)
    model = checked["model"]
    fill_in(model, checked.get("data") or {})
    init_args = dict(model.get("init_args", {})) | {"backbone_checkpoint": None}
    with torch.device("meta"):
        built = find_class(model["class_path"])(**init_args)
    data = find_class(checked["data"]["class_path"]) if checked.get("data") else None
    if isinstance(built, Task) and isinstance(getattr(data, "num_classes", None), int):
        check_count(
            built.hparams["num_classes"], data
        )  # such data have the same classes whatever their options
    return built


def picture_size(data: Mapping[str, Any]) -> tuple[int, int]:
    """Height and width of the pictures that a data module serves, from its options or their defaults.

    Raises:
        UserError: the class has no option `image_size`.
    """
    size = data.get("init_args", {}).get("image_size")
    if size is None:
        # a class may hand on to its base what it does not name itself
        bases = inspect.getmro(find_class(data["class_path"]))
        found = (inspect.signature(base).parameters.get("image_size") for base in bases[:-1])
        parameter = next((one for one in found if one is not None), None)
        if parameter is None or parameter.default is inspect.Parameter.empty:
            raise UserError(
                f"{data['class_path']} does not say its image_size", key="data.init_args.image_size"
            )
        size = parameter.default
    return (size, size) if isinstance(size, int) else (size[0], size[1])
