"""Checks the annotations of a COCO file; errors name annotation id and field."""

import json
import math
import warnings
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from faster_coco_eval.core import mask as rle
from faster_coco_eval.mask_api_new_cpp import toUncompressedRLE

from focal_lab.errors import UserError

Segmentation = list[Any] | dict[str, Any] | None
Box = tuple[float, float, float, float]

_NUMBERS = {int, float}
# Boxes may extend this much beyond their image, px: annotation tools round.
_SLACK = 1
# What is possible but unusual: counted while the file is read, and warned of once.
_BEYOND = "boxes reach more than a pixel beyond their image and are cut (boxes are x, y, width, height)"
_SMALL = "boxes are less than a pixel wide or high within their image and are left out"
_APART = "masks reach elsewhere than their boxes (boxes are x, y, width, height; points x, y)"
_SAME_ID = "annotations have the same id as another one; all are kept"
_NO_MASK = "objects have no segmentation, while others have one"


@dataclass(frozen=True)
class CocoObject:
    """One annotation.

    Attributes:
        box: corners (x1, y1, x2, y2) in px, within the image; the second is exclusive.
        label: class, counted from 0 in the order of the file's category ids.
        area: of the mask, in px; of the box if there is no mask and the file does not say.
        crowd: whether it marks a region of many objects, which training leaves out and evaluation ignores.
        segmentation: polygons or run lengths as the file has them; None for a box only.
    """

    box: Box
    label: int
    area: float
    crowd: bool
    segmentation: Segmentation


def whole(value: Any) -> int | None:
    """An integer, also if it is written as 3.0; None for anything else, True and "3" included."""
    if type(value) is float and value.is_integer():
        return int(value)
    return value if type(value) is int else None


def shown(value: Any) -> str:
    """A value as JSON, cut if it is long."""
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


