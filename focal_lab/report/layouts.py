"""How a sweep's labels find their row in the paper, as data: one entry per published table.

A new table is a new entry in `_ALL`; nothing else knows which tables there are.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from focal_lab.errors import UserError, one_of
from focal_lab.report.paper import published

# Column key -> field of a published row. A table has some of these fields.
_FIELDS = {
    "params": "params_M",
    "gmacs": "flops_G",
    "top1": "top1",
    "ap_box": "AP_b",
    "ap_mask": "AP_m",
    "miou": "mIoU",
}


@dataclass(frozen=True)
class Layout:
    """One published table and how to look a cell up in it.

    Attributes:
        key: the table's key in `paper_tables.yaml`, and a sweep's `paper`.
        cite: how people call it.
        setting: what its numbers were measured on.
        factors: sweep factor -> field that identifies a published row.
        fields: column key -> field that holds its number.
        aliases: factor -> our label in lower case -> the paper's word, where they differ.
    """

    key: str
    cite: str
    setting: str
    factors: dict[str, str]
    fields: dict[str, str] = field(default_factory=lambda: dict(_FIELDS))
    aliases: dict[str, dict[str, str]] = field(default_factory=dict)


_SETTING = "ImageNet-1K at 224 px, Mask R-CNN 1x on COCO"
_ALL = (
    Layout(
        key="table8_window_size",
        cite="table 8",
        setting=_SETTING,
        factors={"backbone": "model", "window_size": "window_size"},
    ),
    Layout(
        key="table9_window_shift",
        cite="table 9",
        setting=_SETTING,
        factors={"backbone": "model", "window_shift": "window_shift"},
        aliases={
            "window_shift": {"without": "false", "with": "true", "no": "false", "yes": "true"}
            | {"off": "false", "on": "true"}
        },
    ),
    Layout(
        key="table10_depth",
        cite="table 10",
        setting=_SETTING,
        factors={"backbone": "model", "depths": "depths"},
        aliases={"backbone": {"swin-tiny": "Swin", "focal-tiny": "Focal"}},
    ),
    Layout(
        key="figure5_local_global",
        cite="figure 5",
        setting=_SETTING,
        factors={"interactions": "variant"},
        fields=_FIELDS | {"ap_box": "maskrcnn_1x_AP_b"},
        aliases={"interactions": {"+local+global": "+Local+Global (full Focal-Tiny)"}},
    ),
)
LAYOUTS: dict[str, Layout] = {layout.key: layout for layout in _ALL}


def known_papers() -> tuple[str, ...]:
    """What a sweep file may name under `paper`; reads no file."""
    return tuple(LAYOUTS)


def find_layout(paper: str) -> Layout:
    """The layout of that published table.

    Raises:
        UserError: there is none; the message lists those that exist.
    """
    if paper not in LAYOUTS:
        raise UserError(f"{paper!r} is not a published table with a layout (use {one_of(LAYOUTS)} or null)")
    return LAYOUTS[paper]


def published_values(layout: Layout, labels: Mapping[str, str]) -> dict[str, float] | None:
    """What the paper prints for a cell: column key -> number, in the unit of the column's heading.

    A sweep that varies more, or less, than the published table has no counterpart there: the paper's number
    belongs to one level of the extra factor only, and which one is not ours to guess.

    Args:
        layout: the table to look in.
        labels: factor -> level label of the cell.

    Returns:
        None when the table has no row for the cell.
    """
    if labels.keys() != layout.factors.keys():
        return None
    wanted = {layout.factors[factor]: _paper_word(layout, factor, label) for factor, label in labels.items()}
    for row in published(layout.key):
        if all(_word(row[name]) == word for name, word in wanted.items()):
            return {key: float(row[name]) for key, name in layout.fields.items() if row.get(name) is not None}
    return None


def _paper_word(layout: Layout, factor: str, label: str) -> str:
    return _word(layout.aliases.get(factor, {}).get(_word(label), label))


def _word(value: Any) -> str:
    """`False`, `false` and `FALSE` are one label; so are 7 and "7"."""
    return str(value).strip().casefold()
