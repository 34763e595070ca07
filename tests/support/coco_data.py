"""A small COCO data set, made for a test, with what real ones have."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

CATEGORIES = [{"id": 3, "name": "car"}, {"id": 1, "name": "person"}, {"id": 90, "name": "toothbrush"}]
RUN_LENGTHS = {"size": [40, 60], "counts": [400, 40, 1960]}  # column 10, all 40 rows


def annotation(number: int, image: int, box: list[float], **more: Any) -> dict[str, Any]:
    left, top, width, height = box
    corners = [left, top, left + width, top, left + width, top + height, left, top + height]
    made = {
        "id": number,
        "image_id": image,
        "category_id": 1,
        "bbox": box,
        "area": width * height,
        "iscrowd": 0,
        "segmentation": [corners],
    }
    return made | more


def content() -> dict[str, Any]:
    """Images 7 (wide), 8 (tall), 9 (nothing in it), 11 (a crowd only) and 12 (grey)."""
    sizes = {7: (40, 60), 8: (50, 30), 9: (40, 60), 11: (40, 60), 12: (40, 60)}
    return {
        "images": [
            {"id": number, "file_name": f"{number}.png", "height": height, "width": width}
            for number, (height, width) in sizes.items()
        ],
        "categories": [dict(category) for category in CATEGORIES],
        "annotations": [
            annotation(100, 7, [4.0, 6.0, 20.0, 10.0]),
            annotation(101, 7, [30.0, 5.0, 25.0, 30.0], category_id=90),
            annotation(102, 8, [2.0, 3.0, 10.0, 40.0], category_id=3),
            annotation(103, 11, [10.0, 0.0, 1.0, 40.0], iscrowd=1, segmentation=RUN_LENGTHS, area=40),
            annotation(104, 12, [0.0, 0.0, 60.0, 40.0]),
        ],
    }


def write(folder: Path, made: dict[str, Any]) -> Path:
    """The data set under folder: train2017, val2017 and annotations."""
    rng = np.random.default_rng(0)
    (folder / "annotations").mkdir(parents=True)
    for split in ("train2017", "val2017"):
        (folder / split).mkdir()
        for image in made["images"]:
            pixels = rng.integers(0, 256, (image["height"], image["width"], 3), np.uint8)
            picture = Image.fromarray(pixels)
            (picture.convert("L") if image["id"] == 12 else picture).save(folder / split / image["file_name"])
        file = folder / "annotations" / f"instances_{split}.json"
        file.write_text(json.dumps(made), encoding="utf-8")
    return folder


def written(path: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """An annotation file with a change made to its content."""
    made = content()
    change(made)
    path.write_text(json.dumps(made), encoding="utf-8")
    return path
