"""Options that the commands about sweeps share."""

import pytest

from focal_lab.errors import UserError
from focal_lab.sweep.commands.options import parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("30m", 1800), ("2.5h", 9000), ("40h", 144_000), ("2d", 172_800), (" 1 h ", 3600)],
)
def test_a_time_is_a_number_and_a_unit(text: str, seconds: float) -> None:
    assert parse_duration(text, "--budget") == seconds


@pytest.mark.parametrize("text", ["", "h", "-1h", "1e3s", "1h30m", "40 hours", "nan s", "inf", "\u0661h"])
def test_invalid_durations_are_refused_with_examples(text: str) -> None:
    with pytest.raises(UserError, match=r"is not a duration \(use 90s, 30m, 2.5h or 2d\)$") as caught:
        parse_duration(text, "--budget")
    assert caught.value.key == "--budget"


def test_a_bare_number_is_refused_with_its_units_to_choose_from() -> None:
    with pytest.raises(
        UserError, match=r"^--timeout: '40' is not a duration \(add a unit: 40s, 40m or 40h\)$"
    ):
        parse_duration("40", "--timeout")


def test_no_time_at_all_is_refused() -> None:
    with pytest.raises(UserError, match=r"^--timeout: 0s is too short$"):
        parse_duration("0s", "--timeout")
