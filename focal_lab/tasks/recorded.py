"""What a test records of each image, brought into the order of the test set whatever the processes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from lightning import Trainer
from numpy.typing import NDArray
from torch.utils.data import BatchSampler, DataLoader, DistributedSampler, SequentialSampler

from focal_lab.data.classification.samplers import EvaluationSampler

Columns = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Recorded:
    """The images that one process has evaluated, in the order in which they came.

    Attributes:
        evaluated: whether each image counts, bool (n,); padding and unreadable images do not.
        tables: prefix of their names in the file -> columns of equal length, among them `image`, the place of
            the row's image in `evaluated`.
        ids: the `image_id` of each image; None if they have none.
    """

    evaluated: NDArray[np.bool_]
    tables: Mapping[str, Columns]
    ids: NDArray[np.int64] | None = None


def find_positions(trainer: Trainer, recorded: Recorded) -> NDArray[np.int64] | None:
    """The position in the test set of each image of this process, -1 for padding; None if it is unknown.

    It is known from the sampler if that does not shuffle, or by `image_id` where the data set has
    `image_ids`, those of its images in order.
    """
    loader = _only_loader(trainer)
    if loader is None:
        return None
    listed = getattr(loader.dataset, "image_ids", None)
    if listed is not None and recorded.ids is not None:
        place = {int(number): position for position, number in enumerate(listed)}
        found = [place.get(number, -2) for number in recorded.ids.tolist()]
        return None if -2 in found else np.array(found, np.int64)
    batches = loader.batch_sampler
    if type(batches) is not BatchSampler or not _in_order(batches.sampler):
        return None
    (evaluated,) = trainer.num_test_batches
    drawn = islice(batches, None if evaluated == float("inf") else int(evaluated))
    positions = [position for batch in drawn for position in batch]
    # fewer images came: the data set's collation leaves out some
    return np.array(positions, np.int64) if len(positions) == len(recorded.evaluated) else None


def in_order(
    parts: Sequence[tuple[Recorded, NDArray[np.int64]]],
) -> tuple[dict[str, Columns], NDArray[np.int64]] | None:
    """The tables of all processes as one, by position in the test set.

    Images with an `image_id` that came several times count once.

    Args:
        parts: of each process what it recorded, and `find_positions` of it.

    Returns:
        The tables, whose `image` counts the evaluated images from 0, and the position of each of these in
        the test set, rising. None if images without an `image_id` came several times: the metrics count them
        as often.
    """
    placed = [np.where(part.evaluated, positions, -1) for part, positions in parts]
    everywhere = np.concatenate(placed)
    positions, first = np.unique(everywhere, return_index=True)
    positions, first = positions[positions >= 0], first[positions >= 0]
    repeated = len(positions) < int((everywhere >= 0).sum())
    if repeated and any(part.ids is None for part, _ in parts):
        return None
    rank = np.full(len(everywhere), -1, np.int64)
    rank[first] = np.arange(len(first))
    starts = np.cumsum([0, *(len(part) for part in placed)])
    tables = {}
    for prefix in parts[0][0].tables:
        same = [part.tables[prefix] for part, _ in parts]
        whole = {name: np.concatenate([table[name] for table in same]) for name in same[0]}
        images = [rank[table["image"] + start] for table, start in zip(same, starts, strict=False)]
        whole["image"] = np.concatenate(images)
        order = np.argsort(whole["image"], kind="stable")
        order = order[np.searchsorted(whole["image"][order], 0) :]
        tables[prefix] = {name: column[order] for name, column in whole.items()}
    return tables, positions


def _only_loader(trainer: Trainer) -> DataLoader[Any] | None:
    loader: Any = trainer.test_dataloaders
    if isinstance(loader, list | tuple) and len(loader) == 1:
        loader = loader[0]
    return loader if isinstance(loader, DataLoader) and len(trainer.num_test_batches) == 1 else None


def _in_order(sampler: Any) -> bool:
    """Whether a sampler draws the same positions each time. Wrapped ones of users may not."""
    if type(sampler) is DistributedSampler:
        return not sampler.shuffle
    return type(sampler) in (SequentialSampler, EvaluationSampler)
