"""Counts models without computing anything: parameters, multiply-accumulates, and what windows see."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from focal_lab.backbones.counting import (
    count_activations,
    count_gmacs,
    count_parameters,
    count_released_parameters,
)
from focal_lab.backbones.model import FocalTransformer
from focal_lab.backbones.options import FocalOptions, Size, StageConfig, image_size
from focal_lab.errors import UserError
from focal_lab.tasks.backbone import create_backbone, is_focal, resolve_name

_DEFAULT_INPUT = (3, 224, 224)
SPEED_AND_MEMORY = ("images_per_second", "images_per_second_rounds", "relative_speed", "peak_memory_bytes")
MEASURED = ("device", "threads", "batch_size", *SPEED_AND_MEMORY, "training")
# Section 4.2: pooled regions for tasks with large images.
_REGIONS = {"focal_windows": [15, 13, 9, 7]}


@dataclass(frozen=True)
class CountedModel:
    """One model, counted for one image.

    Attributes:
        label: its name as the user wrote it.
        arguments: keyword arguments that build it: its options, and the size if it takes one.
        channels: of the image.
        profile: the object that `--json` prints; what has not been measured is None.
    """

    label: str
    arguments: Mapping[str, Any]
    channels: int
    profile: dict[str, Any]


def count_model(name: str, options: Mapping[str, Any], size: Size | None) -> CountedModel:
    """Count a model by its name.

    Args:
        name: a timm model, or the short name of a focal one.
        options: its keyword arguments.
        size: height and width of the image; None for the model's default.

    Raises:
        UserError: an unknown model or option, or a size that the model does not run at.
    """
    full = _full_name(name)
    model, arguments = _build(lambda chosen: create_backbone(full, chosen), options, size)
    focal = model if isinstance(model, FocalTransformer) else None
    if focal is not None:
        channels, *default = focal.options.in_chans, *image_size(focal.options.img_size)
    else:
        described: Any = getattr(model, "pretrained_cfg", {})
        channels, *default = described.get("input_size", _DEFAULT_INPUT)
    channels = options.get("in_chans", channels)
    height, width = size or default
    try:
        gmacs = count_gmacs(model, (height, width), channels)
        activations = count_activations(model, (height, width), channels)
    except Exception as error:  # models of a fixed size raise whatever another size leads to
        raise UserError(f"{full}: does not run on {height} x {width} pixels: {error}") from error
    profile = {
        "name": full,
        "options": dict(options),
        "image_size": [height, width],
        "params": count_parameters(model),
        "released_params": focal and count_released_parameters(focal),
        "gmacs": gmacs,
        "activations": activations,
        "stages": focal and _stages(focal),
    }
    return CountedModel(name, arguments, channels, profile | dict.fromkeys(MEASURED))


def count_heads(
    task: str, name: str, head: str, options: Mapping[str, Any], size: Size | None = None
) -> dict[str, Any]:
    """Count a backbone with a head by the papers' convention; returns the object that `--json` prints.

    Args:
        task: detection or segmentation.
        name: a timm model, or the short name of a focal one.
        head: `method` of detection, `decoder` of segmentation.
        options: of the backbone; a focal one gets the paper's regions unless these say otherwise.
        size: height and width of the image; None for the paper's.

    Raises:
        UserError: an unknown backbone, head or option, or an invalid size.
    """
    make: Any
    if task == "detection":  # tables 3 and 4 are about COCO
        from focal_lab.tasks.detection.methods import PAPER_SIZE
        from focal_lab.tasks.detection.task import Detection

        make, option, num_classes = Detection, "method", 80
    else:  # table 7 is about ADE20K
        from focal_lab.tasks.segmentation.task import PAPER_SIZE, Segmentation

        make, option, num_classes = Segmentation, "decoder", 150
    full, focal, size = _full_name(name), is_focal(name), size or PAPER_SIZE
    options = (_REGIONS if focal else {}) | dict(options)
    chosen: Any = {"backbone": full, option: head, "num_classes": num_classes}
    model, _ = _build(lambda options: make(**chosen, backbone_options=options), options, size)
    params, gmacs = model.count(size)
    return {
        "task": task,
        "name": full,
        option: head,
        "options": options,
        "image_size": list(size),
        "num_classes": num_classes,
        "params": params,
        "released_params": count_released_parameters(model.model) if focal else None,
        "gmacs": gmacs,
    }


def _stages(model: FocalTransformer) -> list[dict[str, Any]]:
    """Effective configuration, notes and receptive field of each stage, as JSON."""
    return [
        described | {"receptive_field": receptive_field(stage, model.options)}
        for described, stage in zip(model.effective_config(), model.stages_config, strict=True)
    ]


def receptive_field(stage: StageConfig, options: FocalOptions) -> dict[str, Any]:
    """What one window sees in one block, in pixels cut to the image; at the border it sees less.

    A token stands for the square of pixels that it was embedded from, one stride wide. Earlier blocks and
    overlapping patch embeddings add to that: this is what attention sees at least.

    Returns:
        Height and width of the fine level, and of each coarse one.
    """
    stride = options.patch_size * 2 ** (stage.stage - 1)
    limits = image_size(options.img_size)

    def pixels(tokens: Iterable[int]) -> list[int]:
        return [min(count * stride, limit) for count, limit in zip(tokens, limits, strict=True)]

    return {
        "fine": pixels(stage.window[axis] + 2 * stage.expand[axis] for axis in (0, 1)),
        "coarse": [
            pixels(level.region[axis] * level.pool_size[axis] for axis in (0, 1)) for level in stage.levels
        ],
    }


def _full_name(name: str) -> str:
    try:
        return resolve_name(name)
    except UserError as error:
        raise UserError(error.message) from error  # without the key model.backbone


def _build(
    build: Callable[[dict[str, Any]], Any], options: Mapping[str, Any], size: Size | None
) -> tuple[Any, dict[str, Any]]:
    """Build on the meta device, for the size if the backbone takes one; returns the options used, too."""
    arguments = dict(options) | ({"img_size": list(size)} if size else {})
    try:
        with torch.device("meta"):
            return build(arguments), arguments
    except UserError as error:
        # convolutional networks have no such argument: they run at any size
        if size and "'img_size'" in str(error):
            return _build(build, options, None)
        raise UserError(error.message, key="--set" if options else None) from error