class CheckedAnnotations:
    """Takes the annotations of a file one by one; knows each image's height and width and each id's class."""

    def __init__(self, path: Path, sizes: Mapping[int, tuple[int, int]], labels: Mapping[int, int]) -> None:
        self.path, self.sizes, self.labels = path, sizes, labels
        self.objects: dict[int, list[CocoObject]] = {number: [] for number in sizes}
        self.unusual: defaultdict[str, list[str]] = defaultdict(list)  # names of annotations
        self._ids: set[int] = set()
        self._name = ""  # of the annotation that is being checked
        self._taken = self._corners = self._surely_corners = 0
        self._corner_example = ""

    def add(self, position: int, entry: Any) -> None:
        """Check an annotation and add its object to its image, unless its box has no area.

        Raises UserError if a field is invalid.
        """
        self._name = f"annotations[{position}]"
        if not isinstance(entry, dict):
            raise self._error("", f"{shown(entry)} is not an annotation (an object with image_id, bbox, ...)")
        if "id" in entry:
            self._name = f"annotation {shown(entry['id'])}"
            if type(entry["id"]) is int:
                if entry["id"] in self._ids:
                    self.unusual[_SAME_ID].append(self._name)
                self._ids.add(entry["id"])
        image = self._known(entry, "image_id", self.sizes)
        label = self.labels[self._known(entry, "category_id", self.labels)]
        crowd = entry.get("iscrowd")
        if crowd is not None and (not isinstance(crowd, int | float) or crowd not in (0, 1)):
            raise self._error("iscrowd", f"{shown(crowd)} is not 0 or 1")
        height, width = self.sizes[image]
        box = self._box(entry)
        segmentation = entry.get("segmentation")
        if segmentation is None or segmentation == []:
            segmentation = extent = None
        else:
            extent = self._extent(segmentation, height, width)
        area = self._area(entry, box, segmentation)
        self._count_corners(box, extent, height, width)
        x, y, wide, high = box
        left, top, right, bottom = max(0.0, x), max(0.0, y), min(width, x + wide), min(height, y + high)
        # as in the detectors that the paper builds on: less than a pixel is no object
        if wide < 1 or high < 1 or right - left < 1 or bottom - top < 1:
            self.unusual[_SMALL].append(self._name)
            return
        if min(x, y) < -_SLACK or x + wide > width + _SLACK or y + high > height + _SLACK:
            self.unusual[_BEYOND].append(self._name)
        if extent is not None and 2 * _overlap(box, extent) < max(wide * high, extent[2] * extent[3]):
            self.unusual[_APART].append(self._name)
        if extent is None and not crowd:
            self.unusual[_NO_MASK].append(self._name)
        self.objects[image].append(
            CocoObject((left, top, float(right), float(bottom)), label, area, bool(crowd), segmentation)
        )

    def finish(self) -> None:
        """Warn of what is unusual, one line each; raises UserError if the boxes are corners."""
        if self._surely_corners and self._corners == self._taken:
            raise UserError(
                f"{self._corner_example}, which fits only as x1, y1, x2, y2, and so may all boxes of the "
                "file; COCO's are x, y, width, height (convert them)",
                file=self.path,
                key="annotations",
            )
        objects = [thing for of_image in self.objects.values() for thing in of_image if not thing.crowd]
        if len(self.unusual[_NO_MASK]) == len(objects):
            del self.unusual[_NO_MASK]  # a file of boxes
        for reason, names in self.unusual.items():
            if names:
                self._warn(f"{len(names)} of {self._taken} {reason} (first: {names[0]})")
        repeated = {
            number: len(things) - len({(thing.box, thing.label, thing.crowd) for thing in things})
            for number, things in self.objects.items()
        }
        if any(repeated.values()):
            first = next(number for number, count in repeated.items() if count)
            self._warn(
                f"{sum(repeated.values())} annotations repeat the box and category of another of their image "
                f"and count twice (first: image {first})"
            )

    def _warn(self, text: str) -> None:
        warnings.warn(f"{self.path}: {text}", stacklevel=2)

    def _error(self, field: str, message: str) -> UserError:
        where = f"{self._name}: {field}" if field else self._name
        return UserError(message, file=self.path, key=where)

    def _known(self, entry: Mapping[str, Any], field: str, known: Collection[int]) -> int:
        """The id of an image or a category."""
        if field not in entry:
            raise self._error(field, "is missing")
        number = whole(entry[field])
        if number is None:
            raise self._error(field, f"{shown(entry[field])} is not a whole number")
        if number not in known:
            raise self._error(
                field,
                f"{number} is not in the file, which has {len(known)} ({min(known)} to {max(known)}; "
                "remove the annotation, or add what it belongs to)",
            )
        return number

    def _box(self, entry: Mapping[str, Any]) -> Box:
        if "bbox" not in entry:
            raise self._error("bbox", "is missing")
        box = entry["bbox"]
        if type(box) is not list or len(box) != 4 or not _finite(box):
            raise self._error("bbox", f"{shown(box)} is not four finite numbers: x, y, width, height")
        x, y, wide, high = map(float, box)
        if wide < 0 or high < 0:
            raise self._error(
                "bbox", f"{shown(box)} has a negative width or height (boxes are x, y, width, height)"
            )
        self._taken += 1
        return x, y, wide, high

    def _extent(self, segmentation: Any, height: int, width: int) -> Box:
        """The box around a mask: x, y, width, height."""
        if type(segmentation) is list:
            for number, polygon in enumerate(segmentation):
                problem = _polygon_problem(polygon)
                if problem:
                    raise self._error("segmentation", f"polygon {number}, {shown(polygon)}, {problem}")
            left, top = (min(min(p[axis::2]) for p in segmentation) for axis in (0, 1))
            right, bottom = (max(max(p[axis::2]) for p in segmentation) for axis in (0, 1))
            return left, top, right - left, bottom - top
        problem = _run_length_problem(segmentation, height, width)
        if problem:
            raise self._error("segmentation", problem)
        x, y, wide, high = rle.toBbox(encoded(segmentation, height, width)).tolist()
        return x, y, wide, high

    def _area(self, entry: Mapping[str, Any], box: Box, segmentation: Segmentation) -> float:
        area = entry.get("area")
        if area is not None and (type(area) not in _NUMBERS or not _finite([area]) or area < 0):
            raise self._error("area", f"{shown(area)} is not a number of 0 or more")
        if area:
            return float(area)
        if isinstance(segmentation, list):
            return sum(map(_polygon_area, segmentation))
        if segmentation is not None:
            return float(rle.area(encoded(segmentation, *segmentation["size"])))
        return box[2] * box[3]

    def _count_corners(self, box: Box, extent: Box | None, height: int, width: int) -> None:
        """Count boxes that may be x1, y1, x2, y2, and those that must be.

        One alone proves nothing; if all boxes of a file may be, and some must be, they are.
        """
        left, top, right, bottom = box
        if not (left <= right <= width + _SLACK and top <= bottom <= height + _SLACK):
            return
        self._corners += 1
        corners = (left, top, right - left, bottom - top)
        beyond = left + right > width + _SLACK or top + bottom > height + _SLACK
        if beyond or (extent is not None and _near(corners, extent) and not _near(box, extent)):
            self._surely_corners += 1
            self._corner_example = self._corner_example or f"{self._name} has the box {list(box)}"


