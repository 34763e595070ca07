import pytest

from focal_lab.errors import UserError
from focal_lab.report.published.layouts import (
    find_layout,
    known_papers,
    paper_tables,
    published,
    published_rows,
    published_values,
)
from focal_lab.sweep.spec.columns import COLUMNS

# Typed off the paper: table, labels as the shipped sweeps have them, then GMACs, top-1, AP^b, AP^m, params.
PAPER = [
    ("table8_window_size", {"backbone": "Swin-Tiny", "window_size": "7"}, 4.5, 81.2, 43.7, 39.8, None),
    ("table8_window_size", {"backbone": "Swin-Tiny", "window_size": "14"}, 4.9, 82.1, 44.0, 40.5, None),
    ("table8_window_size", {"backbone": "Focal-Tiny", "window_size": "7"}, 4.9, 82.2, 44.9, 41.1, None),
    ("table8_window_size", {"backbone": "Focal-Tiny", "window_size": "14"}, 5.2, 82.3, 45.5, 41.5, None),
    (
        "table9_window_shift",
        {"backbone": "Swin-Tiny", "window_shift": "without"},
        None,
        80.2,
        38.8,
        36.4,
        None,
    ),
    ("table9_window_shift", {"backbone": "Swin-Tiny", "window_shift": "with"}, None, 81.2, 43.7, 39.8, None),
    (
        "table9_window_shift",
        {"backbone": "Focal-Tiny", "window_shift": "without"},
        None,
        82.2,
        44.8,
        41.0,
        None,
    ),
    ("table9_window_shift", {"backbone": "Focal-Tiny", "window_shift": "with"}, None, 81.9, 44.9, 41.1, None),
    ("table10_depth", {"backbone": "Swin-Tiny", "depths": "2-2-2-2"}, 3.1, 78.7, 38.2, 35.7, 21.2),
    ("table10_depth", {"backbone": "Focal-Tiny", "depths": "2-2-2-2"}, 3.4, 79.9, 40.5, 37.6, 21.7),
    ("table10_depth", {"backbone": "Swin-Tiny", "depths": "2-2-4-2"}, 3.8, 80.2, 41.2, 38.1, 24.7),
    ("table10_depth", {"backbone": "Focal-Tiny", "depths": "2-2-4-2"}, 4.1, 81.4, 43.3, 39.8, 25.4),
    ("table10_depth", {"backbone": "Swin-Tiny", "depths": "2-2-6-2"}, 4.5, 81.2, 43.7, 39.8, 28.3),
    ("table10_depth", {"backbone": "Focal-Tiny", "depths": "2-2-6-2"}, 4.9, 82.2, 44.8, 41.0, 29.1),
    ("figure5_local_global", {"interactions": "Window"}, None, 80.1, 38.8, None, None),
    ("figure5_local_global", {"interactions": "+Local"}, None, 81.4, 43.9, None, None),
    ("figure5_local_global", {"interactions": "+Global"}, None, 81.6, 42.2, None, None),
    ("figure5_local_global", {"interactions": "+Local+Global"}, None, 82.2, 44.8, None, None),
]


ABLATIONS = ["table8_window_size", "table9_window_shift", "table10_depth", "figure5_local_global"]
COMPARISONS = sorted(set(known_papers()) - set(ABLATIONS))
SIZES = {"Tiny": "T", "Small": "S", "Base": "B"}


@pytest.mark.parametrize(("key", "labels", "gmacs", "top1", "ap_box", "ap_mask", "params"), PAPER)
def test_every_row_of_the_paper_is_found_by_the_sweeps_labels(
    key: str,
    labels: dict[str, str],
    gmacs: float | None,
    top1: float,
    ap_box: float,
    ap_mask: float | None,
    params: float | None,
) -> None:
    wanted = {"gmacs": gmacs, "top1": top1, "ap_box": ap_box, "ap_mask": ap_mask, "params": params}
    found = published_values(find_layout(key), labels)
    assert found is not None
    assert found.values == {column: value for column, value in wanted.items() if value is not None}


def test_the_list_above_leaves_no_published_row_out() -> None:
    for key in ABLATIONS:
        assert sum(row[0] == key for row in PAPER) == len(published(key))


@pytest.mark.parametrize(("label", "top1"), [("false", 82.2), ("False", 82.2), ("true", 81.9), ("on", 81.9)])
def test_a_switch_may_be_labelled_by_its_value(label: str, top1: float) -> None:
    found = published_values(
        find_layout("table9_window_shift"), {"backbone": "Focal-Tiny", "window_shift": label}
    )
    assert found is not None
    assert found.values["top1"] == top1


@pytest.mark.parametrize(
    "labels",
    [
        {"backbone": "Focal-Small", "window_size": "7"},
        {"backbone": "Focal-Tiny", "window_size": "9"},
        {"backbone": "Focal-Tiny"},
        {"backbone": "Focal-Tiny", "window_size": "7", "focal_pool": "mean"},
    ],
)
def test_a_cell_that_the_paper_does_not_have_has_no_published_values(labels: dict[str, str]) -> None:
    assert published_values(find_layout("table8_window_size"), labels) is None


