"""How a sweep's labels find their row in the paper, as data: one entry per published table.

A new table is a new entry in `_ALL`; nothing else knows which tables there are.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from focal_lab.errors import UserError, one_of
from focal_lab.report.published.tables import published

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
        fields: column key -> field that holds its number; `a.b` is the field b of the field a.
        aliases: factor -> our label in lower case -> the paper's word, where they differ.
        split: a factor whose labels are not rows but groups of columns of the published table, and for each
            of its labels the `fields`; None where every cell is a row.
        where: fields that a row must have to be one that a sweep could measure.
        counted_task: whose parameters and GMACs the table prints.
        others: show the rows that the sweep does not train, too: the table is there to compare with them.
    """

    key: str
    cite: str
    setting: str
    factors: dict[str, str]
    fields: dict[str, str] = field(default_factory=lambda: dict(_FIELDS))
    aliases: dict[str, dict[str, str]] = field(default_factory=dict)
    split: tuple[str, dict[str, dict[str, str]]] | None = None
    where: dict[str, str] = field(default_factory=dict)
    counted_task: str = "classification"
    others: bool = False

    def fields_of(self, labels: Mapping[str, str]) -> Mapping[str, str]:
        """Column key -> field, for a cell; none when its group of columns is not in the table."""
        if self.split is None:
            return self.fields
        factor, groups = self.split
        return next((f for label, f in groups.items() if _word(label) == _word(labels[factor])), {})


@dataclass(frozen=True)
class Published:
    """What the paper prints for a cell.

    Attributes:
        place: where it stands in the published table.
        values: column key -> number, in the unit of the column's heading.
    """

    place: tuple[int, int]
    values: dict[str, float]


_SETTING = "ImageNet-1K at 224 px, Mask R-CNN 1x on COCO"
_COCO = "COCO val2017"
_RETINANET = {
    "params": "retinanet.params_M",
    "gmacs": "retinanet.flops_G",
    "ap_box": "retinanet.AP",
    "ap50_box": "retinanet.AP50",
    "ap75_box": "retinanet.AP75",
    "ap_small_box": "retinanet.APS",
    "ap_medium_box": "retinanet.APM",
    "ap_large_box": "retinanet.APL",
}
_MASK_RCNN = {
    "params": "mask_rcnn.params_M",
    "gmacs": "mask_rcnn.flops_G",
    "ap_box": "mask_rcnn.AP_b",
    "ap50_box": "mask_rcnn.AP_b50",
    "ap75_box": "mask_rcnn.AP_b75",
    "ap_mask": "mask_rcnn.AP_m",
    "ap50_mask": "mask_rcnn.AP_m50",
    "ap75_mask": "mask_rcnn.AP_m75",
}
_DETECTORS = {"backbone": "name", "detector": ""}
_FULL = ("detector", {"RetinaNet": _RETINANET, "Mask R-CNN": _MASK_RCNN})
_SEGMENTERS = {
    f"{family}-{size}": f"{family}-{size[0]}"
    for family in ("swin", "focal")
    for size in ("tiny", "small", "base")
} | {"focal-large": "Focal-L (IN-22K)"}
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
    Layout(
        key="table2_imagenet1k",
        cite="table 2",
        setting="ImageNet-1K, 224 px",
        factors={"backbone": "name"},
        others=True,
    ),
    Layout(
        key="table3_coco_1x_summary",
        cite="table 3",
        setting=f"{_COCO}, 1x schedule",
        factors=_DETECTORS,
        split=(
            "detector",
            {
                "RetinaNet": {"ap_box": "retinanet_AP_b"},
                "Mask R-CNN": {"ap_box": "maskrcnn_AP_b", "ap_mask": "maskrcnn_AP_m"},
            },
        ),
        counted_task="detection",
        others=True,
    ),
    Layout(
        key="table4_coco_3x_MS",
        cite="table 4",
        setting=f"{_COCO}, 3x schedule with multi-scale training",
        factors=_DETECTORS,
        split=_FULL,
        counted_task="detection",
        others=True,
    ),
    Layout(
        key="table12_coco_1x_full",
        cite="table 12",
        setting=f"{_COCO}, 1x schedule",
        factors=_DETECTORS,
        split=_FULL,
        counted_task="detection",
        others=True,
    ),
    Layout(
        key="table7_ade20k",
        cite="table 7",
        setting="ADE20K at 512 px (Focal-Large: 640), UPerNet",
        factors={"backbone": "backbone"},
        aliases={"backbone": _SEGMENTERS},
        where={"method": "UperNet"},
        counted_task="segmentation",
        others=True,
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


def published_values(layout: Layout, labels: Mapping[str, str]) -> Published | None:
    """What the paper prints for a cell.

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
    wanted = {
        name: _paper_word(layout, factor, labels[factor]) for factor, name in layout.factors.items() if name
    }
    wanted |= {name: _word(value) for name, value in layout.where.items()}
    group = 0
    if layout.split is not None:
        factor, groups = layout.split
        words = [_word(label) for label in groups]
        if _word(labels[factor]) not in words:
            return None
        group = words.index(_word(labels[factor]))
    for place, row in enumerate(published(layout.key)):
        if all(_word(row[name]) == word for name, word in wanted.items()):
            return Published((place, group), _numbers(row, layout.fields_of(labels)))
    return None


def published_rows(layout: Layout) -> Iterator[tuple[dict[str, str], Published]]:
    """Every cell of the published table with the labels that the paper gives it, in the paper's order."""
    groups = list(layout.split[1]) if layout.split else [""]
    for place, row in enumerate(published(layout.key)):
        for group, name in enumerate(groups):
            labels = {
                factor: str(row[column]) if column else name for factor, column in layout.factors.items()
            }
            numbers = _numbers(row, layout.fields_of(labels))
            method = row.get("method", "")
            if _word(method) != _word(layout.where.get("method", "")):
                labels = {factor: f"{label} ({method})" for factor, label in labels.items()}
            yield labels, Published((place, group), numbers)


def _numbers(row: Mapping[str, Any], fields: Mapping[str, str]) -> dict[str, float]:
    found = {}
    for key, name in fields.items():
        value: Any = row
        for part in name.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        if value is not None:
            found[key] = float(value)
    return found


def _paper_word(layout: Layout, factor: str, label: str) -> str:
    return _word(layout.aliases.get(factor, {}).get(_word(label), label))


def _word(value: Any) -> str:
    """`False`, `false` and `FALSE` are one label; so are 7 and "7"."""
    return str(value).strip().casefold()
