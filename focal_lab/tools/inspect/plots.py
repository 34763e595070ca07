"""Pictures of `focal-lab inspect`: small PNG files, drawn with matplotlib's object-oriented side only."""

import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from focal_lab.report.plots.style import INK, MUTED, SERIES, new_figure, put_title, settings, tidy
from focal_lab.tools.inspect.measure import Inspection, LevelView, QueryView, Reach, SeenPicture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from focal_lab.tools.inspect.probabilities import Layer

_DOTS = 100  # an inch: 28 px digits and 224 px pictures alike can be read, and a page of them stays small
_COLORS = {"window": SERIES[0], "ring": SERIES[1]}
_POOLED = SERIES[2:]
_PANEL = 1.5
_TITLE = 4.0  # inches that a title needs
_QUERY = "#ff1f5a"
_MOST_HEADS = 8
# a quarter of the highest attention has half of the colour
QUERY_SCALE = "colour: square root of attention, full at each panel's highest"


def color_of(level: str) -> str:
    """The colour of a level in all pictures."""
    if level in _COLORS:
        return _COLORS[level]
    return _POOLED[(int(level.split()[1]) - 1) % len(_POOLED)]


def draw_query(seen: SeenPicture, levels: Sequence[str], title: str) -> "Figure":
    """The picture with the reach of each level, and beside it what the query attends to (figures 1, 4).

    A row a block. Colour is the root of attention, full at the level's highest; a pooled key colours all that
    it stands for.
    """
    from matplotlib import rc_context

    with rc_context(settings()):
        rows, columns = len(seen.views), 1 + len(levels)
        height, width = seen.pixels_HW3.shape[:2]
        across = max(_PANEL, _TITLE / columns)
        panel = across * min(1.6, height / width)
        figure = new_figure(rows * (panel + 0.34), columns * across)
        figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)  # type: ignore[union-attr,call-arg]
        grid: Any = figure.subplots(rows, columns, squeeze=False)
        for axes_of_row, view in zip(grid, seen.views, strict=True):
            _draw_reach(axes_of_row[0], seen, view)
            there = {level.name: level for level in view.levels}
            for axes, name in zip(axes_of_row[1:], levels, strict=True):
                if name in there:
                    _draw_level(axes, seen, view, there[name])
                else:
                    axes.axis("off")
        figure.supxlabel(QUERY_SCALE, fontsize=8, color=MUTED)
        put_title(figure, title)
    return figure


def draw_shares(found: Inspection, title: str, published: dict[str, list[float]] | None = None) -> "Figure":
    """Attention to each level per block, as stacked bars; the paper's as marks (figure 7)."""
    from matplotlib import rc_context

    with rc_context(settings()):
        figure = new_figure(2.6)
        axes = figure.subplots()
        places = np.arange(len(found.shares))
        below = np.zeros(len(places))
        paper = np.zeros(len(places))
        for level in found.levels:
            shares = np.array([100 * (layer.mean(level) or 0.0) for layer in found.shares])
            axes.bar(places, shares, 0.78, bottom=below, color=color_of(level), label=level)
            below += shares
            if published and level in published:
                paper += 100 * np.array(published[level])
                axes.plot(
                    places,
                    paper,
                    ls="",
                    marker="_",
                    ms=13,
                    mew=2,
                    color=INK,
                    label="paper" if level == "window" else None,
                )
        axes.set_xticks(places, [str(layer.layer.number) for layer in found.shares])
        axes.set_xlabel("block, from the first stage to the last")
        axes.set_ylabel("attention (%)")
        axes.set_ylim(0, 100)
        tidy(axes, "y")
        figure.legend(loc="outside lower center", ncols=6, frameon=False, fontsize=9)
        put_title(figure, title)
    return figure


