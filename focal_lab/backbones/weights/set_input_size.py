"""Change the input size, windows and regions of a model in place, keeping its weights."""

import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from focal_lab.backbones.attention.layer import FocalAttention
from focal_lab.backbones.options import FocalOptions, StageConfig, image_size
from focal_lab.backbones.weights.bias_tables import level_numbers, rebuild_attention
from focal_lab.backbones.weights.formats import OWN, is_positional
from focal_lab.backbones.weights.report import FitReport

if TYPE_CHECKING:
    from focal_lab.backbones.model import FocalTransformer


def resize_model(model: "FocalTransformer", changed: dict[str, Any], interpolation: str) -> None:
    """Change options that are sizes; the model is unchanged if an option breaks a rule.

    Raises:
        ValueError: an option breaks a rule.
    """
    options = replace(model.options, **changed)
    stages = options.stages
    report = FitReport("the model's own")
    resized = []
    for layer, stage in zip(model.layers, stages, strict=False):
        for j, block in enumerate(layer.blocks):  # type: ignore[arg-type]
            attention, part = _resize_attention(block.attn, stage, model.options, options, interpolation)
            report.add(f"layers.{stage.stage - 1}.blocks.{j}.attn.", part)
            resized.append((block, attention))
    for block, attention in resized:
        block.attn = attention
    model.options, model.stages_config = options, stages
    _update_timm(model, changed)
    if report.summary():
        warnings.warn(f"set_input_size: {report.summary()}", stacklevel=3)


def _resize_attention(
    old: FocalAttention,
    stage: StageConfig,
    old_options: FocalOptions,
    options: FocalOptions,
    interpolation: str,
) -> tuple[FocalAttention, FitReport]:
    """A new attention for `stage`; parameters that need no change are the old ones themselves."""
    like = old.qkv.weight
    with torch.device(like.device):
        new = FocalAttention(stage, options, attn_drop=old.attn_drop, proj_drop=old.proj_drop.p)
    new.to(like.dtype)
    new.border, new.attention = old.border, old.attention
    new.train(old.training)
    new.qkv, new.proj = old.qkv, old.proj
    own = dict(old.named_parameters())
    values = {key: value.detach() for key, value in own.items() if is_positional(f"attn.{key}")}
    expected = {
        key: tuple(value.shape) for key, value in new.named_parameters() if is_positional(f"attn.{key}")
    }
    numbers = level_numbers(old.stage, old_options)
    rebuilt = rebuild_attention(
        values,
        expected,
        stage,
        interpolation,
        levels=[numbers.index(k) if k in numbers else -1 for k in level_numbers(stage, options)],
        found=values,
        source=old.stage,
    )
    parameters = {id(value): own[key] for key, value in values.items()}
    for key in expected:
        value = rebuilt.values.get(key)
        learned = own.get(key, own[OWN]).requires_grad
        if value is None:
            new.get_parameter(key).requires_grad_(learned)
            continue
        path, _, name = key.rpartition(".")
        parameter = parameters.get(id(value), nn.Parameter(value, requires_grad=learned))
        setattr(new.get_submodule(path), name, parameter)
    return new, rebuilt.report


def _update_timm(model: "FocalTransformer", changed: dict[str, Any]) -> None:
    """Update the input size that timm keeps in addition to the model's description."""
    try:
        from timm.models._input import update_model_input_size
    except ImportError:
        return  # not in older versions of timm
    options = {name: value for name, value in changed.items() if name != "img_size"}
    update_model_input_size(model, image_size(model.options.img_size), **options)
