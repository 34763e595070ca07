"""Focal self-attention (Yang et al. 2021, section 3.2): fine keys nearby, pooled keys far away.

Shape suffixes: B batch, H W map height and width, C channels, N heads, D channels per head, P windows per
map, Q queries per window (s_p * s_p), K keys per window over all levels, G = B * P * N.
"""

import math
from collections.abc import Callable, Sequence
from typing import cast

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from focal_lab.backbones import geometry
from focal_lab.backbones import masks as visibility
from focal_lab.backbones.attention.fused import attend
from focal_lab.backbones.attention.key_maps import Layout
from focal_lab.backbones.attention.pooling import make_pooling
from focal_lab.backbones.attention.reference import attend_reference
from focal_lab.backbones.cpu.dispatch import in_graph, is_plain
from focal_lab.backbones.geometry import WindowGrid
from focal_lab.backbones.options import StageConfig


class FocalAttention(nn.Module):
    """One softmax over the window's region of fine tokens and, per coarse level, a region of pooled ones.

    Parameters are named as in timm's Swin where they mean the same, so that a focal backbone without focal
    levels takes Swin's weights as they are.

    Args:
        stage: what the stage computes.
        border: wrap or mask.
        pool: fc, mean, max or conv.
        pool_init: released or mean, where fc pooling begins.
        coarse_bias: query or window, whether each query has its own bias for a pooled token.
        attention: fast or reference: the same function, computed quickly or obviously.
    """

    def __init__(
        self,
        stage: StageConfig,
        *,
        border: str = "wrap",
        pool: str = "fc",
        pool_init: str = "released",
        coarse_bias: str = "query",
        attention: str = "fast",
        qkv_bias: bool = True,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
    ) -> None:
        super().__init__()
        self.stage, self.border, self.attention, self.attn_drop = stage, border, attention, attn_drop
        self.num_heads = stage.num_heads
        self.scale = (stage.dim // stage.num_heads) ** -0.5
        height, width = stage.window
        queries, ring = height * width, stage.fine_keys - height * width
        self.qkv = nn.Linear(stage.dim, 3 * stage.dim, bias=qkv_bias)
        self.proj = nn.Linear(stage.dim, stage.dim)
        self.proj_drop = nn.Dropout(proj_drop)
        self.relative_position_bias_table = nn.Parameter(
            torch.empty((2 * height - 1) * (2 * width - 1), self.num_heads)
        )
        self.ring_bias = nn.Parameter(torch.empty(self.num_heads, queries, ring)) if ring else None
        self.bias_per_window = coarse_bias == "window"
        tables = nn.ParameterList(
            torch.empty(self.num_heads, geometry.coarse_table_size(stage.window, level, self.bias_per_window))
            for level in stage.levels
        )
        # two names: the tables of one kind must not be taken for the other's when their sizes agree
        self.coarse_bias_tables = nn.ParameterList() if self.bias_per_window else tables
        self.window_bias_tables = tables if self.bias_per_window else nn.ParameterList()
        self.pools = nn.ModuleList(
            make_pooling(pool, stage.dim, level.pool_size, pool_init) for level in stage.levels
        )
        self.bias_index: Tensor
        self.hidden_keys: Tensor | None
        self.init_non_persistent_buffers()
        self._masks: dict[tuple[WindowGrid, torch.device, str], Tensor | None] = {}
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Position biases are drawn like the released code's: truncated normal of 0.02."""
        for table in self.position_biases():
            nn.init.trunc_normal_(table, std=0.02)

    def init_non_persistent_buffers(self) -> None:
        """Indices that follow from the stage; timm calls this after a model has left the meta device."""
        device = self.relative_position_bias_table.device
        index = geometry.bias_index(self.stage, self.bias_per_window)
        self.register_buffer("bias_index", torch.as_tensor(index, device=device).flatten(), persistent=False)
        hidden = geometry.hidden_keys(self.stage)
        kept = torch.as_tensor(hidden, device=device) if hidden.any() else None
        self.register_buffer("hidden_keys", kept, persistent=False)

    def position_biases(self) -> list[nn.Parameter]:
        """The learned position biases, fine to coarse."""
        ring = [] if self.ring_bias is None else [self.ring_bias]
        return [
            self.relative_position_bias_table,
            *ring,
            # torch 2.11's Dynamo cannot unpack a ParameterList within a list
            *list(self.coarse_bias_tables),
            *list(self.window_bias_tables),
        ]

    def forward(self, x_BHWC: Tensor, shifted: bool = False, valid_B2: Tensor | None = None) -> Tensor:
        """Attend within a normalised map.

        Args:
            x_BHWC: feature map of any size.
            shifted: whether this block's windows are shifted (by the stage's shift).
            valid_B2: height and width in tokens of what each picture fills of the map; None for all. Needs
                border="mask".

        Returns:
            Map of the same shape.
        """
        height, width = x_BHWC.shape[1:3]
        grid = geometry.lay_windows(
            self.stage, (height, width), shifted, self.border, padded=valid_B2 is not None
        )
        if valid_B2 is not None:
            x_BHWC = x_BHWC.where(visibility.inside_picture(height, width, valid_B2), 0.0)
        canvas_BHWC = geometry.to_canvas(x_BHWC, grid)
        inside = self._inside(grid, x_BHWC.device, valid_B2)
        pooled = []
        for level, pool in zip(grid.levels, self.pools, strict=True):
            cells_BHWC = geometry.fit_cells(canvas_BHWC, grid, level)
            inside_cells = None if inside is None else geometry.fit_cells(inside, grid, level)
            pooled.append(pool(cells_BHWC, inside_cells))
        qkv_BHWC, coarse = project(canvas_BHWC, pooled, self.qkv)
        allowed = self._allowed(grid, x_BHWC.device, valid_B2)
        layout = Layout(grid, self.num_heads, self.scale)
        dropout = self.attn_drop if self.training else 0.0
        chosen = attend_reference if self.attention == "reference" else attend
        out_BHWC = chosen(qkv_BHWC, coarse, self.bias(), allowed, layout, dropout)
        out_BHWC = self.proj(geometry.from_canvas(out_BHWC, grid))
        dropped: Tensor = self.proj_drop(out_BHWC)
        return dropped

    def bias(self) -> Tensor:
        """Learned position biases of all levels, shape (N, Q, K), in the order of the keys."""
        own_NT, *others = self.position_biases()
        tables_NT = torch.cat([own_NT.t(), *(table.flatten(1) for table in others)], 1)
        # indexing with [...] would take four times as long in backward
        bias_NQK = tables_NT.index_select(1, self.bias_index).view(self.num_heads, -1, self.stage.keys)
        if self.hidden_keys is not None:
            bias_NQK = bias_NQK.masked_fill(self.hidden_keys, float("-inf"))
        return bias_NQK

    def _inside(
        self, grid: WindowGrid, device: torch.device, valid_B2: Tensor | None = None
    ) -> Tensor | None:
        """(B, H, W, 1) canvas mask for the pooling; None where padding counts like any token."""
        if valid_B2 is not None:
            return visibility.inside_map(grid, device, valid_B2)[..., None]
        if not grid.masked or len(grid.levels) == 0 or grid.canvas == grid.map_size:
            return None
        return self._kept("inside", grid, device, lambda: visibility.inside_map(grid, device)[..., None])

    def _allowed(
        self, grid: WindowGrid, device: torch.device, valid_B2: Tensor | None = None
    ) -> Tensor | None:
        if valid_B2 is not None:
            return visibility.allowed_keys(grid, device, valid_B2)
        return self._kept("allowed", grid, device, lambda: visibility.allowed_keys(grid, device))

    def _kept(
        self, name: str, grid: WindowGrid, device: torch.device, make: Callable[[], Tensor | None]
    ) -> Tensor | None:
        """A mask, made once a map size and kept; in a traced graph it is part of the graph."""
        if in_graph():
            return make()
        key = (grid, device, name)
        if key not in self._masks:
            with torch.inference_mode(False):  # an inference tensor could never serve a training step
                made = make()
            if made is not None and type(made) is not Tensor:
                return made  # a fake tensor must not outlive the trace that made it
            if made is not None and device.type == "cuda" and torch.cuda.is_current_stream_capturing():
                return made  # it holds nothing before the graph's first replay
            if len(self._masks) >= 64:
                self._masks.clear()
            self._masks[key] = made
        return self._masks[key]

    def __prepare_scriptable__(self) -> None:
        """What torch.jit.script asks first: it cannot compile this module, so say why and what can be done.

        Raises:
            RuntimeError: always.
        """
        raise RuntimeError(
            "torch.jit.script does not take focal attention: its windows are laid out by Python objects that "
            "TorchScript, which torch has deprecated, cannot express; use torch.export or torch.jit.trace"
        )

    def extra_repr(self) -> str:
        """What the printed module shows."""
        return f"keys={self.stage.keys_per_window}, window={self.stage.window}, border={self.border}"


def project(x_BHWC: Tensor, pooled: Sequence[Tensor], layer: nn.Module) -> tuple[Tensor, list[Tensor]]:
    """q, k and v of a map's tokens, and k and v of the tokens pooled from it, by one linear layer.

    Args:
        x_BHWC: the canvas.
        pooled: (B, h, w, C) for each coarse level.
        layer: C to 3 C channels.

    Returns:
        q, k and v (B, H, W, 3 C) of the canvas, and k and v (B, h, w, 2 C) of each level.
    """
    dim, coarse = x_BHWC.shape[-1], []
    for x_BhwC in pooled:
        if is_plain(layer, nn.Linear):  # nobody asks for q of pooled tokens
            weight, bias = cast(nn.Linear, layer).weight, cast(nn.Linear, layer).bias
            coarse.append(F.linear(x_BhwC, weight[dim:], None if bias is None else bias[dim:]))
        else:
            coarse.append(layer(x_BhwC)[..., dim:])
    return layer(x_BHWC), coarse


def count_released_ring_keys(stage: StageConfig) -> int:
    """Ring keys that the released code stores for a square window: four rolled copies, some twice.

    It keeps one bias for each, so its parameter count exceeds ours: 132 for 120 at window 7 and expansion
    3, 300 for 204 at window 14.
    """
    queries = math.prod(stage.window)
    height, width = stage.window[0] - stage.expand[0], stage.window[1] - stage.expand[1]
    return 4 * (queries - height * width) if any(stage.expand) else 0
