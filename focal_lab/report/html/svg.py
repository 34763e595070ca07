"""Plots as small SVG elements in the colours of the page, light or dark."""

import io
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from focal_lab.report.plots.plot import Plot
from focal_lab.report.plots.style import GRID, INK, MUTED, PAPER, SERIES, settings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SVG = "{http://www.w3.org/2000/svg}"
_LINK = "{http://www.w3.org/1999/xlink}href"
_DROPPED = {f"{_SVG}{name}" for name in ("metadata", "style", "title")}
_COLORS = {INK: "currentColor", MUTED: "var(--muted)", GRID: "var(--grid)", PAPER: "var(--surface)"}
_COLORS |= {color: f"var(--series-{number})" for number, color in enumerate(SERIES, 1)}
# IDs of marks and clip paths; nothing refers to the others.
_HASHED = re.compile(r"[0-9a-f]{10}$")
_LONG_NUMBER = re.compile(r"(-?\d+\.\d\d)\d+")


@dataclass(frozen=True)
class InlinePlot:
    """A plot as text for HTML; `svg` is markup, the other texts are not escaped."""

    name: str
    title: str
    caption: str
    svg: str


def inline_plots(plots: Iterable[Plot]) -> list[InlinePlot]:
    """Draw plots for a page, which adds the titles."""
    return [
        InlinePlot(plot.name, plot.title, plot.caption, inline_svg(plot.draw(titled=False), plot.name))
        for plot in plots
    ]


def inline_svg(figure: "Figure", name: str) -> str:
    """A figure as an `svg` element without fonts, sizes and metadata; `name`: unique on the page."""
    from matplotlib import rc_context

    stream = io.BytesIO()
    with rc_context(settings() | {"svg.hashsalt": name}):
        figure.savefig(stream, format="svg", metadata={"Date": None}, facecolor="none")
    root = ElementTree.fromstring(stream.getvalue())
    _clean(root)
    for key in ("width", "height", "version"):
        del root.attrib[key]
    root.attrib |= {"role": "img", "aria-labelledby": f"{name}-title", "class": "plot"}
    return ElementTree.tostring(root, encoding="unicode")


def _clean(part: ElementTree.Element) -> None:
    """Drop what only matplotlib needs, shorten numbers, and use the page's colours and font."""
    part.tag = part.tag.removeprefix(_SVG)
    part.tail = None
    if part.tag != "text":
        part.text = None
    if link := part.attrib.pop(_LINK, None):
        part.set("href", link)
    if not _HASHED.search(part.get("id", "")):
        part.attrib.pop("id", None)
    for key, value in part.attrib.items():
        value = _LONG_NUMBER.sub(r"\1", " ".join(value.split()))
        if key == "style":
            value = re.sub(r"font-family: [^;]*;? ?", "", value)
            for ours, theirs in _COLORS.items():
                value = value.replace(ours, theirs)
        part.set(key, value)
    for child in list(part):
        if child.tag in _DROPPED or (child.tag == f"{_SVG}g" and not len(child)):
            part.remove(child)
        else:
            _clean(child)
