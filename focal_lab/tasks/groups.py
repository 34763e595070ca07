"""What a data module says about its test images: their sources, and groups such as equal distances.

Each is one integer for every test image, in the order of the test set.
"""

from typing import Any

import numpy as np
from lightning import Trainer
from lightning.pytorch.utilities import rank_zero_warn
from numpy.typing import NDArray

from focal_lab.tasks.recorded import Recorded, find_positions
from focal_lab.tasks.tested import gather


def clusters_of(data: Any, positions: NDArray[np.int64]) -> NDArray[np.int64] | None:
    """The source of each image, by the data's method `test_clusters`, if it has one that returns some.

    Args:
        data: a data module.
        positions: of the images in the test set.

    Raises:
        ValueError: they are not one integer for each image of the test set.
    """
    listed = data.test_clusters() if hasattr(data, "test_clusters") else None
    if listed is None:
        return None
    values = _checked(data, "test_clusters", listed, positions)
    if values.size and not 0 <= int(values.min()) <= int(values.max()) < 2**31:
        values = np.unique(values, return_inverse=True)[1]
    return values[positions].astype(np.int64)


def groups_of(data: Any, positions: NDArray[np.int64]) -> tuple[str, NDArray[np.int64]] | None:
    """What the groups are called, and the one of each image, by the data's method `test_groups`.

    Arguments and errors as in `clusters_of`; None if the data names no groups.
    """
    named = data.test_groups() if hasattr(data, "test_groups") else None
    if named is None:
        return None
    return str(named[0]), _checked(data, "test_groups", named[1], positions)[positions].astype(np.int64)


def top1_by_group(trainer: Trainer, recorded: Recorded | None, data: Any) -> dict[str, float]:
    """Top-1 accuracy in percent within each group of the evaluated test images, over all processes.

    Returns:
        `top1_<name>_<group>` -> accuracy, by rising group; empty if the data names no groups. A warning says
        why it is empty otherwise.
    """
    if not hasattr(data, "test_groups"):
        return {}
    totals: dict[tuple[str, int], list[int]] = {}
    for counts in gather(trainer, _counts(trainer, recorded, data)):
        for group, part in counts.items():
            totals[group] = [sum(pair) for pair in zip(totals.get(group, (0, 0)), part, strict=True)]
    return {f"top1_{name}_{value}": 100 * right / n for (name, value), (right, n) in sorted(totals.items())}


def _counts(trainer: Trainer, recorded: Recorded | None, data: Any) -> dict[tuple[str, int], tuple[int, int]]:
    """Group -> how many of its images this process predicted correctly, and how many it evaluated."""
    positions = None if recorded is None else find_positions(trainer, recorded)
    if recorded is None or positions is None:
        rank_zero_warn("no metrics within groups of images: the loader may give them in any order")
        return {}
    table = recorded.tables[""]
    try:
        named = groups_of(data, positions[table["image"]])
    except ValueError as error:
        rank_zero_warn(f"no metrics within groups of images: {error}")
        return {}
    if named is None:
        return {}
    name, groups = named
    right = table["prediction"] == table["label"]
    return {
        (name, int(group)): (int(right[groups == group].sum()), int((groups == group).sum()))
        for group in np.unique(groups)
    }


def _checked(data: Any, method: str, listed: Any, positions: NDArray[np.int64]) -> NDArray[Any]:
    values = np.asarray(listed)
    if values.ndim != 1 or values.dtype.kind not in "iu" or len(values) <= positions.max(initial=-1):
        raise ValueError(f"{type(data).__name__}.{method}() is not one integer for each test image")
    return values
