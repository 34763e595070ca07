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
_NUMBER = re.compile(r"-?\d+\.\d{3,}")
_NO_ROTATION = re.compile(r"rotate\(-?0 [^)]*\)")
_REFERENCE = re.compile(r"url\(#([^)]+)\)")


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
    """A figure as an `svg` element without fonts, sizes and metadata.

    Args:
        figure: drawn with the colours of `plots.style`.
        name: prefix of IDs, unique on the page.
    """
    from matplotlib import rc_context

    stream = io.BytesIO()
    with rc_context(settings()):
        figure.savefig(stream, format="svg", metadata={"Date": None}, facecolor="none")
    root = ElementTree.fromstring(stream.getvalue())
    used = set(_REFERENCE.findall(stream.getvalue().decode()))
    used |= {link.removeprefix("#") for part in root.iter() if (link := part.get(_LINK))}
    _clean(root, used, name)
    for key in ("width", "height", "version"):
        root.attrib.pop(key, None)
    root.attrib |= {"role": "img", "aria-labelledby": f"{name}-title", "class": "plot"}
    return ElementTree.tostring(root, encoding="unicode")


def _clean(part: ElementTree.Element, used: set[str], name: str) -> None:
    """Drop what only matplotlib needs, shorten numbers, use the page's colours and unique IDs."""
    part.tag = part.tag.removeprefix(_SVG)
    part.tail = None
    if part.tag != "text":
        part.text = None
    link, identity = part.attrib.pop(_LINK, None), part.attrib.pop("id", None)
    for key, value in part.attrib.items():
        part.set(key, _value(key, value, name))
    if not part.get("transform", "x"):
        del part.attrib["transform"]
    if link:
        part.set("href", f"#{name}-{link.removeprefix('#')}")
    if identity in used:
        part.set("id", f"{name}-{identity}")
    for child in list(part):
        if child.tag in _DROPPED or (child.tag == f"{_SVG}g" and not len(child)):
            part.remove(child)
        else:
            _clean(child, used, name)


def _value(key: str, value: str, name: str) -> str:
    value = _REFERENCE.sub(rf"url(#{name}-\1)", value)
    value = _NUMBER.sub(lambda found: f"{float(found[0]):.2f}".rstrip("0").rstrip("."), value)
    if key == "transform":
        return _NO_ROTATION.sub("", value).strip()
    if key == "d":
        return " ".join(value.split())
    if key != "style":
        return value
    for ours, theirs in _COLORS.items():
        value = value.replace(ours, theirs)
    rules = [rule.strip() for rule in value.split(";") if "font-family" not in rule]
    return ";".join(rule.replace(": ", ":") for rule in rules)
