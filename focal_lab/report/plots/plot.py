"""A plot: what it shows in words, and a function that draws it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from focal_lab.report.plots.style import settings

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Plot:
    """A plot of a sweep.

    Attributes:
        name: for file names; unique within a sweep.
        title: what is shown.
        caption: how to read it: marks, intervals, what was left out.
        drawing: makes the figure; called by `draw` alone.
    """

    name: str
    title: str
    caption: str
    drawing: Callable[[], "Figure"] = field(repr=False, compare=False)

    def draw(self, *, titled: bool = True) -> "Figure":
        """A new figure, sizes in inches, with the title on top; nothing global is changed."""
        from matplotlib import rc_context

        from focal_lab.report.plots.style import put_title

        with rc_context(settings()):
            figure = self.drawing()
            if titled:
                put_title(figure, self.title)
        return figure
