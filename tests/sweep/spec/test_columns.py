import pytest

from focal_lab.errors import UserError
from focal_lab.sweep.spec.columns import COLUMNS, find_column, with_main_columns
from focal_lab.sweep.spec.sweep_file import TASKS


def test_a_column_is_found_by_its_key() -> None:
    assert (find_column("ap_box").title, find_column("ap_box").task) == ("AP^b", "detection")


def test_an_unknown_column_is_refused_with_those_that_exist() -> None:
    with pytest.raises(UserError, match=r"^'top2' is not a column \(did you mean top5\?\)$"):
        find_column("top2")
    with pytest.raises(UserError, match=r"^'bleu' is not a column \(use params, gmacs, top1, .* or peak_"):
        find_column("bleu")


def test_every_column_belongs_to_a_task_that_exists_or_to_all_runs() -> None:
    assert {column.task for column in COLUMNS.values()} == {*TASKS, None}
    titles = [column.title for column in COLUMNS.values()]
    assert len(set(titles)) == len(titles)


def test_a_task_that_is_trained_is_shown() -> None:
    tasks = ("classification", "detection", "segmentation")
    assert with_main_columns(("params", "ap_mask"), tasks) == ("params", "ap_mask", "top1", "miou")
    assert with_main_columns(("top5", "ap_box", "macc"), tasks) == ("top5", "ap_box", "macc")
    assert with_main_columns(("params",), ("detection",)) == ("params", "ap_box")
