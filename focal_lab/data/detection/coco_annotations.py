"""Reads and checks COCO's annotation files, before anything is trained.

The format: https://cocodataset.org/#format-data. Shape suffixes: N objects of an image, H W its size in px.
"""

import json
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from faster_coco_eval.core import mask as rle
from numpy.typing import NDArray

from focal_lab.data.classification.class_names import some
from focal_lab.data.detection.annotation_checks import CheckedAnnotations, CocoObject, encoded, shown, whole
from focal_lab.errors import UserError


@dataclass(frozen=True)
class CocoImage:
    """An image of the file with its objects.

    Attributes:
        number: the file's image id.
        file: path relative to the folder of images.
        height, width: in px, after the rotation that its EXIF orientation says.
    """

    number: int
    file: str
    height: int
    width: int
    objects: tuple[CocoObject, ...]


@dataclass(frozen=True)
class CocoFile:
    """An annotation file.

    Attributes:
        path: of the file.
        images: in the file's order.
        category_ids: the file's id of each class, ascending, perhaps with gaps.
        class_names: in the same order.
    """

    path: Path
    images: tuple[CocoImage, ...]
    category_ids: tuple[int, ...]
    class_names: tuple[str, ...]

    @property
    def listed(self) -> list[str]:
        """Id and name of each class."""
        return [f"{number} {name}" for number, name in zip(self.category_ids, self.class_names, strict=True)]

    @property
    def has_masks(self) -> bool:
        """Whether every object except crowds has a mask."""
        things = [thing for image in self.images for thing in image.objects if not thing.crowd]
        return bool(things) and all(thing.segmentation for thing in things)


def read_coco(path: Path) -> CocoFile:
    """Read an annotation file, and check every entry.

    Boxes without area are left out; one warning counts them, and one each whatever else is unusual. Raises
    UserError if it is not such a file, is empty, or has an invalid entry.
    """
    content = _load(path)
    names = _categories(path, content["categories"])
    images = _images(path, content["images"])
    labels = {number: label for label, number in enumerate(names)}
    sizes = {number: (height, width) for number, (_, height, width) in images.items()}
    annotations = CheckedAnnotations(path, sizes, labels)
    for position, entry in enumerate(content.get("annotations", [])):
        annotations.add(position, entry)
    annotations.finish()
    objects = annotations.objects
    used = {thing.label for things in objects.values() for thing in things}
    unused = [name for number, name in names.items() if labels[number] not in used]
    if used and unused:
        _warn(path, f"no object is a {some(unused)} ({len(unused)} of the {len(names)} classes)")
    return CocoFile(
        path,
        tuple(CocoImage(number, *image, tuple(objects[number])) for number, image in images.items()),
        tuple(names),
        tuple(names.values()),
    )


def _categories(path: Path, entries: Sequence[Any]) -> dict[int, str]:
    """Names by id, in the order of the ids; equal names get their ids added."""
    names: dict[int, str] = {}
    for position, entry in enumerate(entries):
        number = _id(path, "categories", position, entry, names)
        name = entry.get("name", str(number))
        if not isinstance(name, str | int) or isinstance(name, bool) or not str(name).strip():
            raise UserError(f"{shown(name)} is not a name", file=path, key=f"category {number}: name")
        names[number] = str(name)
    often = Counter(names.values())
    twice = [name for name, count in often.items() if count > 1]
    if twice:
        _warn(path, f"{some(twice)} is the name of several categories; their ids are added to the names")
    return {
        number: f"{name} ({number})" if often[name] > 1 else name for number, name in sorted(names.items())
    }


def _images(path: Path, entries: Sequence[Any]) -> dict[int, tuple[str, int, int]]:
    """File, height and width by id, in the file's order."""
    images: dict[int, tuple[str, int, int]] = {}
    for position, entry in enumerate(entries):
        number = _id(path, "images", position, entry, images)

        def refused(field: str, reason: str, number: int = number) -> UserError:
            return UserError(reason, file=path, key=f"image {number}: {field}")

        for field in ("file_name", "height", "width"):
            if field not in entry:
                raise refused(field, "is missing")
        file, height, width = entry["file_name"], whole(entry["height"]), whole(entry["width"])
        if not isinstance(file, str) or not file:
            raise refused("file_name", f"{shown(file)} is not a name")
        for field, side in {"height": height, "width": width}.items():
            if side is None or side < 1:
                raise refused(field, f"{shown(entry[field])} is not a whole number of 1 or more")
        images[number] = (file, int(height or 0), int(width or 0))
    twice = [file for file, count in Counter(file for file, _, _ in images.values()).items() if count > 1]
    if twice:
        _warn(
            path,
            f"{some(twice)} is the file of several images, all of which count ({len(twice)} such files)",
        )
    return images


def _id(path: Path, section: str, position: int, entry: Any, taken: Mapping[int, Any]) -> int:
    """The id of an entry, which must be unique."""
    key = f"{section}[{position}]"
    if not isinstance(entry, dict):
        raise UserError(f"{shown(entry)} is not an object with an id", file=path, key=key)
    number = whole(entry.get("id"))
    if "id" not in entry:
        reason = "is missing"
    elif number is None:
        reason = f"{shown(entry['id'])} is not a whole number"
    elif number in taken:
        reason = f"{number} is the id of another one, too"
    else:
        return number
    raise UserError(reason, file=path, key=f"{key}.id")


def _warn(path: Path, text: str) -> None:
    warnings.warn(f"{path}: {text}", stacklevel=3)


def masks_of(objects: Sequence[CocoObject], height: int, width: int) -> NDArray[np.uint8]:
    """Masks of N objects of an image, shape (N, H, W); empty for an object without."""
    masks_NHW = np.zeros((len(objects), height, width), np.uint8)
    for mask_HW, thing in zip(masks_NHW, objects, strict=True):
        if thing.segmentation:
            mask_HW[:] = rle.decode(encoded(thing.segmentation, height, width)).reshape(height, width)
    return masks_NHW


def _load(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise UserError("does not exist", file=path) from error
    except (OSError, ValueError, RecursionError) as error:
        lines = " (one JSON object a line? COCO's files are one object)" if "Extra data" in str(error) else ""
        raise UserError(f"cannot be read as JSON: {error}{lines}", file=path) from error
    needed = "images, annotations and categories"
    if isinstance(content, list):
        reason = f"is a list, as in COCO's result files; annotation files are an object with {needed}"
        raise UserError(reason, file=path)
    if not isinstance(content, dict) or not {"images", "categories"} <= content.keys():
        raise UserError(f"is not a COCO annotation file: it needs {needed}", file=path)
    for section in ("images", "annotations", "categories"):
        if not isinstance(content.get(section, []), list):
            raise UserError(f"{shown(content[section])} is not a list", file=path, key=section)
        if section != "annotations" and not content[section]:
            raise UserError("is empty; there is nothing to train on", file=path, key=section)
    return content
