"""Places labels beside points so that none covers another."""

from collections.abc import Iterable, Sequence
from math import cos, hypot, radians, sin
from typing import TYPE_CHECKING, Any

from focal_lab.report.plots.style import MUTED, SMALL

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Box = tuple[float, float, float, float]  # left, bottom, right, top, in pixels
_NEAR = 9.0  # points from a mark to its label
_ANGLES = (0, 180, 90, 270, 35, 325, 145, 215, 60, 300, 120, 240, 15, 345, 165, 195)
_DISTANCES = (1.0, 1.8, 2.8, 4.0, 5.5, 7.5, 10.0, 13.0)


def boxes_around(axes: "Axes", points: Iterable[tuple[float, float]], radius: float) -> list[Box]:
    """Boxes of that many pixels around points in data coordinates."""
    pixels = [axes.transData.transform(point) for point in points]
    return [(x - radius, y - radius, x + radius, y + radius) for x, y in pixels]


def label_points(
    axes: "Axes", points: Sequence[tuple[float, float]], texts: Sequence[str], taken: Sequence[Box] = ()
) -> None:
    """Write each text near its point, with a thin line to it unless it is right beside it.

    Args:
        axes: with its final size and limits.
        points: in data coordinates.
        texts: one for each point.
        taken: boxes that no label may cover, such as error bars.
    """
    figure = axes.get_figure(root=True)
    assert figure is not None
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    unit = figure.dpi / 72
    marks = boxes_around(axes, points, 4.5 * unit)
    used = [*marks, *taken]
    inside = axes.get_window_extent(renderer)
    frame: Box = (inside.x0, inside.y0, inside.x1, inside.y1)
    pixels = [((left + right) / 2, (bottom + top) / 2) for left, bottom, right, top in marks]
    # the most crowded points choose first
    crowd = [sum(hypot(x - u, y - v) < 60 * unit for u, v in pixels) for x, y in pixels]
    for index in sorted(range(len(points)), key=lambda place: -crowd[place]):
        x, y = pixels[index]
        drawn = axes.text(0, 0, texts[index], fontsize=SMALL, transform=None, va="center")
        extent = drawn.get_window_extent(renderer)
        box, distance = _place(x, y, extent.width + 2 * unit, extent.height + unit, used, frame, _NEAR * unit)
        used.append(box)
        # data coordinates: files have other resolutions than this measurement
        to_data = axes.transData.inverted().transform
        drawn.set_transform(axes.transData)
        left, middle = to_data((box[0] + unit, (box[1] + box[3]) / 2))
        drawn.set_position((float(left), float(middle)))
        if distance > 1:
            ends = to_data([(x, y), (min(max(x, box[0]), box[2]), min(max(y, box[1]), box[3]))])
            line: Any = {"color": MUTED, "linewidth": 0.6, "zorder": 1.5}
            axes.plot(ends[:, 0], ends[:, 1], scalex=False, scaley=False, **line)


def _place(
    x: float, y: float, width: float, height: float, used: Sequence[Box], frame: Box, near: float
) -> tuple[Box, float]:
    """The nearest free box, else the one with the least overlap, and its distance in units of `near`."""
    candidates: list[tuple[float, Box, float]] = []
    for distance in _DISTANCES:
        for angle in map(radians, _ANGLES):
            left = x + cos(angle) * (near * distance + width / 2) - width / 2
            bottom = y + sin(angle) * (near * distance + height / 2) - height / 2
            box = (left, bottom, left + width, bottom + height)
            outside = width * height - _overlap(box, frame)
            overlap = sum(_overlap(box, other) for other in used) + 4 * outside
            if overlap <= 0:
                return box, distance
            candidates.append((overlap, box, distance))
    _, box, distance = min(candidates, key=lambda candidate: candidate[0])
    return box, distance


def _overlap(a: Box, b: Box) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    return max(0.0, width) * max(0.0, height)
