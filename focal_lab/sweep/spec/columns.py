"""The columns that a sweep file may name under `columns`, and the image sizes of GMACs."""

from collections.abc import Sequence
from dataclasses import dataclass

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
    """

    key: str
    title: str
    task: str | None = None
    scale: float = 1.0
    digits: int = 1
    higher_is_better: bool = True

    @property
    def unit(self) -> str:
        """`%` of `Top-1 (%)`; empty for what has none in its heading."""
        return self.title.partition("(")[2].removesuffix(")")


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
# the metric of a task in a table that names none
MAIN = {"classification": "top1", "detection": "ap_box", "segmentation": "miou"}
COLUMNS: dict[str, Column] = {column.key: column for column in _ALL}

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
