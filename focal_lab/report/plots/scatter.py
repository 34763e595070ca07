"""Scatter plots with labels beside the marks, none of which covers another."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import cos, radians, sin
from typing import TYPE_CHECKING, Any

from focal_lab.report.plots.style import MUTED, PAPER, SMALL, SeriesStyle, words

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Box = tuple[float, float, float, float]  # left, bottom, right, top, in pixels
_NEAR = 9.0  # points from a mark to its label
_ANGLES = (0, 180, 90, 270, 35, 325, 145, 215, 60, 300, 120, 240, 15, 345, 165, 195)
_DISTANCES = (1.0, 1.8, 2.8, 4.0, 5.5, 7.5, 10.0, 13.0)


@dataclass(frozen=True)
class Mark:
    """A filled or hollow mark in data coordinates; `error`: half of its vertical interval."""

    name: str
    x: float
    y: float
    style: SeriesStyle
    filled: bool = True
    error: float | None = None


def draw_marks(axes: "Axes", marks: Iterable[Mark]) -> None:
    """Draw marks with their intervals."""
    for mark in marks:
        color, face = mark.style.color, mark.style.color if mark.filled else PAPER
        style: Any = {"color": color, "markerfacecolor": face, "marker": mark.style.marker}
        axes.errorbar(mark.x, mark.y, yerr=mark.error, linestyle="none", elinewidth=1.2, **style)


def label_marks(axes: "Axes", marks: Sequence[Mark], named: Iterable[Mark]) -> None:
    """Write names near their marks, without covering any mark or label.

    The axes need their final size and limits. A thin line leads to a name that is not right beside its mark.
    """
    figure = axes.get_figure(root=True)
    assert figure is not None
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    unit = figure.dpi / 72
    used = [_box(axes, mark, 4.5 * unit) for mark in marks]
    inside = axes.get_window_extent(renderer)
    frame: Box = (inside.x0, inside.y0, inside.x1, inside.y1)
    for mark in named:
        x, y = axes.transData.transform((mark.x, mark.y))
        drawn = axes.text(0, 0, words(mark.name), fontsize=SMALL, transform=None, va="center")
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


def _box(axes: "Axes", mark: Mark, radius: float) -> Box:
    error = mark.error or 0.0
    x, low = axes.transData.transform((mark.x, mark.y - error))
    _, high = axes.transData.transform((mark.x, mark.y + error))
    return (x - radius, low - radius, x + radius, high + radius)


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
