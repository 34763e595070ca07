"""Seeds of parts of a run as settings and factors of sweeps."""

import lightning.pytorch.callbacks  # noqa: F401  (with it, configurations are converted in this process)
import pytest
from support.small_project import write_sweep

from focal_lab import cli
from focal_lab.errors import UserError
from focal_lab.sweep.plan.plan import Plan, make_plan
from focal_lab.sweep.plan.settings import setting_key

pytestmark = pytest.mark.usefixtures("project")

CROSSED = {"init_seed": [0, 1, 2], "order_seed": [0, 1], "data_seed": [4, 5]}


def crossed(*overrides: str, **keys: object) -> Plan:
    return make_plan(write_sweep(**{"factors": CROSSED, "seeds": 1} | keys), overrides=overrides)


def test_seeds_have_short_names_and_the_keys_that_their_parts_have() -> None:
    assert setting_key("init_seed") == "model.init_args.init_seed" == setting_key("model.init_seed")
    assert setting_key("data_seed") == "data.init_args.data_seed" == setting_key("data.data_seed")
    assert setting_key("order_seed") == "data.init_args.order_seed" == setting_key("data.order_seed")


def test_seeds_as_factors_make_a_run_of_every_combination() -> None:
    runs = crossed().runs
    assert len({run.id for run in runs}) == len(runs) == 12
    for run in runs:
        model, data = run.config["model"]["init_args"], run.config["data"]["init_args"]
        seeds = {name: (model | data)[name] for name in CROSSED}
        assert {name: str(seed) for name, seed in seeds.items()} == run.cell.labels
        assert (run.seed, run.config["seed_everything"]) == (0, 0)


def test_a_seed_may_be_set_for_one_task_alone() -> None:
    plan = make_plan(
        write_sweep(tasks=["classification", "detection"], set={"detection.init_seed": 3}, seeds=1)
    )
    seeds = {run.task: run.config["model"]["init_args"].get("init_seed") for run in plan.runs}
    assert seeds == {"classification": None, "detection": 3}


def test_a_setting_that_replaces_a_varied_seed_is_refused() -> None:
    with pytest.raises(UserError, match=r"^--set: model\.init_seed: factors\.init_seed of .* varies this"):
        crossed("model.init_seed=3")


def test_a_misspelt_seed_is_corrected() -> None:
    with pytest.raises(UserError, match=r"'order_sed' is not a setting \(did you mean order_seed\?\)"):
        crossed("order_sed=3")


@pytest.mark.parametrize(
    ("setting", "reported"),
    [
        ("init_seed=-1", "model.init_seed: -1 is not in [0, 2^32)"),
        ("init_seed=four", "model.init_seed: Expected a int"),
        (
            "order_seed=4294967296",
            "data.init_args.order_seed: 4294967296 is out of range (use 0 to 2^32 - 1)",
        ),
        ("data_seed=1.5", "data.data_seed: Expected a int"),
        ("data_seed=-2", "data.init_args.data_seed: -2 is out of range (use 0 to 2^32 - 1)"),
        (
            "data.class_path=focal_lab.data.FashionMnistDataModule",
            "data: Option 'data_seed' is not accepted by FashionMnistDataModule: its images are given",
        ),
    ],
)
def test_a_seed_that_cannot_be_ends_the_plan_in_one_line(
    setting: str, reported: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {} if setting.startswith("data_seed") else {"data_seed": 3}
    path = str(write_sweep(factors={"window_size": [7]}, seeds=1, set=given))
    assert cli.main(["plan", path, "--no-measure", "--workers", "1", "--set", setting]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"focal-lab: {path}: {reported}")
