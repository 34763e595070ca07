"""Focal self-attention (Yang et al. 2021, section 3.2): fine keys nearby, pooled keys far away.

Shape suffixes: B batch, H W map height and width, C channels, N heads, P windows per map, Q queries per
window (s_p * s_p), K keys per window over all levels, T entries of the bias tables.
"""

import math
from collections.abc import Callable
from typing import cast

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from focal_lab.backbones import geometry, masks
from focal_lab.backbones.attention.fused import attend
from focal_lab.backbones.attention.key_maps import AttentionLayout
from focal_lab.backbones.attention.pooling import make_pooling
from focal_lab.backbones.attention.reference import attend_reference
from focal_lab.backbones.cpu.dispatch import in_graph, is_plain
from focal_lab.backbones.geometry import WindowGrid
from focal_lab.backbones.options import FocalOptions, StageConfig


class FocalAttention(nn.Module):
    """One softmax over a window's region of fine tokens and, per coarse level, a region of pooled tokens.

    Parameters that exist in timm's Swin have the same names, so Swin's weights load into a focal backbone
    without focal levels.

    Args:
        stage: what the stage computes.
        options: of the network.
        attn_drop: dropout of attention weights.
        proj_drop: dropout of the output.
    """

    def __init__(
        self, stage: StageConfig, options: FocalOptions, *, attn_drop: float = 0.0, proj_drop: float = 0.0
    ) -> None:
        super().__init__()
        self.stage, self.attn_drop = stage, attn_drop
        self.border, self.attention = options.border, options.attention
        self.num_heads = stage.num_heads
        self.scale = (stage.dim // stage.num_heads) ** -0.5
        queries = math.prod(stage.window)
        ring = stage.fine_keys - queries
        self.qkv = nn.Linear(stage.dim, 3 * stage.dim, bias=options.qkv_bias)
        self.proj = nn.Linear(stage.dim, stage.dim)
        self.proj_drop = nn.Dropout(proj_drop)
        positions = math.prod(geometry.table_side(stage.window, stage.window))
        self.relative_position_bias_table = nn.Parameter(torch.empty(positions, self.num_heads))
        self.ring_bias = nn.Parameter(torch.empty(self.num_heads, queries, ring)) if ring else None
        self.bias_per_window = options.coarse_bias == "window"
        tables = nn.ParameterList(
            torch.empty(self.num_heads, geometry.coarse_table_size(stage.window, level, self.bias_per_window))
            for level in stage.levels
        )
        # two names, so that a checkpoint's tables of one kind never load as the other when the sizes agree
        self.coarse_bias_tables = nn.ParameterList() if self.bias_per_window else tables
        self.window_bias_tables = tables if self.bias_per_window else nn.ParameterList()
        self.pools = nn.ModuleList(
            make_pooling(options, stage.dim, level.pool_size) for level in stage.levels
        )
        self.bias_index: Tensor
        self.hidden_keys: Tensor | None
        self.init_non_persistent_buffers()
        self._masks: dict[tuple[WindowGrid, torch.device, str], Tensor | None] = {}
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the position biases as the released code does: truncated normal, std 0.02."""
        for table in self.position_biases():
            nn.init.trunc_normal_(table, std=0.02)

    def init_non_persistent_buffers(self) -> None:
        """Compute the index buffers; timm calls this after a model has left the meta device."""
        device = self.relative_position_bias_table.device
        index = geometry.bias_index(self.stage, self.bias_per_window)
        self.register_buffer("bias_index", torch.as_tensor(index, device=device).flatten(), persistent=False)
        hidden = geometry.hidden_keys(self.stage)
        kept = torch.as_tensor(hidden, device=device) if hidden.any() else None
        self.register_buffer("hidden_keys", kept, persistent=False)

    def position_biases(self) -> list[nn.Parameter]:
        """The learned position biases, fine to coarse."""
        ring = [] if self.ring_bias is None else [self.ring_bias]
        # torch 2.11's Dynamo cannot unpack a ParameterList within a list
        coarse = list(self.coarse_bias_tables) + list(self.window_bias_tables)
        return [self.relative_position_bias_table, *ring, *coarse]

    def forward(self, x_BHWC: Tensor, shifted: bool = False, valid_B2: Tensor | None = None) -> Tensor:
        """Attend within a normalised map.

        Args:
            x_BHWC: feature map of any size.
            shifted: whether this block's windows are shifted (by the stage's shift).
            valid_B2: height and width of each image in tokens; None if images fill the map. Needs
                border="mask".

        Returns:
            Map of the same shape.
        """
        qkv_BHWC, coarse, bias_NQK, allowed, layout = self.project(x_BHWC, shifted, valid_B2)
        dropout = self.attn_drop if self.training else 0.0
        implementation = attend_reference if self.attention == "reference" else attend
        out_BHWC = implementation(qkv_BHWC, coarse, bias_NQK, allowed, layout, dropout)
        dropped: Tensor = self.proj_drop(self.proj(geometry.from_canvas(out_BHWC, layout.grid)))
        return dropped

    def project(
        self, x_BHWC: Tensor, shifted: bool = False, valid_B2: Tensor | None = None
    ) -> tuple[Tensor, list[Tensor], Tensor, Tensor | None, AttentionLayout]:
        """The arguments of `attend`: q, k and v; k and v of the pooled tokens; biases; mask; layout."""
        size, device = (x_BHWC.shape[1], x_BHWC.shape[2]), x_BHWC.device
        grid = geometry.lay_windows(self.stage, size, shifted, self.border, padded=valid_B2 is not None)
        if valid_B2 is not None:
            x_BHWC = x_BHWC.where(masks.inside_image(*size, valid_B2), 0.0)
        canvas_BHWC = geometry.to_canvas(x_BHWC, grid)
        inside = None
        if valid_B2 is not None or (grid.masked and grid.levels and grid.canvas != grid.map_size):
            inside = self._mask(masks.inside_map, grid, device, valid_B2)
        coarse = []
        for level, pool in zip(grid.levels, self.pools, strict=True):
            cells_BHWC = geometry.fit_cells(canvas_BHWC, grid, level)
            inside_cells = None if inside is None else geometry.fit_cells(inside, grid, level)
            coarse.append(project_keys(pool(cells_BHWC, inside_cells), self.qkv))
        allowed = self._mask(masks.allowed_keys, grid, device, valid_B2)
        return (
            self.qkv(canvas_BHWC),
            coarse,
            self.bias(),
            allowed,
            AttentionLayout(grid, self.num_heads, self.scale),
        )

    def bias(self) -> Tensor:
        """Learned position biases of all levels, shape (N, Q, K), in the order of the keys."""
        own_NT, *others = self.position_biases()
        tables_NT = torch.cat([own_NT.t(), *(table.flatten(1) for table in others)], 1)
        # indexing with [...] would take four times as long in backward
        bias_NQK = tables_NT.index_select(1, self.bias_index).view(self.num_heads, -1, self.stage.keys)
        if self.hidden_keys is not None:
            bias_NQK = bias_NQK.masked_fill(self.hidden_keys, float("-inf"))
        return bias_NQK

    def _mask(
        self,
        make: Callable[[WindowGrid, torch.device, Tensor | None], Tensor | None],
        grid: WindowGrid,
        device: torch.device,
        valid_B2: Tensor | None,
    ) -> Tensor | None:
        """A mask, cached per map size unless it depends on the images; a traced graph contains its own."""
        if valid_B2 is not None or in_graph():
            return make(grid, device, valid_B2)
        key = (grid, device, make.__name__)
        if key not in self._masks:
            with torch.inference_mode(False):  # an inference tensor could never serve a training step
                mask = make(grid, device, None)
            if mask is not None and type(mask) is not Tensor:
                return mask  # a fake tensor must not outlive the trace that created it
            if mask is not None and device.type == "cuda" and torch.cuda.is_current_stream_capturing():
                return mask  # its memory is empty until the CUDA graph's first replay
            if len(self._masks) >= 64:
                self._masks.clear()
            self._masks[key] = mask
        return self._masks[key]

    def __prepare_scriptable__(self) -> None:
        """Refuse torch.jit.script, which cannot compile this module, with the reason and the alternative.

        Raises:
            RuntimeError: always.
        """
        raise RuntimeError(
            "torch.jit.script does not support focal attention: its windows are laid out by Python objects, "
            "which TorchScript (deprecated by torch) cannot express; use torch.export or torch.jit.trace"
        )

    def extra_repr(self) -> str:
        """What the printed module shows."""
        return f"keys={self.stage.keys_per_window}, window={self.stage.window}, border={self.border}"


def project_keys(pooled_BhwC: Tensor, layer: nn.Module) -> Tensor:
    """k and v (B, h, w, 2 C) of pooled tokens, by the layer that also projects q."""
    dim = pooled_BhwC.shape[-1]
    if not is_plain(layer, nn.Linear):
        all_Bhw3C: Tensor = layer(pooled_BhwC)
        return all_Bhw3C[..., dim:]
    weight, bias = cast(nn.Linear, layer).weight, cast(nn.Linear, layer).bias
    return F.linear(pooled_BhwC, weight[dim:], None if bias is None else bias[dim:])
