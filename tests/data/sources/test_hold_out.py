from pathlib import Path

import numpy as np
import pytest

from focal_lab.data.sources.image_source import FileSource, hold_out


def source(counts, prefix=""):
    files = [(f"{prefix}{label}/{i}.jpg", label) for label, count in counts.items() for i in range(count)]
    return FileSource(Path("root"), [name for name, _ in files], [label for _, label in files])


def names(part):
    return {part.name(index) for index in range(len(part))}


def test_each_class_gives_its_share_and_no_image_is_in_both_parts():
    whole = source({0: 100, 1: 50, 2: 10})

    train, val = hold_out(whole, 0.1)

    assert np.bincount(val.labels).tolist() == [10, 5, 1]
    assert names(train) | names(val) == names(whole)
    assert not names(train) & names(val)


@pytest.mark.parametrize(("count", "held"), [(1, 0), (2, 1), (4, 1)])
def test_small_classes_give_one_image_but_not_their_last(count, held):
    train, val = hold_out(source({0: 100, 1: count}), 0.1)

    assert np.bincount(val.labels, minlength=2).tolist() == [10, held]
    assert (train.labels == 1).any()


def test_which_ones_depends_on_their_names_alone():
    _, val = hold_out(source({0: 60, 1: 60}), 0.2)
    _, without_the_other = hold_out(source({1: 60}), 0.2)
    _, elsewhere = hold_out(source({0: 60, 1: 60}, "elsewhere/"), 0.2)

    assert {name for name in names(val) if "/1/" in name} == names(without_the_other)
    assert {name.replace("elsewhere/", "") for name in names(elsewhere)} == names(val)


def test_they_are_not_the_first_ones_only():
    _, val = hold_out(source({0: 1000}), 0.1)

    numbers = sorted(int(name.rpartition("/")[2][:-4]) for name in names(val))
    assert numbers[0] < 100
    assert numbers[-1] > 900
