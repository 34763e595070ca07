"""What `load_state_dict` of a focal backbone takes beyond state dicts that fit as they are."""

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from focal_lab.backbones.weights.bias_tables import OWN, Shape, is_positional
from focal_lab.backbones.weights.fit import Fit, check_finite, expected_shapes, fit_named
from focal_lab.backbones.weights.formats import find_prefix, in_our_names

if TYPE_CHECKING:
    from focal_lab.backbones.model import FocalTransformer


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
    """Let `load_state_dict` take what `fit_weights` takes; torch itself refuses what still does not fit.

    Registered by the model. A state dict that fits is left alone, and so are keys that are missing: torch
    tells them.

    Raises:
        WeightsError: values that are not finite, or a ring that cannot be understood.
    """
    given = {key.removeprefix(prefix): state_dict[key] for key in state_dict if key.startswith(prefix)}
    expected = expected_shapes(model)
    fits = all(
        key in expected and getattr(value, "shape", None) == expected[key] for key, value in given.items()
    )
    if fits and not _lacks_positions(given, expected):
        return
    fit = adapt(given, model)
    error_msgs.extend(f"{key}: {why}" for key, why in fit.refused)
    kept = {} if prefix else {key: given[key] for key in _outside(given)}
    for key in given:
        del state_dict[prefix + key]
    state_dict.update({prefix + key: value for key, value in (kept | fit.values).items()})


def adapt(state_dict: Mapping[str, Any], model: "FocalTransformer") -> Fit:
    """What the model can use of a state dict, and a warning on what is not as in it; misfits stay in.

    Raises:
        WeightsError: no weights, values that are not finite, or a ring that cannot be understood.
    """
    named = in_our_names(state_dict)
    check_finite(named)
    named.outside.clear()  # not ours to drop: torch says what it does not expect
    fit = fit_named(named, model, "bicubic")
    told = fit.report.summary()
    if told:
        warnings.warn(f"weights ({fit.report.origin}): {told}", stacklevel=2)
    return fit


def _lacks_positions(given: Mapping[str, Any], expected: Mapping[str, Shape]) -> bool:
    """Whether an attention is there without all of its position biases."""
    return any(
        key not in given and f"{key[: key.rindex('attn.')]}attn.{OWN}" in given
        for key in expected
        if is_positional(key)
    )


def _outside(given: Mapping[str, Any]) -> list[str]:
    prefix = find_prefix(given)
    return [key for key in given if not key.startswith(prefix)]
