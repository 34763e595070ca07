import pytest

from focal_lab.ablation.columns import COLUMNS
from focal_lab.errors import UserError
from focal_lab.report.layouts import LAYOUTS, find_layout, known_papers, published_values
from focal_lab.report.paper import published

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
    assert found == {column: value for column, value in wanted.items() if value is not None}


def test_the_list_above_leaves_no_published_row_out() -> None:
    for key in known_papers():
        assert sum(row[0] == key for row in PAPER) == len(published(key))


@pytest.mark.parametrize(("label", "top1"), [("false", 82.2), ("False", 82.2), ("true", 81.9), ("on", 81.9)])
def test_a_switch_may_be_labelled_by_its_value(label: str, top1: float) -> None:
    found = published_values(
        LAYOUTS["table9_window_shift"], {"backbone": "Focal-Tiny", "window_shift": label}
    )
    assert found is not None
    assert found["top1"] == top1


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
    assert published_values(LAYOUTS["table8_window_size"], labels) is None


def test_an_unknown_paper_key_is_refused_with_those_that_exist() -> None:
    with pytest.raises(UserError, match=r"'table88' is not .* \(use table8_window_size, .*null\)"):
        find_layout("table88")


@pytest.mark.parametrize("key", known_papers())
def test_every_layout_names_fields_and_columns_that_exist(key: str) -> None:
    layout = LAYOUTS[key]
    assert set(layout.fields) <= set(COLUMNS)
    for row in published(key):
        assert set(layout.factors.values()) <= set(row)
    words = {str(row[field]) for row in published(key) for field in layout.factors.values()}
    for aliases in layout.aliases.values():
        assert {alias.casefold() for alias in aliases.values()} <= {word.casefold() for word in words}