def draw_biases(layers: "Sequence[Layer]", level: int, title: str) -> "Figure | None":
    """Learned biases of a coarse level as heat maps, a row a block, a column a head (figures 8, 9).

    With a bias for each query, a place of the map is a displacement of key and query; with one a window, it
    is a pooled token of the region. None where no block has the level.

    Args:
        layers: the blocks to draw.
        level: of the coarse levels, from 1; 0 for the window's own biases.
        title: above them.
    """
    from matplotlib import rc_context

    tables = [(layer, table) for layer in layers if (table := bias_table(layer, level)) is not None]
    if not tables:
        return None
    heads = min(_MOST_HEADS, max(len(table) for _, table in tables))
    with rc_context(settings()):
        size = 0.92
        figure = new_figure(len(tables) * (size + 0.16) + 0.15, 0.75 + max(4, heads) * size)
        figure.get_layout_engine().set(w_pad=0.02, h_pad=0.03, wspace=0, hspace=0)  # type: ignore[union-attr,call-arg]
        grid: Any = figure.subplots(len(tables), max(4, heads), squeeze=False)
        for axes_of_row, (layer, table_NHW) in zip(grid, tables, strict=True):
            most = float(np.abs(table_NHW[:heads]).max()) or 1.0
            for head, axes in enumerate(axes_of_row):
                if head >= min(heads, len(table_NHW)):
                    axes.axis("off")
                    continue
                axes.imshow(table_NHW[head], cmap="PuOr_r", vmin=-most, vmax=most, interpolation="nearest")
                _bare(axes)
                if axes is grid[0][head]:
                    axes.set_title(f"head {head}", fontsize=8, loc="center", pad=3)
            axes_of_row[0].set_ylabel(f"block {layer.number}\n±{most:.2g}", fontsize=8)
        put_title(figure, title)
    return figure


def bias_table(layer: "Layer", level: int) -> NDArray[np.float32] | None:
    """(heads, height, width) biases of a coarse level, 0 for the window's own; None where there is none."""
    attention = layer.attention
    stage = attention.stage
    if level == 0:
        side = 2 * stage.window[0] - 1, 2 * stage.window[1] - 1
        table_NT = attention.relative_position_bias_table.detach().t()
    elif level > len(stage.levels):
        return None
    else:
        region = stage.levels[level - 1].region
        if attention.bias_per_window:
            side, table_NT = region, attention.window_bias_tables[level - 1].detach()
        else:
            side = stage.window[0] + region[0] - 1, stage.window[1] + region[1] - 1
            table_NT = attention.coarse_bias_tables[level - 1].detach()
    found: NDArray[np.float32] = table_NT.float().reshape(len(table_NT), *side).numpy()
    return found


def draw_reach(
    stages: Sequence[Sequence[Reach]], title: str, published: dict[str, dict[str, list[float]]]
) -> "Figure":
    """Receptive field against tokens used, per stage, beside the paper's curves (figure 3)."""
    from matplotlib import rc_context
    from matplotlib.ticker import FuncFormatter

    with rc_context(settings()):
        figure = new_figure(3.0)
        axes = figure.subplots()
        most = max(point.tokens for stage in stages for point in stage)
        axes.plot([1, most], [1, most], ls=":", color=MUTED, label="every token by itself")
        curve = published["focal"]
        axes.plot(
            curve["tokens"], curve["receptive_field"], ls="--", marker=".", color=MUTED, label="focal, paper"
        )
        drawn: dict[tuple[tuple[int, int], ...], list[int]] = {}
        for number, stage in enumerate(stages, 1):
            drawn.setdefault(tuple((point.tokens, point.field) for point in stage), []).append(number)
        for index, (points, numbers) in enumerate(drawn.items()):
            told = "stage" if len(numbers) == 1 else "stages"
            axes.plot(
                [x for x, _ in points],
                [y for _, y in points],
                marker="os^Dv"[index % 5],
                color=SERIES[index % len(SERIES)],
                label=f"{told} {', '.join(map(str, numbers))}",
            )
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, place: f"{value:,.0f}"))
        axes.set_xlabel("tokens used by a query")
        axes.set_ylabel("tokens that they stand for")
        tidy(axes)
        figure.legend(loc="outside right upper", frameon=False, fontsize=8.5)
        put_title(figure, title)
    return figure


