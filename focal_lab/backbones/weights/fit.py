"""Fitting a state dict to a model: other names, windows, regions and levels than the model's.

What fits as it is, is passed on untouched. Everything else is reported, and what cannot be made to fit is
refused with its key.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from focal_lab.backbones.weights.bias_tables import (
    PER_QUERY,
    PER_WINDOW,
    Rebuilt,
    Shape,
    is_positional,
    level_numbers,
    rebuild_attention,
)
from focal_lab.backbones.weights.formats import NamedWeights, WeightsError, in_our_names
from focal_lab.backbones.weights.report import Change, FitReport

if TYPE_CHECKING:
    from focal_lab.backbones.model import FocalTransformer

T = TypeVar("T")


@dataclass
class Fit:
    """A state dict on its way: what does not fit is still in `values` as it came."""

    values: dict[str, Tensor]
    report: FitReport
    misfits: list[tuple[str, str]] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)


def fit_weights(
    state_dict: Mapping[str, Any],
    model: "FocalTransformer",
    *,
    interpolation: str = "bicubic",
    transfer: bool = False,
) -> tuple[dict[str, Tensor], FitReport]:
    """A state dict that `model` loads, from one in any format that `released_format` knows.

    Args:
        state_dict: tensors by name, or a checkpoint that wraps them.
        model: what they are for; it is not changed, and may be on the meta device.
        interpolation: bicubic, or bilinear as in the paper.
        transfer: the model has another task. A head of other classes stays fresh; a head, a last norm or last
            stages that the model has been cut of are dropped.

    Returns:
        The fitted values, and what became of each.

    Raises:
        WeightsError: no weights, values that are not finite, or an architecture that is not the model's.
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
    problems = fit.refused + fit.misfits
    if problems:
        key, message = problems[0]
        more = f"; {len(problems) - 1} more do not fit either" if len(problems) > 1 else ""
        raise WeightsError(f"{message}{more}", key)
    return {key: fit.values[key] for key in expected_shapes(model)}, fit.report


def fit_named(
    named: NamedWeights,
    model: "FocalTransformer",
    interpolation: str,
    fresh: Mapping[str, str] | None = None,
) -> Fit:
    """Resize what can be resized, and list what does not fit.

    Args:
        named: the checkpoint.
        model: what it is for.
        interpolation: bicubic or bilinear.
        fresh: parameters to be left as initialised, and why.
    """
    expected = expected_shapes(model)
    fit = Fit(dict(named.values), FitReport(named.origin, buffers=named.buffers))
    fit.report.dropped += [Change(key, None, None, "not part of the backbone") for key in named.outside]
    own = _tensors(model)
    touched = set(fresh or {})
    fit.values |= {key: own[key].detach() for key in touched}
    fit.report.fresh += [Change(key, None, expected[key], why) for key, why in (fresh or {}).items()]
    for prefix, rebuilt in _rebuild_stages(fit.values, model, interpolation):
        for key in [key for key in fit.values if key.startswith(prefix) and is_positional(key)]:
            del fit.values[key]
        fit.values |= {prefix + key: value for key, value in rebuilt.values.items()}
        fit.values |= {prefix + key: own[prefix + key].detach() for key in rebuilt.fresh}
        touched |= {prefix + key for key in rebuilt.interpolated} | {prefix + key for key in rebuilt.fresh}
        fit.report.add(prefix, rebuilt, _below(expected, prefix))
        fit.refused += [(prefix + key, why) for key, why in rebuilt.refused.items()]
    for key in expected:  # a file may list its tensors in any order
        if key in named.folded and key in fit.values:
            before, why = named.folded[key]
            fit.report.folded.append(Change(key, before, tuple(named.values[key].shape), why))
    _compare(fit, named, expected, touched)
    return fit


