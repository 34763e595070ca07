"""Numbers with units."""

import pytest

from focal_lab.utils.units import age, clock, size


def test_seconds_are_rounded_for_people() -> None:
    assert [clock(seconds) for seconds in (7.4, 293, 97_500)] == ["7 s", "4 min 53 s", "27 h 05 min"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (12, "12 B"),
        (12_345, "12.3 kB"),
        (999_960, "1.0 MB"),
        (4.5e6, "4.5 MB"),
        (3e9, "3.0 GB"),
        (2e13, "20.0 TB"),
    ],
)
def test_sizes_are_read_by_people(value: float, text: str) -> None:
    assert size(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(5, "5 s"), (90, "1 min"), (7199, "1 h"), (3 * 3600, "3 h"), (5 * 86400, "5 d")]
)
def test_ages_are_read_by_people(seconds: float, text: str) -> None:
    assert age(seconds) == text
