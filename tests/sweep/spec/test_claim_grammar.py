import pytest

from focal_lab.errors import UserError
from focal_lab.sweep.spec.claim_grammar import parse_expectation

FACTORS = {"backbone": ["Swin-Tiny", "Focal-Tiny"], "window_size": ["7", "14"]}
ODD = {
    "interactions": ["Window", "+Local", "+Global", "+Local+Global"],
    "odd": ["a/b", "per query", "no - yes"],
}


def test_cells_are_named_by_labels_in_any_order() -> None:
    found = parse_expectation("Focal-Tiny/7 >= 14/Swin-Tiny", FACTORS, "classification")
    assert found.terms == (
        (1.0, {"backbone": "Focal-Tiny", "window_size": "7"}),
        (-1.0, {"window_size": "14", "backbone": "Swin-Tiny"}),
    )
    assert (found.metric, found.constant, found.relation) == ("top1", 0.0, "at least")


def test_sums_numbers_and_weights() -> None:
    text = "ap_box: Focal-Tiny/7 - Swin-Tiny/7 > 0.5 * Focal-Tiny/14 + 1.5"
    found = parse_expectation(text, FACTORS, "detection")
    assert found.metric == "ap_box"
    assert [weight for weight, _ in found.terms] == [1.0, -1.0, -0.5]
    assert (found.constant, found.relation) == (-1.5, "above")


def test_less_than_is_the_other_way_round() -> None:
    found = parse_expectation("Focal-Tiny <= Swin-Tiny", FACTORS, "classification")
    assert found.terms == ((-1.0, {"backbone": "Focal-Tiny"}), (1.0, {"backbone": "Swin-Tiny"}))
    assert found.relation == "at least"


def test_a_number_that_is_a_label_means_the_level() -> None:
    found = parse_expectation("14 > 7", FACTORS, "classification")
    assert found.terms == ((1.0, {"window_size": "14"}), (-1.0, {"window_size": "7"}))
    assert parse_expectation("Focal-Tiny > 7.0", FACTORS, "classification").constant == -7


def test_labels_may_hold_signs_slashes_and_spaces() -> None:
    found = parse_expectation("+Local+Global - +Local > a/b", ODD, "classification")
    labels = [labels for _, labels in found.terms]
    assert labels == [{"interactions": "+Local+Global"}, {"interactions": "+Local"}, {"odd": "a/b"}]
    assert parse_expectation("per query > +Local", ODD, "classification").terms[0] == (
        1.0,
        {"odd": "per query"},
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Focal-Tiny/7", "is not a comparison of cells"),
        ("Focal-Tiny/7 > Swin-Tiny/7 > 0", "is not a comparison of cells"),
        ("Focal-Tiny/9 > Swin-Tiny/7", "'9' which is not a level .use Swin-Tiny, Focal-Tiny, 7 or 14"),
        ("Focal-Tiny/Focal-Tiny > Swin-Tiny/7", "'Focal-Tiny' twice"),
        ("1.5 > 0.5", "compares no cells"),
        ("top9: Focal-Tiny > Swin-Tiny", "'top9' is not a column"),
        ("gmacs: Focal-Tiny > Swin-Tiny", "gmacs is not a metric of a task"),
        ("2 ** Focal-Tiny > Swin-Tiny", "which is not a level"),
        ("7 ~ 14", r"^'7 ~ 14': ~ needs a margin, .*\(7 ~ 14 within 0.5\)"),
        ("7 ~ 14 within", "within takes a number, in points of top1"),
        ("7 ~ 14 within 0.5 %", "within takes a number, in points of top1"),
        ("7 ~ 14 within nan", "within takes a number, in points of top1"),
        ("loss: 7 ~ 14 within half", r"in the unit of loss \(within 0.02\)"),
        ("7 ~ 14 within 0.005", "0.005 is not a margin of top1, which is in points from 0 to 100"),
        ("7 ~ 14 within 50", r"50 is not a margin .* \(use 0.01 to 20, such as 0.5\)"),
        ("7 ~ 14 within -1", "-1.0 is not a margin of top1 .use a number above 0"),
        ("7 > 14 within 1", "within belongs to ~, >= and <= "),
        ("7 < 14 within 1", "within belongs to ~, >= and <= "),
        ("7~14 within 0.5", "is not a comparison of cells"),
        ("7 ~ 14 ~ 7 within 1", "is not a comparison of cells"),
        ("Swin-Tiny/7 > Swin-Tiny/7", "compares cells with themselves"),
        ("Swin-Tiny/7 + 7 > 7/Swin-Tiny + 7 + 0.5", "compares cells with themselves"),
    ],
)
def test_what_is_no_comparison_says_why(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_expectation(text, FACTORS, "classification")


def test_a_label_of_two_factors_needs_all_labels() -> None:
    factors = {"shift": ["with", "without"], "ring": ["with", "without"]}
    with pytest.raises(UserError, match="'with' is a level of shift or ring; name a level of every factor"):
        parse_expectation("with > without", factors, "classification")
    found = parse_expectation("with/without > without/without", factors, "classification")
    assert found.terms[0] == (1.0, {"shift": "with", "ring": "without"})


@pytest.mark.parametrize(
    ("text", "relation", "margin"),
    [
        ("7 ~ 14 within 0.5", "same", 0.5),
        ("7 ~ 14 within 2 points", "same", 2.0),
        ("7 >= 14 within 0.5", "at least", 0.5),
        ("7 <= 14 within 0.5", "at least", 0.5),
        ("7 >= 14", "at least", None),
        ("7 < 14", "above", None),
        ("loss: 7 ~ 14 within 0.01", "same", 0.01),
    ],
)
def test_margins_of_equivalence_and_of_not_being_worse(
    text: str, relation: str, margin: float | None
) -> None:
    found = parse_expectation(text, FACTORS, "classification")
    assert (found.relation, found.margin) == (relation, margin)
