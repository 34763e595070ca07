"""Hook that lets `load_state_dict` of a focal backbone accept checkpoints of other formats and sizes."""

import warnings
from collections.abc import Mapping
from typing import Any

from focal_lab.backbones.protocol import FocalNetwork
from focal_lab.backbones.weights.fit import Fit, check_finite, expected_shapes, fit_named
from focal_lab.backbones.weights.formats import OWN, find_prefix, in_our_names, is_positional


def load_pre_hook(
    model: FocalNetwork,
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
    error_msgs.extend(f"{key}: {why}" for key, why in fit.refused)
    own = find_prefix(given)
    kept = {} if prefix else {key: value for key, value in given.items() if not key.startswith(own)}
    for key in given:
        del state_dict[prefix + key]
    state_dict.update({prefix + key: value for key, value in (kept | fit.values).items()})


def adapt(state_dict: Mapping[str, Any], model: FocalNetwork) -> Fit:
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
