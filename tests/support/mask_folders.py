"""A small data set of images and masks, made for a test."""

from pathlib import Path

import numpy as np
from PIL import Image

NAMES = ("sky", "tree", "road")


def write_world(root: Path, numbers: tuple[int, ...] = (0, 1, 2, 255), count: int = 3) -> Path:
    """Images 40 x 60 px with stripes of colour, and masks that have the stripes' numbers."""
    colours = np.array([(30, 60, 220), (40, 200, 50), (120, 110, 100), (0, 0, 0)], np.uint8)
    for split in ("training", "validation"):
        (root / "images" / split).mkdir(parents=True)
        (root / "annotations" / split).mkdir(parents=True)
        for i in range(count):
            stripes = (np.arange(60)[None] // 10 + np.arange(40)[:, None] // 20 + i) % len(numbers)
            Image.fromarray(colours[stripes]).save(root / "images" / split / f"p{i}.jpg")
            mask = np.array(numbers, np.uint8)[stripes]
            Image.fromarray(mask).save(root / "annotations" / split / f"p{i}.png")
    (root / "classes.txt").write_text("\n".join(NAMES) + "\n", encoding="utf-8")
    return root
