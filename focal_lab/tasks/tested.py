"""Records which images a test evaluated: counted during the test, and described by the data module."""

from collections import Counter
from collections.abc import Sequence
from itertools import islice
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from focal_lab.data.test_set import digests
from focal_lab.errors import UserError
from focal_lab.tasks.classes import Classes


class CountTested(Callback):
    """Counts the images of a test over all processes, without padding and unreadable ones.

    Attributes:
        count: how many different images were evaluated, None before. Images without an `image_id` count each
            time they come.
    """

    def __init__(self) -> None:
        self.count: int | None = None
        self._counts: list[Tensor] = []
        self._ids: list[Tensor] = []

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.count, self._counts, self._ids = None, [], []

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        targets = batch[1] if isinstance(batch, list | tuple) and len(batch) > 1 else None
        if isinstance(targets, Tensor):
            self._counts.append((targets >= 0).sum())  # without synchronising with the device
        elif isinstance(targets, list) and all(
            isinstance(one, dict) and "image_id" in one for one in targets
        ):
            self._ids += [one["image_id"].reshape(1) for one in targets]

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        count = int(torch.stack(self._counts).sum()) if self._counts else 0
        ids = torch.cat(self._ids).tolist() if self._ids else []
        found = gather(trainer, (count, ids))
        total = sum(count for count, _ in found) + len({one for _, part in found for one in part})
        self._counts, self._ids = [], []
        self.count = total or None
        listed = _length(trainer)
        if listed is not None and total > listed:
            rank_zero_warn(
                f"test: {total} images were evaluated, and the data has {listed}: its sampler repeats some "
                "to give each process as many, and they count twice (test with --trainer.devices=1)"
            )


def gather(trainer: Trainer, value: Any) -> list[Any]:
    """The values of all processes."""
    values = [value] * trainer.world_size
    if trainer.world_size > 1:
        torch.distributed.all_gather_object(values, value)
    return values


def refuse_repeated(ids: Sequence[Tensor], split: str) -> None:
    """Refuse images of a process that share an `image_id`; a sampler that repeats some gives each other ones.

    Raises:
        UserError: two images have the same, and only one of them would count.
    """
    numbers = torch.cat(list(ids)).tolist() if ids else []
    ((number, count),) = Counter(numbers).most_common(1) or ((0, 0),)
    if count > 1:
        raise UserError(
            f"{count} images of {split} have the image_id {number}, and only one of them would count "
            "(give each image its own number)",
            key="data",
        )


def describe_test_set(trainer: Trainer, data: Any, count: int | None) -> dict[str, Any]:
    """What a result records about the images that a trainer has tested on: how many, and their digests.

    Name and labels of each image are from the data's method `test_images()`, if it has one.
    """
    found: dict[str, Any] = {} if count is None else {"count": count}
    images = getattr(data, "test_images", None)
    listed = islice(images(), _evaluated(trainer)) if images is not None else ()
    names = [str(name) for name in Classes.of(data).names]
    known = digests(((str(name), str(label)) for name, label in listed), names)
    if images is None:
        known = {key: value for key, value in known.items() if key.startswith("class")}
    return found | known


def _length(trainer: Trainer) -> int | None:
    loader: Any = trainer.test_dataloaders
    try:
        return len(loader.dataset)
    except (AttributeError, TypeError):  # several loaders, or an iterable data set
        return None


def _evaluated(trainer: Trainer) -> int | None:
    """How many images from the start of its list the test evaluated; None for all."""
    batches = trainer.num_test_batches
    loader: Any = trainer.test_dataloaders
    size = getattr(loader, "batch_size", None)
    if len(batches) != 1 or size is None or batches[0] >= len(loader):
        return None
    return int(batches[0]) * int(size) * trainer.world_size
