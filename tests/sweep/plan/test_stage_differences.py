"""A factor makes a difference in the stages where some of its levels are not the same network."""

from typing import Any

import pytest
from support.small_project import write_sweep

from focal_lab.sweep.plan.plan import differing_stages_of, make_plan
from focal_lab.sweep.plan.stage_differences import stage_sentences

pytestmark = pytest.mark.usefixtures("project")

# maps of 14, 7, 4 and 2 tokens
NETWORKS = {"Swin": {"backbone": "swin"}, "Focal": {"backbone": "focal_tiny"}}


def found(**keys: Any) -> dict[str, tuple[tuple[int, ...], int]]:
    return differing_stages_of(make_plan(write_sweep(seeds=1, **keys), suite="digits"))


def test_windows_that_are_cut_to_the_map_differ_in_the_first_stage_only() -> None:
    assert found(factors={"window_size": [7, 14]}) == {"window_size": ((1,), 4)}
    assert list(stage_sentences({"window_size": ((1,), 4)})) == [
        "window_size: differs in 1 of 4 stages (stage 1)"
    ]


def test_each_factor_is_compared_with_the_others_fixed() -> None:
    factors = {"net": NETWORKS, "window_size": [7, 14]}
    assert found(factors=factors) == {"net": ((1, 2, 3, 4), 4), "window_size": ((1,), 4)}


def test_levels_are_compared_with_all_others() -> None:
    depths = {"base": [2, 2, 2, 2], "last": [2, 2, 2, 4], "third": [2, 2, 4, 2]}
    factors = {"depth": {name: {"depths": value} for name, value in depths.items()}}
    assert found(factors=factors) == {"depth": ((3, 4), 4)}
    assert list(stage_sentences(found(factors=factors))) == ["depth: differs in 2 of 4 stages (stages 3, 4)"]


@pytest.mark.parametrize("factor", [{"model.lr": [0.001, 0.003]}, {"focal_pool": ["fc", "mean"]}])
def test_settings_that_are_not_of_single_stages_are_left_out(factor: dict[str, Any]) -> None:
    assert found(factors=factor) == {}


def test_a_factor_that_differs_everywhere_needs_no_sentence() -> None:
    assert list(stage_sentences(found(factors={"focal_levels": [1, 2]}))) == []


def test_backbones_that_are_not_ours_are_not_compared() -> None:
    other = {"ResNet": {"backbone": "resnet10t"}, "Own": {"backbone": "focal_tiny"}}
    assert found(factors={"net": other}) == {}
