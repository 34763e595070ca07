"""A validation set made of the training set, where there is none."""

from hashlib import blake2b
from pathlib import PurePath

import numpy as np

from focal_lab.data.sources.base import PartSource, Source


def hold_out(source: Source, share: float) -> tuple[PartSource, PartSource]:
    """Divide training pictures into what is trained on and what is validated on.

    Stratified: each class gives its share, at least one picture where it has two. Which ones depends on the
    names of the class's files alone: not on a seed, on other classes or on where the data lies. New pictures
    change little.

    Args:
        source: all training pictures.
        share: of each class that is held out.

    Returns:
        Training and validation pictures.
    """
    held: list[int] = []
    for label in np.unique(source.labels):
        pictures = np.flatnonzero(source.labels == label).tolist()
        count = min(max(1, round(share * len(pictures))), len(pictures) - 1)
        held += sorted(pictures, key=lambda index: _number(source, index))[:count]
    chosen = np.zeros(len(source), bool)
    chosen[held] = True
    return PartSource(source, np.flatnonzero(~chosen)), PartSource(source, np.flatnonzero(chosen))


def _number(source: Source, index: int) -> tuple[bytes, int]:
    name = PurePath(source.name(index)).name.encode("utf-8", "surrogateescape")
    return blake2b(name, digest_size=8).digest(), index
