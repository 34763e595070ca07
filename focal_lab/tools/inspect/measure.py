"""What a network looks at: shares of each level over many pictures, and what single queries see.

Shape suffixes: H W picture or map, N heads, K keys.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from focal_lab.backbones.options import StageConfig
from focal_lab.errors import UserError
from focal_lab.tools.inspect.probabilities import Attended, Layer, network_layers, watch_attention
from focal_lab.tools.inspect.source import Source

Point = tuple[int, int]
Picture = NDArray[np.float32]


@dataclass(frozen=True)
class LevelView:
    """What one query sees of one level, averaged over heads or of one of them.

    Attributes:
        share: of all its attention.
        highest: attention to the key that gets most.
        heat_HW: for each token of the map the attention to the keys that stand for it.
        area_HW: the tokens that any visible key stands for.
    """

    name: str
    share: float
    highest: float
    heat_HW: NDArray[np.float32]  # noqa: N815
    area_HW: NDArray[np.bool_]  # noqa: N815


@dataclass(frozen=True)
class QueryView:
    """What one query of one block sees.

    Attributes:
        token: row and column of the query on the block's map.
    """

    layer: Layer
    token: Point
    levels: tuple[LevelView, ...]


@dataclass(frozen=True)
class SeenPicture:
    """A picture that is drawn.

    Attributes:
        pixels_HW3: as the backbone gets it, on a scale of 0 to 1.
        query: the chosen pixel, x and y.
        views: of the chosen blocks.
    """

    name: str
    pixels_HW3: Picture  # noqa: N815
    query: Point
    views: tuple[QueryView, ...]


@dataclass(frozen=True)
class LayerShares:
    """How the attention of a block is divided, averaged over pictures and queries.

    Attributes:
        keys: of a query, over all levels, hidden ones included.
        shares: level -> share of each head; over levels they sum to 1.
        off_picture: part of it, averaged over heads, that goes to padding.
    """

    layer: Layer
    keys: int
    shares: dict[str, list[float]]
    off_picture: float

    def mean(self, level: str) -> float | None:
        """The share of a level, averaged over heads; None where the block has no such level."""
        heads = self.shares.get(level)
        return None if heads is None else sum(heads) / len(heads)


@dataclass(frozen=True)
class Reach:
    """How far a stage sees with its levels up to one, before anything is cut to the map (figure 3).

    Attributes:
        tokens: keys that a query uses.
        field: tokens of the map that they stand for.
    """

    level: str
    tokens: int
    field: int


@dataclass(frozen=True)
class Inspection:
    """Everything that was found.

    Attributes:
        shares: one a block.
        drawn: pictures with what the query sees.
        reach: one list a stage.
        count: pictures over which shares were averaged.
        error: greatest difference of the recomputed attention from the network's own, relative to the
            largest value of a block's output.
    """

    shares: tuple[LayerShares, ...]
    drawn: tuple[SeenPicture, ...]
    reach: tuple[tuple[Reach, ...], ...]
    count: int
    error: float

    @property
    def levels(self) -> tuple[str, ...]:
        """The levels that any block has, finest first."""
        names = dict.fromkeys(name for layer in self.shares for name in layer.shares)
        return tuple(
            sorted(
                names,
                key=lambda name: (
                    (("window", "ring").index(name), "") if name in ("window", "ring") else (2, name)
                ),
            )
        )


def choose_layers(network: Any, wanted: Sequence[int] | None, head: int | None) -> list[Layer]:
    """The blocks to draw: those asked for, else the last one of each stage.

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
    source: Source,
    pictures: Sequence[tuple[str, Tensor]],
    layers: Sequence[Layer],
    *,
    draw: int,
    query: Point | None = None,
    head: int | None = None,
) -> Inspection:
    """Let the network look at pictures.

    Args:
        source: the network.
        pictures: normalised, (C, H, W), with a name each.
        layers: the blocks to draw.
        draw: how many of the pictures, the first ones, are drawn.
        query: pixel of the pictures as the backbone gets them; None for the centre.
        head: None for the average of all.

    Raises:
        UserError: the query is outside a picture that is drawn, or the network computes no numbers.
    """
    framed = [(name, *source.frame(picture)) for name, picture in pictures]
    sizes = [_filled(frame, valid) for _, frame, valid in framed]
    for (name, _, _), size in list(zip(framed, sizes, strict=True))[:draw]:
        _check_query(query, size, name)
    chosen = {layer.number for layer in layers}
    totals: dict[int, _Total] = {}
    drawn = []
    error = 0.0
    for index, ((name, frame_BCHW, valid_B2), size) in enumerate(zip(framed, sizes, strict=True)):
        point = query or (size[1] // 2, size[0] // 2)
        views: list[QueryView] = []

        def seen(
            layer: Layer,
            attended: Attended,
            off: float,
            views: list[QueryView] = views,
            point: Point = point,
            wanted: bool = index < draw,
        ) -> None:
            nonlocal error
            if not isfinite(off):
                raise UserError(
                    f"block {layer.number} gives values that are no numbers; it has diverged, or is damaged",
                    file=source.file,
                )
            error = max(error, off)
            totals.setdefault(layer.number, _Total(layer)).add(attended)
            if wanted and layer.number in chosen:
                views.append(_view(layer, attended, point, head))

        with torch.inference_mode(), watch_attention(source.network, seen):
            if valid_B2 is None:
                source.network.forward_features(frame_BCHW)
            else:
                source.network.forward_intermediates(frame_BCHW, valid_size=valid_B2)
        if index < draw:
            order = {layer.number: place for place, layer in enumerate(layers)}
            views.sort(key=lambda view: order[view.layer.number])
            drawn.append(SeenPicture(name, _pixels(frame_BCHW[0], size, source), point, tuple(views)))
    shares = tuple(totals[number].shares(len(pictures)) for number in sorted(totals))
    return Inspection(shares, tuple(drawn), reach_of(source), len(pictures), error)


def reach_of(source: Source) -> tuple[tuple[Reach, ...], ...]:
    """How far each stage sees with how many tokens."""
    return tuple(_stage_reach(stage) for stage in source.network.stages_config)


def _stage_reach(stage: StageConfig) -> tuple[Reach, ...]:
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
    return tuple(found)


class _Total:
    """Sums of one block's shares over pictures."""

    def __init__(self, layer: Layer) -> None:
        self.layer, self.keys = layer, 0
        self.sums: dict[str, Tensor] = {}
        self.off = 0.0

    def add(self, attended: Attended) -> None:
        shares = attended.shares()
        self.keys = attended.probabilities_BPNQK.shape[-1]
        for level, share_BN in zip(shares.levels, shares.shares_BNL.double().unbind(-1), strict=True):
            self.sums[level] = self.sums.get(level, torch.zeros(())) + share_BN.sum(0)
        self.off += float(shares.off_image_BN.mean(1).sum())

    def shares(self, count: int) -> LayerShares:
        heads = {level: (total_N / count).tolist() for level, total_N in self.sums.items()}
        return LayerShares(self.layer, self.keys, heads, self.off / count)


def _view(layer: Layer, attended: Attended, point: Point, head: int | None) -> QueryView:
    height, width = attended.grid.map_size
    # a map that was cut has no token for the last pixels: the nearest one
    row, column = min(point[1] // layer.stride, height - 1), min(point[0] // layer.stride, width - 1)
    levels = []
    for level in attended.at(0, row, column):
        heads = slice(None) if head is None else slice(head, head + 1)
        probabilities_K = level.probabilities_NK[heads].mean(0)
        levels.append(
            LevelView(
                level.name,
                float(probabilities_K.sum()),
                float(probabilities_K.max()),
                level.heat_NHW[heads].mean(0).numpy(),
                level.areas_KHW.any(0).numpy(),
            )
        )
    return QueryView(layer, (row, column), tuple(levels))


def _check_query(query: Point | None, size: Point, name: str) -> None:
    if query is None:
        return
    (x, y), (height, width) = query, size
    if not (0 <= x < width and 0 <= y < height):
        raise UserError(
            f"{x},{y} is outside the picture {name}, which is {width} x {height} px as the network gets it "
            f"(use 0,0 to {width - 1},{height - 1})",
            key="--query",
        )


def _filled(frame_BCHW: Tensor, valid_B2: Tensor | None) -> Point:
    if valid_B2 is None:
        return frame_BCHW.shape[2], frame_BCHW.shape[3]
    height, width = valid_B2[0].tolist()
    return int(height), int(width)


def _pixels(frame_CHW: Tensor, size: Point, source: Source) -> Picture:
    """What the picture fills of the frame, as it was before it was normalised."""
    mean, std = (torch.tensor(list(values)).view(-1, 1, 1) for values in (source.mean, source.std))
    picture_CHW = (frame_CHW[:, : size[0], : size[1]].float() * std + mean).clamp(0, 1)
    picture_3HW = picture_CHW[:3] if len(picture_CHW) >= 3 else picture_CHW[:1].expand(3, -1, -1)
    found: Picture = picture_3HW.permute(1, 2, 0).numpy()
    return found
