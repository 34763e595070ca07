import random
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, DistributedSampler, SequentialSampler

from focal_lab.data.classification.samplers import (
    NOTHING,
    Draw,
    EpochSampler,
    EvaluationSampler,
    draw_from,
    draw_seeds,
    drawing_apart,
)

COUNT = 103


class Numbers(Dataset):
    def __init__(self, count=COUNT):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, draw):
        index, seed = draw if isinstance(draw, tuple) else (draw, None)
        with drawing_apart() if seed is not None else nullcontext():
            if seed is not None:
                draw_from(seed)
            return index, random.random(), np.random.rand(), torch.rand(()).item()


def batches(epoch=0, processes=1, rank=0, size=4, seed=0, count=COUNT, **options):
    sampler = EpochSampler(Numbers(count), size, seed, num_replicas=processes, rank=rank, **options)
    sampler.set_epoch(epoch)
    draws = list(sampler)
    assert len(draws) == len(sampler)
    return [draws[first : first + size] for first in range(0, len(draws), size)]


GROUPS = np.repeat(np.arange(12), 9)[:COUNT]


@pytest.mark.parametrize("options", [{}, {"repeats": 3}, {"groups": GROUPS, "window": 20}])
@pytest.mark.parametrize(("processes", "size"), [(2, 6), (3, 4), (4, 3)])
def test_the_batches_of_all_processes_together_are_those_of_one(processes, size, options):
    one = batches(epoch=3, size=12, **options)
    several = [batches(3, processes, rank, size, **options) for rank in range(processes)]

    assert len(one) == COUNT // 12
    for number, batch in enumerate(one):
        assert sorted(batch) == sorted(draw for parts in several for draw in parts[number])


@pytest.mark.parametrize("options", [{}, {"groups": GROUPS, "window": 20}])
def test_no_image_is_seen_twice_in_an_epoch_and_other_ones_are_left_out_in_each(options):
    left_out = []
    for epoch in range(20):
        seen = [draw.image for batch in batches(epoch, **options) for draw in batch]
        assert len(seen) == len(set(seen)) == 100
        left_out.append(frozenset(range(COUNT)) - set(seen))

    assert len(set(left_out)) > 5


def test_order_and_seeds_follow_from_seed_and_epoch():
    assert batches(5) == batches(5)
    assert batches(5) != batches(6)
    assert batches(5) != batches(5, seed=1)
    first = {draw.image: draw.seed for batch in batches(5) for draw in batch}
    other = {draw.image: draw.seed for batch in batches(6) for draw in batch}
    assert all(first[index] != other[index] for index in first.keys() & other.keys())


def test_the_seed_of_an_image_does_not_depend_on_the_size_of_batches_or_data():
    small = {draw.image: draw.seed for batch in batches(2, size=3) for draw in batch}
    large = {draw.image: draw.seed for batch in batches(2, size=20, count=1000) for draw in batch}

    shared = small.keys() & large.keys()
    assert shared
    assert all(small[index] == large[index] for index in shared)


def test_seeds_of_an_epoch_are_all_different_and_use_all_bits():
    images, repeats = (part.ravel() for part in np.meshgrid(np.arange(50_000), np.arange(3)))
    seeds = draw_seeds(0, 0, images, repeats)

    assert len(set(seeds.tolist())) == 150_000
    bits = np.array([[(seed >> bit) & 1 for bit in range(64)] for seed in seeds[:4000].tolist()])
    assert np.abs(bits.mean(0) - 0.5).max() < 0.05


def test_repeated_augmentation_shows_fewer_images_more_often_in_an_epoch_as_long():
    draws = [draw for batch in batches(1, repeats=3) for draw in batch]
    counts = np.bincount([draw.image for draw in draws], minlength=COUNT)

    assert len(draws) == 100
    assert (counts > 0).sum() == 34  # the last one's third time was left out
    assert counts.max() == 3
    assert len({draw.seed for draw in draws}) == 100


def test_repetitions_of_an_image_go_to_different_processes():
    ranks = [{draw.image for draw in batches(1, 3, rank, 4, repeats=3)[0]} for rank in range(3)]

    assert ranks[0] == ranks[1] == ranks[2]
    assert all(len(indices) == 4 for indices in ranks)


def test_with_blocks_a_batch_reads_few_of_them_and_each_once_in_a_while():
    blocks = np.repeat(np.arange(50), 20)
    order = [
        blocks[draw.image]
        for batch in batches(0, size=50, count=1000, groups=blocks, window=100)
        for draw in batch
    ]

    # windows of five blocks: whoever keeps five reads each block once
    for first in range(0, 1000, 100):
        assert len(set(order[first : first + 100])) == 5
    assert len(set(order[:50])) > 2
    shares = [
        {blocks[draw.image] for draw in batches(0, 4, rank, 25, count=1000, groups=blocks, window=100)[0]}
        for rank in range(4)
    ]
    assert all(len(share) <= 3 for share in shares)


def test_all_blocks_are_shuffled_and_their_images_too():
    blocks = np.repeat(np.arange(50), 20)
    draws = [
        draw.image
        for batch in batches(0, size=50, count=1000, groups=blocks, window=100)
        for draw in sorted(batch)
    ]

    assert sorted(draws) == list(range(1000))
    assert np.abs(np.corrcoef(draws, np.arange(1000))[0, 1]) < 0.3


@pytest.mark.parametrize(("count", "processes"), [(10, 4), (8, 4), (3, 4), (7, 1)])
def test_evaluation_sees_each_image_once_and_is_filled_up_with_nothing(count, processes):
    parts = [
        list(EvaluationSampler(Numbers(count), num_replicas=processes, rank=rank))
        for rank in range(processes)
    ]

    assert len({len(part) for part in parts}) == 1
    judged = [index for part in parts for index in part if index != NOTHING]
    assert sorted(judged) == list(range(count))
    assert all(part == sorted(part, key=lambda i: (i == NOTHING, i)) for part in parts)


def test_predicting_in_several_processes_fills_nothing_up():
    parts = [EvaluationSampler(Numbers(10), num_replicas=4, rank=rank, filled=False) for rank in range(4)]

    assert [list(part) for part in parts] == [[0, 4, 8], [1, 5, 9], [2, 6], [3, 7]]
    assert [len(part) for part in parts] == [3, 3, 2, 2]


def test_lightning_takes_both_for_distributed_samplers():
    assert issubclass(EpochSampler, DistributedSampler)
    assert issubclass(EvaluationSampler, DistributedSampler)


def test_what_is_drawn_depends_on_the_seed_and_leaves_no_trace():
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    expected = random.random(), np.random.rand(), torch.rand(()).item()
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)

    first, second = Numbers()[Draw(3, 2**63 + 5)], Numbers()[Draw(3, 2**63 + 5)]

    assert first == second
    assert first != Numbers()[Draw(3, 6)]
    assert (random.random(), np.random.rand(), torch.rand(()).item()) == expected


def test_a_plain_index_draws_from_what_is_there():
    assert Numbers()[3] != Numbers()[3]


def test_the_number_of_processes_that_prepare_batches_changes_nothing():
    def drawn(workers):
        sampler = EpochSampler(Numbers(), 8, 0)
        loader = DataLoader(Numbers(), 8, sampler=sampler, drop_last=True, num_workers=workers)
        return [[part.tolist() for part in batch] for batch in loader]

    assert drawn(0) == drawn(2)


def test_without_a_sampler_of_ours_items_are_still_there():
    loader = DataLoader(Numbers(), 8, sampler=SequentialSampler(Numbers()))

    assert [index for batch in loader for index in batch[0].tolist()] == list(range(COUNT))
