"""Holds out a part of the training images for validation."""

from hashlib import blake2b
from pathlib import PurePath

import numpy as np

from focal_lab.data.sources.base import ImageSource, PartSource


def hold_out(source: ImageSource, share: float) -> tuple[PartSource, PartSource]:
    """Split training images into training and validation, stratified by class.

    Each class gives `share` of its images, at least one if it has two. Which ones depends only on the file
    names of the class: not on a seed, on other classes or on where the data are. New images change little.
    """
    held: list[int] = []
    for label in np.unique(source.labels):
        images = np.flatnonzero(source.labels == label).tolist()
        count = min(max(1, round(share * len(images))), len(images) - 1)
        held += sorted(images, key=lambda index: _hash(source, index))[:count]
    chosen = np.zeros(len(source), bool)
    chosen[held] = True
    return PartSource(source, np.flatnonzero(~chosen)), PartSource(source, np.flatnonzero(chosen))


def _hash(source: ImageSource, index: int) -> tuple[bytes, int]:
    name = PurePath(source.name(index)).name.encode("utf-8", "surrogateescape")
    return blake2b(name, digest_size=8).digest(), index
