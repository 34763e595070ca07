"""Any timm model by name and options, with errors that speak to the person who wrote the configuration."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
from timm.models import load_checkpoint
from torch import nn

import focal_lab.backbones.entry_points  # noqa: F401  (registers the focal presets)
from focal_lab.backbones.options import OPTION_NAMES, make_options
from focal_lab.backbones.presets import PRESETS, find_preset
from focal_lab.errors import UserError, one_of


def create_backbone(
    name: str, options: Mapping[str, Any] | None = None, *, checkpoint: str | None = None, **kwargs: Any
) -> nn.Module:
    """A timm model.

    Args:
        name: a timm model name; `focal_tiny` is short for `focal_tiny_patch4_window7_224`.
        options: keyword arguments of the model.
        checkpoint: file of weights to start from, in any format of timm's `checkpoint_path`.
        kwargs: what the task adds (`num_classes`, `features_only`, ...).

    Raises:
        UserError: no such model, option or file, or an option breaks a rule of the model.
    """
    full = resolve_name(name)
    options = dict(options or {})
    if full in PRESETS:
        try:
            make_options(PRESETS[full] | {key: options[key] for key in options if key in OPTION_NAMES})
        except ValueError as error:
            raise UserError(str(error), key="model.backbone_options") from error
    if checkpoint is not None and not Path(checkpoint).is_file():
        raise UserError(f"{checkpoint} does not exist", key="model.backbone_checkpoint")
    try:
        model: nn.Module = timm.create_model(full, **options, **kwargs)
    except Exception as error:
        # timm's models refuse options by asserts, KeyErrors and whatever the wrong value runs into
        raise UserError(f"{full}: {_reason(error)}", key="model.backbone_options") from error
    if checkpoint is not None:
        try:
            load_checkpoint(model, checkpoint)
        except Exception as error:
            # a damaged file leads the unpickler anywhere
            raise UserError(
                f"{checkpoint}: does not fit {full}: {_reason(error)}", key="model.backbone_checkpoint"
            ) from error
    return model


def resolve_name(name: str) -> str:
    """The registered name behind `name`.

    Raises:
        UserError: timm knows no such model.
    """
    full = find_preset(name) or name
    if not timm.is_model(full):
        raise UserError(
            f"{name!r} is not a backbone (focal ones: {one_of(PRESETS)}; or any name of timm.list_models())",
            key="model.backbone",
        )
    return full


def _reason(error: Exception) -> str:
    """One line; the exception's name where it says nothing, as a bare assertion does."""
    told = " ".join(str(error).split())[:300]
    return told if len(told) > 10 else f"{type(error).__name__} {told}".rstrip()
