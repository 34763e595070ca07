"""Reads COCO's annotation files and finds what is wrong with them before anything is trained.

The format: https://cocodataset.org/#format-data. Shape suffixes: N objects of a picture, H W its size in px.
"""

import json
import math
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from faster_coco_eval.core import mask as rle
from numpy.typing import NDArray

from focal_lab.errors import UserError

Segmentation = list[Any] | dict[str, Any] | None


@dataclass(frozen=True)
class Object:
    """One annotation.

    Attributes:
        box: corners (x1, y1, x2, y2) in px, within the picture; the second is exclusive.
        label: class, counted from 0 in the order of the file's category ids.
        area: of the mask, in px; of the box where the file does not say.
        crowd: whether it marks a region of many objects, which training leaves out and evaluation ignores.
        segmentation: polygons or run lengths as the file has them; None for a box only.
    """

    box: tuple[float, float, float, float]
    label: int
    area: float
    crowd: bool
    segmentation: Segmentation


@dataclass(frozen=True)
class Picture:
    """One image of the file, and what is in it.

    Attributes:
        number: the file's image id.
        file: relative to the folder of pictures.
        height, width: in px, once turned as its EXIF orientation says.
    """

    number: int
    file: str
    height: int
    width: int
    objects: tuple[Object, ...]

    def masks(self, objects: Sequence[Object]) -> NDArray[np.uint8]:
        """Masks of some of its objects, shape (N, H, W)."""
        masks = np.zeros((len(objects), self.height, self.width), np.uint8)
        for number, thing in enumerate(objects):
            masks[number] = decode(thing.segmentation, self.height, self.width)
        return masks


@dataclass(frozen=True)
class CocoFile:
    """An annotation file.

    Attributes:
        path: where it lies.
        pictures: in the file's order.
        category_ids: the file's id of each class, rising; ids may have gaps.
        class_names: in the same order.
        dropped: how many boxes had no area and were left out.
    """

    path: Path
    pictures: tuple[Picture, ...]
    category_ids: tuple[int, ...]
    class_names: tuple[str, ...]
    dropped: int

    @property
    def has_masks(self) -> bool:
        """Whether every object but the crowds has a mask."""
        things = [thing for picture in self.pictures for thing in picture.objects if not thing.crowd]
        return bool(things) and all(thing.segmentation for thing in things)


def read_coco(path: Path) -> CocoFile:
    """Read and check an annotation file. Boxes without area are dropped, which a warning counts.

    Raises:
        UserError: not such a file, nothing in it, or an annotation that points to no picture or class.
    """
    content = _load(path)
    images, categories = content["images"], content["categories"]
    annotations = content.get("annotations", [])
    for name, listed in {"images": images, "categories": categories}.items():
        if not listed:
            raise UserError("is empty; there is nothing to learn from", file=path, key=name)
    category_ids = sorted(_value(path, "categories", category, "id") for category in categories)
    _unique(path, "categories", category_ids)
    labels = {number: label for label, number in enumerate(category_ids)}
    names = {category["id"]: str(category.get("name", category["id"])) for category in categories}
    sizes = {}
    for image in images:
        number = _value(path, "images", image, "id")
        sizes[number] = _value(path, "images", image, "height"), _value(path, "images", image, "width")
        _value(path, "images", image, "file_name")
    _unique(path, "images", [image["id"] for image in images])
    objects: dict[int, list[Object]] = {number: [] for number in sizes}
    dropped = 0
    for annotation in annotations:
        thing = _object(path, annotation, sizes, labels)
        if thing is None:
            dropped += 1
        else:
            objects[annotation["image_id"]].append(thing)
    if dropped:
        warnings.warn(
            f"{path}: {dropped} of {len(annotations)} boxes have no area and are left out", stacklevel=2
        )
    return CocoFile(
        path,
        tuple(
            Picture(image["id"], image["file_name"], *sizes[image["id"]], tuple(objects[image["id"]]))
            for image in images
        ),
        tuple(category_ids),
        tuple(names[number] for number in category_ids),
        dropped,
    )


def decode(segmentation: Segmentation, height: int, width: int) -> NDArray[np.uint8]:
    """A mask (height, width) from polygons, plain run lengths or compressed ones."""
    if not segmentation:
        return np.zeros((height, width), np.uint8)
    if isinstance(segmentation, list):
        code = rle.merge(rle.frPyObjects(segmentation, height, width))
    elif isinstance(segmentation["counts"], list):
        code = rle.frPyObjects(segmentation, height, width)
    else:
        code = segmentation
    mask: NDArray[np.uint8] = np.asarray(rle.decode(code), np.uint8).reshape(height, width)
    return mask


def _load(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError("does not exist", file=path) from error
    except (OSError, ValueError) as error:
        raise UserError(f"cannot be read as JSON: {error}", file=path) from error
    if not isinstance(content, dict) or not {"images", "categories"} <= content.keys():
        raise UserError("is no COCO annotation file: it needs images, annotations and categories", file=path)
    return content


def _value(path: Path, section: str, entry: Mapping[str, Any], key: str) -> Any:
    if key not in entry:
        raise UserError(f"{json.dumps(entry)[:80]} has no {key}", file=path, key=section)
    return entry[key]


def _unique(path: Path, section: str, numbers: Sequence[Any]) -> None:
    number, count = Counter(numbers).most_common(1)[0]
    if count > 1:
        raise UserError(f"id {number} is given {count} times", file=path, key=section)


def _object(
    path: Path, annotation: Mapping[str, Any], sizes: Mapping[int, tuple[int, int]], labels: Mapping[int, int]
) -> Object | None:
    """An annotation, checked; None where its box has no area."""
    told = f"id {annotation.get('id', '?')}"
    image = _value(path, "annotations", annotation, "image_id")
    category = _value(path, "annotations", annotation, "category_id")
    if image not in sizes:
        raise UserError(
            f"{told} belongs to image {image}, which the file does not have (remove it, or add the image)",
            file=path,
            key="annotations",
        )
    if category not in labels:
        raise UserError(
            f"{told} has category {category}, which the file does not have (it has {len(labels)}, "
            f"{min(labels)} to {max(labels)})",
            file=path,
            key="annotations",
        )
    box = _value(path, "annotations", annotation, "bbox")
    if len(box) != 4 or not all(isinstance(value, int | float) and math.isfinite(value) for value in box):
        raise UserError(f"{told} has the box {box}, not 4 numbers", file=path, key="annotations")
    height, width = sizes[image]
    left, top = max(0.0, box[0]), max(0.0, box[1])
    right, bottom = min(float(width), box[0] + box[2]), min(float(height), box[1] + box[3])
    # as the detectors the paper builds on: less than a pixel is no object
    if box[2] < 1 or box[3] < 1 or right - left < 1 or bottom - top < 1:
        return None
    return Object(
        (left, top, right, bottom),
        labels[category],
        float(annotation.get("area", box[2] * box[3])),
        bool(annotation.get("iscrowd", 0)),
        annotation.get("segmentation") or None,
    )
