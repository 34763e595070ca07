"""Colours, sizes and helpers that all plots share, on matplotlib's object-oriented interface only.

The palette can be read with any of the three colour vision deficiencies (smallest distance 14 in CIELAB
after Machado et al. 2009), and every series has its own marker and dash pattern. On a page, the colours are
replaced by CSS variables (`focal_lab.report.html.svg`), so that they follow light and dark.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, GRID, PAPER = "#1c2430", "#55606e", "#d9dee6", "#ffffff"
SERIES = ("#0072b2", "#d55e00", "#139c78", "#cf6fb0", "#3b1f70", "#4a3c00")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)))
# Inches: fits a phone, where 10 points stay readable.
WIDTH = 5.6
SMALL = 8.5
_SUPERSCRIPTS = {"^b": "ᵇ", "^m": "ᵐ", "_50": "₅₀", "_75": "₇₅", "ᵇ_S": "ᵇₛ", "ᵇ_M": "ᵇₘ", "ᵇ_L": "ᵇₗ"}


@dataclass(frozen=True)
class SeriesStyle:
    """Colour, marker and dash pattern of a series."""

    color: str
    marker: str
    dashes: Any


# of rows that are not ours
PLAIN = SeriesStyle(MUTED, "o", "-")


def series_style(index: int) -> SeriesStyle:
    """The style of one of several series; the seventh has the colour of the first, and so on."""
    again, color = divmod(index, len(SERIES))
    marker, dashes = _MARKERS[(color + again) % len(_MARKERS)], _DASHES[again % len(_DASHES)]
    return SeriesStyle(SERIES[color], marker, dashes)


@cache
def settings() -> Any:
    """Matplotlib's settings for drawing and writing."""
    from matplotlib import rc_params_from_file

    return rc_params_from_file(Path(__file__).with_name("plots.mplstyle"), use_default_template=False)


@dataclass(frozen=True)
class Plot:
    """A plot of a sweep: its texts, and what draws it with a title or, given "", without.

    `name` is unique within the sweep.
    """

    name: str
    title: str
    caption: str
    drawing: Callable[[str], "Figure"] = field(repr=False, compare=False)

    def draw(self, *, titled: bool = True) -> "Figure":
        """A new figure; matplotlib's global state is not changed."""
        from matplotlib import rc_context

        with rc_context(settings()):
            return self.drawing(self.title if titled else "")


def new_figure(height: float, title: str = "", width: float = WIDTH) -> "Figure":
    """An empty figure of that size in inches, higher by its title, with a canvas that can measure texts."""
    import textwrap

    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    lines = textwrap.wrap(title, int(width * 13))
    figure = Figure(figsize=(width, height + 0.1 + 0.19 * len(lines)), layout="constrained")
    if lines:
        figure.suptitle("\n".join(lines), x=0.06 / width, ha="left", fontsize=11, fontweight="bold")
    FigureCanvasAgg(figure)
    return figure


def tidy(axes: "Axes", grid: str = "both") -> None:
    """Light grid lines behind the data, and no tick marks."""
    axes.grid(True, axis=grid)  # type: ignore[arg-type]
    axes.tick_params(length=0)


def name_rows(axes: "Axes", names: Sequence[str], above: float = 0.55) -> None:
    """One row for each name from top to bottom, at 0, 1, ..., for horizontal bars and intervals."""
    axes.set_yticks(range(len(names)), [words(name, 26) for name in names])
    axes.set_ylim(len(names) - 0.5, -above)
    axes.spines["left"].set_visible(False)


def note(axes: "Axes", text: str, x: float, y: float, **options: Any) -> None:
    """A small text to the right of a point in data coordinates."""
    shown: Any = {"xytext": (4, 0), "va": "center", "fontsize": SMALL} | options
    axes.annotate(text, (x, y), textcoords="offset points", **shown)


def words(label: str, longest: int = 34) -> str:
    """A label in one line, printable and not too long."""
    text = " ".join("".join(letter if letter.isprintable() else " " for letter in label).split())
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def heading(title: str) -> str:
    """A column's heading with the paper's superscripts: APᵇ."""
    for plain, raised in _SUPERSCRIPTS.items():
        title = title.replace(plain, raised)
    return title
