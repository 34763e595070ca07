import random

import numpy as np
import torch
from timm.data.random_erasing import RandomErasing

from focal_lab.data.classification.random_erasing import NOT_ERASED, draw_rectangle, erase


def test_rectangles_are_those_that_timm_erases():
    theirs = RandomErasing(0.7, mode="const", device="cpu")
    for seed in range(300):
        ones = torch.ones(1, 40, 30)
        random.seed(seed)
        erased = theirs(ones)[0] == 0
        random.seed(seed)
        top, left, rows, columns, _ = draw_rectangle(0.7, 40, 30)
        expected = torch.zeros(40, 30, dtype=torch.bool)
        expected[top : top + rows, left : left + columns] = True
        assert torch.equal(erased, expected)


def test_the_noise_is_normal_and_follows_from_the_rectangles_seed():
    rectangles = np.array([(0, 0, 200, 200, 1), (0, 0, 200, 200, 2), NOT_ERASED])
    first, second, third = erase(torch.zeros(3, 3, 224, 224), rectangles)[:, :, :200, :200]

    assert abs(first.mean()) < 0.01
    assert abs(first.std() - 1) < 0.01
    assert not torch.equal(first, second)
    assert not third.any()
    again = erase(torch.zeros(1, 3, 224, 224), rectangles[1:2])[0, :, :200, :200]
    assert torch.equal(again, second)


def test_the_share_of_erased_images_is_the_probability():
    random.seed(0)

    erased = [draw_rectangle(0.25, 64, 64) != NOT_ERASED for _ in range(4000)]

    assert abs(np.mean(erased) - 0.25) < 0.03
