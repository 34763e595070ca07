"""A plot: its texts and a function that draws it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from focal_lab.report.plots.style import put_title, settings

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Plot:
    """A plot of a sweep; `name` is unique within the sweep, `drawing` is called by `draw`."""

    name: str
    title: str
    caption: str
    drawing: Callable[[], "Figure"] = field(repr=False, compare=False)

    def draw(self, *, titled: bool = True) -> "Figure":
        """A new figure, with the title on top; matplotlib's global state is not changed."""
        from matplotlib import rc_context

        with rc_context(settings()):
            figure = self.drawing()
            if titled:
                put_title(figure, self.title)
        return figure

    def save(self, stem: Path, formats: Iterable[str]) -> list[Path]:
        """Write `<stem>.<format>` for each format; the same results give the same files."""
        from matplotlib import rc_context

        figure = self.draw()
        paths = [stem.with_name(f"{stem.name}.{format}") for format in formats]
        for path in paths:
            dateless = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(path.suffix)
            with rc_context(settings()):
                figure.savefig(path, metadata=dateless)
        return paths
