"""Tables of text."""

import time

from focal_lab.utils.text_table import TextColumn, aligned

NAMES = TextColumn("name", ("a", "long name"))
NUMBERS = TextColumn("top-1 accuracy", ("1.0", "22.25"), right=True)
WORDS = TextColumn("state", ("finished", "failed: no reason at all"), folds=True)


def lines(*columns: TextColumn, width: int | None = None) -> list[str]:
    return aligned(columns, width).splitlines()


def test_words_stand_left_and_numbers_right() -> None:
    assert lines(NAMES, NUMBERS) == [
        "name       top-1 accuracy",
        "─────────────────────────",
        "a                     1.0",
        "long name           22.25",
    ]


def test_headings_fold_before_words_and_numbers_never() -> None:
    assert lines(NAMES, NUMBERS, WORDS, width=42) == [
        "              top-1",
        "name       accuracy  state",
        "──────────────────────────────────────────",
        "a               1.0  finished",
        "long name     22.25  failed: no reason at",
        "                     all",
    ]
    assert max(map(len, lines(NAMES, NUMBERS, width=1))) == len("long name  accuracy")


def test_letters_of_two_columns_are_counted_as_two() -> None:
    column = TextColumn("n", ("窓", "ab"))
    assert lines(column, TextColumn("m", ("1", "2")))[2:] == ["窓  1", "ab  2"]


def test_what_would_break_a_row_is_blanked() -> None:
    column = TextColumn("n", ("a\nb\x1b[31m", "c"))
    assert lines(column)[2] == "a b [31m"


def test_colours_do_not_move_columns() -> None:
    red = TextColumn("state", ("failed", "ok"), style=lambda cell: "31" if cell == "failed" else "")
    text = aligned([red, NAMES], None, color=True)
    assert "\x1b[31mfailed\x1b[0m  a\n" in text
    assert "ok      long name\n" in text
    assert "\x1b" not in aligned([red, NAMES], None)


def test_a_table_without_rows_has_headings() -> None:
    assert lines(TextColumn("one", ()), TextColumn("two", ())) == ["one  two", "────────"]


def test_ten_thousand_rows_take_a_moment() -> None:
    cells = tuple(f"cell {number}" for number in range(10_000))
    start = time.process_time()
    text = aligned([TextColumn("heading", cells, folds=True)] * 8, None)
    assert text.count("\n") == 10_002
    assert time.process_time() - start < 3
