"""A data set of each kind whose validation images mostly have one size, and data modules that serve it."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

Size = tuple[int, int]


def image(path: Path, height: int, width: int, mode: str = "RGB") -> None:
    """A black image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((height, width, 3), np.uint8)).convert(mode).save(path)


def write_world(root: Path, sizes: list[Size], categories: int = 10, classes: int = 11) -> Path:
    """Images of these sizes as COCO has them, as folders of images and masks, and as class folders.

    Args:
        sizes: height and width of each image; 40 px or more.
        categories: of COCO's annotations.
        classes: of the masks.
    """
    for number, size in enumerate(sizes):
        image(root / f"img/{number}.png", *size)
        image(root / f"masks/{number}.png", *size, mode="L")
        for split in ("train", "val"):
            image(root / f"{split}/c{number % 2}/{number}.png", *size)
    boxes = [
        {
            "id": i + 1,
            "image_id": i + 1,
            "category_id": 1,
            "bbox": [8.5, 8.5, 24, 20],
            "area": 480,
            "iscrowd": 0,
        }
        | {"segmentation": [[8, 8, 32, 8, 32, 28, 8, 28]]}
        for i in range(len(sizes))
    ]
    images = [
        {"id": i + 1, "file_name": f"{i}.png", "height": height, "width": width}
        for i, (height, width) in enumerate(sizes)
    ]
    made = {
        "images": images,
        "annotations": boxes,
        "categories": [{"id": i + 1, "name": f"thing {i}"} for i in range(categories)],
    }
    (root / "val.json").write_text(json.dumps(made))
    (root / "classes.txt").write_text("".join(f"stuff {i}\n" for i in range(classes)))
    return root


def coco_options(root: Path) -> dict[str, Any]:
    """Options of `CocoDataModule`."""
    places = {"train_images": "img", "val_images": "img", "train_annotations": "val.json"}
    return {"root": str(root), **places, "val_annotations": "val.json", "batch_size": 1, "num_workers": 0}


def folder_options(root: Path) -> dict[str, Any]:
    """Options of `SegmentationFolder`, whose crops are smaller than the images."""
    places = {"train_images": "img", "train_masks": "masks", "val_images": "img", "val_masks": "masks"}
    return {
        "root": str(root),
        **places,
        "classes": "classes.txt",
        "image_size": 32,
        "batch_size": 1,
        "num_workers": 0,
    }


def most(sizes: list[Size]) -> Size:
    """The most frequent one."""
    ((size, _),) = Counter(sizes).most_common(1)
    return size
