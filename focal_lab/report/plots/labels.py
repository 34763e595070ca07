"""Labels beside points, none over another."""

from collections.abc import Sequence
from math import cos, hypot, radians, sin
from typing import TYPE_CHECKING

from focal_lab.report.plots.style import MUTED, SMALL

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Box = tuple[float, float, float, float]  # left, bottom, right, top, in pixels
_NEAR = 9.0  # points from a mark to its label
_ANGLES = (0, 180, 90, 270, 35, 325, 145, 215, 60, 300, 120, 240, 15, 345, 165, 195)
_DISTANCES = (1.0, 1.8, 2.8, 4.0, 5.5, 7.5, 10.0, 13.0)


def label_points(
    axes: "Axes", points: Sequence[tuple[float, float]], texts: Sequence[str], taken: Sequence[Box] = ()
) -> None:
    """Write each text near its point, with a thin line to it where it is not right beside it.

    Args:
        axes: with its final size and limits.
        points: in data coordinates.
        texts: one a point.
        taken: boxes in pixels that nothing may cover, such as error bars.
    """
    figure = axes.get_figure(root=True)
    assert figure is not None
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    unit = figure.dpi / 72
    inside = axes.get_window_extent(renderer)
    pixels = [tuple(axes.transData.transform(point)) for point in points]
    mark = 4.5 * unit
    marks: list[Box] = [(x - mark, y - mark, x + mark, y + mark) for x, y in pixels]
    used: list[Box] = [*marks, *taken]
    frame: Box = (inside.x0, inside.y0, inside.x1, inside.y1)
    # the most crowded points choose first
    crowd = [sum(hypot(x - u, y - v) < 60 * unit for u, v in pixels) for x, y in pixels]
    for index in sorted(range(len(points)), key=lambda place: -crowd[place]):
        drawn = axes.text(0, 0, texts[index], fontsize=SMALL, transform=None)
        extent = drawn.get_window_extent(renderer)
        size = (extent.width + 2 * unit, extent.height + 1 * unit)
        box, far = _place(pixels[index], size, used, frame, _NEAR * unit)
        # data coordinates: files have other resolutions than what was measured here
        middle = (box[0] + unit, (box[1] + box[3]) / 2)
        drawn.set_transform(axes.transData)
        x, y = axes.transData.inverted().transform(middle)
        drawn.set_position((float(x), float(y)))
        drawn.set_verticalalignment("center")
        if far:
            to = (min(max(pixels[index][0], box[0]), box[2]), min(max(pixels[index][1], box[1]), box[3]))
            ends = axes.transData.inverted().transform([pixels[index], to])
            axes.plot(
                ends[:, 0], ends[:, 1], color=MUTED, linewidth=0.6, zorder=1.5, scalex=False, scaley=False
            )
        used.append(box)


def _place(
    point: tuple[float, float], size: tuple[float, float], used: Sequence[Box], frame: Box, near: float
) -> tuple[Box, bool]:
    """The nearest free box, else the freest, and whether it is so far off that it needs a line."""
    best: tuple[float, Box, bool] | None = None
    for distance in _DISTANCES:
        for angle in _ANGLES:
            box = _box(point, size, radians(angle), near * distance)
            overlap = sum(_overlap(box, other) for other in used) + 4 * _outside(box, frame)
            if overlap == 0:
                return box, distance > 1.0
            if best is None or overlap < best[0]:
                best = overlap, box, distance > 1.0
    assert best is not None
    return best[1], best[2]


def _box(point: tuple[float, float], size: tuple[float, float], angle: float, distance: float) -> Box:
    """A box whose nearest edge is that far from the point in that direction."""
    width, height = size
    x = point[0] + cos(angle) * (distance + width / 2)
    y = point[1] + sin(angle) * (distance + height / 2)
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def _overlap(a: Box, b: Box) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    return max(0.0, width) * max(0.0, height)


def _outside(box: Box, frame: Box) -> float:
    area = (box[2] - box[0]) * (box[3] - box[1])
    return area - _overlap(box, frame)
