"""Interpolation of position biases and pooling weights to other windows, rings, regions and sub-windows.

Tables over relative positions are resampled like images, with `align_corners=False` and no antialiasing, as
by `torch.nn.functional.interpolate` and timm's `resize_rel_pos_bias_table_simple`. The paper resamples
bilinearly; timm's default is bicubic.

Shape suffixes: N heads, C channels, T positions of a table, Q queries of a window, R keys of its ring,
K keys of a region.
"""

import math

import torch
from torch import Tensor

from focal_lab.backbones import geometry
from focal_lab.backbones.options import Size

INTERPOLATIONS = ("bicubic", "bilinear")

_CUBIC = -0.75  # the cubic kernel's free parameter, as in torch and OpenCV


def resize_own_table(table_TN: Tensor, window: Size, new_window: Size, interpolation: str) -> Tensor:
    """Swin's table of (2 s_p - 1)^2 relative positions for another window, shape (T', N)."""
    if window == new_window:
        return table_TN
    side, new_side = ((2 * height - 1, 2 * width - 1) for height, width in (window, new_window))
    return resize_coarse_table(table_TN.t(), side, new_side, interpolation).t().contiguous()


def resize_coarse_table(table_NT: Tensor, side: Size, new_side: Size, interpolation: str) -> Tensor:
    """A coarse level's table of height and width `side`, resized to `new_side`; shape (N, T')."""
    if side == new_side:
        return table_NT
    return resize_image(table_NT.reshape(-1, *side), new_side, interpolation).flatten(1)


def average_over_queries(table_NT: Tensor, window: Size, region: Size) -> Tensor:
    """One bias per pooled token, the mean over the window's queries of a table with one for each; (N, K)."""
    index_QK = _index(geometry.position_index(window, region), table_NT)
    bias_NQK = _wide(table_NT)[:, index_QK]
    return bias_NQK.mean(1).to(table_NT.dtype)


def resize_ring(
    ring_NQR: Tensor,
    own_TN: Tensor,
    window: Size,
    expand: Size,
    new_window: Size,
    new_expand: Size,
    interpolation: str,
) -> Tensor:
    """The ring's biases for another window or expansion, shape (N, Q', R').

    The hole in the ring is filled with the window's own biases, so that each query has a bias for each key of
    the whole frame. Then the queries, an image of the window, and the keys, an image of the frame, are
    resampled, and the new ring is cut out. A key keeps its distance from the window, measured in windows. So
    a ring that only becomes narrower loses its outer keys and changes nothing else, one that only becomes
    wider repeats its outermost biases, and a ring that grows in proportion to the window (7 and 3 to 14 and
    6) is resampled like any other image.

    Args:
        ring_NQR: the ring's biases, keys row by row.
        own_TN: the table of the window's own biases.
        window: queries per direction.
        expand: tokens of the ring beyond the window.
        new_window: the new window.
        new_expand: the new expansion.
        interpolation: bicubic or bilinear.
    """
    if (window, expand) == (new_window, new_expand):
        return ring_NQR
    heads = ring_NQR.shape[0]
    frame = (window[0] + 2 * expand[0], window[1] + 2 * expand[1])
    in_ring = geometry.ring_positions(window, expand)
    ring, inside = _index(in_ring.nonzero()[0], ring_NQR), _index((~in_ring).nonzero()[0], ring_NQR)
    frame_NQK = _wide(ring_NQR).new_empty(heads, math.prod(window), math.prod(frame))
    frame_NQK[:, :, ring] = _wide(ring_NQR)
    frame_NQK[:, :, inside] = _wide(own_TN).t()[:, _index(geometry.position_index(window, window), ring_NQR)]
    frame_NQK = frame_NQK.view(heads, *window, *frame)  # query rows and columns, key rows and columns
    for axis in (0, 1):
        old, new = window[axis], new_window[axis]
        queries = _matrix(_centres(old, new), old, interpolation, frame_NQK)
        positions = torch.arange(-new_expand[axis], new + new_expand[axis], dtype=torch.float64)
        keys = (positions + 0.5) * (old / new) - 0.5 + expand[axis]
        frame_NQK = _apply(frame_NQK, queries, 1 + axis)
        frame_NQK = _apply(frame_NQK, _matrix(keys, frame[axis], interpolation, frame_NQK), 3 + axis)
    new_ring = _index(geometry.ring_positions(new_window, new_expand).nonzero()[0], ring_NQR)
    return frame_NQK.flatten(3).flatten(1, 2)[:, :, new_ring].to(ring_NQR.dtype)


