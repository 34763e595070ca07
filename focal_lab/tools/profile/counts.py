"""What can be counted of a model without computing anything: parameters, operations, and what it sees."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from focal_lab.backbones.counting import (
    count_activations,
    count_gmacs,
    count_parameters,
    count_released_parameters,
)
from focal_lab.backbones.model import FocalTransformer
from focal_lab.backbones.options import Size, image_size
from focal_lab.backbones.receptive_field import receptive_field
from focal_lab.errors import UserError
from focal_lab.tasks.backbone import create_backbone, resolve_name

# What a model without a description of its input is taken to eat.
_USUAL_INPUT = (3, 224, 224)


@dataclass(frozen=True)
class Counts:
    """One model, counted for one picture.

    Attributes:
        name: the registered name.
        options: what was set on top of it.
        arguments: keyword arguments that build it: the options, and the size where the model takes one.
        image_size: height and width of the picture in pixels.
        channels: of the picture.
        params: learned numbers.
        released_params: the same by the released code's bookkeeping; None for other than focal models.
        gmacs: billions of multiply-accumulates, attention included.
        activations: outputs of convolutions, linear layers and attention's products.
        stages: what each stage really computes and sees; None for other than focal models.
    """

    name: str
    options: Mapping[str, Any]
    arguments: Mapping[str, Any]
    image_size: Size
    channels: int
    params: int
    released_params: int | None
    gmacs: float
    activations: int
    stages: list[dict[str, Any]] | None


def count_model(name: str, options: Mapping[str, Any], size: Size | None) -> Counts:
    """Count a model by its name.

    Args:
        name: a timm model, or the short name of a focal one.
        options: its keyword arguments.
        size: picture to count for; None for the size that the model is made for.

    Raises:
        UserError: no such model, an option that it does not take, or a size that it does not run at.
    """
    try:
        full = resolve_name(name)
    except UserError as error:
        raise UserError(error.message) from error
    model, arguments = _build(full, options, size)
    channels, *made_for = _input(model)
    channels = options.get("in_chans", channels)
    height, width = size or made_for
    try:
        gmacs = count_gmacs(model, (height, width), channels)
        activations = count_activations(model, (height, width), channels)
    except Exception as error:
        # a fixed size is refused by asserts, RuntimeErrors and whatever else the wrong shape runs into
        raise UserError(f"{full}: does not run on {height} x {width} pixels: {error}") from error
    focal = isinstance(model, FocalTransformer)
    return Counts(
        name=full,
        options=options,
        arguments=arguments,
        image_size=(height, width),
        channels=channels,
        params=count_parameters(model),
        released_params=count_released_parameters(model) if focal else None,
        gmacs=gmacs,
        activations=activations,
        stages=describe_stages(model) if isinstance(model, FocalTransformer) else None,
    )


def describe_stages(model: FocalTransformer) -> list[dict[str, Any]]:
    """The effective configuration of each stage, its notes, and how far its windows see, as JSON."""
    return [
        described | {"receptive_field": receptive_field(stage, model.options).as_dict()}
        for described, stage in zip(model.effective_config(), model.stages_config, strict=True)
    ]


def _build(name: str, options: Mapping[str, Any], size: Size | None) -> tuple[nn.Module, dict[str, Any]]:
    """The model without memory for its weights, for the size where it takes one, and its arguments."""
    arguments = dict(options) | ({"img_size": list(size)} if size else {})
    try:
        with torch.device("meta"):
            return create_backbone(name, arguments), arguments
    except UserError as error:
        # convolutional models have no such argument: they run at any size as they are
        if size and isinstance(error.__cause__, TypeError) and "'img_size'" in str(error.__cause__):
            return _build(name, options, None)
        raise UserError(error.message, key="--set" if options else None) from error


def _input(model: nn.Module) -> tuple[int, int, int]:
    """Channels, height and width that the model is made for."""
    if isinstance(model, FocalTransformer):
        return (model.options.in_chans, *image_size(model.options.img_size))
    described: Any = getattr(model, "pretrained_cfg", {})
    channels, height, width = described.get("input_size", _USUAL_INPUT)
    return channels, height, width
