"""Options that the commands about sweeps share."""

from argparse import ArgumentTypeError

import pytest

from focal_lab.sweep.commands.command_options import duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("30m", 1800), ("2.5h", 9000), ("40h", 144_000), ("2d", 172_800), (" 1 h ", 3600)],
)
def test_a_time_is_a_number_and_a_unit(text: str, seconds: float) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "h", "-1h", "1e3s", "1h30m", "40 hours", "nan s", "inf", "1 week", "5 parsecs", "\u0661h"]
)
def test_invalid_durations_are_refused_with_examples(text: str) -> None:
    with pytest.raises(ArgumentTypeError, match=r"is not a duration \(use 90s, 30m, 2.5h or 2d\)$"):
        duration(text)


def test_a_bare_number_is_refused_with_its_units_to_choose_from() -> None:
    with pytest.raises(ArgumentTypeError, match=r"^'40' is not a duration \(add a unit: 40s, 40m or 40h\)$"):
        duration("40")


def test_no_time_at_all_is_refused() -> None:
    with pytest.raises(ArgumentTypeError, match=r"^0s is too short$"):
        duration("0s")
