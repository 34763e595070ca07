"""The columns that a sweep file may name under `columns`, and the image sizes of GMACs."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf

from focal_lab.errors import UserError, known_names


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        key: the name in sweep files and CSV.
        title: the heading.
        task: the task whose metric it is; None when every run has it.
        scale: what the stored value is multiplied by for display.
        digits: decimals.
        margin: the largest difference that counts as none unless a sweep file says otherwise, in the unit of
            the heading; None for what is not a metric.
    """

    key: str
    title: str
    task: str | None = None
    scale: float = 1.0
    digits: int = 1
    higher_is_better: bool = True
    margin: float | None = None

    @property
    def unit(self) -> str:
        """`%` of `Top-1 (%)`; empty for what has none in its heading."""
        return self.title.partition("(")[2].removesuffix(")")

    @property
    def in_points(self) -> bool:
        """Whether it runs from 0 to 100, as accuracies and average precision do."""
        return self.task is not None and self.higher_is_better


_ALL = (
    Column("params", "#Params (M)", scale=1e-6, digits=2),
    Column("gmacs", "GMACs", digits=3),
    Column("top1", "Top-1 (%)", "classification"),
    Column("top5", "Top-5 (%)", "classification"),
    Column("loss", "Loss", "classification", digits=3, higher_is_better=False),
    Column("ema_top1", "Top-1 of average (%)", "classification"),
    Column("ema_top5", "Top-5 of average (%)", "classification"),
    Column("ema_loss", "Loss of average", "classification", digits=3, higher_is_better=False),
    Column("ap_box", "AP^b", "detection"),
    Column("ap50_box", "AP^b_50", "detection"),
    Column("ap75_box", "AP^b_75", "detection"),
    Column("ap_small_box", "AP^b_S", "detection"),
    Column("ap_medium_box", "AP^b_M", "detection"),
    Column("ap_large_box", "AP^b_L", "detection"),
    Column("ap_mask", "AP^m", "detection"),
    Column("ap50_mask", "AP^m_50", "detection"),
    Column("ap75_mask", "AP^m_75", "detection"),
    Column("miou", "mIoU (%)", "segmentation"),
    Column("macc", "mAcc (%)", "segmentation"),
    Column("pixel_acc", "Pixel acc (%)", "segmentation"),
    Column("train_seconds", "Train (s)", digits=0),
    Column("images_per_second", "Images/s", digits=0),
    Column("peak_memory_mb", "Peak memory (MB)", digits=0),
)

# Half a point is about what published re-evaluations of one network differ by; losses have their own scale.
_MARGIN, _LOSS_MARGIN = 0.5, 0.02


def _margin_of(column: Column) -> float | None:
    if column.task is None:
        return None
    return _MARGIN if column.in_points else _LOSS_MARGIN


# the metric of a task in a table that names none
MAIN = {"classification": "top1", "detection": "ap_box", "segmentation": "miou"}
COLUMNS: dict[str, Column] = {column.key: replace(column, margin=_margin_of(column)) for column in _ALL}

# Margins in points outside of these are mistakes: 0.005 is a fraction that was meant as 0.5 points.
_LEAST_POINTS, _MOST_POINTS = 0.01, 20

# Height and width in px of the input for which papers print multiply-accumulates.
PAPER_SIZES = {"classification": (224, 224), "detection": (800, 1280), "segmentation": (512, 2048)}
_SIZE_SOURCES = {
    "images": "what most images become when they are evaluated",
    "assumed": "assumed: nothing here says how large the images are",
}


def find_column(key: str) -> Column:
    """The column of that key; raises UserError if there is none."""
    if key not in COLUMNS:
        raise UserError(f"{key!r} is not a column{known_names(key, COLUMNS)}")
    return COLUMNS[key]


def check_margin(key: str, value: object) -> float:
    """A margin of equivalence of a metric, in its unit.

    Raises:
        UserError: not a number, or out of the metric's range, which a fraction instead of points is.
    """
    column = find_column(key)
    if column.margin is None:
        raise UserError(f"{key} is not a metric of a task, so it has no margin")
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < inf:
        raise UserError(f"{value!r} is not a margin of {key} (use a number above 0, such as {column.margin})")
    if column.in_points and not _LEAST_POINTS <= value <= _MOST_POINTS:
        raise UserError(
            f"{value:g} is not a margin of {key}, which is in points from 0 to 100 (use {_LEAST_POINTS} to "
            f"{_MOST_POINTS}, such as {column.margin})"
        )
    return float(value)


def with_main_columns(keys: Sequence[str], tasks: Sequence[str]) -> tuple[str, ...]:
    """The columns, and the main metric of each task that has none among them."""
    shown = {COLUMNS[key].task for key in keys}
    return (*keys, *(MAIN[task] for task in tasks if task not in shown))


def pixels(size: tuple[int, int]) -> str:
    """`800 x 1280 px`: height and width."""
    return f"{size[0]} x {size[1]} px"


def counted_at(task: str, size: tuple[int, int], source: str) -> str:
    """`800 x 1088 px, what most images become when they are evaluated (papers count 800 x 1280 px)`.

    Args:
        source: as in `EvaluationSize`.
    """
    text = f"{pixels(size)}, {_SIZE_SOURCES[source]}" if source in _SIZE_SOURCES else pixels(size)
    other = source != "options" and size != PAPER_SIZES.get(task, size)
    return f"{text} (papers count {pixels(PAPER_SIZES[task])})" if other else text
