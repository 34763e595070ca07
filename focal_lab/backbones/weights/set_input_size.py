"""A model made for pictures of one size, turned into one for another, with its weights."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from focal_lab.backbones.options import FocalOptions, StageConfig, image_size, resolve_stages
from focal_lab.backbones.weights.bias_tables import (
    OWN,
    is_positional,
    level_numbers,
    rebuild_attention,
)
from focal_lab.backbones.weights.report import FitReport
from focal_lab.backbones.weights.table_sizes import Source

if TYPE_CHECKING:
    from focal_lab.backbones.attention.layer import FocalAttention
    from focal_lab.backbones.model import FocalTransformer


def resize_model(
    model: "FocalTransformer",
    img_size: int | Sequence[int] | None,
    window_size: int | Sequence[int] | None,
    focal_windows: int | Sequence[int] | None,
    expand_sizes: int | Sequence[int] | None,
    interpolation: str,
) -> FitReport:
    """Change the sizes of a model in place; nothing is changed if an option breaks a rule.

    Raises:
        ValueError: an option breaks a rule.
    """
    changed = {
        "img_size": img_size,
        "window_size": window_size,
        "focal_windows": focal_windows,
        "expand_sizes": expand_sizes,
    }
    given: dict[str, Any] = {name: value for name, value in changed.items() if value is not None}
    options: FocalOptions = replace(model.options, **given)
    stages = resolve_stages(options)
    report = FitReport("the model's own")
    made = []
    for layer, stage in zip(model.layers, stages, strict=False):
        for j, block in enumerate(layer.blocks):  # type: ignore[arg-type]
            prefix = f"layers.{stage.stage - 1}.blocks.{j}.attn."
            attention = _resize_attention(
                block.attn, stage, model.options, options, interpolation, report, prefix
            )
            made.append((block, attention))
    for block, attention in made:
        block.attn = attention
    model.options, model.stages_config = options, stages
    _tell_timm(model, given)
    if report.summary():
        warnings.warn(f"set_input_size: {report.summary()}", stacklevel=3)
    return report


def _resize_attention(
    old: "FocalAttention",
    stage: StageConfig,
    old_options: FocalOptions,
    options: FocalOptions,
    interpolation: str,
    report: FitReport,
    prefix: str,
) -> "FocalAttention":
    """A new attention for `stage`; the parameters that need no change are the old ones themselves."""
    from focal_lab.backbones.model import make_attention

    like = old.qkv.weight
    with torch.device(like.device):
        new = make_attention(stage, options, attn_drop=old.attn_drop, proj_drop=old.proj_drop.p)
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
        source=Source.of(old.stage),
    )
    parameters = {id(value): own[key] for key, value in values.items()}
    for key in expected:
        value = rebuilt.values.get(key)
        learned = own.get(key, own[OWN]).requires_grad
        if value is None:
            new.get_parameter(key).requires_grad_(learned)
        else:
            _put(new, key, parameters.get(id(value), nn.Parameter(value, requires_grad=learned)))
    report.add(prefix, rebuilt, expected)
    return new


def _put(module: nn.Module, key: str, parameter: Tensor) -> None:
    path, _, name = key.rpartition(".")
    setattr(module.get_submodule(path), name, parameter)


def _tell_timm(model: "FocalTransformer", given: Mapping[str, Any]) -> None:
    """timm keeps a model's nominal input size beside its description, which stays the preset's."""
    try:
        from timm.models._input import update_model_input_size
    except ImportError:
        return  # an older timm keeps no traits
    changed = {name: value for name, value in given.items() if name != "img_size"}
    update_model_input_size(model, image_size(model.options.img_size), **changed)
