"""Attention shares of each level over many images, and what single queries attend to.

Shape suffixes: H W image or map, N heads.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from focal_lab.backbones.options import Size, StageConfig
from focal_lab.errors import UserError
from focal_lab.tasks.image_callbacks import as_bytes
from focal_lab.tools.inspect.probabilities import (
    Attended,
    AttentionBlock,
    SeenLevel,
    attended_by_block,
    network_layers,
)
from focal_lab.tools.inspect.source import frame, network_of
from focal_lab.tools.trained.load import TrainedTask
from focal_lab.tools.trained.preprocessing import own_size


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
class Inspection:
    """Results for a network.

    Attributes:
        layers: the blocks that are drawn.
        blocks: one entry per block for `inspect.json`. Shares are averaged over images and queries; those of
            the levels sum to 1, and `off_picture` is the part of them on padding. `keys` of a query are those
            of all levels, hidden ones included.
        drawn: images with what the query attends to.
        reach: for each stage and level, the keys of a query in the levels up to it (`tokens`), and the tokens
            that they stand for, also beyond the map (`field`).
        count: images that the shares are averaged over.
        error: largest difference of the recomputed attention from the network's own, relative to the largest
            value of a block's output.
    """

    layers: Sequence[AttentionBlock]
    blocks: list[dict[str, Any]]
    drawn: list[DrawnImage]
    reach: list[list[dict[str, Any]]]
    count: int
    error: float

    @property
    def levels(self) -> list[str]:
        """The levels that any block has, finest first."""
        names = {name for block in self.blocks for name in block["shares"]}
        return sorted(names, key=lambda name: ({"window": 0, "ring": 1}.get(name, 2), name))


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
    trained: TrainedTask,
    images: Sequence[tuple[str, Tensor]],
    layers: Sequence[AttentionBlock],
    *,
    draw: int,
    query: Size | None = None,
    head: int | None = None,
) -> Inspection:
    """Run the network on images and collect what its attention does.

    Args:
        trained: the network.
        images: a name and a normalised (C, H, W) each.
        layers: the blocks to draw.
        draw: number of images to draw, from the first.
        query: x and y of a pixel of the images as the backbone gets them; None for the centre.
        head: None for the average of all.

    Raises:
        UserError: the query is outside an image that is drawn, or the network computes NaN.
    """
    network = network_of(trained)
    framed = []
    for i, (name, image) in enumerate(images):
        frame_BCHW, valid_B2 = frame(trained.module, image)
        height, width = frame_BCHW.shape[2:] if valid_B2 is None else valid_B2[0].tolist()
        if query and i < draw:
            _check_query(query, name, height, width)
        framed.append((name, frame_BCHW, valid_B2, height, width))
    all_layers = network_layers(network)
    divided: list[list[tuple[dict[str, Tensor], Tensor]]] = [[] for _ in all_layers]
    keys, drawn, largest_error = {}, [], 0.0
    for i, (name, frame_BCHW, valid_B2, height, width) in enumerate(framed):
        x, y = query or (width // 2, height // 2)
        views = {}
        for layer, attended, error in attended_by_block(network, frame_BCHW, valid_B2):
            if not isfinite(error):
                raise UserError(
                    f"block {layer.number} outputs NaN or infinity; the run diverged, or the file is damaged",
                    file=trained.file,
                )
            largest_error = max(largest_error, error)
            divided[layer.number].append(attended.shares())
            keys[layer.number] = attended.probabilities_BPNQK.shape[-1]
            if i < draw and layer in layers:
                views[layer.number] = _view(layer, attended, x, y, head)
        if i < draw:
            image_CHW = frame_BCHW[0, :, :height, :width]
            pixels_3HW = as_bytes(image_CHW, own_size(trained.data)).float() / 255
            in_order = [views[layer.number] for layer in layers]
            drawn.append(DrawnImage(name, pixels_3HW.permute(1, 2, 0).numpy(), (x, y), in_order))
    blocks = [_block(layer, keys[layer.number], divided[layer.number]) for layer in all_layers]
    reach = [reach_of(stage) for stage in network.stages_config]
    return Inspection(layers, blocks, drawn, reach, len(images), largest_error)


def reach_of(stage: StageConfig) -> list[dict[str, Any]]:
    """The receptive field of a stage's levels against the tokens that they use."""
    height, width = stage.window
    tokens = height * width
    found = [{"level": "window", "tokens": tokens, "field": tokens}]
    if any(stage.expand):
        height, width = height + 2 * stage.expand[0], width + 2 * stage.expand[1]
        tokens = height * width
        found.append({"level": "ring", "tokens": tokens, "field": tokens})
    for number, level in enumerate(stage.levels, 1):
        height = max(height, level.region[0] * level.pool_size[0])
        width = max(width, level.region[1] * level.pool_size[1])
        tokens += level.keys - len(level.hidden)
        found.append({"level": f"pooled {number}", "tokens": tokens, "field": height * width})
    return found


def _check_query(query: Size, name: str, height: int, width: int) -> None:
    if not (0 <= query[0] < width and 0 <= query[1] < height):
        raise UserError(
            f"{query[0]},{query[1]} is outside the image {name}, which is {width} x {height} px as the "
            f"network gets it (use 0,0 to {width - 1},{height - 1})",
            key="--query",
        )


def _view(layer: AttentionBlock, attended: Attended, x: int, y: int, head: int | None) -> QueryView:
    height, width = attended.grid.map_size
    # a map that was cut has no token for the last pixels: use the nearest
    row, column = min(y // layer.stride, height - 1), min(x // layer.stride, width - 1)
    levels = attended.at(0, row, column)
    if head is not None:
        heads = slice(head, head + 1)
        levels = [SeenLevel(seen.name, seen.probabilities_NK[heads], seen.areas_KHW) for seen in levels]
    return QueryView(layer, (row, column), levels)


def _block(
    layer: AttentionBlock, keys: int, found: Sequence[tuple[dict[str, Tensor], Tensor]]
) -> dict[str, Any]:
    """A block's shares averaged over images."""
    by_head: dict[str, list[float]] = {}
    for name in found[0][0]:
        of_images = (shares[name].double().sum(0) for shares, _ in found)
        by_head[name] = (sum(of_images, torch.zeros(())) / len(found)).tolist()
    return {
        "block": layer.number,
        "stage": layer.stage,
        "shifted": layer.shifted,
        "window": list(layer.attention.stage.window),
        "keys": keys,
        "shares": {name: sum(heads) / len(heads) for name, heads in by_head.items()},
        "shares_by_head": by_head,
        "off_picture": sum(float(off_BN.mean(1).sum()) for _, off_BN in found) / len(found),
    }