def resize_pooling(weight: Tensor, size: Size, new_size: Size, interpolation: str) -> Tensor:
    """Mixing weights of another sub-window: `fc` (1, S) to (1, S'), or `conv` (C, 1, H, W) to (C, 1, H', W').

    The weights are scaled so that their sum, and with it the pooled token of a constant map, stays the same.
    """
    if size == new_size:
        return weight
    scaled = _wide(weight.reshape(-1, *size)) * (math.prod(size) / math.prod(new_size))
    resized = resize_image(scaled, new_size, interpolation).to(weight.dtype)
    return resized.flatten(1) if weight.ndim == 2 else resized[:, None]


def resize_image(image_NHW: Tensor, size: Size, interpolation: str) -> Tensor:
    """(N, H, W) to (N, *size), computed in float32 or better and returned in the input's dtype."""
    resized = _wide(image_NHW)
    for axis in (0, 1):
        old = image_NHW.shape[1 + axis]
        matrix = _matrix(_centres(old, size[axis]), old, interpolation, resized)
        resized = _apply(resized, matrix, 1 + axis)
    return resized.to(image_NHW.dtype)


def _centres(old: int, new: int) -> Tensor:
    """Centres of `new` pixels in the coordinates of `old` pixels; the edges of both images coincide."""
    return (torch.arange(new, dtype=torch.float64) + 0.5) * (old / new) - 0.5


def _matrix(centres: Tensor, old: int, interpolation: str, like: Tensor) -> Tensor:
    """(len(centres), old) weights that interpolate at `centres`; beyond the edge, the edge's value is used.

    Raises:
        ValueError: an unknown interpolation.
    """
    if interpolation not in INTERPOLATIONS:
        raise ValueError(f"interpolation: {interpolation!r} is unknown (use bicubic or bilinear)")
    below = centres.floor()
    offset = centres - below
    if interpolation == "bilinear":
        taps = {0: 1 - offset, 1: offset}
    else:
        taps = {-1: _far(offset + 1), 0: _near(offset), 1: _near(1 - offset), 2: _far(2 - offset)}
    matrix = torch.zeros(len(centres), old, dtype=torch.float64)
    for tap, weight in taps.items():
        matrix.scatter_add_(1, (below.long() + tap).clamp(0, old - 1)[:, None], weight[:, None])
    return matrix.to(like.device, like.dtype)


def _near(distance: Tensor) -> Tensor:
    """The cubic convolution kernel within a pixel of the centre (Keys 1981)."""
    return ((_CUBIC + 2) * distance - (_CUBIC + 3)) * distance**2 + 1


def _far(distance: Tensor) -> Tensor:
    """The kernel's negative lobe, one to two pixels away."""
    return ((_CUBIC * distance - 5 * _CUBIC) * distance + 8 * _CUBIC) * distance - 4 * _CUBIC


def _apply(x: Tensor, matrix: Tensor, dim: int) -> Tensor:
    applied: Tensor = torch.tensordot(x, matrix, dims=([dim], [1]))
    return applied.movedim(-1, dim)


def _index(index: geometry.Index, like: Tensor) -> Tensor:
    return torch.as_tensor(index, device=like.device)


def _wide(x: Tensor) -> Tensor:
    """At least float32: half precision would round every intermediate."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
