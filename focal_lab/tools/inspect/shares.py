"""Attention shares of each level over many images, and what single queries attend to.

Shape suffixes: H W image or map, N heads, L levels.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from focal_lab.backbones.options import Size, StageConfig
from focal_lab.errors import UserError
from focal_lab.tools.inspect.probabilities import (
    Attended,
    AttentionBlock,
    SeenLevel,
    Shares,
    network_layers,
    watch_attention,
)
from focal_lab.tools.inspect.source import InspectedNetwork
from focal_lab.tools.trained.preprocessing import mean_of, std_of


class QueryView(NamedTuple):
    """What the query at `token` (row, column) of a block's map attends to; of the chosen heads."""

    layer: AttentionBlock
    token: Size
    levels: list[SeenLevel]


class DrawnImage(NamedTuple):
    """An image with the chosen blocks' views; `pixels_HW3` between 0 and 1, `query` as x and y."""

    name: str
    pixels_HW3: NDArray[np.float32]  # noqa: N815
    query: Size
    views: list[QueryView]


@dataclass(frozen=True)
class BlockShares:
    """How a block's attention is divided, averaged over images and queries.

    Attributes:
        keys: of a query, over all levels, hidden ones included.
        shares: level -> share of each head; over levels they sum to 1.
        off_image: part of it, averaged over heads, on padding.
    """

    layer: AttentionBlock
    keys: int
    shares: dict[str, list[float]]
    off_image: float

    def mean(self, level: str) -> float | None:
        """The share of a level, averaged over heads; None if the block has no such level."""
        heads = self.shares.get(level)
        return None if heads is None else sum(heads) / len(heads)


class Reach(NamedTuple):
    """Keys of a query in the levels up to one, and tokens that they stand for, also beyond the map."""

    level: str
    tokens: int
    field: int


@dataclass(frozen=True)
class Inspection:
    """Results for a network.

    Attributes:
        shares: one per block.
        drawn: images with what the query attends to.
        reach: one list per stage.
        count: images that the shares are averaged over.
        error: largest difference of the recomputed attention from the network's own, relative to the largest
            value of a block's output.
    """

    shares: list[BlockShares]
    drawn: list[DrawnImage]
    reach: list[list[Reach]]
    count: int
    error: float

    @property
    def levels(self) -> list[str]:
        """The levels that any block has, finest first."""
        names = {name for layer in self.shares for name in layer.shares}
        return sorted(names, key=lambda name: ({"window": 0, "ring": 1}.get(name, 2), name))


