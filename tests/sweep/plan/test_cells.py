from typing import Any

import pytest
from support.small_project import write_sweep

from focal_lab.errors import UserError
from focal_lab.sweep.plan.cells import design_cells
from focal_lab.sweep.spec.sweep_file import load_sweep

pytestmark = pytest.mark.usefixtures("project")

FACTORS = {"net": {"A": {"backbone": "swin"}, "B": {"backbone": "focal_tiny"}}, "window_size": [7, 14, 2]}


def names(**keys: Any) -> list[str]:
    sweep = load_sweep(write_sweep(**({"factors": FACTORS} | keys)), "digits")
    return [cell.name for cell in design_cells(sweep)]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"factors": {name: list(range(1, 1001)) for name in "abc"}},
            r"factors: 1,000 \(a\) x 1,000 \(b\) x 1,000 \(c\) are 1,000,000,000 cells, more than",
        ),
        ({"seeds": 60000}, r"6 \(cells\) x 1 \(tasks\) x 60,000 \(seeds\) are 360,000 runs, more than"),
        ({"seeds": 10**9}, "seeds: 1,000,000,000 seeds are more than the 100,000 runs of a plan"),
        (
            {"search": {"trials": 10**9, "ranges": {"x": [1, 2]}}, "seeds": 1},
            "search.trials: 1,000,000,000 are",
        ),
    ],
)
def test_a_plan_of_absurd_size_is_refused_at_once(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        names(**keys)


def test_a_grid_varies_the_last_factor_fastest() -> None:
    assert names() == ["A, 7", "A, 14", "A, 2", "B, 7", "B, 14", "B, 2"]


def test_one_factor_leaves_all_others_at_their_first_level() -> None:
    factors = FACTORS | {"use_shift": [False, True]}
    varied = ["A, 7, false", "B, 7, false", "A, 14, false", "A, 2, false", "A, 7, true"]
    assert names(factors=factors, design="one_factor") == varied


def test_an_exclusion_matches_any_level_of_the_factors_it_does_not_name() -> None:
    assert names(exclude=[{"window_size": 14}, {"net": "B", "window_size": 2}]) == ["A, 7", "A, 2", "B, 7"]


def test_listed_cells_keep_their_order_and_show_factors_in_the_sweeps() -> None:
    cells = [{"window_size": 2, "net": "B"}, {"net": "A", "window_size": 14}]
    assert names(cells=cells) == ["B, 2", "A, 14"]
    assert names(cells=cells, exclude=[{"net": "B"}]) == ["A, 14"]


def test_excluding_every_cell_is_refused() -> None:
    with pytest.raises(UserError, match=r"^sweeps/small\.yaml: exclude: excludes every cell$"):
        names(exclude=[{"net": "A"}, {"net": "B"}])
