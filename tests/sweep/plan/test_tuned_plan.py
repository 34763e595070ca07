"""Plans of sweeps that tune every cell."""

from collections import Counter
from pathlib import Path

import pytest

from focal_lab.errors import UserError
from focal_lab.sweep.plan.plan import make_plan

SWEEP = """
seeds: 2
factors:
  window_size: [7, 14]
set: {backbone: focal_tiny}
tune:
  trials: 3
  ranges: {model.lr: {low: 1.0e-3, high: 1.0e-2, log: true}}
"""


def written(folder: Path, text: str = SWEEP) -> Path:
    path = folder / "tuned.yaml"
    path.write_text(text)
    return path


def test_every_cell_and_seed_tries_as_many_settings_and_the_same(tmp_path: Path) -> None:
    plan = make_plan(written(tmp_path))
    counts = Counter((tuple(run.cell.labels.values()), run.seed) for run in plan.runs)
    assert counts == {(("7",), 0): 3, (("7",), 1): 3, (("14",), 0): 3, (("14",), 1): 3}
    assert len({run.id for run in plan.runs}) == 12
    tried = {
        label: [run.config["model"]["init_args"]["lr"] for run in plan.runs if run.cell.name == label]
        for label in ("7", "14")
    }
    assert tried["7"] == tried["14"]
    assert len(set(tried["7"])) == 6


def test_a_setting_that_is_tuned_may_not_be_set_elsewhere(tmp_path: Path) -> None:
    path = written(tmp_path)
    with pytest.raises(UserError, match="varies this"):
        make_plan(path, overrides=["model.lr=0.1"])
    for wrong in (
        "factors:\n  model.lr: [0.1, 0.2]",
        "factors:\n  rate: {a: {model.lr: 0.1}, b: {model.lr: 0.2}}",
    ):
        with pytest.raises(UserError, match=r"drop one|only one of them"):
            make_plan(written(tmp_path, SWEEP.replace("factors:\n  window_size: [7, 14]", wrong)))


@pytest.mark.parametrize(
    ("added", "said"),
    [("tasks: [classification, detection]", "one task"), ("search: {trials: 3}", "beside search")],
)
def test_tuning_is_for_one_task_and_no_search(tmp_path: Path, added: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        make_plan(written(tmp_path, SWEEP + added + "\n"))


def test_tasks_of_the_command_line_do_not_get_around_that(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^--tasks: tune is of one task"):
        make_plan(written(tmp_path), tasks=["classification", "detection"])


def test_an_unknown_setting_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"lrr.*is not a setting"):
        make_plan(written(tmp_path, SWEEP.replace("model.lr:", "lrr:")))
