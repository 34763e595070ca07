"""Focal attention the obvious way: window by window, every key looked up, every score kept.

The yardstick of `attention_kernels`: written to be read and believed, not to be fast.

Shape suffixes: B batch, H W map height and width, C channels, N heads, D channels per head, Q queries per
window, R keys of one level, K keys per window over all levels.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from focal_lab.backbones.attention.key_maps import KeyMap, Layout, split_levels


def attend_reference(
    qkv_BHWC: Tensor,
    coarse: Sequence[Tensor],
    bias_NQK: Tensor,
    allowed: Tensor | None,
    layout: Layout,
    dropout: float = 0.0,
) -> Tensor:
    """Same arguments and result as `attention_kernels.attend`; dropout draws other numbers."""
    heads, window = layout.heads, layout.grid.window
    q_BHWC, maps = split_levels(qkv_BHWC, coarse, layout)
    window_rows, window_columns = maps[0].windows
    rows = []
    for i in range(window_rows):
        row = []
        for j in range(window_columns):
            top, left = i * window[0], j * window[1]
            q_BNQD = _heads(q_BHWC[:, top : top + window[0], left : left + window[1]], heads)
            seen = [_region(level, i, j) for level in maps]
            k_BNKD = torch.cat([_heads(region.chunk(2, -1)[0], heads) for region in seen], 2)
            v_BNKD = torch.cat([_heads(region.chunk(2, -1)[1], heads) for region in seen], 2)
            scores_BNQK = q_BNQD @ k_BNKD.transpose(2, 3) + bias_NQK
            if allowed is not None:
                hidden_B1QK = ~allowed[:, None, i * window_columns + j]
                scores_BNQK = scores_BNQK.masked_fill(hidden_B1QK, float("-inf"))
            weights_BNQK = scores_BNQK.softmax(-1)
            if dropout:
                weights_BNQK = F.dropout(weights_BNQK, dropout)
            out_BNQD = weights_BNQK @ v_BNKD
            row.append(out_BNQD.transpose(1, 2).reshape(q_BHWC.shape[0], *window, q_BHWC.shape[-1]))
        rows.append(torch.cat(row, 2))
    return torch.cat(rows, 1)


def _region(level: KeyMap, i: int, j: int) -> Tensor:
    """The tokens of a level that window (i, j) sees: (B, region height, region width, 2 C)."""
    top, left = i * level.step[0], j * level.step[1]
    return level.kv_BHWC[:, top : top + level.region[0], left : left + level.region[1]]


def _heads(x_BHWC: Tensor, heads: int) -> Tensor:
    """(B, N, H * W, D)."""
    return torch.unflatten(x_BHWC.flatten(1, 2), -1, (heads, -1)).transpose(1, 2)