def save(figure: "Figure", path: Path) -> None:
    """Write a PNG in full colour: what is drawn on is an image."""
    from matplotlib import rc_context
    from PIL import Image

    stream = io.BytesIO()
    with rc_context(settings()):
        figure.savefig(stream, format="png", dpi=_DOTS)
    path.parent.mkdir(parents=True, exist_ok=True)
    with Image.open(stream) as drawn:
        drawn.convert("RGB").save(path, format="PNG", optimize=True)


def _draw_reach(axes: "Axes", seen: SeenPicture, view: QueryView) -> None:
    _show(axes, seen.pixels_HW3)
    for level in view.levels:
        _outline(axes, level.area_HW, view.layer.stride, color_of(level.name), seen)
    _mark_query(axes, view)
    layer = view.layer
    axes.set_title(f"block {layer.number} (stage {layer.stage})", fontsize=8.5, pad=3)


def _draw_level(axes: "Axes", seen: SeenPicture, view: QueryView, level: LevelView) -> None:
    from matplotlib.colors import to_rgb

    grey_HW = seen.pixels_HW3.mean(-1)
    # washed out, so that colour can be seen on black and on white
    washed_HW3 = np.repeat((0.5 + 0.5 * grey_HW)[..., None], 3, -1)
    height, width = grey_HW.shape
    strength = level.heat_HW / max(level.highest, 1e-12)
    alpha_HW = _enlarged(np.sqrt(np.clip(strength, 0, 1)), view.layer.stride, height, width)[..., None] * 0.95
    color = np.array(to_rgb(color_of(level.name)))
    _show(axes, washed_HW3 * (1 - alpha_HW) + color * alpha_HW)
    _outline(axes, level.area_HW, view.layer.stride, color_of(level.name), seen)
    _mark_query(axes, view)
    axes.set_title(f"{level.name} {100 * level.share:.0f} %", fontsize=8.5, pad=3, color=color_of(level.name))


def _show(axes: "Axes", pixels_HW3: Any) -> None:
    height, width = pixels_HW3.shape[:2]
    axes.imshow(pixels_HW3, extent=(0, width, height, 0), interpolation="nearest")
    axes.set_xlim(-0.01 * width, 1.01 * width)
    axes.set_ylim(1.01 * height, -0.01 * height)
    _bare(axes)


def _bare(axes: "Axes") -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def _mark_query(axes: "Axes", view: QueryView) -> None:
    from matplotlib.patches import Rectangle

    (row, column), side = view.token, view.layer.stride
    axes.add_patch(
        Rectangle((column * side, row * side), side, side, fill=False, edgecolor=_QUERY, linewidth=1.4)
    )


def _enlarged(x_HW: Any, stride: int, height: int, width: int) -> Any:
    """Each token over its pixels, cut (or continued with zeros) to the picture."""
    large = np.repeat(np.repeat(x_HW, stride, 0), stride, 1)[:height, :width]
    return np.pad(large, ((0, height - large.shape[0]), (0, width - large.shape[1])))


def _outline(axes: "Axes", area_HW: NDArray[np.bool_], stride: int, color: str, seen: SeenPicture) -> None:
    """The border of an area of tokens."""
    from matplotlib.collections import LineCollection

    height, width = seen.pixels_HW3.shape[:2]
    lines = [
        [(min(x * stride, width), min(y * stride, height)) for x, y in line] for line in border_lines(area_HW)
    ]
    axes.add_collection(LineCollection(lines, colors=color, linewidths=1.3))


def border_lines(area_HW: NDArray[np.bool_]) -> Iterable[tuple[tuple[int, int], tuple[int, int]]]:
    """Unit segments ((x, y), (x, y)) between tokens inside and outside an area."""
    padded = np.pad(area_HW, 1)
    for y, x in zip(*np.nonzero(padded[1:, 1:-1] != padded[:-1, 1:-1]), strict=True):
        yield (int(x), int(y)), (int(x) + 1, int(y))
    for y, x in zip(*np.nonzero(padded[1:-1, 1:] != padded[1:-1, :-1]), strict=True):
        yield (int(x), int(y)), (int(x), int(y) + 1)
