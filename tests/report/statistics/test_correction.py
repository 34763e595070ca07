import pytest

from focal_lab.report.statistics.correction import holm


def test_holms_correction_is_that_of_the_textbook_and_of_statsmodels() -> None:
    # statsmodels: multipletests([0.01, 0.04, 0.03, 0.005], method="holm")[1]
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005}) == pytest.approx(
        {"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02}
    )
    assert holm({1: 0.5, 2: 0.9, 3: 0.6}) == {1: 1.0, 2: 1.0, 3: 1.0}
    assert holm({}) == {}