def _finite(values: list[Any]) -> bool:
    """Whether all are numbers, and none is infinite or NaN."""
    if not set(map(type, values)) <= _NUMBERS:
        return False
    try:
        return math.isfinite(sum(values))
    except OverflowError:  # an integer beyond the range of float
        return False


def _polygon_problem(polygon: Any) -> str | None:
    if type(polygon) is not list:
        return "is not a list (segmentation is a list of polygons, [[x1, y1, x2, y2, ...], ...])"
    if polygon and type(polygon[0]) is list:
        return "is nested too deeply (a polygon is a flat list x1, y1, x2, y2, ...)"
    if not _finite(polygon):
        return "contains values that are not finite numbers"
    if len(polygon) % 2:
        return f"has {len(polygon)} numbers, but points have two each"
    if len(polygon) < 6:
        return f"has {len(polygon) // 2} points, but needs 3 or more"
    return None


def _run_length_problem(segmentation: Any, height: int, width: int) -> str | None:
    if not isinstance(segmentation, dict) or not {"size", "counts"} <= segmentation.keys():
        return f"{shown(segmentation)} is neither a list of polygons nor run lengths (size and counts)"
    size, counts = segmentation["size"], segmentation["counts"]
    if size != [height, width] or set(map(type, size)) != {int}:
        order = " (it is height, width)" if size == [width, height] else ""
        return f"size {shown(size)} is not that of its image, [{height}, {width}]{order}"
    if isinstance(counts, str):
        try:
            (plain,) = toUncompressedRLE([{"size": size, "counts": counts.encode()}])
            counts = plain["counts"]
        except (RuntimeError, ValueError) as error:
            return f"counts {shown(counts)} are not compressed run lengths ({error})"
    if not isinstance(counts, list) or not set(map(type, counts)) <= {int} or min(counts, default=0) < 0:
        return f"counts {shown(counts)} are not whole numbers of 0 or more"
    if sum(counts) != height * width:
        return f"counts sum to {sum(counts)} px, and its image has {height * width}"
    return None


def encoded(segmentation: Any, height: int, width: int) -> Any:
    """Polygons, plain run lengths or compressed ones as faster_coco_eval takes a mask."""
    if isinstance(segmentation, list):
        return rle.merge(rle.frPyObjects(segmentation, height, width))
    if isinstance(segmentation["counts"], list):
        return rle.frPyObjects(segmentation, height, width)
    return segmentation


def _polygon_area(polygon: list[float]) -> float:
    xs, ys = polygon[::2], polygon[1::2]
    return abs(sum(xs[i - 1] * y - xs[i] * ys[i - 1] for i, y in enumerate(ys))) / 2


def _overlap(one: Box, other: Box) -> float:
    wide = min(one[0] + one[2], other[0] + other[2]) - max(one[0], other[0])
    high = min(one[1] + one[3], other[1] + other[3]) - max(one[1], other[1])
    return max(wide, 0.0) * max(high, 0.0)


def _near(one: Box, other: Box) -> bool:
    """Whether two boxes differ by at most two pixels on each side."""
    return all(abs(mine - its) <= 2 for mine, its in zip(one, other, strict=True))
