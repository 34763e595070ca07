"""Initialise a Focal Transformer from Swin's weights, as the paper did for Focal-Large.

"We initialise from Swin-Large's ImageNet-22K checkpoint without window shift": parameters that both networks
have are copied; the others (ring, pooling, biases of pooled tokens) stay as initialised.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

from focal_lab.backbones.weights.fit_weights import (
    check_finite,
    expected_shapes,
    finish,
    fit_named,
    forgive_task,
)
from focal_lab.backbones.weights.formats import (
    MICROSOFT_SWIN,
    TIMM_SWIN,
    NamedWeights,
    Shape,
    WeightsError,
    in_our_names,
)
from focal_lab.backbones.weights.report import Change, FitReport

if TYPE_CHECKING:
    from focal_lab.backbones.model import FocalTransformer


def swin_to_focal(
    state_dict: Mapping[str, Any], model: "FocalTransformer", *, interpolation: str = "bicubic"
) -> tuple[dict[str, Tensor], FitReport]:
    """A state dict for `model` from timm's or Microsoft's Swin of the same depths and width.

    Attention, MLPs, norms and the window's own biases are copied; the patch embedding and the downsampling if
    the model's do not overlap; the head if it has the same number of classes.

    Args:
        state_dict: Swin's weights, or a checkpoint that wraps them.
        model: the target; it is not changed.
        interpolation: bicubic or bilinear, used if the windows differ.

    Returns:
        The fitted values, and what happened to each.

    Raises:
        WeightsError: not Swin's weights, values that are not finite, or other depths or widths.
    """
    named = in_our_names(state_dict)
    if named.origin not in (MICROSOFT_SWIN, TIMM_SWIN):
        raise WeightsError(f"these weights are not Swin's but in the format of {named.origin}")
    check_finite(named)
    expected = expected_shapes(model)
    fresh = {key: "Swin has no layer scale" for key in expected if key.endswith((".gamma_1", ".gamma_2"))}
    dropped: list[Change] = []

    def drop(prefix: str, why: str) -> None:
        for key in [key for key in named.values if key.startswith(prefix)]:
            dropped.append(Change(key, tuple(named.values.pop(key).shape), None, why))
        fresh.update({key: why for key in expected if key.startswith(prefix)})

    if model.options.use_conv_embed:
        drop("patch_embed.", "its patch embedding does not overlap")
    if model.options.downsample == "conv":
        for i in range(1, len(model.layers)):
            prefix = f"layers.{i}.downsample."
            if model.options.use_conv_embed:
                drop(prefix, "its patch merging does not overlap")
            else:
                _fold_merging(named, prefix, fresh, expected)
    fit = fit_named(named, model, interpolation, fresh)
    fit.report.dropped += dropped
    forgive_task(fit, model)
    return finish(fit, model)


def merging_as_convolution(reduction: Tensor, scale: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    """The 2 x 2 convolution of stride 2 equal to patch merging's linear map and its norm's affine part.

    Swin concatenates the tokens of a 2 x 2 patch column by column: top left, bottom left, top right, bottom
    right. `reduction(scale * x + shift)` of the concatenated x is exactly that convolution of the map. The
    norm's division by the patch's standard deviation is not linear and is left out.

    Args:
        reduction: weight of shape (2C, 4C).
        scale: the norm's weight, shape (4C,).
        shift: the norm's bias, shape (4C,).

    Returns:
        Kernel (2C, C, 2, 2) and bias (2C,).
    """
    out, patch = reduction.shape
    kernel = (reduction * scale).view(out, 2, 2, patch // 4)  # (2C, column, row, C)
    return kernel.permute(0, 3, 2, 1).contiguous(), reduction @ shift


def _fold_merging(
    named: NamedWeights, prefix: str, fresh: dict[str, str], expected: Mapping[str, Shape]
) -> None:
    """Replace one patch merging by the convolution; an incomplete one is left for `finish` to report."""
    keys = [prefix + name for name in ("reduction.weight", "norm.weight", "norm.bias")]
    if not all(key in named.values for key in keys):
        return
    reduction, scale, shift = (named.values[key] for key in keys)
    if reduction.ndim != 2 or scale.shape != shift.shape or tuple(scale.shape) != (reduction.shape[1],):
        raise WeightsError(
            f"shape {tuple(reduction.shape)} does not follow a norm of shape {tuple(scale.shape)}", keys[0]
        )
    for key in keys:
        del named.values[key]
    kernel, bias = merging_as_convolution(reduction, scale, shift)
    named.values |= {f"{prefix}proj.weight": kernel, f"{prefix}proj.bias": bias}
    named.sources |= {f"{prefix}proj.weight": keys[0], f"{prefix}proj.bias": keys[2]}
    for key in expected:
        if key.startswith((f"{prefix}norm.", f"{prefix}pre_norm.")):
            fresh[key] = "its patch merging normalises elsewhere"
    why = "patch merging and its norm's scale and shift"
    named.folded[f"{prefix}proj.weight"] = (tuple(reduction.shape), why)
    named.folded[f"{prefix}proj.bias"] = (tuple(shift.shape), why)
