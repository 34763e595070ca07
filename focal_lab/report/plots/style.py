"""How plots look: one palette, one width, labels that do not overlap. Matplotlib's object-oriented side only.

Colours are told apart by readers with any of the three colour blindnesses (smallest distance 14 in CIELAB
after Machado et al. 2009), and every series has a marker and a dash pattern of its own besides. On a page,
the colours are replaced by CSS variables (`focal_lab.report.html.svg`), so that they follow light and dark.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, GRID, PAPER = "#1c2430", "#55606e", "#d9dee6", "#ffffff"
SERIES = ("#0072b2", "#d55e00", "#139c78", "#cf6fb0", "#3b1f70", "#4a3c00")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)))
# Inches: a telephone shows it whole, and 10 points stay readable there.
WIDTH = 5.6
SMALL = 8.5
_LONGEST = 34
_RAISED = {"^b": "ᵇ", "^m": "ᵐ", "_50": "₅₀", "_75": "₇₅"}
_RAISED |= {f"ᵇ_{size}": f"ᵇ{lowered}" for size, lowered in zip("SML", "ₛₘₗ", strict=True)}


@dataclass(frozen=True)
class Look:
    """Colour, marker and dash pattern of a series."""

    color: str
    marker: str
    dashes: Any


# of what is no series of ours
PLAIN = Look(MUTED, "o", "-")


def look(index: int) -> Look:
    """The look of one of several series; different for the first 24."""
    again = index // len(SERIES)
    return look_in_group(index % len(SERIES), again, marker=index + again)


def look_in_group(group: int, member: int, marker: int | None = None) -> Look:
    """The look of a series that shares its colour with its group, and neither marker nor dashes."""
    return Look(
        SERIES[group % len(SERIES)],
        _MARKERS[(group + member if marker is None else marker) % len(_MARKERS)],
        _DASHES[member % len(_DASHES)],
    )


def settings() -> Any:
    """Matplotlib's settings as a dictionary while something is drawn or written."""
    return {
        "font.family": ["DejaVu Sans"],
        "font.size": 10,
        "text.color": INK,
        "text.parse_math": False,  # labels are not mathematics
        "axes.edgecolor": MUTED,
        "axes.labelcolor": INK,
        "axes.linewidth": 0.8,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "axes.titlesize": 10,
        "axes.titlelocation": "left",
        "axes.labelsize": 9.5,
        "xtick.color": MUTED,
        "ytick.color": MUTED,
        "xtick.labelcolor": INK,
        "ytick.labelcolor": INK,
        "xtick.labelsize": 9,
        "ytick.labelsize": 9,
        "grid.color": GRID,
        "grid.linewidth": 0.8,
        "lines.linewidth": 1.6,
        "lines.markersize": 6,
        "figure.facecolor": PAPER,
        "axes.facecolor": "none",
        "svg.fonttype": "none",
        "svg.hashsalt": "focal-lab",
        "pdf.fonttype": 42,
        "path.simplify": True,
        "path.simplify_threshold": 0.5,
        "savefig.dpi": 160,
    }


def new_figure(height: float, width: float = WIDTH, *, arranged: bool = True) -> "Figure":
    """An empty figure of that size in inches, with a canvas that can measure texts.

    Args:
        arranged: matplotlib finds room for labels; otherwise the caller does.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained" if arranged else None)
    FigureCanvasAgg(figure)
    return figure


def put_title(figure: "Figure", title: str) -> None:
    """A title at the upper left, broken into lines that fit; the figure grows by its height."""
    import textwrap

    from matplotlib.layout_engine import ConstrainedLayoutEngine

    lines = textwrap.wrap(title, int(figure.get_figwidth() * 13))
    old = figure.get_figheight()
    extra = 0.12 + 0.19 * len(lines)
    share = old / (old + extra)
    engine = figure.get_layout_engine()
    if isinstance(engine, ConstrainedLayoutEngine):
        engine.set(rect=(0, 0, 1, share))
    else:
        for axes in figure.axes:
            x, y, width, height = axes.get_position().bounds
            axes.set_position((x, y * share, width, height * share))
    figure.set_figheight(old + extra)
    text = figure.text(0.0, 1.0, "\n".join(lines), ha="left", va="top", fontsize=11, fontweight="bold")
    text.set_in_layout(False)
    text.set_gid("title")
    text.set_position((0.06 / figure.get_figwidth(), 1 - 0.06 / (old + extra)))


def tidy(axes: "Axes", grid: str = "both") -> None:
    """Light grid lines behind the data, no ticks that stick out."""
    axes.grid(True, axis=grid)  # type: ignore[arg-type]
    axes.tick_params(length=0)


def words(label: str, longest: int = _LONGEST) -> str:
    """A label as a plot can show it: one line, not too long, printable."""
    text = " ".join("".join(letter if letter.isprintable() else " " for letter in label).split())
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def heading(title: str) -> str:
    """A column's heading with the paper's raised letters: APᵇ."""
    for plain, raised in _RAISED.items():
        title = title.replace(plain, raised)
    return title


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Positions as close to the wanted ones as a gap between neighbours allows, in the order given.

    Args:
        wanted: where labels would like to be.
        gap: least distance, in the same unit; smaller if there is no room for it.
        low, high: between which they have to stay.
    """
    if not wanted:
        return []
    gap = min(gap, (high - low) / max(1, len(wanted) - 1))
    order = sorted(range(len(wanted)), key=lambda index: wanted[index])
    # pools of neighbours that touch: [mean of what their first one wants, how many]
    pools: list[list[float]] = []
    for rank, index in enumerate(order):
        pools.append([wanted[index] - rank * gap, 1])
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            value, count = pools.pop()
            before, many = pools[-1]
            pools[-1] = [(before * many + value * count) / (many + count), many + count]
    firsts = [value for value, count in pools for _ in range(int(count))]
    last = high - (len(wanted) - 1) * gap
    placed = [0.0] * len(wanted)
    for rank, index in enumerate(order):
        placed[index] = min(max(firsts[rank], low), last) + rank * gap
    return placed
