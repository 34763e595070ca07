"""Focal self-attention (Yang et al. 2021, section 3.2): fine keys nearby, pooled keys far away.

Shape suffixes: B batch, H W map height and width, C channels, N heads, D channels per head, P windows per
map, Q queries per window (s_p * s_p), K keys per window over all levels, G = B * P * N.
"""

import math
from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from focal_lab.backbones import geometry
from focal_lab.backbones.attention_kernels import KeyMap, attend
from focal_lab.backbones.attention_reference import attend_reference
from focal_lab.backbones.geometry import WindowGrid
from focal_lab.backbones.options import StageConfig
from focal_lab.backbones.pooling import make_pooling

Method = TypeVar("Method", bound=Callable[..., Any])


def _outside_graphs(method: Method) -> Method:
    """Keep torch.compile out of numpy and caches: it can trace neither, and the result is a constant."""
    return cast(Method, torch.compiler.disable(method))


class FocalAttention(nn.Module):
    """One softmax over the window's region of fine tokens and, per coarse level, a region of pooled ones.

    Parameters are named as in timm's Swin where they mean the same, so that a focal backbone without focal
    levels takes Swin's weights as they are.

    Args:
        stage: what the stage computes.
        border: wrap or mask.
        pool: fc, mean, max or conv.
        attention: fast or reference: the same function, computed quickly or obviously.
    """

    def __init__(
        self,
        stage: StageConfig,
        *,
        border: str = "wrap",
        pool: str = "fc",
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
        self.coarse_bias_tables = nn.ParameterList(
            torch.empty(self.num_heads, (height + level.region[0] - 1) * (width + level.region[1] - 1))
            for level in stage.levels
        )
        self.pools = nn.ModuleList(make_pooling(pool, stage.dim, level.pool_size) for level in stage.levels)
        self._constants: dict[Any, Any] = {}
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Position biases are drawn like the released code's: truncated normal of 0.02."""
        for table in self.position_biases():
            nn.init.trunc_normal_(table, std=0.02)

    def position_biases(self) -> list[nn.Parameter]:
        """The learned position biases, fine to coarse."""
        ring = [] if self.ring_bias is None else [self.ring_bias]
        return [self.relative_position_bias_table, *ring, *self.coarse_bias_tables]

    def forward(self, x_BHWC: Tensor, shifted: bool = False) -> Tensor:
        """Attend within a normalised map.

        Args:
            x_BHWC: feature map of any size.
            shifted: whether this block's windows are shifted (by the stage's shift).

        Returns:
            Map of the same shape.
        """
        grid = geometry.lay_windows(self.stage, (x_BHWC.shape[1], x_BHWC.shape[2]), shifted, self.border)
        canvas_BHWC = geometry.to_canvas(x_BHWC, grid)
        qkv_BHWC = self.qkv(canvas_BHWC)
        dim = self.stage.dim
        q_BHWC = qkv_BHWC[..., :dim] * self.scale
        maps = [
            KeyMap(geometry.pad_fine(qkv_BHWC[..., dim:], grid), grid.windows, grid.window, grid.fine_region)
        ]
        inside = self._inside(grid, x_BHWC.device)
        for level, pool in zip(grid.levels, self.pools, strict=True):
            pooled_BHWC = pool(
                geometry.pooled_view(canvas_BHWC, grid, level), self._pooled_inside(grid, level, inside)
            )
            maps.append(
                KeyMap(
                    geometry.pad_coarse(self._project_keys(pooled_BHWC), level),
                    grid.windows,
                    level.cells,
                    level.region,
                )
            )
        allowed = self._allowed(grid, x_BHWC.device)
        if self.attention == "reference":
            out_BHWC = attend_reference(q_BHWC, maps, self.bias(), allowed, grid.window)
        else:
            dropout = self.attn_drop if self.training else 0.0
            out_BHWC = attend(q_BHWC, maps, self.bias(), allowed, grid.window, dropout)
        out_BHWC = self.proj(geometry.from_canvas(out_BHWC, grid))
        dropped: Tensor = self.proj_drop(out_BHWC)
        return dropped

    def bias(self) -> Tensor:
        """Learned position biases of all levels, shape (N, Q, K), in the order of the keys."""
        window, expand = self.stage.window, self.stage.expand
        device = self.relative_position_bias_table.device
        own = self._constant("own", device, lambda: geometry.own_position_index(window))
        own_NQQ = self.relative_position_bias_table[own.flatten()].view(*own.shape, -1).permute(2, 0, 1)
        parts = [own_NQQ]
        if self.ring_bias is not None:
            order = self._constant("order", device, lambda: geometry.fine_order(window, expand))
            parts = [torch.cat((own_NQQ, self.ring_bias), 2)[:, :, order]]
        for k, (level, table) in enumerate(zip(self.stage.levels, self.coarse_bias_tables, strict=True)):
            region = level.region
            index = self._constant(
                ("coarse", k), device, lambda region=region: geometry.coarse_position_index(window, region)
            )
            parts.append(table[:, index.flatten()].view(-1, *index.shape))
        return torch.cat(parts, 2)

    def _project_keys(self, x_BHWC: Tensor) -> Tensor:
        """k and v of pooled tokens; nobody asks for their q."""
        dim = self.stage.dim
        bias = None if self.qkv.bias is None else self.qkv.bias[dim:]
        return nn.functional.linear(x_BHWC, self.qkv.weight[dim:], bias)

    @_outside_graphs
    def _inside(self, grid: WindowGrid, device: torch.device) -> Tensor | None:
        """(1, H, W, 1) canvas mask for the pooling; None where padding counts like any token."""
        if not grid.masked or not grid.levels or grid.canvas == grid.map_size:
            return None
        return self._constant((grid, "inside"), device, lambda: geometry.inside_map(grid)[None, ..., None])

    def _pooled_inside(self, grid: WindowGrid, level: Any, inside: Tensor | None) -> Tensor | None:
        return None if inside is None else geometry.pooled_view(inside, grid, level)

    @_outside_graphs
    def _allowed(self, grid: WindowGrid, device: torch.device) -> Tensor | None:
        if geometry.allowed_keys(grid) is None:
            return None
        return self._constant((grid, "allowed"), device, lambda: geometry.allowed_keys(grid))

    @_outside_graphs
    def _constant(self, key: Any, device: torch.device, make: Any) -> Tensor:
        """A mask or index on the device, made once a map size and kept."""
        constant: Tensor | None = self._constants.get((key, device))
        if constant is None:
            with torch.inference_mode(False):  # an inference tensor could never serve a training step
                constant = torch.as_tensor(make()).to(device)
            if type(constant) is Tensor:  # not a fake tensor of a trace, which must not outlive it
                if len(self._constants) >= 64:
                    self._constants.clear()
                self._constants[key, device] = constant
        return constant

    def extra_repr(self) -> str:
        """What the printed module shows."""
        return f"keys={self.stage.keys_per_window}, window={self.stage.window}, border={self.border}"


def count_released_ring_keys(stage: StageConfig) -> int:
    """Ring keys that the released code stores for a square window: four rolled copies, some twice.

    It keeps one bias for each, so its parameter count exceeds ours: 132 for 120 at window 7 and expansion
    3, 300 for 204 at window 14.
    """
    queries = math.prod(stage.window)
    height, width = stage.window[0] - stage.expand[0], stage.window[1] - stage.expand[1]
    return 4 * (queries - height * width) if any(stage.expand) else 0
