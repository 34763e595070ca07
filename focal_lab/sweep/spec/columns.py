"""What a table can show: one entry per column that a sweep file may name under `columns`."""

from collections.abc import Sequence
from dataclasses import dataclass

from focal_lab.errors import UserError, one_of


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        key: the name in sweep files and CSV.
        title: the heading people read.
        task: the task whose metric it is; None when every run has it.
        scale: what the stored value is multiplied by for showing.
        digits: decimals shown.
        higher_is_better: False for losses and the like.
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
# what a task is about, in a table that names none of its metrics
MAIN = {"classification": "top1", "detection": "ap_box", "segmentation": "miou"}
COLUMNS: dict[str, Column] = {column.key: column for column in _ALL}


def find_column(key: str) -> Column:
    """The column of that key.

    Raises:
        UserError: there is none; the message lists those that exist.
    """
    if key not in COLUMNS:
        raise UserError(f"{key!r} is not a column (use {one_of(COLUMNS)})")
    return COLUMNS[key]


def with_main_columns(keys: Sequence[str], tasks: Sequence[str]) -> tuple[str, ...]:
    """The columns, and the main metric of each task that has none among them."""
    shown = {COLUMNS[key].task for key in keys}
    return (*keys, *(MAIN[task] for task in tasks if task not in shown))
