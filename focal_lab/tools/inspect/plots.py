"""Draws the plots of `focal-lab inspect`.

Shape suffixes: H W image or map, N heads.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from focal_lab.report.plots.style import INK, MUTED, SERIES, new_figure, tidy
from focal_lab.tools.inspect.probabilities import AttentionBlock, SeenLevel
from focal_lab.tools.inspect.shares import DrawnImage, Inspection, QueryView

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PANEL = 1.5
_TITLE = 4.0  # inches that a title needs
_QUERY = "#ff1f5a"
_MOST_HEADS = 8
QUERY_SCALE = "colour: square root of attention, full at each panel's highest"


def color_of(level: str) -> str:
    """The colour of a level in all plots."""
    if level in ("window", "ring"):
        return SERIES[("window", "ring").index(level)]
    return SERIES[2 + (int(level.split()[1]) - 1) % (len(SERIES) - 2)]


def draw_query(drawn: DrawnImage, levels: Sequence[str], title: str) -> "Figure":
    """The image with the reach of each level, and what the query attends to (figures 1, 4).

    A row per block. Colour is the square root of attention, full at the level's highest; a pooled key colours
    all tokens that it stands for.
    """
    rows, columns = len(drawn.views), 1 + len(levels)
    height, width = drawn.pixels_HW3.shape[:2]
    across = max(_PANEL, _TITLE / columns)
    down = across * min(1.6, height / width) + 0.34
    figure = _close(new_figure(rows * down, title, columns * across), h_pad=0.02)
    grid: Any = figure.subplots(rows, columns, squeeze=False)
    for (first, *others), view in zip(grid, drawn.views, strict=True):
        _show(first, drawn.pixels_HW3, view, view.levels)
        layer = view.layer
        first.set_title(f"block {layer.number} (stage {layer.stage})", fontsize=8.5, pad=3)
        seen = {level.name: level for level in view.levels}
        for axes, name in zip(others, levels, strict=True):
            if name not in seen:
                axes.axis("off")
                continue
            _show(axes, _coloured(drawn.pixels_HW3, seen[name], layer.stride), view, [seen[name]])
            share = 100 * seen[name].share
            axes.set_title(f"{name} {share:.0f} %", fontsize=8.5, pad=3, color=color_of(name))
    figure.supxlabel(QUERY_SCALE, fontsize=8, color=MUTED)
    return figure


def draw_shares(found: Inspection, published: dict[str, list[float]] | None, title: str) -> "Figure":
    """Attention to each level per block as stacked bars; the paper's as marks (figure 7)."""
    figure = new_figure(2.6, title)
    axes = figure.subplots()
    places = np.arange(len(found.blocks))
    below, paper = np.zeros(len(places)), np.zeros(len(places))
    for level in found.levels:
        shares = np.array([100 * block["shares"].get(level, 0.0) for block in found.blocks])
        axes.bar(places, shares, 0.78, bottom=below, color=color_of(level), label=level)
        below += shares
        if published and level in published:
            paper += 100 * np.array(published[level])
            label = "paper" if level == "window" else None
            axes.plot(places, paper, ls="", marker="_", ms=13, mew=2, color=INK, label=label)
    axes.set_xticks(places, [str(block["block"]) for block in found.blocks])
    axes.set_xlabel("block, from the first stage to the last")
    axes.set_ylabel("attention (%)")
    axes.set_ylim(0, 100)
    tidy(axes, "y")
    figure.legend(loc="outside lower center", ncols=6, frameon=False, fontsize=9)
    return figure


def draw_biases(layers: Sequence[AttentionBlock], level: int, title: str) -> "Figure":
    """Learned biases of a coarse level, from 1, as heat maps; 0 for the window's own (figures 8, 9).

    A row per block that has the level, and a column per head. A pixel is a displacement of key and query, or
    with one bias per window a pooled token of the region.
    """
    tables = [(layer, table) for layer in layers if (table := bias_table(layer, level)) is not None]
    heads = min(_MOST_HEADS, max(len(table) for _, table in tables))
    size, columns = 0.92, max(4, heads)
    height, width = len(tables) * (size + 0.16) + 0.15, 0.75 + columns * size
    figure = _close(new_figure(height, title, width), h_pad=0.03)
    grid: Any = figure.subplots(len(tables), columns, squeeze=False)
    for row, (axes_of_row, (layer, table_NHW)) in enumerate(zip(grid, tables, strict=True)):
        most = float(np.abs(table_NHW[:heads]).max()) or 1.0
        for head, axes in enumerate(axes_of_row):
            if head >= min(heads, len(table_NHW)):
                axes.axis("off")
                continue
            axes.imshow(table_NHW[head], cmap="PuOr_r", vmin=-most, vmax=most, interpolation="nearest")
            _hide_frame(axes)
            if row == 0:
                axes.set_title(f"head {head}", fontsize=8, loc="center", pad=3)
        axes_of_row[0].set_ylabel(f"block {layer.number}\n±{most:.2g}", fontsize=8)
    return figure


