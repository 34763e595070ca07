"""COCO's annotation files: real ones are read rightly, and what is wrong with them is said in one line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.coco_data import annotation, content, write, written

from focal_lab.data.detection.coco_annotations import read_coco
from focal_lab.errors import UserError

SQUARE = [4, 6, 24, 6, 24, 16, 4, 16]
NAN = float("nan")
# a field of annotation 100, in image 7 of 60 x 40 px: what it is and what is said of it
FIELDS: list[tuple[str, Any, str]] = [
    ("image_id", 99, "99 is not in the file"),
    ("image_id", "7", '"7" is not a whole number'),
    ("category_id", 2, "2 is not in the file, which has 3 (1 to 90"),
    ("bbox", [1, 2, 3], "[1, 2, 3] is not four finite numbers"),
    ("bbox", ["1", "2", "3", "4"], "is not four finite numbers"),
    ("bbox", [1, NAN, 3, 4], "[1, NaN, 3, 4] is not four finite numbers"),
    ("bbox", [1, 10**400, 3, 4], "is not four finite numbers"),
    ("bbox", [9, 9, -4, 4], "[9, 9, -4, 4] has a negative width or height"),
    ("iscrowd", "0", '"0" is not 0 or 1'),
    ("iscrowd", 2, "2 is not 0 or 1"),
    ("area", "480", '"480" is not a number of 0 or more'),
    ("area", -1, "-1 is not a number"),
    ("segmentation", [[4, 6, 24, 16]], "polygon 0, [4, 6, 24, 16], has 2 points, but needs 3"),
    ("segmentation", [SQUARE[:7]], "has 7 numbers, but points have two each"),
    ("segmentation", [SQUARE, []], "polygon 1, [], has 0 points"),
    ("segmentation", SQUARE, "polygon 0, 4, is not a list"),
    ("segmentation", [[[4, 6], [24, 6], [24, 16]]], "is nested too deeply"),
    ("segmentation", [[*SQUARE, NAN, 1]], "contains values that are not finite numbers"),
    (
        "segmentation",
        {"size": [60, 40], "counts": [400, 40, 1960]},
        "[60, 40] is not that of its image, [40, 60]",
    ),
    ("segmentation", {"size": [40, 60], "counts": [400, 40]}, "counts sum to 440 px, and its image has 2400"),
    ("segmentation", {"size": [40, 60], "counts": "b'`<X1Xm1'"}, "not compressed run lengths"),
    ("segmentation", {"size": [40, 60], "counts": "`<X1"}, "counts sum to 440 px"),
    ("segmentation", {}, "neither a list of polygons nor run lengths"),
]


def test_boxes_without_area_are_dropped_and_counted_and_others_are_cut_at_the_edge(tmp_path: Path) -> None:
    made = content()
    made["annotations"] += [
        annotation(200, 9, [5.0, 5.0, 0.0, 9.0]),
        annotation(201, 9, [70.0, 5.0, 9.0, 9.0]),
        annotation(202, 9, [50.0, 30.0, 30.0, 30.0]),
    ]
    folder = write(tmp_path / "coco", made)
    with pytest.warns(UserWarning, match="2 of 8 boxes are less than a pixel .*first: annotation 200"):
        found = read_coco(folder / "annotations" / "instances_val2017.json")
    (image,) = (p for p in found.images if p.number == 9)
    assert [thing.box for thing in image.objects] == [(50.0, 30.0, 60.0, 40.0)]


@pytest.mark.parametrize(("field", "value", "reported"), FIELDS)
def test_a_field_that_cannot_be_is_refused_by_its_annotations_id(
    tmp_path: Path, field: str, value: Any, reported: str
) -> None:
    path = written(tmp_path / "some.json", lambda made: made["annotations"][0].update({field: value}))
    with pytest.raises(UserError) as error:
        read_coco(path)
    assert str(error.value).startswith(f"{path}: annotation 100: {field}: ")
    assert reported in str(error.value)


@pytest.mark.parametrize(
    ("spoil", "reported"),
    [
        (lambda made: made.update(images=[], annotations=[]), "images: is empty"),
        (lambda made: made.update(categories=[]), "categories: is empty"),
        (lambda made: made.pop("categories"), "is not a COCO annotation file"),
        (lambda made: made.update(annotations={"1": {}}), 'annotations: {"1": {}} is not a list'),
        (lambda made: made["annotations"].append(None), "annotations[5]: null is not an annotation"),
        (lambda made: made["annotations"][1].pop("bbox"), "annotation 101: bbox: is missing"),
        (lambda made: made["images"].append(made["images"][0]), "images[5].id: 7 is the id of another"),
        (lambda made: made["images"][0].pop("height"), "image 7: height: is missing"),
        (lambda made: made["images"][0].update(width="60"), 'image 7: width: "60" is not a whole number'),
        (lambda made: made["images"][0].update(id="7"), 'images[0].id: "7" is not a whole number'),
        (lambda made: made["images"][0].update(file_name=None), "image 7: file_name: null is not a name"),
        (lambda made: made["categories"][0].update(name=None), "category 3: name: null is not a name"),
        (
            lambda made: [
                entry.update(bbox=[x, y, x + w, y + h])
                for entry in made["annotations"]
                for x, y, w, h in [entry["bbox"]]
            ],
            "has the box [4.0, 6.0, 24.0, 16.0], which fits only as x1, y1, x2, y2",
        ),
    ],
)
def test_what_is_wrong_with_a_file_is_said_in_one_line(
    tmp_path: Path, spoil: Callable[[dict[str, Any]], object], reported: str
) -> None:
    path = written(tmp_path / "instances.json", spoil)
    with pytest.raises(UserError) as error:
        read_coco(path)
    assert str(error.value).startswith(f"{path}: ")
    assert reported in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("field", "value", "read"),
    [
        ("iscrowd", None, (False, 200)),
        ("iscrowd", True, (True, 200)),
        ("area", None, (False, 200)),
        ("area", 0, (False, 200)),
        ("image_id", 7.0, (False, 200)),
    ],
)
def test_what_can_mean_one_thing_alone_is_read_as_that(
    tmp_path: Path, field: str, value: Any, read: tuple[bool, float]
) -> None:
    path = written(tmp_path / "some.json", lambda made: made["annotations"][0].update({field: value}))
    first = read_coco(path).images[0].objects[0]
    assert (first.crowd, first.area) == read


@pytest.mark.parametrize(
    ("change", "reported"),
    [
        (
            lambda made: made["annotations"][0].update(bbox=[50, 30, 30, 30]),
            "1 of 5 boxes reach more than a pixel beyond their image and are cut .*first: annotation 100",
        ),
        (
            lambda made: made["annotations"][0].update(segmentation=[[0.1, 0.1, 0.3, 0.1, 0.3, 0.4]]),
            "1 of 5 masks reach elsewhere than their boxes .*first: annotation 100",
        ),
        (
            lambda made: made["annotations"][0].update(segmentation=[]),
            "1 of 5 objects have no segmentation, while others have one",
        ),
        (
            lambda made: made["annotations"][1].update(id=100),
            "1 of 5 annotations have the same id as another",
        ),
        (
            lambda made: made["annotations"].append(made["annotations"][0] | {"id": 1}),
            "1 annotations repeat the box and category .*first: image 7",
        ),
        (lambda made: made["images"][0].update(file_name="8.png"), "8.png is the file of several images"),
        (
            lambda made: made["categories"].append({"id": 2, "name": "bus"}),
            r"no object is a bus \(1 of the 4 classes\)",
        ),
        (
            lambda made: made["categories"].append({"id": 2, "name": "car"}),
            "car is the name of several categories; their ids are added",
        ),
    ],
)
def test_what_is_odd_is_counted_in_a_warning(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], reported: str
) -> None:
    with pytest.warns(UserWarning, match=reported):
        read_coco(written(tmp_path / "some.json", change))


def test_a_file_may_begin_with_a_byte_order_mark_and_not_be_a_list(tmp_path: Path) -> None:
    path = tmp_path / "some.json"
    path.write_text(json.dumps(content()), encoding="utf-8-sig")
    assert len(read_coco(path).images) == 5
    path.write_text(json.dumps(content()["annotations"]), encoding="utf-8")
    with pytest.raises(UserError, match="is a list, as in COCO's result files"):
        read_coco(path)
