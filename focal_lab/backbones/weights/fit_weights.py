"""Fitting a checkpoint to a model of other parameter names, windows, regions or levels.

Values that fit are passed on unchanged, every other change is reported, and what cannot be made to fit is
refused with its key.
"""

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from focal_lab.backbones.weights.bias_tables import level_numbers, rebuild_attention
from focal_lab.backbones.weights.formats import (
    OWN,
    PER_QUERY,
    PER_WINDOW,
    NamedWeights,
    Shape,
    WeightsError,
    find_prefix,
    in_our_names,
    is_positional,
)
from focal_lab.backbones.weights.report import Change, Fit, FitReport

if TYPE_CHECKING:
    from focal_lab.backbones.model import FocalTransformer

T = TypeVar("T")
_HEAD = "head.fc."


def fit_weights(
    state_dict: Mapping[str, Any],
    model: "FocalTransformer",
    *,
    interpolation: str = "bicubic",
    transfer: bool = False,
) -> tuple[dict[str, Tensor], FitReport]:
    """Convert a checkpoint of any known format to a state dict that `model` loads.

    Args:
        state_dict: tensors by name, or a checkpoint that wraps them.
        model: the target; it is not changed, and may be on the meta device.
        interpolation: bicubic, or bilinear as in the paper.
        transfer: the model has another task. A head with other classes stays fresh; a head, a last norm or
            last stages that were pruned from the model are dropped.

    Returns:
        The fitted values, and what happened to each.

    Raises:
        WeightsError: no weights, values that are not finite, or an architecture other than the model's.
    """
    named = in_our_names(state_dict)
    check_finite(named)
    fit = fit_named(named, model, interpolation)
    if transfer:
        forgive_task(fit, model)
    return finish(fit, model)


def finish(fit: Fit, model: "FocalTransformer") -> tuple[dict[str, Tensor], FitReport]:
    """The values of a fit in the model's order.

    Raises:
        WeightsError: something did not fit.
    """
    problems = [*fit.refused.items(), *fit.misfits.items()]
    if problems:
        key, message = problems[0]
        more = f"; {len(problems) - 1} more do not fit either" if len(problems) > 1 else ""
        raise WeightsError(f"{message}{more}", key)
    return {key: fit.values[key] for key in expected_shapes(model)}, fit.report


def fit_named(
    named: NamedWeights, model: "FocalTransformer", interpolation: str, fresh: Mapping[str, str] | None = None
) -> Fit:
    """Resize what can be, and list what does not fit; `fresh` maps keys to leave initialised to reasons."""
    own = model.state_dict(keep_vars=True)
    expected = expected_shapes(model)
    fit = Fit(dict(named.values), FitReport(named.origin, buffers=named.buffers))
    fit.report.dropped += [Change(key, None, None, "not part of the backbone") for key in named.outside]
    fit.report.fresh += [Change(key, None, expected[key], why) for key, why in (fresh or {}).items()]
    resized = set()
    for i, stage in enumerate(model.stages_config[: len(model.layers)]):
        prefixes = [f"layers.{i}.blocks.{j}.attn." for j in range(stage.depth)]
        given = [_positional(fit.values, prefix) for prefix in prefixes]
        found = {key for block in given for key in block}
        tables = sum(key.startswith((f"{PER_QUERY}.", f"{PER_WINDOW}.")) for key in found)
        # with as many levels as the model they are the model's; surplus ones may be those it switched off
        levels = list(range(len(stage.levels)))
        if tables > len(levels):
            levels = level_numbers(stage, model.options)
        for prefix, block in zip(prefixes, given, strict=True):
            shapes = _positional(expected, prefix)
            rebuilt = rebuild_attention(block, shapes, stage, interpolation, levels=levels, found=found)
            for key in block:
                del fit.values[prefix + key]
            fit.values |= {prefix + key: value for key, value in rebuilt.values.items()}
            fit.report.add(prefix, rebuilt.report)
            fit.refused |= {prefix + key: why for key, why in rebuilt.refused.items()}
            resized |= {prefix + change.key for change in rebuilt.report.interpolated}
    fresh_keys = {change.key for change in fit.report.fresh}
    fit.values |= {key: own[key].detach() for key in fresh_keys}
    missing = {}
    for key, shape in expected.items():
        value = fit.values.get(key)
        if value is None:
            missing[key] = f"is missing; the model needs it in shape {shape}"
            continue
        if key in named.folded:
            before, why = named.folded[key]
            fit.report.folded.append(Change(key, before, tuple(named.values[key].shape), why))
        if tuple(value.shape) != shape:
            if key not in fit.refused:
                fit.misfits[key] = f"shape {tuple(value.shape)} is not the model's {shape}"
        elif key not in named.folded and key not in fresh_keys | resized:
            fit.report.mapped.append(Change(key, shape, shape, named.sources.get(key, key)))
    fit.misfits |= missing
    for key, value in fit.values.items():
        if key not in expected:
            shape, name = tuple(value.shape), named.sources.get(key, key)
            fit.misfits[key] = f"is not a parameter of the model (shape {shape}, from {name})"
    return fit


