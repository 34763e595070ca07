"""Translate checkpoints of the released code and of timm's and Microsoft's Swin to our parameter names.

Shape suffixes: N heads, Q queries of a window, R keys of its ring.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from focal_lab.backbones import geometry

RELEASED, MICROSOFT_SWIN, TIMM_SWIN, OURS = "released code", "Microsoft Swin", "timm Swin", "focal-lab"

# keys under which training scripts save the weights; averaged ones first, as in timm
WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model")
ANCHOR = "patch_embed.proj.weight"
OWN, RING = "relative_position_bias_table", "ring_bias"
PER_QUERY, PER_WINDOW = "coarse_bias_tables", "window_bias_tables"

_POSITIONAL = re.compile(rf"({OWN}|{RING}|({PER_QUERY}|{PER_WINDOW})\.\d+|pools\.\d+\..+)$")
_LEVEL = re.compile(rf"({PER_QUERY}|{PER_WINDOW}|pools)\.(\d+)(\..+)?$")
_BUFFERS = ("relative_position_index", "valid_ind_", "attn_mask")
_RELEASED_MARKS = ("_to_neighbors", "_to_windows.", ".pool_layers.", "layers.0.downsample.proj.")

Shape = tuple[int, ...]


class WeightsError(ValueError):
    """Weights that cannot be used; the text is `key: message`."""

    def __init__(self, message: str, key: str | None = None) -> None:
        super().__init__(f"{key}: {message}" if key else message)
        self.message, self.key = message, key


@dataclass
class NamedWeights:
    """A state dict in our names.

    Attributes:
        origin: the format it was in.
        values: tensors by our names.
        sources: each tensor's original name, if different.
        folded: for values that replace several: the shape before, and the reason.
        buffers: tensors left out because they are computed, not learned.
        outside: keys that are not part of the backbone, such as a task's loss.
    """

    origin: str
    values: dict[str, Tensor] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    folded: dict[str, tuple[Shape, str]] = field(default_factory=dict)
    buffers: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)


def unwrap(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors of a checkpoint, which may be nested under `model`, `state_dict` or similar.

    Raises:
        WeightsError: there are none.
    """
    for name in WRAPPERS:
        inner = state.get(name)
        if isinstance(inner, Mapping) and inner:
            return unwrap(inner)
    tensors = {key: value for key, value in state.items() if isinstance(value, Tensor)}
    if not tensors:
        raise WeightsError("there are no weights in it")
    return tensors


def in_our_names(state: Mapping[str, Any]) -> NamedWeights:
    """Recognise the format of a state dict and translate it.

    A common prefix (`module.`, `model.`, `backbone.`) ends where the patch embedding's name begins.

    Raises:
        WeightsError: no weights, or ring biases of no ring that the released code could have had.
    """
    weights = unwrap(state)
    prefix = find_prefix(weights)
    named = NamedWeights(_origin([key.removeprefix(prefix) for key in weights if key.startswith(prefix)]))
    # both older formats downsample at the end of a stage, so the first stage has a downsampling
    at_the_end = any(key.startswith(f"{prefix}layers.0.downsample.") for key in weights)
    for full, value in weights.items():
        if not full.startswith(prefix):
            named.outside.append(full)
            continue
        key = full.removeprefix(prefix)
        if any(part.startswith(_BUFFERS) for part in key.split(".")):
            named.buffers.append(full)
            continue
        name = _our_name(key, value, weights, prefix, at_the_end)
        if key.endswith("_to_neighbors"):
            named.folded[name] = (tuple(value.shape), "doubled keys")
            try:
                value = fold_ring(value[0] if value.ndim == 4 else value)
            except ValueError as error:
                raise WeightsError(str(error), full) from error
        named.values[name] = value
        if name != full:
            named.sources[name] = full
    return named


def find_prefix(keys: Mapping[str, Any]) -> str:
    """The common prefix of the backbone's names; the shortest of several, empty if there is none."""
    if ANCHOR in keys:
        return ""
    prefixes = [key.removesuffix(ANCHOR) for key in keys if key.endswith(f".{ANCHOR}")]
    return min(prefixes, key=len, default="")


