from fractions import Fraction
from itertools import permutations, product
from pathlib import Path
from random import Random

import pytest

from focal_lab.errors import UserError
from focal_lab.sweep.spec.claim_grammar import parse_expectation
from focal_lab.sweep.spec.shapley import opposite_levels, reference_levels, shapley_cells
from focal_lab.sweep.spec.sweep_file import load_sweep

LEVELS = {"a": ["0", "1"], "b": ["x", "y", "z"], "c": ["off", "on"], "d": ["p", "q"]}
GRID = {"backbone": ["Swin-Tiny", "Focal-Tiny"], "window_size": ["7", "14"]}
REFERENCES = {"backbone": "Swin-Tiny", "window_size": "7"}
SWEEP = """
factors: {backbone: [focal_tiny, focal_swin_tiny], window_size: [7, 14]}
columns: [top1]
"""


def by_permutations(factor: str, levels: dict[str, list[str]], values: dict[tuple[str, ...], float]) -> float:
    """The definition: what changing the factor adds, averaged over all orders of changing all factors."""
    orders = list(permutations(levels))
    total = 0.0
    for order in orders:
        cell = {name: labels[0] for name, labels in levels.items()}
        for name in order:
            before = values[tuple(cell.values())]
            cell[name] = levels[name][-1]
            if name == factor:
                total += values[tuple(cell.values())] - before
    return total / len(orders)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_shapley_values_equal_the_mean_over_all_orders_and_add_up(count: int) -> None:
    levels = dict(list(LEVELS.items())[:count])
    noise = Random(count)
    values = {labels: noise.gauss(80, 3) for labels in product(*levels.values())}
    references = reference_levels(levels, {})
    opposites = opposite_levels(levels, references)
    shares = {}
    for factor in levels:
        cells = shapley_cells(factor, references, opposites)
        shares[factor] = sum(weight * values[tuple(labels.values())] for weight, labels in cells)
        assert shares[factor] == pytest.approx(by_permutations(factor, levels, values), rel=1e-12)
    whole = values[tuple(opposites.values())] - values[tuple(references.values())]
    assert sum(shares.values()) == pytest.approx(whole, rel=1e-12)


def test_weights_add_up_exactly_to_the_whole_difference() -> None:
    references = reference_levels(LEVELS, {})
    opposites = opposite_levels(LEVELS, references)
    sums: dict[tuple[str, ...], Fraction] = {}
    for factor in LEVELS:
        for weight, labels in shapley_cells(factor, references, opposites):
            key = tuple(labels.values())
            sums[key] = sums.get(key, Fraction(0)) + Fraction(weight).limit_denominator(1000)
    left = {key: weight for key, weight in sums.items() if weight}
    assert left == {tuple(opposites.values()): 1, tuple(references.values()): -1}


def test_of_two_factors_the_share_is_the_simple_effect_and_half_the_interaction() -> None:
    values = {("0", "off"): 80.0, ("1", "off"): 82.0, ("0", "on"): 81.0, ("1", "on"): 87.0}
    levels = {"a": LEVELS["a"], "c": LEVELS["c"]}
    references = reference_levels(levels, {})
    cells = shapley_cells("a", references, opposite_levels(levels, references))
    share = sum(weight * values[labels["a"], labels["c"]] for weight, labels in cells)
    interaction = (87.0 - 81.0) - (82.0 - 80.0)
    assert share == (82.0 - 80.0) + interaction / 2


def test_the_reference_is_the_baselines_level_or_the_first_one() -> None:
    baseline = {"b": dict.fromkeys(LEVELS["b"], "z"), "c": {"on": "off"}, "d": {"p": "p", "q": "q"}}
    references = reference_levels(LEVELS, baseline)
    assert references == {"a": "0", "b": "z", "c": "off", "d": "p"}
    assert opposite_levels(LEVELS, references) == {"a": "1", "b": "y", "c": "on", "d": "q"}