def forgive_task(fit: Fit, model: "FocalTransformer") -> None:
    """Remove the misfits that only mean that the model has another task than the checkpoint."""
    own = model.state_dict(keep_vars=True)
    expected = expected_shapes(model)
    pruned = [f"layers.{i}." for i in range(len(model.layers), len(model.stages_config))]
    pruned += ["norm."] if isinstance(model.norm, nn.Identity) else []
    kept = {}
    for key, message in fit.misfits.items():
        found = fit.values.get(key)
        shape = None if found is None else tuple(found.shape)
        if key.startswith(_HEAD) and key in expected:
            if shape is not None and shape[1:] != expected[key][1:]:
                kept[key] = message  # another width, not other classes
                continue
            why = "the checkpoint has no head" if shape is None else f"its head has {shape[0]} classes"
            fit.report.fresh.append(Change(key, shape, expected[key], why))
            fit.values[key] = own[key].detach()
        elif key.startswith((_HEAD, *pruned)):
            fit.report.dropped.append(Change(key, shape, None, "the model ends before it"))
            del fit.values[key]
        else:
            kept[key] = message
    fit.misfits = kept
    if any(change.key.startswith(_HEAD) for change in fit.report.fresh):
        # a classifier's weight without its bias, or the reverse, is useless
        for change in [change for change in fit.report.mapped if change.key.startswith(_HEAD)]:
            fit.report.mapped.remove(change)
            fit.report.fresh.append(change._replace(why="the rest of the head does not fit"))
            fit.values[change.key] = own[change.key].detach()


def load_pre_hook(
    model: "FocalTransformer",
    state_dict: dict[str, Any],
    prefix: str,
    local_metadata: dict[str, Any],
    strict: bool,
    missing_keys: list[str],
    unexpected_keys: list[str],
    error_msgs: list[str],
) -> None:
    """Let `load_state_dict` accept what `fit_weights` does; torch itself refuses what still does not fit.

    A state dict that fits is not touched, and missing keys are left for torch to report.

    Raises:
        WeightsError: values that are not finite, or a ring of unknown shape.
    """
    given = {key.removeprefix(prefix): state_dict[key] for key in state_dict if key.startswith(prefix)}
    expected = expected_shapes(model)
    fits = all(
        key in expected and getattr(value, "shape", None) == expected[key] for key, value in given.items()
    )
    lacks_positions = any(  # an attention without all of its position biases
        key not in given and f"{key[: key.rindex('attn.')]}attn.{OWN}" in given
        for key in filter(is_positional, expected)
    )
    if fits and not lacks_positions:
        return
    fit = adapt(given, model)
    error_msgs.extend(f"{key}: {why}" for key, why in fit.refused.items())
    own = find_prefix(given)
    kept = {} if prefix else {key: value for key, value in given.items() if not key.startswith(own)}
    for key in given:
        del state_dict[prefix + key]
    state_dict.update({prefix + key: value for key, value in (kept | fit.values).items()})


def adapt(state_dict: Mapping[str, Any], model: "FocalTransformer") -> Fit:
    """Fit a state dict to the model with a warning about what changed; values that do not fit stay in.

    Raises:
        WeightsError: no weights, values that are not finite, or a ring of unknown shape.
    """
    named = in_our_names(state_dict)
    check_finite(named)
    named.outside.clear()  # torch reports keys that it does not expect
    fit = fit_named(named, model, "bicubic")
    summary = fit.report.summary()
    if summary:
        warnings.warn(f"weights ({fit.report.origin}): {summary}", stacklevel=2)
    return fit


def check_finite(named: NamedWeights) -> None:
    """Refuse NaN and infinities.

    Raises:
        WeightsError: the first key that contains some.
    """
    for key, value in named.values.items():
        if not value.is_floating_point() or value.is_meta:
            continue
        # one pass over the values: a finite sum has finite terms; another may have overflowed
        if not value.sum(dtype=torch.promote_types(value.dtype, torch.float32)).isfinite():
            count = int((~value.isfinite()).sum())
            if count:
                raise WeightsError(
                    f"{count} of its {value.numel()} values are NaN or infinite", named.sources.get(key, key)
                )


def expected_shapes(model: nn.Module) -> dict[str, Shape]:
    """Shapes of everything in a state dict of the model, in its order."""
    return {key: tuple(value.shape) for key, value in model.state_dict(keep_vars=True).items()}


def _positional(entries: Mapping[str, T], prefix: str) -> dict[str, T]:
    """The positional entries of one attention, without their prefix."""
    return {
        key.removeprefix(prefix): entry
        for key, entry in entries.items()
        if key.startswith(prefix) and is_positional(key)
    }