def fold_ring(bias_NQR: Tensor) -> Tensor:
    """Biases of a ring's distinct tokens from those of the released code's four rolled copies of the map.

    Some tokens are in two copies, each time with another bias. In a softmax two equal keys with biases b1 and
    b2 are exactly one key with bias log(exp b1 + exp b2). Computed in float64, returned in the input's dtype.

    Args:
        bias_NQR: for each query the copies' keys outside its window, 4 w^2 - 4 (w - e)^2 of them for window w
            and expansion e: copies rolled by (-e, -e), (-e, e), (e, -e) and (e, e), each row by row.

    Returns:
        Shape (N, w^2, (w + 2e)^2 - w^2), keys row by row.

    Raises:
        ValueError: no such window and expansion.
    """
    window, expand = _released_ring(tuple(bias_NQR.shape))
    ring = torch.as_tensor(geometry.ring_positions((window, window), (expand, expand)))
    position = (ring.cumsum(0) - 1).view(window + 2 * expand, -1)  # of each token of the region in the ring
    side = torch.arange(window)
    folded_NQR = bias_NQR.new_full((*bias_NQR.shape[:2], int(ring.sum())), -math.inf, dtype=torch.float64)
    first = 0
    for down, right in ((expand, expand), (expand, -expand), (-expand, expand), (-expand, -expand)):
        rows, columns = torch.meshgrid(side + down, side + right, indexing="ij")
        leaves = (rows < 0) | (rows >= window) | (columns < 0) | (columns >= window)
        cells = position[rows[leaves] + expand, columns[leaves] + expand].to(bias_NQR.device)
        copy_NQR = bias_NQR[:, :, first : first + len(cells)].double()
        folded_NQR[:, :, cells] = torch.logaddexp(folded_NQR[:, :, cells], copy_NQR)
        first += len(cells)
    return folded_NQR.to(bias_NQR.dtype)


def _released_ring(shape: tuple[int, ...]) -> tuple[int, int]:
    """(window, expansion) of the released code's ring biases (N, w^2, 4 w^2 - 4 (w - e)^2)."""
    error = f"shape {shape} is not a ring of the released code"
    if len(shape) != 3 or math.isqrt(shape[1]) ** 2 != shape[1] or shape[2] % 4:
        raise ValueError(f"{error}: (heads, w^2, 4 w^2 - 4 (w - e)^2) for window w and expansion e")
    window, rest = math.isqrt(shape[1]), shape[1] - shape[2] // 4
    if rest < 0 or math.isqrt(rest) ** 2 != rest or rest == shape[1]:
        raise ValueError(f"{error} of window {window}: 4 w^2 - 4 (w - e)^2 keys for expansion e")
    expand = window - math.isqrt(rest)
    if 2 * expand > window:
        raise ValueError(f"{error} that closes: its expansion {expand} exceeds half of the window {window}")
    return window, expand


def _origin(keys: list[str]) -> str:
    if any(mark in key for key in keys for mark in _RELEASED_MARKS):
        return RELEASED
    if any(key.startswith("layers.0.downsample.") for key in keys):
        return MICROSOFT_SWIN
    focal = any("ring_bias" in key or "coarse_bias" in key or "window_bias" in key for key in keys)
    merges = any(".downsample.reduction." in key for key in keys)
    return TIMM_SWIN if merges and not focal else OURS


def is_positional(key: str) -> bool:
    """Whether a parameter's shape depends on windows, regions or pool sizes."""
    _, attention, name = key.rpartition("attn.")
    return bool(attention) and _POSITIONAL.match(name) is not None


def level_of(key: str) -> int | None:
    """The coarse level that an attention's parameter belongs to, counted from 0."""
    match = _LEVEL.match(key)
    return int(match[2]) if match else None


def _our_name(key: str, value: Tensor, weights: Mapping[str, Tensor], prefix: str, at_the_end: bool) -> str:
    parts = key.split(".")
    if parts[0] == "head" and len(parts) == 2:
        return f"head.fc.{parts[1]}"
    if at_the_end and parts[0] == "layers" and parts[2:3] == ["downsample"]:
        return ".".join(["layers", str(int(parts[1]) + 1), *parts[2:]])
    if parts[-1] == "relative_position_bias_table_to_neighbors":
        return ".".join([*parts[:-1], "ring_bias"])
    if parts[-2:-1] == ["relative_position_bias_table_to_windows"]:
        return ".".join([*parts[:-2], "coarse_bias_tables", parts[-1]])
    if len(parts) == 7 and parts[4] == "pool_layers":
        weight = weights.get(f"{prefix}{'.'.join(parts[:6])}.weight", value)
        kind = "conv" if weight.ndim == 4 else "linear"
        return ".".join([*parts[:4], "attn", "pools", parts[5], kind, parts[6]])
    return key
