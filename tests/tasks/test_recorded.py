"""What several processes record becomes one list in the order of the test set."""

import numpy as np

from focal_lab.tasks.recorded import Recorded, in_order


def part(ids: list[int] | None, rows: list[tuple[int, int]], count: int) -> Recorded:
    """Images of one process, with rows of (image, value)."""
    image, value = np.array(rows, np.int64).reshape(-1, 2).T
    numbers = None if ids is None else np.array(ids)
    return Recorded(np.ones(count, bool), {"": {"image": image, "value": value}}, numbers)


def test_rows_of_all_processes_follow_their_images() -> None:
    first = part([40, 10], [(1, 5), (0, 6), (1, 7)], 2)
    second = part([30, 20], [(0, 8)], 2)
    found = in_order([(first, np.array([4, 1])), (second, np.array([3, 2]))])
    assert found is not None
    table, positions = found[0][""], found[1]
    assert positions.tolist() == [1, 2, 3, 4]
    assert table["image"].tolist() == [0, 0, 2, 3]
    assert table["value"].tolist() == [5, 7, 8, 6]


def test_a_repeated_image_counts_once_if_it_has_an_id() -> None:
    first, second = part([10, 30], [(0, 5), (1, 6)], 2), part([20, 10], [(0, 7), (1, 5)], 2)
    found = in_order([(first, np.array([0, 2])), (second, np.array([1, 0]))])
    assert found is not None
    assert found[0][""]["value"].tolist() == [5, 7, 6]
    unnamed = [(part(None, [(0, 5)], 1), np.array([0])), (part(None, [(0, 5)], 1), np.array([0]))]
    assert in_order(unnamed) is None


def test_padding_and_images_that_do_not_count_are_left_out() -> None:
    padded = part(None, [(0, 5), (1, 9)], 2)
    unread = Recorded(np.array([False, True]), {"": {"image": np.array([1]), "value": np.array([6])}})
    found = in_order([(padded, np.array([0, -1])), (unread, np.array([1, 2]))])
    assert found is not None
    table, positions = found[0][""], found[1]
    assert positions.tolist() == [0, 2]
    assert table["value"].tolist() == [5, 6]


def test_a_process_without_images_adds_nothing() -> None:
    found = in_order([(part([7], [(0, 5)], 1), np.array([0])), (part([], [], 0), np.zeros(0, np.int64))])
    assert found is not None
    assert found[0][""]["value"].tolist() == [5]
