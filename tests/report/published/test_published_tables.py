import pytest

from focal_lab.errors import UserError
from focal_lab.report.published.tables import paper_tables, published


def test_rows_come_in_the_papers_order_with_their_units_in_the_field_names() -> None:
    rows = published("table10_depth")
    assert [(row["depths"], row["model"], row["params_M"]) for row in rows[:2]] == [
        ("2-2-2-2", "Swin", 21.2),
        ("2-2-2-2", "Focal", 21.7),
    ]


def test_tables_with_notes_beside_their_rows_answer_the_rows() -> None:
    assert "note" in paper_tables()["table8_window_size"]
    assert [row["top1"] for row in published("table8_window_size")] == [81.2, 82.1, 82.2, 82.3]


@pytest.mark.parametrize("key", ["table99", "training_recipes"])
def test_what_is_no_table_of_rows_is_refused_with_those_that_are(key: str) -> None:
    with pytest.raises(UserError, match=f"'{key}' is not a published table .*table7_ade20k"):
        published(key)
