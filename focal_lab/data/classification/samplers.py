"""The order of images, and the seeds of their augmentation.

Both depend on the seed and the epoch alone: not on the number of processes that train or load, and not on
earlier random numbers. A training that is resumed, or continued on other devices, sees the same images.
"""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import BatchSampler, Dataset, DistributedSampler, Sampler, get_worker_info

NOTHING = -1  # stands for an image where a batch must be filled up

# parts of an epoch's random numbers
_ORDER, _DRAWS = 0, 1
# splitmix64 (Steele, Lea and Flood 2014, https://doi.org/10.1145/2660193.2660195)
_STEP, _FIRST, _SECOND = (np.uint64(n) for n in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


class Draw(NamedTuple):
    """The index of an image and the seed of its augmentation."""

    image: int
    seed: int


class EpochSampler(DistributedSampler[Any]):
    """Draws of one epoch, shuffled: what process `rank` of `num_replicas` trains on.

    The union of all processes' n-th batches is the n-th batch of a single process with `num_replicas` times
    their batch size. Images that do not fill a batch of all are left out, others in each epoch.

    Lightning does not replace subclasses of DistributedSampler, and calls `set_epoch`.

    Args:
        dataset: only its length counts.
        batch_size: images per batch and process.
        seed: of the run.
        num_replicas: processes that train together.
        rank: of this process.
        repeats: how often an image is shown with different augmentations; the epoch keeps its length, so that
            with 3 it has a third of the images (Hoffer et al. 2020, arXiv 1901.09335, as in DeiT).
        groups: the block of storage of each image, see `ImageSource`. Shuffled windows of blocks then follow
            each other, shuffled within, and a process's part of a batch is in few blocks.
        window: least number of images in a window.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        batch_size: int,
        seed: int,
        *,
        num_replicas: int = 1,
        rank: int = 0,
        repeats: int = 1,
        groups: NDArray[np.int64] | None = None,
        window: int = 2048,
    ) -> None:
        super().__init__(dataset, num_replicas=num_replicas, rank=rank, shuffle=True, seed=seed)
        self.batch_size, self.repeats = batch_size, repeats
        self.groups, self.window = groups, window
        self.batches = len(dataset) // (num_replicas * batch_size)  # type: ignore[arg-type]

    def __len__(self) -> int:
        return self.batches * self.batch_size

    def __iter__(self) -> Iterator[Draw]:
        images, repeats = self._order()
        total = self.num_replicas * self.batch_size
        for first in range(0, self.batches * total, total):
            batch = np.arange(first, first + total)
            if self.groups is None:
                mine = batch[self.rank :: self.num_replicas]
            else:
                near = batch[np.argsort(self.groups[images[batch]], kind="stable")]
                mine = near[self.rank * self.batch_size : (self.rank + 1) * self.batch_size]
            seeds = draw_seeds(self.seed, self.epoch, images[mine], repeats[mine])
            yield from map(Draw, images[mine].tolist(), seeds.tolist())

    def _order(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Images of the epoch and which repetition each is, both as long as the data set."""
        rng = np.random.default_rng([self.seed, self.epoch, _ORDER])
        count = len(self.dataset)  # type: ignore[arg-type]
        order = rng.permutation(count) if self.groups is None else _by_windows(rng, self.groups, self.window)
        places = np.arange(count)
        return order[places // self.repeats], places % self.repeats


class EvaluationSampler(DistributedSampler[Any]):
    """Every image once, in order, dealt out to the processes.

    If `filled`, NOTHING makes up for missing images, so that all processes have equally many and no image is
    evaluated twice.
    """

    def __init__(self, dataset: Dataset[Any], *, num_replicas: int, rank: int, filled: bool = True) -> None:
        super().__init__(dataset, num_replicas=num_replicas, rank=rank, shuffle=False)
        self.filled = filled

    def __len__(self) -> int:
        return self.num_samples if self.filled else len(self._mine())

    def __iter__(self) -> Iterator[int]:
        yield from self._mine()
        yield from [NOTHING] * (len(self) - len(self._mine()))

    def _mine(self) -> Sequence[int]:
        return range(self.rank, len(self.dataset), self.num_replicas)  # type: ignore[arg-type]


class AspectBatches(BatchSampler):
    """Batches of wide images and batches of tall ones, in the order of a sampler.

    The remaining images of both form the last batches, so that there are as many as without grouping.

    Args:
        sampler: the order; Lightning replaces it by a distributed one.
        batch_size: images in a batch.
        drop_last: whether a last incomplete batch is left out.
        wide: the group of each image.
    """

    def __init__(self, sampler: Sampler[int], batch_size: int, drop_last: bool, wide: Sequence[bool]) -> None:
        super().__init__(sampler, batch_size, drop_last)
        self.wide = wide

    def __iter__(self) -> Iterator[list[int]]:
        waiting: dict[bool, list[int]] = {True: [], False: []}
        for index in self.sampler:
            group = waiting[self.wide[index]]
            group.append(index)
            if len(group) == self.batch_size:
                yield group.copy()
                group.clear()
        left = [*waiting[True], *waiting[False]]
        for first in range(0, len(left), self.batch_size):
            batch = left[first : first + self.batch_size]
            if len(batch) == self.batch_size or not self.drop_last:
                yield batch


def draw_seeds(
    seed: int, epoch: int, images: NDArray[np.int64], repeats: NDArray[np.int64]
) -> NDArray[np.uint64]:
    """A 64-bit seed for each image and repetition, all different within an epoch."""
    state = np.random.default_rng([seed, epoch, _DRAWS]).integers(2**64, dtype=np.uint64)
    numbers = (repeats.astype(np.uint64) << np.uint64(40)) | images.astype(np.uint64)
    mixed = state + numbers * _STEP
    for shift, factor in ((30, _FIRST), (27, _SECOND)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * factor
    return mixed ^ (mixed >> np.uint64(31))


@contextmanager
def drawing_apart() -> Iterator[None]:
    """Restore the CPU's random number generators afterwards.

    What training draws next (dropout, mixup) then does not depend on whether it loads its images itself. A
    worker process draws for nothing else, so nothing is restored there.
    """
    if get_worker_info() is not None:
        yield
        return
    python, arrays, tensors = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(arrays)
        torch.set_rng_state(tensors)


def draw_from(seed: int) -> None:
    """Seed the generators that augmentation uses: Python's, NumPy's, and torch's on the CPU."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    # torch.manual_seed would seed the GPUs as well
    torch.default_generator.manual_seed(seed)


def _by_windows(rng: np.random.Generator, groups: NDArray[np.int64], window: int) -> NDArray[np.int64]:
    """Blocks in random order, gathered to windows of at least `window` images, each of them shuffled."""
    starts = np.flatnonzero(np.diff(groups, prepend=groups[0] - 1)) if len(groups) else groups
    blocks = np.split(np.arange(len(groups)), starts[1:])
    order: list[NDArray[np.int64]] = []
    waiting: list[NDArray[np.int64]] = []
    for number in rng.permutation(len(blocks)):
        waiting.append(blocks[number])
        if sum(map(len, waiting)) >= window:
            order.append(rng.permutation(np.concatenate(waiting)))
            waiting = []
    if waiting:
        order.append(rng.permutation(np.concatenate(waiting)))
    return np.concatenate(order)
