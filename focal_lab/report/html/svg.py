"""Plots as small SVG elements in the colours of the page, light or dark."""

import io
import re
from xml.etree import ElementTree

from focal_lab.report.plots.style import GRID, INK, MUTED, PAPER, SERIES, Plot, settings

_SVG = "{http://www.w3.org/2000/svg}"
_LINK = "{http://www.w3.org/1999/xlink}href"
_DROPPED = {f"{_SVG}{name}" for name in ("metadata", "style", "title")}
_COLORS = {INK: "currentColor", MUTED: "var(--muted)", GRID: "var(--grid)", PAPER: "var(--surface)"}
_COLORS |= {color: f"var(--series-{number})" for number, color in enumerate(SERIES, 1)}
# IDs of marks and clip paths; nothing refers to the others.
_HASHED = re.compile(r"[0-9a-f]{10}$")
_LONG_NUMBER = re.compile(r"(-?\d+\.\d\d)\d+")


def inline_svg(plot: Plot) -> str:
    """A plot as an `svg` element without title, fonts, sizes and metadata."""
    from matplotlib import rc_context

    stream = io.BytesIO()
    with rc_context(settings() | {"svg.hashsalt": plot.name}):
        plot.draw(titled=False).savefig(stream, format="svg", metadata={"Date": None}, facecolor="none")
    root = ElementTree.fromstring(stream.getvalue())
    _clean(root)
    for key in ("width", "height", "version"):
        del root.attrib[key]
    root.attrib |= {"role": "img", "aria-labelledby": f"{plot.name}-title", "class": "plot"}
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