def forgive_task(fit: Fit, model: "FocalTransformer") -> None:
    """Take back the misfits that only say that the model has another task than the checkpoint."""
    own = _tensors(model)
    expected = expected_shapes(model)
    stages = len(model.layers)
    cut = [f"layers.{i}." for i in range(stages, len(model.stages_config))]
    cut += ["norm."] if isinstance(model.norm, nn.Identity) else []
    kept = []
    for key, message in fit.misfits:
        found = fit.values.get(key)
        shape = None if found is None else tuple(found.shape)
        if key.startswith("head.fc.") and key in expected:
            if shape is not None and shape[1:] != expected[key][1:]:
                kept.append((key, message))  # another width, not other classes
                continue
            why = "the checkpoint has no head" if shape is None else f"its head has {shape[0]} classes"
            fit.report.fresh.append(Change(key, shape, expected[key], why))
            fit.values[key] = own[key].detach()
        elif key.startswith(("head.fc.", *cut)):
            fit.report.dropped.append(Change(key, shape, None, "the model ends before it"))
            del fit.values[key]
        else:
            kept.append((key, message))
    fit.misfits = kept
    heads = [change for change in fit.report.mapped if change.key.startswith("head.fc.")]
    if heads and any(change.key.startswith("head.fc.") for change in fit.report.fresh):
        # a classifier's weight without its bias, or the reverse, is worth nothing
        for change in heads:
            fit.report.mapped.remove(change)
            fit.report.fresh.append(change._replace(why="the rest of the head does not fit"))
            fit.values[change.key] = own[change.key].detach()


def check_finite(named: NamedWeights) -> None:
    """Refuse NaN and infinities.

    Raises:
        WeightsError: the first key that holds some.
    """
    for key, value in named.values.items():
        if not value.is_floating_point() or value.is_meta:
            continue
        # one pass over the values: a sum that is finite has finite terms; one that is not may have overflowed
        if not value.sum(dtype=torch.promote_types(value.dtype, torch.float32)).isfinite():
            count = int((~value.isfinite()).sum())
            if count:
                raise WeightsError(
                    f"{count} of its {value.numel()} values are NaN or infinite", named.sources.get(key, key)
                )


def expected_shapes(model: nn.Module) -> dict[str, Shape]:
    """Shapes of all that a state dict of the model holds, in its order."""
    return {key: tuple(value.shape) for key, value in _tensors(model).items()}


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = model.state_dict(keep_vars=True)
    return tensors


def _rebuild_stages(
    values: Mapping[str, Tensor], model: "FocalTransformer", interpolation: str
) -> Iterator[tuple[str, Rebuilt]]:
    """Every attention that the checkpoint knows, with the prefix of its keys."""
    expected = expected_shapes(model)
    for i, stage in enumerate(model.stages_config[: len(model.layers)]):
        prefixes = [f"layers.{i}.blocks.{j}.attn." for j in range(stage.depth)]
        given = [_below(values, prefix) for prefix in prefixes]
        found = {key for block in given for key in block}
        tables = sum(key.startswith((f"{PER_QUERY}.", f"{PER_WINDOW}.")) for key in found)
        # with as many levels as the model they are the model's; with more they may be those it switched off
        levels = list(range(len(stage.levels)))
        if tables > len(levels):
            levels = level_numbers(stage, model.options)
        for prefix, block in zip(prefixes, given, strict=True):
            yield (
                prefix,
                rebuild_attention(
                    block,
                    _below(expected, prefix),
                    stage,
                    interpolation,
                    levels=levels,
                    found=found,
                ),
            )


def _below(entries: Mapping[str, T], prefix: str) -> dict[str, T]:
    """The positional entries of one attention."""
    return {
        key.removeprefix(prefix): entry
        for key, entry in entries.items()
        if key.startswith(prefix) and is_positional(key)
    }


def _compare(fit: Fit, named: NamedWeights, expected: Mapping[str, Shape], touched: set[str]) -> None:
    """Sort everything that was not resized into mapped and misfits: shapes, then missing, then surplus."""
    missing = []
    for key, shape in expected.items():
        value = fit.values.get(key)
        if value is None:
            missing.append((key, f"is missing; the model needs it in shape {shape}"))
        elif tuple(value.shape) != shape:
            if key not in dict(fit.refused):
                fit.misfits.append((key, f"shape {tuple(value.shape)} is not the model's {shape}"))
        elif key not in touched and key not in named.folded:
            fit.report.mapped.append(Change(key, shape, shape, named.sources.get(key, key)))
    fit.misfits += missing
    for key, value in fit.values.items():
        if key not in expected:
            name = named.sources.get(key, key)
            fit.misfits.append(
                (key, f"is no parameter of the model (shape {tuple(value.shape)}, from {name})")
            )