def test_a_factor_with_one_level_takes_no_share() -> None:
    levels = {"a": ["0", "1"], "only": ["x"]}
    references = reference_levels(levels, {})
    cells = shapley_cells("a", references, opposite_levels(levels, references))
    assert cells == [(1.0, {"a": "1", "only": "x"}), (-1.0, {"a": "0", "only": "x"})]


def test_claims_weigh_the_cells_of_a_share() -> None:
    text = "ap_box: 2 * shapley(window_size) > shapley( backbone ) + 0.5"
    found = parse_expectation(text, GRID, "detection", REFERENCES)
    weights: dict[tuple[str, ...], float] = {}
    for weight, labels in found.terms:
        key = (labels["backbone"], labels["window_size"])
        weights[key] = weights.get(key, 0.0) + weight
    assert found.constant == -0.5
    assert weights == {
        ("Swin-Tiny", "7"): -0.5,
        ("Swin-Tiny", "14"): 1.5,
        ("Focal-Tiny", "7"): -1.5,
        ("Focal-Tiny", "14"): 0.5,
    }


def test_a_label_that_looks_like_a_share_is_the_label() -> None:
    factors = {"how": ["shapley(how)", "f(x)"]}
    found = parse_expectation("shapley(how) > f(x)", factors, "classification", {"how": "f(x)"})
    assert found.terms == ((1.0, {"how": "shapley(how)"}), (-1.0, {"how": "f(x)"}))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("shapley(window) > 0", r"'shapley\(window\)': 'window' is not a factor .did you mean window_size"),
        ("shaply(window_size) > 0", r"shaply is not a function .did you mean shapley\?"),
        ("shapley() > 0", r"'' is not a factor .did you mean backbone or window_size"),
        ("shapley(only) > 0", "only has a single level, so it has no effect"),
    ],
)
def test_a_share_of_nothing_is_refused(text: str, message: str) -> None:
    only = {"only": ["x"]} if "only" in text else {}
    references = REFERENCES | dict.fromkeys(only, "x")
    with pytest.raises(UserError, match=message):
        parse_expectation(text, GRID | only, "classification", references)


@pytest.mark.parametrize(
    ("change", "way"),
    [
        ("design: one_factor", "needs every combination"),
        ("exclude: [{backbone: focal_tiny, window_size: 14}]", "needs every combination"),
        ("cells: [{backbone: focal_tiny, window_size: 14}]", "needs every combination"),
        ("search: {trials: 2}", "needs every combination"),
    ],
)
def test_sweeps_without_all_combinations_have_no_shares(change: str, way: str, tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    path.write_text(f"{SWEEP}{change}\nexpect: [shapley(window_size) > 0.5]\n")
    with pytest.raises(UserError, match=rf"my\.yaml: expect\.0: 'shapley\(window_size\)' {way}"):
        load_sweep(path, "digits")


def test_shares_start_from_the_sweeps_baseline(tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    path.write_text(f"{SWEEP}baseline: {{window_size: 14}}\nexpect: [shapley(window_size) > 0.5]\n")
    (expectation,) = load_sweep(path, "digits").expectations
    assert expectation.terms == (
        (0.5, {"backbone": "focal_tiny", "window_size": "7"}),
        (-0.5, {"backbone": "focal_tiny", "window_size": "14"}),
        (0.5, {"backbone": "focal_swin_tiny", "window_size": "7"}),
        (-0.5, {"backbone": "focal_swin_tiny", "window_size": "14"}),
    )


def test_all_combinations_listed_by_hand_have_shares(tmp_path: Path) -> None:
    cells = [
        f"{{backbone: {backbone}, window_size: {size}}}"
        for backbone in ("focal_tiny", "focal_swin_tiny")
        for size in (7, 14)
    ]
    path = tmp_path / "my.yaml"
    path.write_text(f"{SWEEP}cells: [{', '.join(cells)}]\nexpect: [shapley(backbone) > 0]\n")
    (expectation,) = load_sweep(path, "digits").expectations
    assert len(expectation.terms) == 4