@dataclass
class _Collector:
    """Called after each block of a forward pass; collects shares, and views of the chosen blocks."""

    source: InspectedNetwork
    chosen: Sequence[AttentionBlock]
    head: int | None
    query: Size = (0, 0)
    views: list[QueryView] | None = None  # of the current image, None if it is not drawn
    shares: dict[int, list[Shares]] = field(default_factory=dict)
    keys: dict[int, int] = field(default_factory=dict)
    error: float = 0.0

    def __call__(self, layer: AttentionBlock, attended: Attended, error: float) -> None:
        if not isfinite(error):
            raise UserError(
                f"block {layer.number} outputs NaN or infinity; the run diverged, or the file is damaged",
                file=self.source.file,
            )
        self.error = max(self.error, error)
        self.shares.setdefault(layer.number, []).append(attended.shares())
        self.keys[layer.number] = attended.probabilities_BPNQK.shape[-1]
        if self.views is None or layer.number not in {chosen.number for chosen in self.chosen}:
            return
        (x, y), (height, width) = self.query, attended.grid.map_size
        # a map that was cut has no token for the last pixels: use the nearest
        row, column = min(y // layer.stride, height - 1), min(x // layer.stride, width - 1)
        levels = attended.at(0, row, column)
        if self.head is not None:
            heads = slice(self.head, self.head + 1)
            levels = [SeenLevel(seen.name, seen.probabilities_NK[heads], seen.areas_KHW) for seen in levels]
        self.views.append(QueryView(layer, (row, column), levels))

    def mean_shares(self, layer: AttentionBlock) -> BlockShares:
        """A block's shares averaged over images."""
        shares = self.shares[layer.number]
        mean_NL = sum(share.shares_BNL.double().sum(0) for share in shares) / len(shares)
        assert isinstance(mean_NL, Tensor)
        off = sum(float(share.off_image_BN.mean(1).sum()) for share in shares) / len(shares)
        levels = dict(zip(shares[0].levels, mean_NL.t().tolist(), strict=True))
        return BlockShares(layer, self.keys[layer.number], levels, off)


def choose_layers(network: Any, wanted: Sequence[int] | None, head: int | None) -> list[AttentionBlock]:
    """The blocks to draw: those wanted, else the last one of each stage.

    Raises:
        UserError: the network has no such block, or one of them has no such head.
    """
    layers = network_layers(network)
    last = {layer.stage: layer.number for layer in layers}
    chosen = list(dict.fromkeys(last.values() if wanted is None else wanted))
    for number in chosen:
        if not 0 <= number < len(layers):
            raise UserError(
                f"there is no block {number}; the network has {len(layers)} (use 0 to {len(layers) - 1})",
                key="--block",
            )
        heads = layers[number].attention.num_heads
        if head is not None and not 0 <= head < heads:
            raise UserError(
                f"block {number} has no head {head}; it has {heads} (use 0 to {heads - 1}, or --block)",
                key="--head",
            )
    return [layers[number] for number in chosen]


def inspect_network(
    source: InspectedNetwork,
    images: Sequence[tuple[str, Tensor]],
    layers: Sequence[AttentionBlock],
    *,
    draw: int,
    query: Size | None = None,
    head: int | None = None,
) -> Inspection:
    """Run the network on images and collect what its attention does.

    Args:
        source: the network.
        images: a name and a normalised (C, H, W) each.
        layers: the blocks to draw.
        draw: number of images to draw, from the first.
        query: x and y of a pixel of the images as the backbone gets them; None for the centre.
        head: None for the average of all.

    Raises:
        UserError: the query is outside an image that is drawn, or the network computes NaN.
    """
    framed = []
    for i, (name, image) in enumerate(images):
        frame_BCHW, valid_B2 = source.frame(image)
        height, width = frame_BCHW.shape[2:] if valid_B2 is None else valid_B2[0].tolist()
        if query and i < draw and not (0 <= query[0] < width and 0 <= query[1] < height):
            raise UserError(
                f"{query[0]},{query[1]} is outside the image {name}, which is {width} x {height} px as the "
                f"network gets it (use 0,0 to {width - 1},{height - 1})",
                key="--query",
            )
        framed.append((name, frame_BCHW, valid_B2, height, width))
    collector = _Collector(source, layers, head)
    drawn = []
    for i, (name, frame_BCHW, valid_B2, height, width) in enumerate(framed):
        collector.query = query or (width // 2, height // 2)
        collector.views = [] if i < draw else None
        with torch.inference_mode(), watch_attention(source.network, collector):
            source.network.forward_features(frame_BCHW, valid_B2)
        if collector.views is not None:
            order = [layer.number for layer in layers]
            views = sorted(collector.views, key=lambda view: order.index(view.layer.number))
            pixels = _pixels(frame_BCHW[0, :, :height, :width], source)
            drawn.append(DrawnImage(name, pixels, collector.query, views))
    shares = [collector.mean_shares(layer) for layer in network_layers(source.network)]
    reach = [reach_of(stage) for stage in source.network.stages_config]
    return Inspection(shares, drawn, reach, len(images), collector.error)


def reach_of(stage: StageConfig) -> list[Reach]:
    """The receptive field of a stage's levels against the tokens that they use."""
    height, width = stage.window
    found = [Reach("window", height * width, height * width)]
    if any(stage.expand):
        height, width = height + 2 * stage.expand[0], width + 2 * stage.expand[1]
        found.append(Reach("ring", height * width, height * width))
    for number, level in enumerate(stage.levels, 1):
        height = max(height, level.region[0] * level.pool_size[0])
        width = max(width, level.region[1] * level.pool_size[1])
        tokens = found[-1].tokens + level.keys - len(level.hidden)
        found.append(Reach(f"pooled {number}", tokens, height * width))
    return found


def _pixels(image_CHW: Tensor, source: InspectedNetwork) -> NDArray[np.float32]:
    """The image before it was normalised, as RGB."""
    mean, std = (torch.tensor(of(source.data)).view(-1, 1, 1) for of in (mean_of, std_of))
    image_CHW = (image_CHW.float() * std + mean).clamp(0, 1)
    image_3HW = image_CHW[:3] if len(image_CHW) >= 3 else image_CHW[:1].expand(3, -1, -1)
    found: NDArray[np.float32] = image_3HW.permute(1, 2, 0).numpy()
    return found