def test_an_unknown_paper_key_is_refused_with_those_that_exist() -> None:
    with pytest.raises(UserError, match=r"'table88' is not .* \(use table8_window_size, .*null\)"):
        find_layout("table88")


@pytest.mark.parametrize("key", known_papers())
def test_every_layout_names_fields_and_columns_that_exist(key: str) -> None:
    layout = find_layout(key)
    assert {name for _, _, fields in layout.groups() for name in fields} <= set(COLUMNS)
    names = [name for name in layout.factors.values() if name]
    for row in published(key):
        assert {*names, *layout.where} <= set(row)
    words = {str(row[field]) for row in published(key) for field in names}
    for aliases in layout.aliases.values():
        assert {alias.casefold() for alias in aliases.values()} <= {word.casefold() for word in words}


# Typed off the paper: table, our labels, values.
COMPARED = [
    ("table2_imagenet1k", {"backbone": "Swin-Base"}, {"params": 87.8, "gmacs": 15.4, "top1": 83.4}),
    ("table2_imagenet1k", {"backbone": "Focal-Small"}, {"params": 51.1, "gmacs": 9.1, "top1": 83.5}),
    ("table3_coco_1x_summary", {"backbone": "Focal-Tiny", "detector": "RetinaNet"}, {"ap_box": 43.7}),
    (
        "table3_coco_1x_summary",
        {"backbone": "Swin-Small", "detector": "Mask R-CNN"},
        {"ap_box": 46.5, "ap_mask": 42.1},
    ),
    (
        "table4_coco_3x_MS",
        {"backbone": "Focal-Tiny", "detector": "RetinaNet"},
        {"params": 39.4, "gmacs": 265.0, "ap_box": 45.5, "ap50_box": 66.3, "ap75_box": 48.8}
        | {"ap_small_box": 31.2, "ap_medium_box": 49.2, "ap_large_box": 58.7},
    ),
    (
        "table12_coco_1x_full",
        {"backbone": "Focal-Base", "detector": "mask r-cnn"},
        {"params": 110.0, "gmacs": 533.0, "ap_box": 47.8, "ap50_box": 70.2, "ap75_box": 52.5}
        | {"ap_mask": 43.2, "ap50_mask": 67.3, "ap75_mask": 46.5},
    ),
    ("table7_ade20k", {"backbone": "Focal-Tiny"}, {"params": 62.0, "gmacs": 998.0, "miou": 45.8}),
    ("table7_ade20k", {"backbone": "Focal-Large"}, {"params": 240.0, "gmacs": 3376.0, "miou": 54.0}),
]


@pytest.mark.parametrize(("key", "labels", "values"), COMPARED)
def test_cells_of_the_comparisons_are_found(
    key: str, labels: dict[str, str], values: dict[str, float]
) -> None:
    found = published_values(find_layout(key), labels)
    assert found is not None
    assert found.values == values


@pytest.mark.parametrize("key", COMPARISONS)
def test_every_published_cell_has_its_own_place_and_name(key: str) -> None:
    rows = list(published_rows(find_layout(key)))
    places = [found.place for _, found in rows]
    assert places == sorted(set(places))
    assert len({tuple(labels.values()) for labels, _ in rows}) == len(rows)
    assert len(rows) == len(find_layout(key).groups()) * len(published(key))


def test_every_focal_row_of_the_comparisons_has_a_label_of_ours() -> None:
    for size, letter in SIZES.items():
        for key in COMPARISONS:
            for detector in [name for _, name, _ in find_layout(key).groups()]:
                labels = {"backbone": f"Focal-{size}"} | ({"detector": detector} if detector else {})
                found = published_values(find_layout(key), labels)
                assert found is not None
                rows = {place.place: names for names, place in published_rows(find_layout(key))}
                assert rows[found.place]["backbone"] in (f"Focal-{size}", f"Focal-{letter}")


def test_other_methods_are_named_beside_their_backbone() -> None:
    names = [labels["backbone"] for labels, _ in published_rows(find_layout("table7_ade20k"))]
    assert "ResNet-101 (DANet)" in names
    assert "ResNet-101" in names  # UPerNet, as the sweep trains it


def test_rows_come_in_the_papers_order_with_their_units_in_the_field_names() -> None:
    rows = published("table10_depth")
    assert [(row["depths"], row["model"], row["params_M"]) for row in rows[:2]] == [
        ("2-2-2-2", "Swin", 21.2),
        ("2-2-2-2", "Focal", 21.7),
    ]


def test_tables_with_notes_beside_their_rows_answer_the_rows() -> None:
    assert "note" in paper_tables()["table8_window_size"]
    assert [row["top1"] for row in published("table8_window_size")] == [81.2, 82.1, 82.2, 82.3]
