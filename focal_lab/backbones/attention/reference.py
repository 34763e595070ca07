"""Reference focal attention: window by window, every key looked up, every score materialised.

Slow and easy to verify; tests compare `fused` with it.

Shape suffixes: B batch, H W map height and width, C channels, N heads, D channels per head, Q queries per
window, K keys per window over all levels.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from focal_lab.backbones.attention.key_maps import AttentionLayout, split_levels


def attend_reference(
    qkv_BHWC: Tensor,
    coarse: Sequence[Tensor],
    bias_NQK: Tensor,
    allowed: Tensor | None,
    layout: AttentionLayout,
    dropout: float = 0.0,
) -> Tensor:
    """Same arguments and result as `fused.attend`; dropout draws other random numbers."""
    heads, window = layout.heads, layout.grid.window
    q_BHWC, maps = split_levels(qkv_BHWC, coarse, layout)
    window_rows, window_columns = layout.grid.windows
    rows = []
    for i in range(window_rows):
        row = []
        for j in range(window_columns):
            top, left = i * window[0], j * window[1]
            q_BNQD = _split_heads(q_BHWC[:, top : top + window[0], left : left + window[1]], heads)
            keys, values = [], []
            for level in maps:
                top, left = i * level.step[0], j * level.step[1]
                region = level.kv_BHWC[:, top : top + level.region[0], left : left + level.region[1]]
                k_BHWC, v_BHWC = region.chunk(2, -1)
                keys.append(_split_heads(k_BHWC, heads))
                values.append(_split_heads(v_BHWC, heads))
            k_BNKD, v_BNKD = torch.cat(keys, 2), torch.cat(values, 2)
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


def _split_heads(x_BHWC: Tensor, heads: int) -> Tensor:
    """(B, N, H * W, D)."""
    return torch.unflatten(x_BHWC.flatten(1, 2), -1, (heads, -1)).transpose(1, 2)