def bias_table(layer: AttentionBlock, level: int) -> NDArray[np.float32] | None:
    """(heads, height, width) biases of a coarse level, 0 for the window's own; None if there is none."""
    attention, (height, width) = layer.attention, layer.attention.stage.window
    levels = attention.stage.levels
    if level > len(levels):
        return None
    if level == 0:
        side = 2 * height - 1, 2 * width - 1
        table_NT = attention.relative_position_bias_table.t()
    elif attention.bias_per_window:
        side, table_NT = levels[level - 1].region, attention.window_bias_tables[level - 1]
    else:
        region, table_NT = levels[level - 1].region, attention.coarse_bias_tables[level - 1]
        side = height + region[0] - 1, width + region[1] - 1
    found: NDArray[np.float32] = table_NT.detach().float().reshape(len(table_NT), *side).numpy()
    return found


def draw_reach(
    stages: Sequence[Sequence[dict[str, Any]]], published: dict[str, dict[str, list[float]]], title: str
) -> "Figure":
    """Receptive field against tokens used, per stage, beside the paper's curve (figure 3)."""
    from matplotlib.ticker import FuncFormatter

    figure = new_figure(3.0, title)
    axes = figure.subplots()
    most = max(point["tokens"] for stage in stages for point in stage)
    axes.plot([1, most], [1, most], ls=":", color=MUTED, label="every token by itself")
    curve = published["focal"]
    axes.plot(
        curve["tokens"], curve["receptive_field"], ls="--", marker=".", color=MUTED, label="focal, paper"
    )
    curves: dict[tuple[tuple[int, int], ...], list[str]] = {}
    for number, stage in enumerate(stages, 1):
        curves.setdefault(tuple((point["tokens"], point["field"]) for point in stage), []).append(str(number))
    for i, (points, numbers) in enumerate(curves.items()):
        label = f"stage{'' if len(numbers) == 1 else 's'} {', '.join(numbers)}"
        x, y = zip(*points, strict=True)
        axes.plot(x, y, marker="os^Dv"[i % 5], color=SERIES[i % len(SERIES)], label=label)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.set_xlabel("tokens used by a query")
    axes.set_ylabel("tokens that they stand for")
    tidy(axes)
    figure.legend(loc="outside right upper", frameon=False, fontsize=8.5)
    return figure


def _close(figure: "Figure", h_pad: float) -> "Figure":
    """The figure with its axes close together."""
    engine: Any = figure.get_layout_engine()
    engine.set(w_pad=0.02, h_pad=h_pad, wspace=0, hspace=0)
    return figure


def _coloured(pixels_HW3: NDArray[np.float32], level: SeenLevel, stride: int) -> Any:
    """The level's heat over the image in grey, washed out so that colour is visible on black and white."""
    from matplotlib.colors import to_rgb

    grey_HW = pixels_HW3.mean(-1)
    height, width = grey_HW.shape
    washed_HW3 = np.repeat((0.5 + 0.5 * grey_HW)[..., None], 3, -1)
    strength_HW = level.heat_NHW.mean(0).numpy() / max(level.highest, 1e-12)
    # each token over its pixels, cut (or padded with zeros) to the image
    tokens_HW: Any = np.sqrt(np.clip(strength_HW, 0, 1))
    alpha_HW = tokens_HW.repeat(stride, 0).repeat(stride, 1)[:height, :width]
    alpha_HW = np.pad(alpha_HW, ((0, height - alpha_HW.shape[0]), (0, width - alpha_HW.shape[1])))
    alpha_HW1 = alpha_HW[..., None] * 0.95
    return washed_HW3 * (1 - alpha_HW1) + np.array(to_rgb(color_of(level.name))) * alpha_HW1


def _show(axes: "Axes", pixels_HW3: Any, view: QueryView, levels: Sequence[SeenLevel]) -> None:
    """An image with the outlines of levels and the query."""
    from matplotlib.collections import LineCollection
    from matplotlib.patches import Rectangle

    height, width = pixels_HW3.shape[:2]
    axes.imshow(pixels_HW3, extent=(0, width, height, 0), interpolation="nearest")
    axes.set_xlim(-0.01 * width, 1.01 * width)
    axes.set_ylim(1.01 * height, -0.01 * height)
    _hide_frame(axes)
    stride = view.layer.stride
    for level in levels:
        area_HW = level.areas_KHW.any(0).numpy()
        lines = [
            [(min(x * stride, width), min(y * stride, height)) for x, y in line]
            for line in border_lines(area_HW)
        ]
        axes.add_collection(LineCollection(lines, colors=color_of(level.name), linewidths=1.3))
    (row, column) = view.token
    corner = (column * stride, row * stride)
    axes.add_patch(Rectangle(corner, stride, stride, fill=False, edgecolor=_QUERY, linewidth=1.4))


def _hide_frame(axes: "Axes") -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def border_lines(area_HW: NDArray[np.bool_]) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Unit segments ((x, y), (x, y)) between tokens inside and outside an area."""
    padded = np.pad(area_HW, 1)
    for y, x in np.argwhere(padded[1:, 1:-1] != padded[:-1, 1:-1]).tolist():
        yield (x, y), (x + 1, y)
    for y, x in np.argwhere(padded[1:-1, 1:] != padded[1:-1, :-1]).tolist():
        yield (x, y), (x, y + 1)
